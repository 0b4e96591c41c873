//! The GitOps examples. Flux's real controllers apply them from a Git server, on a real management cluster with
//! simulated hosts. A real Lua runs the health script for Argo CD.

// Test code may panic.
#![allow(clippy::expect_used)]
#![allow(clippy::too_many_lines, reason = "a scenario is one story, a table one list")]

#[path = "deploy/run.rs"]
mod run;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use hostsim::{HostSpec, Site, SiteOptions};
use o2ims_types::names;
use run::{Outcome, Written, must, run, top};
use sandbox::{OperatorOptions, focom, installation, operator};
use serde_json::{Value, json};
use testenv::tools::{self, Tool};
use testenv::{Flux, ManagementCluster, Options, versions};
use tokio::io::AsyncWriteExt as _;

/// Time limit for things that take some seconds on an idle machine.
const SOON: &str = "--timeout=120s";
/// Time limit for a cluster on simulated hosts.
const CLUSTER: &str = "--timeout=300s";

fn line(text: &str) {
    eprintln!("{text}");
}

#[tokio::test]
async fn argo_cd_sees_the_health_of_every_state() {
    let judge = Judge::new().await.expect("a Lua");
    let condition = |kind: &str, status: &str, message: &str| json!({"type": kind, "status": status, "message": message, "observedGeneration": 2});
    let with = |conditions: Value| json!({"metadata": {"generation": 2}, "status": {"conditions": conditions}});
    let summary = |ready: &str, reconciling: &str, stalled: &str| {
        with(json!([
            condition("Validated", "True", ""),
            condition("Ready", ready, "what is told"),
            condition("Reconciling", reconciling, ""),
            condition("Stalled", stalled, ""),
        ]))
    };
    let mut old = summary("True", "False", "False");
    old["metadata"]["generation"] = json!(3);
    let mut leaving = summary("True", "False", "False");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    for (state, object, expected) in [
        ("new", json!({"metadata": {"generation": 1}}), "Progressing|not looked at yet"),
        ("pending or progressing", summary("False", "True", "False"), "Progressing|what is told"),
        ("unknown to the SMO", summary("Unknown", "True", "False"), "Progressing|what is told"),
        ("fulfilled", summary("True", "False", "False"), "Healthy|what is told"),
        ("failed", summary("False", "False", "True"), "Degraded|what is told"),
        ("of an older spec", old, "Progressing|not looked at yet"),
        ("deleting", leaving, "Progressing|what is told"),
        ("deletion over its time", summary("False", "False", "True"), "Degraded|what is told"),
        ("an unreachable OCloud", with(json!([condition("Ready", "False", "what is told")])), "Degraded|what is told"),
        (
            "an OCloud to be connected",
            with(json!([condition("Ready", "Unknown", "what is told")])),
            "Progressing|what is told",
        ),
    ] {
        let health = judge.health(&object).expect("a health");
        assert_eq!(health, expected, "{state}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: two clusters on simulated hosts; Flux is built first, by testenv build --slow"]
async fn flux_delivers_and_never_takes_requests_away() {
    let management = ManagementCluster::start(Options::default(), line).await.expect("a management cluster");
    let flux = Flux::start(&management, line).await.expect("Flux");
    let site = Site::new(&management, SiteOptions::default()).expect("a site");
    let outcome = story(&management, &site, &flux).await;
    if outcome.is_err() {
        for name in ["kustomize-controller", "source-controller"] {
            let log = std::fs::read_to_string(management.dir().join(format!("flux/{name}.log"))).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("{name}:\n{}", lines[lines.len().saturating_sub(25)..].join("\n"));
        }
    }
    site.shut_down().await;
    flux.stop().await.expect("Flux to stop");
    management.stop().await.expect("the management to stop");
    outcome.expect("the story");
}

async fn story(management: &ManagementCluster, site: &Site, flux: &Flux) -> Outcome {
    let git = Git::new(management.dir().join("git"))?;
    let address = git.serve().await?;
    git.make_product()?;
    git.make_fleet()?;
    let judge = Judge::new().await?;
    let cluster = Cluster::new(management)?;
    management.apply_yaml(installation::WEBHOOK_EXEMPTION).await?;

    // The examples are unchanged, except for the server's name.
    for file in ["sources", "kustomizations"] {
        let text = std::fs::read_to_string(top().join(format!("examples/gitops/flux/{file}.yaml")))?;
        ensure!(file != "sources" || text.contains("https://git.example.org"), "the examples have another server");
        cluster.apply_strictly(&text.replace("https://git.example.org", &address))?;
    }

    // There are no nodes, so no pods: the operators run as processes, and the test reports the Deployments as
    // available.
    let operators = [("o2ims-system", "o2ims-operator"), ("focom-system", "focom-operator")];
    for (namespace, name) in operators {
        cluster.kubectl(&["wait", "--for=create", SOON, "-n", namespace, &format!("deployment/{name}")], "")?;
    }
    cluster.kubectl(&["wait", "--for=condition=Established", SOON, "-f", "crds/"], "")?;
    let o2ims = management.dir().join("o2ims-operator.kubeconfig");
    management.service_account_kubeconfig("o2ims-system", "o2ims-operator", &o2ims).await?;
    let log = management.dir().join("o2ims-operator.log");
    let first = operator::Operator::start(&OperatorOptions::new(program("o2ims-operator")?), &o2ims, &log)?;
    let second = focom::start_operator(management, &OperatorOptions::new(program("focom-operator")?)).await?;
    let held = cluster.get(&["-n", "flux-system", "kustomization/o2ims-o-cloud"])?;
    ensure!(held["status"]["inventory"].is_null(), "it did not wait for the operators: {held:#}");
    for (namespace, name) in operators {
        let image = cluster.get(&["-n", namespace, &format!("deployment/{name}")])?;
        let image = &image["spec"]["template"]["spec"]["containers"][0]["image"];
        ensure!(image == &json!(format!("registry.example.org/{name}:0.1.0")), "{image}");
        cluster.simulate_available(namespace, name)?;
    }
    cluster.wait_ready("o2ims-operators", SOON)?;
    cluster.wait_ready("o2ims-o-cloud", SOON)?;

    // The requests exist and wait for hosts, and so does Flux.
    let (core, edge) = ("pr/core-cluster-request", "fpr/edge-cluster-request");
    let pending = "--for=jsonpath={.status.provisioningStatus.provisioningState}=pending";
    for request in [core, edge] {
        cluster.kubectl(&["wait", "--for=create", SOON, request], "")?;
    }
    cluster.kubectl(&["wait", pending, SOON, core], "")?;
    let waits = cluster.get(&["-n", "flux-system", "kustomization/o2ims-requests"])?;
    let ready = waits["status"]["conditions"].as_array().into_iter().flatten().find(|told| told["type"] == "Ready");
    ensure!(ready.is_some_and(|ready| ready["status"] == "Unknown"), "Flux does not wait: {waits:#}");
    ensure!(judge.health(&cluster.get(&[core])?)?.starts_with("Progressing|"), "Argo CD would not wait");
    for number in 1..=4 {
        let mut host = HostSpec::new(format!("target-{number}"), number.to_string());
        host.namespace = Some("default".to_owned());
        site.register(host).await?;
    }
    cluster.wait_ready("o2ims-requests", CLUSTER)?;
    let before = [cluster.get(&[core])?, cluster.get(&[edge])?];
    for request in &before {
        let health = judge.health(request)?;
        ensure!(health.starts_with("Healthy|"), "{health}: {request:#}");
        let kept = &request["metadata"]["annotations"]["kustomize.toolkit.fluxcd.io/prune"];
        ensure!(kept == "disabled", "the guard is not on the object: {request:#}");
    }
    for (request, key) in
        before.iter().zip([names::DELETION_PROTECTION_ANNOTATION, names::focom::DELETION_PROTECTION_ANNOTATION])
    {
        ensure!(request["metadata"]["annotations"][key] == "true", "the request is not protected: {request:#}");
    }

    // With `force`: a refused change does not make Flux delete the request, and an invalid value meets the protection
    // from deletion.
    let force = |on: bool| {
        let patch = json!({"spec": {"force": on}}).to_string();
        cluster
            .kubectl(&["patch", "-n", "flux-system", "kustomization/o2ims-requests", "--type=merge", "-p", &patch], "")
    };
    force(true)?;
    let version = &format!("k8sVersion: {}", versions::KUBERNETES);
    ensure!(installation::EXAMPLE.contains(version), "the example has another version");
    for (value, words) in [
        ("v1.32.0", "spec.templateParameters.k8sVersion cannot change from"),
        ("nonsense", "ProvisioningRequest default/core-cluster-request is protected from deletion"),
    ] {
        let changed = installation::EXAMPLE.replace(version, &format!("k8sVersion: {value}"));
        let revision = git.write("requests/core.yaml", &changed)?;
        cluster.until_refused("o2ims-requests", &revision, words)?;
    }
    force(false)?;
    let revision = git.write("requests/core.yaml", installation::EXAMPLE)?;
    cluster.reconcile("o2ims-requests", &revision)?;
    for (request, before) in [core, edge].iter().zip(&before) {
        let now = cluster.get(&[request])?;
        ensure!(now["metadata"]["uid"] == before["metadata"]["uid"], "{request} is another one: {now:#}");
        ensure!(now["metadata"]["deletionTimestamp"].is_null(), "{request} is being deleted: {now:#}");
    }

    // The request stays when its file is removed.
    let revision = git.remove("requests/core.yaml")?;
    cluster.reconcile("o2ims-requests", &revision)?;
    // The same after a mistake that removes everything without protection.
    let mistake = r#"{"spec": {"prune": true}}"#;
    cluster
        .kubectl(&["patch", "-n", "flux-system", "kustomization/o2ims-requests", "--type=merge", "-p", mistake], "")?;
    git.remove("requests/edge.yaml")?;
    let revision = git.remove("requests/unguarded.yaml")?;
    cluster.reconcile("o2ims-requests", &revision)?;
    cluster.kubectl(&["wait", "--for=delete", SOON, "configmap/unguarded"], "")?;
    // The same after the Kustomizations are deleted.
    let all = ["o2ims-requests", "o2ims-o-cloud", "o2ims-operators"];
    cluster.kubectl(&[&["delete", "-n", "flux-system", SOON, "kustomization"], &all[..]].concat(), "")?;
    for (request, before) in [core, edge].iter().zip(&before) {
        let now = cluster.get(&[request])?;
        ensure!(now["metadata"]["uid"] == before["metadata"]["uid"], "{request} is another one: {now:#}");
        ensure!(now["metadata"]["deletionTimestamp"].is_null(), "{request} is being deleted: {now:#}");
    }
    for (namespace, name) in operators {
        cluster.get(&["-n", namespace, &format!("deployment/{name}")])?;
    }

    // Argo CD's objects are valid by its CRD.
    let crd = std::fs::read_to_string(tools::argo_cd_crd(line).await?)?;
    management.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: argocd}}").await?;
    management.apply_yaml(&crd).await?;
    for path in ["examples/gitops/argocd/", "examples/gitops/argocd/applications/"] {
        let arguments = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", path];
        let written = cluster.kubectl(&arguments, "")?;
        ensure!(written.errors.is_empty(), "{path}: {}", written.errors);
    }
    ensure!(flux.failed().is_none(), "{:?}", flux.failed());
    first.stop().await?;
    second.stop().await
}

/// Path of an operator's program: cargo puts it into the folder above this test's.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let program = test.parent().and_then(Path::parent).context("no folder")?.join(name);
    ensure!(program.is_file(), "{} is missing; cargo build -p {name} makes it", program.display());
    Ok(program)
}

struct Cluster {
    kubectl: PathBuf,
    kubeconfig: String,
}

impl Cluster {
    fn new(management: &ManagementCluster) -> anyhow::Result<Self> {
        let path = management.dir().join("admin.kubeconfig");
        management.kubeconfig_as("admin", &["system:masters"], &path)?;
        let kubeconfig = path.to_str().context("not UTF-8")?.to_owned();
        Ok(Self { kubectl: management.kubectl().to_owned(), kubeconfig })
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> anyhow::Result<Written> {
        must(&self.kubectl, [&["--kubeconfig", &self.kubeconfig], arguments].concat(), input)
    }

    fn get(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&[&["get", "-o", "json"], arguments].concat(), "")?.out)?)
    }

    fn apply_strictly(&self, text: &str) -> Outcome {
        let written = self.kubectl(&["apply", "--server-side", "--validate=strict", "-f", "-"], text)?;
        ensure!(written.errors.is_empty(), "{}", written.errors);
        Ok(())
    }

    fn wait_ready(&self, name: &str, limit: &str) -> Outcome {
        let name = format!("kustomization/{name}");
        let arguments = ["--kubeconfig", &self.kubeconfig, "-n", "flux-system"];
        let wait = run(&self.kubectl, [&arguments[..], &["wait", "--for=condition=Ready", limit, &name]].concat(), "")?;
        if !wait.well {
            let last = self.get(&["-n", "flux-system", &name])?;
            anyhow::bail!("{}; last seen: {last:#}", wait.errors);
        }
        Ok(())
    }

    /// Writes the status that the controller of Deployments would write when pods run.
    fn simulate_available(&self, namespace: &str, name: &str) -> Outcome {
        let deployment = self.get(&["-n", namespace, &format!("deployment/{name}")])?;
        let status = json!({"status": {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
            "conditions": [
                {"type": "Available", "status": "True", "reason": "Simulated"},
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
            ],
        }});
        let deployment = format!("deployment/{name}");
        let patch =
            ["patch", "-n", namespace, &deployment, "--subresource=status", "--type=merge", "-p", &status.to_string()];
        self.kubectl(&patch, "").map(drop)
    }

    /// As `flux reconcile kustomization NAME --with-source`, until this revision has failed with this message.
    fn until_refused(&self, name: &str, revision: &str, words: &str) -> Outcome {
        self.ask(name)?;
        let name = format!("kustomization/{name}");
        let tried = format!("--for=jsonpath={{.status.lastAttemptedRevision}}={revision}");
        for condition in [tried.as_str(), "--for=condition=Ready=False"] {
            self.kubectl(&["wait", condition, SOON, "-n", "flux-system", &name], "")?;
        }
        let told = self.get(&["-n", "flux-system", &name])?;
        let conditions = told["status"]["conditions"].to_string();
        ensure!(conditions.contains(words), "{name} does not say {words:?}: {conditions}");
        Ok(())
    }

    /// As `flux reconcile kustomization NAME --with-source`, until this revision is applied.
    fn reconcile(&self, name: &str, revision: &str) -> Outcome {
        self.ask(name)?;
        let applied = format!("--for=jsonpath={{.status.lastAppliedRevision}}={revision}");
        self.kubectl(&["wait", &applied, SOON, "-n", "flux-system", &format!("kustomization/{name}")], "").map(drop)
    }

    /// Requests a reconciliation of the repository, and then of the Kustomization.
    fn ask(&self, name: &str) -> Outcome {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let asked = format!("reconcile.fluxcd.io/requestedAt={now}");
        for object in ["gitrepository/fleet", &format!("kustomization/{name}")] {
            self.kubectl(&["annotate", "--overwrite", "-n", "flux-system", object, &asked], "")?;
            let done = format!("--for=jsonpath={{.status.lastHandledReconcileAt}}={now}");
            if object.starts_with("git") {
                self.kubectl(&["wait", &done, SOON, "-n", "flux-system", object], "")?;
            }
        }
        Ok(())
    }
}

/// The health script in examples/gitops/argocd, run by the Lua that Argo CD uses.
struct Judge {
    lua: PathBuf,
    script: String,
}

impl Judge {
    async fn new() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(top().join("examples/gitops/argocd/argocd-cm.yaml"))?;
        let map: Value = serde_saphyr::from_str(&text)?;
        let key = |kind: &str| format!("resource.customizations.health.{kind}");
        let script = &map["data"][key("o2ims.provisioning.oran.org_ProvisioningRequest")];
        for kind in [
            "focom.nephio.org_FocomProvisioningRequest",
            "focom.nephio.org_OCloud",
            "provisioning.oran.org_TemplateInfo",
        ] {
            ensure!(&map["data"][key(kind)] == script, "{kind} has a script of its own: test it");
        }
        let script = script.as_str().context("no script")?.to_owned();
        Ok(Self { lua: tools::tool(Tool::Lua, line).await?, script })
    }

    /// State and message, separated by a bar.
    fn health(&self, object: &Value) -> anyhow::Result<String> {
        let program = format!(
            "obj = {}\nlocal health = (function()\n{}\nend)()\nio.write(health.status, '|', health.message)\n",
            lua(object),
            self.script
        );
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(&file, program)?;
        let written = must(&self.lua, [file.path()], "")?;
        ensure!(written.errors.is_empty(), "{}", written.errors);
        Ok(written.out)
    }
}

/// A JSON value as Lua.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Array(items) => format!("{{{}}}", items.iter().map(lua).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let mut text = "{".to_owned();
            for (name, value) in fields {
                let _ = write!(text, "[{}] = {}, ", Value::from(name.as_str()), lua(value));
            }
            text + "}"
        }
        // Lua reads JSON's escapes, except numeric ones.
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// A Git server on 127.0.0.1 with the repositories `o2ims` (this product) and `fleet` (a user's requests).
struct Git {
    folder: PathBuf,
}

impl Git {
    fn new(folder: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder.join("served"))?;
        Ok(Self { folder })
    }

    fn git(&self, repository: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let folder = self.folder.join(repository);
        let common =
            ["-C", folder.to_str().context("not UTF-8")?, "-c", "user.name=test", "-c", "user.email=test@example.org"];
        Ok(must(Path::new("git"), [&common[..], arguments].concat(), "")?.out)
    }

    fn begin(&self, repository: &str) -> Outcome {
        std::fs::create_dir_all(self.folder.join(repository))?;
        self.git(repository, &["init", "--quiet", "--initial-branch=main"])?;
        let served = self.folder.join(format!("served/{repository}.git"));
        let served = served.to_str().context("not UTF-8")?;
        self.git(repository, &["init", "--quiet", "--bare", "--initial-branch=main", served])?;
        self.git(repository, &["remote", "add", "origin", served]).map(drop)
    }

    /// Commits and pushes everything; returns the revision in Flux's format.
    fn publish(&self, repository: &str, message: &str) -> anyhow::Result<String> {
        self.git(repository, &["add", "--all"])?;
        self.git(repository, &["commit", "--quiet", "--message", message])?;
        self.git(repository, &["push", "--quiet", "origin", "main"])?;
        Ok(format!("main@sha1:{}", self.git(repository, &["rev-parse", "HEAD"])?.trim()))
    }

    fn make_product(&self) -> Outcome {
        self.begin("o2ims")?;
        for part in ["crds", "deploy"] {
            let to = self.folder.join("o2ims");
            must(Path::new("cp"), ["-a", part, to.to_str().context("not UTF-8")?], "")?;
        }
        self.publish("o2ims", "a version")?;
        self.git("o2ims", &["tag", "v0.1.0"])?;
        self.git("o2ims", &["push", "--quiet", "origin", "v0.1.0"]).map(drop)
    }

    fn make_fleet(&self) -> Outcome {
        self.begin("fleet")?;
        let unguarded = "{apiVersion: v1, kind: ConfigMap, metadata: {name: unguarded, namespace: default}}";
        for (file, content) in [
            ("o-cloud/cluster-template.yaml", installation::TEMPLATE),
            ("o-cloud/cni.yaml", installation::CNI),
            ("requests/core.yaml", installation::EXAMPLE),
            ("requests/edge.yaml", focom::EXAMPLE),
            ("requests/unguarded.yaml", unguarded),
            ("requests/rest.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: rest, namespace: default}}"),
        ] {
            let path = self.folder.join("fleet").join(file);
            std::fs::create_dir_all(path.parent().context("no folder")?)?;
            std::fs::write(path, content)?;
        }
        self.publish("fleet", "begin").map(drop)
    }

    fn write(&self, file: &str, content: &str) -> anyhow::Result<String> {
        std::fs::write(self.folder.join("fleet").join(file), content)?;
        self.publish("fleet", &format!("another {file}"))
    }

    fn remove(&self, file: &str) -> anyhow::Result<String> {
        std::fs::remove_file(self.folder.join("fleet").join(file))?;
        self.publish("fleet", &format!("without {file}"))
    }

    /// Serves the repositories by `git http-backend`, and returns the address.
    async fn serve(&self) -> anyhow::Result<String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let app = Router::new().fallback(backend).with_state(self.folder.join("served"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(address)
    }
}

/// Passes one request to `git http-backend`, by CGI.
async fn backend(State(root): State<PathBuf>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let answer = async {
        let mut child = tokio::process::Command::new("git")
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REQUEST_METHOD", method.as_str())
            .env("PATH_INFO", uri.path())
            .env("QUERY_STRING", uri.query().unwrap_or_default())
            .env("CONTENT_TYPE", header("content-type"))
            .env("CONTENT_LENGTH", body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
            .env("GIT_PROTOCOL", header("git-protocol"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        child.stdin.take().context("no stdin")?.write_all(&body).await?;
        let written = child.wait_with_output().await?.stdout;
        let end = written.windows(4).position(|part| part == b"\r\n\r\n").context("no headers")?;
        let mut response = Response::builder();
        for line in std::str::from_utf8(&written[..end])?.lines() {
            let (name, value) = line.split_once(": ").context("no header")?;
            response = if name == "Status" {
                response.status(value.split(' ').next().unwrap_or_default().parse::<u16>()?)
            } else {
                response.header(name, value)
            };
        }
        anyhow::Ok(response.body(axum::body::Body::from(written[end + 4..].to_vec()))?)
    };
    answer.await.unwrap_or_else(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response())
}
