//! The programs of a node: those that are installed, and those in its images.

use std::path::Path;

use anyhow::Result;

use crate::build::{Built, Cache, Module, Recipe, module, short_hash};
use crate::kubernetes::{self, kubernetes_version};
use crate::versions;

static COREDNS_MODULE: Module = module!("coredns");
static KUBE_VIP_MODULE: Module = module!("kube-vip");
static IMAGES_MODULE: Module = module!("images", "pause/main.go", "probe/main.go", "pod-network/main.go");

const KUBELET: &Recipe = &kubernetes::recipe("kubelet", "k8s.io/kubernetes/cmd/kubelet", 45);
const KUBEADM: &Recipe = &kubernetes::recipe("kubeadm", "k8s.io/kubernetes/cmd/kubeadm", 25);
const KUBE_PROXY: &Recipe = &kubernetes::recipe("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", 20);
const KUBE_SCHEDULER: &Recipe = &kubernetes::recipe("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", 20);
const COREDNS: &Recipe = &Recipe::new("coredns", versions::COREDNS, &COREDNS_MODULE, "github.com/coredns/coredns", 120);
const KUBE_VIP: &Recipe = &Recipe {
    stamps: "-X main.Version=VERSION",
    ..Recipe::new("kube-vip", versions::KUBE_VIP, &KUBE_VIP_MODULE, "github.com/kube-vip/kube-vip", 75)
};
const PAUSE: &Recipe = &Recipe::new("pause", "own", &IMAGES_MODULE, "./pause", 5);
const PROBE: &Recipe = &Recipe::new("probe", "own", &IMAGES_MODULE, "./probe", 5);
const POD_NETWORK: &Recipe = &Recipe::new("pod-network", "own", &IMAGES_MODULE, "./pod-network", 20);

/// All of them.
pub(crate) const PROGRAMS: [&Recipe; 13] = [
    kubernetes::ETCD,
    kubernetes::KUBE_APISERVER,
    kubernetes::KUBE_CONTROLLER_MANAGER,
    kubernetes::KUBECTL,
    KUBELET,
    KUBEADM,
    KUBE_SCHEDULER,
    KUBE_PROXY,
    COREDNS,
    KUBE_VIP,
    PAUSE,
    POD_NETWORK,
    PROBE,
];

/// The programs of a node, built.
pub(crate) struct NodePrograms {
    /// Version of Kubernetes.
    pub(crate) version: &'static str,
    pub(crate) etcd: Built,
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
        Ok(Self {
            version: kubernetes_version(),
            etcd: cache.program(kubernetes::ETCD).await?,
            kube_apiserver: cache.program(kubernetes::KUBE_APISERVER).await?,
            kube_controller_manager: cache.program(kubernetes::KUBE_CONTROLLER_MANAGER).await?,
            kubectl: cache.program(kubernetes::KUBECTL).await?,
            kubelet: cache.program(KUBELET).await?,
            kubeadm: cache.program(KUBEADM).await?,
            kube_scheduler: cache.program(KUBE_SCHEDULER).await?,
            kube_proxy: cache.program(KUBE_PROXY).await?,
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
        let folders: Vec<_> = all.iter().map(|built| built.folder().display().to_string()).collect();
        short_hash(&folders.iter().map(String::as_str).collect::<Vec<_>>())
    }
}
