//! What has to be done, as a function of what was asked and what was observed. A plan that is carried out leaves none.

use kube::ResourceExt as _;
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::names::focom;
use operator_kit::apply::content_hash;
use serde_json::{Value, json};

use super::observe::{Observed, Remote};
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
    /// Of the ProvisioningRequest with this UID.
    Delete(String),
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
    let has_finalizer = request.finalizers().iter().any(|finalizer| finalizer == focom::FINALIZER);
    if request.metadata.deletion_timestamp.is_some() {
        return if has_finalizer { teardown(request, observed, remote) } else { Vec::new() };
    }
    let (Ok(()), Some(remote)) = (verdict, remote) else { return Vec::new() };
    let Some(open) = remote.open() else { return Vec::new() };
    if remote.has_moved(request) && !leaves(request) {
        return Vec::new();
    }
    let wanted = manifest(request, observed, open);
    let write = match (&remote.request, remote.own(&observed.uid)) {
        (None, _) => Some(Step::Create(wanted)),
        (Some(_), Some(own)) if own.metadata.deletion_timestamp.is_none() && !is_as(own, &wanted, &settled) => {
            Some(Step::Change(wanted, own.uid().unwrap_or_default()))
        }
        _ => None,
    };
    let finalizer = (!has_finalizer).then_some(Step::AddFinalizer);
    finalizer.into_iter().chain(write).collect()
}

fn teardown(request: &FocomProvisioningRequest, observed: &Observed, remote: Option<&Remote>) -> Vec<Step> {
    let (open, own) = (remote.and_then(Remote::open), remote.and_then(|remote| remote.own(&observed.uid)));
    let delete = own
        .filter(|own| own.metadata.deletion_timestamp.is_none())
        .map(|own| Step::Delete(own.uid().unwrap_or_default()));
    let is_gone = open.is_some() && own.is_none() && remote.is_some_and(|remote| !remote.has_moved(request));
    let finalizer = (is_gone || is_abandoned(request)).then_some(Step::RemoveFinalizer);
    delete.into_iter().chain(finalizer).collect()
}

/// Whether the request is deleted and nothing is waited for on the O-Cloud.
pub fn is_abandoned(request: &FocomProvisioningRequest) -> bool {
    request.metadata.deletion_timestamp.is_some() && abandons(request) == Some("true")
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
fn manifest(request: &FocomProvisioningRequest, observed: &Observed, open: &Open) -> Value {
    let wanted = remote_spec(request);
    let hash = content_hash(&wanted);
    let mut metadata = json!({
        "name": focom::remote_request(&request.name_any()),
        "labels": {
            focom::SMO_LABEL: open.smo,
            focom::SOURCE_LABEL: request.name_any(),
            focom::SOURCE_NAMESPACE_LABEL: observed.namespace,
            focom::SOURCE_UID_LABEL: observed.uid,
        },
        "annotations": {focom::APPLIED_HASH_ANNOTATION: hash},
    });
    if let Some(namespace) = open.namespace(&request.spec.o_cloud_namespace) {
        metadata["namespace"] = json!(namespace);
    }
    json!({"apiVersion": API_VERSION, "kind": "ProvisioningRequest", "metadata": metadata, "spec": wanted})
}

fn is_as(found: &RemoteRequest, wanted: &Value, settled: impl Fn(&RemoteRequest) -> bool) -> bool {
    sent_hash(found) == wanted["metadata"]["annotations"][focom::APPLIED_HASH_ANNOTATION].as_str()
        && (holds(&found.spec, &wanted["spec"]) || settled(found))
}

fn sent_hash(found: &RemoteRequest) -> Option<&str> {
    found.annotations().get(focom::APPLIED_HASH_ANNOTATION).map(String::as_str)
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
