//! One server: its power, its disk, and programs on it.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;
use tokio::sync::Mutex;

use super::lan::{self, GATEWAY, PREFIX};
use super::layer_files::{enable, write};
use super::rack_state::RackState;
use crate::command::run;
use crate::process::Process;

/// How long a server may take until containerd, or sshd, runs; less than a second on an idle machine.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);
/// Folders below `/var` that are bind mounts of plain folders, not part of the overlay.
const PLAIN_FOLDERS: [&str; 4] = ["lib/containerd", "lib/kubelet", "lib/etcd", "log"];
const AGENT: &str = "byoh-hostagent.service";

/// What is installed on a new server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// All that a node needs, and BYOH's agent.
    Node,
    /// The distribution only, with sshd and python3.
    Debian,
}

/// How BYOH's agent is set up on a server.
#[derive(Clone, Debug)]
pub struct AgentSetup {
    /// The kubeconfig with which the agent requests its certificate.
    pub bootstrap_kubeconfig: String,
    /// Namespace of the ByoHost.
    pub namespace: String,
    /// Labels of the ByoHost, `key=value`.
    pub labels: Vec<String>,
    /// Whether the agent skips the scripts that install Kubernetes.
    pub skip_installation: bool,
}

/// A server of a [`super::Rack`]. Dropping this switches it off.
pub struct Server {
    rack: Arc<RackState>,
    name: String,
    number: u8,
    system: System,
    /// The layers of its root file system, as `lowerdir` of an overlay.
    lowerdir: String,
    folder: PathBuf,
    /// `None` while the server is off.
    power: Mutex<Option<Running>>,
}

struct Running {
    process: Process,
    /// Process 1 of the server, by its id outside of the server.
    first: i32,
}

impl Server {
    /// A new server, switched off.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub(crate) fn new(rack: Arc<RackState>, name: &str, number: u8, system: System) -> Result<Self> {
        let folder = rack.folder.join(name);
        fs::create_dir(&folder).with_context(|| format!("cannot make server {name}"))?;
        for part in ["upper", "work", "root"] {
            fs::create_dir(folder.join(part))?;
        }
        for part in PLAIN_FOLDERS {
            fs::create_dir_all(folder.join("data").join(part))?;
        }
        let lowerdir = match system {
            System::Node => rack.layers.lowerdir(),
            System::Debian => rack.layers.debian_lowerdir(),
        };
        Ok(Self { rack, name: name.to_owned(), number, system, lowerdir, folder, power: Mutex::new(None) })
    }

    /// The same server with other layers.
    pub(crate) fn with_lowerdir(self, lowerdir: String) -> Self {
        Self { lowerdir, ..self }
    }

    /// The host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address on the LAN.
    pub fn address(&self) -> Ipv4Addr {
        lan::address(self.number)
    }

    /// The folder with the server's disk.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file on the server's disk, readable for root only.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn write(&self, path: &str, content: &str) -> Result<()> {
        // What changes below a mounted overlay is undefined.
        const INSIDE: &str = r#"umask 077; mkdir -p "$(dirname "$1")"; printf %s "$2" >"$1""#;
        match self.first_process().await {
            Ok(first) => run(&mut enter(first, &["sh", "-euc", INSIDE, "write", &format!("/{path}"), content]))
                .await
                .map(drop)
                .with_context(|| format!("writing {path} on server {}", self.name)),
            Err(_) => write(&self.folder.join("upper"), path, content),
        }
    }

    /// Sets BYOH's agent up to run: at once if the server is on, or else from the next start on.
    ///
    /// # Errors
    /// When the agent's files cannot be written, or systemd does not start it.
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
        if self.is_on().await {
            return self.run(&["systemctl", "enable", "--now", AGENT]).await.map(drop);
        }
        enable(&self.folder.join("upper"), AGENT)
    }

    /// Switches the server on, and waits until containerd runs, or sshd if containerd is not installed.
    ///
    /// # Errors
    /// When the server is on, or does not start.
    pub async fn power_on(&self) -> Result<()> {
        let mut power = self.power.lock().await;
        if power.is_some() {
            bail!("server {} is on already", self.name);
        }
        self.add_images().await?;
        let groups = self.rack.hierarchies.make(&self.rack.name, &self.name)?;
        let groups: Vec<_> = groups.iter().map(|group| group.display().to_string()).collect();
        let arguments = [
            format!("NAME={}", self.name),
            format!("ADDRESS={}/{PREFIX}", self.address()),
            format!("GATEWAY={GATEWAY}"),
            format!("FOLDER={}", self.folder.display()),
            format!("LAYERS={}", self.lowerdir),
            format!("HIERARCHIES={}", self.rack.hierarchies.names()),
            format!("CGROUPS={}", groups.join(" ")),
            format!("INIT={}", self.rack.folder.join("init.sh").display()),
            "bash".to_owned(),
            self.rack.folder.join("on.sh").display().to_string(),
        ];
        let log = self.folder.join("console");
        let started = self.boot(&arguments, &log).await;
        if started.is_err() {
            lan::unplug(self.number).await;
            let _ = self.rack.hierarchies.remove(&self.rack.name, Some(&self.name)).await;
        }
        *power = Some(started?);
        Ok(())
    }

    async fn boot(&self, arguments: &[String], log: &Path) -> Result<Running> {
        let process = Process::start(&format!("server {}", self.name), Path::new("/usr/bin/env"), arguments, log)?;
        process.wait_ready(BOOT_TIMEOUT, || async { first_of(&process).is_some() }).await?;
        let first = first_of(&process).context("its first process is gone")?;
        lan::plug(self.number, first).await?;
        let service = match self.system {
            System::Node => "containerd",
            System::Debian => "ssh",
        };
        let active = ["systemctl", "is-active", "--quiet", service];
        process
            .wait_ready(BOOT_TIMEOUT, || async {
                enter(first, &active).output().await.is_ok_and(|out| out.status.success())
            })
            .await?;
        Ok(Running { process, first })
    }

    /// Cuts the power: all processes are killed, and the network card is disconnected. Does nothing if the server is
    /// off.
    ///
    /// # Errors
    /// When a process does not end, or a control group cannot be removed.
    pub async fn power_off(&self) -> Result<()> {
        let Some(running) = self.power.lock().await.take() else { return Ok(()) };
        lan::unplug(self.number).await;
        running.process.kill().await?;
        self.rack.hierarchies.remove(&self.rack.name, Some(&self.name)).await
    }

    /// Cuts the power and switches it on again.
    ///
    /// # Errors
    /// As [`Server::power_off`] and [`Server::power_on`].
    pub async fn power_cycle(&self) -> Result<()> {
        self.power_off().await?;
        self.power_on().await
    }

    /// Removes the server and its disk.
    ///
    /// # Errors
    /// As [`Server::power_off`], and when its folder cannot be removed.
    pub async fn remove(&self) -> Result<()> {
        self.power_off().await?;
        fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove server {}", self.name))
    }

    /// Whether the server is on.
    pub async fn is_on(&self) -> bool {
        self.power.lock().await.is_some()
    }

    /// Runs a program on the server, as root, and returns its standard output.
    ///
    /// # Errors
    /// When the server is off, or the program fails; the error has its last lines.
    pub async fn run(&self, command: &[&str]) -> Result<String> {
        let first = self.first_process().await?;
        run(&mut enter(first, command)).await.with_context(|| format!("server {}: {}", self.name, command.join(" ")))
    }

    /// The node's processes, as `ID NAME`: the kubelet, etcd, the API server, and the shims of containers. A process
    /// that was restarted has another id.
    ///
    /// # Errors
    /// As [`Server::run`].
    pub async fn node_processes(&self) -> Result<BTreeSet<String>> {
        const LIST: &str = "ps -eo pid=,comm= | grep -E ' (etcd|kube-.*|kubelet|coredns|containerd-shim.*)$' || true";
        Ok(self.run(&["bash", "-c", LIST]).await?.lines().map(|line| line.trim().to_owned()).collect())
    }

    /// Process 1 of the server, by its id outside of the server; a target for `nsenter`.
    ///
    /// # Errors
    /// When the server is off.
    pub async fn first_process(&self) -> Result<i32> {
        match self.power.lock().await.as_ref() {
            Some(running) => Ok(running.first),
            None => bail!("server {} is off", self.name),
        }
    }

    /// Puts the images into containerd's data on a new server. Files are hard links to the rack's image store, so they
    /// take no space; databases are copied, because containerd writes to them.
    async fn add_images(&self) -> Result<()> {
        let own = containerd_data(&self.folder);
        let Some(store) = self.rack.image_store.as_ref().filter(|_| self.system == System::Node) else { return Ok(()) };
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

/// The folder of containerd's data, in the folder of a server.
pub(crate) fn containerd_data(server: &Path) -> PathBuf {
    server.join("data/lib/containerd")
}

/// The child of `unshare`, which is process 1 of the server; `None` if it has not been started yet.
fn first_of(process: &Process) -> Option<i32> {
    let id = process.id();
    fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?.split_whitespace().next()?.parse().ok()
}

/// A program in the namespaces of a server.
fn enter(first: i32, command: &[&str]) -> Command {
    let mut enter = Command::new("nsenter");
    enter.args(["--target", &first.to_string()]);
    enter.args(["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--root", "--wd=/", "--"]);
    enter.args(["env", "-i", "HOME=/root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    enter.args(command);
    enter
}
