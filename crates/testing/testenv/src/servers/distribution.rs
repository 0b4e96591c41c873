//! The distribution of servers: Debian.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::build::Cache;
use crate::command::{is_installed, run};
use crate::debian_package::unpack;
use crate::versions;

/// The variable that names another release of Debian than the default by its number, such as `13`.
const VARIABLE: &str = "O2IMS_DEBIAN";

/// A release of Debian.
pub(crate) struct Debian {
    number: &'static str,
    name: &'static str,
}

/// The release of servers if the environment names no other.
static BOOKWORM: Debian = Debian { number: "12", name: "bookworm" };
/// The other release.
pub(crate) static TRIXIE: Debian = Debian { number: "13", name: "trixie" };
static RELEASES: [&Debian; 2] = [&BOOKWORM, &TRIXIE];

impl Debian {
    /// The release that the environment names, or else the default.
    ///
    /// # Errors
    /// When the environment names one that is not there.
    pub(crate) fn from_environment() -> Result<&'static Self> {
        versions::from_environment(VARIABLE, "Debian", &RELEASES, |release| release.number)
    }
}

const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";
/// The variable that names another mirror of the distribution.
const MIRROR: &str = "O2IMS_DEBIAN_MIRROR";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Packages that kubeadm's preflight checks, kube-proxy's image, the agent and people on a server need.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,iptables,nftables,ebtables,socat,conntrack,ethtool,kmod,\
     procps,ca-certificates,containerd,runc,containernetworking-plugins,util-linux,iputils-ping,openssl,sudo,curl,\
     openssh-server,python3,netcat-openbsd";

/// Units that are masked on servers, because the kernel is shared with the machine, or because a test has no use for
/// them.
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

/// Returns the root of the distribution's file system. It is made if it is not in the cache, which needs a network.
///
/// # Errors
/// [`DistributionUnavailable`] when it cannot be made.
pub(crate) async fn system(cache: &Cache, debian: &Debian) -> Result<PathBuf> {
    let folder = cache
        .folder("server-system", &[debian.name, PACKAGES, "1"], 75, |folder| async move {
            let mirror = mirror();
            let tool = Debootstrap::find(&folder).await?;
            let root = folder.join("root");
            tool.run(debian, &mirror, &root).await?;
            fs::remove_dir_all(root.join("var/cache/apt"))?;
            fs::remove_dir_all(root.join("var/lib/apt/lists"))?;
            if let Some(unpacked) = tool.unpacked {
                fs::remove_dir_all(unpacked)?;
            }
            Ok(())
        })
        .await
        .context(DistributionUnavailable)?;
    Ok(folder.join("root"))
}

/// The servers' distribution cannot be fetched. That has to do with this machine's network, not with the code.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the servers' distribution cannot be fetched ({MIRROR} names a mirror)")]
pub struct DistributionUnavailable;

/// The mirror that the user names, or else the one that this machine's own apt uses if this is Debian.
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

/// Debian's installer of a root file system: installed on this machine, or unpacked from its package.
struct Debootstrap {
    program: PathBuf,
    /// The folder that the package was unpacked into.
    unpacked: Option<PathBuf>,
}

impl Debootstrap {
    async fn find(folder: &Path) -> Result<Self> {
        if is_installed("debootstrap") {
            return Ok(Self { program: "debootstrap".into(), unpacked: None });
        }
        let unpacked = folder.join("debootstrap");
        unpack("debootstrap", &unpacked).await.context("servers' file systems are made with debootstrap")?;
        Ok(Self { program: unpacked.join("usr/sbin/debootstrap"), unpacked: Some(unpacked) })
    }

    async fn run(&self, debian: &Debian, mirror: &str, root: &Path) -> Result<()> {
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing: install the package debian-archive-keyring, with which packages are verified");
        }
        let mut command = Command::new(&self.program);
        command
            .args(["--variant=minbase", "--force-check-gpg", "--keyring", KEYRING])
            .arg(format!("--include={PACKAGES}"))
            .arg(debian.name)
            .arg(root)
            .arg(mirror)
            .env("DEBIAN_FRONTEND", "noninteractive");
        if let Some(unpacked) = &self.unpacked {
            command.env("DEBOOTSTRAP_DIR", unpacked.join("usr/share/debootstrap"));
        }
        run(&mut command).await.map(drop)
    }
}
