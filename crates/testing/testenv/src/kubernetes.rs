//! Recipes of etcd's and Kubernetes' programs.

use crate::build::{Module, Recipe, module};
use crate::versions;

const STAMPS: &str = "-X k8s.io/component-base/version.gitVersion=VERSION \
     -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=MINOR \
     -X k8s.io/client-go/pkg/version.gitVersion=VERSION";

static ETCD_MODULE: Module = module!("etcd");
static KUBERNETES_MODULE: Module = module!("kubernetes");

pub(crate) const ETCD: &Recipe = &Recipe {
    in_assets_folder: true,
    ..Recipe::new("etcd", versions::ETCD, &ETCD_MODULE, "go.etcd.io/etcd/server/v3", 45)
};
pub(crate) const KUBE_APISERVER: &Recipe =
    &Recipe { in_assets_folder: true, ..recipe("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", 240) };
pub(crate) const KUBE_CONTROLLER_MANAGER: &Recipe =
    &recipe("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", 60);
pub(crate) const KUBECTL: &Recipe =
    &Recipe { in_assets_folder: true, ..recipe("kubectl", "k8s.io/kubernetes/cmd/kubectl", 25) };

/// The programs of a management cluster, in the order in which they are built.
pub(crate) const CONTROL_PLANE: &[&Recipe] = &[ETCD, KUBE_APISERVER, KUBE_CONTROLLER_MANAGER, KUBECTL];

/// Version of Kubernetes, on management clusters and on hosts.
pub const fn kubernetes_version() -> &'static str {
    versions::KUBERNETES
}

/// A program of Kubernetes; `seconds` is roughly how long its first build takes.
pub(crate) const fn recipe(name: &'static str, package: &'static str, seconds: u32) -> Recipe {
    Recipe { stamps: STAMPS, ..Recipe::new(name, versions::KUBERNETES, &KUBERNETES_MODULE, package, seconds) }
}
