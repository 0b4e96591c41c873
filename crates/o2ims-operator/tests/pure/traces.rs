//! Traces: which spans a request becomes, by the times that its status has.

use cluster_api::byoh::ByohVariant;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_operator::traces::{of_deletion, of_status};
use o2ims_types::conditions::{self, reason};
use o2ims_types::names::focom;
use operator_kit::traces::{Span, Whole};
use operator_kit::write::status::{ConditionStatus, ConditionUpdate, find, set};
use serde_json::json;

use crate::model::{World, request};

/// UID of the FocomProvisioningRequest.
const SOURCE: &str = "6f9619ff-8b86-4011-b42d-00cf4fc964ff";

/// A world with the request `one`, which was sent by an SMO or not.
fn world(is_sent: bool) -> World {
    let mut world = World::new(ByohVariant::Platform9, json!({}), 2);
    let mut request = request("one", "core", &[1], &[2]);
    if is_sent {
        request.labels_mut().insert(focom::SOURCE_UID_LABEL.to_owned(), SOURCE.to_owned());
    }
    world.submit(request);
    world
}

/// One reconcile after some seconds, and the spans of the status that it writes.
fn reconcile(world: &mut World) -> Vec<Span> {
    let old = world.requests["one"].clone();
    world.second += 10;
    world.reconcile("one");
    of_status(&old, world.requests["one"].status.as_ref().unwrap())
}

/// Reconciles until nothing changes any more.
fn settle(world: &mut World) -> Vec<Span> {
    let mut spans = Vec::new();
    loop {
        let before = world.revision;
        spans.extend(reconcile(world));
        if !world.run() && world.revision == before {
            return spans;
        }
    }
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
    found.unwrap_or_else(|| panic!("{key} of {span:?}")).value.to_string()
}

#[test]
fn a_request_becomes_one_tree_of_spans() {
    for is_sent in [true, false] {
        let mut world = world(is_sent);
        let created = world.requests["one"].metadata.creation_timestamp.clone().unwrap();
        let spans = settle(&mut world);
        let whole = if is_sent {
            Whole::root(SOURCE, focom::ROOT_SPAN).child("one-uid", "ProvisioningRequest")
        } else {
            Whole::root("one-uid", "ProvisioningRequest")
        };
        let cluster = whole.child("one-uid", "Cluster");
        let [whole, cluster] = [whole, cluster].map(|span| span.ended(&created, &created));
        assert!(spans.iter().all(|span| span.trace == whole.trace));
        let parents: Vec<_> = spans.iter().map(|span| (span.name, span.parent)).collect();
        let expected = [
            (conditions::PROVIDERS_AVAILABLE, whole.id),
            (conditions::VALIDATED, whole.id),
            (conditions::HOSTS_RESERVED, whole.id),
            (conditions::CONTROL_PLANE_READY, cluster.id),
            (conditions::WORKERS_READY, cluster.id),
            ("Cluster", whole.id),
            ("ProvisioningRequest", whole.parent),
        ];
        assert_eq!(parents, expected, "sent: {is_sent}");

        let status = world.requests["one"].status.clone().unwrap();
        let since = |type_: &str| find(&status.conditions, type_).unwrap().last_transition_time.0;
        let times = |name: &str| {
            let span = spans.iter().find(|span| span.name == name).unwrap();
            (span.start, span.end)
        };
        assert_eq!(times("ProvisioningRequest"), (created.0, since(conditions::READY)));
        assert_eq!(times("Cluster"), (since(conditions::HOSTS_RESERVED), since(conditions::READY)));
        assert_eq!(times(conditions::VALIDATED), (created.0, since(conditions::VALIDATED)));
        assert_eq!(times(conditions::CONTROL_PLANE_READY).1, since(conditions::CONTROL_PLANE_READY));
        let stages = conditions::STAGES.map(times);
        assert!(stages.is_sorted(), "{stages:?}");
        for span in &spans {
            let told =
                ["o2ims.request.name", "o2ims.cluster.name", "o2ims.hosts", "outcome"].map(|key| attribute(span, key));
            assert_eq!(told, ["one", "core", "2", "succeeded"], "{}", span.name);
        }
        assert!(settle(&mut world).is_empty(), "nothing ends twice");
    }
}

#[test]
fn what_comes_after_the_first_fulfilment_is_told_only_if_it_fails() {
    let mut world = world(false);
    settle(&mut world);
    let fulfilled = world.requests["one"].clone();
    let with = |status: ConditionStatus, reason: &str, stalled: bool| {
        let mut request = fulfilled.clone();
        let list = &mut request.status.as_mut().unwrap().conditions;
        let now = Timestamp::from_second(world.second + 100).unwrap();
        for (type_, status) in [
            (conditions::WORKERS_READY, status),
            (conditions::READY, status),
            (conditions::STALLED, ConditionStatus::from(stalled)),
        ] {
            let message = format!("message of {type_}");
            set(list, ConditionUpdate { type_, status, reason, message, observed_generation: None }, now);
        }
        request
    };
    let failing = with(ConditionStatus::False, reason::IN_PROGRESS, false);
    assert_eq!(of_status(&fulfilled, failing.status.as_ref().unwrap()), []);
    assert_eq!(of_status(&failing, fulfilled.status.as_ref().unwrap()), [], "a node that comes back");
    let late = with(ConditionStatus::False, reason::DEADLINE_EXCEEDED, true);
    let spans = of_status(&failing, late.status.as_ref().unwrap());
    let [failed] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((failed.name, failed.failure.as_deref()), (conditions::WORKERS_READY, Some("message of WorkersReady")));
    assert_eq!(attribute(failed, "outcome"), reason::DEADLINE_EXCEEDED);
    assert_eq!(of_status(&late, late.status.as_ref().unwrap()), []);
}

#[test]
fn a_deletion_is_told_and_a_request_that_was_never_fulfilled() {
    for is_fulfilled in [true, false] {
        let mut world = world(true);
        if is_fulfilled {
            settle(&mut world);
        } else {
            // Nothing else goes on meanwhile.
            for _ in 0..3 {
                reconcile(&mut world);
            }
        }
        world.delete_request("one");
        let now = Timestamp::from_second(world.second + 30).unwrap();
        let deleted = world.requests.get("one").expect("it has a finalizer or a cluster").clone();
        let spans = of_deletion(&deleted, now);
        let told: Vec<_> = spans.iter().map(|span| (span.name, attribute(span, "outcome"))).collect();
        let deletion = ("ProvisioningRequest deletion", "succeeded".to_owned());
        let whole = ("ProvisioningRequest", "deleted".to_owned());
        assert_eq!(told, if is_fulfilled { vec![deletion] } else { vec![whole, deletion] });
        let last = spans.last().unwrap();
        assert_eq!((last.start, last.end), (deleted.metadata.deletion_timestamp.unwrap().0, now));
    }
}
