//! The kinds, in one table.

use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

/// The versions of Cluster API that are supported: the first that has the API versions below and is maintained, to the last that serves the
/// contract of BYOH and was tried.
pub const SUPPORTED_RELEASES: &str = "1.12 to 1.14";

/// An API group, with the version of its kinds that is used here.
struct Group {
    name: &'static str,
    version: &'static str,
}

const CORE: Group = Group { name: "cluster.x-k8s.io", version: "v1beta2" };
const ADDONS: Group = Group { name: "addons.cluster.x-k8s.io", version: "v1beta2" };
const BOOTSTRAP: Group = Group { name: "bootstrap.cluster.x-k8s.io", version: "v1beta2" };
const CONTROL_PLANE: Group = Group { name: "controlplane.cluster.x-k8s.io", version: "v1beta2" };
/// BYOH's; it has no other version.
const INFRASTRUCTURE: Group = Group { name: "infrastructure.cluster.x-k8s.io", version: "v1beta1" };

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
                match self { $(Self::$name => $group.name,)* }
            }

            /// API version.
            pub const fn version(self) -> &'static str {
                match self { $(Self::$name => $group.version,)* }
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
    MachineSet                 CORE           "machinesets";
    KubeadmConfig              BOOTSTRAP      "kubeadmconfigs";
    ByoMachine                 INFRASTRUCTURE "byomachines";
    ByoHost                    INFRASTRUCTURE "byohosts";
    ClusterResourceSet         ADDONS         "clusterresourcesets";
    ClusterResourceSetBinding  ADDONS         "clusterresourcesetbindings";
}

/// The version in which kinds of this group of Cluster API or BYOH are used.
pub fn version_of(group: &str) -> &'static str {
    if group == INFRASTRUCTURE.name { INFRASTRUCTURE.version } else { CORE.version }
}

impl Kind {
    /// Whether objects of this kind are only referred to, and never changed.
    pub const fn is_template(self) -> bool {
        matches!(self, Self::ByoMachineTemplate | Self::KubeadmConfigTemplate | Self::K8sInstallerConfigTemplate)
    }

    /// Whether it is a kind of BYOH, and not of Cluster API itself.
    pub fn is_of_byoh(self) -> bool {
        self.group() == INFRASTRUCTURE.name
    }

    /// `group/version`.
    pub fn api_version(self) -> String {
        format!("{}/{}", self.group(), self.version())
    }

    /// For dynamic calls.
    pub fn api_resource(self) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group(), self.version(), self.name());
        ApiResource::from_gvk_with_plural(&kind, self.plural())
    }

    /// A reference as Cluster API's v1beta2 has it: to an object in the same namespace, in the version that the labels of its CRD name.
    pub fn reference(self, name: &str) -> Value {
        json!({"apiGroup": self.group(), "kind": self.name(), "name": name})
    }

    /// A reference as BYOH has it.
    pub fn object_reference(self, namespace: &str, name: &str) -> Value {
        json!({"apiVersion": self.api_version(), "kind": self.name(), "namespace": namespace, "name": name})
    }
}
