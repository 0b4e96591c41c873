//! Traces: which spans a request becomes at the SMO.

use focom_operator::traces::{of_adoption, of_deletion, of_status};
use k8s_openapi::jiff::Timestamp;
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::names::focom;
use operator_kit::traces::{Span, Whole};
use serde_json::{Value, json};

const UID: &str = "6f9619ff-8b86-4011-b42d-00cf4fc964ff";

fn time(second: u32) -> String {
    format!("2026-01-01T00:00:{second:02}Z")
}

fn condition(type_: &str, status: &str, reason: &str, second: u32) -> Value {
    let message = format!("message of {type_}");
    json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": time(second)})
}

/// A request that was created at 0, with this status.
fn request(status: &Value) -> FocomProvisioningRequest {
    serde_json::from_value(json!({
        "apiVersion": "focom.nephio.org/v1alpha1", "kind": "FocomProvisioningRequest",
        "metadata": {"name": "edge", "namespace": "team", "uid": UID, "creationTimestamp": time(0), "deletionTimestamp": time(50)},
        "status": status,
        "spec": {
            "oCloudId": "site", "oCloudNamespace": "team", "templateName": "t", "templateVersion": "v1",
            "templateParameters": {"clusterName": "core", "password": "secret"},
        },
    }))
    .unwrap()
}

fn pending() -> Value {
    json!({"phase": "Pending", "lastUpdated": time(1), "conditions": [
        condition("Validated", "True", "Succeeded", 1), condition("OCloudAvailable", "False", "Unreachable", 1),
        condition("Synced", "False", "Unreachable", 1), condition("Stalled", "False", "Idle", 1),
    ]})
}

fn sent() -> Value {
    json!({"phase": "Creating", "lastUpdated": time(9), "remoteName": "edge-o2ims", "conditions": [
        condition("Validated", "True", "Succeeded", 1), condition("OCloudAvailable", "True", "Succeeded", 9),
        condition("Synced", "False", "InProgress", 1), condition("Stalled", "False", "Idle", 1),
    ]})
}

fn synced() -> Value {
    let mut status = sent();
    status["phase"] = json!("Synced");
    status["conditions"][2] = condition("Synced", "True", "Succeeded", 10);
    status["provisioningStatus"] = json!({"provisioningState": "progressing"});
    status
}

/// The spans when the second status is written over the first.
fn spans(old: &Value, new: &Value) -> Vec<Span> {
    of_status(&request(old), request(new).status.as_ref().unwrap())
}

/// Name, start and end in seconds after the creation, outcome and failure.
fn told(spans: &[Span]) -> Vec<(&'static str, i64, i64, String, Option<&str>)> {
    let created = request(&Value::Null).metadata.creation_timestamp.unwrap().0.as_second();
    let told = spans.iter().map(|span| {
        let outcome = span.attributes.iter().find(|attribute| attribute.key.as_str() == "outcome").unwrap();
        let times = [span.start, span.end].map(|at| at.as_second() - created);
        (span.name, times[0], times[1], outcome.value.to_string(), span.failure.as_deref())
    });
    told.collect()
}

#[test]
fn a_request_is_sent_and_synced_in_the_trace_that_has_its_uid() {
    let all = [spans(&Value::Null, &pending()), spans(&pending(), &sent()), spans(&sent(), &synced())].concat();
    let succeeded = || "succeeded".to_owned();
    assert_eq!(
        told(&all),
        [
            ("Validated", 0, 1, succeeded(), None),
            ("OCloudAvailable", 1, 9, succeeded(), None),
            (focom::ROOT_SPAN, 0, 9, "sent".to_owned(), None),
            ("Synced", 1, 10, succeeded(), None),
        ]
    );
    let at = request(&Value::Null).metadata.creation_timestamp.unwrap();
    let root = Whole::root(UID, focom::ROOT_SPAN).ended(&at, &at);
    for span in &all {
        assert_eq!(span.trace.to_string(), UID.replace('-', ""));
        let (id, parent) = if span.name == root.name { (span.id, span.parent) } else { (span.parent, root.parent) };
        assert_eq!((id, parent), (root.id, root.parent), "{}", span.name);
        assert!(!format!("{span:?}").contains("secret"), "parameters are not told: {span:?}");
    }
}

#[test]
fn an_outage_of_an_o_cloud_is_not_told_of_each_request() {
    let mut unknown = synced();
    unknown["conditions"][1] = condition("OCloudAvailable", "False", "Unreachable", 20);
    unknown["conditions"][2] = condition("Synced", "Unknown", "Unreachable", 20);
    assert_eq!(told(&spans(&synced(), &unknown)), []);
    let mut back = synced();
    back["conditions"][1] = condition("OCloudAvailable", "True", "Succeeded", 30);
    back["conditions"][2] = condition("Synced", "True", "Succeeded", 30);
    assert_eq!(told(&spans(&unknown, &back)), []);
}

#[test]
fn a_failure_is_told_with_its_message() {
    let mut refused = synced();
    refused["conditions"][2] = condition("Synced", "False", "Refused", 20);
    refused["conditions"][3] = condition("Stalled", "True", "Refused", 20);
    let failure = ("Synced", 20, 20, "Refused".to_owned(), Some("message of Synced"));
    assert_eq!(told(&spans(&synced(), &refused)), [failure]);
    assert_eq!(told(&spans(&refused, &refused)), []);
}

#[test]
fn adoption_and_deletion_are_told() {
    let now: Timestamp = time(55).parse().unwrap();
    let adopted = of_adoption(&request(&pending()), "edge", now).unwrap();
    assert_eq!(told(&[adopted]), [("Adopted", 0, 55, "succeeded".to_owned(), None)]);
    let deletion = || ("FocomProvisioningRequest deletion", 50, 55, "succeeded".to_owned(), None);
    assert_eq!(told(&of_deletion(&request(&synced()), now)), [deletion()]);
    let never_sent = of_deletion(&request(&pending()), now);
    assert_eq!(told(&never_sent), [(focom::ROOT_SPAN, 0, 50, "deleted".to_owned(), None), deletion()]);
}
