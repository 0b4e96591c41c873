//! Upgrades: what is told at each step, what stops one, and what is refused.

use std::collections::BTreeSet;
use std::path::Path;

use cluster_api::byoh::ByohVariant;
use cluster_api::conditions::Condition;
use cluster_api::labels::PAUSED_ANNOTATION;
use kube::ResourceExt as _;
use o2ims_types::{ProvisioningState, conditions, names};
use operator_kit::write::status::find;
use serde_json::json;

use crate::model::{PROGRESS, World, request};
use crate::status::{on_machine, status};
use ProvisioningState::{Failed, Fulfilled, Progressing};

pub const FROM: &str = "v1.35.1";
pub const TO: &str = "v1.36.1";

/// A master and a worker at [`FROM`], made by install scripts.
fn running() -> World {
    running_with(&json!({}))
}

/// As [`running`], with `spec.upgrade` of its template.
pub fn running_with(upgrade: &serde_json::Value) -> World {
    let spec = json!({"install": {"method": "installer"}, "defaults": {"k8sVersion": FROM}, "upgrade": upgrade});
    let mut world = World::new(ByohVariant::Upstream, spec, 4);
    world.submit(request("one", "core", &[1], &[2]));
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    world
}

pub fn ask_for(world: &mut World, version: &str) {
    let version = version.to_owned();
    world.edit_request("one", |one| one.spec.template_parameters.k8s_version = Some(version));
    world.reconcile("one");
}

pub fn says(world: &World, words: &str) {
    let message = world.message("one");
    assert!(message.contains(words), "{message:?} has no {words:?}");
}

/// One move of a host or of Cluster API.
pub fn go_on_without_the_operator(world: &mut World) {
    PROGRESS.iter().any(|progress| progress(world, 0));
    world.second += 1;
}

/// Lets hosts and Cluster API make so many moves, and the operator go on after each of them.
pub fn go_on(world: &mut World, steps: usize) {
    for _ in 0..steps {
        go_on_without_the_operator(world);
        world.reconcile("one");
    }
}

/// Lets hosts and Cluster API go on, and the operator after each of their moves, until it says so.
pub fn until(world: &mut World, words: &str) {
    for _ in 0..200 {
        if world.message("one").contains(words) {
            return;
        }
        go_on(world, 1);
        crate::rules::check_world(world);
    }
    panic!("never says {words:?}, but {:?}", world.message("one"));
}

#[test]
fn each_step_of_an_upgrade_is_told() {
    let mut world = running();
    let machines: Vec<_> = world.machines.keys().cloned().collect();
    ask_for(&mut world, TO);
    for words in [
        "upgrading to v1.36.1: checking target-1, target-2 and bringing the images there",
        "upgrading v1.35.1 to v1.36.1: host 1 (target-1): has its job",
        "upgrading v1.35.1 to v1.36.1: host 1 (target-1): 2 of 5: kubeadm upgrade",
        "upgrading to v1.36.1: every master runs it",
        "upgrading to v1.36.1: handing KubeadmControlPlane core-control-plane over to Cluster API",
        "upgrading v1.35.1 to v1.36.1: host 2 (target-2): 2 of 5: kubeadm upgrade",
        "upgrading to v1.36.1: host 2 (target-2) runs it",
        "upgrading to v1.36.1: handing MachineDeployment core-worker-target-2 over to Cluster API",
        "cluster is ready: 1 master, 1 worker",
    ] {
        until(&mut world, words);
        let state = if words.starts_with("cluster") { Fulfilled } else { Progressing };
        assert_eq!(world.state("one"), Some(state), "{words}");
    }
    assert_eq!(world.machines.keys().cloned().collect::<Vec<_>>(), machines, "machines were replaced");
    assert_eq!(status(&world).extensions.k8s_version.as_deref(), Some(TO));
    let upgraded = find(&status(&world).conditions, conditions::UPGRADED).map(|told| told.status.clone());
    assert_eq!(upgraded.as_deref(), Some("True"));
    world.settle();
    assert!(world.control_planes["core-control-plane"].annotations().get(PAUSED_ANNOTATION).is_none());
}

/// A host that says nothing is told, and so is a node whose version Cluster API has not seen.
#[test]
fn what_an_upgrade_waits_for_is_told() {
    let mut world = running();
    ask_for(&mut world, TO);
    until(&mut world, "host 1 (target-1): has its job");
    world.reconcile("one");
    says(
        &world,
        "has its job and has not reported yet; if this does not change, systemctl status o2ims-host on the host says why",
    );
    until(&mut world, "2 of 5");
    let job = world.hosts["target-1"].annotations()[names::JOB_ANNOTATION].clone();
    let done = json!({"id": job.split(' ').next(), "state": "Done"}).to_string();
    world.edit_host("target-1", |host| {
        host.annotations_mut().insert(names::JOB_STATUS_ANNOTATION.to_owned(), done);
    });
    world.reconcile("one");
    says(&world, "host 1 (target-1): is done; waiting for Cluster API to see the node's version");
}

/// A version that is changed before the cluster is there is upgraded to when it is.
#[test]
fn a_cluster_that_is_not_there_yet_is_created_first() {
    for steps in 0..40 {
        let spec = json!({"install": {"method": "installer"}});
        let mut world = World::new(ByohVariant::Upstream, spec, 4);
        let mut one = request("one", "core", &[1], &[2]);
        one.spec.template_parameters.k8s_version = Some(FROM.to_owned());
        world.submit(one);
        go_on(&mut world, steps);
        ask_for(&mut world, TO);
        world.settle();
        assert_eq!(world.state("one"), Some(Fulfilled), "after {steps}: {}", world.message("one"));
        let versions = world.machines.values().map(|machine| machine.record.status.node_info.kubelet_version.as_str());
        assert_eq!(versions.collect::<Vec<_>>(), [TO, TO], "after {steps}");
    }
}

/// Where no policy refuses it, the version can be taken away in the middle: what was begun is told, and nothing goes on by itself.
#[test]
fn an_upgrade_that_is_left_halfway_is_told() {
    let mut world = running();
    ask_for(&mut world, TO);
    until(&mut world, "host 2 (target-2): 2 of 5");
    world.edit_request("one", |one| one.spec.template_parameters.k8s_version = None);
    world.settle();
    assert_eq!(world.state("one"), Some(Progressing));
    says(
        &world,
        "the upgrade was left halfway, and hosts run different versions; set k8sVersion to the version that is wanted",
    );
    ask_for(&mut world, TO);
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
}

/// A worker that is added later, and fails its checks, does not make anybody believe that nothing was changed.
#[test]
fn a_check_that_fails_later_does_not_say_that_nothing_was_changed() {
    let mut world = running();
    ask_for(&mut world, TO);
    until(&mut world, "every master runs it");
    until(&mut world, "host 2 (target-2): has its job");
    world.edit_host("target-2", |host| {
        host.annotations_mut().remove(names::JOB_ANNOTATION);
        host.annotations_mut().remove(names::JOB_STATUS_ANNOTATION);
    });
    world.reconcile("one");
    world.job_fails(0);
    world.reconcile("one");
    says(&world, "the upgrade to v1.36.1 does not go on: host 2 (target-2): ");
}

/// A kubelet that somebody has changed by hand is told, and is not changed back.
#[test]
fn a_kubelet_that_was_changed_by_hand_is_left_alone() {
    let mut world = running();
    ask_for(&mut world, TO);
    world.settle();
    on_machine(&mut world, "worker", |machine| {
        "v1.36.9".clone_into(&mut machine.status.node_info.kubelet_version);
    });
    world.revision += 1;
    world.reconcile("one");
    says(&world, "its node runs Kubernetes v1.36.9, the cluster has v1.36.1");
    assert!(world.hosts["target-2"].annotations()[names::JOB_ANNOTATION].starts_with("upgrade-v1.36.1-"));
}

/// A pause that a user has set is neither replaced nor removed.
#[test]
fn a_pause_of_a_user_stops_an_upgrade() {
    for (part, words) in [("core-control-plane", "KubeadmControlPlane"), ("core-worker-target-2", "MachineDeployment")]
    {
        let mut world = running();
        ask_for(&mut world, TO);
        let pause = |annotations: &mut std::collections::BTreeMap<String, String>| {
            annotations.insert(PAUSED_ANNOTATION.to_owned(), String::new());
        };
        until(&mut world, "2 of 5");
        if words == "MachineDeployment" {
            pause(world.deployments.get_mut(part).unwrap().annotations_mut());
        } else {
            pause(world.control_planes.get_mut(part).unwrap().annotations_mut());
        }
        world.revision += 1;
        world.settle();
        says(&world, "paused: ");
        let annotations = match words {
            "MachineDeployment" => world.deployments[part].annotations(),
            _ => world.control_planes[part].annotations(),
        };
        assert_eq!(annotations.get(PAUSED_ANNOTATION).map(String::as_str), Some(""), "{words}");
    }
}

/// A cluster that stays when its request is deleted is whole then.
#[test]
fn a_cluster_that_is_kept_is_not_left_half_adopted() {
    for steps in 0..60 {
        let mut world = running();
        ask_for(&mut world, TO);
        go_on(&mut world, steps);
        world.edit_request("one", |one| one.finalizers_mut().push(names::ORPHAN_FINALIZER.to_owned()));
        world.delete_request("one");
        world.settle();
        let pauses =
            world.control_planes.values().filter(|object| object.annotations().contains_key(PAUSED_ANNOTATION));
        assert_eq!(pauses.count(), 0, "after {steps}");
        assert_eq!(world.machines.len(), 2, "after {steps}");
    }
}

#[test]
fn a_node_without_its_host_is_told() {
    let mut world = running();
    ask_for(&mut world, TO);
    until(&mut world, "2 of 5");
    world.hosts.remove("target-2");
    world.revision += 1;
    world.reconcile("one");
    says(&world, "upgrading to v1.36.1: waits: host 2 (target-2) is a node, but its ByoHost is gone or is not held");
}

/// The next host is not begun while the cluster could not do without it.
#[test]
fn an_upgrade_waits_for_a_healthy_cluster() {
    type Change = fn(&mut World);
    let sick: [(Change, &str); 3] = [
        (
            |world| {
                world.edit_control_planes(|object| {
                    let told = json!({"type": "EtcdClusterHealthy", "status": "False", "reason": "NotHealthy", "message": "member-1"});
                    object.status.conditions.push(serde_json::from_value::<Condition>(told).unwrap());
                });
            },
            "waits: EtcdClusterHealthy of KubeadmControlPlane core-control-plane: NotHealthy: member-1",
        ),
        (
            |world| {
                on_machine(world, "worker", |machine| {
                    crate::status::set(&mut machine.status.conditions, "NodeHealthy", "False", "Sick");
                });
                world.revision += 1;
            },
            "waits: the node of host 2 (target-2) is not Ready",
        ),
        (
            |world| {
                let told = json!({"type": "RemoteConnectionProbe", "status": "False", "reason": "ProbeFailed",
                    "message": "Remote connection probe failed, probe last succeeded at noon"});
                world.edit_cluster("core", |cluster| {
                    cluster.status.conditions.push(serde_json::from_value(told).unwrap());
                });
            },
            "waits: Cluster API cannot connect to the cluster: ProbeFailed",
        ),
    ];
    for (falls_sick, words) in sick {
        let mut world = running();
        ask_for(&mut world, TO);
        falls_sick(&mut world);
        for _ in 0..4 {
            world.host_runs_its_job(0);
            world.host_runs_its_job(1);
        }
        world.reconcile("one");
        says(&world, words);
        let jobs = world.hosts.values().filter_map(|host| host.annotations().get(names::JOB_ANNOTATION));
        assert!(jobs.into_iter().all(|job| job.starts_with("preflight-")), "{words}");
    }
}

#[test]
fn a_failed_job_stops_the_upgrade_until_its_owner_says_so() {
    let mut world = running();
    ask_for(&mut world, TO);
    world.host_runs_its_job(0);
    world.job_fails(0);
    world.reconcile("one");
    assert_eq!(world.state("one"), Some(Failed));
    says(&world, "the upgrade to v1.36.1 has not begun, and no host was changed: host 1 (target-1): 2 of 5");
    says(
        &world,
        ". Mend the cause, then try again: kubectl annotate pr one -n site-a o2ims.provisioning.oran.org/retry=preflight-v1.36.1-",
    );
    world.settle();
    assert_eq!(world.state("one"), Some(Failed), "goes on by itself");
    world.speak_the_words();
    until(&mut world, "upgrading v1.35.1 to v1.36.1: host 1 (target-1): 2 of 5");
    world.job_fails(0);
    world.reconcile("one");
    says(&world, "the upgrade to v1.36.1 has stopped at host 1 (target-1): 2 of 5");
    world.speak_the_words();
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
}

#[test]
fn hosts_without_the_unit_are_told_before_anything_is_done() {
    let mut world = running();
    world.edit_host("target-2", |host| {
        host.annotations_mut().remove(names::HOST_UNIT_ANNOTATION);
    });
    ask_for(&mut world, TO);
    says(&world, "the upgrade cannot begin: the unit o2ims-host does not report from host 2 (target-2)");
    assert!(world.hosts.values().all(|host| !host.annotations().contains_key(names::JOB_ANNOTATION)));
}

#[test]
fn what_kubernetes_cannot_do_is_refused() {
    let refused = |world: &mut World, version: &str, words: &str| {
        ask_for(world, version);
        assert_eq!(world.state("one"), Some(Failed), "{version}");
        says(world, words);
        assert!(world.hosts.values().all(|host| !host.annotations().contains_key(names::JOB_ANNOTATION)));
    };
    let mut world = running();
    refused(
        &mut world,
        "v1.37.1",
        "k8sVersion cannot change from v1.35.1 to v1.37.1: Kubernetes is upgraded by one minor version at a time; \
         add a v1.36 to spec.upgrade.versions of the ClusterTemplate, set k8sVersion to a v1.36 first, or back to v1.35.1",
    );
    refused(
        &mut world,
        "v1.34.1",
        "Kubernetes has no way back to an older minor version; set k8sVersion back to v1.35.1",
    );
    world.edit_control_planes(|object| "new".clone_into(&mut object.spec.version));
    refused(&mut world, TO, "k8sVersion cannot change from new to v1.36.1: one of them is no version");

    let mut world = running();
    ask_for(&mut world, TO);
    until(&mut world, "every master runs it");
    ask_for(&mut world, FROM);
    assert_eq!(world.state("one"), Some(Progressing), "what has begun is finished first");
    let mut world = running();
    ask_for(&mut world, "v1.35.5");
    until(&mut world, "2 of 5");
    ask_for(&mut world, "v1.35.6");
    says(&world, "upgrading to v1.35.6: checking host 1 (target-1)");
    let mut world = running();
    ask_for(&mut world, TO);
    until(&mut world, "2 of 5");
    world.host_runs_its_job(0);
    ask_for(&mut world, "v1.35.5");
    says(
        &world,
        "host target-1 runs v1.36.1 already, and Kubernetes has no way back to an older minor version; set k8sVersion to v1.36.1",
    );
}

/// Between patch versions there is a way back, also in the middle.
#[test]
fn an_edit_during_an_upgrade_ends_in_the_state_of_the_last() {
    for steps in 0..60 {
        let mut world = running();
        ask_for(&mut world, "v1.35.5");
        go_on(&mut world, steps);
        ask_for(&mut world, FROM);
        world.settle();
        assert_eq!(world.state("one"), Some(Fulfilled), "after {steps}: {}", world.message("one"));
        for machine in world.machines.values() {
            let (record, runs) = (&machine.record, &machine.record.status.node_info.kubelet_version);
            assert_eq!((record.spec.version.as_deref(), runs.as_str()), (Some(FROM), FROM), "after {steps}");
        }
    }
}

/// A restored request that is older than its cluster takes nothing back.
#[test]
fn a_restored_request_does_not_take_an_upgrade_back() {
    let mut world = running();
    ask_for(&mut world, "v1.35.5");
    world.settle();
    world.edit_request("one", |one| one.metadata.uid = Some("restored-uid".to_owned()));
    ask_for(&mut world, FROM);
    world.settle();
    says(
        &world,
        "this request was restored from a backup that is older than its cluster; set k8sVersion back to v1.35.5",
    );
    let versions = world.machines.values().map(|machine| machine.record.status.node_info.kubelet_version.as_str());
    assert_eq!(versions.collect::<Vec<_>>(), ["v1.35.5", "v1.35.5"]);
}

/// A request that is deleted in the middle leaves nothing.
#[test]
fn a_deletion_during_an_upgrade_ends() {
    for steps in 0..60 {
        let mut world = running();
        ask_for(&mut world, TO);
        go_on(&mut world, steps);
        world.delete_request("one");
        world.settle();
        assert!(world.requests.is_empty() && world.clusters.is_empty(), "after {steps}");
        for host in world.hosts.values() {
            assert!(
                host.annotations().keys().all(|key| !key.contains("o2ims")),
                "after {steps}: {:?}",
                host.annotations()
            );
        }
    }
}

/// Every host comes to the version on the way before one goes on from there.
#[test]
fn several_minor_versions_are_taken_one_after_the_other() {
    let mut world = running_with(&json!({"versions": ["v1.36.0", "v1.36.1", "v1.37.4"]}));
    let machines: Vec<_> = world.machines.keys().cloned().collect();
    ask_for(&mut world, "v1.37.1");
    for words in [
        "upgrading to v1.36.1: checking target-1, target-2 and bringing the images there",
        "upgrading v1.35.1 to v1.36.1: host 2 (target-2): 2 of 5: kubeadm upgrade",
        "upgrading to v1.37.1: checking target-1, target-2 and bringing the images there",
        "upgrading v1.36.1 to v1.37.1: host 2 (target-2): 2 of 5: kubeadm upgrade",
    ] {
        until(&mut world, words);
        assert_eq!(world.state("one"), Some(Progressing), "{words}");
    }
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert_eq!(status(&world).extensions.k8s_version.as_deref(), Some("v1.37.1"));
    assert_eq!(world.machines.keys().cloned().collect::<Vec<_>>(), machines, "machines were replaced");
}

#[test]
fn an_upgrade_waits_where_its_template_says_so() {
    let jobs = |world: &World| {
        let jobs = world.hosts.values().filter_map(|host| host.annotations().get(names::JOB_ANNOTATION));
        jobs.filter(|job| job.starts_with("upgrade-")).count()
    };
    for pause_after in ["ControlPlane", "EachHost"] {
        let mut world = running_with(&json!({"pauseAfter": pause_after}));
        ask_for(&mut world, TO);
        world.settle();
        let words = format!(
            "upgrading v1.35.1 to v1.36.1: host 2 (target-2): waits: spec.upgrade.pauseAfter of the ClusterTemplate is {pause_after}; to go on with \
             this host: kubectl annotate pr one -n site-a o2ims.provisioning.oran.org/continue=v1.36.1/target-2 --overwrite; with every host: "
        );
        says(&world, &words);
        assert_eq!((world.state("one"), jobs(&world)), (Some(Progressing), 1), "{pause_after}");
        for (word, goes_on) in [("v1.36.2", false), ("v1.36.1/target-1", false), ("v1.36.1/target-2", true)] {
            world.edit_request("one", |one| {
                one.annotations_mut().insert(names::CONTINUE_ANNOTATION.to_owned(), word.to_owned());
            });
            world.settle();
            assert_eq!(world.state("one") == Some(Fulfilled), goes_on, "{word}: {}", world.message("one"));
        }
    }
}

pub fn annotate(world: &mut World, annotation: &str, value: Option<&str>) {
    world.edit_request("one", |one| {
        match value {
            Some(value) => one.annotations_mut().insert(annotation.to_owned(), value.to_owned()),
            None => one.annotations_mut().remove(annotation),
        };
    });
}

/// Nothing is begun while the request is paused, and what was begun is left in a state that Cluster API keeps.
#[test]
fn a_request_that_is_paused_stays_as_it_is() {
    for steps in 0..60 {
        let mut world = running();
        ask_for(&mut world, TO);
        go_on(&mut world, steps);
        annotate(&mut world, names::PAUSED_ANNOTATION, Some("true"));
        world.settle();
        let pauses = world.control_planes.values().map(|object| object.annotations().contains_key(PAUSED_ANNOTATION));
        assert!(pauses.into_iter().all(|is_paused| !is_paused), "after {steps}");
        assert!(world.reconcile("one").is_empty(), "after {steps}");
        says(
            &world,
            "paused by annotation o2ims.provisioning.oran.org/paused of this request: nothing is changed; to go on: kubectl annotate pr one -n site-a o2ims.provisioning.oran.org/paused-",
        );
        let jobs: Vec<_> =
            world.hosts.values().map(|host| host.annotations().get(names::JOB_ANNOTATION).cloned()).collect();
        world.settle();
        let later: Vec<_> =
            world.hosts.values().map(|host| host.annotations().get(names::JOB_ANNOTATION).cloned()).collect();
        assert_eq!(jobs, later, "after {steps}");
        annotate(&mut world, names::PAUSED_ANNOTATION, None);
        world.settle();
        assert_eq!(world.state("one"), Some(Fulfilled), "after {steps}: {}", world.message("one"));
    }
}

/// A paused request is not deleted either, and says so.
#[test]
fn a_request_that_is_paused_is_not_deleted() {
    let mut world = running();
    annotate(&mut world, names::PAUSED_ANNOTATION, Some(""));
    world.delete_request("one");
    world.settle();
    assert_eq!(world.machines.len(), 2);
    says(&world, "the deletion waits: paused by annotation o2ims.provisioning.oran.org/paused of this request");
    annotate(&mut world, names::PAUSED_ANNOTATION, Some("false"));
    world.settle();
    assert!(world.requests.is_empty() && world.machines.is_empty());
}

/// An only master whose upgrade has failed is brought back to the snapshot that its owner names, and to no other.
#[test]
fn an_only_master_is_brought_back_at_its_owners_word() {
    for (goes_on_how, versions) in [("back", [FROM, FROM]), ("again", [TO, TO])] {
        let mut world = running();
        ask_for(&mut world, TO);
        until(&mut world, "host 1 (target-1): has its job");
        on_machine(&mut world, "control-plane", |machine| TO.clone_into(&mut machine.status.node_info.kubelet_version));
        world.job_fails(0);
        world.reconcile("one");
        let words = "Or go back to v1.35.1 and to the snapshot from before the upgrade, which loses what has changed in the cluster since: kubectl \
                     annotate pr one -n site-a o2ims.provisioning.oran.org/restore-snapshot=v1-before --overwrite";
        says(&world, words);
        for other in ["v0-before", ""] {
            annotate(&mut world, names::RESTORE_SNAPSHOT_ANNOTATION, Some(other));
            world.settle();
            says(&world, words);
        }
        annotate(&mut world, names::RESTORE_SNAPSHOT_ANNOTATION, Some("v1-before"));
        world.reconcile("one");
        says(&world, "bringing host 1 (target-1) back to snapshot v1-before: has its job");
        world.reconcile("one");
        says(&world, "bringing host 1 (target-1) back to snapshot v1-before: has its job and has not reported yet");
        world.job_fails(0);
        world.reconcile("one");
        says(
            &world,
            "bringing host 1 (target-1) back to snapshot v1-before: 2 of 5: kubeadm upgrade. Mend the cause, then try again: ",
        );
        world.speak_the_words();
        until(&mut world, "bringing host 1 (target-1) back to snapshot v1-before: 2 of 5");
        until(
            &mut world,
            "host 1 (target-1) was brought back to snapshot v1-before; set k8sVersion to v1.35.1, or upgrade again: kubectl annotate pr one",
        );
        assert_eq!(world.state("one"), Some(Failed));
        world.settle();
        assert_eq!(world.state("one"), Some(Failed), "goes on by itself");
        if goes_on_how == "back" {
            ask_for(&mut world, FROM);
        } else {
            world.speak_the_words();
        }
        world.settle();
        assert_eq!(world.state("one"), Some(Fulfilled), "{goes_on_how}: {}", world.message("one"));
        let runs = world.machines.values().map(|machine| machine.record.status.node_info.kubelet_version.as_str());
        assert_eq!(runs.collect::<Vec<_>>(), versions, "{goes_on_how}");
        ask_for(&mut world, TO);
        world.settle();
        assert_eq!(world.state("one"), Some(Fulfilled), "{goes_on_how}: {}", world.message("one"));
    }
}

/// The plan of an edit is told host by host, and nothing of it is done.
#[test]
fn a_plan_is_told_and_not_carried_out() {
    let mut world = running();
    annotate(&mut world, names::PLAN_ANNOTATION, Some("true"));
    world.settle();
    says(
        &world,
        "only planned, by annotation o2ims.provisioning.oran.org/plan of this request: no host would be changed",
    );
    world.edit_request("one", |one| {
        let parameters = &mut one.spec.template_parameters;
        parameters.k8s_version = Some(TO.to_owned());
        parameters.hosts.as_mut().unwrap().workers = serde_json::from_value(crate::model::host_refs(&[3])).unwrap();
    });
    world.settle();
    let plan = status(&world).extensions.plan;
    let plan: Vec<_> = plan
        .iter()
        .map(|change| (change.host_name.as_str(), change.action.as_str(), change.message.as_str()))
        .collect();
    assert_eq!(
        plan,
        [
            (
                "target-1",
                "Upgrade",
                "is upgraded in place from v1.35.1 to v1.36.1: the cluster's API does not answer for a minute or two; its pods run on"
            ),
            ("target-3", "Join", "becomes a worker of cluster core with Kubernetes v1.35.1"),
            ("target-2", "Remove", "its node is drained and removed from the cluster; then the server is reset"),
        ]
    );
    says(&world, "the plan is: target-1 is upgraded in place from v1.35.1");
    says(&world, "; to carry it out: kubectl annotate pr one -n site-a o2ims.provisioning.oran.org/plan-");
    assert!(world.hosts.values().all(|host| !host.annotations().contains_key(names::JOB_ANNOTATION)));
    assert_eq!(world.machines.len(), 2);
    annotate(&mut world, names::PLAN_ANNOTATION, None);
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert!(status(&world).extensions.plan.is_empty());
    let hosts: Vec<_> =
        world.machines.values().map(|machine| machine.record.status.node_info.kubelet_version.as_str()).collect();
    assert_eq!(hosts, [TO, TO]);
}

/// What a plan says of other hosts and requests.
#[test]
fn a_plan_says_what_becomes_of_a_host() {
    let workers = |world: &mut World, numbers: &[u32]| {
        let numbers = numbers.to_vec();
        world.edit_request("one", |one| {
            let hosts = one.spec.template_parameters.hosts.as_mut().unwrap();
            hosts.workers = serde_json::from_value(crate::model::host_refs(&numbers)).unwrap();
        });
    };
    let mut world = World::new(ByohVariant::Upstream, json!({"install": {"method": "none"}}), 4);
    world.submit(request("one", "core", &[1], &[2]));
    world.settle();
    workers(&mut world, &[2, 3]);
    world.reconcile("one");
    annotate(&mut world, names::PLAN_ANNOTATION, Some("true"));
    workers(&mut world, &[]);
    world.reconcile("one");
    says(
        &world,
        "target-2 its node is drained and removed from the cluster; the server is not reset (install.method none)",
    );
    says(&world, "target-3 is given back");

    let mut world = running();
    annotate(&mut world, names::PLAN_ANNOTATION, Some("true"));
    world.edit_request("one", |one| {
        one.labels_mut().insert(names::focom::SOURCE_LABEL.to_owned(), "edge".to_owned());
        one.labels_mut().insert(names::focom::SOURCE_NAMESPACE_LABEL.to_owned(), "smo".to_owned());
        let applied = format!("hash+{}=true", names::PLAN_ANNOTATION);
        one.annotations_mut().insert(names::focom::APPLIED_HASH_ANNOTATION.to_owned(), applied);
        one.spec.template_parameters.k8s_version = Some("v1.34.1".to_owned());
    });
    world.reconcile("one");
    let told = find(&status(&world).conditions, conditions::PAUSED).unwrap().message.clone();
    let words = "this request cannot be carried out; to carry it out: at the SMO, kubectl annotate fpr edge -n smo focom.nephio.org/plan-";
    assert!(told.contains(words), "{told}");
    workers(&mut world, &[2]);
    ask_for(&mut world, TO);
    says(&world, "target-2 is upgraded in place from v1.35.1 to v1.36.1: the kubelet is restarted; its pods run on");
}

/// A plan of a deletion, and of a host that changes its role, does not hide what is reset.
#[test]
fn a_plan_hides_no_reset() {
    let mut world = running();
    annotate(&mut world, names::PLAN_ANNOTATION, Some("true"));
    world.edit_request("one", |one| {
        let hosts = one.spec.template_parameters.hosts.as_mut().unwrap();
        hosts.workers = serde_json::from_value(crate::model::host_refs(&[])).unwrap();
        hosts.masters = serde_json::from_value(crate::model::host_refs(&[1])).unwrap();
    });
    world.delete_request("one");
    world.reconcile("one");
    for host in ["target-1", "target-2"] {
        says(&world, &format!("{host} its node is drained and removed from the cluster; then the server is reset"));
    }
    assert_eq!(world.machines.len(), 2);

    let spec = json!({"install": {"method": "installer"}, "defaults": {"k8sVersion": FROM}});
    let mut world = World::new(ByohVariant::Upstream, spec, 4);
    let mut one = request("one", "core", &[1], &[2]);
    one.spec.template_parameters.control_plane_endpoint =
        Some(serde_json::from_value(json!({"host": "10.0.0.100"})).unwrap());
    world.submit(one);
    world.settle();
    annotate(&mut world, names::PLAN_ANNOTATION, Some("true"));
    world.edit_request("one", |one| {
        let hosts = one.spec.template_parameters.hosts.as_mut().unwrap();
        hosts.masters = serde_json::from_value(crate::model::host_refs(&[2])).unwrap();
        hosts.workers = Vec::new();
    });
    world.reconcile("one");
    says(
        &world,
        "target-2 its node is drained and removed from the cluster; then the server is reset; after that it becomes a master of cluster core",
    );
    says(&world, "target-1 its node is drained and removed from the cluster; then the server is reset");
}

/// A failed upgrade that its owner has taken back is over: masters may change again.
#[test]
fn an_upgrade_that_was_taken_back_is_over() {
    let mut world = running();
    ask_for(&mut world, TO);
    until(&mut world, "host 1 (target-1): has its job");
    world.job_fails(0);
    world.reconcile("one");
    ask_for(&mut world, FROM);
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert!(!world.hosts["target-1"].annotations().contains_key(names::JOB_ANNOTATION));
}

/// What the scripts on a server report is told in their words.
#[test]
fn each_text_of_the_jobs_is_told() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/provisioner/byoh/upgrade/scripts");
    let scripts = scripts.read_dir().unwrap().map(|script| std::fs::read_to_string(script.unwrap().path()).unwrap());
    let texts: BTreeSet<_> = scripts.flat_map(|script| messages::script_texts(&script)).collect();
    let mut world = running();
    ask_for(&mut world, TO);
    until(&mut world, "has its job");
    let job = world.hosts["target-1"].annotations()[names::JOB_ANNOTATION].clone();
    for text in texts {
        let told = json!({"id": job.split(' ').next(), "state": "Failed", "message": text}).to_string();
        world.edit_host("target-1", |host| {
            host.annotations_mut().insert(names::JOB_STATUS_ANNOTATION.to_owned(), told);
        });
        world.reconcile("one");
        says(&world, &format!("the upgrade to v1.36.1 has stopped at host 1 (target-1): {text}. Mend the cause"));
    }
}
