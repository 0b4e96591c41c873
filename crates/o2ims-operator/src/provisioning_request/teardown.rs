//! Deletion: the Cluster first, and it alone, because Cluster API takes its machines down in order; then what is left;
//! then every host when it is really free; the finalizer last.

use kube::ResourceExt as _;
use o2ims_types::ProvisioningRequest;
use serde_json::json;

use super::observe::Observed;
use super::plan::{Step, has_finalizer};
use super::reserve;
use crate::capi::contract::Kind;
use crate::capi::read::Cluster;

/// A Cluster that is deleted while it is still being made is paused by nobody but the operator, and would stay.
pub fn unpause(cluster: &Cluster) -> Option<Step> {
    (cluster.spec.paused && cluster.is_being_made()).then(|| Step::Set {
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
    if let Some(own) = observed.own_cluster() {
        return cluster(own).into_iter().collect();
    }
    if !observed.made.is_empty() || observed.held().next().is_some() {
        return without_cluster(observed);
    }
    vec![Step::RemoveFinalizer]
}

/// The next step towards the end of a Cluster. While Cluster API has not put its finalizer on it, a delete would take effect
/// at once, and a KubeadmControlPlane that was made already would be left without an owner, which it needs to go.
pub fn cluster(cluster: &Cluster) -> Option<Step> {
    if cluster.is_unnoticed() {
        return None;
    }
    if cluster.metadata.deletion_timestamp.is_some() {
        return unpause(cluster);
    }
    Some(Step::Delete { kind: Kind::Cluster, name: cluster.name_any(), uid: cluster.uid().unwrap_or_default() })
}

/// What is left when there is no Cluster: objects first, because a Cluster of the same name that somebody else makes would
/// adopt them; then the hosts.
pub fn without_cluster(observed: &Observed) -> Vec<Step> {
    if observed.made.is_empty() {
        return reserve::release_all(observed);
    }
    objects(observed)
}

/// Deletes every object that was made.
pub fn objects(observed: &Observed) -> Vec<Step> {
    observed
        .made
        .iter()
        .filter(|(_, made)| !made.deleting)
        .map(|((kind, name), made)| Step::Delete { kind: *kind, name: name.clone(), uid: made.uid.clone() })
        .collect()
}
