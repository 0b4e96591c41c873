//! The programs of a node: those that are installed, and those in its images.

use std::path::Path;

use anyhow::Result;

use crate::build::{Built, Cache, Module, Recipe, module, short_hash};
use crate::kubernetes::{self, Program, kubernetes_version};
use crate::platform::PLATFORM;
use crate::tools::Tool;
use crate::versions;

static KUBE_VIP_MODULE: Module = module!("kube-vip");

const COREDNS: &Recipe = &Recipe::new("coredns", versions::COREDNS, &PLATFORM, "./coredns", 15);
const KUBE_VIP: &Recipe = &Recipe {
    stamps: "-X main.Version=VERSION",
    ..Recipe::new("kube-vip", versions::KUBE_VIP, &KUBE_VIP_MODULE, "github.com/kube-vip/kube-vip", 40)
};
const PAUSE: &Recipe = &Recipe::new("pause", "own", &PLATFORM, "./pause", 5);
const PROBE: &Recipe = &Recipe::new("probe", "own", &PLATFORM, "./probe", 5);
const POD_NETWORK: &Recipe = &Recipe::new("pod-network", "own", &PLATFORM, "./pod-network", 20);

/// All of them but Kubernetes' own and etcd.
pub(crate) const PROGRAMS: [&Recipe; 5] = [COREDNS, KUBE_VIP, PAUSE, POD_NETWORK, PROBE];

/// The tools of [`NodePrograms::etcd_tools`].
pub(crate) const ETCD_TOOLS: [Tool; 2] = [Tool::Etcdctl, Tool::Etcdutl];

/// The programs of a node, built.
pub(crate) struct NodePrograms {
    /// Version of Kubernetes.
    pub(crate) version: &'static str,
    /// Version of etcd.
    pub(crate) etcd_version: &'static str,
    pub(crate) etcd: Built,
    /// What is in the image of etcd beside it, as in the one that is published; only in that of servers that are upgraded, which take a snapshot.
    pub(crate) etcd_tools: Vec<(&'static str, Built)>,
    pub(crate) kube_apiserver: Built,
    pub(crate) kube_controller_manager: Built,
    pub(crate) kube_scheduler: Built,
    pub(crate) kube_proxy: Built,
    pub(crate) coredns: Built,
    pub(crate) kube_vip: Built,
    pub(crate) pause: Built,
    pub(crate) pod_network: Built,
    pub(crate) probe: Built,
    kubelet: Built,
    kubectl: Built,
    pub(crate) kubeadm: Built,
}

impl NodePrograms {
    /// Builds the programs that are not in the cache yet.
    ///
    /// # Errors
    /// When one cannot be built.
    pub(crate) async fn get(cache: &Cache) -> Result<Self> {
        Self::of(cache, kubernetes_version(), kubernetes::etcd()?, Program::recipe).await
    }

    /// As [`NodePrograms::get`], of the minor version of Kubernetes before.
    ///
    /// # Errors
    /// When there is none, or one cannot be built.
    pub(crate) async fn before(cache: &Cache) -> Result<Self> {
        let version = kubernetes::kubernetes_version_before()?;
        let mut programs = Self::of(cache, version, kubernetes::etcd_before()?, Program::recipe_before).await?;
        for tool in ETCD_TOOLS {
            let recipe = tool.recipe();
            programs.etcd_tools.push((recipe.name, cache.program(&recipe).await?));
        }
        Ok(programs)
    }

    async fn of(
        cache: &Cache,
        version: &'static str,
        etcd: Recipe,
        recipe: fn(Program) -> Result<Recipe>,
    ) -> Result<Self> {
        let program = async |program: Program| cache.program(&recipe(program)?).await;
        Ok(Self {
            version,
            etcd_version: etcd.version,
            etcd: cache.program(&etcd).await?,
            etcd_tools: Vec::new(),
            kube_apiserver: program(Program::ApiServer).await?,
            kube_controller_manager: program(Program::ControllerManager).await?,
            kubectl: program(Program::Kubectl).await?,
            kubelet: program(Program::Kubelet).await?,
            kubeadm: program(Program::Kubeadm).await?,
            kube_scheduler: program(Program::Scheduler).await?,
            kube_proxy: program(Program::Proxy).await?,
            coredns: cache.program(COREDNS).await?,
            kube_vip: cache.program(KUBE_VIP).await?,
            pause: cache.program(PAUSE).await?,
            pod_network: cache.program(POD_NETWORK).await?,
            probe: cache.program(PROBE).await?,
        })
    }

    /// The programs that are installed on a server, by name.
    pub(crate) fn installed(&self) -> [(&'static str, &Path); 3] {
        [("kubelet", &self.kubelet.program), ("kubeadm", &self.kubeadm.program), ("kubectl", &self.kubectl.program)]
    }

    /// A hash that changes whenever one of the programs changes.
    pub(crate) fn key(&self) -> String {
        let all = [
            &self.etcd,
            &self.kube_apiserver,
            &self.kube_controller_manager,
            &self.kube_scheduler,
            &self.kube_proxy,
            &self.coredns,
            &self.kube_vip,
            &self.pause,
            &self.pod_network,
            &self.probe,
            &self.kubelet,
            &self.kubectl,
            &self.kubeadm,
        ];
        let all = all.into_iter().chain(self.etcd_tools.iter().map(|(_, built)| built));
        let folders: Vec<_> = all.map(|built| built.folder().display().to_string()).collect();
        short_hash(&folders.iter().map(String::as_str).collect::<Vec<_>>())
    }
}
