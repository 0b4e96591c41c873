//! What is read of Cluster API's objects: slim records, so that a watch over thousands of them stays small.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use o2ims_types::cluster_template::Install;
use o2ims_types::names;
use serde::Deserialize;

use super::contract::{CONTROL_PLANE_LABEL, DEPLOYMENT_NAME_LABEL, PAUSED_ANNOTATION};

/// A namespaced kind of which only some fields are kept. It is read, never written back.
macro_rules! slim {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $group:literal, $plural:literal, $spec:ty, $status:ty) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
        pub struct $name {
            /// Metadata.
            pub metadata: kube::core::ObjectMeta,
            /// What is kept of the spec.
            #[serde(default)]
            pub spec: $spec,
            /// What is kept of the status.
            #[serde(default)]
            pub status: $status,
        }

        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = k8s_openapi::NamespaceResourceScope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                $kind.into()
            }
            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }
            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $crate::capi::contract::VERSION.into()
            }
            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &kube::core::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut kube::core::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
pub(crate) use slim;

slim!(
    /// A cluster.
    Cluster, "Cluster", "cluster.x-k8s.io", "clusters", ClusterSpec, ClusterStatus
);
slim!(
    /// The control plane of a cluster.
    KubeadmControlPlane, "KubeadmControlPlane", "controlplane.cluster.x-k8s.io", "kubeadmcontrolplanes",
    ControlPlaneSpec, ControlPlaneStatus
);
slim!(
    /// One worker host.
    MachineDeployment, "MachineDeployment", "cluster.x-k8s.io", "machinedeployments", DeploymentSpec, ReplicaStatus
);
slim!(
    /// One node to be.
    Machine, "Machine", "cluster.x-k8s.io", "machines", MachineSpec, MachineStatus
);
slim!(
    /// Manifests for clusters that it selects by label.
    ClusterResourceSet, "ClusterResourceSet", "addons.cluster.x-k8s.io", "clusterresourcesets", ResourceSetSpec, Nothing
);
slim!(
    /// BYOH's half of a cluster.
    ByoCluster, "ByoCluster", "infrastructure.cluster.x-k8s.io", "byoclusters", ByoClusterSpec, Nothing
);
slim!(
    /// Which hosts a machine may take.
    ByoMachineTemplate, "ByoMachineTemplate", "infrastructure.cluster.x-k8s.io", "byomachinetemplates", MachineTemplateSpec,
    Nothing
);
slim!(
    /// Only that it exists.
    KubeadmConfigTemplate, "KubeadmConfigTemplate", "bootstrap.cluster.x-k8s.io", "kubeadmconfigtemplates", Nothing, Nothing
);
slim!(
    /// Only that it exists.
    K8sInstallerConfigTemplate, "K8sInstallerConfigTemplate", "infrastructure.cluster.x-k8s.io",
    "k8sinstallerconfigtemplates", Nothing, Nothing
);

/// Nothing is kept.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Nothing {}

/// Of a Cluster's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// Controllers leave the cluster alone.
    #[serde(default)]
    pub paused: bool,
    /// Where its API answers.
    pub control_plane_endpoint: Option<ControlPlaneEndpoint>,
    /// Its networks.
    #[serde(default)]
    pub cluster_network: ClusterNetwork,
}

/// Of a Cluster's networks.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ClusterNetwork {
    /// Where its pods are.
    #[serde(default)]
    pub pods: NetworkRanges,
}

/// Networks in CIDR form.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRanges {
    /// The networks.
    #[serde(default)]
    pub cidr_blocks: Vec<String>,
}

impl Cluster {
    /// The operator has not let it go yet: it is paused by the operator, not by a user.
    pub fn is_being_made(&self) -> bool {
        self.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(names::CREATING_ANNOTATION))
    }

    /// How Kubernetes gets onto its hosts, as it was made.
    pub fn install(&self) -> Option<Install> {
        serde_json::from_str(self.metadata.annotations.as_ref()?.get(names::INSTALL_ANNOTATION)?).ok()
    }
}

/// Of a ByoCluster's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ByoClusterSpec {
    /// Where the cluster's API answers.
    pub control_plane_endpoint: Option<ControlPlaneEndpoint>,
}

/// Whether Cluster API's annotation makes controllers leave the object alone.
pub fn has_pause_annotation<K: kube::Resource>(object: &K) -> bool {
    object.meta().annotations.as_ref().is_some_and(|all| all.contains_key(PAUSED_ANNOTATION))
}

/// Where a cluster's API answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ControlPlaneEndpoint {
    /// Address or name.
    #[serde(default)]
    pub host: String,
    /// TCP port.
    #[serde(default)]
    pub port: i32,
}

/// Of a Cluster's status.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The infrastructure provider is done.
    #[serde(default)]
    pub infrastructure_ready: bool,
    /// Conditions of the newer style, which say what a deletion waits for.
    #[serde(default)]
    pub v1beta2: NewerStatus,
}

/// The newer style of conditions, on objects of API version v1beta1.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct NewerStatus {
    /// The conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Of a KubeadmControlPlane's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneSpec {
    /// Asked-for number of masters.
    pub replicas: Option<i32>,
    /// Asked-for version.
    #[serde(default)]
    pub version: String,
    /// Machines that are older than this are to be replaced.
    pub rollout_after: Option<Time>,
    /// What its Machines are made from.
    #[serde(default)]
    pub machine_template: MachineParts,
}

/// The templates that a Machine is made from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineParts {
    /// Its ByoMachineTemplate.
    #[serde(default)]
    pub infrastructure_ref: NameRef,
    /// Its KubeadmConfigTemplate; a control plane has none.
    #[serde(default)]
    pub bootstrap: BootstrapPart,
}

/// How a Machine becomes a node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootstrapPart {
    /// Its KubeadmConfigTemplate.
    #[serde(default)]
    pub config_ref: NameRef,
}

/// Of a ByoMachineTemplate's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct MachineTemplateSpec {
    /// What is stamped out.
    #[serde(default)]
    pub template: Template<InstallerPart>,
}

/// What is stamped out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Template<T> {
    /// Its spec.
    #[serde(default)]
    pub spec: T,
}

/// How Kubernetes gets onto the host of a machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstallerPart {
    /// Its K8sInstallerConfigTemplate, if there is one.
    #[serde(default)]
    pub installer_ref: NameRef,
}

/// Of a KubeadmControlPlane's status.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneStatus {
    /// Counters.
    #[serde(flatten)]
    pub counts: ReplicaStatus,
    /// `kubeadm init` has run.
    #[serde(default)]
    pub initialized: bool,
    /// Conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Counters of machines.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// Generation that the counters speak of.
    pub observed_generation: Option<i64>,
    /// Machines.
    #[serde(default)]
    pub replicas: i32,
    /// Machines with a Ready node.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Machines of the asked-for kind.
    #[serde(default)]
    pub updated_replicas: i32,
}

impl ReplicaStatus {
    /// Every one of `desired` machines is Ready and of the asked-for kind, and the counters are those of `generation`.
    pub fn complete(&self, desired: usize, generation: Option<i64>) -> bool {
        self.observed_generation >= generation
            && [self.replicas, self.ready_replicas, self.updated_replicas]
                .iter()
                .all(|count| usize::try_from(*count) == Ok(desired))
    }
}

/// Of a MachineDeployment's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSpec {
    /// Asked-for number of machines.
    pub replicas: Option<i32>,
    /// What its Machines are made from.
    #[serde(default)]
    pub template: Template<MachineParts>,
}

/// Of a Machine's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineSpec {
    /// Its ByoMachine.
    #[serde(default)]
    pub infrastructure_ref: NameRef,
    /// The server that it runs on, once it is a node.
    #[serde(rename = "providerID")]
    pub provider_id: Option<String>,
}

impl Machine {
    /// It is, or is to be, a node of the control plane.
    pub fn is_master(&self) -> bool {
        self.metadata.labels.as_ref().is_some_and(|all| all.contains_key(CONTROL_PLANE_LABEL))
    }

    /// Name of its MachineDeployment, if it is a worker.
    pub fn deployment(&self) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(DEPLOYMENT_NAME_LABEL).map(String::as_str)
    }

    /// The server that it is a node on, by name, as its Node says or, where a backup was restored that has no status, its provider
    /// ID (`byoh://<host>/<suffix>`).
    pub fn server(&self) -> Option<&str> {
        let told = self.status.node_ref.as_ref().map(|node| node.name.as_str());
        told.or_else(|| self.spec.provider_id.as_deref()?.strip_prefix("byoh://")?.split('/').next())
    }

    /// It was a node at some time.
    pub fn was_a_node(&self) -> bool {
        self.status.node_ref.is_some() || self.spec.provider_id.is_some()
    }
}

/// Of a Machine's status.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// How far it is, in Cluster API's words, such as `Running` or `Failed`.
    #[serde(default)]
    pub phase: String,
    /// Why it failed for good.
    #[serde(default)]
    pub failure_message: String,
    /// Its Node, once there is one.
    pub node_ref: Option<NameRef>,
    /// What the Node says of itself.
    #[serde(default)]
    pub node_info: NodeInfo,
    /// Conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Conditions of the newer style, with better messages.
    #[serde(default)]
    pub v1beta2: NewerStatus,
}

/// Of a Node's own description.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// Version of its kubelet.
    #[serde(default)]
    pub kubelet_version: String,
}

/// The name in an object reference.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameRef {
    /// Name.
    #[serde(default)]
    pub name: String,
    /// Namespace.
    #[serde(default)]
    pub namespace: String,
}

/// Of a ClusterResourceSet's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceSetSpec {
    /// Which clusters it is for.
    #[serde(default)]
    pub cluster_selector: LabelSelector,
}

/// The part of a label selector that can be turned into labels.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels and values.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
}

/// A condition of either style.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Condition {
    /// Type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: String,
    /// Reason, CamelCase.
    #[serde(default)]
    pub reason: String,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// `Error`, `Warning` or `Info`, older style only.
    #[serde(default)]
    pub severity: String,
}

impl Condition {
    /// The condition of this type, if there is one.
    pub fn find<'a>(conditions: &'a [Self], type_: &str) -> Option<&'a Self> {
        conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// Whether the condition of this type is there and True.
    pub fn is_true(conditions: &[Self], type_: &str) -> bool {
        Self::find(conditions, type_).is_some_and(|condition| condition.status == "True")
    }

    /// `Reason: message`, or what there is of it.
    pub fn explain(&self) -> String {
        match (self.reason.is_empty(), self.message.is_empty()) {
            (false, false) => format!("{}: {}", self.reason, one_line(&self.message)),
            (false, true) => self.reason.clone(),
            (true, _) => one_line(&self.message),
        }
    }
}

/// Cluster API's messages are lists of lines.
pub fn one_line(message: &str) -> String {
    message
        .lines()
        .map(|line| line.trim().trim_start_matches("* "))
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}
