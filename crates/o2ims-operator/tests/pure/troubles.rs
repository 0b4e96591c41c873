//! What the user of a request is told of troubles of hosts, Machines and parts of a cluster, each in the world where it comes up.

use cluster_api::Kind;
use cluster_api::byoh::ByohVariant;
use cluster_api::labels::{CLUSTER_NAME_LABEL, PAUSED_ANNOTATION};
use kube::ResourceExt as _;
use o2ims_types::names;
use serde_json::{Value, json};

use crate::model::{World, from, request};
use crate::status::{BEGINS, bootstrapping, deleting_condition, on_machine, running, status, world};

fn says(world: &World, words: &str) {
    let message = world.message("one");
    assert!(message.contains(words), "{message:?} has no {words:?}");
}

fn deleted_now<K: kube::Resource>(object: &mut K) {
    object.meta_mut().deletion_timestamp = Some(from(json!("2026-01-01T00:00:00Z")));
}

#[test]
fn each_install_method_says_what_its_agent_waits_for() {
    for (install, words) in [
        (json!({"method": "installer"}), "its agent waits for the install script"),
        (
            json!({"method": "none"}),
            "its agent waits for an installer; with install.method none it has to be started with --skip-installation",
        ),
        (
            json!({"method": "bundle", "bundle": {"repo": "r"}}),
            "its agent waits for BYOH's install script, which BYOH makes for the systems of its bundles only; this is Ubuntu 22.04.4 LTS",
        ),
    ] {
        let is_installer = install["method"] == "installer";
        let mut world = World::new(ByohVariant::Platform9, json!({"install": install}), 4);
        world.submit(request("one", "core", &[1], &[2]));
        for _ in 0..6 {
            world.reconcile("one");
        }
        for happens in BEGINS {
            while happens(&mut world, 0) {}
        }
        let lacks: Value = json!({"type": "K8sComponentsInstallationSucceeded", "status": "False", "reason": "K8sInstallationSecretUnavailable"});
        world.edit_host("target-1", |host| {
            host.spec.installation_secret = None;
            host.status.conditions.push(from(lacks));
        });
        let told = world.assess("one").status.provisioning_status.provisioning_message;
        assert_eq!(told, format!("host 1 (target-1): {words}"));
        if is_installer {
            world.reconcile("one");
            world.reconcile("one");
            says(&world, "its agent has been given the install script and has not reported back yet");
        }
    }
}

#[test]
fn a_host_without_its_machine_is_being_attached() {
    let mut world = world(ByohVariant::Platform9);
    for _ in 0..6 {
        world.reconcile("one");
    }
    world.edit_host("target-1", |host| {
        host.labels_mut().insert(CLUSTER_NAME_LABEL.to_owned(), "core".to_owned());
    });
    world.reconcile("one");
    assert_eq!(status(&world).extensions.hosts[0].message, "is being attached to its machine");
}

#[test]
fn a_master_that_lost_its_token_says_what_to_do() {
    let mut world = bootstrapping(ByohVariant::Platform9);
    world.edit_host("target-1", |host| {
        let words = "kubeadm join: couldn't validate the identity of the API Server: token id unknown".to_owned();
        host.annotations_mut().insert(names::FAILURE_ANNOTATION.to_owned(), words);
        host.status.conditions.retain(|condition| condition.type_ != "K8sNodeBootstrapSucceeded");
        let failed = json!({"type": "K8sNodeBootstrapSucceeded", "status": "False", "severity": "Error"});
        host.status.conditions.push(from(failed));
    });
    world.reconcile("one");
    says(&world, "cannot connect to the cluster. Then delete Machine core-control-plane");
    assert!(world.message("one").ends_with("; Cluster API creates another one"), "{}", world.message("one"));
}

#[test]
fn a_drain_that_failed_is_told_in_cluster_apis_words() {
    let mut world = running();
    on_machine(&mut world, "worker", |machine| {
        deleted_now(machine);
        let failed = "Error draining Node, please check controller logs for errors";
        machine.status.conditions.push(deleting_condition("DrainingNode", failed));
    });
    world.reconcile("one");
    says(&world, "; the drain of its node failed: Error draining Node, please check controller logs for errors");
}

#[test]
fn of_several_masters_each_is_to_be_looked_at() {
    let mut world = World::new(ByohVariant::Platform9, json!({}), 4);
    let mut three = request("one", "core", &[1, 2, 3], &[]);
    three.spec.template_parameters.control_plane_endpoint = Some(from(json!({"host": "10.0.0.100", "port": 6443})));
    world.submit(three);
    world.settle();
    says(&world, "cluster is ready: 3 masters, 0 workers");
    world.edit_control_planes(|object| object.status.counts.ready_replicas = 2);
    world.reconcile("one");
    says(
        &world,
        "2 of 3 replicas ready; if this does not change, check that every master is up and that the cluster's API answers at 10.0.0.100:6443",
    );
}

#[test]
fn a_pause_delays_the_deletion_of_a_cluster() {
    let mut world = running();
    assert!(world.cluster_is_deleted_by_hand(0));
    world.edit_cluster("core", |cluster| cluster.spec.paused = true);
    world.reconcile("one");
    says(
        &world,
        "; Cluster core is being deleted, not by this operator: the deletion continues when the pause is removed",
    );
}

#[test]
fn a_part_that_is_deleted_too_early_says_what_follows() {
    let creating = || {
        let mut world = world(ByohVariant::Upstream);
        for _ in 0..20 {
            let Some(mut flight) = world.begin("one") else { continue };
            while world.byo_clusters.is_empty() && world.step(&mut flight).unwrap() {}
            if !world.byo_clusters.is_empty() {
                break;
            }
            world.finish(&flight);
        }
        world
    };
    let mut world = creating();
    world.byo_clusters.values_mut().for_each(deleted_now);
    world.reconcile("one");
    says(
        &world,
        "is being deleted, not by this operator, before the creation of Cluster core has finished. No node runs yet; this operator deletes the \
         Cluster and creates it again",
    );
    let mut world = creating();
    world.edit_cluster("core", |cluster| {
        deleted_now(cluster);
        cluster.annotations_mut().insert(names::CLEANING_ANNOTATION.to_owned(), "true".to_owned());
    });
    world.reconcile("one");
    says(
        &world,
        "Cluster core is being deleted, because a part of it was deleted, not by this operator, before its creation had finished",
    );
    let mut world = creating();
    world.edit_cluster("core", deleted_now);
    world.reconcile("one");
    says(
        &world,
        "Cluster core is being deleted, not by this operator, before its creation has finished; this operator creates it again",
    );
}

#[test]
fn a_control_plane_that_is_being_deleted_is_told() {
    let mut world = running();
    world.edit_control_planes(deleted_now);
    world.reconcile("one");
    says(
        &world,
        "KubeadmControlPlane core-control-plane is being deleted, not by this operator. This cannot be undone",
    );
}

#[test]
fn what_is_left_of_a_lost_cluster_is_told() {
    let lost = |happens: fn(&mut World)| {
        let mut world = running();
        assert!(world.cluster_vanishes(0));
        happens(&mut world);
        world.reconcile("one");
        world
    };
    let without_marks = lost(|world| {
        for name in ["target-1", "target-2"] {
            world.edit_host(name, |host| {
                host.labels_mut().remove(names::REQUEST_UID_LABEL);
            });
        }
    });
    says(&without_marks, "; its Machines still exist. This operator changes nothing until you decide");
    let paused = lost(|world| {
        world.edit_host("target-1", |host| {
            host.annotations_mut().insert(PAUSED_ANNOTATION.to_owned(), String::new());
        });
    });
    says(&paused, "(paused: host 1 (target-1); BYOH removes that pause when Cluster and Machines exist again)");
    let without_masters = lost(|world| world.edit_control_planes(deleted_now));
    says(
        &without_masters,
        "The deletion of KubeadmControlPlane core-control-plane cannot be undone: it continues as soon as a Cluster of this name exists, and \
         Cluster API then deletes the Machines of these objects. The cluster cannot be kept, so back up what you need",
    );
    let without_worker = lost(|world| world.deployments.values_mut().for_each(deleted_now));
    says(
        &without_worker,
        "To keep the rest of the cluster, back up what you need from the servers of these Machines, then restore the Cluster from a backup",
    );
}

#[test]
fn a_finalizer_of_another_client_on_the_request_is_told() {
    let mut world = running();
    world.requests.get_mut("one").unwrap().finalizers_mut().push("example.com/audit".to_owned());
    world.delete_request("one");
    world.settle();
    assert_eq!(
        world.message("one"),
        "all hosts are released; waiting for finalizers of other clients: example.com/audit"
    );
    assert!(world.made("one-uid").iter().all(|(kind, _)| *kind != Kind::Cluster));
}
