//! Servers as they come out of the box: Debian with sshd and python3, and nothing of Kubernetes. And the folder with all
//! that makes hosts of them without a network.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::layers::{Layers, MASKED, link, run};
use super::programs::NodePrograms;
use crate::binaries::Cache;
use crate::byoh;

/// What hosts need and such a server has not.
const WANTED: &str = "containerd runc containernetworking-plugins iptables nftables ebtables socat conntrack ethtool";
/// Libraries that only these need, so that a server lacks them too.
const LIBRARIES: &str = "libip6tc2 libnetfilter-conntrack3 libnfnetlink0 libnftables1 libnftnl11";
const PURGE: &str = include_str!("purge.sh");
const DOWNLOAD: &str = include_str!("download.sh");

/// What is above the distribution on such a server: the packages are gone, and so are units that a shared kernel forbids.
pub(crate) async fn layer(cache: &Cache, system: &Path) -> Result<PathBuf> {
    let masked = MASKED.join(" ");
    let key = system.display().to_string();
    let folder = cache
        .folder("server-debian", &[&key, WANTED, LIBRARIES, PURGE, &masked, "1"], 15, async |folder| {
            let mut purge = script(PURGE, &folder, system);
            purge.args(WANTED.split(' ').chain(LIBRARIES.split(' ')));
            run(&mut purge).await.context("purging packages from the servers' distribution")?;
            for unit in MASKED {
                link(&folder.join("root"), &format!("etc/systemd/system/{unit}"), "/dev/null")?;
            }
            Ok(())
        })
        .await?;
    Ok(folder.join("root"))
}

/// The distribution's packages that hosts need, as files; this needs a network.
async fn packages(cache: &Cache, layers: &Layers) -> Result<PathBuf> {
    let lower = layers.lower_of_debian();
    let folder = cache
        .folder("host-packages", &[&lower, WANTED, DOWNLOAD, "1"], 15, async |folder| {
            let mut download = script(DOWNLOAD, &folder, Path::new(&lower));
            download.args(WANTED.split(' '));
            run(&mut download).await.context("downloading the packages that hosts need").map(drop)
        })
        .await?;
    Ok(folder.join("packages"))
}

/// Everything that makes a host of a server with the distribution only: `bin` (kubelet, kubeadm, kubectl, the agent),
/// `packages` (containerd and what kubeadm wants, and the distribution's os-release) and `images` (archives).
pub(crate) async fn host_files(cache: &Cache, layers: &Layers) -> Result<PathBuf> {
    let programs = NodePrograms::get(cache).await?;
    let agent = byoh::agent(cache).await?;
    let packages = packages(cache, layers).await?;
    let parts = [&agent.program, &packages, &layers.images.folder].map(|path| path.display().to_string());
    let key = programs.key();
    cache
        .folder("host-files", &[&key, &parts[0], &parts[1], &parts[2], "2"], 5, async |folder| {
            let bin = folder.join("bin");
            fs::create_dir(&bin)?;
            for (name, program) in programs.on_servers() {
                share(program, &bin.join(name))?;
            }
            share(&agent.program, &bin.join("byoh-hostagent"))?;
            for (from, to) in [(&packages, "packages"), (&layers.images.folder, "images")] {
                let to = folder.join(to);
                fs::create_dir(&to)?;
                for entry in fs::read_dir(from)?.flatten() {
                    if entry.path().extension().is_some_and(|extension| extension == "deb" || extension == "tar") {
                        share(&entry.path(), &to.join(entry.file_name()))?;
                    }
                }
            }
            // Packages of one distribution do not fit another: this says which one they are for.
            fs::copy(layers.system.join("usr/lib/os-release"), folder.join("packages/os-release"))
                .context("the servers' distribution has no os-release")?;
            Ok(())
        })
        .await
}

/// A link where that is possible, or else a copy.
fn share(from: &Path, to: &Path) -> Result<()> {
    fs::hard_link(from, to)
        .or_else(|_| fs::copy(from, to).map(drop))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// A script in a mount namespace of its own.
fn script(text: &str, folder: &Path, lower: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", text, "script"]).arg(folder).arg(lower);
    command
}
