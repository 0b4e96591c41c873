//! Requests that want the same cluster name or the same endpoint. Hosts need no such rule: the API server decides on each
//! claim.
//!
//! A Cluster object is the lock on its name and on its endpoint. Before there is one, the request that is to make it has a
//! lock in this process: [`Locks`] alone decides who gets that, one request at a time, on what the caches show at that
//! moment. What another request's status says counts for nothing: it speaks of an earlier moment, and may be lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use o2ims_types::cluster_template::VirtualIpProvider;
use o2ims_types::provisioning_request::{API_PORT, Endpoint};
use o2ims_types::{ClusterTemplate, ProvisioningRequest, names};
use tokio::time::Instant;

use super::observe::{Observed, maker_exists, observe};
use super::plan::{has_finalizer, key};
use super::validate::validate;
use crate::byoh::host::ByoHost;
use crate::capi::read::Cluster;
use crate::watches::Watches;

/// Somebody else who has what this request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Who, for messages.
    pub request: String,
    /// What.
    pub what: String,
}

/// What requests cannot share.
#[derive(Clone, Debug, PartialEq)]
struct Wants {
    namespace: String,
    cluster: Option<String>,
    endpoint: Option<Endpoint>,
    /// The masters carry the endpoint themselves, as far as is known: it serves one cluster, on whatever port.
    carried: bool,
}

/// Where two that want the same meet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Cluster(String, String),
    Host(String),
}

impl Wants {
    fn of(request: &ProvisioningRequest, template: Option<&ClusterTemplate>, hosts: &Store<ByoHost>) -> Self {
        Self {
            namespace: request.namespace().unwrap_or_default(),
            cluster: request.spec.template_parameters.cluster_name.clone(),
            endpoint: wanted_endpoint(request, hosts),
            carried: is_carried(template),
        }
    }

    fn places(&self) -> Vec<Place> {
        let cluster = self.cluster.iter().map(|name| Place::Cluster(self.namespace.clone(), name.clone()));
        let host = |endpoint: &Endpoint| match endpoint.host.parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => endpoint.host.clone(),
        };
        cluster.chain(self.endpoint.iter().map(|endpoint| Place::Host(host(endpoint)))).collect()
    }

    fn same_cluster(&self, other: &Self) -> bool {
        self.cluster.is_some() && self.cluster == other.cluster && self.namespace == other.namespace
    }

    fn overlaps(&self, other: &Self) -> bool {
        let carried = self.carried || other.carried;
        let endpoints = self.endpoint.as_ref().zip(other.endpoint.as_ref());
        self.same_cluster(other)
            || endpoints.is_some_and(|(one, two)| same_endpoint(&one.host, one.port, &two.host, two.port, carried))
    }

    /// Whether the request's Cluster shows all of it: then that is the lock.
    fn show(&self, observed: &Observed) -> bool {
        let has = |cluster: &Cluster| self.endpoint.as_ref().is_none_or(|asked| has_endpoint(cluster, asked, false));
        observed.is_running() || observed.own_cluster().is_some_and(|cluster| has(cluster))
    }

    /// What of it somebody else has, for messages.
    fn what(&self, is_name: bool) -> String {
        match &self.endpoint {
            Some(asked) if !is_name => format!("controlPlaneEndpoint {}:{}", asked.host, asked.port),
            _ => format!("clusterName {}", self.cluster.as_deref().unwrap_or_default()),
        }
    }
}

/// Whether masters carry the endpoint themselves, as far as is known.
fn is_carried(template: Option<&ClusterTemplate>) -> bool {
    template.is_none_or(|template| template.spec.virtual_ip.provider == VirtualIpProvider::KubeVip)
}

/// Whether `request` asks for the cluster name or the endpoint that `other` asks for. An endpoint that is `carried` by the
/// masters themselves serves one cluster, on whatever port.
pub fn contends(request: &ProvisioningRequest, other: &ProvisioningRequest, carried: bool) -> bool {
    let shares_endpoint = || {
        let (one, two) = (&request.spec.template_parameters, &other.spec.template_parameters);
        let both = one.control_plane_endpoint.as_ref().zip(two.control_plane_endpoint.as_ref());
        both.is_some_and(|(one, two)| same_endpoint(&one.host, one.port, &two.host, two.port, carried))
    };
    other.uid() != request.uid() && (shares_name(request, other) || shares_endpoint())
}

fn shares_name(request: &ProvisioningRequest, other: &ProvisioningRequest) -> bool {
    let wanted = &request.spec.template_parameters.cluster_name;
    wanted.is_some()
        && other.spec.template_parameters.cluster_name == *wanted
        && other.namespace() == request.namespace()
}

/// Whether a Cluster stands where the request wants to have its own.
pub fn wants_endpoint_of(request: &ProvisioningRequest, cluster: &Cluster, hosts: &Store<ByoHost>) -> bool {
    wanted_endpoint(request, hosts).is_some_and(|asked| has_endpoint(cluster, &asked, true))
}

/// Where the request's API is to answer: at the asked-for endpoint, or at its one master, unless somebody has that.
fn wanted_endpoint(request: &ProvisioningRequest, hosts: &Store<ByoHost>) -> Option<Endpoint> {
    let wanted = &request.spec.template_parameters;
    if wanted.control_plane_endpoint.is_some() {
        return wanted.control_plane_endpoint.clone();
    }
    let [master] = &wanted.hosts.as_ref()?.masters[..] else { return None };
    let host = hosts.get(&ObjectRef::new(master.name()).within(&request.namespace()?))?;
    let is_free = host.busy().is_none() && host.holder().is_none_or(|holder| request.uid().as_deref() == Some(holder));
    let address = host.addresses().first().copied().filter(|_| is_free)?;
    Some(Endpoint { host: address.to_string(), port: API_PORT })
}

fn has_endpoint(cluster: &Cluster, asked: &Endpoint, carried: bool) -> bool {
    let endpoint = cluster.spec.control_plane_endpoint.as_ref();
    endpoint.is_some_and(|has| same_endpoint(&asked.host, asked.port, &has.host, has.port, carried))
}

/// Behind a load balancer the port counts.
fn same_endpoint(host: &str, port: i32, other: &str, other_port: i32, carried: bool) -> bool {
    match (host.parse::<IpAddr>(), other.parse::<IpAddr>()) {
        (Ok(address), Ok(other)) => address == other && (carried || port == other_port),
        _ => host == other && port == other_port,
    }
}

/// Who made a Cluster, for messages.
fn maker(cluster: &Cluster, watches: &Watches) -> String {
    match cluster.annotations().get(names::REQUEST_ANNOTATION) {
        Some(request) if !maker_exists(watches, cluster) => format!(
            "Cluster {}/{} of ProvisioningRequest {request}, which does not exist any more (apply it again to have that cluster looked \
             after, and delete it if the cluster is to go)",
            cluster.namespace().unwrap_or_default(),
            cluster.name_any()
        ),
        Some(request) => format!("ProvisioningRequest {request}"),
        None => "a Cluster that no ProvisioningRequest made".to_owned(),
    }
}

type Age = (Option<Timestamp>, Option<String>);

fn age(request: &ProvisioningRequest) -> Age {
    (request.metadata.creation_timestamp.as_ref().map(|time| time.0), request.uid())
}

fn age_of_cluster(cluster: &Cluster) -> Age {
    (cluster.metadata.creation_timestamp.as_ref().map(|time| time.0), cluster.uid())
}

/// The locks on cluster names and endpoints of which no Cluster shows yet. They are in memory alone: one process works at a
/// time, and one that begins has complete caches and nothing on its way.
pub struct Locks {
    table: Mutex<Table>,
    wake: Box<dyn Fn(ObjectRef<ProvisioningRequest>) + Send + Sync>,
}

/// What [`Locks::acquire`] decided. As long as it lives, the request is being reconciled.
pub struct Decided {
    /// Whoever has what the request wants, or goes first.
    pub rival: Option<Rival>,
    /// When the request has to look again; otherwise it is woken.
    pub recheck: Option<Duration>,
    locks: Arc<Locks>,
    uid: String,
}

#[derive(Default)]
struct Table {
    /// By UID of the request.
    locks: HashMap<String, Lock>,
    by_place: BTreeMap<Place, BTreeSet<String>>,
    /// Who waits for a request, by its UID.
    waiting: HashMap<String, HashMap<String, ObjectRef<ProvisioningRequest>>>,
    /// Whom a request waits for.
    waits_for: HashMap<String, String>,
    /// UIDs of requests that are gone and whose locks are to end.
    gone: BTreeSet<String>,
}

struct Lock {
    wants: Wants,
    namespace: String,
    request: String,
    /// The request has the finalizer: it may have written more than that.
    begun: bool,
    /// The request is being reconciled.
    running: bool,
    /// When the lock of a request that is gone ends.
    until: Option<Instant>,
}

/// How long the caches may lag behind the last write for a request that is gone.
const LINGER: Duration = Duration::from_secs(5);

impl Locks {
    /// No locks. `wake` is called for requests that waited for another one and may go on now.
    pub fn new(wake: impl Fn(ObjectRef<ProvisioningRequest>) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), wake: Box::new(wake) })
    }

    /// Decides whether the request, which is `able` to go on as far as itself is concerned, gets or keeps the lock on what it
    /// wants. It has one from the moment at which it goes on until its Cluster shows, or until it does not go on. `None`: the
    /// request is gone.
    pub fn acquire(
        self: &Arc<Self>,
        request: &ProvisioningRequest,
        observed: &Observed,
        able: bool,
        watches: &Watches,
        now: Instant,
    ) -> Option<Decided> {
        let uid = &observed.uid;
        let mut table = self.lock();
        // Once the cache does not have it any more, nobody would take its lock away.
        let known = watches.requests.get(&ObjectRef::from_obj(request));
        known.filter(|known| known.uid() == request.uid())?;
        let mut woken = table.expire(now);
        table.stop_waiting(uid);
        let stays = request.metadata.deletion_timestamp.is_none();
        let mut judge = Judge { watches, table: &table, now, begins: HashMap::new() };
        let blocker = if stays { judge.blocker(request, observed, able) } else { None };
        let wants = Wants::of(request, observed.template.as_deref(), &watches.hosts);
        if stays && able && blocker.is_none() && !wants.show(observed) {
            table.insert(
                uid,
                Lock {
                    wants,
                    namespace: request.namespace().unwrap_or_default(),
                    request: key(request),
                    begun: has_finalizer(request),
                    running: true,
                    until: None,
                },
            );
        } else {
            table.remove(uid);
            woken.extend(table.wake(uid));
        }
        let mut recheck = None;
        let mut rival = None;
        if let Some(blocker) = blocker {
            if let Some(other) = blocker.uid {
                table.wait(uid, ObjectRef::from_obj(request), other);
            }
            (rival, recheck) = (Some(blocker.rival), blocker.recheck);
        }
        drop(table);
        woken.into_iter().for_each(&self.wake);
        Some(Decided { rival, recheck, locks: Arc::clone(self), uid: uid.clone() })
    }

    /// The request is gone. If it was still at work, its Cluster may show late, and its lock ends later.
    pub fn forget(&self, uid: &str, now: Instant) {
        let mut table = self.lock();
        table.stop_waiting(uid);
        let Table { locks, gone, .. } = &mut *table;
        match locks.get_mut(uid).filter(|lock| lock.begun) {
            Some(lock) if gone.insert(uid.to_owned()) => lock.until = (!lock.running).then(|| now + LINGER),
            Some(_) => {}
            None => table.remove(uid),
        }
        let woken = table.wake(uid);
        drop(table);
        woken.into_iter().for_each(&self.wake);
    }

    /// How many requests have a lock or wait for one.
    pub fn len(&self) -> usize {
        let table = self.lock();
        table.locks.len() + table.waits_for.len()
    }

    /// Whether nobody has a lock or waits for one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locks").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Drop for Decided {
    fn drop(&mut self) {
        let mut table = self.locks.lock();
        let gone = table.gone.contains(&self.uid);
        if let Some(lock) = table.locks.get_mut(&self.uid) {
            lock.running = false;
            lock.until = gone.then(|| Instant::now() + LINGER);
        }
        let woken = if gone { table.wake(&self.uid) } else { Vec::new() };
        drop(table);
        woken.into_iter().for_each(&self.locks.wake);
    }
}

impl Table {
    fn insert(&mut self, uid: &str, lock: Lock) {
        self.remove(uid);
        for place in lock.wants.places() {
            self.by_place.entry(place).or_default().insert(uid.to_owned());
        }
        self.locks.insert(uid.to_owned(), lock);
    }

    fn remove(&mut self, uid: &str) {
        self.gone.remove(uid);
        let Some(lock) = self.locks.remove(uid) else { return };
        for place in lock.wants.places() {
            if let Some(all) = self.by_place.get_mut(&place) {
                all.remove(uid);
                if all.is_empty() {
                    self.by_place.remove(&place);
                }
            }
        }
    }

    /// The lock of another request on something of this.
    fn other(&self, uid: &str, wants: &Wants) -> Option<(&String, &Lock)> {
        let near = wants.places().into_iter().filter_map(|place| self.by_place.get(&place)).flatten();
        near.filter(|other| *other != uid)
            .filter_map(|other| self.locks.get_key_value(other))
            .find(|(_, lock)| lock.wants.overlaps(wants))
    }

    fn wait(&mut self, uid: &str, request: ObjectRef<ProvisioningRequest>, other: String) {
        self.waiting.entry(other.clone()).or_default().insert(uid.to_owned(), request);
        self.waits_for.insert(uid.to_owned(), other);
    }

    fn stop_waiting(&mut self, uid: &str) {
        let Some(other) = self.waits_for.remove(uid) else { return };
        if let Some(all) = self.waiting.get_mut(&other) {
            all.remove(uid);
            if all.is_empty() {
                self.waiting.remove(&other);
            }
        }
    }

    /// Those who waited for this request.
    fn wake(&mut self, uid: &str) -> Vec<ObjectRef<ProvisioningRequest>> {
        let all = self.waiting.remove(uid).unwrap_or_default();
        for waiting in all.keys() {
            self.waits_for.remove(waiting);
        }
        all.into_values().collect()
    }

    fn expire(&mut self, now: Instant) -> Vec<ObjectRef<ProvisioningRequest>> {
        let is_over = |uid: &&String| self.locks[*uid].until.is_some_and(|until| until <= now);
        let over: Vec<_> = self.gone.iter().filter(is_over).cloned().collect();
        let mut woken = Vec::new();
        for uid in over {
            self.remove(&uid);
            woken.extend(self.wake(&uid));
        }
        woken
    }
}

/// Why a request does not go on.
struct Blocker {
    /// Whom it waits for, if that is a request; a change of a Cluster is told by the watch.
    uid: Option<String>,
    rival: Rival,
    recheck: Option<Duration>,
}

/// One decision, on the caches and locks of one moment.
struct Judge<'a> {
    watches: &'a Watches,
    table: &'a Table,
    now: Instant,
    /// Whether a request would begin, by UID.
    begins: HashMap<String, bool>,
}

impl Judge<'_> {
    /// Who keeps the request from what it wants: a Cluster; then a lock; then, if it is `able` to begin, whoever has to come
    /// first.
    fn blocker(&mut self, request: &ProvisioningRequest, observed: &Observed, able: bool) -> Option<Blocker> {
        // A cluster that runs has its name and its endpoint.
        if observed.is_running() {
            return None;
        }
        let wants = Wants::of(request, observed.template.as_deref(), &self.watches.hosts);
        if let Some(rival) = self.cluster(&wants, observed) {
            return Some(Blocker { uid: None, rival, recheck: None });
        }
        if let Some((uid, lock)) = self.table.other(&observed.uid, &wants) {
            let recheck = lock.until.map(|until| until.saturating_duration_since(self.now));
            let rival = rival(&wants, lock.wants.same_cluster(&wants), &lock.namespace, &lock.request);
            return Some(Blocker { uid: Some(uid.clone()), rival, recheck });
        }
        let has_lock = self.table.locks.get(&observed.uid).is_some_and(|lock| lock.wants == wants);
        if !able || has_lock || observed.own_cluster().is_some() {
            return None;
        }
        let other = self.first(request, observed, wants.carried)?;
        let namespace = other.namespace().unwrap_or_default();
        let rival = rival(&wants, shares_name(request, &other), &namespace, &key(&other));
        Some(Blocker { uid: other.uid(), rival, recheck: None })
    }

    /// A Cluster that has the name, or the endpoint; also one that nobody asks for any more answers. Of two that are being
    /// made the older one goes on.
    fn cluster(&self, wants: &Wants, observed: &Observed) -> Option<Rival> {
        if let Some(cluster) = observed.cluster.as_deref().filter(|_| !observed.cluster_is_own) {
            return Some(Rival { request: maker(cluster, self.watches), what: wants.what(true) });
        }
        let asked = wants.endpoint.as_ref()?;
        let own = observed.own_cluster();
        let is_near = |cluster: &Cluster| cluster.namespace().as_deref() == Some(&wants.namespace);
        let cluster = self.watches.clusters.find(|cluster| {
            let is_own = is_near(cluster) && wants.cluster.as_ref() == Some(&cluster.name_any());
            let is_later =
                own.is_some_and(|own| cluster.is_being_made() && age_of_cluster(own) < age_of_cluster(cluster));
            !is_own && !is_later && has_endpoint(cluster, asked, wants.carried)
        })?;
        let request =
            if is_near(&cluster) { maker(&cluster, self.watches) } else { "a Cluster of another namespace".to_owned() };
        Some(Rival { request, what: wants.what(false) })
    }

    /// The request that comes first of those that ask for the same: one that has not let go yet; otherwise, of those that
    /// can begin, one that holds hosts, then the older one.
    fn first(
        &mut self,
        request: &ProvisioningRequest,
        observed: &Observed,
        carried: bool,
    ) -> Option<Arc<ProvisioningRequest>> {
        let all = self.watches.requests.state();
        let mut others: Vec<_> = all.into_iter().filter(|other| contends(request, other, carried)).collect();
        if others.is_empty() {
            return None;
        }
        let claims = self.claims(&others);
        let claim = |other: &ProvisioningRequest| claims.get(&other.uid().unwrap_or_default()).copied();
        let is_deleted = |other: &ProvisioningRequest| other.metadata.deletion_timestamp.is_some();
        let stays = |other: &ProvisioningRequest| {
            is_deleted(other) && has_finalizer(other) || claim(other) == Some(Claim::InUse)
        };
        if let Some(other) = others.iter().filter(|other| stays(other)).min_by_key(|other| age(other)) {
            return Some(Arc::clone(other));
        }
        let own = (observed.held().next().is_none(), age(request));
        let rank = |other: &ProvisioningRequest| (claim(other).is_none(), age(other));
        others.retain(|other| !is_deleted(other) && rank(other) < own);
        others.sort_by_cached_key(|other| rank(other));
        others.into_iter().find(|other| self.begins(other))
    }

    /// Whether the request would begin if it were looked at now.
    fn begins(&mut self, request: &ProvisioningRequest) -> bool {
        let uid = request.uid().unwrap_or_default();
        if let Some(known) = self.begins.get(&uid) {
            return *known;
        }
        let observed = observe(self.watches, request);
        let able = is_able(request, &observed);
        let begins = able && self.blocker(request, &observed, able).is_none();
        self.begins.insert(uid, begins);
        begins
    }

    /// Which of the requests hold hosts.
    fn claims(&self, requests: &[Arc<ProvisioningRequest>]) -> HashMap<String, Claim> {
        let clusters: HashMap<_, _> = requests
            .iter()
            .map(|request| {
                let cluster = request.spec.template_parameters.cluster_name.as_deref();
                (request.uid().unwrap_or_default(), cluster.unwrap_or_default())
            })
            .collect();
        let mut claims = HashMap::new();
        for host in self.watches.hosts.state() {
            let Some((uid, cluster)) = host.holder().and_then(|holder| clusters.get_key_value(holder)) else {
                continue;
            };
            let claim = if host.is_given_to(cluster) { Claim::InUse } else { Claim::Free };
            let before = claims.entry(uid.clone()).or_insert(claim);
            *before = claim.max(*before);
        }
        claims
    }
}

/// How a request holds hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// They are still free.
    Free,
    /// Its cluster is on one of them.
    InUse,
}

/// Whether the request can be carried out as far as itself is concerned.
pub fn is_able(request: &ProvisioningRequest, observed: &Observed) -> bool {
    observed.missing_providers.is_empty() && validate(request, observed).is_ok()
}

/// Who it is in another namespace is nobody's business.
fn rival(wants: &Wants, is_name: bool, namespace: &str, request: &str) -> Rival {
    let request = if namespace == wants.namespace {
        format!("ProvisioningRequest {request}")
    } else {
        "a ProvisioningRequest of another namespace".to_owned()
    };
    Rival { request, what: wants.what(is_name) }
}
