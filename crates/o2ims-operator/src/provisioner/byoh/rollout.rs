//! Rollouts. None is made: there is no spare host. A rollout, or another number of machines, that somebody has asked of Cluster API
//! directly is taken back.

use std::sync::Arc;

use cluster_api::Kind;
use cluster_api::machine::Machine;
use serde_json::{Map, Value};

use super::desired::DesiredCluster;
use super::observed::Observed;
use crate::provisioner::step::{Manifest, Step};

/// The fields that revert what somebody has changed by hand and cannot have: another number of machines, or a rollout of masters.
pub fn revert(manifest: &Manifest, observed: &Observed) -> Option<Value> {
    let (replicas, rollout) = match manifest.kind {
        Kind::KubeadmControlPlane => {
            let spec = &observed.control_plane.as_ref()?.spec;
            (spec.replicas, spec.rollout_after.is_some())
        }
        Kind::MachineDeployment => (observed.deployments.get(&manifest.name)?.spec.replicas, false),
        _ => return None,
    };
    let wanted = &manifest.object["spec"]["replicas"];
    let mut fields = Map::new();
    if replicas.map(i64::from) != wanted.as_i64() {
        fields.insert("replicas".to_owned(), wanted.clone());
    }
    if rollout {
        fields.insert("rolloutAfter".to_owned(), Value::Null);
    }
    (!fields.is_empty()).then_some(Value::Object(fields))
}

/// Deletes Machines beyond the masters that were asked for, which the control plane created while somebody had scaled it or rolled it out.
/// They never get a host, and Cluster API does not scale down while a Machine is unhealthy.
pub fn surplus_masters(desired: &DesiredCluster, observed: &Observed) -> Vec<Step> {
    let wanted = i32::try_from(desired.masters.len()).unwrap_or(i32::MAX);
    let settled = observed.control_plane.as_ref().is_some_and(|object| {
        object.status.initialized && object.spec.replicas == Some(wanted) && object.spec.rollout_after.is_none()
    });
    let masters: Vec<_> = observed.machines.iter().filter(|machine| machine.is_master()).collect();
    let (with_host, without_host): (Vec<_>, Vec<_>) = masters.into_iter().partition(|machine| {
        let name = &machine.spec.infrastructure_ref.name;
        machine.was_a_node() || observed.hosts.values().any(|host| host.attached_machine() == Some(name))
    });
    if !settled || with_host.len() < desired.masters.len() {
        return Vec::new();
    }
    let stays = |machine: &&Arc<Machine>| machine.metadata.deletion_timestamp.is_none();
    without_host
        .into_iter()
        .filter(stays)
        .map(|machine| Step::delete_with_nodes(Kind::Machine, machine.as_ref()))
        .collect()
}
