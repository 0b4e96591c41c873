//! Dead servers: what is told of them and when, and how a request gives them up.

use cluster_api::byoh::ByohVariant;
use cluster_api::labels::EXCLUDE_DRAINING_ANNOTATION;
use kube::ResourceExt as _;
use o2ims_operator::provisioner::byoh::marks::MarkedHost as _;
use o2ims_operator::provisioning_request::events::{given_up, removed_instruction};
use o2ims_types::conditions::DEGRADED;
use o2ims_types::{ProvisioningState, names};
use operator_kit::write::status::find;
use serde_json::json;

use crate::model::{World, host_name, request};
use crate::status::{status, world};
use ProvisioningState::{Deleting, Failed, Fulfilled, Progressing};

/// A cluster that is fulfilled, with hosts 1 and 2.
fn running(dialect: ByohVariant) -> World {
    let mut world = world(dialect);
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled));
    world
}

/// The server of a host loses its power.
fn off(world: &mut World, number: u32) {
    let at = world.hosts.keys().position(|name| *name == host_name(number)).unwrap();
    assert!(world.server_dies(at));
}

/// All servers have power again.
fn on(world: &mut World) {
    while world.agent_recovers(0) {}
}

/// Everything that can be done is done, up to the time limits.
fn wait(world: &mut World, seconds: i64) {
    world.second += seconds;
    world.settle();
}

fn remove_worker(world: &mut World, number: u32) {
    world.edit_request("one", |request| {
        let hosts = request.spec.template_parameters.hosts.as_mut().unwrap();
        hosts.workers.retain(|host| host.name() != host_name(number));
    });
}

fn says(world: &World, state: ProvisioningState, words: &str) {
    assert_eq!(world.state("one"), Some(state), "{}", world.message("one"));
    assert!(world.message("one").contains(words), "{:?} has no {words:?}", world.message("one"));
}

fn degraded(world: &World) -> String {
    let found = find(&status(world).conditions, DEGRADED).cloned().unwrap();
    assert_eq!(found.status == "True", !found.message.is_empty());
    found.message
}

#[test]
fn a_node_that_is_away_for_a_while_changes_no_state() {
    let mut world = running(ByohVariant::Upstream);
    off(&mut world, 2);
    let since = world.now();
    world.settle();
    let told = format!(
        "host 2 (target-2): its node is not Ready since {since}: ; switch its server on, repair it, or remove the host from hosts.workers"
    );
    says(&world, Fulfilled, &format!("cluster is ready: 1 master, 1 worker; {told}"));
    assert_eq!(degraded(&world), told);
    let ready_nodes = status(&world).extensions.ready_nodes.unwrap();
    assert_eq!(ready_nodes, "1/2");
    let left = world.assess("one").recheck.unwrap();
    assert_eq!(world.second + i64::try_from(left.as_secs()).unwrap(), since.as_second() + 300, "it looks again then");

    // The time in the message is a fixed one, so nothing is written meanwhile.
    let revision = world.revision;
    world.second = since.as_second() + 299;
    world.reconcile("one");
    assert_eq!(world.revision, revision);
    world.second += 1;
    world.reconcile("one");
    says(&world, Progressing, &told);
    wait(&mut world, 180);
    says(
        &world,
        Failed,
        &format!("time limit of 180 s exceeded (spec.timeouts.workers of the ClusterTemplate): {told}"),
    );
    on(&mut world);
    world.settle();
    assert_eq!(
        (world.state("one"), world.message("one").as_str()),
        (Some(Fulfilled), "cluster is ready: 1 master, 1 worker")
    );
    assert_eq!(degraded(&world), "");
}

#[test]
fn a_node_that_comes_back_in_time_changes_no_state() {
    let mut world = running(ByohVariant::Upstream);
    off(&mut world, 1);
    world.settle();
    says(&world, Fulfilled, ": ; switch its server on, or repair it");
    on(&mut world);
    // Cluster API's counters lag behind.
    assert!(world.node_becomes_ready(0));
    world.reconcile("one");
    says(&world, Fulfilled, "replicas ready");
    world.settle();
    says(&world, Fulfilled, "cluster is ready: 1 master, 1 worker");
    assert_eq!(degraded(&world), "");
}

#[test]
fn a_template_says_how_long_a_node_may_be_away() {
    let mut world = World::new(ByohVariant::Upstream, json!({"timeouts": {"unreachable": "0s"}}), 2);
    world.submit(request("one", "core", &[1], &[2]));
    world.settle();
    off(&mut world, 2);
    world.settle();
    says(&world, Progressing, "host 2 (target-2): its node is not Ready since");
}

#[test]
fn a_node_that_was_never_ready_is_not_tolerated() {
    let mut world = world(ByohVariant::Upstream);
    for _ in 0..400 {
        world.reconcile("one");
        world.second += 1;
        if world.machines.values().filter(|machine| machine.record.was_a_node()).count() == 2 {
            break;
        }
        crate::model::PROGRESS.iter().any(|progress| progress(&mut world, 0));
    }
    off(&mut world, 2);
    world.settle();
    says(&world, Progressing, "host 2 (target-2): its node is not Ready since");
}

#[test]
fn a_worker_that_is_given_up_is_let_go_and_comes_back_clean() {
    for dialect in [ByohVariant::Upstream, ByohVariant::Platform9] {
        let mut world = running(dialect);
        off(&mut world, 2);
        world.settle();

        // As long as the request names it, it is not given up.
        world.call_lost("one", "target-2");
        world.settle();
        let unchanged = "annotation o2ims.provisioning.oran.org/lost-hosts names target-2, which this request still names: an upgrade passes over \
            it while its node does not answer; to give it up, remove target-2 from hosts of the request, or else from the annotation";
        says(&world, Fulfilled, unchanged);
        assert!(degraded(&world).contains(unchanged));

        remove_worker(&mut world, 2);
        world.settle();
        assert_eq!(
            (world.state("one"), world.message("one").as_str()),
            (Some(Fulfilled), "cluster is ready: 1 master, 0 workers")
        );
        assert!(!world.requests["one"].annotations().contains_key(names::LOST_HOSTS_ANNOTATION), "it is carried out");
        let host = &world.hosts["target-2"];
        assert_eq!(host.labels()[names::LOST_LABEL], "one-uid");
        assert!(host.holder().is_none() && host.is_unregistering() && host.status.machine_ref.is_some());

        // Nobody gets it until its agent has cleaned it, the former holder neither.
        world.submit(request("two", "edge", &[3], &[2]));
        world.edit_request("one", |request| {
            let worker = serde_json::from_value(json!({"hostId": 2, "hostName": "target-2"})).unwrap();
            request.spec.template_parameters.hosts.as_mut().unwrap().workers.push(worker);
        });
        world.settle();
        let told = "host 2 (target-2) was given up by ProvisioningRequest site-a/one, and has not come back: switch its server on; when \
            its agent has cleaned it, the host is free";
        says(&world, Progressing, told);
        assert_eq!((world.state("two"), world.message("two").as_str()), (Some(ProvisioningState::Pending), told));
        world.delete_request("one");
        on(&mut world);
        world.settle();
        assert_eq!(world.state("two"), Some(Fulfilled), "{}", world.message("two"));
        assert_eq!(world.hosts["target-2"].holder(), Some("two-uid"));
        assert!(world.hosts.values().all(|host| !host.was_given_up()));
    }
}

#[test]
fn a_removed_worker_that_is_dead_says_how_to_give_it_up() {
    let mut world = running(ByohVariant::Upstream);
    off(&mut world, 2);
    remove_worker(&mut world, 2);
    world.settle();
    let command = "if a server does not come back, switch it off, as one that is only cut off still runs its part of the cluster, then give it up: \
        kubectl annotate pr one -n site-a o2ims.provisioning.oran.org/lost-hosts=target-2 --overwrite";
    let told = status(&world).extensions.hosts[1].message.clone();
    assert!(told.starts_with("its Machine core-worker-target-2-") && told.ends_with(command), "{told}");

    // The request of an SMO is annotated there.
    world.edit_request("one", |one| {
        for (label, value) in [(names::focom::SOURCE_LABEL, "edge"), (names::focom::SOURCE_NAMESPACE_LABEL, "smo")] {
            one.labels_mut().insert(label.to_owned(), value.to_owned());
        }
    });
    world.reconcile("one");
    let told = status(&world).extensions.hosts[1].message.clone();
    let command = "at the SMO, kubectl annotate fpr edge -n smo focom.nephio.org/lost-hosts=target-2 --overwrite";
    assert!(told.ends_with(command), "{told}");
    world.call_lost("one", "target-9");
    world.reconcile("one");
    let unknown = "annotation o2ims.provisioning.oran.org/lost-hosts names target-9, which is not, or not any more, a host that leaves this request";
    assert!(degraded(&world).contains(unknown), "{}", degraded(&world));
    world.call_lost("one", "target-2");
    world.settle();
    says(&world, Fulfilled, "cluster is ready: 1 master, 0 workers");
    assert!(world.hosts["target-2"].was_given_up());

    // A name that nothing leaves by is removed, so that it counts for no later edit.
    world.call_lost("one", "target-9");
    let note = removed_instruction(&world.requests["one"], names::LOST_HOSTS_ANNOTATION);
    messages::record(&note);
    messages::record(&given_up("target-2"));
    world.settle();
    assert!(!world.requests["one"].annotations().contains_key(names::LOST_HOSTS_ANNOTATION));
}

/// A word that was said while the server was off is removed when its node answers again, and a healthy node is drained, whatever its owner says.
#[test]
fn a_healthy_node_is_drained_though_it_was_called_lost() {
    let skips_drain = |world: &World| {
        let mut machines = world.machines.values();
        machines.any(|machine| machine.record.annotations().contains_key(EXCLUDE_DRAINING_ANNOTATION))
    };
    let mut world = running(ByohVariant::Upstream);
    off(&mut world, 2);
    world.settle();
    world.call_lost("one", "target-2");
    world.settle();
    assert!(world.requests["one"].annotations().contains_key(names::LOST_HOSTS_ANNOTATION), "its node does not answer");
    on(&mut world);
    world.settle();
    assert!(!world.requests["one"].annotations().contains_key(names::LOST_HOSTS_ANNOTATION), "its node answers");
    says(&world, Fulfilled, "cluster is ready: 1 master, 1 worker");
    assert_eq!(degraded(&world), "");

    // The host leaves in the same edit.
    world.call_lost("one", "target-2");
    remove_worker(&mut world, 2);
    for _ in 0..20 {
        world.reconcile("one");
        assert!(!skips_drain(&world), "a healthy node is not drained");
        crate::model::PROGRESS.iter().any(|progress| progress(&mut world, 0));
    }
    world.settle();
    says(&world, Fulfilled, "cluster is ready: 1 master, 0 workers");

    // A server that dies while it leaves is let go.
    let mut world = running(ByohVariant::Upstream);
    world.call_lost("one", "target-2");
    remove_worker(&mut world, 2);
    world.reconcile("one");
    assert!(!skips_drain(&world));
    off(&mut world, 2);
    world.reconcile("one");
    assert!(skips_drain(&world));
    world.settle();
    says(&world, Fulfilled, "cluster is ready: 1 master, 0 workers");
    assert!(world.hosts["target-2"].was_given_up());
}

#[test]
fn a_deletion_does_not_wait_for_hosts_that_are_given_up() {
    for dialect in [ByohVariant::Upstream, ByohVariant::Platform9] {
        let mut world = running(dialect);
        for number in [1, 2] {
            off(&mut world, number);
        }
        world.delete_request("one");
        world.settle();
        says(&world, Deleting, "waiting for hosts: host 1 (target-1) is being cleaned by its agent; host 2 (target-2)");
        assert!(!world.message("one").contains("lost-hosts"), "{}", world.message("one"));
        assert!(status(&world).extensions.hosts.iter().all(|host| host.message.contains("/lost-hosts=")));
        wait(&mut world, 600);
        let command = "if a server does not come back, switch it off, as one that is only cut off still runs its part of the cluster, then give it up: \
            kubectl annotate pr one -n site-a o2ims.provisioning.oran.org/lost-hosts=target-1,target-2 --overwrite";
        says(&world, Deleting, command);
        world.call_lost("one", "target-1");
        world.settle();
        says(&world, Deleting, "waiting for hosts: host 2 (target-2)");
        says(&world, Deleting, "names target-1, which is not, or not any more, a host that leaves this request");
        world.call_lost("one", " target-2");
        world.settle();
        assert!(world.requests.is_empty(), "{}", world.message("one"));
        assert!(world.hosts.values().filter(|host| host.was_given_up()).count() == 2);
        on(&mut world);
        world.settle();
        for host in world.hosts.values() {
            assert_eq!(host.in_use_reason(), None);
            assert!(
                !host.labels().keys().chain(host.annotations().keys()).any(|key| key.contains("o2ims")),
                "{host:?}"
            );
            assert!(!world.install_secrets.contains(&host.name_any()));
        }
    }
}

/// What can befall one worker.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Off,
    On,
    Lost,
    Removed,
    Deleted,
    Wanted,
}

fn orders(events: &[Event]) -> Vec<Vec<Event>> {
    let Some(_) = events.first() else { return vec![Vec::new()] };
    let mut all = Vec::new();
    for index in 0..events.len() {
        let mut rest = events.to_vec();
        let first = rest.remove(index);
        all.extend(orders(&rest).into_iter().map(|order| [vec![first], order].concat()));
    }
    all
}

/// In whatever order a worker dies, leaves its request, is called lost, comes back and is wanted by another request: in the end that one has it, clean.
#[test]
fn the_order_of_events_does_not_matter() {
    use Event::{Deleted, Lost, Off, On, Removed, Wanted};
    for (dialect, leaves) in [(ByohVariant::Upstream, Removed), (ByohVariant::Platform9, Deleted)] {
        for order in orders(&[Off, On, Lost, leaves, Wanted]) {
            let mut world = running(dialect);
            for event in &order {
                match event {
                    Off => off(&mut world, 2),
                    On => on(&mut world),
                    Lost if world.requests.contains_key("one") => world.call_lost("one", "target-2"),
                    Lost => {}
                    Removed => remove_worker(&mut world, 2),
                    Deleted => world.delete_request("one"),
                    Wanted => world.submit(request("two", "edge", &[3], &[2])),
                }
                world.settle();
            }
            on(&mut world);
            world.settle();
            assert_eq!(world.state("two"), Some(Fulfilled), "{order:?}: {}", world.message("two"));
            let host = &world.hosts["target-2"];
            assert!(host.holder() == Some("two-uid") && !host.was_given_up(), "{order:?}");
        }
    }
}
