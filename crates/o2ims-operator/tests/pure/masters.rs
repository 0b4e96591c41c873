//! Masters that come, go and are exchanged: in which order, what is told, what is refused, and that edits on the way end in the state of the last.

use std::collections::BTreeMap;

use cluster_api::Kind;
use cluster_api::byoh::ByohVariant;
use cluster_api::machine::Deletion;
use kube::ResourceExt as _;
use o2ims_operator::provisioner::step::Step;
use o2ims_types::{ProvisioningState, conditions, names};
use proptest::prelude::*;
use serde_json::json;

use crate::consent::condition_message;
use crate::model::{PROGRESS, World, asked, from, host_name, host_refs, request};
use crate::properties::config;
use crate::rules::check_world;
use crate::status::set;
use ProvisioningState::{Failed, Fulfilled, Progressing};

const PLANE: &str = "core-control-plane";

/// These masters behind a virtual address, and worker 9.
fn running(masters: &[u32]) -> World {
    let spec = json!({"install": {"method": "installer"}});
    let mut world = World::new(ByohVariant::Upstream, spec, 9);
    let mut one = request("one", "core", masters, &[9]);
    one.spec.template_parameters.control_plane_endpoint = Some(from(json!({"host": "10.0.0.100"})));
    world.submit(one);
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    world
}

fn ask_for(world: &mut World, masters: &[u32]) {
    world.edit_request("one", |one| {
        one.spec.template_parameters.hosts.as_mut().unwrap().masters = from(host_refs(masters));
    });
}

fn says(world: &World, words: &str) {
    let message = world.message("one");
    assert!(message.contains(words), "{message:?} has no {words:?}");
}

/// Lets hosts and Cluster API go on, and the operator after each of their moves, until it says so.
fn until(world: &mut World, words: &str) {
    for _ in 0..300 {
        world.reconcile("one");
        check_world(world);
        if world.message("one").contains(words) {
            return;
        }
        PROGRESS.iter().any(|progress| progress(world, 0));
        world.second += 1;
    }
    panic!("never says {words:?}, but {:?}", world.message("one"));
}

/// Names of the Machines by host.
fn machines(world: &World) -> BTreeMap<String, String> {
    let named = |(name, machine): (&String, &crate::model::ModelMachine)| {
        Some((machine.record.server()?.to_owned(), name.clone()))
    };
    world.machines.iter().filter_map(named).collect()
}

/// The request is fulfilled with exactly its hosts, each in its role.
fn is_as_asked(world: &World, told: &str) {
    assert_eq!(world.state("one"), Some(Fulfilled), "{told}: {}", world.message("one"));
    let role = |host: &cluster_api::byoh::ByoHost| host.labels().get(names::ROLE_LABEL).cloned().unwrap_or_default();
    let held: BTreeMap<_, _> = world.held("one-uid").into_iter().map(|host| (host.name_any(), role(host))).collect();
    let asked = asked(&world.requests["one"]);
    assert_eq!(held, asked.iter().map(|(host, role)| (host.clone(), (*role).to_owned())).collect(), "{told}");
    assert_eq!(machines(world).keys().collect::<Vec<_>>(), asked.keys().collect::<Vec<_>>(), "{told}");
    let masters = asked.values().filter(|role| **role == names::ROLE_CONTROL_PLANE).count();
    assert_eq!(world.control_planes[PLANE].spec.replicas.map(usize::try_from), Some(Ok(masters)), "{told}");
    let is_annotated = world.machines.keys().any(|machine| world.is_annotated(machine));
    assert!(!is_annotated, "{told}: a Machine that stays has the annotation of one that goes");
}

#[test]
fn the_control_plane_grows_and_shrinks_and_nothing_else_is_touched() {
    let mut world = running(&[1]);
    let mut before = machines(&world);
    for masters in [&[1, 2, 3][..], &[1, 2, 3, 4, 5], &[5, 3, 1], &[3]] {
        ask_for(&mut world, masters);
        world.settle();
        is_as_asked(&world, &format!("{masters:?}"));
        let now = machines(&world);
        for (host, machine) in &now {
            assert!(before.get(host).is_none_or(|before| before == machine), "{machine} was made anew on {host}");
        }
        before = now;
        for number in 1..=8 {
            let host = &world.hosts[&host_name(number)];
            assert!(masters.contains(&number) || host.in_use_reason().is_none(), "{} is in use", host.name_any());
        }
    }
}

/// The number is lowered only when Cluster API can see which Machines are meant, and raised only when all hosts are held.
#[test]
fn cluster_api_is_told_which_masters_go_before_how_many() {
    let mut world = running(&[1]);
    ask_for(&mut world, &[1, 2, 3]);
    let claims = world.reconcile("one");
    assert!(matches!(&claims[..], [Step::PatchHost(_), Step::PatchHost(_)]), "{claims:?}");
    let raised = world.reconcile("one");
    let [Step::PatchSpec { kind: Kind::KubeadmControlPlane, spec, .. }] = &raised[..] else { panic!("{raised:?}") };
    assert_eq!(*spec, json!({"replicas": 3}));
    assert_eq!(world.reconcile("one"), []);
    world.settle();

    // As an earlier release has created it.
    world.edit_control_planes(|object| object.spec.machine_template.spec.deletion = Deletion::default());
    ask_for(&mut world, &[2]);
    let mut marks = world.reconcile("one");
    let Step::PatchSpec { spec, .. } = marks.remove(0) else { panic!("{marks:?}") };
    assert_eq!(spec, json!({"machineTemplate": {"spec": {"deletion": {"nodeDeletionTimeoutSeconds": 300}}}}));
    let annotated = marks.iter().filter(|step| matches!(step, Step::Annotate { kind: Kind::Machine, .. })).count();
    let without_role = marks.iter().filter(|step| matches!(step, Step::PatchHost(_))).count();
    assert_eq!((annotated, without_role, marks.len()), (2, 2, 4), "{marks:?}");
    let lowered = world.reconcile("one");
    let [Step::PatchSpec { spec, .. }] = &lowered[..] else { panic!("{lowered:?}") };
    assert_eq!(*spec, json!({"replicas": 1, "rollout": {"strategy": {"rollingUpdate": {"maxSurge": 1}}}}));
    assert_eq!(world.reconcile("one"), []);
}

#[test]
fn what_goes_on_is_told() {
    let mut world = running(&[1]);
    ask_for(&mut world, &[1, 2, 3]);
    until(&mut world, "scaling cluster core from 1 to 3 masters; host 2 (target-2): ");
    assert_eq!(world.state("one"), Some(Progressing));
    until(
        &mut world,
        "scaling cluster core from 2 to 3 masters; while there are two masters, the loss of one of them stops the cluster's API; ",
    );
    until(&mut world, "cluster is ready: 3 masters, 1 worker");
    ask_for(&mut world, &[1, 2, 4]);
    until(&mut world, "replacing master target-3 by host 4 (target-4); ");
    until(&mut world, "cluster is ready: 3 masters, 1 worker");
    world.settle();
    ask_for(&mut world, &[4]);
    until(&mut world, "removing master target-1, target-2");
    let leaving = crate::status::status(&world).extensions.hosts.into_iter().find(|host| host.host_name == "target-1");
    assert_eq!(leaving.map(|host| host.message).as_deref(), Some("leaves the control plane"));
    until(&mut world, "cluster is ready: 1 master, 1 worker");
}

/// A master that is replaced goes when the others are healthy, and its server does not come back as the next one.
#[test]
fn a_master_is_replaced_when_the_others_are_healthy() {
    for is_dead in [false, true] {
        let mut world = running(&[1, 2, 3]);
        let before = machines(&world);
        if is_dead {
            world.silent.insert("target-1".to_owned());
            assert!(fails(&mut world, "target-1"));
        }
        assert!(fails(&mut world, "target-2"));
        ask_for(&mut world, &[4, 2, 3]);
        (0..3).for_each(|_| drop(world.reconcile("one")));
        says(&world, "replacing master target-1 by host 4 (target-4); waits: the node of target-2 is not Ready");
        assert!(world.machines.values().all(|machine| machine.record.metadata.deletion_timestamp.is_none()));
        world.settle();
        let now = machines(&world);
        assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
        assert!(now["target-2"] == before["target-2"] && now["target-3"] == before["target-3"], "{before:?} {now:?}");
        assert!(now.contains_key("target-4") && !now.contains_key("target-1"), "{now:?}");
        assert_eq!(world.hosts["target-1"].in_use_reason().is_some(), is_dead);
        if is_dead {
            says(&world, "host 1 (target-1): is being cleaned by its agent");
            world.silent.clear();
            world.settle();
        }
        is_as_asked(&world, &format!("dead: {is_dead}"));
    }
}

fn fails(world: &mut World, host: &str) -> bool {
    let nodes = world.machines.values().filter(|machine| machine.record.was_a_node());
    let index = nodes.into_iter().position(|machine| machine.record.server() == Some(host)).unwrap();
    world.node_fails(index)
}

/// Several at once are replaced one after the other; the only one by way of a second one.
#[test]
fn all_masters_are_replaced_one_after_the_other() {
    for (from, to) in [(&[1, 2, 3][..], &[4, 5, 6][..]), (&[1], &[2]), (&[1], &[2, 3, 4]), (&[1, 2, 3, 4, 5], &[6])] {
        let mut world = running(from);
        ask_for(&mut world, to);
        for _ in 0..2000 {
            let revision = world.revision;
            world.reconcile("one");
            PROGRESS.iter().any(|progress| progress(&mut world, 0));
            check_world(&world);
            let healthy = world.machines.values().filter(|machine| {
                let record = &machine.record;
                let conditions = &record.status.conditions;
                record.is_master() && cluster_api::conditions::Condition::is_true(conditions, "NodeHealthy")
            });
            assert!(healthy.count() >= 1, "{from:?} to {to:?}: no master is left");
            if world.revision == revision {
                break;
            }
        }
        world.settle();
        is_as_asked(&world, &format!("{from:?} to {to:?}"));
    }
}

#[test]
fn the_only_master_is_not_replaced_while_it_is_away() {
    let mut world = running(&[1]);
    let before = machines(&world);
    world.silent.insert("target-1".to_owned());
    fails(&mut world, "target-1");
    ask_for(&mut world, &[2]);
    world.settle();
    says(
        &world,
        "replacing master target-1 by host 2 (target-2); waits: without target-1 etcd has no quorum; if target-1 does not come back, the cluster cannot be mended",
    );
    assert_eq!(machines(&world), before);
    ask_for(&mut world, &[1]);
    world.silent.clear();
    world.settle();
    is_as_asked(&world, "taken back");
}

#[test]
fn a_member_of_etcd_that_is_not_healthy_is_waited_for() {
    let mut world = running(&[1, 2, 3]);
    let sick = world.machines.values_mut().find(|machine| machine.record.server() == Some("target-3")).unwrap();
    set(&mut sick.record.status.conditions, "EtcdMemberHealthy", "False", "NotHealthy");
    ask_for(&mut world, &[1, 4, 3]);
    world.settle();
    says(
        &world,
        "replacing master target-2 by host 4 (target-4); waits: EtcdMemberHealthy of Machine core-control-plane-",
    );
    world.machines.values_mut().for_each(|machine| {
        machine.record.status.conditions.retain(|condition| condition.type_ != "EtcdMemberHealthy");
    });
    world.revision += 1;
    world.settle();
    is_as_asked(&world, "healthy again");
}

/// A host that never becomes a node is given up by an edit, whatever the other masters are.
#[test]
fn a_master_that_does_not_come_is_exchanged_for_another_host() {
    let mut world = running(&[1]);
    world.sick.insert("target-2".to_owned());
    ask_for(&mut world, &[1, 2, 3]);
    world.settle();
    assert_eq!(world.state("one"), Some(Progressing));
    ask_for(&mut world, &[1, 4, 3]);
    (0..100).for_each(|_| {
        world.reconcile("one");
        PROGRESS.iter().any(|progress| progress(&mut world, 0));
    });
    world.sick.clear();
    world.settle();
    is_as_asked(&world, "another host");
}

/// A worker that becomes a master, and the other way round, is cleaned in between.
#[test]
fn a_host_changes_its_role_by_way_of_a_reset() {
    let mut world = running(&[1, 2, 3]);
    let before = machines(&world);
    world.edit_request("one", |one| {
        let hosts = one.spec.template_parameters.hosts.as_mut().unwrap();
        (hosts.masters, hosts.workers) = (from(host_refs(&[1, 2, 9])), from(host_refs(&[3])));
    });
    world.settle();
    is_as_asked(&world, "roles are swapped");
    let now = machines(&world);
    assert!(now["target-3"] != before["target-3"] && now["target-9"] != before["target-9"]);
    assert!(now["target-1"] == before["target-1"] && now["target-2"] == before["target-2"]);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let refused = |world: &mut World, words: &str| {
        let before = (machines(world), world.control_planes.clone());
        world.reconcile("one");
        assert_eq!(world.state("one"), Some(Failed));
        says(world, words);
        world.settle();
        assert_eq!(machines(world), before.0);
        assert_eq!(world.control_planes[PLANE].spec, before.1[PLANE].spec);
        assert_eq!(world.held("one-uid").len(), before.0.len(), "a host is held for nothing");
    };
    // The address of the only master.
    let mut world = World::new(ByohVariant::Upstream, json!({}), 4);
    world.submit(request("one", "core", &[1], &[]));
    world.settle();
    ask_for(&mut world, &[2]);
    refused(
        &mut world,
        "hosts.masters cannot change: the cluster's endpoint 10.0.0.1 is the address of target-1. Set hosts.masters back to target-1. ",
    );
    // A master that could not carry the virtual address.
    let mut world = running(&[1]);
    world.edit_host("target-3", |host| host.status.network[0].ip_addrs = vec!["10.9.0.3/24".to_owned()]);
    ask_for(&mut world, &[1, 2, 3]);
    refused(
        &mut world,
        "hosts.masters cannot change: controlPlaneEndpoint.host 10.0.0.100 is not in the network of host 3 (target-3)",
    );
    // In the middle of an upgrade.
    let mut world = running(&[1, 2, 3]);
    world.edit_request("one", |one| one.spec.template_parameters.k8s_version = Some("v1.34.1".to_owned()));
    until(&mut world, "host 1 (target-1): has its job");
    ask_for(&mut world, &[1, 2, 4]);
    refused(
        &mut world,
        "hosts.masters cannot change: target-1 is being upgraded, or runs another version of Kubernetes than the control plane. Set hosts.masters back to \
         target-1, target-2, target-3, and change them when every master runs the same version",
    );
    ask_for(&mut world, &[1, 2, 3]);
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
}

/// Hosts that were held for masters are released when another one of them cannot be had.
#[test]
fn of_masters_that_are_added_all_or_none_are_held() {
    let mut world = running(&[1]);
    ask_for(&mut world, &[1, 2, 3]);
    let mut flight = world.begin("one").unwrap();
    assert_eq!(world.step(&mut flight), Ok(true));
    world.edit_host("target-3", |host| {
        host.labels_mut().insert(names::REQUEST_UID_LABEL.to_owned(), crate::model::STRANGER.to_owned());
    });
    world.settle();
    says(
        &world,
        "host 3 (target-3) has the label o2ims.provisioning.oran.org/request-uid of a request that does not exist",
    );
    assert_eq!(world.held("one-uid").len(), 2, "the master and the worker");
    assert!(world.stranger_lets_go(0));
    world.settle();
    is_as_asked(&world, "let go");
}

/// A copy from before the control plane grew is no consent to make it smaller.
#[test]
fn a_restored_request_removes_no_master() {
    let mut world = running(&[1]);
    let mut copy = world.requests["one"].clone();
    ask_for(&mut world, &[1, 2, 3]);
    world.settle();
    let before = machines(&world);
    world.requests.remove("one").unwrap();
    (copy.status, copy.metadata.finalizers) = (None, None);
    world.submit(copy);
    world.edit_request("one", |one| one.metadata.uid = Some("another-uid".to_owned()));
    world.settle();
    assert_eq!(machines(&world), before);
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    let wrong = condition_message(&world, conditions::DEGRADED).unwrap_or_default();
    assert!(
        wrong.contains("this request was restored and does not name host 2 (target-2), host 3 (target-3)"),
        "{wrong}"
    );
    for masters in [&[1, 2, 3][..], &[1]] {
        ask_for(&mut world, masters);
        world.settle();
    }
    is_as_asked(&world, "named once, then removed");
}

/// The version and the masters in one edit, where no policy refuses it: the masters first.
#[test]
fn an_upgrade_waits_for_the_masters() {
    let mut world = running(&[1, 2, 3]);
    world.edit_request("one", |one| one.spec.template_parameters.k8s_version = Some("v1.34.1".to_owned()));
    ask_for(&mut world, &[1]);
    world.settle();
    is_as_asked(&world, "both");
    assert!(world.machines.values().all(|machine| machine.record.spec.version.as_deref() == Some("v1.34.1")));
}

fn edits() -> impl Strategy<Value = Vec<(Vec<u32>, usize)>> {
    let hosts = Just((1..=7).collect::<Vec<u32>>()).prop_shuffle();
    let count = prop_oneof![Just(1), Just(3), Just(5)];
    let masters = (hosts, count).prop_map(|(hosts, count): (Vec<u32>, usize)| hosts[..count].to_vec());
    prop::collection::vec((masters, 0..60usize), 1..5)
}

proptest! {
    #![proptest_config(config(24))]

    /// Edits at any moment, with nodes that fail and come back, end in the state of the last one. The worker stays.
    #[test]
    fn edits_on_the_way_end_in_the_state_of_the_last(first in edits(), failing in prop::collection::vec(0..60usize, 0..4)) {
        let mut world = running(&[1, 2, 3]);
        let worker = machines(&world)[&host_name(9)].clone();
        let mut moves = 0;
        for (masters, steps) in first {
            ask_for(&mut world, &masters);
            for step in 0..steps {
                world.reconcile("one");
                PROGRESS.iter().any(|progress| progress(&mut world, step));
                check_world(&world);
                moves += 1;
                if failing.contains(&moves) {
                    world.node_fails(moves);
                }
                world.second += 1;
            }
        }
        world.settle();
        is_as_asked(&world, "after all edits");
        prop_assert_eq!(&machines(&world)[&host_name(9)], &worker);
    }
}
