//! The trace of a request: what becomes a span at the SMO. The O2IMS operator adds its own to the same trace, whose id
//! is the UID of the request, and names the root as their parent.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::conditions::focom as stage;
use o2ims_types::focom::v1alpha1::focom_provisioning_request::FocomProvisioningRequestStatus;
use o2ims_types::names::focom;
use operator_kit::traces::{KeyValue, Span, Whole, ended_stages};

use crate::focom_provisioning_request::annotations::{orphans_remote, skips_remote_deletion};

/// The stages of a request.
const STAGES: [&str; 3] = [stage::VALIDATED, stage::O_CLOUD_AVAILABLE, stage::SYNCED];
/// From the creation of a request until it has adopted a ProvisioningRequest.
const ADOPTED: &str = "Adopted";
/// The deletion of a request, until its ProvisioningRequest was deleted or left.
const DELETION: &str = "FocomProvisioningRequest deletion";

/// The spans that have ended with this status, which was written for the request as it was before: the root when the
/// request was sent, stages until the O-Cloud has reported a state, and what the request fails at whenever that is.
pub fn of_status(request: &FocomProvisioningRequest, new: &FocomProvisioningRequestStatus) -> Vec<Span> {
    let Some(created) = &request.metadata.creation_timestamp else { return Vec::new() };
    let old = request.status.as_ref();
    let old_conditions = old.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let is_first = old.is_none_or(|status| status.provisioning_status.is_none());
    let root = root(request);
    let attributes = attributes(request, new);
    let mut spans = Vec::new();
    for stage in ended_stages(old_conditions, &new.conditions, &STAGES, created) {
        if is_first || stage.failure.is_some() {
            spans.push(stage.span(&root).with(attributes.clone()));
        }
    }
    // A request that was moved to another O-Cloud by its owner's word was sent before.
    let is_sent = new.remote_name.is_some() && !request.was_sent();
    let is_moved =
        old.and_then(|status| status.sent_to.as_ref()).is_some_and(|sent_to| Some(sent_to) != new.sent_to.as_ref());
    if let Some(sent) = new.last_updated.as_ref().filter(|_| is_sent && !is_moved) {
        spans.push(root.ended(created, sent).outcome("sent").with(attributes));
    }
    spans
}

/// The span of the adoption of a ProvisioningRequest, which has ended now.
pub fn of_adoption(request: &FocomProvisioningRequest, adopted: &str, now: Timestamp) -> Option<Span> {
    let created = request.metadata.creation_timestamp.as_ref()?;
    let mut status = status_of(request);
    status.remote_name = Some(adopted.to_owned());
    let span = root(request).part(ADOPTED, created, &Time(now)).outcome("succeeded");
    Some(span.with(attributes(request, &status)))
}

/// The spans that have ended when the deletion of the request is finished: the deletion, and the root if the request was
/// never sent.
pub fn of_deletion(request: &FocomProvisioningRequest, now: Timestamp) -> Vec<Span> {
    let metadata = &request.metadata;
    let times = metadata.creation_timestamp.as_ref().zip(metadata.deletion_timestamp.as_ref());
    let Some((created, begun)) = times else { return Vec::new() };
    let root = root(request);
    let attributes = attributes(request, &status_of(request));
    let mut spans = Vec::new();
    if !request.was_sent() {
        spans.push(root.ended(created, begun).outcome("deleted").with(attributes.clone()));
    }
    let outcome = match (orphans_remote(request), skips_remote_deletion(request)) {
        (true, _) => "orphaned",
        (_, true) => "abandoned",
        _ => "succeeded",
    };
    spans.push(root.part(DELETION, begun, &Time(now)).outcome(outcome).with(attributes));
    spans
}

fn root(request: &FocomProvisioningRequest) -> Whole {
    Whole::root(&request.uid().unwrap_or_default(), focom::ROOT_SPAN)
}

fn status_of(request: &FocomProvisioningRequest) -> FocomProvisioningRequestStatus {
    request.status.clone().unwrap_or_default()
}

fn attributes(request: &FocomProvisioningRequest, status: &FocomProvisioningRequestStatus) -> Vec<KeyValue> {
    let spec = &request.spec;
    let o_cloud = status.sent_to_o_cloud.clone();
    let cluster = spec.template_parameters.get("clusterName").and_then(|name| name.as_str()).unwrap_or_default();
    let mut attributes = vec![
        KeyValue::new("focom.request.name", request.name_any()),
        KeyValue::new("focom.request.namespace", request.namespace().unwrap_or_default()),
        KeyValue::new("focom.request.uid", request.uid().unwrap_or_default()),
        KeyValue::new(
            "focom.ocloud",
            o_cloud.unwrap_or_else(|| format!("{}/{}", spec.o_cloud_namespace, spec.o_cloud_id)),
        ),
        KeyValue::new("o2ims.cluster.name", cluster.to_owned()),
    ];
    attributes.extend(status.remote_name.clone().map(|name| KeyValue::new("focom.remote.name", name)));
    attributes
}
