//! Rolling upgrades: every host is reset and becomes a node again; what asks for that, and what does not. And hosts that an upgrade passes over.

use std::collections::BTreeMap;

use cluster_api::byoh::ByohVariant;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::UpgradeStrategy;
use o2ims_types::{ProvisioningState, conditions, names};
use operator_kit::write::status::find;
use serde_json::{Value, json};

use crate::model::{PROGRESS, World, from, host_name, host_refs, request};
use crate::rules::check_world;
use crate::status::status;
use ProvisioningState::{Failed, Fulfilled, Progressing};
use o2ims_operator::provisioner::byoh::marks::MarkedHost as _;

const FROM: &str = "v1.35.1";
const TO: &str = "v1.36.1";
const PLANE: &str = "core-control-plane";

/// Masters 1 to 3 behind a virtual address and workers 4 and 5 at [`FROM`], with these settings of their template.
fn running_with(dialect: ByohVariant, install: &Value, upgrade: &Value) -> World {
    running_on(dialect, install, upgrade, &[1, 2, 3])
}

fn running_on(dialect: ByohVariant, install: &Value, upgrade: &Value, masters: &[u32]) -> World {
    let spec = json!({"install": install, "defaults": {"k8sVersion": FROM}, "upgrade": upgrade});
    let mut world = World::new(dialect, spec, 6);
    let mut one = request("one", "core", masters, &[4, 5]);
    one.spec.template_parameters.control_plane_endpoint = Some(from(json!({"host": "10.0.0.100"})));
    world.submit(one);
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    world
}

/// As [`running_with`], made by install scripts, with the strategy `Rolling`.
fn running() -> World {
    running_with(ByohVariant::Upstream, &json!({"method": "installer"}), &json!({"strategy": "Rolling"}))
}

/// As [`running`], in place.
fn in_place() -> World {
    running_with(ByohVariant::Upstream, &json!({"method": "installer"}), &json!({}))
}

fn ask_for(world: &mut World, version: &str) {
    let version = version.to_owned();
    world.edit_request("one", |one| one.spec.template_parameters.k8s_version = Some(version));
    world.reconcile("one");
}

fn set_strategy(world: &mut World, strategy: UpgradeStrategy) {
    world.templates.get_mut("base-v1").unwrap().spec.upgrade.strategy = strategy;
    world.revision += 1;
}

fn says(world: &World, words: &str) {
    let message = world.message("one");
    assert!(message.contains(words), "{message:?} has no {words:?}");
}

/// Lets hosts and Cluster API make so many moves, and the operator go on after each of them.
fn go_on(world: &mut World, steps: usize) {
    for _ in 0..steps {
        world.reconcile("one");
        check_world(world);
        at_most_one_is_out(world);
        PROGRESS.iter().any(|progress| progress(world, 0));
        world.second += 1;
    }
}

fn until(world: &mut World, words: &str) {
    for _ in 0..600 {
        world.reconcile("one");
        if world.message("one").contains(words) {
            return;
        }
        go_on(world, 1);
    }
    panic!("never says {words:?}, but {:?}", world.message("one"));
}

/// Of a cluster that is upgraded, no more than one host is no node.
fn at_most_one_is_out(world: &World) {
    let is_node = |host: &String| {
        let mut machines = world.machines.values().map(|machine| &machine.record);
        machines.any(|machine| machine.server() == Some(host) && machine.metadata.deletion_timestamp.is_none())
    };
    let out: Vec<_> = (1..=5).map(host_name).filter(|host| !is_node(host)).collect();
    assert!(out.len() < 2, "no nodes: {out:?}");
}

/// UIDs and versions of the Machines, by host.
fn machines(world: &World) -> BTreeMap<String, (String, String)> {
    let named = world.machines.values().map(|machine| &machine.record).filter_map(|machine| {
        let version = machine.spec.version.clone()?;
        Some((machine.server()?.to_owned(), (machine.uid()?, version)))
    });
    named.collect()
}

fn is_upgraded(world: &World) -> Option<String> {
    find(&status(world).conditions, conditions::UPGRADED).map(|told| told.status.clone())
}

/// Every host has another Machine, at this version.
fn every_host_was_reset(world: &World, before: &BTreeMap<String, (String, String)>, version: &str) {
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert_eq!(is_upgraded(world).as_deref(), Some("True"));
    let now = machines(world);
    assert_eq!(before.keys().collect::<Vec<_>>(), now.keys().collect::<Vec<_>>());
    for (host, (uid, has)) in &now {
        assert!(before[host].0 != *uid && has == version, "{host}: {before:?}, {now:?}");
    }
    let roles: Vec<_> = world.held("one-uid").iter().map(|host| host.labels()[names::ROLE_LABEL].clone()).collect();
    assert_eq!(roles, ["control-plane", "control-plane", "control-plane", "worker", "worker"]);
    assert_eq!(world.control_planes[PLANE].spec.version, version);
}

#[test]
fn each_host_is_reset_and_becomes_a_node_again() {
    let bundle = json!({"method": "bundle", "bundle": {"repo": "registry.example.org/byoh"}});
    for (dialect, install) in [
        (ByohVariant::Upstream, json!({"method": "installer"})),
        (ByohVariant::Platform9, json!({"method": "installer"})),
        (ByohVariant::Platform9, bundle),
    ] {
        let mut world = running_with(dialect, &install, &json!({"strategy": "Rolling"}));
        let before = machines(&world);
        ask_for(&mut world, TO);
        let prefix = "upgrading to v1.36.1, by resetting one host after the other: ";
        let mut told = Vec::new();
        while world.state("one") != Some(Fulfilled) || told.is_empty() {
            let message = world.message("one");
            if message.starts_with(prefix) && told.last() != Some(&message) {
                assert_eq!((world.state("one"), is_upgraded(&world).as_deref()), (Some(Progressing), Some("False")));
                told.push(message);
            }
            go_on(&mut world, 1);
        }
        let at = |words: &str| {
            let found = told.iter().position(|message| message.starts_with(&format!("{prefix}{words}")));
            found.unwrap_or_else(|| panic!("never says {words:?}: {told:#?}"))
        };
        let masters = (1..=3).map(|number| {
            let host = format!("host {number} (target-{number})");
            assert!(at(&format!("{host}: its Machine ")) < at(&format!("{host}: is being cleaned by its agent")));
            at(&format!("{host}: is being cleaned by its agent"))
        });
        assert!(masters.max().unwrap() < at("host 4 (target-4) is drained and reset"));
        assert!(at("host 4 (target-4): is being cleaned") < at("host 5 (target-5) is drained and reset"));
        assert!(at("the masters come first") < at("host 1 (target-1) is to be replaced by Cluster API"));
        world.settle();
        every_host_was_reset(&world, &before, TO);
        let jobs = world.hosts.values().filter(|host| host.annotations().contains_key(names::JOB_ANNOTATION));
        assert_eq!(jobs.count(), 0, "a job was given");
    }
}

/// BYOH attaches a host by its label, at whatever moment the agent is.
#[test]
fn a_rolling_upgrade_ends_in_whatever_order_things_go() {
    for start in 0..40 {
        let mut world = running();
        let before = machines(&world);
        ask_for(&mut world, TO);
        go_on(&mut world, start);
        world.settle();
        every_host_was_reset(&world, &before, TO);
    }
}

/// A cluster that stays when its request is deleted gets the hosts back that were reset, and no further worker is reset.
#[test]
fn a_cluster_that_is_kept_gets_its_hosts_back() {
    let mut halves = 0;
    for start in (0..150).step_by(3) {
        let mut world = running();
        let before = machines(&world);
        ask_for(&mut world, TO);
        go_on(&mut world, start);
        world.edit_request("one", |one| one.finalizers_mut().push(names::ORPHAN_FINALIZER.to_owned()));
        world.delete_request("one");
        world.settle();
        let finalizers = world.requests["one"].finalizers().to_vec();
        assert_eq!(finalizers, [names::ORPHAN_FINALIZER], "after {start}: {}", world.message("one"));
        let kept = machines(&world);
        assert!(kept.keys().eq(before.keys()), "after {start}: {kept:?}");
        let roles = world.held("one-uid").into_iter().filter(|host| host.is_held_as_master()).count();
        assert_eq!(roles, 3, "after {start}");
        let version = &world.control_planes[PLANE].spec.version;
        assert!((1..=3).all(|number| kept[&host_name(number)].1 == *version), "after {start}: {kept:?}");
        let outdated = kept.values().filter(|(_, version)| version == FROM).count();
        halves += usize::from((1..5).contains(&outdated));
    }
    assert!(halves > 5, "it was hardly ever in the middle");
}

/// Whoever keeps a cluster keeps every worker that runs: also one that an edit has just removed.
#[test]
fn a_cluster_that_is_kept_loses_no_worker() {
    // No worker is out yet.
    for start in [5, 10, 15, 20] {
        let mut world = running();
        let before = machines(&world);
        ask_for(&mut world, TO);
        go_on(&mut world, start);
        world.edit_request("one", |one| {
            one.spec.template_parameters.hosts.as_mut().unwrap().workers = from(host_refs(&[5]));
            one.finalizers_mut().push(names::ORPHAN_FINALIZER.to_owned());
        });
        world.delete_request("one");
        world.settle();
        assert_eq!(world.requests["one"].finalizers(), [names::ORPHAN_FINALIZER], "{}", world.message("one"));
        let kept = machines(&world);
        for worker in ["target-4", "target-5"] {
            assert_eq!(kept.get(worker), before.get(worker), "after {start}");
        }
    }
}

#[test]
fn an_edit_of_the_template_resets_nothing() {
    // Nothing was asked for.
    let mut world = in_place();
    let before = machines(&world);
    set_strategy(&mut world, UpgradeStrategy::Rolling);
    world.settle();
    assert_eq!(machines(&world), before);
    assert_eq!(is_upgraded(&world), None);
    // What has begun in place is finished in place, at whatever step the template changes.
    for steps in (1..60).step_by(3) {
        let mut world = in_place();
        let before = machines(&world);
        ask_for(&mut world, TO);
        go_on(&mut world, steps);
        set_strategy(&mut world, UpgradeStrategy::Rolling);
        world.settle();
        assert_eq!(world.state("one"), Some(Fulfilled), "after {steps}: {}", world.message("one"));
        let uids =
            |of: &BTreeMap<String, (String, String)>| of.values().map(|(uid, _)| uid.clone()).collect::<Vec<_>>();
        assert_eq!(uids(&machines(&world)), uids(&before), "after {steps}");
    }
    // Masters that Cluster API has begun to replace are replaced; the workers are upgraded as the template says by then.
    for steps in (1..200).step_by(7) {
        let mut world = running();
        ask_for(&mut world, TO);
        go_on(&mut world, steps);
        set_strategy(&mut world, UpgradeStrategy::InPlace);
        world.settle();
        assert_eq!(world.state("one"), Some(Fulfilled), "after {steps}: {}", world.message("one"));
        assert!(machines(&world).values().all(|(_, version)| version == TO), "after {steps}");
    }
}

/// The strategy of an edit counts until every host has the version, also while no host has a job for it.
#[test]
fn an_edit_of_the_template_between_two_versions_resets_nothing() {
    let uids = |world: &World| machines(world).into_values().map(|(uid, _)| uid).collect::<Vec<_>>();
    let all_have = |world: &World, version: &str| {
        machines(world).values().all(|(_, has)| has == version) && world.control_planes[PLANE].spec.version == version
    };
    let record = |world: &World| world.clusters["core"].annotations().get(names::UPGRADE_STRATEGY_ANNOTATION).cloned();
    let upgrade = json!({"versions": [TO]});
    // When every host has the version on the way; when a dead worker was passed over, and comes back; and at any other time.
    let mut world = running_with(ByohVariant::Upstream, &json!({"method": "installer"}), &upgrade);
    let before = uids(&world);
    ask_for(&mut world, "v1.37.1");
    assert_eq!(record(&world).as_deref(), Some("v1.37.1 InPlace"));
    while !all_have(&world, TO) {
        go_on(&mut world, 1);
    }
    set_strategy(&mut world, UpgradeStrategy::Rolling);
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert!(all_have(&world, "v1.37.1") && uids(&world) == before);
    assert_eq!(record(&world), None, "it counts for the next edit");

    let mut world = in_place();
    let before = uids(&world);
    off(&mut world, 4);
    world.call_lost("one", "target-4");
    ask_for(&mut world, TO);
    world.settle();
    assert_eq!(is_upgraded(&world).as_deref(), Some("True"), "{}", world.message("one"));
    set_strategy(&mut world, UpgradeStrategy::Rolling);
    while world.agent_recovers(0) {}
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert!(all_have(&world, TO) && uids(&world) == before);

    for steps in (1..150).step_by(21) {
        let mut world = running_with(ByohVariant::Upstream, &json!({"method": "installer"}), &upgrade);
        let before = uids(&world);
        ask_for(&mut world, "v1.37.1");
        go_on(&mut world, steps);
        set_strategy(&mut world, UpgradeStrategy::Rolling);
        world.settle();
        assert_eq!(world.state("one"), Some(Fulfilled), "after {steps}: {}", world.message("one"));
        assert!(all_have(&world, "v1.37.1") && uids(&world) == before, "after {steps}");
    }
}

/// An edit back, in the middle of an upgrade in place, is carried out in place.
#[test]
fn an_upgrade_in_place_is_taken_back_in_place() {
    for steps in (1..60).step_by(3) {
        let mut world = in_place();
        let before = machines(&world);
        ask_for(&mut world, "v1.35.5");
        go_on(&mut world, steps);
        // Once every host has the version, it is another upgrade.
        if machines(&world).values().all(|(_, version)| version == "v1.35.5") {
            assert!(steps > 20, "it was never in the middle");
            return;
        }
        set_strategy(&mut world, UpgradeStrategy::Rolling);
        ask_for(&mut world, FROM);
        world.settle();
        assert_eq!(world.state("one"), Some(Fulfilled), "after {steps}: {}", world.message("one"));
        assert_eq!(machines(&world), before, "after {steps}");
        let mut kubelets = world.machines.values().map(|machine| &machine.record.status.node_info.kubelet_version);
        assert!(kubelets.all(|version| version == FROM), "after {steps}");
    }
}

/// A host that is cleaned for its next version stays the request's, also while the request is rejected for something else.
#[test]
fn a_rejected_request_keeps_the_host_that_is_reset() {
    let mut world = running();
    let before = machines(&world);
    until_worker(&mut world, "host 4 (target-4) is drained and reset");
    let workers = |world: &mut World, numbers: &[u32]| {
        let numbers = numbers.to_vec();
        world.edit_request("one", |one| {
            one.spec.template_parameters.hosts.as_mut().unwrap().workers = from(host_refs(&numbers));
        });
    };
    workers(&mut world, &[4, 5, 9]);
    world.submit(request("two", "edge", &[6], &[4]));
    world.settle();
    says(&world, "target-9");
    let host = &world.hosts["target-4"];
    assert!(host.in_use_reason().is_none() && host.holder() == Some("one-uid"), "{host:?}");
    world.requests.remove("two");
    workers(&mut world, &[4, 5]);
    world.settle();
    every_host_was_reset(&world, &before, TO);
}

/// The limit that the template has by then counts for workers that are drained, too.
#[test]
fn a_drain_has_the_limit_of_the_template() {
    let mut world = running();
    world.templates.get_mut("base-v1").unwrap().spec.timeouts.drain = from(json!("7m"));
    world.revision += 1;
    until_worker(&mut world, "host 4 (target-4) is drained and reset");
    let leaving = |world: &World| {
        let machines = world.machines.values().map(|machine| &machine.record);
        machines.filter(|machine| machine.server() == Some("target-4")).find_map(|machine| {
            machine.metadata.deletion_timestamp.as_ref()?;
            Some(machine.spec.deletion.node_drain_timeout_seconds)
        })
    };
    for _ in 0..50 {
        if leaving(&world).is_some() {
            break;
        }
        assert!(world.machine_is_taken_down(0));
    }
    assert_eq!(leaving(&world), Some(None));
    world.reconcile("one");
    assert_eq!(leaving(&world), Some(Some(420)));
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
}

#[test]
fn what_a_rolling_upgrade_cannot_do_is_refused() {
    let refused = |mut world: World, words: &str| {
        let before = machines(&world);
        ask_for(&mut world, TO);
        world.settle();
        assert_eq!(world.state("one"), Some(Failed));
        says(&world, &format!("k8sVersion cannot change from v1.35.1 to v1.36.1: {words}"));
        assert_eq!(machines(&world), before);
        ask_for(&mut world, FROM);
        world.settle();
        assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    };
    let rolling = json!({"strategy": "Rolling"});
    let bundle = json!({"method": "bundle", "bundle": {"repo": "registry.example.org/byoh"}});
    let installer = json!({"method": "installer"});
    refused(
        running_on(ByohVariant::Upstream, &installer, &rolling, &[1]),
        "with spec.upgrade.strategy Rolling of ClusterTemplate base-v1 each master is reset, and this cluster would not outlive that: it has 1 of them, and \
         needs 3; set strategy InPlace there, or first have 3 masters in hosts.masters, or set k8sVersion back to v1.35.1",
    );
    refused(
        running_on(ByohVariant::Platform9, &bundle, &rolling, &[1]),
        "with spec.upgrade.strategy Rolling of ClusterTemplate base-v1 each master is reset, and this cluster would not outlive that: it has 1 of them, and \
         needs 3; first have 3 masters in hosts.masters, or set k8sVersion back to v1.35.1",
    );
    refused(
        running_with(ByohVariant::Platform9, &bundle, &json!({})),
        "only clusters with install.method installer can be upgraded in place; set spec.upgrade.strategy Rolling in ClusterTemplate base-v1, which resets \
         one server after the other, or set k8sVersion back to v1.35.1",
    );
    refused(
        running_with(ByohVariant::Upstream, &json!({"method": "none"}), &rolling),
        "with install.method none nothing installs another version on the hosts; set k8sVersion back to v1.35.1",
    );
}

#[test]
fn a_rolling_upgrade_waits_for_a_healthy_cluster() {
    type Change = fn(&mut World);
    let sick: [(Change, &str); 3] = [
        (|world| node_is_not_ready(world, 5), "waits: the node of host 5 (target-5) is not Ready"),
        (
            |world| {
                world.edit_control_planes(|object| {
                    let told = json!({"type": "EtcdClusterHealthy", "status": "False", "reason": "NotHealthy", "message": "member-1"});
                    object.status.conditions.push(from(told));
                });
            },
            "waits: EtcdClusterHealthy of KubeadmControlPlane core-control-plane: NotHealthy: member-1",
        ),
        (
            |world| {
                world.hosts.remove("target-4");
                world.revision += 1;
            },
            "waits: host 4 (target-4) is a node, but its ByoHost is gone or is not held",
        ),
    ];
    for (falls_sick, words) in sick {
        let mut world = running();
        let before = machines(&world);
        falls_sick(&mut world);
        ask_for(&mut world, TO);
        world.reconcile("one");
        says(&world, &format!("upgrading to v1.36.1, by resetting one host after the other: {words}"));
        assert_eq!(machines(&world), before);
        assert_eq!(world.control_planes[PLANE].spec.version, FROM);
    }
    let mut world = running();
    ask_for(&mut world, TO);
    until(&mut world, "is to be replaced by Cluster API");
    world.edit_control_planes(|object| {
        let told =
            json!({"type": "EtcdClusterHealthy", "status": "False", "reason": "NotHealthy", "message": "member-1"});
        object.status.conditions.push(from(told));
    });
    world.reconcile("one");
    says(
        &world,
        "is to be replaced by Cluster API; Cluster API waits: EtcdClusterHealthy of KubeadmControlPlane core-control-plane: NotHealthy: member-1",
    );
    let mut world = running();
    until_worker(&mut world, "host 4 (target-4) is drained and reset");
    off(&mut world, 1);
    world.settle();
    says(&world, "host 5 (target-5) waits: the node of host 1 (target-1) is not Ready");
    assert_eq!(machines(&world)["target-5"].1, FROM, "the next one goes beside a node that is not Ready");
}

fn until_worker(world: &mut World, words: &str) {
    ask_for(world, TO);
    until(world, words);
}

fn node_is_not_ready(world: &mut World, number: u32) {
    let host = host_name(number);
    let machine = world.machines.values_mut().find(|machine| machine.record.server() == Some(&host)).unwrap();
    crate::status::set(&mut machine.record.status.conditions, "NodeHealthy", "False", "Sick");
    world.revision += 1;
}

/// A reset would end a renewal of certificates in the middle.
#[test]
fn a_rolling_upgrade_waits_for_jobs() {
    let mut world = running();
    let before = machines(&world);
    let machine = world.hosts["target-2"].machine_name().unwrap().to_owned();
    let id = names::job("snapshot", "monday", &machine, 1);
    world.edit_host("target-2", |host| {
        host.annotations_mut().insert(names::JOB_ANNOTATION.to_owned(), format!("{id} 0"));
    });
    ask_for(&mut world, TO);
    says(
        &world,
        "upgrading to v1.36.1, by resetting one host after the other: waits: host 2 (target-2) has a job (snapshot) that has not ended; if this does not \
         change, systemctl status o2ims-host",
    );
    assert_eq!(machines(&world), before);
    assert_eq!(world.control_planes[PLANE].spec.version, FROM);
    world.settle();
    every_host_was_reset(&world, &before, TO);

    // What somebody has upgraded by hand, or an upgrade has left so.
    let mut world = running();
    let node = world.machines.values_mut().find(|machine| machine.record.server() == Some("target-2")).unwrap();
    "v1.35.2".clone_into(&mut node.record.status.node_info.kubelet_version);
    world.revision += 1;
    ask_for(&mut world, TO);
    world.reconcile("one");
    says(
        &world,
        "waits: the upgrade of target-2 has been left halfway, or it runs another version of Kubernetes than the control plane; to upgrade it without a \
         reset, set spec.upgrade.strategy InPlace in ClusterTemplate base-v1",
    );
    assert_eq!(world.control_planes[PLANE].spec.version, FROM);
}

/// A copy of the request from a backup is no consent to reset anything.
#[test]
fn a_restored_request_resets_nothing() {
    let mut world = running();
    let before = machines(&world);
    let mut backup = world.requests.remove("one").unwrap();
    backup.spec.template_parameters.k8s_version = Some(TO.to_owned());
    backup.spec.template_parameters.hosts.as_mut().unwrap().workers = from(host_refs(&[4]));
    world.submit(backup);
    let restored = world.requests.get_mut("one").unwrap();
    restored.metadata.uid = Some("another-uid".to_owned());
    restored.status = None;
    world.settle();
    says(
        &world,
        "upgrading to v1.36.1, by resetting one host after the other: waits: this request was restored and does not name host 5 (target-5), which its cluster \
         uses; no host is removed until it names them once",
    );
    assert_eq!(machines(&world), before);
    assert_eq!(world.control_planes[PLANE].spec.version, FROM);
    world.edit_request("one", |one| {
        one.spec.template_parameters.hosts.as_mut().unwrap().workers = from(host_refs(&[4, 5]));
    });
    world.settle();
    every_host_was_reset(&world, &before, TO);
}

/// A worker that is added is waited for; a host that does not become a node again is told in its words, and in time.
#[test]
fn a_host_that_does_not_come_back_is_told_as_at_a_creation() {
    let mut world = running();
    until_worker(&mut world, "host 4 (target-4) is drained and reset");
    until(&mut world, "host 4 (target-4): waits");
    world.sick.insert(host_name(4));
    until(&mut world, "host 4 (target-4): its agent");
    assert_eq!(world.state("one"), Some(Progressing));
    let left = world.assess("one").recheck.unwrap();
    world.second += i64::try_from(left.as_secs()).unwrap();
    world.reconcile("one");
    assert_eq!(world.state("one"), Some(Failed));
    says(
        &world,
        "s exceeded (spec.timeouts.workers of the ClusterTemplate): upgrading to v1.36.1, by resetting one host after the other: host 4 (target-4): its agent",
    );
    assert_eq!(machines(&world)["target-5"].1, FROM, "the next one goes all the same");
    world.sick.clear();
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
}

#[test]
fn a_worker_that_is_added_is_waited_for() {
    let mut world = running();
    world.edit_request("one", |one| {
        let hosts = one.spec.template_parameters.hosts.as_mut().unwrap();
        hosts.workers = from(host_refs(&[4, 5, 6]));
    });
    world.reconcile("one");
    ask_for(&mut world, TO);
    until(&mut world, "waits: host 6 (target-6) is no node yet");
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert!(machines(&world).values().all(|(_, version)| version == TO));
}

#[test]
fn a_rolling_upgrade_waits_where_its_template_says_so() {
    for (pause_after, waiting) in [("ControlPlane", "target-4"), ("EachHost", "target-4")] {
        let upgrade = json!({"strategy": "Rolling", "pauseAfter": pause_after});
        let mut world = running_with(ByohVariant::Upstream, &json!({"method": "installer"}), &upgrade);
        ask_for(&mut world, TO);
        world.settle();
        says(
            &world,
            &format!(
                "host 4 ({waiting}) waits: spec.upgrade.pauseAfter of the ClusterTemplate is {pause_after}; to go on"
            ),
        );
        let versions: Vec<_> = machines(&world).into_values().map(|(_, version)| version).collect();
        assert_eq!(versions, [TO, TO, TO, FROM, FROM]);
        world.edit_request("one", |one| {
            one.annotations_mut().insert(names::CONTINUE_ANNOTATION.to_owned(), format!("{TO}/{waiting}"));
        });
        world.settle();
        says(&world, "host 5 (target-5) waits: spec.upgrade.pauseAfter");
        world.edit_request("one", |one| {
            one.annotations_mut().insert(names::CONTINUE_ANNOTATION.to_owned(), TO.to_owned());
        });
        world.settle();
        assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    }
}

#[test]
fn several_versions_are_taken_one_after_the_other() {
    let upgrade = json!({"strategy": "Rolling", "versions": [TO]});
    let mut world = running_with(ByohVariant::Upstream, &json!({"method": "installer"}), &upgrade);
    let before = machines(&world);
    ask_for(&mut world, "v1.37.1");
    until(&mut world, "upgrading to v1.36.1, by resetting one host after the other: host 5 (target-5)");
    until(&mut world, "upgrading to v1.37.1, by resetting one host after the other: host 1 (target-1)");
    world.settle();
    every_host_was_reset(&world, &before, "v1.37.1");
}

/// Each reset is in the plan, and none happens before its word.
#[test]
fn a_plan_names_every_reset() {
    let upgrade = json!({"strategy": "Rolling", "versions": [TO]});
    let mut world = running_with(ByohVariant::Upstream, &json!({"method": "installer"}), &upgrade);
    let before = machines(&world);
    let annotate = |world: &mut World, value: Option<&str>| {
        world.edit_request("one", |one| {
            match value {
                Some(value) => one.annotations_mut().insert(names::PLAN_ANNOTATION.to_owned(), value.to_owned()),
                None => one.annotations_mut().remove(names::PLAN_ANNOTATION),
            };
        });
    };
    annotate(&mut world, Some("true"));
    ask_for(&mut world, TO);
    world.settle();
    let plan = status(&world).extensions.plan;
    let told = |role: &str| {
        format!(
            "its node is drained and removed from the cluster, the server is reset, and becomes a {role} again with Kubernetes v1.36.1 instead of v1.35.1; \
             local data of its pods is lost"
        )
    };
    let plan: Vec<_> = plan.into_iter().map(|change| (change.host_name, change.action, change.message)).collect();
    let wanted = (1..=5)
        .map(|number| (host_name(number), "Reinstall".to_owned(), told(if number > 3 { "worker" } else { "master" })));
    assert_eq!(plan, wanted.collect::<Vec<_>>());
    ask_for(&mut world, "v1.37.1");
    says(
        &world,
        "with Kubernetes v1.37.1 instead of v1.35.1; local data of its pods is lost; the same before, for v1.36.1",
    );
    assert_eq!(machines(&world), before);
    annotate(&mut world, None);
    world.settle();
    every_host_was_reset(&world, &before, "v1.37.1");
}

/// A pause of the request stops everything that the operator does, and nothing is lost by it.
#[test]
fn a_rolling_upgrade_can_be_paused_edited_and_deleted() {
    for steps in (0..200).step_by(9) {
        let mut world = running();
        let before = machines(&world);
        ask_for(&mut world, TO);
        go_on(&mut world, steps);
        world.edit_request("one", |one| {
            one.annotations_mut().insert(names::PAUSED_ANNOTATION.to_owned(), String::new());
        });
        world.settle();
        assert!(world.reconcile("one").is_empty(), "after {steps}");
        world.edit_request("one", |one| drop(one.annotations_mut().remove(names::PAUSED_ANNOTATION)));
        world.settle();
        every_host_was_reset(&world, &before, TO);

        let mut world = running();
        ask_for(&mut world, "v1.35.5");
        go_on(&mut world, steps);
        ask_for(&mut world, FROM);
        world.settle();
        assert_eq!(world.state("one"), Some(Fulfilled), "after {steps}: {}", world.message("one"));
        assert!(machines(&world).values().all(|(_, version)| version == FROM), "after {steps}");

        let mut world = running();
        ask_for(&mut world, TO);
        go_on(&mut world, steps);
        world.delete_request("one");
        world.settle();
        assert!(world.requests.is_empty() && world.clusters.is_empty(), "after {steps}");
    }
}

/// A worker without its MachineDeployment is replaced too, and none that the request does not name any more.
#[test]
fn a_worker_without_its_deployment_is_replaced_too() {
    let mut world = running();
    let before = machines(&world);
    world.vanish(cluster_api::Kind::MachineDeployment, "core-worker-target-5");
    ask_for(&mut world, TO);
    world.settle();
    every_host_was_reset(&world, &before, TO);
}

// Hosts that an upgrade passes over.

fn off(world: &mut World, number: u32) {
    let at = world.hosts.keys().position(|name| *name == host_name(number)).unwrap();
    assert!(world.server_dies(at));
}

/// The second of three masters dies for good when the first one is upgraded. Its owner calls it lost, the others are upgraded, and it is exchanged.
#[test]
fn a_master_that_dies_in_an_upgrade_is_passed_over_and_exchanged() {
    let mut world = in_place();
    let before = machines(&world);
    ask_for(&mut world, TO);
    until(&mut world, "upgrading v1.35.1 to v1.36.1: host 2 (target-2): has its job");
    off(&mut world, 2);
    world.edit_control_planes(|object| {
        let told =
            json!({"type": "EtcdClusterHealthy", "status": "False", "reason": "NotHealthy", "message": "target-2"});
        object.status.conditions.push(from(told));
    });
    world.settle();
    let advice = "; if target-2 does not come back, switch it off, then have the upgrade pass over it: kubectl annotate pr one -n site-a \
                  o2ims.provisioning.oran.org/lost-hosts=target-2 --overwrite";
    says(&world, advice);
    assert_eq!(machines(&world)["target-3"].1, FROM);
    let exchange = |world: &mut World| {
        world.edit_request("one", |one| {
            one.spec.template_parameters.hosts.as_mut().unwrap().masters = from(host_refs(&[1, 6, 3]));
        });
    };
    // Before that the masters stay as they are.
    exchange(&mut world);
    world.reconcile("one");
    says(&world, "is being upgraded, or runs another version of Kubernetes than the control plane");
    world.edit_request("one", |one| {
        one.spec.template_parameters.hosts.as_mut().unwrap().masters = from(host_refs(&[1, 2, 3]));
    });
    world.call_lost("one", "target-2");
    until(&mut world, "; passed over, by annotation o2ims.provisioning.oran.org/lost-hosts: target-2");
    world.settle();
    assert_eq!(is_upgraded(&world).as_deref(), Some("True"), "{}", world.message("one"));
    let now = machines(&world);
    assert!(now.iter().all(|(host, (uid, version))| before[host].0 == *uid && version == TO), "{now:?}");
    says(&world, "host 2 (target-2): its node is not Ready since");
    exchange(&mut world);
    world.edit_control_planes(|object| object.status.conditions.retain(|told| told.type_ != "EtcdClusterHealthy"));
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    let after = machines(&world);
    assert_eq!(after.keys().collect::<Vec<_>>(), ["target-1", "target-3", "target-4", "target-5", "target-6"]);
    assert!(after.iter().filter(|(host, _)| *host != "target-6").all(|(host, (uid, _))| before[host].0 == *uid));
    assert!(after.values().all(|(_, version)| version == TO));
    assert!(world.hosts["target-2"].labels().contains_key(names::LOST_LABEL));
}

/// A master that comes back is upgraded too; one that is well is not passed over, whatever its owner says; nor is the only one.
#[test]
fn only_what_is_dead_is_passed_over() {
    let mut world = in_place();
    world.call_lost("one", "target-2");
    ask_for(&mut world, TO);
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    let runs = |world: &World| {
        let kubelets = world.machines.values().map(|machine| &machine.record.status.node_info.kubelet_version);
        kubelets.cloned().collect::<Vec<_>>()
    };
    assert_eq!(runs(&world), [TO; 5]);

    let mut world = in_place();
    ask_for(&mut world, TO);
    until(&mut world, "upgrading v1.35.1 to v1.36.1: host 2 (target-2): has its job");
    off(&mut world, 2);
    world.call_lost("one", "target-2");
    world.settle();
    assert_eq!(is_upgraded(&world).as_deref(), Some("True"), "{}", world.message("one"));
    while world.agent_recovers(0) {}
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert_eq!(runs(&world), [TO; 5]);

    // It dies before it has a job, so that none tells that it is behind.
    let mut world = in_place();
    off(&mut world, 2);
    world.call_lost("one", "target-2");
    ask_for(&mut world, TO);
    world.settle();
    assert_eq!(is_upgraded(&world).as_deref(), Some("True"), "{}", world.message("one"));
    let mut kubelets = runs(&world);
    kubelets.sort_unstable();
    assert_eq!(kubelets, [FROM, TO, TO, TO, TO]);
    assert!(!world.hosts["target-2"].annotations().contains_key(names::JOB_ANNOTATION));
    while world.agent_recovers(0) {}
    until(&mut world, "upgrading v1.35.1 to v1.36.1: host 2 (target-2): has its job");
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert_eq!(runs(&world), [TO; 5]);

    let mut world = running_on(ByohVariant::Upstream, &json!({"method": "installer"}), &json!({}), &[1]);
    off(&mut world, 1);
    world.call_lost("one", "target-1");
    ask_for(&mut world, TO);
    world.settle();
    assert_eq!(world.state("one"), Some(Progressing));
    assert_eq!(machines(&world)["target-1"].1, FROM);
    assert!(!world.message("one").contains("passed over"), "{}", world.message("one"));
}

/// A worker that dies is passed over, or taken out by an edit, in the middle of an upgrade of either kind.
#[test]
fn a_worker_that_dies_in_an_upgrade_is_passed_over_or_taken_out() {
    for (start, is_edited) in [(in_place as fn() -> World, false), (in_place, true), (running, false), (running, true)]
    {
        let mut world = start();
        ask_for(&mut world, TO);
        until(&mut world, "upgrading");
        go_on(&mut world, 6);
        off(&mut world, 4);
        world.settle();
        assert_eq!(world.state("one"), Some(Progressing), "{}", world.message("one"));
        world.call_lost("one", "target-4");
        if is_edited {
            world.edit_request("one", |one| {
                one.spec.template_parameters.hosts.as_mut().unwrap().workers = from(host_refs(&[5]));
            });
        }
        world.settle();
        assert_eq!(is_upgraded(&world).as_deref(), Some("True"), "{}", world.message("one"));
        let now = machines(&world);
        let (others, dead): (Vec<_>, Vec<_>) = now.iter().partition(|(host, _)| *host != "target-4");
        assert!(others.iter().all(|(_, (_, version))| version == TO), "{now:?}");
        assert_eq!(dead.len(), usize::from(!is_edited));
        if !is_edited {
            says(&world, "host 4 (target-4): its node is not Ready since");
            while world.agent_recovers(0) {}
            world.edit_request("one", |one| drop(one.annotations_mut().remove(names::LOST_HOSTS_ANNOTATION)));
            world.settle();
        }
        assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    }
}
