//! Instructions: annotations by which the owner of a request says what is to become of something that was lost. Each names an id, so that
//! an instruction for one loss does not apply to the next.

use cluster_api::byoh::ByoHost;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::provisioning_request::ProvisionedResourceSet;
use o2ims_types::{ProvisioningRequest, names};

use super::give_up;
use super::observed::{Observed, Phase};
use crate::provisioner::step::Step;
use crate::request::{ids_in, is_being_deleted};

/// What the owner of a request instructs about something that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Annotation `restore`: it is kept as it runs and managed again.
    Restore,
    /// Annotation `clean`: it is torn down, or the host is cleaned.
    Clean,
}

/// What the request held when its status was written.
fn recorded(request: &ProvisioningRequest) -> Option<&ProvisionedResourceSet> {
    request.status.as_ref()?.provisioned_resource_set.as_ref()
}

/// UID of the Cluster that the request's status names.
pub fn recorded_id(request: &ProvisioningRequest) -> Option<&str> {
    recorded(request)?.o_cloud_node_cluster_id.as_deref()
}

/// Whether the request had a Cluster, and it is not known whether its nodes still run: not every host that it had is still held.
pub fn misses_cluster(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let held: Vec<_> = observed.held().filter_map(|host| host.uid()).collect();
    recorded(request).is_some_and(|set| {
        let Some(id) = &set.o_cloud_node_cluster_id else { return false };
        let all_held = set.o_cloud_infrastructure_resource_ids.iter().all(|host| held.contains(host));
        observed.cluster.is_none()
            && !is_being_deleted(request)
            && !all_held
            && instruction_for(request, id) != Some(Instruction::Clean)
    })
}

/// The id by which an annotation names the lost Cluster.
pub fn lost_id(request: &ProvisioningRequest, observed: &Observed) -> String {
    recorded_id(request).map_or_else(|| observed.uid.clone(), ToOwned::to_owned)
}

/// The annotations that are an [`Instruction`].
const INSTRUCTIONS: [&str; 2] = [names::CLEAN_ANNOTATION, names::RESTORE_ANNOTATION];

/// What the owner instructs about what has this id; nothing, if both annotations name it.
pub fn instruction_for(request: &ProvisioningRequest, id: &str) -> Option<Instruction> {
    let names_it = |annotation: &str| ids_in(request, annotation).any(|named| named == id);
    match (names_it(names::CLEAN_ANNOTATION), names_it(names::RESTORE_ANNOTATION)) {
        (true, false) => Some(Instruction::Clean),
        (false, true) => Some(Instruction::Restore),
        _ => None,
    }
}

/// The ids of what is lost now, and to which this annotation can apply.
fn lost_ids(request: &ProvisioningRequest, observed: &Observed, annotation: &str) -> Vec<String> {
    let restores = annotation == names::RESTORE_ANNOTATION;
    let cluster = observed.phase == Phase::Lost && (!restores || can_be_restored(observed));
    let hosts = observed.hosts.values().map(AsRef::as_ref);
    let hosts =
        hosts.filter(|host| observed.reregistered_machine(host).is_some() || observed.detached_machine(host).is_some());
    let hosts: Vec<_> = if restores { hosts.collect() } else { left_paused(observed).collect() };
    let cluster = cluster.then(|| lost_id(request, observed));
    cluster.into_iter().chain(hosts.into_iter().filter_map(kube::ResourceExt::uid)).collect()
}

fn is_anything_lost(request: &ProvisioningRequest, observed: &Observed) -> bool {
    INSTRUCTIONS.into_iter().any(|annotation| !lost_ids(request, observed, annotation).is_empty())
}

/// An instruction that has no effect while something is lost, as a sentence.
pub fn ineffective(request: &ProvisioningRequest, observed: &Observed) -> Option<String> {
    // An instruction that is being carried out has an effect.
    if observed.phase == Phase::TearingDown || !is_anything_lost(request, observed) {
        return None;
    }
    let [clean, restore] = INSTRUCTIONS;
    if let Some(id) = ids_in(request, clean).find(|id| ids_in(request, restore).any(|other| other == *id)) {
        return Some(format!(
            "annotations {clean} and {restore} both name \"{id}\", so neither has an effect: remove the id from one of them"
        ));
    }
    let without_effect = |annotation: &'static str| {
        let lost = lost_ids(request, observed, annotation);
        ids_in(request, annotation).find(|id| lost.iter().all(|lost| lost != id)).map(|id| (annotation, id))
    };
    let (annotation, id) = INSTRUCTIONS.into_iter().find_map(without_effect)?;
    Some(format!(
        "annotation {annotation} names \"{id}\", which is not the id of anything lost that this annotation applies to"
    ))
}

/// Removes instructions that were carried out, or that name nothing: one that stayed would apply to another loss, if the same objects
/// came back from a backup.
pub fn remove_carried_out(request: &ProvisioningRequest, observed: &Observed) -> Option<Step> {
    let cluster = observed.own_cluster().filter(|_| observed.phase == Phase::Running)?;
    if recorded_id(request) != cluster.metadata.uid.as_deref() {
        return None;
    }
    let mut over = if is_anything_lost(request, observed) { Vec::new() } else { INSTRUCTIONS.to_vec() };
    over.extend((!give_up::is_pending(request, observed)).then_some(names::LOST_HOSTS_ANNOTATION));
    over.retain(|annotation| request.annotations().contains_key(*annotation));
    (!over.is_empty()).then_some(Step::RemoveAnnotations(over))
}

/// The command with which the owner gives an instruction, in addition to the ids of lost objects that the annotation names already. A
/// request that an SMO has sent is annotated on the O-Cloud too.
pub fn command(request: &ProvisioningRequest, observed: &Observed, annotation: &str, ids: &str) -> String {
    let namespace = request.namespace().unwrap_or_default();
    let lost = lost_ids(request, observed, annotation);
    let given = ids_in(request, annotation)
        .filter(|id| lost.iter().any(|lost| lost == id) && ids.split(',').all(|new| new != *id));
    let all: Vec<_> = given.chain([ids]).collect();
    format!("kubectl annotate pr {} -n {namespace} {annotation}={} --overwrite", request.name_any(), all.join(","))
}

/// Hosts of the request that are to be cleaned, since their Machine was deleted, and are paused. BYOH pauses the hosts of a paused cluster,
/// but removes the pause only from hosts whose Machine exists; and its webhook lets no user remove it.
pub fn left_paused(observed: &Observed) -> impl Iterator<Item = &ByoHost> {
    let is_left = |host: &&ByoHost| host.is_paused() && host.is_unregistering() && observed.machine_of(host).is_none();
    observed.held().map(AsRef::as_ref).filter(is_left)
}

/// Whether the parts that a Cluster needs exist, and no part is being deleted.
pub fn can_be_restored(observed: &Observed) -> bool {
    observed.control_plane.is_some()
        && observed.byo_cluster.is_some()
        && !observed.owned.values().any(|part| part.deleting)
}
