//! Deletion: the Cluster first, and it alone, because Cluster API deletes its machines in order; then the other objects; then each host is
//! released when it is not in use; the finalizer is removed last.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_api::Kind;
use cluster_api::cluster::Cluster;
use cluster_api::labels::CONTROL_PLANE_HOOK;
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::ProvisioningRequest;
use serde_json::json;

use super::marks::MarkedCluster as _;
use super::observed::Observed;
use super::{claim, consent, reattach, recover};
use crate::caches::MissingProvider;
use crate::provisioner::step::Step;
use crate::request::has_finalizer;

/// Removes the operator's own pause from a Cluster that is being created. With it Cluster API would not end the deletion of the Cluster and its
/// parts.
pub fn unpause_created_cluster(cluster: &Cluster) -> Option<Step> {
    (cluster.spec.paused && cluster.is_creating()).then(|| Step::PatchSpec {
        kind: Kind::Cluster,
        name: cluster.name_any(),
        uid: cluster.uid().unwrap_or_default(),
        spec: json!({"paused": false}),
    })
}

/// The steps of a deletion that are due now.
pub fn plan(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    if !has_finalizer(request) {
        return Vec::new();
    }
    if consent::keeps_cluster(request, observed) {
        return vec![Step::Orphan];
    }
    let unpause_steps = claim::unpause_hosts(request, observed);
    if !unpause_steps.is_empty() {
        return unpause_steps;
    }
    let reattached = reattach::reattach(request, observed);
    if !reattached.is_empty() {
        return reattached;
    }
    if let Some(own) = observed.own_cluster() {
        return cluster(own, observed);
    }
    if awaits_version(request, observed) {
        return Vec::new();
    }
    let lost = observed.cluster.is_none() && (observed.runs_nodes() || observed.parts().next().is_some());
    if lost && observed.missing_providers.is_empty() {
        return recover::tear_down_lost(request, observed);
    }
    if !observed.owned.is_empty() || observed.held().next().is_some() {
        return delete_leftovers(request, observed);
    }
    vec![Step::RemoveFinalizer]
}

/// Whether parts of the request may exist in versions that the operator does not see: they are not gone.
pub fn awaits_version(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let in_other_versions =
        observed.missing_providers.iter().any(|missing| matches!(missing, MissingProvider::OtherVersions(..)));
    let had_parts = request.status.as_ref().is_some_and(|status| status.provisioned_resource_set.is_some());
    in_other_versions && (had_parts || observed.held().next().is_some())
}

/// Deletes the Cluster of a request that is not being deleted.
pub fn tear_down_cluster(observed: &Observed) -> Vec<Step> {
    observed.own_cluster().map(|own| cluster(own, observed)).unwrap_or_default()
}

/// The next steps of the deletion of a Cluster. Its parts can be deleted only while it exists, and Cluster API removes its finalizer when its
/// cache shows no part: a part that was created a moment before would stay for ever.
pub fn cluster(cluster: &Cluster, observed: &Observed) -> Vec<Step> {
    if cluster.metadata.deletion_timestamp.is_some() {
        return unpause_created_cluster(cluster).into_iter().chain(masters_without_control_plane(observed)).collect();
    }
    if awaits_adoption(cluster, observed) {
        return Vec::new();
    }
    let mut parts = observed.owned.keys().filter(|(kind, _)| *kind != Kind::Cluster);
    // No node runs yet, so the operator itself deletes the parts, while their Cluster exists.
    if cluster.is_creating() && parts.next().is_some() {
        let deletions = delete_children(observed);
        return if deletions.is_empty() { unpause_created_cluster(cluster).into_iter().collect() } else { deletions };
    }
    // Cluster API would not wait for these Machines when it deletes the Cluster, and cannot delete them without a Cluster.
    if headless_masters(observed).next().is_some() {
        return masters_without_control_plane(observed);
    }
    vec![Step::delete_with_nodes(Kind::Cluster, cluster)]
}

/// Masters whose KubeadmControlPlane is gone.
pub fn headless_masters(observed: &Observed) -> impl Iterator<Item = &Arc<Machine>> {
    let headless = observed.control_plane.is_none() && observed.is_created;
    observed.machines.iter().filter(move |machine| headless && machine.is_master())
}

/// Deletes masters and removes their hook. Their KubeadmControlPlane does both; where it is gone, no other controller would.
fn masters_without_control_plane(observed: &Observed) -> Vec<Step> {
    let steps = headless_masters(observed).filter_map(|machine| {
        if machine.metadata.deletion_timestamp.is_none() {
            return Some(Step::delete_with_nodes(Kind::Machine, machine.as_ref()));
        }
        machine.annotations().contains_key(CONTROL_PLANE_HOOK).then(|| Step::Annotate {
            kind: Kind::Machine,
            name: machine.name_any(),
            uid: machine.uid().unwrap_or_default(),
            resource_version: None,
            annotations: BTreeMap::from([(CONTROL_PLANE_HOOK.to_owned(), None)]),
        })
    });
    steps.collect()
}

/// Whether Cluster API has yet to set the owner reference of a part, after the Cluster's creation.
pub fn awaits_adoption(cluster: &Cluster, observed: &Observed) -> bool {
    let awaits_adoption = |part: &(Kind, String)| {
        observed.owned.get(part).is_some_and(|part| part.adopted_by != cluster.uid() && !part.deleting)
    };
    cluster.metadata.deletion_timestamp.is_none() && !cluster.is_creating() && observed.parts().any(awaits_adoption)
}

/// Deletes what is left when there is no Cluster: objects first, because a Cluster of the same name that another client creates would adopt
/// them; then the hosts are released.
pub fn delete_leftovers(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    // Parts need a Cluster: without it Cluster API would never end their deletion.
    if observed.runs_nodes() || observed.parts().next().is_some() {
        return Vec::new();
    }
    if observed.owned.is_empty() {
        return claim::release_all(request, observed);
    }
    delete_children(observed)
}

/// Deletes every object that was created, but the Cluster.
pub fn delete_children(observed: &Observed) -> Vec<Step> {
    let children = observed.owned.iter().filter(|((kind, _), object)| *kind != Kind::Cluster && !object.deleting);
    children.map(|((kind, name), object)| object.delete(*kind, name)).collect()
}
