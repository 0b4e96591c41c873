//! `KubeadmControlPlane`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::conditions::Condition;
use crate::machine::{MachineRefs, ReplicaStatus};
use crate::partial::partial_resource;
use crate::templates::Template;

partial_resource!(
    /// The control plane of a cluster.
    KubeadmControlPlane, ControlPlaneSpec, ControlPlaneStatus
);

/// Of a KubeadmControlPlane's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneSpec {
    /// Asked-for number of masters.
    pub replicas: Option<i32>,
    /// Asked-for version.
    #[serde(default)]
    pub version: String,
    /// How its Machines are replaced.
    #[serde(default)]
    pub rollout: Rollout,
    /// The template of its Machines.
    #[serde(default)]
    pub machine_template: Template<MachineRefs>,
    /// How kubeadm makes them nodes.
    #[serde(default)]
    pub kubeadm_config_spec: KubeadmConfigSpec,
}

/// Of a KubeadmControlPlane's settings for kubeadm.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeadmConfigSpec {
    /// Settings of the cluster.
    #[serde(default)]
    pub cluster_configuration: ClusterConfiguration,
    /// Settings of the first master.
    #[serde(default)]
    pub init_configuration: NodeConfiguration,
    /// Settings of the other masters.
    #[serde(default)]
    pub join_configuration: NodeConfiguration,
}

/// Of the settings of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterConfiguration {
    /// Feature gates of kubeadm.
    #[serde(default)]
    pub feature_gates: BTreeMap<String, bool>,
    /// Its etcd.
    #[serde(default)]
    pub etcd: Etcd,
}

/// Of the settings of etcd.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Etcd {
    /// It is not on the masters.
    pub external: Option<IgnoredAny>,
}

/// Of the settings of a node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfiguration {
    /// How the node is registered.
    #[serde(default)]
    pub node_registration: NodeRegistration,
}

/// Of the registration of a node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRegistration {
    /// Names of kubeadm's checks whose errors are ignored.
    #[serde(default)]
    pub ignore_preflight_errors: Vec<String>,
}

/// How the Machines of a control plane are replaced.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Rollout {
    /// Machines that are older than this are to be replaced.
    pub after: Option<Time>,
}

/// Of a KubeadmControlPlane's status.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneStatus {
    /// Counters.
    #[serde(flatten)]
    pub counts: ReplicaStatus,
    /// What has happened for the first time.
    #[serde(default)]
    pub initialization: Initialization,
    /// Conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// What has happened for the first time.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Initialization {
    /// `kubeadm init` has run.
    #[serde(default)]
    pub control_plane_initialized: bool,
}

impl KubeadmControlPlane {
    /// `kubeadm init` has run.
    pub fn is_initialized(&self) -> bool {
        self.status.initialization.control_plane_initialized
    }
}
