//! What is due when a request is gone and its hosts are still held.

use cluster_api::Kind;
use cluster_api::byoh::ByohVariant;
use o2ims_operator::provisioner::byoh::orphans::{plan_cluster, plan_host};
use o2ims_operator::provisioner::step::Step;
use operator_kit::cache::SyncState;
use serde_json::json;

use crate::model::{World, host_name, request};

fn world() -> World {
    let mut world = World::new(ByohVariant::Upstream, json!({}), 2);
    world.submit(request("one", "core", &[1], &[2]));
    world
}

/// The request vanishes; what is due for host 1 then?
fn due(world: &mut World) -> Option<Vec<Step>> {
    world.requests.remove("one").unwrap();
    Some(plan_host(&world.hosts[&host_name(1)], &world.watches())?.1)
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
        matches!(steps.as_deref(), Some([Step::PatchHost(marks)])
            if marks.host == host_name(1) && marks.labels.values().all(Option::is_none)),
        "{steps:?}"
    );
}

#[test]
fn a_cluster_that_was_never_let_go_is_removed() {
    let mut world = begun(true);
    assert_eq!(plan_cluster(&world.clusters["core"], &world.watches()), None);
    assert_eq!(due(&mut world), Some(Vec::new()), "the host stays until the Cluster is gone");
    let (_, steps) = plan_cluster(&world.clusters["core"], &world.watches()).unwrap();
    assert!(matches!(&steps[..], [Step::Delete { kind: Kind::Cluster, .. }]), "{steps:?}");
}

#[test]
fn a_cluster_that_runs_keeps_its_hosts() {
    let mut world = world();
    world.settle();
    assert_eq!(due(&mut world), Some(Vec::new()));
    assert_eq!(plan_cluster(&world.clusters["core"], &world.watches()), None);
}

/// Clusters that cannot be seen are not taken for gone.
#[test]
fn nothing_is_touched_while_a_provider_is_missing() {
    let mut world = begun(true);
    world.clusters.clear();
    world.requests.clear();
    let due = |world: &World| plan_host(&world.hosts[&host_name(1)], &world.watches());
    assert!(due(&world).is_some_and(|(_, steps)| !steps.is_empty()));
    for missing in [SyncState::NotInstalled, SyncState::OtherVersions(vec!["v1beta1".to_owned()])] {
        world.cluster_api = missing;
        assert_eq!(due(&world), None);
    }
}

#[test]
fn a_request_that_is_there_is_not_cleaned_up_after() {
    let world = begun(false);
    assert_eq!(plan_host(&world.hosts[&host_name(1)], &world.watches()), None);
}
