//! `KubeadmControlPlane`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::conditions::Condition;
use crate::machine::{MachineRefs, ReplicaStatus};
use crate::partial::partial_resource;

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
    /// Machines that are older than this are to be replaced.
    pub rollout_after: Option<Time>,
    /// The templates of its Machines.
    #[serde(default)]
    pub machine_template: MachineRefs,
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
