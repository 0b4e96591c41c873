//! Reads a bootstrap script as the agent and kubeadm do.
//!
//! The agent handles two keys of cloud-config, `write_files` and `runcmd`: it writes the files, each rendered as a Go
//! template with one variable, and then runs the commands. It ignores everything else. Of the commands only
//! `kubeadm init` and `kubeadm join` are simulated; all others count as done.
//!
//! A script without a kubeadm command, such as an empty one, succeeds: the agent reports the host as bootstrapped,
//! although no Node will ever appear. That is [`Plan::Nothing`]. It is not made an error, because a real cluster would
//! hang in the same way.

use std::{collections::BTreeMap, io::Read};

use anyhow::{Context, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::Value;

/// What a script makes the host do.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Nothing that makes a Node.
    Nothing,
    /// Start a cluster.
    Init(Box<Init>),
    /// Join a cluster.
    Join(Join),
}

/// `kubeadm init`.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) cluster_name: Option<String>,
    /// Host and port, as written.
    pub(crate) endpoint: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) service_subnet: Option<String>,
    pub(crate) ca_cert: String,
    pub(crate) ca_key: String,
    pub(crate) sa_key: Option<String>,
    /// The document as written; kubeadm stores it in a ConfigMap.
    pub(crate) cluster_configuration: String,
    pub(crate) node: NodeRegistration,
}

/// `kubeadm join`.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) control_plane: bool,
    /// Host and port, as written.
    pub(crate) endpoint: String,
    pub(crate) token_id: String,
    pub(crate) token_secret: String,
    pub(crate) node: NodeRegistration,
}

/// How kubeadm registers the Node.
#[derive(Debug, Default)]
pub(crate) struct NodeRegistration {
    pub(crate) name: Option<String>,
    /// `None` means kubeadm's default for the role.
    pub(crate) taints: Option<Vec<Value>>,
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct CloudConfig {
    write_files: Option<Vec<WriteFile>>,
    #[serde(alias = "runCmd")]
    runcmd: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct WriteFile {
    path: String,
    #[serde(default)]
    encoding: String,
    #[serde(default)]
    content: String,
    #[serde(default)]
    append: bool,
}

/// Reads a script. `interface` is the name of the default network interface.
///
/// # Errors
/// When the script would fail on a host.
pub(crate) fn read(script: &str, interface: &str) -> anyhow::Result<Plan> {
    let config = serde_saphyr::from_str::<Option<CloudConfig>>(script)
        .context("the script is not a cloud-config")?
        .unwrap_or_default();
    let mut files = BTreeMap::<String, String>::new();
    for file in config.write_files.unwrap_or_default() {
        let content = decode(&file.content, &file.encoding).with_context(|| format!("content of {}", file.path))?;
        let content = render(&content, interface).with_context(|| format!("template in {}", file.path))?;
        let place = files.entry(file.path).or_default();
        if !file.append {
            place.clear();
        }
        place.push_str(&content);
    }
    let commands = config.runcmd.unwrap_or_default();
    // A command may be a script that was written as a file: Cluster API wraps kubeadm join in one that retries.
    let called = files.iter().filter(|(path, _)| commands.iter().any(|c| c.split_whitespace().next() == Some(path)));
    let lines = commands.iter().flat_map(|c| c.lines()).chain(called.flat_map(|(_, content)| content.lines()));
    for line in lines {
        if let Some(arguments) = arguments_of(line, "kubeadm init") {
            return init(&files, arguments).context("kubeadm init").map(|init| Plan::Init(Box::new(init)));
        }
        if let Some(arguments) = arguments_of(line, "kubeadm join") {
            return join(&files, arguments).context("kubeadm join").map(Plan::Join);
        }
    }
    Ok(Plan::Nothing)
}

/// The rest of a line after a command; `None` if the command is not in it.
fn arguments_of<'a>(line: &'a str, command: &str) -> Option<&'a str> {
    if line.trim_start().starts_with('#') {
        return None;
    }
    line.find(command).map(|at| &line[at + command.len()..])
}

/// Decodes the content of a file in `write_files`.
fn decode(content: &str, encoding: &str) -> anyhow::Result<String> {
    let (base64, gzip) = match encoding.trim().to_lowercase().as_str() {
        "gz+base64" | "gzip+base64" | "gz+b64" | "gzip+b64" => (true, true),
        "base64" | "b64" => (true, false),
        _ => (false, false),
    };
    if !base64 {
        return Ok(content.to_owned());
    }
    // Go's decoder skips line breaks.
    let packed: String = content.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let mut bytes = STANDARD.decode(packed).context("not base64")?;
    if gzip {
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut unpacked).context("not gzip")?;
        bytes = unpacked;
    }
    String::from_utf8(bytes).context("not text")
}

/// Renders a Go template whose only variable is the name of the default network interface. Constants and comments are
/// allowed, because they are used to write braces.
fn render(content: &str, interface: &str) -> anyhow::Result<String> {
    let mut rendered = String::with_capacity(content.len());
    let mut rest = content;
    while let Some(start) = rest.find("{{") {
        let action = &rest[start + 2..];
        let end = end_of_action(action).context("an action of the template is not closed")?;
        let (mut inner, mut before) = (&action[..end], &rest[..start]);
        rest = &action[end + 2..];
        if let Some(trimmed) = inner.strip_prefix("- ") {
            inner = trimmed;
            before = before.trim_end();
        }
        if let Some(trimmed) = inner.strip_suffix(" -") {
            inner = trimmed;
            rest = rest.trim_start();
        }
        let inner = inner.trim();
        rendered.push_str(before);
        if inner == ".DefaultNetworkInterfaceName" {
            rendered.push_str(interface);
        } else if let Some(constant) = constant(inner) {
            rendered.push_str(constant);
        } else {
            let comment = inner.starts_with("/*") && inner.ends_with("*/");
            ensure!(comment, "{{{{{inner}}}}} cannot be rendered, only .DefaultNetworkInterfaceName is known");
        }
    }
    rendered.push_str(rest);
    Ok(rendered)
}

/// Position of the closing braces of a template's action; braces in a quoted constant do not count.
fn end_of_action(action: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in action.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '`' => quote = Some(c),
            None if action[at..].starts_with("}}") => return Some(at),
            Some(_) | None => {}
        }
    }
    None
}

/// The content of a quoted constant.
fn constant(inner: &str) -> Option<&str> {
    ['"', '`'].iter().find_map(|quote| inner.strip_prefix(*quote)?.strip_suffix(*quote))
}

/// The documents of the file named by `--config`.
fn documents<'a>(files: &'a BTreeMap<String, String>, arguments: &str) -> anyhow::Result<Vec<(Value, &'a str)>> {
    let mut words = arguments.split_whitespace();
    let path = loop {
        let word = words.next().context("no --config")?;
        if let Some(path) = word.strip_prefix("--config=") {
            break path;
        }
        if word == "--config" {
            break words.next().context("--config without a path")?;
        }
    };
    let text = files.get(path).with_context(|| format!("{path} was not written"))?;
    let mut documents = Vec::new();
    for text in split(text) {
        let document: Value = serde_saphyr::from_str(text).with_context(|| format!("{path} is not YAML"))?;
        if !document.is_null() {
            documents.push((document, text));
        }
    }
    Ok(documents)
}

/// Splits a file into its YAML documents.
fn split(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "---" {
            pieces.push(&text[start..at]);
            start = at + line.len();
        }
        at += line.len();
    }
    pieces.push(&text[start..]);
    pieces.retain(|piece| !piece.trim().is_empty());
    pieces
}

fn of_kind<'a, 'b>(documents: &'b [(Value, &'a str)], kind: &str) -> Option<&'b (Value, &'a str)> {
    documents.iter().find(|(document, _)| document["kind"] == kind)
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn init(files: &BTreeMap<String, String>, arguments: &str) -> anyhow::Result<Init> {
    let documents = documents(files, arguments)?;
    let (cluster, written) = of_kind(&documents, "ClusterConfiguration").context("no ClusterConfiguration")?;
    let (init, _) = of_kind(&documents, "InitConfiguration").context("no InitConfiguration")?;
    let directory = text(cluster, "/certificatesDir").unwrap_or_else(|| "/etc/kubernetes/pki".to_owned());
    let file = |name: &str| files.get(&format!("{directory}/{name}")).filter(|f| !f.trim().is_empty()).cloned();
    Ok(Init {
        cluster_name: text(cluster, "/clusterName"),
        endpoint: text(cluster, "/controlPlaneEndpoint"),
        version: text(cluster, "/kubernetesVersion"),
        service_subnet: text(cluster, "/networking/serviceSubnet"),
        // Without these files kubeadm makes a CA of its own, and Cluster API can never connect.
        ca_cert: file("ca.crt").context("no CA certificate among the files")?,
        ca_key: file("ca.key").context("no CA key among the files")?,
        sa_key: file("sa.key"),
        cluster_configuration: (*written).to_owned(),
        node: node_registration(init),
    })
}

fn join(files: &BTreeMap<String, String>, arguments: &str) -> anyhow::Result<Join> {
    let documents = documents(files, arguments)?;
    let (join, _) = of_kind(&documents, "JoinConfiguration").context("no JoinConfiguration")?;
    let discovery = "/discovery/bootstrapToken";
    let endpoint = text(join, &format!("{discovery}/apiServerEndpoint")).context("no apiServerEndpoint")?;
    let token = text(join, &format!("{discovery}/token")).context("no bootstrap token")?;
    let Some((token_id, token_secret)) = token.split_once('.') else { bail!("the bootstrap token has no dot") };
    Ok(Join {
        control_plane: join.get("controlPlane").is_some_and(|value| !value.is_null()),
        endpoint,
        token_id: token_id.to_owned(),
        token_secret: token_secret.to_owned(),
        node: node_registration(join),
    })
}

fn node_registration(document: &Value) -> NodeRegistration {
    let registration = &document["nodeRegistration"];
    let extra = &registration["kubeletExtraArgs"];
    // A map in kubeadm's v1beta3, a list of names and values in v1beta4.
    let labels = text(extra, "/node-labels").or_else(|| {
        extra.as_array()?.iter().find(|arg| arg["name"] == "node-labels").and_then(|arg| text(arg, "/value"))
    });
    let labels = labels.unwrap_or_default();
    let labels = labels.split(',').filter_map(|pair| pair.trim().split_once('='));
    NodeRegistration {
        name: text(registration, "/name"),
        taints: registration["taints"].as_array().cloned(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const INIT: &str = "\
## template: jinja
#cloud-config

write_files:
-   path: /etc/kubernetes/pki/ca.crt
    owner: root:root
    permissions: '0640'
    content: |
      certificate
-   path: /etc/kubernetes/pki/ca.key
    owner: root:root
    permissions: '0600'
    content: |
      key
-   path: /run/kubeadm/kubeadm.yaml
    owner: root:root
    permissions: '0640'
    content: |
      ---
      apiVersion: kubeadm.k8s.io/v1beta4
      clusterName: c1
      controlPlaneEndpoint: 127.77.0.1:6443
      kind: ClusterConfiguration
      kubernetesVersion: v1.33.1
      networking:
        serviceSubnet: 10.128.0.0/12

      ---
      apiVersion: kubeadm.k8s.io/v1beta4
      kind: InitConfiguration
      nodeRegistration:
        imagePullPolicy: IfNotPresent
        kubeletExtraArgs:
        - name: node-labels
          value: a=b,c=
        taints: null
-   path: /run/cluster-api/placeholder
    owner: root:root
    permissions: '0640'
    content: \"This placeholder file is used to create the /run/cluster-api sub directory\"
runcmd:
  - 'kubeadm init --config /run/kubeadm/kubeadm.yaml  && echo success > /run/cluster-api/bootstrap-success.complete'
";

    fn join_script(control_plane: bool, encoding: &str, pack: impl Fn(&str) -> String) -> String {
        let role = if control_plane { "controlPlane:\n  localAPIEndpoint: {}\n" } else { "" };
        let config = format!(
            "---\napiVersion: kubeadm.k8s.io/v1beta4\n{role}discovery:\n  bootstrapToken:\n    \
             apiServerEndpoint: 127.77.0.1:6443\n    token: abcdef.0123456789abcdef\nkind: JoinConfiguration\n\
             nodeRegistration:\n  taints: []\n"
        );
        format!(
            "#cloud-config\nwrite_files:\n- path: /run/kubeadm/kubeadm-join-config.yaml\n  encoding: {encoding}\n  \
             content: {}\nruncmd:\n- kubeadm join --config /run/kubeadm/kubeadm-join-config.yaml && echo success\n",
            serde_json::to_string(&pack(&config)).unwrap()
        )
    }

    #[test]
    fn control_plane_init() {
        let Plan::Init(init) = read(INIT, "eth0").unwrap() else { panic!("not an init") };
        assert_eq!(init.cluster_name.as_deref(), Some("c1"));
        assert_eq!(init.endpoint.as_deref(), Some("127.77.0.1:6443"));
        assert_eq!(init.version.as_deref(), Some("v1.33.1"));
        assert_eq!(init.service_subnet.as_deref(), Some("10.128.0.0/12"));
        assert_eq!((init.ca_cert.as_str(), init.ca_key.as_str()), ("certificate\n", "key\n"));
        assert!(init.cluster_configuration.contains("kind: ClusterConfiguration"));
        assert!(!init.cluster_configuration.contains("InitConfiguration"));
        assert!(init.node.taints.is_none());
        assert_eq!(init.node.labels, BTreeMap::from([("a".into(), "b".into()), ("c".into(), String::new())]));
    }

    #[test]
    fn joins_in_every_encoding() {
        let plain = |text: &str| text.to_owned();
        let base64 = |text: &str| STANDARD.encode(text);
        let gzip = |text: &str| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            packer.write_all(text.as_bytes()).unwrap();
            STANDARD.encode(packer.finish().unwrap())
        };
        for control_plane in [false, true] {
            let scripts = [
                join_script(control_plane, "''", plain),
                join_script(control_plane, "base64", base64),
                join_script(control_plane, "gzip+base64", gzip),
                join_script(control_plane, "GZ+B64", gzip),
            ];
            for script in scripts {
                let Plan::Join(join) = read(&script, "eth0").unwrap() else { panic!("not a join") };
                assert_eq!(join.control_plane, control_plane);
                assert_eq!(join.endpoint, "127.77.0.1:6443");
                assert_eq!((join.token_id.as_str(), join.token_secret.as_str()), ("abcdef", "0123456789abcdef"));
                assert!(join.node.taints.is_some_and(|taints| taints.is_empty()));
            }
        }
        assert!(read(&join_script(false, "base64", plain), "eth0").is_err());
        assert!(read(&join_script(false, "gzip+base64", base64), "eth0").is_err());
    }

    #[test]
    fn a_script_without_kubeadm_succeeds_without_a_node() {
        for script in ["", "\n", "#cloud-config\n", "#cloud-config\nruncmd: []\n", "runcmd:\n- echo kubeadm\n", "{}"] {
            assert!(matches!(read(script, "eth0"), Ok(Plan::Nothing)), "{script:?}");
        }
    }

    #[test]
    fn what_fails_on_a_host_fails_here() {
        let no_ca = INIT.replace("pki/ca.key", "pki/other.key");
        let no_cluster = INIT.replace("kind: ClusterConfiguration", "kind: Other");
        let no_file = INIT.replace("--config /run/kubeadm/kubeadm.yaml", "--config /run/kubeadm/other.yaml");
        let template = INIT.replace("This placeholder", "{{ ds.meta_data.hostname }}");
        let command_list = "#cloud-config\nruncmd:\n- [kubeadm, init]\n";
        for script in [&no_ca, &no_cluster, &no_file, &template, command_list, "just words", "a: [", "- x"] {
            assert!(read(script, "eth0").is_err(), "{script}");
        }
    }

    #[test]
    fn templates_know_one_variable() {
        let rendered = |text: &str| render(text, "eth0").ok();
        assert_eq!(rendered("a {{ .DefaultNetworkInterfaceName }} b").as_deref(), Some("a eth0 b"));
        assert_eq!(rendered("a \n{{- .DefaultNetworkInterfaceName -}}\n b").as_deref(), Some("aeth0b"));
        assert_eq!(rendered("a \n{{- .DefaultNetworkInterfaceName }} b").as_deref(), Some("aeth0 b"));
        assert_eq!(rendered("{{ \"{{ x }}\" }}").as_deref(), Some("{{ x }}"));
        assert_eq!(rendered("{{/* nothing */}}").as_deref(), Some(""));
        assert_eq!(rendered("} }} {").as_deref(), Some("} }} {"));
        for wrong in ["{{ .Other }}", "{{", "{{ .DefaultNetworkInterfaceName }", "{{}}", "{{ if true }}x{{ end }}"] {
            assert_eq!(rendered(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn scripts_among_the_files_are_followed() {
        let script = join_script(false, "''", str::to_owned).replace(
            "runcmd:\n- kubeadm join",
            "- path: /usr/local/bin/kubeadm-bootstrap-script\n  content: |\n    #!/bin/bash\n    # kubeadm init\n    \
             kubeadm join --config /run/kubeadm/kubeadm-join-config.yaml\nruncmd:\n- \
             /usr/local/bin/kubeadm-bootstrap-script || echo",
        );
        assert!(matches!(read(&script, "eth0").unwrap(), Plan::Join(_)), "{script}");
    }
}
