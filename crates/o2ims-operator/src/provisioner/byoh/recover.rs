//! A Cluster that is lost: it is created again, or its parts are torn down, as the owner instructs; without an instruction nothing is done.

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

/// The steps that are due when the Cluster of a request that is not being deleted is lost: none, unless its owner instructs so.
pub fn recover(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    match instruction_for(request, &lost_id(request, observed)) {
        Some(Instruction::Restore) => create_cluster_again(request, observed, false).into_iter().collect(),
        Some(Instruction::Clean) => tear_down_lost(request, observed),
        None => Vec::new(),
    }
}

/// Tears down what is left of a lost Cluster: the Cluster is created again and then deleted, since Cluster API deletes machines in order only
/// under one. Without parts the hosts are cleaned by their agents.
pub fn tear_down_lost(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    create_cluster_again(request, observed, true)
        .map_or_else(|| claim::clean_attached_hosts(observed), |step| vec![step])
}

/// Creates the Cluster again for the parts that exist. `None` without parts. To keep the cluster, also `None` where a part is missing or is
/// being deleted: under a Cluster that deletion would continue.
fn create_cluster_again(request: &ProvisioningRequest, observed: &Observed, to_tear_down: bool) -> Option<Step> {
    let (kind, name) =
        observed.parts().find(|(kind, _)| *kind == Kind::KubeadmControlPlane).or(observed.parts().next())?;
    if !to_tear_down && !can_be_restored(observed) {
        return None;
    }
    let mut object = cluster::restored(request, observed);
    if to_tear_down {
        object["metadata"]["annotations"][names::CLEANING_ANNOTATION] = json!("true");
    }
    let marks = Marks { cluster: &observed.cluster_name, uid: &observed.uid, request: key(request) };
    let part = observed.owned.get(&(*kind, name.clone()))?;
    Some(Step::RecreateCluster {
        manifest: marks.manifest(Kind::Cluster, object),
        part: (*kind, name.clone(), part.uid.clone()),
    })
}
