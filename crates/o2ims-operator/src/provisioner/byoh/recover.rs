//! A Cluster that is gone while its nodes run: it is created again, or taken down, as the owner instructs; without an instruction nothing
//! is done.

use cluster_api::Kind;
use o2ims_types::{ProvisioningRequest, names};
use serde_json::json;

use super::claim;
use super::instructions::{Instruction, can_be_restored, instruction_for, lost_id};
use super::manifests::cluster;
use super::marks::Marks;
use super::observed::Observed;
use crate::provisioner::step::Step;
use crate::request::key;

/// What is due when the Cluster of a request that stays was lost: nothing, unless its owner instructs so.
pub fn recover(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    match instruction_for(request, &lost_id(request, observed)) {
        Some(Instruction::Restore) => restore(request, observed, false).into_iter().collect(),
        Some(Instruction::Clean) => take_down_lost(request, observed),
        None => Vec::new(),
    }
}

/// Takes down what runs without its Cluster: the Cluster is created again and then deleted, since Cluster API takes machines down only
/// under one. Hosts of which no part is left are cleaned by their agents.
pub fn take_down_lost(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    restore(request, observed, true).map_or_else(|| claim::request_cleanup(observed), |step| vec![step])
}

/// Creates the Cluster again for the parts that exist. `None` without parts, or where somebody has deleted them already: under a Cluster
/// their deletion would go on.
fn restore(request: &ProvisioningRequest, observed: &Observed, to_go: bool) -> Option<Step> {
    let (kind, name) =
        observed.parts().find(|(kind, _)| *kind == Kind::KubeadmControlPlane).or(observed.parts().next())?;
    if !to_go && !can_be_restored(observed) {
        return None;
    }
    let mut object = cluster::restored(request, observed);
    if to_go {
        object["metadata"]["annotations"][names::CLEANING_ANNOTATION] = json!("true");
    }
    let marks = Marks { cluster: &observed.cluster_name, uid: &observed.uid, request: key(request) };
    let part = observed.owned.get(&(*kind, name.clone()))?;
    Some(Step::RecreateCluster {
        manifest: marks.manifest(Kind::Cluster, object),
        part: (*kind, name.clone(), part.uid.clone()),
    })
}
