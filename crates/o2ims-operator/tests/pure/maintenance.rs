//! Maintenance windows of upgrades, and drains: before an upgrade, and of hosts that leave.

use cluster_api::Kind;
use cluster_api::byoh::ByohVariant;
use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_operator::provisioner::step::Step;
use o2ims_types::{ProvisioningState, conditions, names};
use operator_kit::write::status::find;
use serde_json::{Value, json};

use crate::model::{World, from, host_refs, request};
use crate::status::status;
use crate::upgrades::{FROM, TO, annotate, ask_for, running_with, says, until};
use ProvisioningState::{Failed, Fulfilled, Progressing};

/// Saturdays at 22:00, for four hours. The model begins on a Monday, 1970-01-12.
fn on_saturdays() -> Value {
    json!({"windows": [{"days": ["Sat"], "start": "22:00", "duration": "4h"}]})
}

fn set_time(world: &mut World, time: &str) {
    world.second = time.parse::<Timestamp>().unwrap().as_second();
    world.reconcile("one");
}

fn upgrades_given(world: &World) -> usize {
    let jobs = world.hosts.values().filter_map(|host| host.annotations().get(names::JOB_ANNOTATION));
    jobs.filter(|job| job.starts_with("upgrade-")).count()
}

#[test]
fn an_upgrade_begins_in_its_window() {
    let mut world = running_with(&on_saturdays());
    ask_for(&mut world, TO);
    world.settle();
    let words = "upgrading v1.35.1 to v1.36.1: host 1 (target-1): waits for the maintenance window that begins at 1970-01-17T22:00:00Z \
                 (spec.upgrade.windows of the ClusterTemplate). To begin at once, remove the windows there; or for this host: kubectl annotate pr one -n site-a \
                 o2ims.provisioning.oran.org/continue=v1.36.1/target-1 --overwrite; for every host: kubectl annotate pr one -n site-a \
                 o2ims.provisioning.oran.org/continue=v1.36.1 --overwrite";
    says(&world, words);
    assert_eq!((world.state("one"), upgrades_given(&world)), (Some(Progressing), 0));
    let upgraded = find(&status(&world).conditions, conditions::UPGRADED).unwrap().clone();
    assert_eq!((upgraded.status.as_str(), upgraded.reason.as_str()), ("False", "WaitingForWindow"));

    // It says the same at any time before, and comes back when the window begins.
    let before = status(&world);
    for time in ["1970-01-13T22:30:00Z", "1970-01-17T21:59:59Z"] {
        set_time(&mut world, time);
        assert_eq!(status(&world), before, "{time}");
        let begin: Timestamp = "1970-01-17T22:00:00Z".parse().unwrap();
        let wait = world.assess("one").recheck.unwrap();
        assert_eq!(i64::try_from(wait.as_secs()).unwrap(), begin.as_second() - world.second, "{time}");
    }

    set_time(&mut world, "1970-01-17T22:00:00Z");
    until(&mut world, "host 1 (target-1): 2 of 5");
    assert_eq!(world.assess("one").recheck, None);

    // What has begun goes on to its end, and is handed over; the next host waits for the next window.
    set_time(&mut world, "1970-01-18T02:00:00Z");
    until(&mut world, "handing KubeadmControlPlane core-control-plane over to Cluster API");
    world.settle();
    says(&world, "host 2 (target-2): waits for the maintenance window that begins at 1970-01-24T22:00:00Z");
    assert_eq!(upgrades_given(&world), 1);
    set_time(&mut world, "1970-01-25T01:59:59Z");
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert_eq!(world.assess("one").recheck, None);
}

#[test]
fn an_upgrade_begins_outside_of_its_window_at_its_owners_word() {
    let mut world = running_with(&on_saturdays());
    ask_for(&mut world, TO);
    world.settle();
    for (word, words) in [
        ("v1.36.2", "host 1 (target-1): waits for the maintenance window"),
        ("v1.36.1/target-1", "host 2 (target-2): waits for the maintenance window"),
        ("v1.36.1", "cluster is ready: 1 master, 1 worker"),
    ] {
        annotate(&mut world, names::CONTINUE_ANNOTATION, Some(word));
        world.settle();
        says(&world, words);
    }

    let mut world = running_with(&on_saturdays());
    ask_for(&mut world, TO);
    world.settle();
    world.templates.get_mut("base-v1").unwrap().spec.upgrade.windows.clear();
    world.revision += 1;
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
}

/// Another try waits for a window, too.
#[test]
fn another_try_begins_in_a_window() {
    let mut world = running_with(&on_saturdays());
    ask_for(&mut world, TO);
    world.settle();
    set_time(&mut world, "1970-01-17T23:00:00Z");
    until(&mut world, "host 1 (target-1): 2 of 5");
    world.job_fails(0);
    set_time(&mut world, "1970-01-18T08:00:00Z");
    assert_eq!(world.state("one"), Some(Failed));
    world.speak_the_words();
    world.settle();
    says(&world, "host 1 (target-1): waits for the maintenance window that begins at 1970-01-24T22:00:00Z");
    assert_eq!(world.state("one"), Some(Progressing));
    set_time(&mut world, "1970-01-24T22:00:00Z");
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
}

/// The word of the owner comes first, then the window; a pause hides both.
#[test]
fn a_window_is_one_of_several_reasons_to_wait() {
    let mut world = running_with(&json!({
        "windows": [{"start": "22:00", "duration": "1h"}], "pauseAfter": "ControlPlane",
    }));
    ask_for(&mut world, TO);
    world.settle();
    says(&world, "host 1 (target-1): waits for the maintenance window that begins at 1970-01-12T22:00:00Z");
    annotate(&mut world, names::PAUSED_ANNOTATION, Some("true"));
    world.settle();
    assert!(world.message("one").starts_with("paused by annotation"), "{}", world.message("one"));
    annotate(&mut world, names::PAUSED_ANNOTATION, None);
    set_time(&mut world, "1970-01-12T22:10:00Z");
    world.settle();
    says(
        &world,
        "host 2 (target-2): waits: spec.upgrade.pauseAfter of the ClusterTemplate is ControlPlane; to go on, at once and whatever \
         spec.upgrade.windows says, with this host: kubectl annotate",
    );
}

/// Whether the job of each host that is upgraded has it drained, and for how long at most.
fn drains(timeouts: &Value, upgrade: &Value, workers: &[u32]) -> Vec<(String, String)> {
    let spec = json!({
        "install": {"method": "installer"}, "defaults": {"k8sVersion": FROM}, "upgrade": upgrade, "timeouts": timeouts,
    });
    let mut world = World::new(ByohVariant::Upstream, spec, 4);
    world.submit(request("one", "core", &[1], workers));
    world.settle();
    ask_for(&mut world, TO);
    let mut given = Vec::new();
    for _ in 0..200 {
        for step in world.reconcile("one") {
            let Step::GiveJob(order) = step else { continue };
            let script: ByteString = from(order.secret["data"]["script"].clone());
            let script = String::from_utf8(script.0).unwrap();
            let drain = script.split_once(" drain='").and_then(|(_, rest)| rest.split('\'').next()).unwrap();
            if order.job.starts_with("upgrade-") {
                given.push((order.host, drain.to_owned()));
            } else {
                assert_eq!(drain, "", "{}", order.job);
            }
        }
        crate::upgrades::go_on_without_the_operator(&mut world);
    }
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    given
}

#[test]
fn a_worker_is_drained_where_its_template_wants_it_and_another_one_is_ready() {
    let (never, possible) = (json!({}), json!({"drain": "WhenPossible"}));
    for (timeouts, upgrade, workers, expected) in [
        (json!({}), &never, &[2, 3][..], &["", "", ""][..]),
        (json!({"drain": "10m"}), &never, &[2, 3], &["", "", ""]),
        (json!({}), &possible, &[2, 3], &["", "0", "0"]),
        (json!({"drain": "1h30m"}), &possible, &[2, 3], &["", "5400", "5400"]),
        (json!({"drain": "10m"}), &possible, &[2], &["", ""]),
    ] {
        let given = drains(&timeouts, upgrade, workers);
        let limits: Vec<_> = given.iter().map(|(_, limit)| limit.as_str()).collect();
        assert_eq!(limits, expected, "{given:?} with {timeouts} and {upgrade}");
    }
}

/// A plan says that pods are evicted.
#[test]
fn a_plan_tells_of_a_drain() {
    let spec = json!({
        "install": {"method": "installer"}, "defaults": {"k8sVersion": FROM}, "upgrade": {"drain": "WhenPossible"},
    });
    let mut world = World::new(ByohVariant::Upstream, spec, 4);
    world.submit(request("one", "core", &[1], &[2, 3]));
    world.settle();
    annotate(&mut world, names::PLAN_ANNOTATION, Some("true"));
    ask_for(&mut world, TO);
    says(
        &world,
        "target-2 is upgraded in place from v1.35.1 to v1.36.1: its pods are evicted if another worker is Ready, and the kubelet is restarted",
    );
}

/// The limits that objects and Machines have, by kind.
fn limits(world: &World) -> [Vec<Option<i32>>; 3] {
    let of_deployments = world.deployments.values().map(|object| &object.spec.template.spec.deletion);
    let of_control_planes = world.control_planes.values().map(|object| &object.spec.machine_template.spec.deletion);
    let of_machines = world.machines.values().map(|machine| &machine.record.spec.deletion);
    [
        of_deployments.map(|deletion| deletion.node_drain_timeout_seconds).collect(),
        of_control_planes.map(|deletion| deletion.node_drain_timeout_seconds).collect(),
        of_machines.map(|deletion| deletion.node_drain_timeout_seconds).collect(),
    ]
}

fn behind_an_address(template: &Value) -> World {
    let mut world = World::new(ByohVariant::Upstream, template.clone(), 6);
    let mut one = request("one", "core", &[1, 2, 3], &[4, 5]);
    one.spec.template_parameters.control_plane_endpoint = Some(from(json!({"host": "10.0.0.100"})));
    world.submit(one);
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    world
}

#[test]
fn drains_of_a_new_cluster_have_the_limit_of_its_template() {
    let world = behind_an_address(&json!({"timeouts": {"drain": "10m"}}));
    assert_eq!(limits(&world), [vec![Some(600); 2], vec![Some(600)], vec![Some(600); 5]]);
    let world = behind_an_address(&json!({}));
    assert_eq!(limits(&world), [vec![None; 2], vec![None], vec![None; 5]]);
}

/// A limit that a template gets later changes nothing of a cluster that runs. It counts when a host is removed.
#[test]
fn a_later_limit_counts_for_hosts_that_leave() {
    let mut world = behind_an_address(&json!({}));
    world.templates.get_mut("base-v1").unwrap().spec.timeouts = from(json!({"drain": "90s"}));
    world.revision += 1;
    assert_eq!(world.reconcile("one"), []);
    world.settle();
    assert_eq!(limits(&world), [vec![None; 2], vec![None], vec![None; 5]]);

    let hosts = |world: &mut World, masters: &[u32], workers: &[u32]| {
        let (masters, workers) = (from(host_refs(masters)), from(host_refs(workers)));
        world.edit_request("one", |one| {
            let hosts = one.spec.template_parameters.hosts.as_mut().unwrap();
            (hosts.masters, hosts.workers) = (masters, workers);
        });
    };
    hosts(&mut world, &[1, 2, 3], &[4]);
    let deleted = world.reconcile("one");
    assert!(matches!(&deleted[..], [Step::Delete { kind: Kind::MachineDeployment, .. }]), "{deleted:?}");
    assert_eq!(world.reconcile("one"), [], "its Machine is not being deleted yet");
    assert!(world.machine_is_taken_down(0));
    let limited = world.reconcile("one");
    let [Step::PatchSpec { kind: Kind::Machine, name, spec, .. }] = &limited[..] else { panic!("{limited:?}") };
    assert_eq!(*spec, json!({"deletion": {"nodeDrainTimeoutSeconds": 90}}));
    assert!(name.contains("worker-target-5"), "{name}");
    assert_eq!(world.reconcile("one"), []);
    world.settle();
    assert_eq!(limits(&world), [vec![None], vec![None], vec![None; 4]]);

    hosts(&mut world, &[1], &[4]);
    let marks = world.reconcile("one");
    let Some(Step::PatchSpec { kind: Kind::KubeadmControlPlane, spec, .. }) = marks.first() else {
        panic!("{marks:?}")
    };
    assert_eq!(*spec, json!({"machineTemplate": {"spec": {"deletion": {"nodeDrainTimeoutSeconds": 90}}}}));
    world.settle();
    assert_eq!(world.state("one"), Some(Fulfilled), "{}", world.message("one"));
    assert_eq!(world.reconcile("one"), []);
}
