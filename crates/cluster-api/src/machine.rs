//! `Machine` and `MachineDeployment`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::conditions::Condition;
use crate::labels::{CONTROL_PLANE_LABEL, DEPLOYMENT_NAME_LABEL, SET_NAME_LABEL};
use crate::partial::{NameRef, partial_resource};
use crate::templates::Template;

partial_resource!(
    /// Machines that are made from one template.
    MachineDeployment, DeploymentSpec, DeploymentStatus
);

partial_resource!(
    /// A machine: a node, or a server that is to become one.
    Machine, MachineSpec, MachineStatus
);

/// Of a MachineDeployment's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSpec {
    /// Asked-for number of machines.
    pub replicas: Option<i32>,
    /// The template of its Machines.
    #[serde(default)]
    pub template: Template<MachineRefs>,
}

/// What a Machine is made from: its version and the templates that it refers to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineRefs {
    /// Kubernetes version; a control plane has it in its own spec.
    pub version: Option<String>,
    /// Its ByoMachineTemplate.
    #[serde(default)]
    pub infrastructure_ref: NameRef,
    /// Its KubeadmConfigTemplate; a control plane has none.
    #[serde(default)]
    pub bootstrap: BootstrapRef,
    /// How Machines are deleted.
    #[serde(default)]
    pub deletion: Deletion,
}

/// How a Machine is deleted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    /// How long Cluster API tries to delete the Node, in seconds.
    pub node_deletion_timeout_seconds: Option<i32>,
    /// How long the drain of the Node may take, in seconds; 0, as without it: for ever.
    pub node_drain_timeout_seconds: Option<i32>,
}

/// The bootstrap configuration of a Machine, or of the Machines of a template.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootstrapRef {
    /// Its KubeadmConfig, or KubeadmConfigTemplate.
    #[serde(default)]
    pub config_ref: NameRef,
}

/// Of a MachineDeployment's status.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentStatus {
    /// Counters.
    #[serde(flatten)]
    pub counts: ReplicaStatus,
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
    /// Machines that are Ready: with a healthy node, and neither updated nor deleted at the moment.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Machines of the asked-for kind.
    #[serde(default)]
    pub up_to_date_replicas: i32,
}

impl ReplicaStatus {
    /// Every one of `desired` machines is Ready and of the asked-for kind, and the counters are those of `generation`.
    pub fn complete(&self, desired: usize, generation: Option<i64>) -> bool {
        self.all_exist(desired, generation) && usize::try_from(self.ready_replicas) == Ok(desired)
    }

    /// Every one of `desired` machines exists and is of the asked-for kind, Ready or not, and the counters are those of `generation`.
    pub fn all_exist(&self, desired: usize, generation: Option<i64>) -> bool {
        let counts = [self.replicas, self.up_to_date_replicas];
        self.observed_generation >= generation && counts.iter().all(|count| usize::try_from(*count) == Ok(desired))
    }
}

/// Of a Machine's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineSpec {
    /// Kubernetes version of its node.
    pub version: Option<String>,
    /// Its ByoMachine.
    #[serde(default)]
    pub infrastructure_ref: NameRef,
    /// Its KubeadmConfig.
    #[serde(default)]
    pub bootstrap: BootstrapRef,
    /// The server that it runs on, once it is a node.
    #[serde(rename = "providerID")]
    pub provider_id: Option<String>,
    /// How it is deleted.
    #[serde(default)]
    pub deletion: Deletion,
}

/// Of a Machine's status.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// How far it is, in Cluster API's words, such as `Running` or `Failed`.
    #[serde(default)]
    pub phase: String,
    /// When the certificate of its API server ends, of a master. Cluster API reads it once, when the node has joined.
    pub certificates_expiry_date: Option<Time>,
    /// Its Node, once there is one.
    pub node_ref: Option<NameRef>,
    /// What the Node says of itself.
    #[serde(default)]
    pub node_info: NodeInfo,
    /// Conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
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

    /// Name of its MachineSet, if it is a worker.
    pub fn set(&self) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(SET_NAME_LABEL).map(String::as_str)
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

/// Of a Node's own description.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// Version of its kubelet.
    #[serde(default)]
    pub kubelet_version: String,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_expiry_of_certificates_is_read_where_there_is_one() {
        let expiry = |status: serde_json::Value| -> Option<String> {
            let machine: Machine = serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap();
            machine.status.certificates_expiry_date.map(|Time(at)| at.to_string())
        };
        let date = "2027-01-02T03:04:05Z";
        assert_eq!(expiry(json!({"certificatesExpiryDate": date})).as_deref(), Some(date));
        assert_eq!(expiry(json!({})), None);
    }
}
