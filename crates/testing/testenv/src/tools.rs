//! Programs of other projects, and one made of a library of another project, with which tests check what this repository ships, or use it as
//! its users would.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::build::{Cache, Module, Recipe, module};
use crate::kubernetes::Program;
use crate::platform::PLATFORM;
use crate::progress::Progress;
use crate::{cluster_api, versions};

static COLLECTOR_MODULE: Module = module!("collector", "main.go");
static ETCD_TOOLS_MODULE: Module = module!("etcd-tools");
static HELM_MODULE: Module = module!("helm");
static KSTATUS_MODULE: Module = module!("kstatus", "main.go");
static KUBECONFORM_MODULE: Module = module!("kubeconform");
static LUA_MODULE: Module = module!("lua");
static PROMETHEUS_MODULE: Module = module!("prometheus");

/// A program that only tests need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Moves clusters from one management cluster to another.
    Clusterctl,
    /// OpenTelemetry's Collector: takes OTLP over HTTP, and prints each span.
    Collector,
    /// Takes snapshots of etcd.
    Etcdctl,
    /// Restores etcd's data from a snapshot.
    Etcdutl,
    /// Renders and packages the chart.
    Helm,
    /// Says what kstatus makes of objects: one JSON object per line in, one line `Status: message` per object out.
    Kstatus,
    /// Checks manifests against JSON schemas.
    Kubeconform,
    /// The Lua that Argo CD runs its health scripts with.
    Lua,
    /// Checks alerts, and runs their tests.
    Promtool,
}

impl Tool {
    /// Those that tests need which are not slow.
    pub const ALL: [Self; 7] =
        [Self::Clusterctl, Self::Etcdctl, Self::Etcdutl, Self::Helm, Self::Kstatus, Self::Kubeconform, Self::Lua];
    /// Those that only slow tests need.
    pub const SLOW: [Self; 2] = [Self::Collector, Self::Promtool];

    pub(crate) const fn recipe(self) -> Recipe {
        match self {
            Self::Clusterctl => Recipe {
                stamps: cluster_api::STAMPS,
                ..Recipe::new(
                    "clusterctl",
                    versions::CLUSTER_API,
                    &PLATFORM,
                    "sigs.k8s.io/cluster-api/cmd/clusterctl",
                    60,
                )
            },
            Self::Collector => Recipe::new("otelcol", versions::COLLECTOR, &COLLECTOR_MODULE, ".", 120),
            Self::Etcdctl => {
                Recipe::new("etcdctl", versions::ETCD, &ETCD_TOOLS_MODULE, "go.etcd.io/etcd/etcdctl/v3", 20)
            }
            Self::Etcdutl => {
                Recipe::new("etcdutl", versions::ETCD, &ETCD_TOOLS_MODULE, "go.etcd.io/etcd/etcdutl/v3", 10)
            }
            Self::Helm => Recipe {
                stamps: "-X helm.sh/helm/v4/internal/version.version=VERSION",
                ..Recipe::new("helm", versions::HELM, &HELM_MODULE, "helm.sh/helm/v4/cmd/helm", 120)
            },
            Self::Kstatus => Recipe::new("kstatus", versions::KSTATUS, &KSTATUS_MODULE, ".", 30),
            Self::Kubeconform => Recipe::new(
                "kubeconform",
                versions::KUBECONFORM,
                &KUBECONFORM_MODULE,
                "github.com/yannh/kubeconform/cmd/kubeconform",
                10,
            ),
            Self::Lua => Recipe::new("glua", versions::LUA, &LUA_MODULE, "github.com/yuin/gopher-lua/cmd/glua", 5),
            Self::Promtool => Recipe::new(
                "promtool",
                versions::PROMETHEUS,
                &PROMETHEUS_MODULE,
                "github.com/prometheus/prometheus/cmd/promtool",
                300,
            ),
        }
    }
}

/// Returns the program's path. A program that is not in the cache is built first, which needs a network. `progress`
/// gets lines of progress.
///
/// # Errors
/// When the program cannot be built.
pub async fn tool(tool: Tool, progress: impl Fn(&str) + Send + Sync + 'static) -> Result<PathBuf> {
    Ok(Cache::new(Progress::new(progress))?.program(&tool.recipe()).await?.program)
}

/// Returns the path of a `kubectl` of the management cluster's version, for use without a management cluster.
///
/// # Errors
/// When it cannot be built.
pub async fn kubectl(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<PathBuf> {
    Ok(Program::Kubectl.get(&Cache::new(Progress::new(progress))?).await?.program)
}

/// The module of Argo CD.
const ARGO_CD: &str = "github.com/argoproj/argo-cd/v3";

/// Returns the path of a file with the CRD of Argo CD's Applications, from Argo CD's module. The first call needs a
/// network.
///
/// # Errors
/// When the CRD cannot be fetched.
pub async fn argo_cd_crd(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<PathBuf> {
    const NAME: &str = "application-crd.yaml";
    let cache = Cache::new(Progress::new(progress))?;
    let module = format!("{ARGO_CD}@{}", versions::ARGO_CD);
    let (module, parts) = (&module, [module.as_str()]);
    let folder = cache.folder("argo-cd-crd", &parts, 30, async |folder: PathBuf| {
        let crd = cache.unpinned(module).await?.folder.join("manifests/crds").join(NAME);
        std::fs::copy(&crd, folder.join(NAME)).with_context(|| format!("cannot copy {}", crd.display()))?;
        Ok(())
    });
    Ok(folder.await?.join(NAME))
}
