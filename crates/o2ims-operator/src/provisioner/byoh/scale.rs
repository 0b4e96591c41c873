//! Scaling. Hosts that the request names in addition become workers; hosts that it names no longer are removed. The operator reverts another
//! number of machines that another client has requested from Cluster API. [`super::masters`] does the same for masters.

use cluster_api::Kind;
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::names;
use serde_json::json;

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

/// Limits the drain of workers that leave, or that a rolling upgrade takes out, as the template says it now: what a running cluster was made with stays until
/// then. Their MachineSets are being deleted, so they do not take it back.
pub fn limit_drains(desired: &DesiredCluster, observed: &Observed) -> Vec<Step> {
    let Some(limit) = desired.template.spec.timeouts.drain_seconds() else { return Vec::new() };
    let leaves = |machine: &&Machine| {
        let deployment = machine.deployment().and_then(|name| observed.deployments.get(name));
        let stays = deployment.is_some_and(|object| object.metadata.deletion_timestamp.is_none());
        !machine.is_master() && !stays && machine.metadata.deletion_timestamp.is_some()
    };
    let machines = observed.machines.iter().map(AsRef::as_ref).filter(leaves);
    let others = machines.filter(|machine| machine.spec.deletion.node_drain_timeout_seconds != Some(limit));
    others
        .map(|machine| Step::PatchSpec {
            kind: Kind::Machine,
            name: machine.name_any(),
            uid: machine.uid().unwrap_or_default(),
            spec: json!({"deletion": {"nodeDrainTimeoutSeconds": limit}}),
        })
        .collect()
}

/// Whether an object of this kind and name is among the needed ones.
pub fn is_needed(kind: Kind, name: &str, needed: &[Manifest]) -> bool {
    needed.iter().any(|manifest| manifest.kind == kind && manifest.name == name)
}

/// Whether another client has set another number of machines for a worker.
pub fn is_resized(manifest: &Manifest, observed: &Observed) -> bool {
    manifest.kind == Kind::MachineDeployment
        && observed
            .deployments
            .get(&manifest.name)
            .is_some_and(|object| object.spec.replicas.map(i64::from) != manifest.object["spec"]["replicas"].as_i64())
}
