//! A kernel of its own for a virtual machine: a layer above that of a freshly installed system.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::layers::Layers;
use super::script::in_mount_namespace;
use crate::build::Cache;
use crate::command::run;
use crate::progress::Progress;

/// Debian's kernel for virtual machines, and what loads its modules.
const PACKAGES: &str = "linux-image-cloud-amd64 initramfs-tools udev";
const INSTALL: &str = concat!(include_str!("layer.sh"), include_str!("kernel.sh"));

/// The layer with a kernel.
pub(crate) struct Kernel {
    pub(crate) layer: PathBuf,
    pub(crate) image: PathBuf,
    pub(crate) initial_ram_disk: PathBuf,
}

impl Kernel {
    /// Makes the layer if it is not in the cache yet, which needs a network.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) async fn get(cache: &Cache, layers: &Layers) -> Result<Self> {
        let lower = layers.debian_lowerdir();
        let folder = cache
            .folder("server-kernel", &[&lower, PACKAGES, INSTALL, "1"], 30, async |folder| {
                let mut install = in_mount_namespace(INSTALL, &folder, Path::new(&lower));
                install.args(PACKAGES.split(' '));
                run(&mut install)
                    .await
                    .map(drop)
                    .context("installing a kernel for virtual machines; `testenv build --virtual-machines` does so with a network")
            })
            .await?;
        let layer = folder.join("root");
        Ok(Self { image: find(&layer, "vmlinuz-")?, initial_ram_disk: find(&layer, "initrd.img-")?, layer })
    }
}

/// The file in `/boot` whose name begins so.
fn find(layer: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(layer.join("boot")).context("the layer with a kernel has no /boot")?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    paths.find(is_it).with_context(|| format!("the layer with a kernel has no /boot/{prefix}*"))
}

/// Makes everything for virtual machines that needs a network and is not in the cache yet.
///
/// # Errors
/// When something cannot be fetched or built; the error says what.
pub async fn build_kernel(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<()> {
    let cache = Cache::new(Progress::new(progress))?;
    Kernel::get(&cache, &Layers::get(&cache, false).await?).await.map(drop)
}
