//! `KubeadmControlPlane`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

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
