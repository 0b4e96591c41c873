//! What befalls a running cluster without anybody having asked for its servers, and the words that its owner can say then.

use std::collections::BTreeMap;

use cluster_api::Kind;
use cluster_api::byoh::ByohVariant;
use cluster_api::byoh::UNREGISTERING_ANNOTATION;
use cluster_api::labels::PAUSED_ANNOTATION;
use kube::{Resource as _, ResourceExt as _};
use o2ims_operator::provisioner::byoh::marks::{MarkedCluster, MarkedHost as _};
use o2ims_operator::provisioner::byoh::orphans::{plan_cluster, plan_host};
use o2ims_operator::provisioner::step::Step;
use o2ims_types::ProvisioningState::{self, Failed, Fulfilled};
use o2ims_types::{ProvisioningRequest, conditions, names};
use operator_kit::write::status::find;
use serde_json::json;

use crate::model::{World, from, host_refs, request};

/// A cluster of one master and two workers that runs.
fn running() -> World {
    let mut world = World::new(ByohVariant::Upstream, json!({}), 4);
    world.submit(request("one", "core", &[1], &[2, 3]));
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    world
}

/// What runs: Machines by name with their nodes, and hosts with a node and without anybody having asked for a cleaning.
fn runs(world: &World) -> (Vec<String>, Vec<String>) {
    let alive = world.machines.values().filter(|machine| machine.record.metadata.deletion_timestamp.is_none());
    let hosts = world.hosts.values().filter(|host| host.bootstrapped() && !host.is_unregistering());
    (alive.map(|machine| machine.record.name_any()).collect(), hosts.map(kube::ResourceExt::name_any).collect())
}

fn annotate(world: &mut World, kind: Kind, name: &str) {
    let parts = world.applied.keys().filter(|(kind, _)| is_part(*kind)).cloned().collect::<Vec<_>>();
    let pick = parts.iter().position(|(other, other_name)| *other == kind && other_name == name);
    assert!(world.cluster_is_paused_by_annotation(pick.unwrap()));
}

/// Sets Cluster API's pause on a host, or takes it off.
fn pause_host(world: &mut World, host: &str, paused: bool) {
    world.edit_host(host, |host| {
        if paused {
            host.annotations_mut().insert(PAUSED_ANNOTATION.to_owned(), String::new());
        } else {
            host.annotations_mut().remove(PAUSED_ANNOTATION);
        }
    });
}

fn is_part(kind: Kind) -> bool {
    matches!(kind, Kind::Cluster | Kind::KubeadmControlPlane | Kind::ByoCluster | Kind::MachineDeployment)
}

/// The request is deleted, and its deletion comes to its end.
fn is_taken_down(world: &mut World) {
    world.delete_request("one");
    world.settle();
    assert!(world.requests.is_empty(), "{}", world.message("one"));
}

pub fn condition_message(world: &World, type_: &str) -> Option<String> {
    let status = world.requests["one"].status.as_ref()?;
    find(&status.conditions, type_).filter(|found| found.status == "True").map(|found| found.message.clone())
}

/// The request goes without its operator's leave.
fn vanish(world: &mut World) -> ProvisioningRequest {
    world.requests.remove("one").unwrap()
}

/// A backup is applied: the object is new.
fn restore(world: &mut World, backup: &ProvisioningRequest, with_status: bool) {
    world.submit(backup.clone());
    let restored = world.requests.get_mut("one").unwrap();
    restored.metadata.uid = Some("another-uid".to_owned());
    if !with_status {
        restored.status = None;
    }
}

/// What leftovers do about a request that vanished.
fn leftovers_do_nothing(world: &World) {
    let watches = world.watches();
    for host in world.hosts.values() {
        assert!(plan_host(host, &watches).is_none_or(|(_, steps)| steps.is_empty()), "{}", host.name_any());
    }
    for cluster in world.clusters.values() {
        assert!(plan_cluster(cluster, &watches).is_none_or(|(_, steps)| steps.is_empty()));
    }
}

#[test]
fn nothing_that_runs_is_touched_unasked() {
    type Case = (&'static str, fn(&mut World), ProvisioningState, &'static str);
    let cases: [Case; 22] = [
        (
            "the Cluster vanishes",
            |world| assert!(world.cluster_vanishes(0)),
            Failed,
            "Cluster core is gone, but this request is not being deleted",
        ),
        (
            "the Cluster vanishes, and the template with it",
            |world| assert!(world.cluster_vanishes(0) && world.template_goes_or_comes(0)),
            Failed,
            "Cluster core is gone, but this request is not being deleted",
        ),
        (
            "all that Cluster API has vanishes, as at the source of a move",
            |world| {
                assert!(world.cluster_vanishes(0));
                world.machines.clear();
                for (kind, name) in world.applied.keys().cloned().collect::<Vec<_>>() {
                    world.vanish(kind, &name);
                }
            },
            Failed,
            "its nodes run on host 1 (target-1), host 2 (target-2), host 3 (target-3)",
        ),
        (
            "spec.paused",
            |world| assert!(world.cluster_is_paused_or_resumed(0)),
            Fulfilled,
            "paused: Cluster core (spec.paused)",
        ),
        (
            "the Cluster is paused by annotation",
            |world| annotate(world, Kind::Cluster, "core"),
            Fulfilled,
            "paused: Cluster core (annotation",
        ),
        (
            "the control plane is paused by annotation",
            |world| annotate(world, Kind::KubeadmControlPlane, "core-control-plane"),
            Fulfilled,
            "paused: KubeadmControlPlane core-control-plane (annotation",
        ),
        (
            "the ByoCluster is paused",
            |world| annotate(world, Kind::ByoCluster, "core"),
            Fulfilled,
            "paused: ByoCluster core",
        ),
        (
            "a worker is paused",
            |world| annotate(world, Kind::MachineDeployment, "core-worker-target-2"),
            Fulfilled,
            "paused: MachineDeployment core-worker-target-2",
        ),
        ("a host is paused", |world| pause_host(world, "target-2", true), Fulfilled, "paused: ByoHost target-2"),
        (
            "the marks are taken off the Cluster and the hosts",
            |world| {
                world.edit_cluster("core", |object| object.labels_mut().clear());
                for host in ["target-1", "target-2"] {
                    world.edit_host(host, |host| {
                        host.labels_mut().remove(names::REQUEST_UID_LABEL);
                        host.annotations_mut().remove(names::REQUEST_ANNOTATION);
                    });
                }
            },
            Fulfilled,
            "cluster is ready",
        ),
        (
            "the request is restored with another UID",
            |world| {
                let backup = vanish(world);
                leftovers_do_nothing(world);
                restore(world, &backup, true);
            },
            Fulfilled,
            "cluster is ready: 1 master, 2 workers",
        ),
        (
            "the request is restored without status, and without its finalizer",
            |world| {
                let mut backup = vanish(world);
                backup.metadata.finalizers = None;
                restore(world, &backup, false);
            },
            Fulfilled,
            "cluster is ready: 1 master, 2 workers",
        ),
        (
            "the request is restored, and then the marks are taken off the Cluster and the hosts",
            |world| {
                let backup = vanish(world);
                restore(world, &backup, true);
                world.settle();
                world.edit_cluster("core", |object| object.labels_mut().clear());
                for host in ["target-1", "target-2", "target-3"] {
                    world.edit_host(host, |host| {
                        host.labels_mut().remove(names::REQUEST_UID_LABEL);
                    });
                }
            },
            Fulfilled,
            "cluster is ready: 1 master, 2 workers",
        ),
        (
            "an older backup is restored that lacks a worker",
            |world| {
                let mut backup = vanish(world);
                backup.spec.template_parameters.hosts.as_mut().unwrap().workers.truncate(1);
                restore(world, &backup, true);
            },
            Fulfilled,
            "this request was restored and does not name host 3 (target-3), which its cluster uses",
        ),
        (
            "an older backup is restored that lacks a worker whose ByoHost is gone",
            |world| {
                let mut backup = vanish(world);
                world.hosts.remove("target-3");
                backup.spec.template_parameters.hosts.as_mut().unwrap().workers.truncate(1);
                restore(world, &backup, true);
            },
            Fulfilled,
            "this request was restored and does not name target-3, which its cluster uses",
        ),
        (
            "the MachineDeployment of a worker goes without it",
            |world| world.vanish(Kind::MachineDeployment, "core-worker-target-2"),
            Fulfilled,
            "MachineDeployment core-worker-target-2 is gone, but its Machine",
        ),
        (
            "the request is restored while its Cluster is not there yet",
            |world| {
                let backup = vanish(world);
                assert!(world.cluster_vanishes(0));
                leftovers_do_nothing(world);
                restore(world, &backup, false);
            },
            Failed,
            "Cluster core is gone, but this request is not being deleted",
        ),
        (
            "a host in use is registered anew",
            |world| assert!(world.host_is_registered_anew_in_use(1)),
            Fulfilled,
            "but its ByoHost was registered again",
        ),
        (
            "the ByoHost of a node is deleted",
            |world| {
                world.hosts.remove("target-3");
                world.revision += 1;
            },
            Fulfilled,
            "host 3 (target-3) is not registered in namespace site-a",
        ),
        (
            "a host gets another id",
            |world| {
                world.edit_host("target-2", |host| {
                    host.labels_mut().insert("host-id".to_owned(), "77".to_owned());
                });
            },
            Fulfilled,
            "is not that host: ByoHost site-a/target-2 has the label host-id=77",
        ),
        (
            "the template demands what this request lacks",
            |world| {
                let spec = &mut world.templates.get_mut("base-v1").unwrap().spec;
                spec.parameter_schema = Some(json!({"type": "object", "required": ["zone"]}));
                world.revision += 1;
            },
            Fulfilled,
            "zone",
        ),
        (
            "version, endpoint and masters are changed where no policy refuses it",
            |world| {
                world.edit_request("one", |one| {
                    let endpoint = json!({"host": "10.0.0.99", "port": 6443});
                    one.spec.template_parameters.control_plane_endpoint = Some(from(endpoint));
                    one.spec.template_parameters.k8s_version = Some("v1.34.0".to_owned());
                    one.spec.template_parameters.hosts.as_mut().unwrap().masters = from(host_refs(&[4]));
                });
            },
            Failed,
            "k8sVersion cannot change from v1.33.1 to v1.34.0: with install.method none nothing installs another version on the hosts; set k8sVersion back to v1.33.1",
        ),
    ];
    for (what, befalls, state, message) in cases {
        let mut world = running();
        let before = runs(&world);
        befalls(&mut world);
        let (machines, hosts) = runs(&world);
        world.settle();
        world.second += 7200;
        world.settle();
        let told = world.message("one");
        assert_eq!(world.state("one"), Some(state), "{what}: {told}");
        let wrong = condition_message(&world, conditions::DEGRADED).unwrap_or_default();
        assert!(
            told.contains(message) || wrong.contains(message),
            "{what}: {told:?} and {wrong:?} are not {message:?}"
        );
        if state == Fulfilled && !message.starts_with("cluster is ready") && !message.starts_with("paused") {
            assert!(wrong.contains(message), "{what}: the condition Degraded says {wrong:?}");
        }
        assert_eq!(runs(&world), (machines, hosts), "{what}: what runs was touched");
        assert!(
            what.contains("all that") || what.contains("ByoHost") || what.contains("anew") || runs(&world) == before,
            "{what}"
        );
    }
}

/// A virtual address is an address of whichever master carries it; its agent reports it at each start.
#[test]
fn a_virtual_address_among_a_masters_own_is_no_reason_to_fail() {
    let mut world = World::new(ByohVariant::Upstream, json!({}), 4);
    let mut three = request("one", "core", &[1, 2, 3], &[4]);
    three.spec.template_parameters.control_plane_endpoint = Some(from(json!({"host": "10.0.0.100"})));
    world.submit(three);
    world.settle();
    world.edit_host("target-2", |host| host.status.network[0].ip_addrs.push("10.0.0.100/32".to_owned()));
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    world.edit_request("one", |one| one.spec.template_parameters.hosts.as_mut().unwrap().workers.clear());
    world.settle();
    assert_eq!(
        (world.state("one"), world.message("one").as_str()),
        (Some(Fulfilled), "cluster is ready: 3 masters, 0 workers")
    );
}

/// Says what the status names, and settles.
fn say(world: &mut World, annotation: &str) {
    let wrong = condition_message(world, conditions::DEGRADED).unwrap_or_default();
    let told = format!("{} {wrong}", world.message("one"));
    let (_, rest) =
        told.split_once(&format!("{annotation}=")).unwrap_or_else(|| panic!("{annotation} is not offered: {told}"));
    let id: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    world.edit_request("one", |request| {
        request.annotations_mut().insert(annotation.to_owned(), id);
    });
    world.settle();
}

#[test]
fn a_cluster_that_vanished_is_taken_back_or_cleaned_as_its_owner_says() {
    let mut world = running();
    let before = runs(&world);
    assert!(world.cluster_vanishes(0));
    world.settle();
    say(&mut world, names::RESTORE_ANNOTATION);
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert_eq!(runs(&world), before);

    // The word was for that loss, and says nothing about the next.
    assert!(world.cluster_vanishes(0));
    world.settle();
    assert_eq!(world.state("one"), Some(Failed));
    say(&mut world, names::CLEAN_ANNOTATION);
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    let (machines, hosts) = runs(&world);
    assert!(
        machines.iter().all(|machine| !before.0.contains(machine)),
        "the old machines are still there: {machines:?}"
    );
    assert_eq!(hosts, before.1);
}

/// The kinds of Cluster API and BYOH were deleted and made anew, and the agents have registered their hosts again.
fn everything_but_the_request_goes(world: &mut World) {
    world.clusters.clear();
    world.machines.clear();
    for (kind, name) in world.applied.keys().cloned().collect::<Vec<_>>() {
        world.vanish(kind, &name);
    }
    world.hosts.clear();
    for number in 1..=4 {
        world.register(number, true);
    }
}

#[test]
fn a_cluster_of_which_nothing_is_known_is_not_made_anew_unasked() {
    let mut world = running();
    everything_but_the_request_goes(&mut world);
    world.settle();
    world.settle();
    assert_eq!(world.state("one"), Some(Failed), "{}", world.message("one"));
    let told = world.message("one");
    assert!(
        told.contains("no Machine and no attached ByoHost of cluster core is left, but its nodes may still run"),
        "{told}"
    );
    assert!(told.contains("restore its objects from a backup: first the ByoHosts, with their status"), "{told}");
    assert!(world.clusters.is_empty() && world.hosts.values().all(|host| host.holder().is_none()));
    say(&mut world, names::CLEAN_ANNOTATION);
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));

    let mut world = running();
    everything_but_the_request_goes(&mut world);
    world.settle();
    is_taken_down(&mut world);
}

/// A word is for one loss. One that names nothing is told as long as something is lost, and goes then.
#[test]
fn words_are_taken_off_when_nothing_is_lost() {
    let mut world = running();
    let words = |world: &World| {
        let annotations = world.requests["one"].annotations();
        [names::RESTORE_ANNOTATION, names::CLEAN_ANNOTATION]
            .into_iter()
            .filter_map(|word| annotations.get(word))
            .count()
    };
    assert!(world.cluster_vanishes(0));
    world.edit_request("one", |request| {
        request.annotations_mut().insert(names::CLEAN_ANNOTATION.to_owned(), "core".to_owned());
    });
    world.settle();
    let told = world.message("one");
    let wrong = "; annotation o2ims.provisioning.oran.org/clean names \"core\", which is not the id of anything lost that this annotation applies to";
    assert!(told.ends_with(wrong), "{told}");
    assert_eq!(words(&world), 1);
    say(&mut world, names::RESTORE_ANNOTATION);
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert_eq!(words(&world), 0);

    assert!(world.cluster_vanishes(0));
    world.settle();
    say(&mut world, names::CLEAN_ANNOTATION);
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert_eq!(words(&world), 0);
}

/// BYOH leaves its pause on hosts whose Machine goes while it is paused, and lets no user take it off.
#[test]
fn a_host_that_was_left_paused_is_cleaned_when_its_owner_says_so() {
    for deleted in [false, true] {
        let mut world = running();
        assert!(world.cluster_vanishes(0));
        world.machines.clear();
        for (kind, name) in world.applied.keys().cloned().collect::<Vec<_>>() {
            world.vanish(kind, &name);
        }
        for host in ["target-2", "target-3"] {
            pause_host(&mut world, host, true);
            world.edit_host(host, |host| {
                host.annotations_mut().insert(UNREGISTERING_ANNOTATION.to_owned(), String::new());
            });
        }
        world.settle();
        if deleted {
            world.delete_request("one");
        } else {
            say(&mut world, names::CLEAN_ANNOTATION);
        }
        world.settle();
        let told = condition_message(&world, conditions::PAUSED).unwrap();
        let ids = ["target-2", "target-3"].map(|name| world.hosts[name].uid().unwrap()).join(",");
        assert!(told.contains("has requested the cleaning of host 2 (target-2), host 3 (target-3) and left"), "{told}");
        assert!(told.ends_with(&format!("{ids} --overwrite")), "{told}");
        world.edit_request("one", |request| {
            let said = request.annotations_mut().entry(names::CLEAN_ANNOTATION.to_owned()).or_default();
            *said = if said.is_empty() { ids } else { format!("{said},{ids}") };
        });
        world.settle();
        if deleted {
            assert!(world.requests.is_empty());
        } else {
            assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
        }
        assert!(world.hosts.values().all(|host| !host.is_paused()));
    }
}

#[test]
fn a_host_that_lost_its_machine_ref_says_so_and_gets_it_back() {
    let mut world = running();
    let before = runs(&world);
    let machine = world.hosts["target-2"].status.machine_ref.clone();
    world.edit_host("target-2", |host| host.status.machine_ref = None);
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled));
    let told = condition_message(&world, conditions::DEGRADED).unwrap();
    assert!(told.starts_with("host 2 (target-2): status.machineRef was removed from its ByoHost"), "{told}");
    say(&mut world, names::RESTORE_ANNOTATION);
    assert_eq!(world.hosts["target-2"].status.machine_ref, machine);
    assert_eq!((runs(&world), condition_message(&world, conditions::DEGRADED)), (before, None));
}

#[test]
fn of_two_words_about_one_loss_none_counts() {
    let mut world = running();
    let before = runs(&world);
    assert!(world.cluster_vanishes(0));
    world.settle();
    say(&mut world, names::RESTORE_ANNOTATION);
    assert!(world.cluster_vanishes(0));
    world.settle();
    let id = world.requests["one"]
        .status
        .clone()
        .unwrap()
        .provisioned_resource_set
        .unwrap()
        .o_cloud_node_cluster_id
        .unwrap();
    world.edit_request("one", |request| {
        let both = [names::RESTORE_ANNOTATION, names::CLEAN_ANNOTATION].map(|word| (word.to_owned(), id.clone()));
        request.annotations_mut().extend(both);
    });
    world.settle();
    assert_eq!((world.state("one"), runs(&world)), (Some(Failed), before));
    let told = world.message("one");
    assert!(told.ends_with("so neither has an effect: remove the id from one of them"), "{told}");
}

/// Its Machines would be deleted by it alone.
#[test]
fn a_cluster_that_lost_its_control_plane_is_told_and_taken_down() {
    let mut world = running();
    let before = runs(&world);
    world.vanish(Kind::KubeadmControlPlane, "core-control-plane");
    world.settle();
    assert_eq!((world.state("one"), runs(&world)), (Some(Failed), before));
    let told = world.message("one");
    assert!(told.starts_with("KubeadmControlPlane core-control-plane was deleted, not by this operator"), "{told}");
    // The template does not set install.method.
    assert!(
        told.contains("with install.method none the nodes keep running: run \"kubeadm reset\" on each server"),
        "{told}"
    );
    is_taken_down(&mut world);
}

/// A Cluster that somebody else deletes is no word of the request's owner about masters that Cluster API leaves.
#[test]
fn masters_without_control_plane_stay_while_somebody_else_deletes_the_cluster() {
    let mut world = running();
    world.vanish(Kind::KubeadmControlPlane, "core-control-plane");
    let masters = |world: &World| world.machines.values().filter(|machine| machine.record.is_master()).count();
    assert!(world.cluster_is_deleted_by_hand(0));
    assert_eq!((world.reconcile("one"), masters(&world)), (Vec::new(), 1));
}

/// Whoever waits for it is not told that it is gone.
#[test]
fn a_request_that_was_restored_exists() {
    let mut world = running();
    let backup = vanish(&mut world);
    let mut other = request("two", "core", &[4], &[3]);
    other.metadata.name = Some("two".to_owned());
    world.submit(other);
    world.settle();
    assert!(world.message("two").contains("which does not exist any more"), "{}", world.message("two"));
    restore(&mut world, &backup, false);
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert!(world.message("two").contains("is taken by ProvisioningRequest site-a/one;"), "{}", world.message("two"));
}

/// Somebody deletes a part while the cluster is being made: let go, the Cluster would lose it.
#[test]
fn a_part_that_is_deleted_while_the_cluster_is_made_is_made_anew() {
    for kind in [Kind::KubeadmControlPlane, Kind::MachineDeployment] {
        let mut world = World::new(ByohVariant::Upstream, json!({}), 3);
        world.submit(request("one", "core", &[1], &[2]));
        let is_there = |world: &World| world.applied.keys().any(|(other, _)| *other == kind);
        for _ in 0..20 {
            let Some(mut flight) = world.begin("one") else { continue };
            while !is_there(&world) && world.step(&mut flight).unwrap() {}
            if is_there(&world) {
                break;
            }
            world.finish(&flight);
        }
        assert!(world.clusters["core"].is_creating());
        let (_, name) = world.applied.keys().find(|(other, _)| *other == kind).cloned().unwrap();
        world.delete(kind, &name);
        world.settle();
        assert_eq!(world.state("one"), Some(Fulfilled), "{}: {}", kind.name(), world.message("one"));
    }
}

/// The Cluster is lost before anything runs, and a worker's part is being deleted: all of it is taken apart and made anew.
#[test]
fn a_cluster_that_is_lost_before_it_has_nodes_is_made_anew() {
    let mut world = World::new(ByohVariant::Upstream, json!({}), 3);
    world.submit(request("one", "core", &[1], &[2]));
    while world.clusters.get("core").is_none_or(MarkedCluster::is_creating) {
        world.reconcile("one");
    }
    assert!(world.cluster_vanishes(0));
    assert!(world.deployment_is_deleted_by_hand(0));
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
}

#[test]
fn hosts_that_nothing_is_left_of_are_cleaned_when_their_owner_says_so() {
    for deleted in [false, true] {
        let mut world = running();
        assert!(world.cluster_vanishes(0));
        world.machines.clear();
        for (kind, name) in world.applied.keys().cloned().collect::<Vec<_>>() {
            world.vanish(kind, &name);
        }
        world.settle();
        if deleted {
            world.delete_request("one");
            world.settle();
            assert!(world.requests.is_empty());
            assert!(world.hosts.values().all(|host| host.in_use_reason().is_none() && host.holder().is_none()));
        } else {
            say(&mut world, names::CLEAN_ANNOTATION);
            assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
        }
    }
}

/// What a move leaves behind at its source is paused: not even a deletion of the request touches it.
#[test]
fn paused_hosts_are_not_cleaned() {
    let mut world = running();
    assert!(world.cluster_vanishes(0));
    world.machines.clear();
    for (kind, name) in world.applied.keys().cloned().collect::<Vec<_>>() {
        world.vanish(kind, &name);
    }
    let pause = |world: &mut World, paused: bool| {
        for host in ["target-1", "target-2", "target-3"] {
            pause_host(world, host, paused);
        }
    };
    pause(&mut world, true);
    let before = runs(&world);
    world.delete_request("one");
    world.settle();
    world.second += 7200;
    world.settle();
    assert_eq!(runs(&world), before);
    let told = world.message("one");
    assert!(told.starts_with("the deletion waits: paused: ByoHost target-1"), "{told}");
    pause(&mut world, false);
    world.settle();
    assert!(world.requests.is_empty());
}

/// BYOH pauses the hosts of a paused cluster, and its agent does not clean what is paused: a deletion would wait for ever for a
/// host whose Machine is gone.
#[test]
fn machines_stay_as_long_as_their_hosts_are_paused() {
    let mut world = running();
    let before = runs(&world);
    pause_host(&mut world, "target-3", true);
    let mut smaller = world.requests["one"].clone();
    smaller.spec.template_parameters.hosts.as_mut().unwrap().workers.truncate(1);
    world.submit(smaller);
    world.settle();
    assert_eq!(runs(&world), before, "a worker that was taken out");
    pause_host(&mut world, "target-3", false);
    world.settle();
    assert_eq!(runs(&world).1, ["target-1", "target-2"]);

    pause_host(&mut world, "target-2", true);
    let before = runs(&world);
    world.delete_request("one");
    world.settle();
    assert_eq!(runs(&world), before, "a request that was deleted");
    let told = world.message("one");
    assert!(told.starts_with("the deletion waits: paused: ByoHost target-2"), "{told}");
    pause_host(&mut world, "target-2", false);
    world.settle();
    assert!(world.requests.is_empty());
}

#[test]
fn a_deletion_waits_for_whatever_is_paused() {
    let mut world = running();
    let before = runs(&world);
    let name = world.machines.keys().next().unwrap().clone();
    let pause = |world: &mut World, paused: bool| {
        let annotations = world.machines.get_mut(&name).unwrap().record.annotations_mut();
        if paused {
            annotations.insert(PAUSED_ANNOTATION.to_owned(), String::new());
        } else {
            annotations.remove(PAUSED_ANNOTATION);
        }
        world.revision += 1;
    };
    pause(&mut world, true);
    world.delete_request("one");
    world.settle();
    assert_eq!(runs(&world), before);
    assert!(world.message("one").starts_with("the deletion waits: paused: Machine"));
    pause(&mut world, false);
    world.settle();
    assert!(world.requests.is_empty());
}

/// BYOH takes it for free, and so would another request.
#[test]
fn no_other_request_gets_a_host_that_was_registered_anew() {
    let mut world = running();
    assert!(world.host_is_registered_anew_in_use(1));
    world.settle();
    let anew =
        world.hosts.values().find(|host| host.in_use_reason().is_none() && host.name_any() != "target-4").unwrap();
    let number = anew.name_any().trim_start_matches("target-").parse().unwrap();
    let before = runs(&world);
    world.submit(request("two", "edge", &[number], &[]));
    world.settle();
    assert_eq!(runs(&world), before);
    assert!(world.message("two").contains("runs the node of Machine"), "{}", world.message("two"));
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
}

#[test]
fn a_request_deleted_with_orphan_lets_go_and_takes_back() {
    let mut world = running();
    let before = runs(&world);
    let backup = world.requests["one"].clone();
    world.edit_request("one", |one| one.finalizers_mut().push(names::ORPHAN_FINALIZER.to_owned()));
    world.delete_request("one");
    world.reconcile("one");
    let left = world.requests["one"].finalizers().to_vec();
    assert_eq!(left, [names::ORPHAN_FINALIZER]);
    world.requests.clear();
    leftovers_do_nothing(&world);
    assert_eq!(runs(&world), before);
    restore(&mut world, &backup, false);
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert_eq!(runs(&world), before);
    world.delete_request("one");
    world.settle();
    assert!(world.requests.is_empty() && runs(&world) == (Vec::new(), Vec::new()));
}

/// From then on it is as any other request: an edit takes a worker out.
#[test]
fn a_restored_request_that_names_everything_may_take_out() {
    let mut world = running();
    let backup = vanish(&mut world);
    restore(&mut world, &backup, false);
    world.settle();
    world.edit_request("one", |one| one.spec.template_parameters.hosts.as_mut().unwrap().workers.truncate(1));
    world.settle();
    assert_eq!(world.message("one"), "cluster is ready: 1 master, 1 worker");
    assert!(world.hosts["target-3"].in_use_reason().is_none() && world.hosts["target-3"].holder().is_none());
    world.delete_request("one");
    world.settle();
    assert!(world.requests.is_empty() && world.applied.is_empty());
    let marked: BTreeMap<_, _> = world.hosts.iter().filter(|(_, host)| host.holder().is_some()).collect();
    assert!(marked.is_empty(), "{:?}", marked.keys());
}

#[test]
fn a_host_that_was_registered_anew_is_given_back() {
    let mut world = running();
    let before = runs(&world);
    assert!(world.host_is_registered_anew_in_use(1));
    world.settle();
    say(&mut world, names::RESTORE_ANNOTATION);
    assert_eq!(world.message("one"), "cluster is ready: 1 master, 2 workers");
    assert_eq!(runs(&world), before);

    // Who wants to be rid of it has it cleaned as any other.
    assert!(world.host_is_registered_anew_in_use(1));
    world.delete_request("one");
    world.settle();
    assert!(world.requests.is_empty());
    assert!(world.hosts.values().all(|host| host.in_use_reason().is_none() && !host.bootstrapped()));
}

/// A rollout or another number of masters cannot be had without spare hosts: both are put back, and the Machine that waits for a
/// host goes.
#[test]
fn a_surplus_master_goes() {
    let mut world = running();
    let before = runs(&world);
    assert!(world.control_plane_is_rolled_by_hand(0));
    assert!(world.machine_is_made(0));
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert_eq!(runs(&world), before);
}

#[test]
fn the_last_masters_end_is_told_at_once() {
    let mut world = running();
    let master = world.machines.values_mut().find(|machine| machine.owner.0 == Kind::KubeadmControlPlane).unwrap();
    master.record.meta_mut().deletion_timestamp = Some(from(json!("2026-01-01T00:00:00Z")));
    world.revision += 1;
    while world.machine_is_taken_down(0) {}
    world.reconcile("one");
    assert_eq!(world.state("one"), Some(Failed));
    let told = world.message("one");
    assert!(told.contains("the last master of cluster core is deleted or being deleted"), "{told}");
}

/// What a status says that exists is deleted with the request, from the first status on.
#[test]
fn a_request_for_a_cluster_that_runs_has_its_finalizer_before_its_status() {
    let mut world = running();
    world.requests.remove("one").unwrap();
    world.submit(request("one", "core", &[1], &[2, 3]));
    let flight = world.begin("one").unwrap();
    assert_eq!(flight.steps, [Step::AddFinalizer]);
}
