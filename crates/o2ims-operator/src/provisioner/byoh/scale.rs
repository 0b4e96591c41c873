//! Scaling. Hosts that the request names in addition become workers; hosts that it names no longer are removed. The number of masters
//! stays: the operator reverts another number of machines that another client has requested from Cluster API.

use std::sync::Arc;

use cluster_api::Kind;
use cluster_api::machine::Machine;
use o2ims_types::names;

use super::desired::DesiredCluster;
use super::observed::Observed;
use crate::provisioner::step::{Manifest, Step};

/// MachineDeployments of hosts that are not clean yet. BYOH attaches a host again while its agent still has one write of the cleanup to
/// make; that write then detaches the new machine for ever.
pub fn unclean_workers(desired: &DesiredCluster, observed: &Observed) -> Vec<String> {
    let is_in_use = |name: &str| observed.host(name).is_some_and(|host| host.in_use_reason().is_some());
    desired
        .workers
        .iter()
        .filter(|host| is_in_use(&host.name))
        .map(|host| names::worker(&desired.namespace, &desired.cluster, &host.name))
        .filter(|name| !observed.deployments.contains_key(name))
        .collect()
}

/// Deletes the MachineDeployments of hosts that the request does not name any more.
pub fn remove_workers(observed: &Observed, needed: &[Manifest]) -> Vec<Step> {
    let of_kind =
        observed.owned.iter().filter(|((kind, _), object)| *kind == Kind::MachineDeployment && !object.deleting);
    of_kind
        .filter(|((kind, name), _)| !is_needed(*kind, name, needed))
        .map(|((kind, name), object)| object.delete(*kind, name))
        .collect()
}

/// Whether an object of this kind and name is among the needed ones.
pub fn is_needed(kind: Kind, name: &str, needed: &[Manifest]) -> bool {
    needed.iter().any(|manifest| manifest.kind == kind && manifest.name == name)
}

/// Whether another client has set another number of machines than the request has.
pub fn is_resized(manifest: &Manifest, observed: &Observed) -> bool {
    let replicas = match manifest.kind {
        Kind::KubeadmControlPlane => observed.control_plane.as_ref().map(|object| object.spec.replicas),
        Kind::MachineDeployment => observed.deployments.get(&manifest.name).map(|object| object.spec.replicas),
        _ => None,
    };
    replicas.is_some_and(|replicas| replicas.map(i64::from) != manifest.object["spec"]["replicas"].as_i64())
}

/// Deletes Machines beyond the requested masters, which the control plane created while another client had scaled it or rolled it out. They
/// never get a host, and Cluster API does not scale down while a Machine is unhealthy.
pub fn delete_surplus_masters(desired: &DesiredCluster, observed: &Observed) -> Vec<Step> {
    let wanted = i32::try_from(desired.masters.len()).unwrap_or(i32::MAX);
    let settled = observed.control_plane.as_ref().is_some_and(|object| {
        object.is_initialized() && object.spec.replicas == Some(wanted) && object.spec.rollout.after.is_none()
    });
    let masters: Vec<_> = observed.machines.iter().filter(|machine| machine.is_master()).collect();
    let (with_host, without_host): (Vec<_>, Vec<_>) = masters.into_iter().partition(|machine| {
        let name = &machine.spec.infrastructure_ref.name;
        machine.was_a_node() || observed.hosts.values().any(|host| host.attached_machine() == Some(name))
    });
    if !settled || with_host.len() < desired.masters.len() {
        return Vec::new();
    }
    let is_not_being_deleted = |machine: &&Arc<Machine>| machine.metadata.deletion_timestamp.is_none();
    without_host
        .into_iter()
        .filter(is_not_being_deleted)
        .map(|machine| Step::delete_with_nodes(Kind::Machine, machine.as_ref()))
        .collect()
}
