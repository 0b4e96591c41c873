//! The playbook, from machines as they come out of the box to clusters and back, over ssh.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test they are the message")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use kube::{Api, ResourceExt as _};
use libtest_mimic::{Arguments, Trial};


use sandbox::{OperatorOptions, Stack, StackOptions, focom, installation, inventory};
use serde_json::{Value, json};
use testenv::servers::Server;
use tokio::process::Command;

type Outcome = anyhow::Result<()>;

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Set by `mgmt.sh` to the reason why there is no ansible.
const NO_ANSIBLE: &str = "O2IMS_NO_ANSIBLE";
/// Prints what every run of the playbook says.
const VERBOSE: &str = "O2IMS_PLAYBOOK_OUTPUT";
const NAMES: [&str; 4] = ["target-1", "target-2", "target-3", "target-4"];
/// How long a request may take, either way.
const REQUEST: Duration = Duration::from_secs(300);
/// What machines that share a kernel need beside the defaults: the disk is the machine's, and so is the score for the killer.
const OF_THE_TEST_BED: &str = r#"{
    "containerd_cri_settings": {"restrict_oom_score_adj": true},
    "kubernetes_kubelet_extra_args":
        "--eviction-hard=memory.available<100Mi,nodefs.available<200Mi,imagefs.available<200Mi --image-gc-high-threshold=100 --image-gc-low-threshold=99"
}"#;

fn main() -> ExitCode {
    // They share a network.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let venv = match venv() {
        Ok(venv) => venv,
        Err(why) => {
            eprintln!("LEFT OUT: what needs ansible ({why})");
            return libtest_mimic::run(&arguments, Vec::new()).exit_code();
        }
    };
    let mut trials = Vec::new();
    let mut add = |name: &str, body: fn(PathBuf) -> Outcome| {
        let venv = venv.clone();
        trials.push(Trial::test(name, move || body(venv).map_err(|error| format!("{error:#}").into())));
    };
    if let Some(why) = testenv::servers::left_out().unwrap() {
        eprintln!("LEFT OUT: what needs real servers ({why})");
    } else {
        add("machines_out_of_the_box_become_clusters_and_come_back", |venv| on_servers(venv, from_the_box_and_back));
        add("broken_machines_stop_no_others", |venv| on_servers(venv, some_are_broken));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The Python environment with ansible, or why there is none.
fn venv() -> Result<PathBuf, String> {
    if let Some(why) = std::env::var(NO_ANSIBLE).ok().filter(|why| !why.is_empty()) {
        return Err(why);
    }
    let output = std::process::Command::new(format!("{TOP}/scripts/ansible-venv")).output().unwrap();
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    Err(format!("{} {}", String::from_utf8_lossy(&output.stderr).trim(), output.status))
}

/// What a run of ansible-playbook said.
struct Run {
    success: bool,
    text: String,
    took: Duration,
}

impl Run {
    fn succeeded(self) -> anyhow::Result<Self> {
        ensure!(self.success, "the playbook failed:\n{}", self.text);
        Ok(self)
    }

    fn failed(self) -> anyhow::Result<Self> {
        ensure!(!self.success, "the playbook succeeded:\n{}", self.text);
        Ok(self)
    }

    fn says(&self, words: &str) -> Outcome {
        // Long lines are folded on the way.
        let text = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(text.contains(words), "{words:?} was not said:\n{}", self.text);
        Ok(())
    }

    /// Of a host, how many tasks were counted so in the recap.
    fn count(&self, host: &str, what: &str) -> anyhow::Result<u32> {
        let recap = self.text.split("PLAY RECAP").nth(1).context("there is no recap")?;
        let line = recap.lines().find(|line| line.split_whitespace().next() == Some(host));
        let counted =
            line.and_then(|line| line.split_whitespace().find_map(|word| word.strip_prefix(what)?.strip_prefix('=')));
        Ok(counted.with_context(|| format!("no {what} of {host} in the recap:\n{}", self.text))?.parse()?)
    }

    fn changed_nothing(&self) -> Outcome {
        for name in NAMES {
            ensure!(self.count(name, "changed")? == 0, "{name} was changed:\n{}", self.text);
        }
        Ok(())
    }
}

/// A folder with an input file, and ansible.
struct Control {
    folder: PathBuf,
    venv: PathBuf,
    /// Folder with kubectl.
    kubectl: PathBuf,
    ssh: String,
}

impl Control {
    async fn run(&self, playbook: &str, more: &[&str]) -> anyhow::Result<Run> {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{}:{path}", self.venv.join("bin").display(), self.kubectl.display());
        let begun = Instant::now();
        let output = Command::new(self.venv.join("bin/ansible-playbook"))
            .arg(format!("{TOP}/ansible/{playbook}"))
            .args(["-e", OF_THE_TEST_BED])
            .args(more)
            .current_dir(&self.folder)
            // It is what tells the playbook from where it was called.
            .env("PWD", &self.folder)
            .env("PATH", path)
            .env("ANSIBLE_HOME", self.folder.join("ansible"))
            .env("ANSIBLE_SSH_ARGS", &self.ssh)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("starting ansible-playbook")?;
        let text = [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned()).concat();
        let run = Run { success: output.status.success(), text, took: begun.elapsed() };
        eprintln!("{playbook} {}: {:.1} s", more.join(" "), run.took.as_secs_f32());
        if std::env::var_os(VERBOSE).is_some() {
            eprintln!("{}", run.text);
        }
        Ok(run)
    }
}

struct Setting {
    control: Control,
    servers: Vec<Arc<Server>>,
    input: Value,
}

impl Setting {
    fn write_input(&self) -> Outcome {
        Ok(fs::write(self.control.folder.join("input.json"), self.input.to_string())?)
    }
}

fn on_servers(venv: PathBuf, body: impl AsyncFnOnce(&mut Stack, Setting) -> Outcome) -> Outcome {
    tokio::runtime::Runtime::new()?.block_on(async {
        let line = |line: &str| eprintln!("{line}");
        let mut stack = Stack::start(StackOptions::new(program("o2ims-operator")?).with_servers(), line).await?;
        let result = async {
            let setting = setting(&mut stack, venv).await?;
            body(&mut stack, setting).await
        }
        .await;
        result.and(stack.stop().await)
    })
}

/// A program of the workspace, which `cargo test` builds for the tests of its crate.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let folder = std::env::current_exe()?.parent().and_then(Path::parent).context("a folder above this program's")?.to_owned();
    let program = folder.join(name);
    ensure!(program.is_file(), "{} is missing; cargo build -p {name} makes it", program.display());
    Ok(program)
}

/// Four machines out of the box, and the input for them.
async fn setting(stack: &mut Stack, venv: PathBuf) -> anyhow::Result<Setting> {
    let files = testenv::servers::host_files(|line| eprintln!("{line}")).await?;
    let folder = stack.bed.dir().join("control");
    fs::create_dir(&folder)?;
    stack.bed.kubeconfig_as("platform-operator", &["system:masters"], &folder.join("management.kubeconfig"))?;
    let mut servers = Vec::new();
    for (number, name) in (11..).zip(NAMES) {
        servers.push(stack.debian(name, number)?);
    }
    futures::future::try_join_all(servers.iter().map(|server| server.power_on())).await?;
    let login = stack.login()?;
    let hosts: Vec<_> = (1..)
        .zip(&servers)
        .map(|(number, server)| {
            json!({
                "name": server.name(), "address": server.address(), "user": "root", "hostId": number,
                "labels": {"rack": format!("r{number}")}, "keyFile": login.key,
            })
        })
        .collect();
    let input = json!({
        "kubeconfig": "management.kubeconfig", "k8sVersion": "v1.33.13",
        "sources": {"containerd": "files", "kubernetes": "files", "files": files}, "hosts": hosts,
    });
    let ssh =
        format!("-o UserKnownHostsFile={} -o ControlMaster=auto -o ControlPersist=20s", login.known_hosts.display());
    let kubectl = stack.bed.kubectl().parent().context("kubectl is in a folder")?.to_path_buf();
    let setting = Setting { control: Control { folder, venv, kubectl, ssh }, servers, input };
    setting.write_input()?;
    Ok(setting)
}

async fn from_the_box_and_back(stack: &mut Stack, setting: Setting) -> Outcome {
    let Setting { control, .. } = &setting;
    let hosts = inventory::hosts(stack.bed.admin(), "default");

    let check = control.run("site.yaml", &["--check"]).await?.succeeded()?;
    check.says("target-4 (10.77.0.14, hostId 4) would be registered")?;
    ensure!(hosts.list(&Default::default()).await?.items.is_empty(), "--check has registered hosts");
    let first = control.run("site.yaml", &[]).await?.succeeded()?;
    for (number, name) in (1..).zip(NAMES) {
        first.says(&format!("{name} (10.77.0.1{number}, hostId {number}) is registered"))?;
        let host = hosts.get(name).await?;
        let wanted = BTreeMap::from([("host-id", number.to_string()), ("rack", format!("r{number}"))]);
        for (label, value) in wanted {
            ensure!(host.labels().get(label) == Some(&value), "{name}: {:?}", host.labels());
        }
    }
    let second = control.run("site.yaml", &[]).await?.succeeded()?;
    second.changed_nothing()?;
    control.run("site.yaml", &["--check"]).await?.succeeded()?.changed_nothing()?;
    eprintln!("first run {:.1} s, second {:.1} s", first.took.as_secs_f32(), second.took.as_secs_f32());
    Ok(())
}

async fn some_are_broken(_stack: &mut Stack, setting: Setting) -> Outcome {
    let Setting { control, servers, .. } = &setting;
    servers[2].run(&["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", "/var/lib/containerd"]).await?;
    let run = control.run("site.yaml", &[]).await?.failed()?;
    run.says("1 of 4 hosts failed: target-3 (10.77.0.13): ")?;
    Ok(())
}
