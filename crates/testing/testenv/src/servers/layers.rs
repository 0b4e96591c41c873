//! The layers of the servers' root file systems: the distribution, Kubernetes, and BYOH's agent. Each is made once. A
//! server's root is an overlay of these layers and a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::debian::{self, HOST_PACKAGES, RUNTIME_PACKAGES};
use super::distribution::{self, Debian, MASKED, TRIXIE};
use super::images::Images;
use super::layer_files::{mask_units, write};
use super::programs::NodePrograms;
use crate::build::Cache;
use crate::byoh;

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
/// The disk is the machine's. How full it is must not lead to the eviction of a server's pods or images.
const KUBELET_DEFAULTS: &str = "KUBELET_EXTRA_ARGS=--eviction-hard=memory.available<100Mi,nodefs.available<200Mi,imagefs.available<200Mi \
     --image-gc-high-threshold=100 --image-gc-low-threshold=99\n";

/// The layers, the topmost first, and the images of a node.
pub(crate) struct Layers {
    pub(crate) agent: PathBuf,
    pub(crate) node: PathBuf,
    pub(crate) system: PathBuf,
    /// What servers have of the minor version of Kubernetes before, if they do.
    pub(crate) before: Option<Before>,
    /// The layer above `system`, in place of the others, on servers with the distribution only.
    pub(crate) debian: PathBuf,
    pub(crate) images: Images,
}

/// The programs and images of the minor version of Kubernetes before, in addition.
pub(crate) struct Before {
    layer: PathBuf,
    pub(crate) images: Images,
}

impl Before {
    async fn get(cache: &Cache, system: &Path) -> Result<Self> {
        let programs = NodePrograms::before(cache).await?;
        let images = Images::get(cache, &programs, system).await?;
        let key = programs.key();
        let folder = cache
            .folder("server-node-before", &[&key, "1"], 5, async |folder| {
                keep_programs(&folder.join("root"), &programs).map(drop)
            })
            .await?;
        Ok(Self { layer: folder.join("root"), images })
    }
}

impl Layers {
    /// Makes the layers that are not in the cache yet, which needs a network. With `before` servers can also have the minor version of
    /// Kubernetes before.
    ///
    /// # Errors
    /// When a layer cannot be made.
    pub(crate) async fn get(cache: &Cache, before: bool) -> Result<Self> {
        let system = distribution::system(cache, Debian::from_environment()?).await?;
        let programs = NodePrograms::get(cache).await?;
        let images = Images::get(cache, &programs, &system).await?;
        let debian = debian::layer(cache, &system, HOST_PACKAGES).await?;
        let before = if before { Some(Before::get(cache, &system).await?) } else { None };
        let node = node(cache, &programs, &images).await?;
        Ok(Self { agent: agent(cache).await?, node, before, system, debian, images })
    }

    /// The layers of a server with everything that a node needs, as `lowerdir` of an overlay.
    pub(crate) fn lowerdir(&self) -> String {
        let before = self.before.iter().map(|before| &before.layer);
        let all: Vec<_> = [&self.agent, &self.node].into_iter().chain(before).chain([&self.system]).collect();
        all.iter().map(|layer| layer.display().to_string()).collect::<Vec<_>>().join(":")
    }

    /// The folders with archives of images that servers have.
    pub(crate) fn image_folders(&self) -> impl Iterator<Item = &Path> {
        [&self.images]
            .into_iter()
            .chain(self.before.iter().map(|before| &before.images))
            .map(|all| all.folder.as_path())
    }

    /// The layers of a server with the distribution only, likewise.
    pub(crate) fn debian_lowerdir(&self) -> String {
        [&self.debian, &self.system].map(|layer| layer.display().to_string()).join(":")
    }
}

/// The layers of a server with another distribution than the packages of a bundle are for: the one above the system, and
/// the system.
pub(crate) struct OtherSystem {
    debian: PathBuf,
    pub(crate) system: PathBuf,
}

impl OtherSystem {
    /// Makes the layers that are not in the cache yet, which needs a network. The server has what kubeadm needs, as no
    /// bundle brings it.
    ///
    /// # Errors
    /// When a layer cannot be made.
    pub(crate) async fn get(cache: &Cache) -> Result<Self> {
        let system = distribution::system(cache, &TRIXIE).await?;
        Ok(Self { debian: debian::layer(cache, &system, RUNTIME_PACKAGES).await?, system })
    }

    /// As [`Layers::lowerdir`].
    pub(crate) fn lowerdir(&self) -> String {
        [&self.debian, &self.system].map(|layer| layer.display().to_string()).join(":")
    }
}

/// The layer with Kubernetes, and with the settings of a server.
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
            let kept = keep_programs(&root, programs)?;
            fs::create_dir_all(root.join("usr/bin"))?;
            for (name, _) in programs.installed() {
                fs::hard_link(kept.join(name), root.join("usr/bin").join(name))?;
            }
            write(&root, "etc/containerd/config.toml", &containerd)?;
            write(&root, "usr/lib/systemd/system/kubelet.service", KUBELET_UNIT)?;
            write(&root, "usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", KUBELET_DROP_IN)?;
            write(&root, "etc/default/kubelet", KUBELET_DEFAULTS)?;
            write(&root, "etc/ssh/sshd_config.d/test.conf", "PermitRootLogin prohibit-password\nUseDNS no\n")?;
            mask_units(&root)
        })
        .await?;
    Ok(folder.join("root"))
}

/// Puts the programs into a folder of their version, as `install.installer.source: files` looks for them, and returns the folder.
fn keep_programs(root: &Path, programs: &NodePrograms) -> Result<PathBuf> {
    let kept = root.join("opt/kubernetes").join(programs.version);
    fs::create_dir_all(&kept)?;
    for (name, program) in programs.installed() {
        fs::copy(program, kept.join(name))?;
    }
    Ok(kept)
}

/// The layer with BYOH's agent.
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
