//! The writes that are due, as a function of the request and of what was observed. When a plan has been carried
//! out, the next plan is empty.

use kube::ResourceExt as _;
use o2ims_types::names::{self, focom};
use o2ims_types::{FocomProvisioningRequest, ProvisioningState};
use serde_json::Value;

use super::adopt::{self, SourceGeneration};
use super::annotations;
use super::manifest::{applied_spec_hash, at_revision_of, is_up_to_date, manifest, spec_hash};
use super::observe::{Observed, Relation, RemoteState};
use super::validate::Rejection;
use crate::o_cloud::connection::ReadyOCloud;
use crate::o_cloud::remote_request::RemoteRequest;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Adds the finalizer to the request, before anything is done for it.
    AddFinalizer,
    /// Creates the ProvisioningRequest from a manifest; none that exists is overwritten.
    Create(Value),
    /// Applies a manifest to the ProvisioningRequest of this UID.
    Update(Value, String),
    /// Gives the ProvisioningRequest of this UID, which a former request has left, the request's labels and
    /// annotations. The spec in the manifest is its spec.
    Adopt(Value, String),
    /// Reads the ProvisioningRequests of the request's names from the O-Cloud, which may lack the labels by which they
    /// are watched, and adopts one if the request allows that.
    FindAndAdopt,
    /// Removes the protection from deletion of the ProvisioningRequest of this UID and revision.
    Unprotect(String, String),
    /// Names these hosts as lost in the ProvisioningRequest of this UID and revision.
    PassOnLostHosts(String, String, String),
    /// Removes the annotation [`focom::LOST_HOSTS_ANNOTATION`] from the request: it would also apply to a later loss.
    RemoveLostHosts,
    /// Deletes the ProvisioningRequest of this UID.
    Delete(String),
    /// Removes the annotation [`focom::SEND_AGAIN_ANNOTATION`] from the request: it would also apply to a later loss.
    RemoveSendAgain,
    /// Removes the finalizer from the request, so that its deletion is finished.
    RemoveFinalizer,
}

/// The writes that are due for the request. `is_stored` tells whether the spec of a ProvisioningRequest is what the
/// O-Cloud stored at the last update.
pub fn plan(
    request: &FocomProvisioningRequest,
    observed: &Observed,
    verdict: &Result<(), Rejection>,
    is_stored: impl Fn(&RemoteRequest) -> bool,
) -> Vec<Step> {
    if awaits_target(request, observed, verdict) {
        return Vec::new();
    }
    let has_finalizer = request.has_finalizer();
    if request.metadata.deletion_timestamp.is_some() {
        return if has_finalizer { teardown(request, observed.remote.as_ref()) } else { Vec::new() };
    }
    // The first write is the status, so that the user sees one at once. Its watch event triggers the next reconcile.
    if verdict.is_err() || request.is_new() {
        return Vec::new();
    }
    let Some(remote) = &observed.remote else { return Vec::new() };
    let Some(o_cloud) = remote.ready() else { return Vec::new() };
    if remote.target_changed(request) && !annotations::abandons_previous_target(request) {
        return Vec::new();
    }
    let finalizer = (!has_finalizer).then_some(Step::AddFinalizer);
    let write = remote_write(request, remote, o_cloud, is_stored);
    let is_used_up = remote.own().is_some() && annotations::send_again(request).is_some();
    let is_sent = has_finalizer && write.is_none() && !is_used_up;
    let lost = if is_sent { pass_on_lost_hosts(request, remote) } else { Vec::new() };
    finalizer.into_iter().chain(write).chain(is_used_up.then_some(Step::RemoveSendAgain)).chain(lost).collect()
}

/// Passes on annotations that have changed since the last update, to a ProvisioningRequest that is being deleted: a pause must end there, too.
fn pass_on_annotations(request: &FocomProvisioningRequest, remote: &RemoteState) -> Option<Step> {
    let (own, o_cloud) = (remote.own()?, remote.ready()?);
    let wanted = manifest(request, o_cloud, &remote.name(request));
    let applied = own.annotations().get(focom::APPLIED_HASH_ANNOTATION).map(String::as_str);
    let differs = applied != wanted["metadata"]["annotations"][focom::APPLIED_HASH_ANNOTATION].as_str();
    let has_this_spec = applied_spec_hash(own) == spec_hash(&wanted);
    (differs && has_this_spec).then(|| Step::Update(wanted, own.uid().unwrap_or_default()))
}

/// Passes on that hosts are lost, once: the O2IMS operator removes the annotation there when it is carried out.
fn pass_on_lost_hosts(request: &FocomProvisioningRequest, remote: &RemoteState) -> Vec<Step> {
    let (Some(hosts), Some(own)) = (annotations::lost_hosts(request), remote.own()) else { return Vec::new() };
    let (uid, revision) = (own.uid().unwrap_or_default(), own.resource_version().unwrap_or_default());
    vec![Step::PassOnLostHosts(uid, revision, hosts.to_owned()), Step::RemoveLostHosts]
}

/// Whether a ProvisioningRequest is about to become that of the request on an O-Cloud that its status does not name. The status is
/// written first: if the operator ends right after the write on the O-Cloud, and the OCloud leads to another O-Cloud by then, only the
/// status tells where to look for it.
pub fn awaits_target(request: &FocomProvisioningRequest, observed: &Observed, verdict: &Result<(), Rejection>) -> bool {
    let Some(remote) = observed.remote.as_ref().filter(|_| verdict.is_ok()) else { return false };
    let Some(o_cloud) = remote.ready() else { return false };
    let sent_to = request.status.as_ref().and_then(|status| status.sent_to.as_deref());
    if sent_to == remote.connection.fingerprint.as_deref() {
        return false;
    }
    let adopts_by_word =
        || annotations::adopt_uid(request).is_some() && adopt::sent_by_other_operator(request).is_none();
    if request.metadata.deletion_timestamp.is_some() {
        return request.has_finalizer()
            && teardown(request, Some(remote)).contains(&Step::FindAndAdopt)
            && adopts_by_word();
    }
    if remote.target_changed(request) && !annotations::abandons_previous_target(request) {
        return false;
    }
    match remote_write(request, remote, o_cloud, |_| true) {
        Some(Step::Create(_) | Step::Adopt(..)) => true,
        // The status of a request that another operator has sent keeps that it was sent by that one.
        Some(Step::FindAndAdopt) => adopts_by_word(),
        _ => false,
    }
}

/// The write on the O-Cloud that is due for a request that is not deleted.
fn remote_write(
    request: &FocomProvisioningRequest,
    remote: &RemoteState,
    o_cloud: &ReadyOCloud,
    is_stored: impl Fn(&RemoteRequest) -> bool,
) -> Option<Step> {
    let wanted = manifest(request, o_cloud, &remote.name(request));
    if remote.request.is_none() {
        let adopts = annotations::adopt(request).is_some() || adopt::sent_by_other_operator(request).is_some();
        let is_gone = gone_resource_id(request).is_some() && !annotations::abandons_previous_target(request);
        return match (adopts, is_gone) {
            (true, _) => Some(Step::FindAndAdopt),
            (false, true) => None,
            (false, false) => Some(Step::Create(wanted)),
        };
    }
    if let Some(own) = remote.own() {
        if own.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let is_due = match adopt::source_generation(request, &wanted, own) {
            SourceGeneration::NotNewer => !is_up_to_date(own, &wanted, is_stored),
            SourceGeneration::NewerButEqual => true,
            SourceGeneration::NewerAndDifferent(_) => false,
        };
        return is_due.then(|| Step::Update(wanted, own.uid().unwrap_or_default()));
    }
    let found = remote.predecessor()?;
    adopt::check_adoption(request, &wanted, found, &Relation::Predecessor).ok()?;
    // With the revision, because the spec was compared with that of this revision.
    Some(Step::Adopt(at_revision_of(wanted, found), found.uid().unwrap_or_default()))
}

/// Whether a missing ProvisioningRequest of this request counts as gone: it had a Cluster or hosts, was not seen being
/// deleted, and the owner of the request has not had it sent again. Then the id of what it had: the UID of its Cluster,
/// or, where it had none yet, of its first ByoHost. An O-Cloud that was restored from an older state does not know that
/// cluster, although the hosts may run it.
pub fn gone_resource_id(request: &FocomProvisioningRequest) -> Option<&str> {
    let resources = request.status.as_ref()?.provisioned_resource_set.as_ref()?;
    let id = resources.o_cloud_node_cluster_id.as_ref().or(resources.o_cloud_infrastructure_resource_ids.first())?;
    let was_deleting = request.remote_state() == Some(ProvisioningState::Deleting.to_string().as_str());
    // A request that is being deleted is not sent, whatever its annotation says.
    let is_sent_again = annotations::send_again(request) == Some(id) && request.metadata.deletion_timestamp.is_none();
    (!was_deleting && !is_sent_again).then_some(id)
}

/// Whether the deletion of the request waits for a ProvisioningRequest that is gone: if that reappears, nothing else
/// would delete it.
pub fn awaits_gone_request(request: &FocomProvisioningRequest, remote: &RemoteState) -> bool {
    remote.request.is_none() && gone_resource_id(request).is_some() && !annotations::skips_remote_deletion(request)
}

fn teardown(request: &FocomProvisioningRequest, remote: Option<&RemoteState>) -> Vec<Step> {
    if annotations::orphans_remote(request) {
        return vec![Step::RemoveFinalizer];
    }
    let skips = annotations::skips_remote_deletion(request);
    let Some(remote) = remote else { return skips.then_some(Step::RemoveFinalizer).into_iter().collect() };
    let target = deletion_target(request, remote);
    let mut steps = Vec::new();
    if let Some(found) = target
        && found.metadata.deletion_timestamp.is_none()
        && !is_deletion_blocked(request, found)
    {
        let uid = found.uid().unwrap_or_default();
        if is_protected(found) {
            steps.push(Step::Unprotect(uid.clone(), found.resource_version().unwrap_or_default()));
        }
        steps.push(Step::Delete(uid));
    }
    if !skips && remote.own().is_some_and(|own| own.metadata.deletion_timestamp.is_some()) {
        steps.extend(pass_on_annotations(request, remote));
        steps.extend(pass_on_lost_hosts(request, remote));
    }
    let has_none = remote.ready().is_some() && target.is_none() && !remote.target_changed(request);
    let waits = awaits_gone_request(request, remote);
    // A ProvisioningRequest that is not in the cache may have lost only the labels by which it is watched.
    let may_be_hidden =
        waits || annotations::adopt_uid(request).is_some() || adopt::sent_by_other_operator(request).is_some();
    if has_none && remote.request.is_none() && may_be_hidden {
        steps.push(Step::FindAndAdopt);
    }
    if has_none && !waits || skips {
        steps.push(Step::RemoveFinalizer);
    }
    steps
}

/// The ProvisioningRequest that is deleted with the request: its own, or that of a former request, if this request
/// would adopt it and was not sent to another O-Cloud.
pub fn deletion_target<'a>(request: &FocomProvisioningRequest, remote: &'a RemoteState) -> Option<&'a RemoteRequest> {
    let predecessor = || {
        let (found, o_cloud) = (remote.predecessor()?, remote.ready()?);
        let wanted = manifest(request, o_cloud, &found.name_any());
        let is_taken = found.metadata.deletion_timestamp.is_some()
            || adopt::check_adoption(request, &wanted, found, &Relation::Predecessor).is_ok();
        is_taken.then_some(found)
    };
    remote.own().or_else(|| if remote.target_changed(request) { None } else { predecessor() })
}

/// Whether a ProvisioningRequest is protected from deletion: by any value but `false`, as the policy there has it.
fn is_protected(found: &RemoteRequest) -> bool {
    let protection = found.annotations().get(names::DELETION_PROTECTION_ANNOTATION);
    protection.is_some_and(|value| value != "false")
}

/// Whether the ProvisioningRequest must not be deleted: the annotation of the request forbids it, or the
/// ProvisioningRequest is protected and the annotation of the request does not remove that protection.
pub fn is_deletion_blocked(request: &FocomProvisioningRequest, found: &RemoteRequest) -> bool {
    match annotations::deletion_protection(request) {
        Some("false") => false,
        Some(_) => true,
        None => is_protected(found),
    }
}
