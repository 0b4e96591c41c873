//! What has to be done, as a function of what was asked and what was observed. A plan that is carried out leaves none.

use kube::ResourceExt as _;
use o2ims_types::names::{self, focom};
use o2ims_types::{FocomProvisioningRequest, ProvisioningState};
use operator_kit::write::apply::content_hash;
use serde_json::{Map, Value, json};

use super::adopt;
use super::observe::{Observed, Relation, Remote};
use super::validate::Refusal;
use crate::ocloud::connection::{API_VERSION, Open, RemoteRequest};

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// On the request, before anything is done for it.
    AddFinalizer,
    /// Of the ProvisioningRequest; none of that name is taken over.
    Create(Value),
    /// Of the ProvisioningRequest with this UID.
    Change(Value, String),
    /// The ProvisioningRequest that an earlier object of the request's name has left gets the request's marks. Its spec is the
    /// same.
    Take(Value, String),
    /// The O-Cloud is asked for a ProvisioningRequest that this SMO has not marked, which gets the request's marks if the
    /// annotation says so.
    Adopt,
    /// The ProvisioningRequest with this UID and revision loses its protection from deletion.
    Unprotect(String, String),
    /// Of the ProvisioningRequest with this UID.
    Delete(String),
    /// Off the request: the annotation that has it sent again. It is used up, and would hold for the next time too.
    RemoveSendAgain,
    /// Off the request: nothing is left of it.
    RemoveFinalizer,
}

/// What has to be done for the request. `settled` tells a ProvisioningRequest that differs from what was sent because its
/// O-Cloud makes something else of it.
pub fn plan(
    request: &FocomProvisioningRequest,
    observed: &Observed,
    verdict: &Result<(), Refusal>,
    remote: Option<&Remote>,
    settled: impl Fn(&RemoteRequest) -> bool,
) -> Vec<Step> {
    let has_finalizer = has_finalizer(request);
    if request.metadata.deletion_timestamp.is_some() {
        return if has_finalizer { teardown(request, observed, remote) } else { Vec::new() };
    }
    let (Ok(()), Some(remote)) = (verdict, remote) else { return Vec::new() };
    let Some(open) = remote.open() else { return Vec::new() };
    if remote.has_moved(request) && !leaves(request) {
        return Vec::new();
    }
    let wanted = manifest(request, observed, open, &remote.name(request));
    let write = match (&remote.request, remote.own()) {
        (None, _) if adopt::word(request).is_some() || adopt::sent_by_another(request).is_some() => Some(Step::Adopt),
        (None, _) if gone(request).is_some() && !leaves(request) => None,
        (None, _) => Some(Step::Create(wanted)),
        (Some(_), Some(own)) if own.metadata.deletion_timestamp.is_none() => {
            let is_due = match adopt::outdated(request, &wanted, own) {
                Some(verdict) => verdict.is_ok(),
                None => !is_as(own, &wanted, &settled),
            };
            is_due.then(|| Step::Change(wanted, own.uid().unwrap_or_default()))
        }
        (Some(_), Some(_)) => None,
        (Some(_), None) => remote
            .left()
            .filter(|left| adopt::judge(request, &wanted, left, &Relation::Left).is_ok())
            .map(|left| take(wanted.clone(), left)),
    };
    let finalizer = (!has_finalizer).then_some(Step::AddFinalizer);
    let used_up = (remote.own().is_some() && sends_again(request).is_some()).then_some(Step::RemoveSendAgain);
    finalizer.into_iter().chain(write).chain(used_up).collect()
}

/// The id of what an O-Cloud had for the request whose ProvisioningRequest is gone: not there any more, and not seen being deleted. An
/// O-Cloud that was restored from an older state does not know it, and its hosts run the cluster all the same. `None` where the owner
/// has said that it is to be sent again.
pub fn gone(request: &FocomProvisioningRequest) -> Option<&str> {
    let held = request.status.as_ref()?.provisioned_resource_set.as_ref()?;
    let id = held.o_cloud_node_cluster_id.as_ref().or(held.o_cloud_infrastructure_resource_ids.first())?;
    let was_going = request.remote_state() == Some(ProvisioningState::Deleting.to_string().as_str());
    // A request that is deleted is not sent.
    let is_said = sends_again(request) == Some(id) && request.metadata.deletion_timestamp.is_none();
    (!was_going && !is_said).then_some(id)
}

/// The id of what is gone, as the owner has written it to have the request sent again.
pub fn sends_again(request: &FocomProvisioningRequest) -> Option<&str> {
    request.annotations().get(focom::SEND_AGAIN_ANNOTATION).map(String::as_str)
}

/// Whether the deletion of the request waits for a ProvisioningRequest that is gone: who else would delete it when it comes back?
pub fn waits_for_gone(request: &FocomProvisioningRequest, remote: &Remote) -> bool {
    remote.request.is_none() && gone(request).is_some() && !is_abandoned(request)
}

/// Marks are taken from the ProvisioningRequest as it was looked at, and from no other.
fn take(wanted: Value, found: &RemoteRequest) -> Step {
    Step::Take(as_seen(wanted, found), found.uid().unwrap_or_default())
}

/// The manifest, to be applied to `found` in the revision that was looked at.
pub fn as_seen(mut wanted: Value, found: &RemoteRequest) -> Value {
    wanted["metadata"]["resourceVersion"] = json!(found.metadata.resource_version);
    wanted
}

fn teardown(request: &FocomProvisioningRequest, observed: &Observed, remote: Option<&Remote>) -> Vec<Step> {
    if is_orphaned(request) {
        return vec![Step::RemoveFinalizer];
    }
    let open = remote.and_then(Remote::open);
    let mine = remote.and_then(|remote| taken_back(request, observed, remote));
    let mut steps = Vec::new();
    if let Some(mine) = mine.filter(|mine| mine.metadata.deletion_timestamp.is_none() && !is_kept(request, mine)) {
        let uid = mine.uid().unwrap_or_default();
        if is_protected(mine) {
            steps.push(Step::Unprotect(uid.clone(), mine.resource_version().unwrap_or_default()));
        }
        steps.push(Step::Delete(uid));
    }
    let has_none = open.is_some() && mine.is_none() && remote.is_some_and(|remote| !remote.has_moved(request));
    let waits = remote.is_some_and(|remote| waits_for_gone(request, remote));
    let has_uid = adopt::word(request).is_some_and(|word| word != focom::ADOPT_DRY_RUN);
    // What seems to be gone may have lost only the mark by which the cache knows it.
    if has_none
        && remote.is_some_and(|remote| remote.request.is_none())
        && (waits || has_uid || adopt::sent_by_another(request).is_some())
    {
        steps.push(Step::Adopt);
    }
    if has_none && !waits || is_abandoned(request) {
        steps.push(Step::RemoveFinalizer);
    }
    steps
}

/// What the deletion of the request is to delete: its own ProvisioningRequest, or the one that an earlier object of its name has
/// left, if the request would have it as it is.
pub fn taken_back<'a>(
    request: &FocomProvisioningRequest,
    observed: &Observed,
    remote: &'a Remote,
) -> Option<&'a RemoteRequest> {
    let left = || {
        let (left, open) = (remote.left()?, remote.open()?);
        let wanted = manifest(request, observed, open, &left.name_any());
        let is_taken =
            left.metadata.deletion_timestamp.is_some() || adopt::judge(request, &wanted, left, &Relation::Left).is_ok();
        is_taken.then_some(left)
    };
    remote.own().or_else(left)
}

/// Whether the operator keeps the request until the O-Cloud has none of it.
pub fn has_finalizer(request: &FocomProvisioningRequest) -> bool {
    request.finalizers().iter().any(|finalizer| finalizer == focom::FINALIZER)
}

/// Whether the request is deleted and what it owns is to stay: `kubectl delete --cascade=orphan`.
pub fn is_orphaned(request: &FocomProvisioningRequest) -> bool {
    request.metadata.deletion_timestamp.is_some()
        && request.finalizers().iter().any(|finalizer| finalizer == names::ORPHAN_FINALIZER)
}

/// Whether the request is deleted and nothing is waited for on the O-Cloud.
pub fn is_abandoned(request: &FocomProvisioningRequest) -> bool {
    request.metadata.deletion_timestamp.is_some() && abandons(request) == Some("true")
}

/// What the request says of its protection from deletion.
pub fn protection(request: &FocomProvisioningRequest) -> Option<&str> {
    request.annotations().get(focom::DELETION_PROTECTION_ANNOTATION).map(String::as_str)
}

/// Whether a ProvisioningRequest is protected from deletion.
pub fn is_protected(found: &RemoteRequest) -> bool {
    found.annotations().get(names::DELETION_PROTECTION_ANNOTATION).is_some_and(|value| value == "true")
}

/// Whether the ProvisioningRequest stays until the request says that it is not protected. A protection that somebody else gave
/// it is not ours to take off unasked.
pub fn is_kept(request: &FocomProvisioningRequest, found: &RemoteRequest) -> bool {
    match protection(request) {
        Some("true") => true,
        Some("false") => false,
        _ => is_protected(found),
    }
}

/// Whether the request leaves the O-Cloud that it was sent to. The annotation names that one, so it is used up by this.
pub fn leaves(request: &FocomProvisioningRequest) -> bool {
    let sent_to = request.status.as_ref().and_then(|status| status.sent_to.as_deref());
    sent_to.is_some() && abandons(request) == sent_to
}

fn abandons(request: &FocomProvisioningRequest) -> Option<&str> {
    request.annotations().get(focom::ABANDON_ANNOTATION).map(String::as_str)
}

/// The ProvisioningRequest as it should be.
pub fn manifest(request: &FocomProvisioningRequest, observed: &Observed, open: &Open, name: &str) -> Value {
    let wanted = remote_spec(request);
    let mut mark = content_hash(&wanted);
    let mut annotations = Map::new();
    if let Some(protection) = protection(request) {
        // Part of the mark, so that it is noticed when it is taken off again.
        mark = format!("{mark}{SPEC_ENDS}{protection}");
        annotations.insert(names::DELETION_PROTECTION_ANNOTATION.to_owned(), json!(protection));
    }
    annotations.insert(focom::APPLIED_HASH_ANNOTATION.to_owned(), json!(mark));
    if let Some(generation) = request.metadata.generation {
        annotations.insert(focom::SOURCE_GENERATION_ANNOTATION.to_owned(), json!(generation.to_string()));
    }
    let mut metadata = json!({
        "name": name,
        "labels": {
            focom::SMO_LABEL: open.smo,
            focom::SOURCE_LABEL: request.name_any(),
            focom::SOURCE_NAMESPACE_LABEL: observed.namespace,
            focom::SOURCE_UID_LABEL: observed.uid,
        },
        "annotations": annotations,
    });
    if let Some(namespace) = open.namespace(request.o_cloud().0) {
        metadata["namespace"] = json!(namespace);
    }
    json!({"apiVersion": API_VERSION, "kind": "ProvisioningRequest", "metadata": metadata, "spec": wanted})
}

/// In a mark: after this comes what is not of the spec.
const SPEC_ENDS: char = '+';

fn is_as(found: &RemoteRequest, wanted: &Value, settled: impl Fn(&RemoteRequest) -> bool) -> bool {
    let annotation = |key: &str| found.annotations().get(key).map(String::as_str);
    // Which generation says the same does not matter.
    let matters = |key: &str| key != focom::SOURCE_GENERATION_ANNOTATION;
    let annotations = wanted["metadata"]["annotations"].as_object();
    annotations.is_none_or(|all| all.iter().all(|(key, value)| !matters(key) || annotation(key) == value.as_str()))
        && (holds(&found.spec, &wanted["spec"]) || settled(found))
}

/// The hash of the spec that was sent.
pub fn sent_hash(found: &RemoteRequest) -> Option<&str> {
    found.annotations().get(focom::APPLIED_HASH_ANNOTATION).and_then(|mark| mark.split(SPEC_ENDS).next())
}

/// The hash of the spec in a manifest.
pub fn sent_mark(wanted: &Value) -> Option<&str> {
    wanted["metadata"]["annotations"][focom::APPLIED_HASH_ANNOTATION].as_str()?.split(SPEC_ENDS).next()
}

/// Whether the request was sent as it stands. A template that changes afterwards is not held against it.
pub fn is_sent(request: &FocomProvisioningRequest, found: &RemoteRequest) -> bool {
    sent_hash(found) == Some(&content_hash(&remote_spec(request)))
}

fn remote_spec(request: &FocomProvisioningRequest) -> Value {
    let spec = &request.spec;
    let mut wanted = json!({
        "templateName": spec.template_name,
        "templateVersion": spec.template_version,
        "templateParameters": spec.template_parameters,
    });
    for (field, value) in [("name", &spec.name), ("description", &spec.description)] {
        if let Some(value) = value {
            wanted[field] = json!(value);
        }
    }
    wanted
}

/// Whether everything that `wanted` says stands in `found` too; what a server has filled in beside it does not matter.
pub fn holds(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| found.get(key).is_some_and(|found| holds(found, wanted)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| holds(found, wanted))
        }
        (found, wanted) => found == wanted,
    }
}
