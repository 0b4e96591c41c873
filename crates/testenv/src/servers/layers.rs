//! The file systems that servers have in common, each made once: the distribution, Kubernetes, and BYOH's agent. A server
//! sees them as layers below a folder of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use super::debian;
use super::images::Images;
use super::support::is_installed;
use crate::binaries::Cache;
use crate::byoh;
use crate::folder::write_private;
use crate::servers::programs::NodePrograms;

const RELEASE: &str = "bookworm";
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";
/// Names another mirror of the distribution.
const MIRROR: &str = "O2IMS_DEBIAN_MIRROR";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What kubeadm's preflight, kube-proxy's image, the agent and people on the server need.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,iptables,nftables,ebtables,socat,conntrack,ethtool,kmod,\
     procps,ca-certificates,containerd,runc,containernetworking-plugins,util-linux,iputils-ping,openssl,sudo,curl,\
     openssh-server,python3,netcat-openbsd";

/// Where the server's containerd keeps its data.
pub(crate) const CONTAINERD: &str = "var/lib/containerd";

const KUBELET_UNIT: &str = "\
[Unit]
Description=kubelet
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=2

[Install]
WantedBy=multi-user.target
";
const KUBELET_DROP_IN: &str = "\
[Service]
Environment=\"KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf\"
Environment=\"KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml\"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
";
/// The disk is the machine's: how full that is says nothing of a server, and must not evict its pods or its images.
const KUBELET_DEFAULTS: &str = "KUBELET_EXTRA_ARGS=--eviction-hard=memory.available<100Mi,nodefs.available<200Mi,imagefs.available<200Mi \
     --image-gc-high-threshold=100 --image-gc-low-threshold=99\n";
/// What has nothing to do on a machine that shares its kernel.
pub(crate) const MASKED: [&str; 24] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "dpkg-db-backup.timer",
    "getty@tty1.service",
    "systemd-pstore.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-binfmt.service",
    "systemd-remount-fs.service",
    "systemd-logind.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-kernel-config.mount",
    "sys-fs-fuse-connections.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
];

/// The layers of a server, the topmost first, and what goes on top of them.
pub(crate) struct Layers {
    pub(crate) agent: PathBuf,
    pub(crate) node: PathBuf,
    pub(crate) system: PathBuf,
    /// Above `system`, in place of the others, on servers that have nothing but the distribution.
    pub(crate) debian: PathBuf,
    pub(crate) images: Images,
}

impl Layers {
    /// Makes what is not in the cache yet; this needs a network.
    pub(crate) async fn get(cache: &Cache) -> Result<Self> {
        let system = system(cache).await?;
        let programs = NodePrograms::get(cache).await?;
        let images = Images::get(cache, &programs, &system).await?;
        let debian = debian::layer(cache, &system).await?;
        Ok(Self { agent: agent(cache).await?, node: node(cache, &programs, &images).await?, system, debian, images })
    }

    /// As `lowerdir` of an overlay.
    pub(crate) fn lower(&self) -> String {
        [&self.agent, &self.node, &self.system].map(|layer| layer.display().to_string()).join(":")
    }

    /// The same for a server that has nothing but the distribution.
    pub(crate) fn lower_of_debian(&self) -> String {
        [&self.debian, &self.system].map(|layer| layer.display().to_string()).join(":")
    }
}

/// The distribution.
async fn system(cache: &Cache) -> Result<PathBuf> {
    let folder = cache
        .folder("server-system", &[RELEASE, PACKAGES, "1"], 75, |folder| async move {
            let mirror = mirror();
            let tool = Debootstrap::find(&folder).await?;
            let root = folder.join("root");
            tool.run(&mirror, &root).await?;
            fs::remove_dir_all(root.join("var/cache/apt"))?;
            fs::remove_dir_all(root.join("var/lib/apt/lists"))?;
            if let Some(own) = tool.own {
                fs::remove_dir_all(own)?;
            }
            Ok(())
        })
        .await
        .context(Unfetched)?;
    Ok(folder.join("root"))
}

/// The distribution is not to be had from here: nothing that a change of this repository could mend.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the servers' distribution cannot be fetched ({MIRROR} names a mirror)")]
pub struct Unfetched;

/// The mirror that the user names, or the one of this machine if it has the same distribution.
fn mirror() -> String {
    if let Some(mirror) = std::env::var(MIRROR).ok().filter(|mirror| !mirror.is_empty()) {
        return mirror;
    }
    let about = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !about.lines().any(|line| line == "ID=debian") {
        return DEFAULT_MIRROR.to_owned();
    }
    let lists = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    let texts = lists.iter().filter_map(|path| fs::read_to_string(path).ok());
    texts
        .flat_map(|text| text.lines().map(ToOwned::to_owned).collect::<Vec<_>>())
        .find_map(|line| {
            let mut words = line.split_whitespace();
            let addresses = matches!(words.next(), Some("URIs:" | "deb"));
            words.find(|word| addresses && word.starts_with("http")).map(ToOwned::to_owned)
        })
        .unwrap_or_else(|| DEFAULT_MIRROR.to_owned())
}

/// The distribution's own installer, from the machine or unpacked from its package.
struct Debootstrap {
    program: PathBuf,
    own: Option<PathBuf>,
}

impl Debootstrap {
    async fn find(folder: &Path) -> Result<Self> {
        if is_installed("debootstrap") {
            return Ok(Self { program: "debootstrap".into(), own: None });
        }
        if !is_installed("apt-get") || !is_installed("dpkg-deb") {
            bail!("debootstrap is not installed: servers' file systems are made with it");
        }
        let own = folder.join("debootstrap");
        fs::create_dir_all(&own)?;
        let script = "apt-get download -q debootstrap || { apt-get update -q && apt-get download -q debootstrap; }; \
             dpkg-deb -x debootstrap_*.deb .";
        let mut fetch = Command::new("bash");
        fetch.args(["-euc", script]).current_dir(&own);
        run(&mut fetch).await.context("cannot download the package debootstrap; install it")?;
        Ok(Self { program: own.join("usr/sbin/debootstrap"), own: Some(own) })
    }

    async fn run(&self, mirror: &str, root: &Path) -> Result<()> {
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing: install the package debian-archive-keyring, with which packages are verified");
        }
        let mut command = Command::new(&self.program);
        command
            .args(["--variant=minbase", "--force-check-gpg", "--keyring", KEYRING])
            .arg(format!("--include={PACKAGES}"))
            .arg(RELEASE)
            .arg(root)
            .arg(mirror)
            .env("DEBIAN_FRONTEND", "noninteractive");
        if let Some(own) = &self.own {
            command.env("DEBOOTSTRAP_DIR", own.join("usr/share/debootstrap"));
        }
        run(&mut command).await.map(drop)
    }
}

/// Kubernetes, and the settings that make the distribution a server.
async fn node(cache: &Cache, programs: &NodePrograms, images: &Images) -> Result<PathBuf> {
    let containerd = format!(
        r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = true
"#,
        images.pause
    );
    let key = programs.key();
    let masked = MASKED.join(" ");
    let parts = [key.as_str(), &containerd, KUBELET_UNIT, KUBELET_DROP_IN, KUBELET_DEFAULTS, &masked, "3"];
    let folder = cache
        .folder("server-node", &parts, 5, async |folder| {
            let root = folder.join("root");
            let kept = root.join("opt/kubernetes").join(programs.version);
            fs::create_dir_all(&kept)?;
            fs::create_dir_all(root.join("usr/bin"))?;
            for (name, program) in programs.on_servers() {
                fs::copy(program, kept.join(name))?;
                fs::hard_link(kept.join(name), root.join("usr/bin").join(name))?;
            }
            write(&root, "etc/containerd/config.toml", &containerd)?;
            write(&root, "usr/lib/systemd/system/kubelet.service", KUBELET_UNIT)?;
            write(&root, "usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", KUBELET_DROP_IN)?;
            write(&root, "etc/default/kubelet", KUBELET_DEFAULTS)?;
            write(&root, "etc/ssh/sshd_config.d/test.conf", "PermitRootLogin prohibit-password\nUseDNS no\n")?;
            for unit in MASKED {
                link(&root, &format!("etc/systemd/system/{unit}"), "/dev/null")?;
            }
            Ok(())
        })
        .await?;
    Ok(folder.join("root"))
}

/// BYOH's agent.
async fn agent(cache: &Cache) -> Result<PathBuf> {
    let agent = byoh::agent(cache).await?;
    let key = agent.folder().display().to_string();
    let folder = cache
        .folder("server-agent", &[&key, "1"], 1, |folder| async move {
            let to = folder.join("root/usr/local/bin");
            fs::create_dir_all(&to)?;
            fs::copy(&agent.program, to.join("byoh-hostagent"))?;
            Ok(())
        })
        .await?;
    Ok(folder.join("root"))
}

/// Writes a file of a layer, and the folders above it.
pub(crate) fn write(root: &Path, path: &str, content: &str) -> Result<()> {
    write_private(&root.join(path), content.as_bytes())
}

/// Makes a symbolic link in a layer.
pub(crate) fn link(root: &Path, path: &str, target: &str) -> Result<()> {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap_or(root))?;
    symlink(target, &path).with_context(|| format!("cannot link {}", path.display()))
}

/// Has systemd start a unit of `/etc/systemd/system`.
pub(crate) fn enable(root: &Path, unit: &str) -> Result<()> {
    let path = format!("etc/systemd/system/multi-user.target.wants/{unit}");
    link(root, &path, &format!("/etc/systemd/system/{unit}"))
}

/// Runs a program; its last lines are the error.
pub(crate) async fn run(command: &mut Command) -> Result<String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot start {name}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    bail!("{name} failed ({}): {}", output.status, lines[lines.len().saturating_sub(10)..].join("\n"))
}
