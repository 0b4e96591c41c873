//! Events: which changes of a request a user is told of.

use focom_operator::focom_provisioning_request::events::{Notice, notice};
use focom_operator::focom_provisioning_request::plan::Step;
use o2ims_types::focom::v1alpha1::focom_provisioning_request::FocomProvisioningRequestStatus;
use serde_json::{Value, json};

fn status(phase: &str, reason: &str, state: &str, message: &str) -> FocomProvisioningRequestStatus {
    serde_json::from_value(json!({
        "phase": phase, "message": message, "provisioningStatus": {"provisioningState": state},
        "conditions": [{"type": "Ready", "status": "False", "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }))
    .unwrap()
}

/// The events of a request that has these statuses one after the other; the writes before each are those in `steps`.
fn told(life: &[(&[Step], FocomProvisioningRequestStatus)]) -> Vec<(bool, String)> {
    let mut old = None;
    let mut all = Vec::new();
    for (steps, new) in life {
        all.extend(
            notice(steps, old, new)
                .map(|Notice { is_warning, reason, note }| (is_warning, format!("{reason}: {note}"))),
        );
        old = Some(new);
    }
    all
}

fn send() -> [Step; 2] {
    [Step::AddFinalizer, Step::Create(Value::Null)]
}

#[test]
fn an_ordinary_life_has_one_event() {
    let life: &[(&[Step], _)] = &[
        (&[], status("Pending", "InProgress", "", "not sent yet")),
        (&send(), status("Creating", "InProgress", "", "it was sent")),
        (&[], status("Synced", "InProgress", "", "no state yet")),
        (&[], status("Synced", "InProgress", "pending", "waits")),
        (&[], status("Synced", "InProgress", "progressing", "goes on")),
        (&[], status("Synced", "Succeeded", "fulfilled", "is ready")),
        (&[Step::Delete(String::new())], status("Deleting", "Deleting", "deleting", "ends")),
    ];
    assert_eq!(told(life), [(false, "Sent: it was sent".to_owned())]);
}

#[test]
fn a_failure_has_an_event_for_each_cause_and_its_end_one() {
    let life: &[(&[Step], _)] = &[
        (&[], status("Failed", "Invalid", "", "a value is wrong")),
        (&[], status("Failed", "Invalid", "", "another value is wrong")),
        (&[], status("Failed", "TemplateInvalid", "", "the template is wrong")),
        (&[], status("Pending", "InProgress", "", "not sent yet")),
        (&send(), status("Creating", "InProgress", "", "it was sent")),
        (&[], status("Synced", "InProgress", "progressing", "goes on")),
        (&[], status("Failed", "RemoteFailed", "failed", "it failed")),
        (&[], status("Synced", "InProgress", "progressing", "goes on again")),
    ];
    let told = told(life);
    let expected = [
        (true, "Invalid: a value is wrong"),
        (true, "TemplateInvalid: the template is wrong"),
        (false, "Sent: it was sent"),
        (true, "RemoteFailed: it failed"),
        (false, "Recovered: goes on again"),
    ];
    let told: Vec<_> = told.iter().map(|(is_warning, text)| (*is_warning, text.as_str())).collect();
    assert_eq!(told, expected);
}
