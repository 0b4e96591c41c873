//! One server: switched on and off, and what is done on it.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;
use tokio::sync::Mutex;

use super::layers::{CONTAINERD, enable, run, write};
use super::rack::{Common, GATEWAY, PREFIX, plug, unplug};
use crate::process::Process;

/// How long a server may take until containerd, or sshd, runs; less than a second on an idle machine.
const BOOT: Duration = Duration::from_secs(60);
/// Folders of a server that are no overlay, below `/var`.
const PLAIN: [&str; 4] = ["lib/containerd", "lib/kubelet", "lib/etcd", "log"];
const AGENT: &str = "byoh-hostagent.service";

/// What is on a server from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// All that a node needs, and BYOH's agent.
    Node,
    /// The distribution, with sshd and python3.
    Debian,
}

/// How BYOH's agent is set up on a server.
#[derive(Clone, Debug)]
pub struct AgentSetup {
    /// With which it asks for its certificate.
    pub bootstrap_kubeconfig: String,
    /// Where its ByoHost is made.
    pub namespace: String,
    /// Labels of the ByoHost, `key=value`.
    pub labels: Vec<String>,
    /// It runs no scripts that install Kubernetes.
    pub skip_installation: bool,
}

/// A server of a [`super::Rack`]. Dropping it switches it off.
pub struct Server {
    common: Arc<Common>,
    name: String,
    number: u8,
    system: System,
    folder: PathBuf,
    power: Mutex<Option<Running>>,
}

struct Running {
    process: Process,
    /// Process 1 of the server, as it is numbered outside.
    first: i32,
}

impl Server {
    pub(crate) fn new(common: Arc<Common>, name: &str, number: u8, system: System) -> Result<Self> {
        let folder = common.folder.join(name);
        fs::create_dir(&folder).with_context(|| format!("cannot make server {name}"))?;
        for part in ["upper", "work", "root"] {
            fs::create_dir(folder.join(part))?;
        }
        for part in PLAIN {
            fs::create_dir_all(folder.join("data").join(part))?;
        }
        Ok(Self { common, name: name.to_owned(), number, system, folder, power: Mutex::new(None) })
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the LAN.
    pub fn address(&self) -> Ipv4Addr {
        let [a, b, c, _] = GATEWAY.octets();
        Ipv4Addr::new(a, b, c, self.number)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file on the disk of a server that is off.
    ///
    /// # Errors
    /// When it is on, or the file cannot be written.
    pub async fn write(&self, path: &str, content: &str) -> Result<()> {
        if self.power.lock().await.is_some() {
            bail!("server {} is on; its disk cannot be written from the outside", self.name);
        }
        write(&self.folder.join("upper"), path.trim_start_matches('/'), content)
    }

    /// Has BYOH's agent run from the next start on.
    ///
    /// # Errors
    /// When the server is on, or its files cannot be written.
    pub async fn set_up_agent(&self, setup: &AgentSetup) -> Result<()> {
        let labels: Vec<_> = setup.labels.iter().map(|label| format!(" --label {label}")).collect();
        let labels = labels.concat();
        let skip = if setup.skip_installation { " --skip-installation" } else { "" };
        let unit = format!(
            "[Unit]\nDescription=BYOH host agent\nAfter=network-online.target containerd.service\n\n[Service]\n\
             Environment=HOME=/root\nExecStart=/usr/local/bin/byoh-hostagent --bootstrap-kubeconfig /etc/byoh/bootstrap.conf \
             --namespace {}{labels}{skip} --metricsbindaddress 0\nRestart=always\nRestartSec=1\n\n\
             [Install]\nWantedBy=multi-user.target\n",
            setup.namespace
        );
        self.write("etc/byoh/bootstrap.conf", &setup.bootstrap_kubeconfig).await?;
        self.write(&format!("etc/systemd/system/{AGENT}"), &unit).await?;
        enable(&self.folder.join("upper"), AGENT)
    }

    /// Switches it on and waits until containerd runs, or sshd where there is no containerd yet.
    ///
    /// # Errors
    /// When it is on already, or does not come up.
    pub async fn power_on(&self) -> Result<()> {
        let mut power = self.power.lock().await;
        if power.is_some() {
            bail!("server {} is on already", self.name);
        }
        self.fill_containerd().await?;
        let groups = self.common.hierarchies.make(&self.common.name, &self.name)?;
        let groups: Vec<_> = groups.iter().map(|group| group.display().to_string()).collect();
        let arguments = [
            format!("NAME={}", self.name),
            format!("ADDRESS={}/{PREFIX}", self.address()),
            format!("GATEWAY={GATEWAY}"),
            format!("FOLDER={}", self.folder.display()),
            format!("LAYERS={}", self.lower()),
            format!("HIERARCHIES={}", self.common.hierarchies.names()),
            format!("CGROUPS={}", groups.join(" ")),
            format!("INIT={}", self.common.folder.join("init.sh").display()),
            "bash".to_owned(),
            self.common.folder.join("on.sh").display().to_string(),
        ];
        let log = self.folder.join("console");
        let started = self.boot(&arguments, &log).await;
        if started.is_err() {
            unplug(self.number).await;
            let _ = self.common.hierarchies.remove(&self.common.name, Some(&self.name)).await;
        }
        *power = Some(started?);
        Ok(())
    }

    fn lower(&self) -> String {
        match self.system {
            System::Node => self.common.layers.lower(),
            System::Debian => self.common.layers.lower_of_debian(),
        }
    }

    async fn boot(&self, arguments: &[String], log: &Path) -> Result<Running> {
        let process = Process::start(&format!("server {}", self.name), Path::new("/usr/bin/env"), arguments, log)?;
        process.wait_ready(BOOT, || async { first_of(&process).is_some() }).await?;
        let first = first_of(&process).context("its first process is gone")?;
        plug(self.number, first).await?;
        let service = match self.system {
            System::Node => "containerd",
            System::Debian => "ssh",
        };
        let active = ["systemctl", "is-active", "--quiet", service];
        process
            .wait_ready(BOOT, || async { enter(first, &active).output().await.is_ok_and(|out| out.status.success()) })
            .await?;
        Ok(Running { process, first })
    }

    /// Cuts the power: no process of it gets another instruction, and its card is dead. Nothing happens if it is off.
    ///
    /// # Errors
    /// When a process or a control group stays.
    pub async fn power_off(&self) -> Result<()> {
        let Some(running) = self.power.lock().await.take() else { return Ok(()) };
        unplug(self.number).await;
        running.process.kill().await?;
        self.common.hierarchies.remove(&self.common.name, Some(&self.name)).await
    }

    /// Cuts the power and switches it on again.
    ///
    /// # Errors
    /// As [`Server::power_off`] and [`Server::power_on`].
    pub async fn power_cycle(&self) -> Result<()> {
        self.power_off().await?;
        self.power_on().await
    }

    /// Takes it out of the rack, with its disk.
    ///
    /// # Errors
    /// As [`Server::power_off`], and when its folder cannot be removed.
    pub async fn remove(&self) -> Result<()> {
        self.power_off().await?;
        fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove server {}", self.name))
    }

    /// Whether it is on.
    pub async fn is_on(&self) -> bool {
        self.power.lock().await.is_some()
    }

    /// Runs a program on it as root and returns what that printed.
    ///
    /// # Errors
    /// When the server is off, or the program fails; the error has its last lines.
    pub async fn run(&self, command: &[&str]) -> Result<String> {
        let first = self.first().await?;
        run(&mut enter(first, command)).await.with_context(|| format!("server {}: {}", self.name, command.join(" ")))
    }

    /// What a node runs on it, each process with its id: the kubelet, etcd, the API server and everything else in containers. What
    /// was started anew has another id; pods may come later.
    ///
    /// # Errors
    /// As [`Server::run`].
    pub async fn node_processes(&self) -> Result<BTreeSet<String>> {
        const LOOK: &str = "ps -eo pid=,comm= | grep -E ' (etcd|kube-.*|kubelet|coredns|containerd-shim.*)$' || true";
        Ok(self.run(&["bash", "-c", LOOK]).await?.lines().map(|line| line.trim().to_owned()).collect())
    }

    /// Process 1 of it, as it is numbered outside: what `nsenter` wants.
    ///
    /// # Errors
    /// When it is off.
    pub async fn first(&self) -> Result<i32> {
        match self.power.lock().await.as_ref() {
            Some(running) => Ok(running.first),
            None => bail!("server {} is off", self.name),
        }
    }

    /// Gives a new server the images. They share their blocks with all others: databases are copied, all else is linked.
    async fn fill_containerd(&self) -> Result<()> {
        let own = self.folder.join("data").join(CONTAINERD.trim_start_matches("var/"));
        let Some(store) = self.common.store.as_ref().filter(|_| self.system == System::Node) else { return Ok(()) };
        if fs::read_dir(&own)?.next().is_some() {
            return Ok(());
        }
        let script = "cp -al \"$1/.\" \"$2\"; rm -rf \"$2/io.containerd.grpc.v1.introspection\"
             find \"$2\" -name '*.db' | while IFS= read -r file; do cp \"$file\" \"$file.own\"; mv \"$file.own\" \"$file\"; done";
        let mut copy = Command::new("bash");
        copy.args(["-euc", script, "copy"]).arg(store).arg(&own);
        run(&mut copy).await.map(drop).with_context(|| format!("giving server {} its images", self.name))
    }
}

/// The child of `unshare`, once there is one.
fn first_of(process: &Process) -> Option<i32> {
    let id = process.id();
    fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?.split_whitespace().next()?.parse().ok()
}

fn enter(first: i32, command: &[&str]) -> Command {
    let mut enter = Command::new("nsenter");
    enter.args(["--target", &first.to_string()]);
    enter.args(["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--root", "--wd=/", "--"]);
    enter.args(["env", "-i", "HOME=/root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    enter.args(command);
    enter
}
