//! How programs are built from pinned Go modules and kept, for others who need what this crate builds: the offline bundle.

use std::path::PathBuf;

use anyhow::Result;

pub use crate::binaries::{Built, Cache, Module, Recipe};
pub use crate::control_plane::KUBERNETES_VERSION;
pub use crate::inventory::{CLUSTERCTL_LABEL, Inventory, PROVIDER_LABEL};
pub use crate::progress::Progress;
pub use crate::servers::images::{Content, Image, architecture};
use crate::{byoh, cluster_api, control_plane};

/// A provider's manager.
pub struct Manager {
    /// Its program.
    pub built: Built,
    /// As clusterctl knows it.
    pub inventory: Inventory,
    source: Source,
}

enum Source {
    Pinned(&'static Recipe),
    Folder(PathBuf),
}

impl Manager {
    /// The folder of its sources that `kustomize` makes its manifests from; downloaded if it is not there.
    ///
    /// # Errors
    /// When it cannot be downloaded.
    pub async fn config(&self, cache: &Cache) -> Result<PathBuf> {
        match &self.source {
            Source::Folder(folder) => Ok(folder.clone()),
            Source::Pinned(recipe) => {
                let (module, folder) = recipe.manifests.unwrap_or((recipe.package, "config"));
                Ok(cache.sources(recipe.module, module).await?.join(folder))
            }
        }
    }
}

/// kubectl.
///
/// # Errors
/// When it cannot be built.
pub async fn kubectl(cache: &Cache) -> Result<Built> {
    cache.program(control_plane::KUBECTL).await
}

/// Core, the kubeadm bootstrap provider and the kubeadm control plane provider, in this order.
///
/// # Errors
/// When one cannot be built.
pub async fn cluster_api(cache: &Cache) -> Result<Vec<Manager>> {
    let mut managers = Vec::new();
    for (recipe, inventory) in cluster_api::PROGRAMS.iter().zip(cluster_api::INVENTORY) {
        managers.push(Manager { built: cache.program(recipe).await?, inventory, source: Source::Pinned(recipe) });
    }
    Ok(managers)
}

/// BYOH: the released one, or the checkout that the environment names.
///
/// # Errors
/// When it cannot be built.
pub async fn byoh(cache: &Cache) -> Result<Manager> {
    let built = byoh::program(cache).await?;
    let source = match byoh::checkout()? {
        Some(checkout) => Source::Folder(checkout.path().join("config")),
        None => Source::Pinned(byoh::RECIPE),
    };
    Ok(Manager { built, inventory: byoh::inventory()?, source })
}

/// The definition of the kind in which clusterctl keeps its inventory, as Cluster API's sources have it.
///
/// # Errors
/// When it cannot be downloaded.
pub async fn inventory_definition(cache: &Cache) -> Result<String> {
    cluster_api::inventory_definition(cache).await
}
