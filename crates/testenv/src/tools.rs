//! Programs of others that check what this repository ships, or work with it, as its users run them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::binaries::{Cache, Module, Recipe, go, module};
use crate::progress::Progress;
use crate::{cluster_api, control_plane};

static CLUSTERCTL_MODULE: Module = module!("clusterctl");
static ETCD_TOOLS_MODULE: Module = module!("etcd-tools");
static HELM_MODULE: Module = module!("helm");
static KUBECONFORM_MODULE: Module = module!("kubeconform");
static LUA_MODULE: Module = module!("lua");

/// A program of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Moves clusters from one management cluster to another.
    Clusterctl,
    /// Takes snapshots of etcd.
    Etcdctl,
    /// Makes etcd's data of a snapshot.
    Etcdutl,
    /// Renders and packages the chart.
    Helm,
    /// Checks manifests against JSON schemas.
    Kubeconform,
    /// The Lua that Argo CD runs its health scripts with.
    Lua,
}

impl Tool {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Clusterctl, Self::Etcdctl, Self::Etcdutl, Self::Helm, Self::Kubeconform, Self::Lua];

    const fn recipe(self) -> Recipe {
        match self {
            Self::Clusterctl => Recipe {
                stamps: cluster_api::STAMPS,
                ..Recipe::new(
                    "clusterctl",
                    cluster_api::VERSION,
                    &CLUSTERCTL_MODULE,
                    "sigs.k8s.io/cluster-api/cmd/clusterctl",
                    60,
                )
            },
            Self::Etcdctl => Recipe::new(
                "etcdctl",
                control_plane::ETCD_VERSION,
                &ETCD_TOOLS_MODULE,
                "go.etcd.io/etcd/etcdctl/v3",
                20,
            ),
            Self::Etcdutl => Recipe::new(
                "etcdutl",
                control_plane::ETCD_VERSION,
                &ETCD_TOOLS_MODULE,
                "go.etcd.io/etcd/etcdutl/v3",
                10,
            ),
            Self::Helm => Recipe {
                stamps: "-X helm.sh/helm/v3/internal/version.version=v3.19.0 \
                         -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 \
                         -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=33 \
                         -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 \
                         -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=33",
                ..Recipe::new("helm", "v3.19.0", &HELM_MODULE, "helm.sh/helm/v3/cmd/helm", 120)
            },
            Self::Kubeconform => Recipe::new(
                "kubeconform",
                "v0.7.0",
                &KUBECONFORM_MODULE,
                "github.com/yannh/kubeconform/cmd/kubeconform",
                10,
            ),
            Self::Lua => Recipe::new("glua", "v1.1.1", &LUA_MODULE, "github.com/yuin/gopher-lua/cmd/glua", 5),
        }
    }
}

/// The program; built first if it never was, which needs a network. `progress` is told what is going on.
///
/// # Errors
/// When it cannot be built.
pub async fn tool(tool: Tool, progress: impl Fn(&str) + Send + Sync + 'static) -> Result<PathBuf> {
    Ok(Cache::new(Progress::new(progress))?.program(&tool.recipe()).await?.program)
}

/// A `kubectl` of a bed's version, for what needs no bed.
///
/// # Errors
/// When it cannot be built.
pub async fn kubectl(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<PathBuf> {
    Ok(Cache::new(Progress::new(progress))?.program(control_plane::KUBECTL).await?.program)
}

const ARGO_CD: &str = "github.com/argoproj/argo-cd/v3@v3.1.9";

/// The CRD of Argo CD's Applications, from its module; needs a network the first time.
///
/// # Errors
/// When it cannot be fetched.
pub async fn argo_cd_crd(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<PathBuf> {
    const NAME: &str = "application-crd.yaml";
    let cache = Cache::new(Progress::new(progress))?;
    let folder = cache.folder("argo-cd-crd", &[ARGO_CD], 30, |folder| async move {
        // Outside of any module, so that nothing but this one is fetched; Go's checksum database vouches for it.
        let told = go(&folder, &["mod", "download", "-json", ARGO_CD]).await?;
        let told: serde_json::Value = serde_json::from_str(&told)?;
        let module = told["Dir"].as_str().context("go does not say where the module is")?;
        let crd = Path::new(module).join("manifests/crds").join(NAME);
        std::fs::copy(&crd, folder.join(NAME)).with_context(|| format!("cannot copy {}", crd.display()))?;
        Ok(())
    });
    Ok(folder.await?.join(NAME))
}
