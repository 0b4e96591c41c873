//! The kinds, in one table.

use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

/// API version of every kind that is used here.
pub const VERSION: &str = "v1beta1";

const CORE: &str = "cluster.x-k8s.io";
const ADDONS: &str = "addons.cluster.x-k8s.io";
const BOOTSTRAP: &str = "bootstrap.cluster.x-k8s.io";
const CONTROL_PLANE: &str = "controlplane.cluster.x-k8s.io";
const INFRASTRUCTURE: &str = "infrastructure.cluster.x-k8s.io";

macro_rules! kinds {
    ($($name:ident $group:ident $plural:literal;)*) => {
        /// A kind of Cluster API or BYOH.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $(
                #[doc = concat!("`", stringify!($name), "`")]
                $name,
            )*
        }

        impl Kind {
            /// Kind name as in manifests.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// API group.
            pub const fn group(self) -> &'static str {
                match self { $(Self::$name => $group,)* }
            }

            /// Plural as in URLs.
            pub const fn plural(self) -> &'static str {
                match self { $(Self::$name => $plural,)* }
            }
        }
    };
}

// The order is that of `Ord`; nothing else depends on it.
kinds! {
    Cluster                    CORE           "clusters";
    KubeadmControlPlane        CONTROL_PLANE  "kubeadmcontrolplanes";
    MachineDeployment          CORE           "machinedeployments";
    KubeadmConfigTemplate      BOOTSTRAP      "kubeadmconfigtemplates";
    ByoCluster                 INFRASTRUCTURE "byoclusters";
    ByoMachineTemplate         INFRASTRUCTURE "byomachinetemplates";
    K8sInstallerConfigTemplate INFRASTRUCTURE "k8sinstallerconfigtemplates";
    Machine                    CORE           "machines";
    ByoMachine                 INFRASTRUCTURE "byomachines";
    ByoHost                    INFRASTRUCTURE "byohosts";
    ClusterResourceSet         ADDONS         "clusterresourcesets";
    ClusterResourceSetBinding  ADDONS         "clusterresourcesetbindings";
}

impl Kind {
    /// Whether objects of this kind are only referred to, and never changed.
    pub const fn is_template(self) -> bool {
        matches!(self, Self::ByoMachineTemplate | Self::KubeadmConfigTemplate | Self::K8sInstallerConfigTemplate)
    }

    /// `group/version`.
    pub fn api_version(self) -> String {
        format!("{}/{VERSION}", self.group())
    }

    /// For dynamic calls.
    pub fn api_resource(self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group(), VERSION, self.name()), self.plural())
    }

    /// An object reference as Cluster API's v1beta1 has it. The namespace is given, because a webhook would add it.
    pub fn reference(self, namespace: &str, name: &str) -> Value {
        json!({"apiVersion": self.api_version(), "kind": self.name(), "namespace": namespace, "name": name})
    }
}
