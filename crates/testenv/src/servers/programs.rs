//! The programs of a node and of its images.

use anyhow::Result;
use std::path::Path;

use crate::binaries::{Built, Cache, Module, Recipe, module, short_hash};
use crate::control_plane::{self, KUBERNETES_VERSION, kubernetes};

static COREDNS_MODULE: Module = module!("coredns");
static KUBE_VIP_MODULE: Module = module!("kube-vip");
static IMAGES_MODULE: Module = module!("images", "pause/main.go", "probe/main.go", "pod-network/main.go");

const KUBELET: &Recipe = &kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet", 45, false);
const KUBEADM: &Recipe = &kubernetes("kubeadm", "k8s.io/kubernetes/cmd/kubeadm", 25, false);
const KUBE_PROXY: &Recipe = &kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", 20, false);
const KUBE_SCHEDULER: &Recipe = &kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", 20, false);
const COREDNS: &Recipe = &other("coredns", "v1.12.0", &COREDNS_MODULE, "github.com/coredns/coredns", "", 120);
const KUBE_VIP: &Recipe =
    &other("kube-vip", "v0.9.1", &KUBE_VIP_MODULE, "github.com/kube-vip/kube-vip", "-X main.Version=v0.9.1", 75);
const PAUSE: &Recipe = &other("pause", "own", &IMAGES_MODULE, "./pause", "", 5);
const PROBE: &Recipe = &other("probe", "own", &IMAGES_MODULE, "./probe", "", 5);
const POD_NETWORK: &Recipe = &other("pod-network", "own", &IMAGES_MODULE, "./pod-network", "", 20);

const fn other(
    name: &'static str,
    version: &'static str,
    module: &'static Module,
    package: &'static str,
    stamps: &'static str,
    seconds: u32,
) -> Recipe {
    Recipe { name, version, module, package, stamps, manifests: None, seconds, in_assets_folder: false }
}

/// The programs, built.
pub(crate) struct NodePrograms {
    /// Of Kubernetes.
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
    pub(crate) async fn get(cache: &Cache) -> Result<Self> {
        Ok(Self {
            version: KUBERNETES_VERSION,
            etcd: cache.program(control_plane::ETCD).await?,
            kube_apiserver: cache.program(control_plane::KUBE_APISERVER).await?,
            kube_controller_manager: cache.program(control_plane::KUBE_CONTROLLER_MANAGER).await?,
            kubectl: cache.program(control_plane::KUBECTL).await?,
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

    /// What is installed on a server, not in an image.
    pub(crate) fn on_servers(&self) -> [(&'static str, &Path); 3] {
        [("kubelet", &self.kubelet.program), ("kubeadm", &self.kubeadm.program), ("kubectl", &self.kubectl.program)]
    }

    /// Something that changes with any of the programs.
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
