//! `./mgmt.sh up` and its like as an administrator uses them, on a cluster that the product has made of real servers: an
//! installation that is cut off, the guide for servers word by word, and what a removal leaves.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use acceptance::{Block, Shell, ansible, blocks, top};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use libtest_mimic::{Arguments, Failed, Trial};
use o2ims_types::ProvisioningRequest;
use rustix::process::{Pid, Signal, kill_process_group};
use sandbox::waiting::wait;
use sandbox::{Stack, StackOptions, inventory};
use serde_json::json;

const GUIDE: &str = "docs/servers.md";
const UP: &str = "./mgmt.sh up --bundle bundle --import 'ssh root@{}'";
/// Where an installation is cut off: when it says that it begins with this.
const CUTS: [&str; 5] = ["importing", "cert-manager", "cluster-api", "byoh", "focom-operator"];
/// How long a cluster, or an installation, may take.
const LIMIT: Duration = Duration::from_secs(400);

fn main() -> ExitCode {
    let mut trials = vec![
        Trial::test("the_product_is_installed_on_a_cluster_of_its_own_used_and_removed", || {
            let result = tokio::runtime::Runtime::new().map_err(anyhow::Error::from);
            result
                .and_then(|runtime| runtime.block_on(management()))
                .map_err(|error| Failed::from(format!("{error:#}")))
        })
        // It takes release programs, and some ten minutes.
        .with_ignored_flag(true),
    ];
    let left_out = match testenv::servers::left_out() {
        Ok(Some(why)) => Some(why),
        Ok(None) => ansible::venv().err().map(|error| format!("{error:#}")),
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(why) = left_out {
        eprintln!("LEFT OUT: the installation on real servers ({why})");
        trials.clear();
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

async fn management() -> Result<()> {
    let options = StackOptions::new(sandbox::program("o2ims-operator")?).with_servers();
    let mut stack = Stack::start(options, |line| eprintln!("{line}")).await?;
    let result = Box::pin(on(&mut stack)).await;
    result.and(stack.stop().await)
}

async fn on(stack: &mut Stack) -> Result<()> {
    let site = Site::new(stack)?;
    let guide = blocks(GUIDE)?;
    let (bundle, rest) = guide.split_first().context("the guide has no commands")?;
    site.run(bundle)?;
    // Servers of the test bed share a kernel, which takes settings of kube-proxy.
    let template = top().join("crates/sandbox/manifests/server-hosts.yaml");
    fs::copy(template, site.folder.join("bundle/manifests/cluster-template.yaml"))?;

    let client = management_cluster(stack, &site).await?;
    let before = inventory::objects(&client).await?;
    refusals(&site)?;
    let targets = [stack.debian("target-1", 13)?, stack.debian("target-2", 14)?];
    for target in &targets {
        target.power_on().await?;
    }
    site.write_input(stack)?;
    for block in rest {
        if block.commands.trim() == UP {
            for cut in CUTS {
                site.cut_off(cut)?;
            }
        }
        let text = site.run(block)?;
        ensure!(!text.contains("Warning"), "{GUIDE}:{}: the API server warns:\n{text}", block.line);
        if block.commands.trim() == UP {
            again_changes_nothing(&site)?;
            another_namespace(&site)?;
        }
        if block.commands.contains("apply -f") {
            let refused = site.refused("./mgmt.sh down --yes")?;
            for kept in ["ProvisioningRequest default/core-cluster-request", "ByoHost default/target-1"] {
                ensure!(refused.contains(kept), "down does not name {kept}:\n{refused}");
            }
        }
    }
    let after = inventory::objects(&client).await?;
    let difference: Vec<_> = before.symmetric_difference(&after).collect();
    ensure!(difference.is_empty(), "down has left, or taken too much: {difference:#?}");
    Ok(())
}

/// A cluster on the first two servers, as any request makes it; its kubeconfig is where the guide has it.
async fn management_cluster(stack: &mut Stack, site: &Site) -> Result<Client> {
    stack.make_namespace("outer").await?;
    stack.apply_cni("outer").await?;
    for server in stack.rack_up("outer", "manager", 1..=2, false).await? {
        stack.let_in(&server)?;
        server.power_on().await?;
    }
    let request = json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest",
        "metadata": {"name": "management", "namespace": "outer"},
        "spec": {
            "templateName": "byoh-workload-cluster", "templateVersion": "v1.0.0",
            "templateParameters": {
                "clusterName": "management", "k8sVersion": "v1.33.13",
                "hosts": {
                    "masters": [{"hostId": 1, "hostName": "manager-1"}], "workers": [{"hostId": 2, "hostName": "manager-2"}],
                },
            },
        },
    });
    stack.bed.apply_yaml(&request.to_string()).await?;
    let requests: Api<ProvisioningRequest> = Api::namespaced(stack.bed.admin(), "outer");
    let fulfilled = |request: Option<&ProvisioningRequest>| {
        request
            .and_then(|request| serde_json::to_value(request).ok())
            .is_some_and(|request| request["status"]["provisioningStatus"]["provisioningState"] == "fulfilled")
    };
    wait(requests, "management", "the management cluster", LIMIT, fulfilled).await?;
    let secret: Secret = Api::namespaced(stack.bed.admin(), "outer").get("management-kubeconfig").await?;
    let text = secret.data.and_then(|mut data| data.remove("value")).context("the kubeconfig has no value")?.0;
    fs::write(site.folder.join("management.kubeconfig"), &text)?;
    let kubeconfig = Kubeconfig::from_yaml(&String::from_utf8(text)?)?;
    Ok(Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)?)
}

/// What is wrong is told before anything is written, with what to do.
fn refusals(site: &Site) -> Result<()> {
    let cases = [
        ("./mgmt.sh up --kubeconfig management.kubeconfig", "up needs --bundle FOLDER"),
        ("./mgmt.sh up --kubeconfig nowhere --bundle bundle", "nowhere cannot be read"),
        ("./mgmt.sh up --kubeconfig management.kubeconfig --bundle examples", "is no bundle"),
        ("env -u KUBECONFIG ./mgmt.sh up --bundle bundle", "no management cluster is named"),
        (
            "./mgmt.sh up --kubeconfig management.kubeconfig --bundle bundle",
            "manager-2 (10.77.0.12) has none of the bundle's images",
        ),
        (
            "./mgmt.sh up --kubeconfig management.kubeconfig --bundle bundle --import ssh",
            "{} must stand for the node's address",
        ),
        (
            "./mgmt.sh up --kubeconfig management.kubeconfig --bundle bundle --import 'false {}'",
            "manager-2 (10.77.0.12): 'false 10.77.0.12 ctr' does not work",
        ),
        (
            "./mgmt.sh up --kubeconfig management.kubeconfig --bundle bundle --template examples/cni.yaml",
            "--template: examples/cni.yaml has no ClusterTemplate",
        ),
        (
            "./mgmt.sh up --kubeconfig management.kubeconfig --bundle bundle --cni management.kubeconfig",
            "--cni: management.kubeconfig has no Kubernetes objects",
        ),
        ("./mgmt.sh up --bundel bundle", "up takes no '--bundel'"),
        ("./mgmt.sh hosts --kubeconfig management.kubeconfig", "BYOH is not installed on this cluster"),
        (
            "sed 's/10.77.0.11/10.77.0.250/' management.kubeconfig >other.kubeconfig; ./mgmt.sh status --kubeconfig other.kubeconfig",
            "does not answer",
        ),
    ];
    for (commands, words) in cases {
        let text = site.refused(commands)?;
        ensure!(text.contains(words), "{commands} does not say {words:?}:\n{text}");
    }
    let text = site.shell.run("./mgmt.sh down --kubeconfig management.kubeconfig")?;
    ensure!(text.contains("nothing of what ./mgmt.sh up installs"), "down on an empty cluster says:\n{text}");
    Ok(())
}

/// A second installation leaves every object and every pod as they were.
fn again_changes_nothing(site: &Site) -> Result<()> {
    // Status comes and goes; a generation changes with what was asked for.
    let state = r#"
        kinds=$(kubectl api-resources --verbs=list,delete --output=name | grep -vE '^(events|pods)(\.|$)' | paste -sd , -)
        kubectl get "$kinds" -A -l o2ims.provisioning.oran.org/component --ignore-not-found -o \
            'jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid} {.metadata.generation}{"\n"}{end}'
        kubectl get pods -A -o 'jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[*].restartCount}{"\n"}{end}'
    "#;
    let lines = |text: String| text.lines().map(ToOwned::to_owned).collect::<BTreeSet<_>>();
    let before = lines(site.shell.run(state)?);
    ensure!(before.len() > 100, "only {} objects are there", before.len());
    site.shell.run(UP)?;
    let after = lines(site.shell.run(state)?);
    let difference: Vec<_> = before.symmetric_difference(&after).collect();
    ensure!(difference.is_empty(), "a second up has changed: {difference:#?}");
    let foreseen = site.shell.run(&format!("{UP} --dry-run"))?;
    ensure!(!foreseen.contains("would"), "a dry run foresees changes after that:\n{foreseen}");
    Ok(())
}

/// A team's namespace gets a pod network, and the rest of the installation stays as it is.
fn another_namespace(site: &Site) -> Result<()> {
    let up = format!("{UP} --namespace team-a");
    let refused = site.refused(&up)?;
    ensure!(refused.contains("there is no namespace team-a"), "{refused}");
    site.shell.run(&format!("kubectl create namespace team-a; {up}"))?;
    site.shell
        .run("kubectl -n team-a get clusterresourceset,configmap cni; kubectl -n default get clusterresourceset cni")?;
    site.shell.run("kubectl delete namespace team-a").map(drop)
}

/// A folder as the guide's reader has it.
struct Site {
    folder: PathBuf,
    shell: Shell,
}

impl Site {
    fn new(stack: &Stack) -> Result<Self> {
        let folder = stack.bed.dir().join("site");
        fs::create_dir_all(folder.join("bin"))?;
        for part in ["ansible", "ansible.cfg", "crds", "deploy", "docs", "examples"] {
            symlink(top().join(part), folder.join(part))?;
        }
        let login = stack.login()?;
        let program = |name: &str, command: String| -> Result<()> {
            let path = folder.join(name);
            fs::write(&path, format!("#!/bin/bash\nexec {command} \"$@\"\n"))?;
            Ok(fs::set_permissions(path, Permissions::from_mode(0o755))?)
        };
        program("mgmt.sh", format!("'{}'", top().join("mgmt.sh").display()))?;
        // What the reader has in the settings of ssh.
        let ssh = format!("-i '{}' -o UserKnownHostsFile='{}'", login.key.display(), login.known_hosts.display());
        program("bin/ssh", format!("/usr/bin/ssh {ssh} -o BatchMode=yes"))?;
        fs::write(folder.join("bed.json"), ansible::OF_THE_TEST_BED)?;
        let venv = ansible::venv()?;
        program("bin/ansible-playbook", format!("'{}' -e @bed.json", venv.join("bin/ansible-playbook").display()))?;
        symlink(stack.bed.kubectl(), folder.join("bin/kubectl"))?;
        let mut shell = Shell::new(folder.clone(), folder.join("environment"));
        let path = std::env::var("PATH").unwrap_or_default();
        shell.set("PATH", format!("{}:{path}", folder.join("bin").display()));
        shell.set("ANSIBLE_HOME", folder.join("ansible-home").display().to_string());
        shell.set("PYTHONDONTWRITEBYTECODE", "1");
        shell.set("LC_ALL", "C.UTF-8");
        Ok(Self { folder, shell })
    }

    fn run(&self, block: &Block) -> Result<String> {
        let begun = Instant::now();
        let text = self.shell.run_block(GUIDE, block)?;
        eprintln!("  {:.1} s", begun.elapsed().as_secs_f32());
        Ok(text)
    }

    /// Runs what must fail, and returns what it says.
    fn refused(&self, commands: &str) -> Result<String> {
        let (code, text) = self.shell.attempt(commands)?;
        ensure!(code != 0, "this succeeded: {commands}\n{text}");
        Ok(text)
    }

    /// Begins an installation and kills all of it as soon as it prints this line.
    fn cut_off(&self, at: &str) -> Result<()> {
        let mut command = self.shell.command(&format!("export KUBECONFIG=$PWD/management.kubeconfig; {UP}"));
        let mut child = command.stdout(Stdio::piped()).process_group(0).spawn()?;
        let output = child.stdout.take().context("no output")?;
        let mut seen = Vec::new();
        for line in BufReader::new(output).lines() {
            seen.push(line?);
            if seen.last().is_some_and(|line| line.starts_with(at)) {
                break;
            }
        }
        let group = Pid::from_child(&child);
        // It may have ended by itself, which is noticed below.
        let _ = kill_process_group(group, Signal::KILL);
        child.wait()?;
        ensure!(seen.last().is_some_and(|line| line.starts_with(at)), "{at:?} was never printed:\n{}", seen.join("\n"));
        eprintln!("cut off at {:?}", seen.last());
        Ok(())
    }

    /// What the guide tells its reader to write, with the addresses of these servers.
    fn write_input(&self, stack: &Stack) -> Result<()> {
        let login = stack.login()?;
        let host = |number: u8| {
            json!({
                "name": format!("target-{number}"), "address": format!("10.77.0.{}", 12 + number), "user": "root",
                "hostId": number, "keyFile": login.key,
            })
        };
        let input = json!({
            "kubeconfig": "management.kubeconfig", "namespace": "default", "k8sVersion": "v1.33.13",
            "sources": {"containerd": "files", "kubernetes": "files", "files": "bundle/hosts"},
            "hosts": [host(1), host(2)],
        });
        Ok(fs::write(self.folder.join("input.json"), serde_json::to_string_pretty(&input)?)?)
    }
}
