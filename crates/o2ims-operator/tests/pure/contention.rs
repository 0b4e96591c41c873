//! Requests that want the same cluster name or endpoint, before an operator as it is: caches that lag behind the API server,
//! each kind by itself; triggers; expectations; reconciles that interleave between any two steps; restarts; and what people
//! do in between.
//!
//! A seed is a whole story. `CONTENTION_SEEDS=from..to` asks for others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use cluster_api::byoh::ByohVariant;
use cluster_api::cluster::{ByoCluster, Cluster};
use cluster_api::control_plane::KubeadmControlPlane;
use cluster_api::machine::{Machine, MachineDeployment};
use cluster_api::templates::{ByoMachineTemplate, KubeadmConfigTemplate};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt as _};
use o2ims_operator::caches::{Caches, Clusters, Hosts, Machines, MarkedObjects, Requests, Templates, version_of};
use o2ims_operator::expectations::{Expectations, Write};
use o2ims_operator::mappers::{
    requests_for_cluster, requests_for_host, requests_for_part, requests_for_request, requests_for_template,
};
use o2ims_operator::provisioner::byoh::contention::{Locks, can_be_carried_out, wants_endpoint_of};
use o2ims_operator::provisioner::byoh::marks::{MarkedCluster, MarkedHost as _};
use o2ims_operator::provisioner::byoh::observe::observe;
use o2ims_operator::provisioner::byoh::observed::Observed;
use o2ims_operator::provisioner::byoh::provisioner::Byoh;
use o2ims_operator::provisioner::interface::{Decided, decide};
use o2ims_operator::provisioner::step::Step;
use o2ims_types::{ClusterTemplate, ProvisioningRequest, ProvisioningState, names};
use operator_kit::cache::CachedObjects;
use operator_kit::controller::Outcome;
use serde_json::json;
use tokio::time::Instant;

use crate::model::{Conflict, Flight, PROGRESS, World, from, host_name, host_refs, request};
use crate::rules::check_world;

/// Random numbers from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound.max(1) as u64).unwrap()
    }

    fn pick<T>(&mut self, items: impl IntoIterator<Item = T>) -> Option<T> {
        let mut items: Vec<_> = items.into_iter().collect();
        (!items.is_empty()).then(|| items.swap_remove(self.below(items.len())))
    }
}

/// The cache of a kind, and what is on its way there.
struct Cache<K: Resource<DynamicType = ()> + Clone + 'static> {
    objects: CachedObjects<K>,
    sent: BTreeMap<String, K>,
    on_its_way: VecDeque<Event<K>>,
}

impl<K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static> Cache<K> {
    fn new() -> Self {
        Self { objects: CachedObjects::default(), sent: BTreeMap::new(), on_its_way: VecDeque::new() }
    }

    /// The API server tells what has changed.
    fn send(&mut self, now: &BTreeMap<String, K>) {
        let is_gone = |(name, old): &(&String, &K)| now.get(*name).is_none_or(|new| new.meta().uid != old.meta().uid);
        let gone: Vec<_> = self.sent.iter().filter(is_gone).map(|(name, _)| name.clone()).collect();
        self.on_its_way.extend(gone.iter().filter_map(|name| self.sent.remove(name)).map(Event::Delete));
        let is_sent =
            |(name, new): &(&String, &K)| self.sent.get(*name).is_some_and(|old| version_of(old) == version_of(*new));
        let mut changed: Vec<_> = now.iter().filter(|entry| !is_sent(entry)).collect();
        changed.sort_by_key(|(_, object)| version_of(*object));
        for (name, object) in changed {
            self.sent.insert(name.clone(), object.clone());
            self.on_its_way.push_back(Event::Apply(object.clone()));
        }
    }

    /// The cache takes the next event: the records before and after it, and whether the object is gone.
    fn take(&mut self) -> Option<(Vec<K>, bool)> {
        let (object, old, is_gone) = match self.on_its_way.pop_front()? {
            Event::Apply(object) => (object.clone(), self.objects.apply(object).0, false),
            Event::Delete(object) => (object.clone(), self.objects.delete(&object), true),
            _ => return None,
        };
        let records = old.map(|old| K::clone(&old)).into_iter().chain([object]).collect();
        Some((records, is_gone))
    }
}

/// How a request was admitted; the guard lives as long as the reconcile.
struct Admitted {
    recheck: Option<Duration>,
    _guard: Box<dyn Send>,
}

/// A reconcile on its way.
enum Run {
    Observed(Box<ProvisioningRequest>, Box<Observed>),
    Writing { flight: Box<Flight>, admitted: Admitted, written: Vec<Write> },
}

/// The operator, and the world before it.
struct Operator {
    world: World,
    watches: Caches,
    requests: Cache<ProvisioningRequest>,
    templates: Cache<ClusterTemplate>,
    hosts: Cache<ByoHost>,
    clusters: Cache<Cluster>,
    control_planes: Cache<KubeadmControlPlane>,
    deployments: Cache<MachineDeployment>,
    byo_clusters: Cache<ByoCluster>,
    machine_templates: Cache<ByoMachineTemplate>,
    config_templates: Cache<KubeadmConfigTemplate>,
    machines: Cache<Machine>,
    /// Requests that were triggered.
    queue: BTreeSet<String>,
    /// Requests that are looked at again after some time.
    timers: BTreeSet<String>,
    runs: BTreeMap<String, Run>,
    expectations: Expectations,
    locks: Arc<Locks>,
    woken: Arc<Mutex<Vec<String>>>,
    now: Instant,
    story: Vec<String>,
}

const KINDS: usize = 10;

impl Operator {
    fn new(world: World) -> Self {
        let (locks, woken) = locks();
        let mut operator = Self {
            watches: world.watches(),
            requests: Cache::new(),
            templates: Cache::new(),
            hosts: Cache::new(),
            clusters: Cache::new(),
            control_planes: Cache::new(),
            deployments: Cache::new(),
            byo_clusters: Cache::new(),
            machine_templates: Cache::new(),
            config_templates: Cache::new(),
            machines: Cache::new(),
            queue: BTreeSet::new(),
            timers: BTreeSet::new(),
            runs: BTreeMap::new(),
            expectations: Expectations::default(),
            locks,
            woken,
            now: Instant::now(),
            story: Vec::new(),
            world,
        };
        operator.connect();
        operator
    }

    /// The reconciles read from the caches.
    fn connect(&mut self) {
        self.watches = Caches {
            requests: Requests::new(&mut self.requests.objects),
            templates: Templates::new(&mut self.templates.objects),
            hosts: Hosts::new(&mut self.hosts.objects),
            clusters: Clusters::new(&mut self.clusters.objects),
            control_planes: MarkedObjects::new(&mut self.control_planes.objects),
            machine_deployments: MarkedObjects::new(&mut self.deployments.objects),
            machines: Machines::new(&mut self.machines.objects),
            byo_clusters: MarkedObjects::new(&mut self.byo_clusters.objects),
            machine_templates: MarkedObjects::new(&mut self.machine_templates.objects),
            config_templates: MarkedObjects::new(&mut self.config_templates.objects),
            ..self.world.watches()
        };
        self.send();
        self.catch_up();
        self.queue = self.world.requests.keys().cloned().collect();
    }

    /// The operator ends, and another one starts, with complete caches and without memory.
    fn restart(&mut self) {
        self.tell("the operator restarts".to_owned());
        self.runs.clear();
        self.timers.clear();
        self.expectations = Expectations::default();
        (self.locks, self.woken) = locks();
        self.catch_up();
        self.queue = self.world.requests.keys().cloned().collect();
    }

    fn tell(&mut self, what: String) {
        self.story.push(what);
    }

    /// What was written goes on its way to the caches.
    fn send(&mut self) {
        check_world(&self.world);
        let world = &self.world;
        self.requests.send(&world.requests);
        self.templates.send(&world.templates);
        self.hosts.send(&world.hosts);
        self.clusters.send(&world.clusters);
        self.control_planes.send(&world.control_planes);
        self.deployments.send(&world.deployments);
        self.byo_clusters.send(&world.byo_clusters);
        self.machine_templates.send(&world.machine_templates);
        self.config_templates.send(&world.config_templates);
        let machines = world.machines.iter().map(|(name, machine)| (name.clone(), machine.record.clone())).collect();
        self.machines.send(&machines);
    }

    fn catch_up(&mut self) {
        for kind in 0..KINDS {
            while self.deliver(kind) {}
        }
    }

    fn touch(&mut self, requests: Vec<ObjectRef<ProvisioningRequest>>) {
        self.queue.extend(requests.into_iter().map(|request| request.name));
    }

    fn wake(&mut self) {
        let woken = std::mem::take(&mut *self.woken.lock().unwrap());
        self.queue.extend(woken);
    }

    /// A cache takes an event of a kind, and triggers whom it concerns. False: there is none.
    fn deliver(&mut self, kind: usize) -> bool {
        match kind {
            0 => {
                let Some((records, gone)) = self.requests.take() else { return false };
                let last = records.last().unwrap();
                if gone {
                    let uid = last.uid().unwrap();
                    self.expectations.forget(&uid);
                    self.locks.forget(&uid, self.now);
                    self.wake();
                }
                self.tell(format!("cache: request {} {}", last.name_any(), if gone { "is gone" } else { "" }));
                for record in &records {
                    self.queue.insert(record.name_any());
                    self.touch(requests_for_request(&self.watches.requests, record));
                }
            }
            1 => {
                let Some((records, _)) = self.templates.take() else { return false };
                for record in &records {
                    self.touch(requests_for_template(&self.watches.requests, record));
                }
            }
            2 => {
                let Some((records, _)) = self.hosts.take() else { return false };
                self.tell(format!("cache: host {}", records[0].name_any()));
                for record in &records {
                    self.touch(requests_for_host(&self.watches.requests, record));
                }
            }
            3 => {
                let Some((records, gone)) = self.clusters.take() else { return false };
                let name = records[0].name_any();
                self.tell(format!("cache: Cluster {name} {}", if gone { "is gone" } else { "" }));
                for record in &records {
                    self.touch(requests_for_cluster(&self.watches.requests, &self.watches.hosts, record));
                }
            }
            4 => return self.deliver_part(|operator| &mut operator.control_planes),
            5 => return self.deliver_part(|operator| &mut operator.deployments),
            6 => return self.deliver_part(|operator| &mut operator.byo_clusters),
            7 => return self.deliver_part(|operator| &mut operator.machine_templates),
            8 => return self.deliver_part(|operator| &mut operator.config_templates),
            _ => return self.deliver_part(|operator| &mut operator.machines),
        }
        true
    }

    fn deliver_part<K>(&mut self, cache: impl Fn(&mut Self) -> &mut Cache<K>) -> bool
    where
        K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    {
        let Some((records, _)) = cache(self).take() else { return false };
        for record in &records {
            self.touch(requests_for_part(&self.watches.requests, record));
        }
        true
    }

    /// A request that was triggered, or whose time has come, is looked at.
    fn start(&mut self, name: &str) {
        self.queue.remove(name);
        self.timers.remove(name);
        let Some(request) = self.watches.requests.all().find(|request| request.name_any() == name) else { return };
        let observed = observe(&self.watches, &request);
        self.tell(format!("{name}: observes"));
        let run = Run::Observed(Box::new(ProvisioningRequest::clone(&request)), Box::new(observed));
        self.runs.insert(name.to_owned(), run);
    }

    /// The next step of a reconcile on its way.
    fn go_on(&mut self, name: &str) {
        match self.runs.remove(name) {
            None => {}
            Some(Run::Observed(request, observed)) => self.decide(name, *request, *observed),
            Some(Run::Writing { flight, admitted, written }) => self.write(name, flight, admitted, written),
        }
        if !self.runs.contains_key(name) {
            self.end(name);
        }
        self.wake();
    }

    /// What `reconcile` does at its end.
    fn end(&mut self, name: &str) {
        if self.watches.requests.all().find(|request| request.name_any() == name).is_none() {
            let uid = format!("{name}-uid");
            self.expectations.forget(&uid);
            self.locks.forget(&uid, self.now);
        }
    }

    fn decide(&mut self, name: &str, request: ProvisioningRequest, observed: Observed) {
        let byoh = Byoh { caches: self.watches.clone(), locks: Arc::clone(&self.locks) };
        match decide(&byoh, &request, observed, &self.expectations, self.now) {
            Err(Outcome::Progressing { .. }) => {
                self.tell(format!("{name}: waits for the caches"));
                self.timers.insert(name.to_owned());
            }
            Err(_) => self.tell(format!("{name}: is gone")),
            Ok(Decided { observed, verdict, steps, recheck, guard }) => {
                let admitted = Admitted { recheck, _guard: guard };
                let refusal = verdict.as_ref().err().map(|refusal| refusal.message.clone());
                let told = refusal.unwrap_or_else(|| "goes on".to_owned());
                self.tell(format!("{name}: {told}, {} steps", steps.len()));
                let flight = Box::new(Flight { request, observed, verdict, steps, next: 0 });
                self.runs.insert(name.to_owned(), Run::Writing { flight, admitted, written: Vec::new() });
            }
        }
    }

    fn write(&mut self, name: &str, mut flight: Box<Flight>, admitted: Admitted, mut written: Vec<Write>) {
        let uid = flight.observed.uid.clone();
        if let Some(step) = flight.steps.get(flight.next).cloned() {
            // As `apply` does before it takes the finalizer off.
            let is_left = !self.world.made(&uid).is_empty() || !self.world.held(&uid).is_empty();
            let vanished = !self.world.requests.contains_key(name);
            let result = match step {
                Step::RemoveFinalizer if is_left => Err(Conflict),
                Step::AddFinalizer | Step::RemoveFinalizer if vanished => Err(Conflict),
                _ => {
                    // Other objects are written whether or not the request is there.
                    if vanished {
                        self.world.requests.insert(name.to_owned(), flight.request.clone());
                    }
                    let result = self.world.step(&mut flight);
                    if vanished {
                        self.world.requests.remove(name);
                    }
                    result
                }
            };
            self.tell(format!("{name}: {}{}", told(&step), if result.is_ok() { "" } else { ": conflict" }));
            if result.is_err() {
                self.expectations.add(uid.clone(), written, self.now);
                self.timers.insert(name.to_owned());
                return;
            }
            written.extend(self.written(&step));
            if step == Step::RemoveFinalizer {
                self.expectations.forget(&uid);
            } else {
                self.runs.insert(name.to_owned(), Run::Writing { flight, admitted, written });
            }
            self.send();
            return;
        }
        self.expectations.add(uid.clone(), written, self.now);
        let before = self.world.revision;
        if self.world.requests.contains_key(name) {
            self.world.finish(&flight);
        }
        if self.world.revision != before {
            let version = version_of(&self.world.requests[name]);
            self.expectations.add(uid.clone(), vec![Write::Status(version)], self.now);
            self.tell(format!("{name}: status {:?}, {}", self.world.state(name), self.world.message(name)));
        }
        let now = self.world.now();
        let outcome = flight.assess(None, now).outcome();
        if admitted.recheck.is_some() || matches!(outcome, Outcome::Progressing { recheck: Some(_) }) {
            self.timers.insert(name.to_owned());
        }
        self.send();
    }

    fn written(&self, step: &Step) -> Option<Write> {
        let version = |kind: Kind, name: &str| self.world.meta(kind, name)?.resource_version.as_deref()?.parse().ok();
        let object =
            |kind: Kind, name: &str| Some(Write::Object { kind, name: name.to_owned(), version: version(kind, name)? });
        let host = |name: &str| Some(Write::Host { name: name.to_owned(), version: version(Kind::ByoHost, name)? });
        match step {
            Step::AddFinalizer => Some(Write::Finalizer),
            Step::Protect
            | Step::DryRun(_)
            | Step::RemoveFinalizer
            | Step::Orphan
            | Step::RemoveAnnotations(_)
            | Step::Adopt { .. } => None,
            Step::PatchHost(marks) => host(&marks.host),
            Step::GiveInstallScripts(equipment) => host(&equipment.host),
            Step::GiveJob(order) => host(&order.host),
            Step::Reattach(reattachment) => host(&reattachment.host),
            Step::Create(manifest)
            | Step::Update(manifest, _)
            | Step::RestoreMarks(manifest, _)
            | Step::RecreateCluster { manifest, .. } => object(manifest.kind, &manifest.name),
            Step::Annotate { kind, name, .. } | Step::PatchSpec { kind, name, .. } => object(*kind, name),
            Step::Delete { kind, name, uid, .. } => {
                Some(Write::Deletion { kind: *kind, name: name.clone(), uid: uid.clone() })
            }
        }
    }

    /// Something happens, most of it in the operator.
    fn act(&mut self, chance: &mut Chance) {
        match chance.below(40) {
            0..=13 => {
                let first = chance.below(KINDS);
                let _ = (0..KINDS).any(|kind| self.deliver((first + kind) % KINDS));
            }
            14..=19 => {
                let idle = self.queue.iter().filter(|name| !self.runs.contains_key(*name)).cloned();
                if let Some(name) = chance.pick(idle) {
                    self.start(&name);
                }
            }
            20..=33 => {
                if let Some(name) = chance.pick(self.runs.keys().cloned()) {
                    self.go_on(&name);
                }
            }
            34..=35 => {
                if let Some(name) = chance.pick(self.timers.iter().cloned()) {
                    self.queue.insert(name);
                }
            }
            _ => {
                PROGRESS[chance.below(PROGRESS.len())](&mut self.world, chance.below(64));
                self.send();
            }
        }
    }

    /// What people, failures and other programs do.
    fn trouble(&mut self, chance: &mut Chance, forced: bool) {
        let pick = chance.below(64);
        let name = chance.pick(self.world.requests.keys().cloned());
        let what = match chance.below(if forced { 12 } else { 11 }) {
            0 | 1 => self.world.request_is_deleted(pick).then_some("a request is deleted"),
            2 => self.world.template_goes_or_comes(pick).then_some("the template goes or comes"),
            3 => self.world.host_is_unregistered(pick).then_some("a host is unregistered"),
            4 | 5 => self.world.host_comes_back(pick).then_some("a host comes back"),
            6 => self.world.stranger_claims_a_host(pick).then_some("a stranger claims a host"),
            7 => self.world.stranger_lets_go(pick).then_some("a stranger lets go of a host"),
            // Sooner than this it may wedge, whoever has asked for it.
            8 if !self.world.clusters.values().any(MarkedCluster::is_creating) => {
                self.world.cluster_is_deleted_by_hand(pick).then_some("a Cluster is deleted by hand")
            }
            8 => None,
            9 => self.edit(name.as_deref(), pick).then_some("a request is edited"),
            10 => {
                self.restart();
                None
            }
            _ => self.vanish(name.as_deref()).then_some("a request vanishes"),
        };
        if let Some(what) = what {
            self.tell(what.to_owned());
        }
        self.send();
    }

    /// The version is put right or wrong, or what the request wants is changed, as long as it holds nothing.
    fn edit(&mut self, name: Option<&str>, pick: usize) -> bool {
        let Some(name) = name else { return false };
        let frozen =
            self.world.requests[name].status.as_ref().is_some_and(|all| all.provisioned_resource_set.is_some());
        if frozen || self.world.requests[name].metadata.deletion_timestamp.is_some() {
            return false;
        }
        let holds = !self.world.held(&format!("{name}-uid")).is_empty();
        self.world.edit_request(name, |request| {
            let parameters = &mut request.spec.template_parameters;
            match if holds { 1 } else { pick % 4 } {
                0 => {
                    let host = format!("10.0.0.{}", 100 + pick % 3);
                    parameters.control_plane_endpoint = Some(from(json!({"host": host})));
                }
                1 => parameters.k8s_version = parameters.k8s_version.is_none().then(|| "1".to_owned()),
                2 => parameters.control_plane_endpoint = None,
                _ => parameters.cluster_name = Some(["core", "edge"][pick / 4 % 2].to_owned()),
            }
        });
        true
    }

    /// Somebody takes the finalizer off, or the API server had begun to delete before there was one.
    fn vanish(&mut self, name: Option<&str>) -> bool {
        name.is_some_and(|name| self.world.requests.remove(name).is_some())
    }

    /// What a request that vanished has left is removed, and its servers are set up anew.
    fn clean_up_after(&mut self, uid: &str) {
        let is_left =
            |labels: &BTreeMap<String, String>| labels.get(names::REQUEST_UID_LABEL).is_some_and(|mark| mark == uid);
        self.world.machines.retain(|_, machine| !is_left(machine.record.labels()));
        for (kind, name) in self.world.made(uid) {
            self.world.clusters.entry(name.clone()).and_modify(|object| object.metadata.finalizers = None);
            self.world.control_planes.entry(name.clone()).and_modify(|object| object.metadata.finalizers = None);
            self.world.deployments.entry(name.clone()).and_modify(|object| object.metadata.finalizers = None);
            self.world.byo_clusters.entry(name.clone()).and_modify(|object| object.metadata.finalizers = None);
            self.world.delete(kind, &name);
        }
        for number in 1..=6 {
            if self.world.hosts.get(&host_name(number)).is_some_and(|host| host.holder() == Some(uid)) {
                self.world.hosts.remove(&host_name(number));
                self.world.register(number, true);
            }
        }
    }

    /// Everything goes on, in any order, until nothing does. False: it does not come to rest.
    fn settle(&mut self, chance: &mut Chance) -> bool {
        let mut idle = 0;
        for _ in 0..20_000 {
            let before = self.world.revision;
            self.catch_up();
            if let Some(name) = chance.pick(self.runs.keys().cloned()) {
                self.go_on(&name);
            } else if let Some(name) = chance.pick(self.queue.iter().cloned()) {
                self.start(&name);
            } else if PROGRESS.iter().any(|progress| progress(&mut self.world, chance.below(64))) {
                self.send();
            } else if idle > 2 || self.timers.is_empty() {
                return true;
            } else {
                idle += 1;
                self.now += Duration::from_secs(10);
                self.queue.append(&mut self.timers);
            }
            if self.world.revision != before {
                idle = 0;
            }
        }
        false
    }

    /// A Cluster that has what the request wants.
    fn taken_by(&self, request: &ProvisioningRequest) -> Option<String> {
        let hosts = self.world.watches().hosts;
        let wanted = request.spec.template_parameters.cluster_name.as_ref();
        let taken = self.world.clusters.values().find(|cluster| {
            cluster.labels().get(names::REQUEST_UID_LABEL) != request.metadata.uid.as_ref()
                && (wanted == cluster.metadata.name.as_ref() || wants_endpoint_of(request, cluster, &hosts))
        });
        taken.map(kube::ResourceExt::name_any)
    }

    fn has_cluster(&self, name: &str) -> bool {
        !self.world.own_clusters(&format!("{name}-uid")).is_empty()
    }

    /// At rest a request has its Cluster, or somebody else has what it wants, or it cannot be carried out.
    fn check_rest(&self) -> Result<(), String> {
        for (name, request) in &self.world.requests {
            let able = can_be_carried_out(request, &observe(&self.world.watches(), request));
            if request.metadata.deletion_timestamp.is_some() {
                return Err(format!("{name} is not gone: {}", self.world.message(name)));
            }
            if able && !self.has_cluster(name) && self.taken_by(request).is_none() {
                return Err(format!("{name} waits for nobody: {}", self.world.message(name)));
            }
            if able && self.has_cluster(name) && self.world.state(name) != Some(ProvisioningState::Fulfilled) {
                return Err(format!("{name} does not go on: {}", self.world.message(name)));
            }
        }
        Ok(())
    }
}

fn locks() -> (Arc<Locks>, Arc<Mutex<Vec<String>>>) {
    let woken = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&woken);
    (Locks::new(move |request| list.lock().unwrap().push(request.name)), woken)
}

fn told(step: &Step) -> String {
    match step {
        Step::PatchHost(marks) => format!("PatchHost {} {:?}", marks.host, marks.labels.get(names::REQUEST_UID_LABEL)),
        Step::Create(manifest) => format!("Create {} {}", manifest.kind.name(), manifest.name),
        Step::Update(manifest, _) => format!("Update {} {}", manifest.kind.name(), manifest.name),
        Step::Delete { kind, name, .. } => format!("Delete {} {name}", kind.name()),
        other => format!("{other:?}").chars().take(40).collect(),
    }
}

/// What a story is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plot {
    /// Four requests for one endpoint, on hosts of their own; nothing is wrong.
    Endpoint,
    /// The same for one cluster name.
    Name,
    /// Any names, endpoints and hosts; people act and things fail.
    Any,
    /// The same, and requests vanish without a teardown.
    Vanishing,
}

/// The requests of a story, in the order in which they are made. Their UIDs are in another order.
fn requests(plot: Plot, chance: &mut Chance) -> Vec<ProvisioningRequest> {
    let mut left = vec!["a", "b", "c", "d"];
    let mut all = Vec::new();
    while let Some(name) = chance.pick(left.clone()) {
        left.retain(|other| *other != name);
        let own = u32::try_from(4 - left.len()).unwrap();
        let mut request = request(name, name, &[own], &[]);
        let parameters = &mut request.spec.template_parameters;
        match plot {
            Plot::Endpoint => parameters.control_plane_endpoint = Some(from(json!({"host": "10.0.0.100"}))),
            Plot::Name => parameters.cluster_name = Some("core".to_owned()),
            Plot::Any | Plot::Vanishing => {
                // 10.0.0.2 is the address of a host, which is the endpoint of whoever has that as its one master.
                let endpoints = [None, Some("10.0.0.100"), Some("10.0.0.100"), Some("10.0.0.101"), Some("10.0.0.2")];
                let endpoint = chance.pick(endpoints).flatten();
                parameters.control_plane_endpoint = endpoint.map(|host| from(json!({"host": host})));
                parameters.cluster_name = chance.pick(["core", "core", "edge", name]).map(ToOwned::to_owned);
                let hosts = parameters.hosts.as_mut().unwrap();
                if chance.below(3) == 0 {
                    hosts.workers = from(host_refs(&[5 + u32::try_from(chance.below(2)).unwrap()]));
                }
                if chance.below(6) == 0 {
                    parameters.k8s_version = Some("1".to_owned());
                }
            }
        }
        all.push(request);
    }
    all
}

/// One story, to its end.
fn play(plot: Plot, seed: u64, story: &mut Vec<String>) -> Result<(), String> {
    let mut chance = Chance(seed);
    let mut requests = VecDeque::from(requests(plot, &mut chance));
    let mut operator = Operator::new(World::new(ByohVariant::Upstream, json!({}), 6));
    let troubles = matches!(plot, Plot::Any | Plot::Vanishing);
    let mut length = 40 + chance.below(300);
    while !requests.is_empty() || length > 0 {
        if chance.below(8) == 0
            && let Some(request) = requests.pop_front()
        {
            operator.tell(format!("people apply {}", request.name_any()));
            operator.world.second += i64::from(chance.below(6) == 0);
            operator.world.submit(request);
            operator.send();
        }
        if troubles && chance.below(25) == 0 {
            operator.trouble(&mut chance, plot == Plot::Vanishing);
        }
        operator.act(&mut chance);
        length = length.saturating_sub(1);
    }
    operator.tell("people put everything right".to_owned());
    operator.world.heal();
    for cluster in operator.world.clusters.clone().into_values() {
        let maker = cluster.labels().get(names::REQUEST_UID_LABEL).cloned().unwrap_or_default();
        if !operator.world.requests.values().any(|request| request.metadata.uid.as_ref() == Some(&maker)) {
            operator.clean_up_after(&maker);
        }
    }
    let holders: BTreeSet<_> =
        operator.world.hosts.values().filter_map(|host| host.holder()).map(ToOwned::to_owned).collect();
    for holder in holders {
        if !operator.world.requests.values().any(|request| request.metadata.uid.as_ref() == Some(&holder)) {
            operator.clean_up_after(&holder);
        }
    }
    operator.send();
    let mut result = Ok(());
    while result.is_ok() && !operator.world.requests.is_empty() {
        if !operator.settle(&mut chance) {
            result = Err("does not come to rest".to_owned());
            break;
        }
        result = operator.check_rest();
        // When the one that has it goes, the next one goes on.
        let first = operator.world.requests.keys().find(|name| operator.has_cluster(name));
        if let Some(first) = first.or_else(|| operator.world.requests.keys().next()).cloned() {
            operator.tell(format!("people delete {first}"));
            operator.world.delete_request(&first);
            operator.send();
        }
    }
    if result.is_ok() {
        operator.catch_up();
        let kept = (operator.locks.len(), operator.expectations.len());
        if kept != (0, 0) && plot != Plot::Vanishing {
            result = Err(format!("remembers {kept:?} of requests that are gone"));
        }
    }
    story.append(&mut operator.story);
    result
}

/// Without `CONTENTION_SEEDS`, `count` stories.
fn play_all(plot: Plot, count: u64) {
    let told = std::env::var("CONTENTION_SEEDS").ok();
    let (from, to) = told
        .as_deref()
        .and_then(|told| told.split_once(".."))
        .map_or((0, count), |(from, to)| (from.parse().unwrap(), to.parse().unwrap()));
    for seed in from..to {
        let mut story = Vec::new();
        if let Err(fault) = play(plot, seed, &mut story) {
            panic!("{plot:?}, seed {seed}: {fault}\n{}", story.join("\n"));
        }
    }
}

fn with_endpoint(name: &str, host: u32) -> ProvisioningRequest {
    let mut request = request(name, name, &[host], &[]);
    request.spec.template_parameters.control_plane_endpoint = Some(from(json!({"host": "10.0.0.100"})));
    request
}

/// An operator with free hosts.
fn operator() -> Operator {
    Operator::new(World::new(ByohVariant::Upstream, json!({}), 4))
}

impl Operator {
    fn apply(&mut self, request: ProvisioningRequest) {
        self.world.submit(request);
        self.send();
        self.catch_up();
    }

    /// Looks at a request, and decides. What was refused, if it was.
    fn decides(&mut self, name: &str) -> Option<String> {
        self.start(name);
        self.go_on(name);
        self.refused(name)
    }

    fn refused(&self, name: &str) -> Option<String> {
        let Some(Run::Writing { flight, .. }) = self.runs.get(name) else { panic!("{name} has not decided") };
        flight.verdict.as_ref().err().map(|refusal| refusal.message.clone())
    }

    /// Lets a reconcile end.
    fn ends(&mut self, name: &str) {
        while self.runs.contains_key(name) {
            self.go_on(name);
        }
        self.catch_up();
    }

    fn rests(&mut self) {
        assert!(self.settle(&mut Chance(0)), "does not come to rest");
        self.check_rest().unwrap();
    }
}

const TAKEN_BY_A: &str = "controlPlaneEndpoint 10.0.0.100:6443 is taken by ProvisioningRequest site-a/a; this request continues when that \
    request is deleted. To continue now, delete this request and create it with another controlPlaneEndpoint";
const A_COMES_FIRST: &str = "controlPlaneEndpoint 10.0.0.100:6443 is also requested by ProvisioningRequest site-a/a, which comes first; this \
    request continues when that request is deleted. To continue now, delete this request and create it with another controlPlaneEndpoint";

/// Of two requests that want the same, only one begins at a time, whichever comes first.
#[test]
fn one_at_a_time_begins() {
    let mut operator = operator();
    operator.apply(with_endpoint("b", 2));
    assert_eq!(operator.decides("b"), None);
    operator.ends("b");
    operator.apply(with_endpoint("a", 1));
    let refusal = operator.decides("a").unwrap();
    assert!(refusal.contains("is taken by ProvisioningRequest site-a/b"), "the older one is later: {refusal}");
    operator.ends("a");
    assert_eq!(operator.decides("b"), None, "it goes on");
    operator.ends("b");
    operator.apply(request("c", "c", &[3], &[]));
    assert_eq!(operator.decides("c"), None, "another one wants something else");
    operator.ends("c");
    operator.world.delete_request("b");
    operator.send();
    operator.rests();
    assert!(operator.has_cluster("a") && operator.has_cluster("c"));
}

/// The first request is looked at before there is a second one, and decided when that has begun.
#[test]
fn nobody_begins_on_what_was_seen_before_another_one_began() {
    let mut operator = operator();
    operator.apply(with_endpoint("b", 2));
    operator.start("b");
    operator.apply(with_endpoint("a", 1));
    assert_eq!(operator.decides("a"), None);
    operator.go_on("b");
    assert_eq!(operator.refused("b").as_deref(), Some(TAKEN_BY_A));
    operator.rests();
    assert!(operator.has_cluster("a") && !operator.has_cluster("b"));
}

/// That an older request gives way is in no cache, if its status says the same as before.
#[test]
fn a_request_is_woken_when_the_one_that_comes_first_gives_way() {
    let mut operator = operator();
    operator.apply(with_endpoint("a", 1));
    operator.apply(with_endpoint("b", 2));
    assert_eq!(operator.decides("b").as_deref(), Some(A_COMES_FIRST), "a is able, and was not looked at yet");
    operator.ends("b");
    let host = operator.world.hosts.remove("target-1").unwrap();
    operator.send();
    operator.catch_up();
    operator.queue.clear();
    assert_eq!(operator.decides("a").as_deref(), Some("host 1 (target-1) is not registered in namespace site-a"));
    assert!(operator.queue.contains("b"), "nobody tells b");
    operator.rests();
    assert!(operator.has_cluster("b"));
    operator.world.hosts.insert("target-1".to_owned(), host);
}

/// A request that is edited away from what it was about to take leaves it to the others.
#[test]
fn an_edit_gives_back_what_was_taken() {
    let mut operator = operator();
    operator.apply(with_endpoint("a", 1));
    assert_eq!(operator.decides("a"), None);
    operator.ends("a");
    operator.apply(with_endpoint("b", 2));
    assert_eq!(operator.decides("b").as_deref(), Some(TAKEN_BY_A));
    operator.ends("b");
    operator.world.edit_request("a", |a| a.spec.template_parameters.control_plane_endpoint = None);
    operator.send();
    operator.rests();
    assert!(operator.has_cluster("a") && operator.has_cluster("b"));
}

/// What a request that vanishes was about to write may still come; until then nobody takes its endpoint.
#[test]
fn a_request_that_vanishes_at_work_keeps_others_waiting_until_its_cluster_shows() {
    let mut operator = operator();
    operator.apply(with_endpoint("a", 1));
    // The first status, the finalizer, the host, the status that tells of it; then the Cluster.
    for _ in 0..4 {
        assert_eq!(operator.decides("a"), None);
        operator.ends("a");
    }
    assert_eq!(operator.decides("a"), None);
    operator.apply(with_endpoint("b", 2));
    assert!(operator.vanish(Some("a")));
    operator.send();
    operator.catch_up();
    assert_eq!(operator.decides("b").as_deref(), Some(TAKEN_BY_A), "a is at work");
    operator.ends("b");
    // The Cluster is written, and does not show yet.
    while operator.runs.contains_key("a") {
        operator.go_on("a");
    }
    assert!(operator.has_cluster("a") && operator.queue.contains("b"));
    assert_eq!(operator.decides("b").as_deref(), Some(TAKEN_BY_A), "it may have written");
    operator.ends("b");
    assert!(operator.timers.contains("b"), "b is not told when that is over");
    let left = "is taken by Cluster site-a/a of ProvisioningRequest site-a/a, which does not exist any more";
    let refusal = operator.decides("b").unwrap();
    assert!(refusal.contains(left), "{refusal}");
    operator.ends("b");
    operator.now += Duration::from_secs(10);
    operator.clean_up_after("a-uid");
    operator.send();
    operator.rests();
    assert!(operator.has_cluster("b"));
    assert_eq!(operator.locks.len(), 0, "something is kept of a request that is gone");
}

/// A request that went after it was looked at gets nothing: nobody would take it back.
#[test]
fn nothing_is_decided_for_a_request_that_is_gone() {
    let mut operator = operator();
    operator.apply(with_endpoint("a", 1));
    operator.start("a");
    operator.world.delete_request("a");
    operator.send();
    operator.catch_up();
    operator.go_on("a");
    assert!(!operator.runs.contains_key("a"), "it goes on");
    assert_eq!(operator.locks.len(), 0);
}

/// Locks are lost with the process; hosts are not.
#[test]
fn after_a_restart_the_one_that_holds_hosts_goes_on() {
    let mut operator = operator();
    operator.apply(with_endpoint("b", 2));
    // The first status, the finalizer, the host.
    for _ in 0..3 {
        assert_eq!(operator.decides("b"), None);
        operator.ends("b");
    }
    assert_eq!(operator.world.held("b-uid").len(), 1);
    operator.apply(with_endpoint("a", 1));
    operator.restart();
    let refusal = operator.decides("a").unwrap();
    assert!(refusal.contains("is also requested by ProvisioningRequest site-a/b, which comes first"), "{refusal}");
    operator.rests();
    assert!(operator.has_cluster("b") && !operator.has_cluster("a"));
}

#[test]
fn of_requests_for_one_endpoint_exactly_one_goes_on() {
    play_all(Plot::Endpoint, 60);
}

#[test]
fn of_requests_for_one_name_exactly_one_goes_on() {
    play_all(Plot::Name, 40);
}

#[test]
fn nobody_waits_for_ever() {
    play_all(Plot::Any, 80);
}

#[test]
fn nobody_waits_for_a_request_that_vanished() {
    play_all(Plot::Vanishing, 60);
}
