//! What a user is told: state, message, conditions, deadlines, ids.

use std::path::Path;
use std::time::Duration;

use cluster_api::Kind;
use cluster_api::byoh::ByohVariant;
use cluster_api::conditions::Condition as CapiCondition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_operator::provisioner::report::{HOST_FAILED, Pause, Progress, Provisioning, Report, Stage, StageState};
use o2ims_operator::provisioning_request::status::assess;
use o2ims_types::conditions::{self, reason};
use o2ims_types::o2ims::v1alpha1::provisioning_request::{
    HostFile, HostStatus, ProvisionedResourceSet, StatusExtensions,
};
use o2ims_types::{ProvisioningRequestStatus, ProvisioningState, names};
use operator_kit::cache::SyncState;
use operator_kit::controller::Outcome;
use operator_kit::write::status::{MESSAGE_MAX, find};
use serde_json::json;

use crate::model::{Move, NAMESPACE, World, from, host_refs, request};
use ProvisioningState::{Deleting, Failed, Fulfilled, Pending, Progressing};

pub fn world(dialect: ByohVariant) -> World {
    let mut world =
        World::new(dialect, json!({"timeouts": {"controlPlane": "5m", "workers": "3m", "deletion": "10m"}}), 4);
    world.submit(request("one", "core", &[1], &[2]));
    world
}

pub fn running() -> World {
    let mut world = world(ByohVariant::Platform9);
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled));
    world
}

pub fn status(world: &World) -> ProvisioningRequestStatus {
    world.requests["one"].status.clone().unwrap()
}

fn hosts(world: &World) -> Vec<String> {
    status(world).extensions.hosts.into_iter().map(|host| host.state).collect()
}

/// Each stage as `+` (True), `-` (False) or `?` (Unknown).
fn stages(world: &World) -> String {
    let status = status(world);
    [
        conditions::PROVIDERS_AVAILABLE,
        conditions::VALIDATED,
        conditions::HOSTS_RESERVED,
        conditions::CONTROL_PLANE_READY,
        conditions::WORKERS_READY,
    ]
    .into_iter()
    .map(|type_| match find(&status.conditions, type_).map(|condition| condition.status.as_str()) {
        Some("True") => '+',
        Some("False") => '-',
        Some("Unknown") => '?',
        _ => ' ',
    })
    .collect()
}

/// Lets one kind of thing happen, as often as it can, and the operator see it.
pub fn after(world: &mut World, moves: &[Move]) {
    for happens in moves {
        while happens(world, 0) {}
        world.second += 1;
    }
    for _ in 0..2 {
        world.reconcile("one");
    }
}

fn is(world: &World, state: ProvisioningState, message: &str, told_stages: &str, told_hosts: [&str; 2]) {
    assert_eq!((world.state("one"), world.message("one").as_str()), (Some(state), message));
    assert_eq!(stages(world), told_stages, "{message}");
    assert_eq!(hosts(world), told_hosts, "{message}");
}

#[test]
fn a_request_from_its_beginning_to_its_end() {
    let mut world = world(ByohVariant::Upstream);
    world.reconcile("one");
    is(&world, Pending, "claiming hosts: 0 of 2 are held", "++-??", ["Free", "Free"]);
    world.reconcile("one");
    world.reconcile("one");
    is(&world, Progressing, "creating the objects of Cluster core", "+++-?", ["Reserved", "Reserved"]);
    for _ in 0..3 {
        world.reconcile("one");
    }
    let no_machine = "host 1 (target-1): waits for Cluster API to create a Machine; if this does not change, kubectl describe \
        kubeadmcontrolplane core-control-plane -n site-a says why";
    is(&world, Progressing, no_machine, "+++-?", ["Reserved", "Reserved"]);
    assert_eq!(status(&world).extensions.hosts[1].message, "waits for the control plane");

    after(
        &mut world,
        &[World::cluster_is_noticed, World::part_is_noticed, World::cluster_is_adopted, World::machine_is_made],
    );
    let no_host = "host 1 (target-1): waits to be attached to a machine";
    is(&world, Progressing, no_host, "+++-?", ["Reserved", "Reserved"]);
    let begins: [Move; 5] = [
        World::cluster_is_noticed,
        World::part_is_noticed,
        World::cluster_is_adopted,
        World::machine_is_made,
        World::machine_takes_a_host,
    ];
    after(&mut world, &begins);
    let waits = "host 1 (target-1): its agent has been given the bootstrap script and has not reported back yet";
    is(&world, Progressing, waits, "+++-?", ["Bootstrapping", "Reserved"]);
    after(&mut world, &[World::host_is_bootstrapped]);
    is(
        &world,
        Progressing,
        "host 1 (target-1): its bootstrap script has run; waiting for its node to appear",
        "+++-?",
        ["Bootstrapping", "Reserved"],
    );
    after(&mut world, &[World::node_appears]);
    is(&world, Progressing, "host 1 (target-1): its node is not Ready: NodeNotReady", "+++-?", ["Joined", "Reserved"]);
    after(&mut world, &[World::node_becomes_ready]);
    let counts = "waiting for KubeadmControlPlane core-control-plane: 0 of 1 replicas ready; if this does not change, check that \
        host 1 (target-1) is up and that the cluster's API answers at 10.0.0.1:6443";
    is(&world, Progressing, counts, "+++-?", ["Ready", "Reserved"]);
    after(&mut world, &[World::counters_are_updated]);
    let no_machine = "host 2 (target-2): waits for Cluster API to create a Machine; if this does not change, kubectl describe \
        machinedeployment core-worker-target-2 -n site-a says why";
    is(&world, Progressing, no_machine, "++++-", ["Ready", "Reserved"]);
    after(&mut world, &begins);
    after(&mut world, &[World::host_is_bootstrapped, World::node_appears, World::node_becomes_ready]);
    is(
        &world,
        Progressing,
        "waiting for MachineDeployment core-worker-target-2: 0 of 1 replicas ready",
        "++++-",
        ["Ready", "Ready"],
    );
    after(&mut world, &[World::counters_are_updated]);
    is(&world, Fulfilled, "cluster is ready: 1 master, 1 worker", "+++++", ["Ready", "Ready"]);
    let extensions = status(&world).extensions;
    assert_eq!(extensions.ready_nodes.as_deref(), Some("2/2"));
    assert_eq!(extensions.control_plane_endpoint.as_deref(), Some("10.0.0.1:6443"));
    assert_eq!(extensions.kubeconfig_secret.as_deref(), Some("core-kubeconfig"));
    assert_eq!(extensions.k8s_version.as_deref(), Some("v1.33.1"));

    world.delete_request("one");
    after(&mut world, &[]);
    assert_eq!((world.state("one"), world.message("one").as_str()), (Some(Deleting), "deleting Cluster core"));
    after(&mut world, &[World::cluster_is_taken_down, World::machine_is_taken_down]);
    let told = "deleting Cluster core; host 2 (target-2) is being cleaned by its agent";
    assert_eq!((world.state("one"), world.message("one").as_str()), (Some(Deleting), told));
    after(&mut world, &[World::cluster_is_taken_down, World::machine_is_taken_down]);
    after(&mut world, &[World::cluster_is_taken_down]);
    assert_eq!(world.clusters.len(), 0);
    assert_eq!(
        (world.state("one"), world.message("one").as_str()),
        (
            Some(Deleting),
            "waiting for hosts: host 1 (target-1) is being cleaned by its agent; host 2 (target-2) is being cleaned by its agent"
        )
    );
    assert_eq!(hosts(&world), ["Cleaning", "Cleaning"]);
    world.agent_starts_cleaning(0);
    world.agent_lets_go(0);
    after(&mut world, &[]);
    assert_eq!(
        world.message("one"),
        "waiting for hosts: host 1 (target-1) is attached to a machine; host 2 (target-2) is being cleaned by its agent"
    );
    world.settle();
    assert!(world.requests.is_empty());
}

/// A stage has its time; after that the request has failed, and goes on all the same.
#[test]
fn a_deadline_passes_and_the_request_recovers() {
    let mut world = world(ByohVariant::Upstream);
    for _ in 0..6 {
        world.reconcile("one");
    }
    let began =
        find(&status(&world).conditions, conditions::CONTROL_PLANE_READY).unwrap().last_transition_time.0.as_second();
    world.second = began + 299;
    assert_eq!(world.assess("one").recheck, Some(Duration::from_secs(1)));
    world.reconcile("one");
    assert_eq!(world.state("one"), Some(Progressing));
    world.second = began + 300;
    world.reconcile("one");
    let late = "time limit of 300 s exceeded (spec.timeouts.controlPlane of the ClusterTemplate): host 1 (target-1): waits for Cluster API \
        to create a Machine; if this does not change, kubectl describe kubeadmcontrolplane core-control-plane -n site-a says why; this operator \
        continues";
    is(&world, Failed, late, "+++-?", ["Reserved", "Reserved"]);
    let stage = find(&status(&world).conditions, conditions::CONTROL_PLANE_READY).unwrap().clone();
    assert_eq!((stage.reason.as_str(), stage.last_transition_time.0.as_second()), (reason::DEADLINE_EXCEEDED, began));
    assert_eq!(find(&status(&world).conditions, conditions::STALLED).unwrap().reason, reason::DEADLINE_EXCEEDED);
    assert_eq!(world.assess("one").outcome(), Outcome::Blocked { reason: late.to_owned() });

    // The master comes after all; the workers have their own time, from now.
    world.second = began + 1000;
    after(
        &mut world,
        &[
            World::cluster_is_noticed,
            World::part_is_noticed,
            World::cluster_is_adopted,
            World::machine_is_made,
            World::machine_takes_a_host,
            World::host_is_bootstrapped,
        ],
    );
    after(&mut world, &[World::node_appears, World::node_becomes_ready, World::counters_are_updated]);
    assert_eq!(stages(&world), "++++-");
    assert_eq!(world.state("one"), Some(Progressing));
    world.second += 180;
    world.reconcile("one");
    let late = "time limit of 180 s exceeded (spec.timeouts.workers of the ClusterTemplate): host 2 (target-2): waits for Cluster \
        API to create a Machine; if this does not change, kubectl describe machinedeployment core-worker-target-2 -n site-a says why; \
        this operator continues";
    is(&world, Failed, late, "++++-", ["Ready", "Reserved"]);
    world.settle();
    is(&world, Fulfilled, "cluster is ready: 1 master, 1 worker", "+++++", ["Ready", "Ready"]);
    assert_eq!(world.assess("one").recheck, None);
}

/// What the API server has in other versions than the operator sees is not gone.
#[test]
fn a_deletion_waits_for_kinds_that_are_served_in_other_versions() {
    let mut world = world(ByohVariant::Platform9);
    for _ in 0..10 {
        world.reconcile("one");
    }
    assert!(!world.clusters.is_empty(), "the cluster was begun");
    world.clusters.clear();
    world.control_planes.clear();
    world.deployments.clear();
    world.byo_clusters.clear();
    world.cluster_api = SyncState::OtherVersions(vec!["v1beta1".to_owned()]);
    world.delete_request("one");
    for _ in 0..3 {
        world.reconcile("one");
    }
    assert_eq!(world.state("one"), Some(Deleting));
    let told = "the deletion waits: the management cluster serves clusters.cluster.x-k8s.io in v1beta1";
    assert!(world.message("one").starts_with(told), "{}", world.message("one"));
    assert!(world.held("one-uid").len() == 2, "the hosts stay held");
}

#[test]
fn a_deletion_that_hangs_says_so_and_goes_on() {
    let mut world = running();
    world.agent_falls_silent(1);
    world.delete_request("one");
    for _ in 0..6 {
        world.run();
        world.reconcile("one");
    }
    let waits = "waiting for hosts: host 2 (target-2) is being cleaned by its agent";
    assert_eq!((world.state("one"), world.message("one").as_str()), (Some(Deleting), waits));
    let began = world.requests["one"].metadata.deletion_timestamp.clone().unwrap().0.as_second();
    world.second = began + 599;
    assert_eq!(world.assess("one").recheck, Some(Duration::from_secs(1)));
    world.second = began + 600;
    world.reconcile("one");
    let late = format!(
        "time limit of 600 s exceeded (spec.timeouts.deletion of the ClusterTemplate): {waits}; this operator continues; if a server does not \
         come back,"
    );
    assert_eq!(world.state("one"), Some(Deleting));
    assert!(world.message("one").starts_with(&late), "{}", world.message("one"));
    let stalled = find(&status(&world).conditions, conditions::STALLED).unwrap().clone();
    assert_eq!((stalled.status.as_str(), stalled.reason.as_str()), ("True", reason::DEADLINE_EXCEEDED));
    // It is said once, not with every look.
    let revision = world.revision;
    world.second += 60;
    world.reconcile("one");
    assert_eq!(world.revision, revision);
    world.heal();
    world.settle();
    assert!(world.requests.is_empty());
}

/// Update time and transition times move with what they are about, and with nothing else.
#[test]
fn times_move_with_what_they_are_about() {
    let mut world = running();
    let before = status(&world);
    world.second += 1000;
    world.edit_request("one", |request| request.spec.description = Some("for people".to_owned()));
    world.reconcile("one");
    let after = status(&world);
    assert_eq!((before.observed_generation, after.observed_generation), (Some(1), Some(2)));
    assert_eq!(before.provisioning_status, after.provisioning_status);
    for condition in &after.conditions {
        assert_eq!(
            condition.last_transition_time,
            find(&before.conditions, &condition.type_).unwrap().last_transition_time
        );
    }
    world.edit_request("one", |request| {
        request.spec.template_parameters.hosts.as_mut().unwrap().workers.push(from(host_refs(&[3])[0].clone()));
    });
    world.second += 10;
    world.reconcile("one");
    assert_eq!(status(&world).provisioning_status.provisioning_update_time.unwrap().0.as_second(), world.second);
}

/// The ids of what is held do not change by themselves, and stay until it is given back.
#[test]
fn ids_are_stable() {
    let mut world = running();
    let ids = status(&world).provisioned_resource_set.unwrap();
    assert_eq!(ids.o_cloud_node_cluster_id, world.clusters["core"].uid());
    assert_eq!(
        ids.o_cloud_infrastructure_resource_ids,
        [world.hosts["target-1"].uid().unwrap(), world.hosts["target-2"].uid().unwrap()]
    );
    // An agent that is gone, a template that is gone, a deletion up to the last host: still the same.
    world.agent_falls_silent(1);
    world.template_goes_or_comes(0);
    world.reconcile("one");
    assert_eq!(status(&world).provisioned_resource_set.as_ref(), Some(&ids));
    world.delete_request("one");
    for _ in 0..10 {
        world.run();
        world.reconcile("one");
    }
    assert!(world.clusters.is_empty() && world.held("one-uid").len() == 1);
    assert_eq!(status(&world).provisioned_resource_set.as_ref(), Some(&ids));
}

/// What can befall a cluster that runs, and what is said then.
#[test]
fn a_running_cluster_in_trouble() {
    type Case = (fn(&mut World), ProvisioningState, &'static str, &'static str);
    let cases: [Case; 9] = [
        (
            |world| {
                on_machine(world, "worker", |machine| {
                    set(&mut machine.status.conditions, "NodeHealthy", "Unknown", "NodeConditionsFailed");
                });
            },
            Progressing,
            "host 2 (target-2): its node is not Ready: NodeConditionsFailed",
            "++++-",
        ),
        (
            |world| {
                on_machine(world, "control-plane", |machine| {
                    set(&mut machine.status.conditions, "NodeHealthy", "False", "NodeNotReady");
                });
            },
            Progressing,
            "host 1 (target-1): its node is not Ready: NodeNotReady",
            "+++-+",
        ),
        (
            |world| {
                on_machine(world, "worker", |machine| {
                    "v1.32.0+k3s1".clone_into(&mut machine.status.node_info.kubelet_version);
                });
            },
            Progressing,
            "host 2 (target-2): its node runs Kubernetes v1.32.0, the cluster has v1.33.1",
            "++++-",
        ),
        (
            |world| {
                on_machine(world, "worker", |machine| {
                    machine.status.node_ref = Some(from(json!({"name": "target-4"})));
                });
            },
            Progressing,
            "host 2 (target-2): its Machine core-worker-target-2-",
            "++++-",
        ),
        (
            |world| {
                on_machine(world, "worker", |machine| {
                    machine.metadata.deletion_timestamp = Some(from(json!("2026-01-01T00:00:00Z")));
                });
            },
            Progressing,
            "host 2 (target-2): its Machine core-worker-target-2-",
            "++++-",
        ),
        (
            |world| world.template_goes_or_comes(0).then_some(()).unwrap(),
            Fulfilled,
            "cluster is ready: 1 master, 1 worker",
            "+++++",
        ),
        (
            |world| world.cluster_is_paused_or_resumed(0).then_some(()).unwrap(),
            Fulfilled,
            "cluster is ready: 1 master, 1 worker; paused: Cluster core (spec.paused)",
            "+++++",
        ),
        (
            |world| world.cluster_is_deleted_by_hand(0).then_some(()).unwrap(),
            Progressing,
            "Cluster core is being deleted, not by this operator",
            "+++-+",
        ),
        (
            |world| {
                world.edit_request("one", |request| {
                    request
                        .spec
                        .template_parameters
                        .hosts
                        .as_mut()
                        .unwrap()
                        .workers
                        .push(from(json!({"hostId": 9, "hostName": "target-9"})));
                });
            },
            Progressing,
            "host 9 (target-9) is not registered in namespace site-a",
            "++-+?",
        ),
    ];
    for (befalls, state, message, told_stages) in cases {
        let mut world = running();
        befalls(&mut world);
        world.reconcile("one");
        assert_eq!(world.state("one"), Some(state), "{}", world.message("one"));
        assert!(world.message("one").starts_with(message), "{} is not {message}", world.message("one"));
        assert_eq!(stages(&world), told_stages, "{message}");
        assert!(status(&world).provisioned_resource_set.is_some(), "{message}");
    }
}

/// However many hosts there are, and whatever is said of them, half of the 1.5 MiB that etcd takes is left.
#[test]
fn a_status_has_an_end() {
    const HOSTS: usize = 407;
    let endless = "x".repeat(100_000);
    let host = |number: usize| HostStatus {
        k8s_version: None,
        host_name: format!("{number:063}"),
        host_id: format!("{number:063}"),
        role: "control-plane".to_owned(),
        state: HOST_FAILED.to_owned(),
        message: endless.clone(),
        support_bundle: Some(HostFile {
            name: "x".repeat(63),
            state: "Done".to_owned(),
            path: Some("x".repeat(100)),
            bytes: Some(i64::MAX),
            sha256: Some("x".repeat(64)),
            message: String::new(),
        }),
        snapshot: None,
    };
    let blocked = StageState::Blocked { reason: reason::HOSTS_UNAVAILABLE, message: endless.clone(), terminal: true };
    let report = Report {
        progress: Progress::Provisioning(Provisioning {
            stages: vec![Stage::new(conditions::HOSTS_RESERVED, blocked)],
            has_begun: true,
            exists: true,
            ready: endless.clone(),
            degraded: (0..HOSTS).map(|number| format!("{number}{endless}")).collect(),
            upcoming: Vec::new(),
            certificates: None,
            paused: Some(Pause { message: endless.clone(), delays: String::new() }),
        }),
        resources: Some(ProvisionedResourceSet {
            o_cloud_node_cluster_id: Some("0".repeat(36)),
            o_cloud_infrastructure_resource_ids: vec!["0".repeat(36); HOSTS],
        }),
        extensions: StatusExtensions { hosts: (0..HOSTS).map(host).collect(), ..StatusExtensions::default() },
    };
    let request = request("one", "core", &[1], &[2]);
    let status = assess(&request, &report, Some(&endless), Timestamp::UNIX_EPOCH).status;
    let message = &status.provisioning_status.provisioning_message;
    assert!(message.ends_with('…') && message.len() <= MESSAGE_MAX, "{}", message.len());
    assert_eq!(find(&status.conditions, conditions::READY).map(|ready| &ready.message), Some(message));
    assert!(status.extensions.hosts.iter().all(|host| host.message.ends_with('…')));
    let size = serde_json::to_vec(&status).unwrap().len();
    assert!(size < 768 * 1024, "{size} bytes");
}

/// A node that is not Ready may lack its pod network: what was not applied is told, and forgotten when it was.
#[test]
fn a_resource_of_the_pod_network_that_was_not_applied_is_told() {
    let mut world = running();
    let cni = world.resource_sets.get_mut("cni").unwrap();
    cni.spec.resources = from(json!([{"kind": "Secret", "name": "keys"}, {"kind": "ConfigMap", "name": "cni"}]));
    on_machine(&mut world, "worker", |machine| {
        set(&mut machine.status.conditions, "NodeHealthy", "False", "NodeNotReady");
    });
    let not_ready = "host 2 (target-2): its node is not Ready: NodeNotReady";
    let told = |world: &mut World, applied: &[&str]| {
        let resources: Vec<_> = [("Secret", "keys"), ("ConfigMap", "cni")]
            .into_iter()
            .filter(|(kind, _)| applied.contains(kind))
            .map(|(kind, name)| json!({"kind": kind, "name": name, "applied": true, "hash": "sha256:1"}))
            .collect();
        let bindings = json!([{"clusterResourceSetName": "cni", "resources": resources}]);
        let binding =
            from(json!({"metadata": {"name": "core", "namespace": NAMESPACE}, "spec": {"bindings": bindings}}));
        world.resource_set_bindings.insert("core".to_owned(), binding);
        world.reconcile("one");
        world.message("one")
    };
    world.reconcile("one");
    assert_eq!(world.message("one"), not_ready, "Cluster API has not tried yet");
    let lacks =
        |what: &str| format!("{not_ready}; ClusterResourceSet site-a/cni has not applied {what} in namespace site-a");
    let one = "ConfigMap cni to the cluster yet; if this does not change, create it";
    assert_eq!(told(&mut world, &["Secret"]), lacks(one));
    let both = "Secret keys and ConfigMap cni to the cluster yet; if this does not change, create them";
    assert_eq!(told(&mut world, &[]), lacks(both));
    assert_eq!(told(&mut world, &["Secret", "ConfigMap"]), not_ready);
}

pub fn on_machine(world: &mut World, owner: &str, change: impl FnOnce(&mut cluster_api::machine::Machine)) {
    change(&mut world.machines.values_mut().find(|machine| machine.owner.1.contains(owner)).unwrap().record);
}

pub fn set(conditions: &mut Vec<CapiCondition>, type_: &str, status: &str, reason: &str) {
    conditions.retain(|condition| condition.type_ != type_);
    conditions.push(from(json!({"type": type_, "status": status, "reason": reason})));
}

/// While a cluster's API server does not answer, its Machines say what was last known of their nodes.
#[test]
fn nodes_of_a_cluster_that_does_not_answer_are_not_called_ready() {
    let mut world = running();
    // What is only short is tolerated.
    world.second += 600;
    let ready_nodes = |world: &World| status(world).extensions.ready_nodes.unwrap();
    world.edit_control_planes(|object| object.status.counts.ready_replicas = 0);
    world.reconcile("one");
    assert_eq!((world.state("one"), ready_nodes(&world).as_str()), (Some(Progressing), "1/2"));
    let probe = json!({
        "type": "RemoteConnectionProbe", "status": "False", "reason": "ProbeFailed",
        "message": "Remote connection probe failed, probe last succeeded at 2026-01-01T00:00:00Z",
    });
    world.edit_cluster("core", |cluster| cluster.status.conditions.push(from(probe)));
    world.reconcile("one");
    let told = "Cluster API cannot connect to Cluster core (ProbeFailed: Remote connection probe failed, probe last succeeded at \
        2026-01-01T00:00:00Z), so the states of its nodes are not known; check that host 1 (target-1) is up and that the cluster's API answers \
        at 10.0.0.1:6443";
    is(&world, Progressing, told, "+++-?", ["Unknown", "Unknown"]);
    assert_eq!(ready_nodes(&world), "0/2");
    let host = status(&world).extensions.hosts[1].clone();
    assert_eq!(host.message, "the state of its node is not known: Cluster API cannot connect to the cluster");
    world.edit_cluster("core", |cluster| cluster.status.conditions.clear());
    world.settle();
    is(&world, Fulfilled, "cluster is ready: 1 master, 1 worker", "+++++", ["Ready", "Ready"]);
}

/// The certificates of the control plane are told 60 days before they end, with a date and not with a time that is left.
#[test]
fn certificates_that_end_are_told_in_time() {
    const DAY: i64 = 24 * 60 * 60;
    let days = |count: u64| Some(Duration::from_secs(count * 24 * 60 * 60));
    let mut world = running();
    let ends_in = |world: &mut World, days: i64| {
        let end = Timestamp::from_second(world.second + days * DAY).unwrap().to_string();
        on_machine(world, "control-plane", |machine| {
            machine.status.certificates_expiry_date = Some(from(json!(end)));
        });
        end
    };
    ends_in(&mut world, 365);
    assert_eq!(world.assess("one").recheck, days(30), "a timer has its limits");
    let end = ends_in(&mut world, 61);
    assert_eq!(world.assess("one").recheck, days(1));
    world.reconcile("one");
    assert_eq!(world.message("one"), "cluster is ready: 1 master, 1 worker");
    world.second += DAY;
    world.reconcile("one");
    let told = format!(
        "the certificates of the control plane on target-1 are valid until {}, as Cluster API read them last. The unit o2ims-host renews them, \
         and does not report from there; to put it there: ansible-playbook ansible/unit.yaml -e hosts=target-1. Or on each master run \"kubeadm certs renew all\"",
        &end[..10]
    );
    assert_eq!(world.state("one"), Some(Fulfilled));
    assert!(world.message("one").contains(&told), "{}", world.message("one"));
    let degraded = find(&status(&world).conditions, conditions::DEGRADED).unwrap().clone();
    assert!(degraded.status == "True" && degraded.message.starts_with(&told), "{degraded:?}");
    assert_eq!(world.assess("one").recheck, None);
    // It is said once, not with every look.
    let revision = world.revision;
    world.second += 70 * DAY;
    world.reconcile("one");
    assert_eq!(world.revision, revision);
}

const BUDGET: &str = "the drain of its node waits for Pod default/web-1 (PodDisruptionBudget web does not allow the eviction), Pods a/b, a/c, a/d \
    (being deleted, not ended yet). To continue, add replicas on other nodes, change the PodDisruptionBudget, or delete the pod";

/// What Cluster API says of a drain (`ConditionMessage` of the Machine controller's drain).
fn drain(healthy: u32, more: &str) -> String {
    format!(
        "Drain not completed yet (started at 2026-01-01T00:00:00Z):\n\
         * Pod default/web-1: cannot evict pod as it would violate the pod's disruption budget. The disruption budget web needs 2 healthy \
         pods and has {healthy} currently\n\
         * Pods a/b, a/c, a/d{more}: deletionTimestamp set, but still not removed from the Node\n\
         * 2 Pods with other issues\n\
         After above Pods have been removed from the Node, the following Pods will be evicted: a/e"
    )
}

pub fn deleting_condition(reason: &str, message: &str) -> CapiCondition {
    from(json!({"type": "Deleting", "status": "True", "reason": reason, "message": message}))
}

/// What holds up the deletion of a Machine is told in Cluster API's words, without what changes at every try.
#[test]
fn a_machine_that_cannot_leave_says_why() {
    let volumes =
        "Waiting for Node volumes to be detached (started at 2026-01-01T00:00:00Z)\n* PersistentVolumeClaims: a/b, a/c";
    let unnamed = "* Pod a/b: cannot evict pod as it would violate the pod's disruption budget.";
    let cases: [(&str, &str, &str); 7] = [
        (
            "DrainingNode",
            unnamed,
            "; the drain of its node waits for Pod a/b (a PodDisruptionBudget does not allow the eviction). To continue, add replicas on other \
             nodes, change the PodDisruptionBudget, or delete the pod",
        ),
        ("DrainingNode", &drain(2, ""), &format!("; {BUDGET}")),
        ("DrainingNode", &drain(1, ", ... (3 more)"), &format!("; {BUDGET}")),
        (
            "WaitingForVolumeDetach",
            volumes,
            "; Cluster API waits until the volumes of its node are detached (PersistentVolumeClaims: a/b, a/c). If they stay, look at the \
             VolumeAttachments of the cluster",
        ),
        (
            "WaitingForPreTerminateHook",
            "Waiting for pre-terminate hooks to succeed (hooks: pre-terminate.delete.hook.machine.cluster.x-k8s.io/backup,\
             pre-terminate.delete.hook.machine.cluster.x-k8s.io/kcp-cleanup)",
            "; Cluster API waits until the annotation pre-terminate.delete.hook.machine.cluster.x-k8s.io/backup is removed from it",
        ),
        (
            "WaitingForPreTerminateHook",
            "Waiting for pre-terminate hooks to succeed (hooks: pre-terminate.delete.hook.machine.cluster.x-k8s.io/kcp-cleanup)",
            "",
        ),
        ("WaitingForInfrastructureDeletion", "Waiting for ByoMachine to be deleted", ""),
    ];
    for (reason, message, told) in cases {
        let mut world = running();
        on_machine(&mut world, "worker", |machine| {
            machine.metadata.deletion_timestamp = Some(from(json!("2026-01-01T00:00:00Z")));
            machine.status.conditions.push(deleting_condition(reason, message));
        });
        world.reconcile("one");
        let said = world.message("one");
        let (machine, why) = said.split_once(" is being deleted").unwrap();
        assert!(machine.starts_with("host 2 (target-2): its Machine core-worker-target-2-"), "{said}");
        assert_eq!(why, told, "{reason}");
    }
}

/// Also of a worker that the request does not name any more.
#[test]
fn a_removed_worker_that_cannot_leave_says_why() {
    let mut world = running();
    world.edit_request("one", |request| {
        request.spec.template_parameters.hosts.as_mut().unwrap().workers.clear();
    });
    world.reconcile("one");
    assert!(world.machine_is_taken_down(0));
    on_machine(&mut world, "worker", |machine| {
        machine.status.conditions.push(deleting_condition("DrainingNode", &drain(1, "")));
    });
    world.reconcile("one");
    let said = world.message("one");
    assert!(said.starts_with("scaling cluster core from 1 to 0 workers; Machine core-worker-target-2-"), "{said}");
    assert!(said.ends_with(&format!(" on target-2: {BUDGET}")), "{said}");
    let host = status(&world).extensions.hosts[1].clone();
    assert_eq!(host.state, "Cleaning");
    assert!(host.message.ends_with(&format!(" is being deleted; {BUDGET}")), "{}", host.message);
    world.settle();
    assert_eq!(world.message("one"), "cluster is ready: 1 master, 0 workers");
}

/// The cluster's objects come to a machine that has a host.
pub const BEGINS: [Move; 5] = [
    World::cluster_is_noticed,
    World::part_is_noticed,
    World::cluster_is_adopted,
    World::machine_is_made,
    World::machine_takes_a_host,
];

/// The master's agent has been given its script.
pub fn bootstrapping(dialect: ByohVariant) -> World {
    let mut world = world(dialect);
    for _ in 0..6 {
        world.reconcile("one");
    }
    after(&mut world, &BEGINS);
    world
}

/// Failures of a host while the cluster comes up are told with the host's name and the agent's words.
#[test]
fn a_host_that_fails_is_named() {
    type Case = (Move, &'static str);
    let cases: [Case; 2] = [
        (World::script_fails, "host 1 (target-1): bootstrap failed: CloudInitExecutionFailed"),
        (World::agent_falls_silent, "host 1 (target-1): is not alive: HeartbeatTimeout"),
    ];
    for (fails, message) in cases {
        let mut world = bootstrapping(ByohVariant::Platform9);
        assert!(fails(&mut world, 0));
        world.reconcile("one");
        is(&world, Progressing, message, "+++-?", ["Failed", "Reserved"]);
        world.heal();
        world.settle();
        assert_eq!(world.state("one"), Some(Fulfilled));
    }
}

/// What the scripts on a server report is told in their words.
#[test]
fn what_a_server_reports_is_told() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/provisioner/byoh/installer");
    let scripts = scripts.read_dir().unwrap().map(|script| std::fs::read_to_string(script.unwrap().path()).unwrap());
    let of_installer: Vec<_> = scripts.flat_map(|script| messages::script_texts(&script)).collect();
    assert!(of_installer.len() > 20, "{of_installer:?}");
    let of_kubeadm = "kubeadm init: [ERROR Port-6443]: Port 6443 is in use".to_owned();
    let install =
        ("K8sComponentsInstallationSucceeded", "K8sComponentsInstallationFailed", "installation of Kubernetes");
    let bootstrap = ("K8sNodeBootstrapSucceeded", "CloudInitExecutionFailed", "bootstrap");
    let failures = of_installer.into_iter().map(|words| (install, words)).chain([(bootstrap, of_kubeadm)]);
    let bootstrapping = bootstrapping(ByohVariant::Platform9);
    for ((type_, reason, what), words) in failures {
        let mut world = bootstrapping.clone();
        world.edit_host("target-1", |host| {
            host.annotations_mut().insert(names::FAILURE_ANNOTATION.to_owned(), words.clone());
            host.status.conditions.retain(|condition| condition.type_ != type_);
            let failed = json!({"type": type_, "status": "False", "severity": "Error", "reason": reason});
            host.status.conditions.push(from(failed));
        });
        world.reconcile("one");
        let told = format!("host 1 (target-1): {what} failed: {words}");
        assert_eq!((world.state("one"), world.message("one")), (Some(Progressing), told));
    }
}

/// A worker that has not joined: what its Machine says, and what a join token that is lost takes.
#[test]
fn a_machine_that_fails_before_it_is_a_node_is_told() {
    let joining = || {
        let mut world = world(ByohVariant::Platform9);
        world.settle();
        world.edit_request("one", |request| {
            request.spec.template_parameters.hosts.as_mut().unwrap().workers.push(from(host_refs(&[3])[0].clone()));
        });
        for _ in 0..4 {
            world.reconcile("one");
            let begins: [Move; 4] = [
                World::part_is_noticed,
                World::cluster_is_adopted,
                World::machine_is_made,
                World::machine_takes_a_host,
            ];
            after(&mut world, &begins);
        }
        world
    };
    let mut failed = joining();
    on_machine(&mut failed, "target-3", |machine| {
        let deleted = json!({
            "type": "InfrastructureReady", "status": "False", "reason": "ObjectDeleted",
            "message": "ByoMachine has been deleted while the Machine still exists",
        });
        machine.status.conditions.push(from(deleted));
    });
    failed.reconcile("one");
    let message = failed.message("one");
    assert!(message.starts_with("host 3 (target-3): its Machine core-worker-target-3-"), "{message}");
    assert!(message.ends_with(" has failed: ByoMachine has been deleted while the Machine still exists"), "{message}");

    let mut lost = joining();
    lost.edit_host("target-3", |host| {
        let words = "kubeadm join: couldn't validate the identity of the API Server: token id unknown".to_owned();
        host.annotations_mut().insert(names::FAILURE_ANNOTATION.to_owned(), words);
        host.status.conditions.retain(|condition| condition.type_ != "K8sNodeBootstrapSucceeded");
        let failed = json!({"type": "K8sNodeBootstrapSucceeded", "status": "False", "severity": "Error", "reason": "CloudInitExecutionFailed"});
        host.status.conditions.push(from(failed));
    });
    lost.reconcile("one");
    let message = lost.message("one");
    assert!(message.contains("host 3 (target-3): bootstrap failed: kubeadm join: couldn't validate"), "{message}");
    assert!(
        message.ends_with("Then remove the host from the request, and add it again when it is released"),
        "{message}"
    );
}

/// Parts of a running cluster that another client deletes.
#[test]
fn parts_on_their_way_out_are_told() {
    let mut world = running();
    let name = world.byo_clusters.keys().next().unwrap().clone();
    world.delete(Kind::ByoCluster, &name);
    world.reconcile("one");
    let told = format!("ByoCluster {name} is being deleted, not by this operator. This cannot be undone");
    assert_eq!(world.state("one"), Some(Fulfilled));
    assert!(world.message("one").starts_with(&format!("cluster is ready: 1 master, 1 worker; {told}")));
    assert!(find(&status(&world).conditions, conditions::DEGRADED).unwrap().message.starts_with(&told));

    let mut world = running();
    assert!(world.deployment_is_deleted_by_hand(0));
    world.reconcile("one");
    let degraded = find(&status(&world).conditions, conditions::DEGRADED).unwrap().message.clone();
    assert!(
        degraded.contains("MachineDeployment core-worker-target-2 is being deleted, not by this operator"),
        "{degraded}"
    );
}

/// A finalizer that nobody removes is named, when everything else is gone.
#[test]
fn a_finalizer_of_another_client_on_the_cluster_is_told() {
    let mut world = running();
    world.delete_request("one");
    world.reconcile("one");
    world.edit_cluster("core", |cluster| {
        cluster.metadata.finalizers = Some(vec!["cluster.cluster.x-k8s.io".to_owned(), "example.com/audit".to_owned()]);
        cluster.status.conditions = vec![deleting_condition("WaitingForWorkersDeletion", "* 1 worker")];
    });
    world.reconcile("one");
    assert_eq!(world.message("one"), "deleting Cluster core (WaitingForWorkersDeletion: 1 worker)");
    world.edit_cluster("core", |cluster| {
        cluster.metadata.finalizers = Some(vec!["example.com/audit".to_owned()]);
        cluster.status.conditions = vec![deleting_condition("DeletionCompleted", "Deletion completed")];
    });
    world.reconcile("one");
    let told = "Cluster API has deleted everything of Cluster core, which stays until these finalizers of other clients are removed: \
        example.com/audit";
    assert_eq!(world.message("one"), told);
}

/// What no host shows is told in Cluster API's words, until a host shows more.
#[test]
fn a_machine_that_cannot_be_created_is_told() {
    let mut world = world(ByohVariant::Upstream);
    for _ in 0..6 {
        world.reconcile("one");
    }
    world.edit_control_planes(|object| {
        let blocked = json!({
            "type": "ScalingUp", "status": "True", "reason": "ScalingUp",
            "message": "Scaling up from 0 to 1 replicas is blocked because:\n* ByoMachineTemplate does not exist",
        });
        object.status.conditions.push(from(blocked));
    });
    world.reconcile("one");
    let fails = "KubeadmControlPlane core-control-plane: ScalingUp: Scaling up from 0 to 1 replicas is blocked because: ByoMachineTemplate does \
        not exist";
    is(&world, Progressing, fails, "+++-?", ["Reserved", "Reserved"]);
    after(
        &mut world,
        &[
            World::cluster_is_noticed,
            World::part_is_noticed,
            World::cluster_is_adopted,
            World::machine_is_made,
            World::machine_takes_a_host,
        ],
    );
    let waits = "host 1 (target-1): its agent has been given the bootstrap script and has not reported back yet";
    is(&world, Progressing, waits, "+++-?", ["Bootstrapping", "Reserved"]);
}

/// A wrong edit of the request, or a template that is gone, keeps no machine of the running cluster from its scripts.
#[test]
fn a_machine_gets_its_scripts_whatever_is_wrong_with_the_request() {
    type Case = (fn(&mut World), &'static str);
    let cases: [Case; 2] = [
        (
            |world| {
                world.edit_request("one", |request| {
                    let hosts = request.spec.template_parameters.hosts.as_mut().unwrap();
                    hosts.workers.push(from(host_refs(&[9])[0].clone()));
                });
            },
            "host 9 (target-9) is not registered in namespace site-a",
        ),
        (
            |world| {
                world.template_goes_or_comes(0);
            },
            "cluster is ready: 1 master, 1 worker",
        ),
    ];
    for (goes_wrong, message) in cases {
        let mut world = World::new(ByohVariant::Upstream, json!({"install": {"method": "installer"}}), 4);
        world.submit(request("one", "core", &[1], &[2]));
        world.settle();
        let scripts = |world: &World| world.hosts["target-2"].spec.installation_secret.clone().unwrap().name;
        let before = scripts(&world);
        goes_wrong(&mut world);
        assert!(world.worker_machine_is_deleted_by_hand(0));
        // BYOH can give a host away before its agent's last write; a Machine that is deleted by hand risks that.
        let cleaning: [Move; 4] = [
            World::machine_is_taken_down,
            World::agent_starts_cleaning,
            World::agent_lets_go,
            World::agent_ends_cleaning,
        ];
        after(&mut world, &cleaning);
        world.settle();
        assert_eq!(world.message("one"), message);
        assert!(world.hosts["target-2"].bootstrapped());
        assert_ne!(scripts(&world), before);
    }
}

/// What the last write ran into is what the request waits for.
#[test]
fn an_obstacle_is_told() {
    let world = world(ByohVariant::Upstream);
    let flight = world.begin("one").unwrap();
    let told = flight.assess(Some("Cluster site-a/core: denied"), world.now());
    assert_eq!(told.status.provisioning_status.provisioning_message, "Cluster site-a/core: denied");
    assert_eq!(told.status.provisioning_status.provisioning_state, Pending);
}

/// The status is the same after it was stored and read.
#[test]
fn a_status_survives_the_round_trip() {
    let mut world = running();
    for _ in 0..2 {
        let status = status(&world);
        assert_eq!(from::<ProvisioningRequestStatus>(serde_json::to_value(&status).unwrap()), status);
        world.delete_request("one");
        world.reconcile("one");
    }
}

/// While Cluster API counts a changed object's nodes again, or replaces or removes Machines, no node is called missing.
#[test]
fn a_change_that_cluster_api_carries_out_is_no_missing_node() {
    let mut world = running();
    world.edit_control_planes(|object| object.metadata.generation = Some(9));
    world.reconcile("one");
    let waits = "waiting for Cluster API to report on the last change of KubeadmControlPlane core-control-plane; if this does not change, check \
        that its controllers run";
    assert_eq!((world.state("one"), world.message("one").as_str()), (Some(Progressing), waits));
    world.edit_control_planes(|object| {
        object.status.counts.observed_generation = Some(9);
        object.status.counts.up_to_date_replicas = 0;
    });
    world.reconcile("one");
    let waits =
        "waiting for KubeadmControlPlane core-control-plane: 1 of 1 replicas ready, of 1 in all, 0 of them up to date";
    assert!(world.message("one").starts_with(waits), "{}", world.message("one"));
}

/// So that a default can be written out in the request.
#[test]
fn the_status_has_the_networks_of_the_cluster() {
    let extensions = status(&running()).extensions;
    assert_eq!(extensions.pod_cidr.as_deref(), Some("192.168.0.0/16"));
    assert_eq!(extensions.service_cidr.as_deref(), Some("10.128.0.0/12"));
}
