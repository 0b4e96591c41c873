//! Consent: when a server that runs a node may be reset. Only if
//!
//! * its request is being deleted, without the finalizer `orphan`;
//! * an edit of the request removed its host;
//! * an edit of the request asks for another version of Kubernetes, and its template says that hosts are reset for that (`upgrade.strategy`);
//! * its Machine failed before it became a node (BYOH's agent resets the server by itself then); or
//! * the request has the annotation [`names::CLEAN_ANNOTATION`] with the id that its status names.
//!
//! None of these is consent: a lost Cluster, a removed mark, a ByoHost that was registered again, a request that is gone, a pause, a
//! `clusterctl move`, a restore from a backup. The status of the request reports them, with what its owner can do:
//! [`names::RESTORE_ANNOTATION`] keeps what runs and manages it again; [`names::CLEAN_ANNOTATION`] tears it down, or removes the pause from
//! a host that BYOH left paused, so that its agent cleans it. Both annotations name an id, so an annotation for one loss has no effect on a
//! later one.
//!
//! A paused object is not changed at all; see [`super::pause`].

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_api::Kind;
use cluster_api::cluster::Cluster;
use cluster_api::machine::Machine;
use kube::{Resource as _, ResourceExt as _};
use o2ims_types::{ProvisioningRequest, names};

use super::marks::{MarkedCluster as _, MarkedHost as _};
use super::observed::Observed;
use crate::provisioner::step::Step;
use crate::request::requested_hosts;

/// Whether the request is being deleted with the finalizer `orphan`, so that its cluster stays.
pub fn keeps_cluster(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let has_orphan_finalizer = request.finalizers().iter().any(|finalizer| finalizer == names::ORPHAN_FINALIZER);
    has_orphan_finalizer && (observed.runs_nodes() || observed.is_created)
}

/// Whether an edit of the request may remove hosts. A restored request may be older than its cluster: it must first name every host that it
/// holds, see [`note_restored`].
pub fn may_remove_hosts(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let uid = request.meta().uid.as_deref().unwrap_or_default();
    let restored_by = |cluster: &Cluster| cluster.annotations().get(names::RESTORED_BY_ANNOTATION).cloned();
    observed.uid == uid
        || observed
            .own_cluster()
            .is_some_and(|cluster| cluster.is_creating() || restored_by(cluster.as_ref()).as_deref() == Some(uid))
}

/// Sets the annotation `restored-by` on the Cluster once a restored request names every host that it holds.
pub fn note_restored(request: &ProvisioningRequest, observed: &Observed) -> Option<Step> {
    let cluster = observed.own_cluster().filter(|_| !may_remove_hosts(request, observed))?;
    let uid = request.uid()?;
    held_but_not_requested(request, observed).is_empty().then(|| Step::Annotate {
        kind: Kind::Cluster,
        name: cluster.name_any(),
        uid: cluster.uid().unwrap_or_default(),
        resource_version: None,
        annotations: BTreeMap::from([(names::RESTORED_BY_ANNOTATION.to_owned(), Some(uid))]),
    })
}

/// Hosts that the request holds but does not name, and the servers of its Machines that it does not name, also if their ByoHost is gone or
/// has lost its mark. As display names.
pub fn held_but_not_requested(request: &ProvisioningRequest, observed: &Observed) -> Vec<String> {
    let named: Vec<_> = requested_hosts(request).map(|(host, _)| host.name()).collect();
    let held = observed.held().map(|host| (host.name_any(), host.display()));
    let is_not_being_deleted = |machine: &&Arc<Machine>| machine.metadata.deletion_timestamp.is_none();
    let nodes = observed.machines.iter().filter(is_not_being_deleted).filter_map(|machine| machine.server());
    let nodes = nodes.filter(|name| observed.host(name).is_none_or(|host| !observed.holds(host)));
    held.chain(nodes.map(|name| (name.to_owned(), name.to_owned())))
        .filter(|(name, _)| !named.contains(&name.as_str()))
        .map(|(_, display)| display)
        .collect()
}

/// Machines of workers whose MachineDeployment is gone. If the MachineDeployment were created again, it would use the templates that the
/// request gives today, and replace the Machine.
pub fn unmanaged_workers(observed: &Observed) -> impl Iterator<Item = &Machine> {
    observed.machines.iter().map(AsRef::as_ref).filter(|machine| {
        machine.metadata.deletion_timestamp.is_none()
            && machine.was_a_node()
            && machine.deployment().is_some_and(|name| !observed.deployments.contains_key(name))
    })
}
