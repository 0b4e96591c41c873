//! Deletion: the Cluster first, and it alone, because Cluster API takes its machines down in order; then what is left;
//! then every host when it is really free; the finalizer last.

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
use super::{claim, consent, recover, remediate};
use crate::provisioner::step::Step;
use crate::request::has_finalizer;

/// A Cluster that is deleted while it is still being made is paused by nobody but the operator, and would stay.
pub fn unpause(cluster: &Cluster) -> Option<Step> {
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
    let unpaused = remediate::unpause(request, observed);
    if !unpaused.is_empty() {
        return unpaused;
    }
    let reattached = remediate::reattach(request, observed);
    if !reattached.is_empty() {
        return reattached;
    }
    if let Some(own) = observed.own_cluster() {
        return cluster(own, observed);
    }
    let lost = observed.cluster.is_none() && (observed.runs_nodes() || observed.parts().next().is_some());
    if lost && observed.missing_providers.is_empty() {
        return recover::take_down_lost(request, observed);
    }
    if !observed.owned.is_empty() || observed.held().next().is_some() {
        return remains(observed);
    }
    vec![Step::RemoveFinalizer]
}

/// A Cluster that is to be taken down although its request stays.
pub fn clean(observed: &Observed) -> Vec<Step> {
    observed.own_cluster().map(|own| cluster(own, observed)).unwrap_or_default()
}

/// The next steps towards the end of a Cluster. Its parts need it to go, and Cluster API lets it go when its cache shows no
/// part: one that was made a moment before would stay for ever.
pub fn cluster(cluster: &Cluster, observed: &Observed) -> Vec<Step> {
    if cluster.metadata.deletion_timestamp.is_some() {
        return unpause(cluster).into_iter().chain(masters_without_control_plane(observed)).collect();
    }
    if awaits_adoption(cluster, observed) {
        return Vec::new();
    }
    let mut parts = observed.owned.keys().filter(|(kind, _)| *kind != Kind::Cluster);
    // Nothing runs yet, so it is taken apart by us, and under its Cluster.
    if cluster.is_creating() && parts.next().is_some() {
        let deletions = delete_children(observed);
        return if deletions.is_empty() { unpause(cluster).into_iter().collect() } else { deletions };
    }
    // Cluster API would not wait for these with the Cluster, and cannot delete them without.
    if headless_masters(observed).next().is_some() {
        return masters_without_control_plane(observed);
    }
    vec![Step::delete_with_nodes(Kind::Cluster, cluster)]
}

/// Masters whose KubeadmControlPlane somebody has deleted alone.
pub fn headless_masters(observed: &Observed) -> impl Iterator<Item = &Arc<Machine>> {
    let headless = observed.control_plane.is_none() && observed.is_complete;
    observed.machines.iter().filter(move |machine| headless && machine.is_master())
}

/// Masters are deleted, and let go, by their KubeadmControlPlane; where that is gone, nobody else would.
fn masters_without_control_plane(observed: &Observed) -> Vec<Step> {
    let steps = headless_masters(observed).filter_map(|machine| {
        if machine.metadata.deletion_timestamp.is_none() {
            return Some(Step::delete_with_nodes(Kind::Machine, machine.as_ref()));
        }
        machine.annotations().contains_key(CONTROL_PLANE_HOOK).then(|| Step::Annotate {
            kind: Kind::Machine,
            name: machine.name_any(),
            uid: machine.uid().unwrap_or_default(),
            annotations: BTreeMap::from([(CONTROL_PLANE_HOOK.to_owned(), None)]),
        })
    });
    steps.collect()
}

/// Whether Cluster API has yet to see a part of a Cluster that was let go.
pub fn awaits_adoption(cluster: &Cluster, observed: &Observed) -> bool {
    let awaits_adoption = |part: &(Kind, String)| {
        observed.owned.get(part).is_some_and(|part| part.adopted_by != cluster.uid() && !part.deleting)
    };
    cluster.metadata.deletion_timestamp.is_none() && !cluster.is_creating() && observed.parts().any(awaits_adoption)
}

/// What is left when there is no Cluster: objects first, because a Cluster of the same name that somebody else makes would
/// adopt them; then the hosts.
pub fn remains(observed: &Observed) -> Vec<Step> {
    // Parts that lost their Cluster wait for one: without it Cluster API would never end their deletion.
    if observed.runs_nodes() || observed.parts().next().is_some() {
        return Vec::new();
    }
    if observed.owned.is_empty() {
        return claim::release_all(observed);
    }
    delete_children(observed)
}

/// Deletes every object that was created, but the Cluster.
pub fn delete_children(observed: &Observed) -> Vec<Step> {
    let children = observed.owned.iter().filter(|((kind, _), object)| *kind != Kind::Cluster && !object.deleting);
    children.map(|((kind, name), object)| object.delete(*kind, name)).collect()
}
