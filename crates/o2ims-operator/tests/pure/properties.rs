//! What holds in every world that can be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster_api::Kind;
use cluster_api::byoh::ByohVariant;
use cluster_api::byoh::{ByoHost, UNREGISTERING_ANNOTATION};
use kube::ResourceExt as _;
use o2ims_operator::provisioner::byoh::claim;
use o2ims_operator::provisioner::byoh::observed::Observed;
use o2ims_operator::provisioner::byoh::plan::plan;
use o2ims_operator::provisioner::byoh::report::report;
use o2ims_operator::provisioner::byoh::validate::validate;
use o2ims_operator::provisioner::step::{Manifest, Step};
use o2ims_operator::provisioning_request::status::assess;
use o2ims_types::o2ims::v1alpha1::cluster_template::{InstallMethod, UpgradeStrategy};
use o2ims_types::{ProvisioningState, names};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

use crate::model::{Flight, NAMESPACE, PROGRESS, TROUBLE, World, from, host_name, host_refs, request};
use crate::rules::{check_world, nothing_is_left};

/// The requests that are applied at the beginning.
#[derive(Clone, Debug)]
struct Setup {
    dialect: ByohVariant,
    method: InstallMethod,
    strategy: UpgradeStrategy,
    /// Hosts that have their id from the beginning; the others get it from the operator.
    labelled: u8,
    asks: Vec<Ask>,
}

#[derive(Clone, Debug)]
struct Ask {
    cluster: &'static str,
    masters: Vec<u32>,
    workers: Vec<u32>,
    endpoint: Option<&'static str>,
    /// Seconds after the first request.
    later: u8,
}

const NAMES: [&str; 2] = ["one", "two"];

fn ask() -> impl Strategy<Value = Ask> {
    let hosts = Just((1..=6).collect::<Vec<u32>>()).prop_shuffle();
    let cluster = prop_oneof![3 => Just("core"), 2 => Just("edge")];
    let endpoint = prop_oneof![2 => Just(None), 1 => Just(Some("10.0.0.100"))];
    (hosts, prop_oneof![3 => Just(1), 1 => Just(3)], 0..=2usize, cluster, endpoint, 0..2u8).prop_map(
        |(hosts, masters, workers, cluster, endpoint, later)| Ask {
            cluster,
            endpoint: if masters == 3 { Some(endpoint.unwrap_or("10.0.0.101")) } else { endpoint },
            workers: hosts[masters..masters + workers].to_vec(),
            masters: hosts[..masters].to_vec(),
            later,
        },
    )
}

fn setup(requests: usize) -> impl Strategy<Value = Setup> {
    let dialect = prop_oneof![
        Just((ByohVariant::Upstream, InstallMethod::None)),
        Just((ByohVariant::Upstream, InstallMethod::Installer)),
        Just((ByohVariant::Platform9, InstallMethod::Installer)),
        Just((ByohVariant::Platform9, InstallMethod::Bundle))
    ];
    (dialect, any::<bool>(), any::<u8>(), prop::collection::vec(ask(), requests)).prop_map(
        |((dialect, method), is_rolling, labelled, asks)| {
            let is_rolling = is_rolling && method != InstallMethod::None;
            let strategy = if is_rolling { UpgradeStrategy::Rolling } else { UpgradeStrategy::InPlace };
            Setup { dialect, method, strategy, labelled, asks }
        },
    )
}

impl Setup {
    fn world(&self) -> World {
        let bundle = json!({"repo": "registry.example.org/byoh"});
        let spec =
            json!({"install": {"method": self.method, "bundle": bundle}, "upgrade": {"strategy": self.strategy}});
        let mut world = World::new(self.dialect, spec, 0);
        for number in 1..=6 {
            world.register(number, self.labelled >> number & 1 == 1);
        }
        for (name, ask) in NAMES.iter().zip(&self.asks) {
            world.second += i64::from(ask.later);
            let mut request = request(name, ask.cluster, &ask.masters, &ask.workers);
            request.spec.template_parameters.control_plane_endpoint =
                ask.endpoint.map(|host| from(json!({"host": host})));
            world.submit(request);
        }
        world
    }
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Action {
    /// A whole reconcile.
    Reconcile(usize),
    /// A reconcile reads; its writes come later.
    Begin(usize),
    /// A reconcile that has begun makes its next write.
    Step(usize),
    /// The operator ends, and starts again.
    Crash,
    Progress(usize, usize),
    Trouble(usize, usize),
    Wait(u16),
}

fn actions(trouble: u32, length: usize) -> impl Strategy<Value = Vec<Action>> {
    let which = 0..NAMES.len();
    let action = prop_oneof![
        5 => which.clone().prop_map(Action::Reconcile),
        3 => which.clone().prop_map(Action::Begin),
        6 => which.prop_map(Action::Step),
        1 => Just(Action::Crash),
        12 => (0..PROGRESS.len(), 0..64usize).prop_map(|(which, pick)| Action::Progress(which, pick)),
        trouble => (0..TROUBLE.len(), 0..64usize).prop_map(|(which, pick)| Action::Trouble(which, pick)),
        1 => (0..2000u16).prop_map(Action::Wait),
    ];
    prop::collection::vec(action, 0..length)
}

/// Carries the actions out; the rules of every single write are checked on the way.
fn play(world: &mut World, actions: &[Action]) {
    let mut flights: [Option<Flight>; 2] = [None, None];
    for action in actions {
        match *action {
            Action::Reconcile(which) => {
                flights[which] = None;
                world.reconcile(NAMES[which]);
            }
            Action::Begin(which) => flights[which] = world.begin(NAMES[which]),
            Action::Step(which) => {
                if let Some(flight) = &mut flights[which] {
                    match world.step(flight) {
                        Ok(true) => {}
                        Ok(false) => {
                            world.finish(&flights[which].take().unwrap());
                        }
                        Err(_) => flights[which] = None,
                    }
                }
            }
            Action::Crash => {
                flights = [None, None];
                world.restart();
            }
            Action::Progress(which, pick) => {
                PROGRESS[which](world, pick);
            }
            Action::Trouble(which, pick) => {
                TROUBLE[which](world, pick);
            }
            Action::Wait(seconds) => world.second += i64::from(seconds),
        }
        world.second += 1;
        check_world(world);
    }
}

/// The same cases in each run, so that a change is judged by what it changes; `PROPTEST_CASES` asks for a hunt with
/// that many new ones.
pub fn config(cases: u32) -> ProptestConfig {
    let told = ProptestConfig { failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return told;
    }
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), ..told }
}

/// Everything is deleted and everything goes on: no object, no mark and no request stays.
fn ends_clean(world: &mut World) {
    for name in NAMES {
        if world.requests.contains_key(name) {
            world.delete_request(name);
        }
    }
    world.settle();
    assert_eq!(world.requests.keys().collect::<Vec<_>>(), Vec::<&String>::new(), "requests are left");
    assert_eq!(world.applied.keys().collect::<Vec<_>>(), Vec::<&(Kind, String)>::new(), "objects are left");
    for host in world.hosts.values() {
        assert_eq!(host.in_use_reason(), None, "{}", host.name_any());
        for mark in [names::REQUEST_UID_LABEL, names::ROLE_LABEL, names::LOST_LABEL] {
            assert!(!host.labels().contains_key(mark), "{} keeps {mark}", host.name_any());
        }
        for mark in [names::REQUEST_ANNOTATION, names::HOST_ID_SET_ANNOTATION, names::INSTALL_SECRET_ANNOTATION] {
            assert!(!host.annotations().contains_key(mark), "{} keeps {mark}", host.name_any());
        }
    }
}

proptest! {
    #![proptest_config(config(128))]

    /// From any world, when troubles end, the request is carried out; and when it is deleted, nothing stays.
    #[test]
    fn a_request_ends_fulfilled_and_leaves_nothing(setup in setup(1), actions in actions(4, 90)) {
        let mut world = setup.world();
        play(&mut world, &actions);
        world.heal();
        world.settle();
        if let Some(request) = world.requests.get(NAMES[0]) {
            prop_assert_eq!(world.state(NAMES[0]), Some(ProvisioningState::Fulfilled), "{}", world.message(NAMES[0]));
            let asked = crate::model::asked(request);
            let held: BTreeMap<_, _> = world.held("one-uid").into_iter().map(|host| (host.name_any(), host.labels()[names::ROLE_LABEL].clone())).collect();
            prop_assert_eq!(held, asked.into_iter().map(|(host, role)| (host, role.to_owned())).collect());
        }
        ends_clean(&mut world);
    }

    /// Two requests for the same hosts, names or endpoints: in any interleaving of their writes none takes what the
    /// other has, and when one goes the other gets its turn.
    #[test]
    fn two_requests_get_their_turn(setup in setup(2), actions in actions(2, 110)) {
        let mut world = setup.world();
        play(&mut world, &actions);
        world.heal();
        world.settle();
        let states: Vec<_> = NAMES.iter().filter_map(|name| world.state(name)).collect();
        let wanting = |world: &World| NAMES.iter().filter(|name| world.state(name).is_some_and(|state| state != ProvisioningState::Fulfilled)).count();
        let clusters = |world: &World| NAMES.iter().filter(|name| !world.made(&format!("{name}-uid")).is_empty()).count();
        // Two clusters that want a worker of each other are the one knot that only people can untie; so is what is left of one whose Cluster has vanished.
        prop_assert!(wanting(&world) < states.len().max(1) || clusters(&world) == states.len(), "{states:?}");
        let first = NAMES.into_iter().find(|name| world.state(name) == Some(ProvisioningState::Fulfilled));
        if let Some(first) = first.or_else(|| NAMES.into_iter().find(|name| world.requests.contains_key(*name))) {
            world.delete_request(first);
            world.settle();
            prop_assert!(!world.requests.contains_key(first));
            nothing_is_left(&world, &format!("{first}-uid"), &format!("{NAMESPACE}/{first}"));
        }
        for name in NAMES.into_iter().filter(|name| world.requests.contains_key(*name)) {
            prop_assert_eq!(world.state(name), Some(ProvisioningState::Fulfilled), "{}: {}", name, world.message(name));
        }
        ends_clean(&mut world);
    }

    /// From any world, servers die and everything is deleted: nothing waits for those that are given up, and they come back clean.
    #[test]
    fn a_deletion_does_not_wait_for_dead_servers(setup in setup(2), actions in actions(3, 90), dead in prop::collection::vec(0..6usize, 1..5)) {
        let mut world = setup.world();
        play(&mut world, &actions);
        world.heal();
        for host in dead {
            world.server_dies(host);
        }
        let dead: Vec<_> = world.dead.iter().cloned().collect();
        for name in NAMES.into_iter().filter(|name| world.requests.contains_key(*name)).collect::<Vec<_>>() {
            world.delete_request(name);
            if world.requests.contains_key(name) {
                world.call_lost(name, &dead.join(","));
            }
        }
        world.settle();
        prop_assert!(world.requests.is_empty(), "{:?}", NAMES.map(|name| world.message(name)));
        for host in world.hosts.values() {
            prop_assert!(host.in_use_reason().is_none() || dead.contains(&host.name_any()), "{}", host.name_any());
        }
        while world.agent_recovers(0) {}
        ends_clean(&mut world);
    }

    /// While nothing else moves, a few reconciles do all that there is to do, none of it twice, and then write nothing.
    #[test]
    fn a_plan_that_is_carried_out_leaves_an_empty_one(setup in setup(1), actions in actions(4, 90)) {
        let mut world = setup.world();
        play(&mut world, &actions);
        let mut done: Vec<Step> = Vec::new();
        for round in 0..12 {
            let before = world.revision;
            let steps = world.reconcile(NAMES[0]);
            if world.revision == before {
                break;
            }
            for step in steps {
                prop_assert!(!done.contains(&step), "twice: {:?}", step);
                done.push(step);
            }
            prop_assert!(round < 11, "does not come to rest");
        }
        // Deadlines may have passed; they are told once.
        world.second += 3600;
        world.reconcile(NAMES[0]);
        let before = world.revision;
        for _ in 0..2 {
            world.second += 7;
            world.reconcile(NAMES[0]);
        }
        prop_assert_eq!(world.revision, before, "writes although nothing changed");
    }

    /// The same input gives the same plan and the same status, whatever the order of the caches.
    #[test]
    fn the_order_of_the_caches_does_not_matter(setup in setup(2), actions in actions(3, 90)) {
        let mut world = setup.world();
        play(&mut world, &actions);
        for name in NAMES {
            let (Some(one), Some(other)) = (world.begin(name), world.begin(name)) else { continue };
            prop_assert_eq!(&one.steps, &other.steps);
            let told = |flight: &Flight| flight.assess(None, world.now()).status;
            prop_assert_eq!(told(&one), told(&other));
            if !one.request.is_new() {
                prop_assert_eq!(plan(&one.request, &one.verdict, &one.observed), one.steps);
            }
        }
    }

    /// Nothing that a request can say makes a step panic, with or without hosts and template.
    #[test]
    fn no_request_panics(parameters in parameters(), defaults in parameters(), deleted in any::<bool>(), namespace in "[a-z]{1,50}") {
        let mut world = World::new(ByohVariant::Upstream, json!({}), 2);
        world.templates.get_mut("base-v1").unwrap().spec.defaults = Some(defaults);
        let mut request = request("one", "core", &[1], &[2]);
        if let Ok(parameters) = serde_json::from_value(parameters) {
            request.spec.template_parameters = parameters;
        }
        world.submit(request);
        world.reconcile("one");
        let mut flight = world.begin("one").unwrap();
        flight.request.metadata.namespace = Some(namespace);
        if deleted {
            flight.request.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now()));
        }
        let verdict = validate(&flight.request, &flight.observed);
        plan(&flight.request, &verdict, &flight.observed);
        assess(&flight.request, &report(&flight.request, &verdict, &flight.observed), Some("obstacle"), world.now());
    }
}

/// Parameters of any kind, also such as the CRD would refuse.
fn parameters() -> impl Strategy<Value = Value> {
    let text = || prop_oneof![Just(String::new()), Just("target-1".to_owned()), Just("ä".repeat(70)), "[ -~]{0,70}"];
    let host = (text(), 0..4i32, any::<bool>()).prop_map(|(name, id, snake)| {
        if snake {
            json!({"host_id": name, "host_name": host_name(1)})
        } else {
            json!({"hostId": id, "hostName": name, "hostIp": name})
        }
    });
    let hosts = || prop::collection::vec(host.clone(), 0..4);
    let all = (hosts(), hosts(), text(), text(), text(), -1..70000i32);
    all.prop_map(|(masters, workers, name, version, cidr, port)| {
        json!({"clusterName": name, "k8sVersion": version, "podCidr": cidr, "hosts": {"masters": masters, "workers": workers},
            "controlPlaneEndpoint": {"host": name, "port": port}})
    })
}

/// Everything that is made for `workers` beside the same masters, by kind and name.
fn made_for(masters: &[u32], workers: &[u32]) -> BTreeMap<(Kind, String), Manifest> {
    let mut world = World::new(ByohVariant::Upstream, json!({}), 9);
    let mut request = request("one", "core", masters, workers);
    if masters.len() > 1 {
        request.spec.template_parameters.control_plane_endpoint = Some(from(json!({"host": "10.0.0.100"})));
    }
    world.submit(request);
    let mut made = BTreeMap::new();
    for _ in 0..10 {
        for step in world.reconcile("one") {
            if let Step::Create(manifest) | Step::Update(manifest, _) = step {
                made.insert((manifest.kind, manifest.name.clone()), manifest);
            }
        }
    }
    assert!(made.len() >= 4, "{:?}", made.keys());
    made
}

proptest! {
    #![proptest_config(config(24))]

    /// Workers come and go alone: what is made for the others, and for the control plane, is the same without them.
    #[test]
    fn a_worker_changes_nothing_but_itself(
        masters in prop_oneof![Just(vec![1]), Just(vec![1, 2, 3])],
        workers in Just((4..=9).collect::<Vec<u32>>()).prop_shuffle(),
        count in 1..5usize,
    ) {
        let all = made_for(&masters, &workers[..count]);
        let mut fewer = made_for(&masters, &workers[1..count]);
        let deployment = names::worker(NAMESPACE, "core", &host_name(workers[0]));
        let (mut own, mut shared) = (0, 0);
        for ((kind, name), manifest) in &all {
            match fewer.remove(&(*kind, name.clone())) {
                Some(other) => prop_assert_eq!(&other.object, &manifest.object),
                None if name.starts_with(&deployment) => own += 1,
                // The first worker brings what all workers share.
                None if count == 1 && *kind == Kind::KubeadmConfigTemplate => shared += 1,
                None => prop_assert!(false, "{} {} depends on another worker", kind.name(), name),
            }
        }
        prop_assert_eq!(fewer.len(), 0, "only without the worker: {:?}", fewer.keys());
        prop_assert_eq!((own, shared), (2, usize::from(count == 1)));
    }
}

/// A running cluster keeps every object that it does not have to change when workers come and go.
#[test]
fn a_running_cluster_grows_and_shrinks_without_a_touch_of_the_rest() {
    let mut world = World::new(ByohVariant::Upstream, json!({}), 6);
    world.submit(request("one", "core", &[1], &[2, 3]));
    world.settle();
    let before = world.applied.clone();
    let versions = |world: &World| -> BTreeMap<_, _> {
        world.applied.keys().map(|key| (key.clone(), world.meta(key.0, &key.1).unwrap().generation)).collect()
    };
    let generations = versions(&world);
    for workers in [vec![3, 4], vec![2, 3]] {
        world.edit_request("one", |one| {
            *one = {
                let mut one = one.clone();
                one.spec = request("one", "core", &[1], &workers).spec;
                one
            }
        });
        world.settle();
        assert_eq!(world.state("one"), Some(ProvisioningState::Fulfilled));
        for ((kind, name), generation) in versions(&world) {
            if !name.contains("target-2") && !name.contains("target-4") {
                assert_eq!(generations.get(&(kind, name.clone())), Some(&generation), "{} {name}", kind.name());
            }
        }
    }
    assert_eq!(world.applied, before);
}

/// BYOH gives a host away again while its agent still has one write of the cleaning to make, which then tears the new
/// machine off. So nothing may ask for a host before it is clean.
#[test]
fn a_worker_that_comes_back_waits_until_its_host_is_clean() {
    let mut world = World::new(ByohVariant::Upstream, json!({}), 2);
    world.submit(request("one", "core", &[1], &[2]));
    world.settle();
    let ask = |world: &mut World, workers: &[u32]| {
        let spec = request("one", "core", &[1], workers).spec;
        world.edit_request("one", |one| one.spec = spec);
        world.reconcile("one");
    };
    ask(&mut world, &[]);
    while world.machine_is_taken_down(0) {}
    ask(&mut world, &[2]);
    assert!(world.agent_starts_cleaning(0) && world.agent_lets_go(0));
    for _ in 0..3 {
        world.reconcile("one");
        while world.cluster_is_adopted(0) || world.machine_is_made(0) || world.machine_takes_a_host(0) {}
    }
    assert!(world.agent_ends_cleaning(0));
    world.settle();
    assert_eq!(world.state("one"), Some(ProvisioningState::Fulfilled), "{}", world.message("one"));
}

/// An edited template is for clusters that are made after it. What runs is not rolled: there is no spare host, and there
/// may be many such clusters. Only a worker that comes later is made from the template as it is then.
#[test]
fn an_edited_template_rolls_nothing() {
    let mut world = World::new(ByohVariant::Platform9, json!({}), 3);
    world.submit(request("one", "core", &[1], &[2]));
    world.settle();
    let before = world.applied.clone();
    let spec = &mut world.templates.get_mut("base-v1").unwrap().spec;
    spec.kubeadm.workers = Some(json!({"preKubeadmCommands": ["date"]}));
    spec.kubeadm.control_plane = Some(json!({"preKubeadmCommands": ["date"]}));
    spec.install = from(json!({"method": "bundle", "bundle": {"repo": "registry.example.org/byoh"}}));
    spec.defaults.as_mut().unwrap()["k8sVersion"] = json!("v1.34.0");
    world.settle();
    assert_eq!(world.applied, before);
    assert_eq!(world.state("one"), Some(ProvisioningState::Fulfilled), "{}", world.message("one"));

    let spec = request("one", "core", &[1], &[2, 3]).spec;
    world.edit_request("one", |one| one.spec = spec);
    world.settle();
    assert_eq!(world.state("one"), Some(ProvisioningState::Fulfilled), "{}", world.message("one"));
    for (key, object) in &before {
        assert_eq!(world.applied.get(key), Some(object), "{key:?}");
    }
    let new = &world.applied[&(Kind::MachineDeployment, "core-worker-target-3".to_owned())]["spec"]["template"]["spec"];
    assert_eq!(new["version"], json!("v1.33.1"), "one cluster, one version");
    ends_clean(&mut world);
}

/// A Cluster that somebody deletes is made again, on hosts that have been cleaned of the old one.
#[test]
fn a_new_cluster_waits_for_clean_hosts() {
    let mut world = World::new(ByohVariant::Upstream, json!({}), 2);
    world.submit(request("one", "core", &[1], &[2]));
    world.settle();
    world.silent.extend(world.hosts.keys().cloned());
    assert!(world.cluster_is_deleted_by_hand(0));
    for _ in 0..6 {
        world.run();
        world.reconcile("one");
    }
    assert!(world.clusters.is_empty() && world.held("one-uid").len() == 2);
    assert_eq!(world.message("one"), "creation of Cluster core waits: host 1 (target-1) is being cleaned by its agent");
    world.heal();
    world.settle();
    assert_eq!(world.state("one"), Some(ProvisioningState::Fulfilled), "{}", world.message("one"));
}

/// Until the status says what is held, the masters of a request can still be changed. Nothing is made before that.
#[test]
fn nothing_is_made_before_the_status_says_what_is_held() {
    let mut world = World::new(ByohVariant::Upstream, json!({}), 2);
    world.submit(request("one", "core", &[1], &[]));
    let first = world.begin("one").unwrap();
    world.finish(&first);
    for _ in 0..4 {
        // The operator ends before it writes the status.
        let Some(mut flight) = world.begin("one") else { return };
        while world.step(&mut flight).unwrap() {}
    }
    assert!(world.applied.is_empty() && world.clusters.is_empty() && world.held("one-uid").len() == 1);
    let spec = request("one", "core", &[2], &[]).spec;
    world.edit_request("one", |one| one.spec = spec);
    // It claims the new one, and may not let go of the old one yet.
    world.reconcile("one");
    let mut flight = world.begin("one").unwrap();
    world.edit_host("target-1", |_| ());
    while world.step(&mut flight).unwrap_or(false) {}
    world.settle();
    assert_eq!(world.state("one"), Some(ProvisioningState::Fulfilled), "{}", world.message("one"));
    assert_eq!(world.held("one-uid").len(), 1);
}

/// The first request claims a host, and is then refused because its other host does not answer. That its status still tells
/// of the claim must not make the second, which has the name by now, give way, and so on in turns.
#[test]
fn two_requests_for_one_name_do_not_refuse_each_other_in_turns() {
    let ask = |masters: &[u32], workers: &[u32]| Ask {
        cluster: "edge",
        masters: masters.to_vec(),
        workers: workers.to_vec(),
        endpoint: None,
        later: 0,
    };
    for dialect in [ByohVariant::Upstream, ByohVariant::Platform9] {
        let setup = Setup {
            dialect,
            method: InstallMethod::None,
            strategy: UpgradeStrategy::InPlace,
            labelled: 0,
            asks: vec![ask(&[1], &[5]), ask(&[3], &[])],
        };
        let mut world = setup.world();
        let silent = Action::Trouble(6, 22);
        let both = [Action::Begin(0), Action::Step(0), Action::Reconcile(1), Action::Reconcile(1)];
        play(&mut world, &[&[silent], &both[..]].concat());
        world.heal();
        world.settle();
        let states: Vec<_> = NAMES.iter().map(|name| world.state(name).unwrap()).collect();
        assert_eq!(states.iter().filter(|state| **state == ProvisioningState::Fulfilled).count(), 1, "{states:?}");
        ends_clean(&mut world);
    }
}

/// A mark that somebody takes off is put back; nothing that runs is taken down for it.
#[test]
fn a_mark_that_is_lost_is_put_back() {
    let mut world = World::new(ByohVariant::Upstream, json!({}), 2);
    world.submit(request("one", "core", &[1], &[2]));
    world.settle();
    let before = world.applied.clone();
    world.edit_cluster("core", |cluster| {
        cluster.labels_mut().remove(names::REQUEST_UID_LABEL);
    });
    world.edit_control_planes(|object| {
        object.labels_mut().remove(names::REQUEST_UID_LABEL);
    });
    world.edit_host("target-1", |host| {
        host.labels_mut().remove(names::REQUEST_UID_LABEL);
    });
    world.settle();
    assert_eq!(world.applied, before);
    assert_eq!(world.state("one"), Some(ProvisioningState::Fulfilled), "{}", world.message("one"));
    assert!(world.clusters["core"].labels().contains_key(names::REQUEST_UID_LABEL));
    assert!(world.control_planes.values().all(|object| object.labels().contains_key(names::REQUEST_UID_LABEL)));
    assert!(world.hosts["target-1"].labels().contains_key(names::REQUEST_UID_LABEL));
}

/// A host that BYOH forgot to have cleaned is not lost, once there is no Cluster any more and its owner has consented.
#[test]
fn a_host_that_byoh_forgot_is_cleaned() {
    let host: ByoHost = from(json!({
        "metadata": {
            "name": "target-1", "namespace": "site-a", "resourceVersion": "7",
            "labels": {
                names::REQUEST_UID_LABEL: "one-uid",
                "cluster.x-k8s.io/cluster-name": "core",
                "byoh.infrastructure.cluster.x-k8s.io/byomachine-name": "site-a.core-control-plane-x",
            }
        }
    }));
    let observed = Observed {
        uid: "one-uid".to_owned(),
        cluster_name: "core".to_owned(),
        hosts: [("target-1".to_owned(), Arc::new(host))].into(),
        ..Observed::default()
    };
    let [Step::PatchHost(marks)] = &claim::clean_attached_hosts(&observed)[..] else { panic!("one step") };
    assert_eq!(marks.annotations.get(UNREGISTERING_ANNOTATION), Some(&Some(String::new())));
    assert!(marks.labels.is_empty() && marks.resource_version == "7");

    // Another cluster of that name, or a Cluster that is still there, is not ours to speak for.
    let mut other = observed.clone();
    other.cluster_name = "edge".to_owned();
    assert!(claim::clean_attached_hosts(&other).iter().all(
        |step| matches!(step, Step::PatchHost(marks) if !marks.annotations.contains_key(UNREGISTERING_ANNOTATION))
    ));
    let mut there = observed;
    there.cluster = Some(Arc::default());
    assert_eq!(claim::clean_attached_hosts(&there), []);
}

fn kind_of_dry_run(step: &Step) -> Option<String> {
    if let Step::DryRun(dry_run) = step { Some(dry_run.resource.kind.clone()) } else { None }
}

fn created_kind(step: &Step) -> Option<String> {
    if let Step::Create(manifest) = step { Some(manifest.kind.name().to_owned()) } else { None }
}

/// What the API server would not take is known while the hosts are free.
#[test]
fn each_kind_is_checked_once_before_a_host_is_claimed() {
    for (method, workers) in [("none", 1), ("installer", 1), ("installer", 5)] {
        let mut world = World::new(ByohVariant::Upstream, json!({"install": {"method": method}}), 6);
        let workers: Vec<u32> = (2..2 + workers).collect();
        world.submit(request("one", "core", &[1], &workers));
        let mut before: Vec<Step> = (0..10).flat_map(|_| world.reconcile("one")).collect();
        let first_claim = before.iter().position(|step| matches!(step, Step::PatchHost(_))).unwrap();
        let after = before.split_off(first_claim);
        let mut checked: Vec<_> = before.iter().filter_map(kind_of_dry_run).collect();
        checked.sort_unstable();
        let mut created: BTreeSet<_> = after.iter().filter_map(created_kind).collect();
        if method == "installer" {
            created.insert("Secret".to_owned());
        }
        assert_eq!(checked, Vec::from_iter(created));
        assert_eq!(after.iter().find_map(kind_of_dry_run), None, "checked again");
    }
}

/// Host 3 becomes a worker too.
fn add_worker(world: &mut World) {
    let worker = host_refs(&[3])[0].clone();
    world.edit_request("one", |request| {
        request.spec.template_parameters.hosts.as_mut().unwrap().workers.push(from(worker));
    });
}

#[test]
fn what_a_new_worker_needs_is_checked_before_its_host_is_claimed() {
    let mut world = crate::status::running();
    add_worker(&mut world);
    let steps = world.reconcile("one");
    let checked: Vec<_> = steps.iter().filter_map(kind_of_dry_run).collect();
    assert_eq!(checked, ["ByoMachineTemplate", "MachineDeployment"]);
    assert!(matches!(&steps[2..], [Step::PatchHost(_)]), "{steps:?}");
}

/// A site that refuses what a new worker needs loses nothing of what runs.
#[test]
fn what_runs_is_maintained_while_a_new_worker_waits() {
    let mut world = crate::status::running();
    add_worker(&mut world);
    world.edit_control_planes(|object| object.spec.replicas = Some(3));
    let steps = world.begin("one").unwrap().steps;
    let scales_back = |step: &Step| matches!(step, Step::PatchSpec { kind: Kind::KubeadmControlPlane, .. });
    assert!(scales_back(&steps[0]), "{steps:?}");
    // A host that lost its marks gets them first, without being asked whether anything could be created.
    world.edit_host("target-2", |host| {
        host.labels_mut().remove(names::REQUEST_UID_LABEL);
    });
    let steps = world.begin("one").unwrap().steps;
    assert!(matches!(&steps[..], [Step::PatchHost(marks)] if marks.host == "target-2"), "{steps:?}");
}

/// The steps of a paused host wait, and so does what is checked for them.
#[test]
fn nothing_is_checked_for_a_claim_that_waits() {
    let mut world = crate::status::running();
    world.edit_cluster("core", |cluster| cluster.spec.paused = true);
    add_worker(&mut world);
    assert_eq!(world.reconcile("one"), []);
}
