//! What is due when a request is gone and its hosts are still held.

use o2ims_operator::byoh::installation::Dialect;
use o2ims_operator::capi::contract::Kind;
use o2ims_operator::provisioning_request::leftovers::plan;
use o2ims_operator::provisioning_request::plan::Step;
use serde_json::json;

use crate::model::{World, host_name, request};

fn world() -> World {
    let mut world = World::new(Dialect::Upstream, json!({}), 2);
    world.submit(request("one", "core", &[1], &[2]));
    world
}

/// The request vanishes; what is due for host 1 then?
fn due(world: &mut World) -> Option<Vec<Step>> {
    world.requests.remove("one").unwrap();
    Some(plan(&world.hosts[&host_name(1)], &world.watches())?.1)
}

/// Reconciles until a Cluster is there, or, without `clustered`, until hosts are held.
fn begun(clustered: bool) -> World {
    let mut world = world();
    for _ in 0..10 {
        world.reconcile("one");
        let held = world.held("one-uid").len() == 2;
        if held && (!clustered || !world.own_clusters("one-uid").is_empty()) {
            return world;
        }
    }
    panic!("nothing is held");
}

#[test]
fn a_claim_is_taken_back() {
    let steps = due(&mut begun(false));
    assert!(
        matches!(steps.as_deref(), Some([Step::MarkHost(marks)])
            if marks.host == host_name(1) && marks.labels.values().all(Option::is_none)),
        "{steps:?}"
    );
}

#[test]
fn a_cluster_that_was_never_let_go_is_removed() {
    let steps = due(&mut begun(true));
    assert!(matches!(steps.as_deref(), Some([Step::Delete { kind: Kind::Cluster, .. }])), "{steps:?}");
}

#[test]
fn a_cluster_that_runs_keeps_its_hosts() {
    let mut world = world();
    world.settle();
    assert_eq!(due(&mut world), Some(Vec::new()));
}

#[test]
fn a_request_that_is_there_is_not_cleaned_up_after() {
    let world = begun(false);
    assert_eq!(plan(&world.hosts[&host_name(1)], &world.watches()), None);
}
