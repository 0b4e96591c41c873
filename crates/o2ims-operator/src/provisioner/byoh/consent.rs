//! Consent: what may be done to servers that run a node. A server is reset only if
//!
//! * its request is being deleted, and not with `orphan`;
//! * an edit of the request took it out;
//! * a machine of it failed before it was ever a node, which BYOH's agent does by itself; or
//! * the request has the annotation [`names::CLEAN_ANNOTATION`] with the id that its status names.
//!
//! A Cluster that went, a mark that was taken off, a ByoHost that was registered anew, a request that vanished, a pause, a move
//! and a restore are no consent. They are told on the request, with the ways on: [`names::RESTORE_ANNOTATION`] takes back what
//! runs, [`names::CLEAN_ANNOTATION`] takes it down, or has a host cleaned that BYOH left paused. Both name an id, so that a word
//! that was meant for one loss says nothing about the next.
//!
//! What is paused is not touched at all; see [`super::pause`].

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

/// The owner wants to keep what runs, and only the request to go.
pub fn keeps_cluster(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let orphans = request.finalizers().iter().any(|finalizer| finalizer == names::ORPHAN_FINALIZER);
    orphans && (observed.runs_nodes() || observed.is_complete)
}

/// Whether an edit of the request may take hosts out. One that was restored from a backup may be older than what runs: it has
/// first to name everything that it holds.
pub fn may_take_out(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let uid = request.meta().uid.as_deref().unwrap_or_default();
    let restored_by = |cluster: &Cluster| cluster.annotations().get(names::RESTORED_BY_ANNOTATION).cloned();
    observed.uid == uid
        || observed
            .own_cluster()
            .is_some_and(|cluster| cluster.is_creating() || restored_by(cluster.as_ref()).as_deref() == Some(uid))
}

/// Notes on the Cluster that a restored request names everything that it holds.
pub fn note_restored(request: &ProvisioningRequest, observed: &Observed) -> Option<Step> {
    let cluster = observed.own_cluster().filter(|_| !may_take_out(request, observed))?;
    let uid = request.uid()?;
    unnamed(request, observed).is_empty().then(|| Step::Annotate {
        kind: Kind::Cluster,
        name: cluster.name_any(),
        uid: cluster.uid().unwrap_or_default(),
        annotations: BTreeMap::from([(names::RESTORED_BY_ANNOTATION.to_owned(), Some(uid))]),
    })
}

/// Hosts that the request holds and does not name, and servers of Machines that it does not name, whatever has become of their
/// ByoHosts.
pub fn unnamed(request: &ProvisioningRequest, observed: &Observed) -> Vec<String> {
    let named: Vec<_> = requested_hosts(request).map(|(host, _)| host.name()).collect();
    let held = observed.held().map(|host| (host.name_any(), host.display()));
    let stays = |machine: &&Arc<Machine>| machine.metadata.deletion_timestamp.is_none();
    let nodes = observed.machines.iter().filter(stays).filter_map(|machine| machine.server());
    let nodes = nodes.filter(|name| observed.host(name).is_none_or(|host| !observed.holds(host)));
    held.chain(nodes.map(|name| (name.to_owned(), name.to_owned())))
        .filter(|(name, _)| !named.contains(&name.as_str()))
        .map(|(_, display)| display)
        .collect()
}

/// Workers that run and whose MachineDeployment went. One that is made again is made from today's template, and would replace a
/// Machine that was made from another.
pub fn unmanaged_workers(observed: &Observed) -> impl Iterator<Item = &Machine> {
    observed.machines.iter().map(AsRef::as_ref).filter(|machine| {
        machine.metadata.deletion_timestamp.is_none()
            && machine.was_a_node()
            && machine.deployment().is_some_and(|name| !observed.deployments.contains_key(name))
    })
}
