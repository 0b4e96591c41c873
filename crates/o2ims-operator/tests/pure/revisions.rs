//! Which spec of a request is kept to go back to, and what the status says of it.

use cluster_api::byoh::ByohVariant;
use kube::ResourceExt as _;
use o2ims_operator::provisioner::byoh::report::report;
use o2ims_operator::provisioning_request::revisions::{note, spec};
use o2ims_types::{ProvisioningRequestStatus, ProvisioningState, Revision, names};
use serde_json::json;

use crate::model::{World, request};
use crate::status::{running, world};

fn revision(name: &str, number: i64) -> Revision {
    Revision { name: name.to_owned(), number }
}

/// Whether the request is right, and whether something is done for it.
fn carried_out(world: &World) -> (bool, bool) {
    let flight = world.begin("one").unwrap();
    let report = report(&flight.request, &flight.verdict, &flight.observed);
    (flight.verdict.is_ok(), report.is_carried_out())
}

#[test]
fn nothing_is_carried_out_before_hosts_are_held_nor_in_a_pause() {
    assert_eq!(carried_out(&world(ByohVariant::Platform9)), (true, false));
    let mut world = running();
    assert_eq!(carried_out(&world), (true, true));
    for annotation in [names::PAUSED_ANNOTATION, names::PLAN_ANNOTATION] {
        world.edit_request("one", |request| {
            request.annotations_mut().insert(annotation.to_owned(), "true".to_owned());
        });
        assert_eq!(carried_out(&world), (true, false), "{annotation}");
        world.edit_request("one", |request| {
            request.annotations_mut().remove(annotation);
        });
    }
    world.delete_request("one");
    assert!(!carried_out(&world).1);
}

#[test]
fn workers_are_written_out() {
    let hosts = |request| spec(&request).unwrap()["templateParameters"]["hosts"].clone();
    assert_eq!(hosts(request("one", "core", &[1], &[]))["workers"], json!([]));
    assert_eq!(hosts(request("one", "core", &[1], &[2, 3]))["workers"].as_array().unwrap().len(), 2);
    let mut without = request("one", "core", &[1], &[]);
    without.spec.template_parameters.hosts = None;
    assert!(hosts(without).is_null());
}

#[test]
fn the_status_names_what_is_carried_out_and_what_was_fulfilled() {
    let mut status = ProvisioningRequestStatus::default();
    let mut noted = |state, name, number| {
        status.provisioning_status.provisioning_state = state;
        note(&mut status, revision(name, number));
        let revisions = status.extensions.revisions.clone().unwrap();
        (revisions.accepted.number, revisions.fulfilled.map(|last| last.name))
    };
    assert_eq!(noted(ProvisioningState::Progressing, "a", 1), (1, None));
    assert_eq!(noted(ProvisioningState::Fulfilled, "a", 1), (1, Some("a".to_owned())));
    assert_eq!(noted(ProvisioningState::Failed, "b", 2), (2, Some("a".to_owned())), "such as an upgrade that halts");
    assert_eq!(noted(ProvisioningState::Fulfilled, "b", 2), (2, Some("b".to_owned())));
}
