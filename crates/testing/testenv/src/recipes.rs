//! What is built for a management cluster, also for the offline bundle.

use std::path::PathBuf;

use anyhow::Result;

use crate::build::{Built, Cache, Recipe};
use crate::cluster_api::Release;
use crate::inventory::Inventory;
use crate::kubernetes::{self, Program};
use crate::progress::Progress;
use crate::tools::Tool;
use crate::{byoh, cluster_api, flux, servers};

/// The manager of a provider.
pub struct Manager {
    /// The manager's program.
    pub built: Built,
    /// The provider's entry in clusterctl's inventory.
    pub inventory: Inventory,
    source: Source,
}

/// Where the provider's sources are.
enum Source {
    Pinned(&'static Recipe),
    /// The `config` folder of a checkout.
    Folder(PathBuf),
}

impl Manager {
    /// Returns the folder of the provider's sources from which `kustomize` renders its manifests. The sources are
    /// downloaded if they are not there.
    ///
    /// # Errors
    /// When the sources cannot be downloaded.
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

/// Every program that is built from a pinned module: those of a management cluster and of a node, and those that only tests need. Of
/// Kubernetes and Cluster API it is the version that `O2IMS_KUBERNETES` and `O2IMS_CLUSTER_API` name, or else the default.
///
/// # Errors
/// When the environment names a version that cannot be used.
pub fn all() -> Result<Vec<Recipe>> {
    let mut all: Vec<_> =
        servers::PROGRAMS.into_iter().chain([byoh::MANAGER, byoh::AGENT]).chain(flux::PROGRAMS).copied().collect();
    all.push(kubernetes::etcd()?);
    for program in Program::ALL {
        all.push(program.recipe()?);
    }
    all.extend(Release::from_environment()?.programs);
    all.extend(servers::runtime_recipes());
    all.extend(Tool::ALL.into_iter().chain(Tool::SLOW).map(Tool::recipe));
    Ok(all)
}

/// Builds all programs of a management cluster, and with `servers` those of a node, that are not in the cache yet, and returns the paths of
/// the former.
///
/// # Errors
/// When something cannot be built.
pub async fn build_all(servers: bool, progress: impl Fn(&str) + Send + Sync + 'static) -> Result<Vec<PathBuf>> {
    let cache = Cache::new(Progress::new(progress))?;
    cache.programs(&pinned(servers)?).await?;
    let mut programs = vec![cache.program(&kubernetes::etcd()?).await?.program];
    for program in Program::MANAGEMENT {
        programs.push(program.get(&cache).await?.program);
    }
    for recipe in &Release::from_environment()?.programs {
        programs.push(cache.program(recipe).await?.program);
    }
    programs.push(byoh::manager(&cache).await?.program);
    cluster_api::inventory_definition(&cache).await?;
    Ok(programs)
}

/// The programs of [`build_all`] that pinned modules have, in the order in which they are built: the longest first, and beside it what has
/// least in common with it.
fn pinned(servers: bool) -> Result<Vec<Recipe>> {
    let mut beside = Vec::new();
    if byoh::checkout()?.is_none() {
        beside.push(*byoh::MANAGER);
        beside.extend(servers.then_some(*byoh::AGENT));
    }
    beside.push(kubernetes::etcd()?);
    if servers {
        beside.extend(servers::PROGRAMS.map(|recipe| *recipe));
    }
    beside.extend(Release::from_environment()?.programs);
    let kubernetes = if servers { &Program::ALL[..] } else { &Program::MANAGEMENT };
    let mut programs = kubernetes.iter().map(|program| program.recipe()).collect::<Result<Vec<_>>>()?;
    programs.splice(1..1, beside);
    Ok(programs)
}

/// Builds kubectl.
///
/// # Errors
/// When it cannot be built.
pub async fn kubectl(cache: &Cache) -> Result<Built> {
    Program::Kubectl.get(cache).await
}

/// Builds Cluster API's managers: core, the kubeadm bootstrap provider and the kubeadm control plane provider, in this
/// order; of the version that `O2IMS_CLUSTER_API` names, or else of the default.
///
/// # Errors
/// When one cannot be built.
pub async fn cluster_api(cache: &Cache) -> Result<Vec<Manager>> {
    let mut managers = Vec::new();
    let release = Release::from_environment()?;
    for (recipe, inventory) in release.programs.iter().zip(release.inventory()) {
        managers.push(Manager { built: cache.program(recipe).await?, inventory, source: Source::Pinned(recipe) });
    }
    Ok(managers)
}

/// Builds BYOH's manager: the released one, or that of the checkout that `O2IMS_BYOH_CHECKOUT` names.
///
/// # Errors
/// When it cannot be built.
pub async fn byoh(cache: &Cache) -> Result<Manager> {
    let built = byoh::manager(cache).await?;
    let source = match byoh::checkout()? {
        Some(checkout) => Source::Folder(checkout.path().join("config")),
        None => Source::Pinned(byoh::MANAGER),
    };
    Ok(Manager { built, inventory: byoh::inventory()?, source })
}

/// The CRD of the kind in which clusterctl keeps its inventory, YAML, from Cluster API's sources.
///
/// # Errors
/// When the sources cannot be downloaded.
pub async fn inventory_definition(cache: &Cache) -> Result<String> {
    cluster_api::inventory_definition(cache).await
}
