//! Flux's source-controller and kustomize-controller on a management cluster.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::assets;
use crate::build::{Built, Cache, Module, Recipe, module};
use crate::http_probe;
use crate::management_cluster::ManagementCluster;
use crate::objects;
use crate::ports::Ports;
use crate::process::Process;
use crate::progress::Progress;
use crate::versions;

const READY: Duration = Duration::from_secs(60);

static MODULE: Module = module!("flux");
const SOURCE: &Recipe = &recipe("source-controller", "github.com/fluxcd/source-controller", 240);
const KUSTOMIZE: &Recipe = &recipe("kustomize-controller", "github.com/fluxcd/kustomize-controller", 90);

const fn recipe(name: &'static str, package: &'static str, seconds: u32) -> Recipe {
    Recipe { manifests: Some((package, "config")), ..Recipe::new(name, versions::FLUX, &MODULE, package, seconds) }
}

/// The programs.
pub(crate) const PROGRAMS: [&Recipe; 2] = [SOURCE, KUSTOMIZE];

/// Flux's running controllers. Dropping this kills their processes.
pub struct Flux {
    controllers: Vec<Process>,
}

impl Flux {
    /// Builds the two controllers if they are not in the cache yet. That needs a network, and takes some minutes.
    ///
    /// # Errors
    /// When they cannot be built.
    pub async fn build(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<()> {
        programs(progress).await.map(drop)
    }

    /// Installs Flux's CRDs and its namespace `flux-system` on a management cluster, and starts the controllers. They
    /// have all rights, as in a real installation.
    ///
    /// # Errors
    /// When something cannot be built or does not start; the error quotes the program's log.
    pub async fn start(
        management: &ManagementCluster,
        progress: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self> {
        let built = programs(progress).await?;
        let folder = management.dir().join("flux");
        std::fs::create_dir_all(folder.join("storage"))?;
        management.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: flux-system}}").await?;
        let kubeconfig = folder.join("kubeconfig");
        management.kubeconfig_as("flux", &["system:masters"], &kubeconfig)?;
        let (mut ports, mut controllers) = (Ports::default(), Vec::new());
        for (name, built) in built {
            objects::apply(&management.admin(), assets::definitions(built.folder())?).await.context("Flux's CRDs")?;
            let health = ports.next()?;
            let mut arguments = vec![
                format!("--health-addr=127.0.0.1:{health}"),
                format!("--metrics-addr=127.0.0.1:{}", ports.next()?),
                "--enable-leader-election=false".to_owned(),
                "--requeue-dependency=2s".to_owned(),
            ];
            if name == SOURCE.name {
                let storage = ports.next()?;
                arguments.push(format!("--storage-path={}", folder.join("storage").display()));
                arguments.push(format!("--storage-addr=127.0.0.1:{storage}"));
                arguments.push(format!("--storage-adv-addr=127.0.0.1:{storage}"));
            }
            let log = folder.join(format!("{name}.log"));
            let environment = [("KUBECONFIG", kubeconfig.as_path()), ("RUNTIME_NAMESPACE", Path::new("flux-system"))];
            let process = Process::start_with(name, &built.program, &arguments, &environment, &log)?;
            process.wait_ready(READY, || http_probe::answers(health, "/readyz")).await?;
            controllers.push(process);
        }
        Ok(Self { controllers })
    }

    /// A message if a controller has ended although nobody stopped it.
    pub fn failed(&self) -> Option<String> {
        self.controllers.iter().find_map(Process::failed)
    }

    /// Stops the controllers.
    ///
    /// # Errors
    /// When one does not end.
    pub async fn stop(self) -> Result<()> {
        for controller in &self.controllers {
            controller.stop().await?;
        }
        Ok(())
    }
}

async fn programs(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<Vec<(&'static str, Built)>> {
    let cache = Cache::new(Progress::new(progress))?;
    let mut built = Vec::new();
    for recipe in PROGRAMS {
        built.push((recipe.name, cache.program(recipe).await?));
    }
    Ok(built)
}
