//! The trace of a request: what becomes a span when its status is written, and when it is torn down. One trace has everything of a
//! FocomProvisioningRequest and its ProvisioningRequest, as its id is the UID of the former, which the latter has as a label.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_types::names::focom;
use o2ims_types::{ProvisioningRequest, ProvisioningRequestStatus, conditions};
use operator_kit::traces::{KeyValue, Span, Whole, ended_stages};
use operator_kit::write::status::find;

use crate::metrics::was_never_ready;

/// The request, from its creation until it was first fulfilled.
const REQUEST: &str = "ProvisioningRequest";
/// The cluster, from when its hosts were held until the request was first fulfilled.
const CLUSTER: &str = "Cluster";
/// The deletion of a request, until everything of it was torn down.
const DELETION: &str = "ProvisioningRequest deletion";
/// The stages of a cluster; the others are those of the request.
const OF_CLUSTER: [&str; 2] = [conditions::CONTROL_PLANE_READY, conditions::WORKERS_READY];

/// The spans that have ended with this status, which was written for the request as it was before: stages until the request was first
/// fulfilled, what it fails at whenever that is, and the request as a whole.
pub fn of_status(request: &ProvisioningRequest, new: &ProvisioningRequestStatus) -> Vec<Span> {
    let Some(created) = &request.metadata.creation_timestamp else { return Vec::new() };
    let old = request.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let is_first = request.is_new() || was_never_ready(old);
    let (whole, cluster) = wholes(request);
    let attributes = attributes(request, new);
    let mut spans = Vec::new();
    for stage in ended_stages(old, &new.conditions, &conditions::STAGES, created) {
        let parent = if OF_CLUSTER.contains(&stage.name) { &cluster } else { &whole };
        if is_first || stage.failure.is_some() {
            spans.push(stage.span(parent).with(attributes.clone()));
        }
    }
    let ready = find(&new.conditions, conditions::READY).filter(|ready| is_first && ready.status == "True");
    if let Some(ready) = ready {
        let held = find(&new.conditions, conditions::HOSTS_RESERVED).map(|held| (cluster, &held.last_transition_time));
        for (span, start) in held.into_iter().chain([(whole, created)]) {
            let span = span.ended(start, &ready.last_transition_time);
            spans.push(span.outcome("succeeded").with(attributes.clone()));
        }
    }
    spans
}

/// The spans that have ended when everything that was created for the request is torn down: its deletion, and the request as a whole if it
/// was never fulfilled.
pub fn of_deletion(request: &ProvisioningRequest, now: Timestamp) -> Vec<Span> {
    let metadata = &request.metadata;
    let times = metadata.creation_timestamp.as_ref().zip(metadata.deletion_timestamp.as_ref());
    let Some((created, begun)) = times else { return Vec::new() };
    let status = request.status.clone().unwrap_or_default();
    let (whole, _) = wholes(request);
    let attributes = attributes(request, &status);
    let mut spans = Vec::new();
    if request.is_new() || was_never_ready(&status.conditions) {
        spans.push(whole.ended(created, begun).outcome("deleted").with(attributes.clone()));
    }
    spans.push(whole.part(DELETION, begun, &Time(now)).outcome("succeeded").with(attributes));
    spans
}

/// The request and its cluster.
fn wholes(request: &ProvisioningRequest) -> (Whole, Whole) {
    let uid = request.uid().unwrap_or_default();
    let whole = match request.labels().get(focom::SOURCE_UID_LABEL) {
        Some(source) => Whole::root(source, focom::ROOT_SPAN).child(&uid, REQUEST),
        None => Whole::root(&uid, REQUEST),
    };
    (whole, whole.child(&uid, CLUSTER))
}

fn attributes(request: &ProvisioningRequest, status: &ProvisioningRequestStatus) -> Vec<KeyValue> {
    let parameters = &request.spec.template_parameters;
    let hosts = parameters.hosts.as_ref().map_or(0, |hosts| hosts.masters.len() + hosts.workers.len());
    let cluster_uid = status.provisioned_resource_set.as_ref().and_then(|set| set.o_cloud_node_cluster_id.clone());
    let mut attributes = vec![
        KeyValue::new("o2ims.request.name", request.name_any()),
        KeyValue::new("o2ims.request.namespace", request.namespace().unwrap_or_default()),
        KeyValue::new("o2ims.request.uid", request.uid().unwrap_or_default()),
        KeyValue::new("o2ims.cluster.name", parameters.cluster_name.clone().unwrap_or_default()),
        KeyValue::new("o2ims.hosts", i64::try_from(hosts).unwrap_or(i64::MAX)),
    ];
    attributes.extend(cluster_uid.map(|uid| KeyValue::new("o2ims.cluster.uid", uid)));
    attributes
}
