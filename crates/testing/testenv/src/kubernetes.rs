//! Recipes of etcd's and Kubernetes' programs.

use crate::build::{Module, Recipe, module};

/// Version of Kubernetes, also on hosts.
pub const KUBERNETES_VERSION: &str = "v1.33.13";
const KUBERNETES_STAMPS: &str = "-X k8s.io/component-base/version.gitVersion=v1.33.13 \
     -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=33 \
     -X k8s.io/client-go/pkg/version.gitVersion=v1.33.13";
/// Version of etcd and its tools.
pub(crate) const ETCD_VERSION: &str = "v3.5.21";

static ETCD_MODULE: Module = module!("etcd");
static KUBERNETES_MODULE: Module = module!("kubernetes");

pub(crate) const ETCD: &Recipe = &Recipe {
    in_assets_folder: true,
    ..Recipe::new("etcd", ETCD_VERSION, &ETCD_MODULE, "go.etcd.io/etcd/server/v3", 45)
};
pub(crate) const KUBE_APISERVER: &Recipe =
    &Recipe { in_assets_folder: true, ..recipe("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", 240) };
pub(crate) const KUBE_CONTROLLER_MANAGER: &Recipe =
    &recipe("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", 60);
pub(crate) const KUBECTL: &Recipe =
    &Recipe { in_assets_folder: true, ..recipe("kubectl", "k8s.io/kubernetes/cmd/kubectl", 25) };

/// The programs of a management cluster, in the order in which they are built.
pub(crate) const CONTROL_PLANE: &[&Recipe] = &[ETCD, KUBE_APISERVER, KUBE_CONTROLLER_MANAGER, KUBECTL];

/// A program of Kubernetes; `seconds` is roughly how long its first build takes.
pub(crate) const fn recipe(name: &'static str, package: &'static str, seconds: u32) -> Recipe {
    Recipe { stamps: KUBERNETES_STAMPS, ..Recipe::new(name, KUBERNETES_VERSION, &KUBERNETES_MODULE, package, seconds) }
}
