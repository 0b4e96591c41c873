//! The folder with everything that turns servers with the distribution only into hosts, without a network.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::debian::HOST_PACKAGES;
use super::distribution::{self, Debian};
use super::layer_files::link_or_copy;
use super::layers::{Layers, OtherSystem};
use super::programs::{ETCD_TOOLS, NodePrograms};
use super::script::in_mount_namespace;
use crate::build::Cache;
use crate::byoh;
use crate::command::run;
use crate::kubernetes::{self, Program};
use crate::progress::Progress;
use crate::tools::Tool;

const DOWNLOAD: &str = concat!(include_str!("layer.sh"), include_str!("download.sh"));

/// Fetches the servers' distribution if it is not in the cache yet.
///
/// # Errors
/// When it cannot be fetched.
pub async fn fetch(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<()> {
    distribution::system(&Cache::new(Progress::new(progress))?, Debian::from_environment()?).await.map(drop)
}

/// Makes everything for servers that needs a network and is not in the cache yet.
///
/// # Errors
/// When something cannot be fetched or built; the error says what.
pub async fn build(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<()> {
    host_files(progress).await.map(drop)
}

/// Makes everything for servers that also have the minor version of Kubernetes before.
///
/// # Errors
/// When something cannot be built.
pub async fn build_before(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<()> {
    let cache = Cache::new(Progress::new(progress))?;
    let mut recipes = vec![kubernetes::etcd_before()?];
    for program in Program::ALL {
        recipes.push(program.recipe_before()?);
    }
    recipes.extend(ETCD_TOOLS.map(Tool::recipe));
    cache.programs(&recipes).await?;
    Layers::get(&cache, true).await.map(drop)
}

/// Makes the system of servers of another distribution, if it is not in the cache yet.
///
/// # Errors
/// When it cannot be fetched.
pub async fn build_other_system(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<()> {
    OtherSystem::get(&Cache::new(Progress::new(progress))?).await.map(drop)
}

/// Returns a folder with everything that turns a server with the distribution only into a host: `bin` (kubelet,
/// kubeadm, kubectl and BYOH's agent), `packages` (containerd, the packages that kubeadm needs, and the distribution's
/// os-release) and `images` (archives). The bundle's `hosts` is a copy of it. What is not in the cache yet is made,
/// which needs a network.
///
/// # Errors
/// When something cannot be fetched or built; the error says what.
pub async fn host_files(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<PathBuf> {
    let cache = Cache::new(Progress::new(progress))?;
    let layers = Layers::get(&cache, false).await?;
    make(&cache, &layers).await
}

/// Downloads the distribution's packages that hosts need.
async fn packages(cache: &Cache, layers: &Layers) -> Result<PathBuf> {
    let lower = layers.debian_lowerdir();
    let folder = cache
        .folder("host-packages", &[&lower, HOST_PACKAGES, DOWNLOAD, "1"], 15, async |folder| {
            let mut download = in_mount_namespace(DOWNLOAD, &folder, Path::new(&lower));
            download.args(HOST_PACKAGES.split(' '));
            run(&mut download).await.context("downloading the packages that hosts need").map(drop)
        })
        .await?;
    Ok(folder.join("packages"))
}

/// Makes the folder that [`host_files`] returns.
async fn make(cache: &Cache, layers: &Layers) -> Result<PathBuf> {
    let programs = NodePrograms::get(cache).await?;
    let agent = byoh::agent(cache).await?;
    let packages = packages(cache, layers).await?;
    let parts = [&agent.program, &packages, &layers.images.folder].map(|path| path.display().to_string());
    let key = programs.key();
    cache
        .folder("host-files", &[&key, &parts[0], &parts[1], &parts[2], "2"], 5, async |folder| {
            let bin = folder.join("bin");
            fs::create_dir(&bin)?;
            for (name, program) in programs.installed() {
                link_or_copy(program, &bin.join(name))?;
            }
            link_or_copy(&agent.program, &bin.join("byoh-hostagent"))?;
            for (from, to) in [(&packages, "packages"), (&layers.images.folder, "images")] {
                let to = folder.join(to);
                fs::create_dir(&to)?;
                for entry in fs::read_dir(from)?.flatten() {
                    if entry.path().extension().is_some_and(|extension| extension == "deb" || extension == "tar") {
                        link_or_copy(&entry.path(), &to.join(entry.file_name()))?;
                    }
                }
            }
            // Names the distribution that the packages are for; they do not fit another one.
            fs::copy(layers.system.join("usr/lib/os-release"), folder.join("packages/os-release"))
                .context("the servers' distribution has no os-release")?;
            Ok(())
        })
        .await
}
