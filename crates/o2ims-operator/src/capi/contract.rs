//! Kinds, API versions and well-known keys of Cluster API and BYOH.

use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

/// Label that ties every object of a cluster to it.
pub const CLUSTER_NAME_LABEL: &str = "cluster.x-k8s.io/cluster-name";
/// Label that a MachineDeployment selects its Machines by.
pub const DEPLOYMENT_NAME_LABEL: &str = "cluster.x-k8s.io/deployment-name";
/// Label on the Machines of a control plane.
pub const CONTROL_PLANE_LABEL: &str = "cluster.x-k8s.io/control-plane";
/// Annotation by which a KubeadmControlPlane holds up the end of its Machine until it has taken the member out of etcd.
pub const CONTROL_PLANE_HOOK: &str = "pre-terminate.delete.hook.machine.cluster.x-k8s.io/kcp-cleanup";
/// Annotation that makes controllers leave an object alone.
pub const PAUSED_ANNOTATION: &str = "cluster.x-k8s.io/paused";

/// A kind that the operator writes or watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `Cluster`
    Cluster,
    /// `KubeadmControlPlane`
    KubeadmControlPlane,
    /// `MachineDeployment`
    MachineDeployment,
    /// `KubeadmConfigTemplate`
    KubeadmConfigTemplate,
    /// `ByoCluster`
    ByoCluster,
    /// `ByoMachineTemplate`
    ByoMachineTemplate,
    /// `K8sInstallerConfigTemplate`
    K8sInstallerConfigTemplate,
    /// `Machine`
    Machine,
    /// `ByoHost`
    ByoHost,
}

impl Kind {
    /// What the operator makes.
    pub const MADE: [Self; 7] = [
        Self::Cluster,
        Self::MachineDeployment,
        Self::KubeadmControlPlane,
        Self::ByoCluster,
        Self::ByoMachineTemplate,
        Self::KubeadmConfigTemplate,
        Self::K8sInstallerConfigTemplate,
    ];

    /// Whether objects of this kind are only referred to, and never changed.
    pub const fn is_template(self) -> bool {
        matches!(self, Self::ByoMachineTemplate | Self::KubeadmConfigTemplate | Self::K8sInstallerConfigTemplate)
    }

    /// Kind name as in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::KubeadmControlPlane => "KubeadmControlPlane",
            Self::MachineDeployment => "MachineDeployment",
            Self::KubeadmConfigTemplate => "KubeadmConfigTemplate",
            Self::ByoCluster => "ByoCluster",
            Self::ByoMachineTemplate => "ByoMachineTemplate",
            Self::K8sInstallerConfigTemplate => "K8sInstallerConfigTemplate",
            Self::Machine => "Machine",
            Self::ByoHost => "ByoHost",
        }
    }

    /// API group.
    pub const fn group(self) -> &'static str {
        match self {
            Self::Cluster | Self::MachineDeployment | Self::Machine => "cluster.x-k8s.io",
            Self::KubeadmControlPlane => "controlplane.cluster.x-k8s.io",
            Self::KubeadmConfigTemplate => "bootstrap.cluster.x-k8s.io",
            Self::ByoCluster | Self::ByoMachineTemplate | Self::K8sInstallerConfigTemplate | Self::ByoHost => {
                "infrastructure.cluster.x-k8s.io"
            }
        }
    }

    /// Plural as in URLs.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Cluster => "clusters",
            Self::KubeadmControlPlane => "kubeadmcontrolplanes",
            Self::MachineDeployment => "machinedeployments",
            Self::KubeadmConfigTemplate => "kubeadmconfigtemplates",
            Self::ByoCluster => "byoclusters",
            Self::ByoMachineTemplate => "byomachinetemplates",
            Self::K8sInstallerConfigTemplate => "k8sinstallerconfigtemplates",
            Self::Machine => "machines",
            Self::ByoHost => "byohosts",
        }
    }

    /// `group/version`.
    pub fn api_version(self) -> String {
        format!("{}/{VERSION}", self.group())
    }

    /// For dynamic calls.
    pub fn api_resource(self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group(), VERSION, self.name()), self.plural())
    }

    /// A reference as Cluster API's v1beta1 has it. The namespace is given, because a webhook would add it.
    pub fn reference(self, namespace: &str, name: &str) -> Value {
        json!({"apiVersion": self.api_version(), "kind": self.name(), "namespace": namespace, "name": name})
    }
}

/// API version of every kind that is used here.
pub const VERSION: &str = "v1beta1";
