//! Decides which of several requests that demand the same cluster name or endpoint continues.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cluster_api::cluster::Cluster;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_types::{ProvisioningRequest, names};
use tokio::time::Instant;

use super::demand::{Demand, Resource, contenders, has_endpoint, shares_name};
use super::lock_table::Table;
use crate::caches::Caches;
use crate::provisioner::byoh::identity::owner_exists;
use crate::provisioner::byoh::marks::MarkedCluster as _;
use crate::provisioner::byoh::observe::observe;
use crate::provisioner::byoh::observed::{ForeignPart, Observed};
use crate::provisioner::byoh::validate::validate;
use crate::request::{has_finalizer, key};

/// By creation timestamp, then by UID: the older object is less.
type CreationOrder = (Option<Timestamp>, Option<String>);

fn creation_order(request: &ProvisioningRequest) -> CreationOrder {
    (request.metadata.creation_timestamp.as_ref().map(|time| time.0), request.uid())
}

fn creation_order_of_cluster(cluster: &Cluster) -> CreationOrder {
    (cluster.metadata.creation_timestamp.as_ref().map(|time| time.0), cluster.uid())
}

/// Why a request does not continue.
pub struct Blocker {
    /// UID of the blocking request; `None` if an object blocks: its watch then triggers the blocked request.
    pub uid: Option<String>,
    /// Who blocks, and until when.
    pub message: String,
    /// Requeue the blocked request after this time; `None`: it waits for a trigger.
    pub recheck: Option<Duration>,
}

/// One decision, on the caches and locks of one moment.
pub struct Arbiter<'a> {
    caches: &'a Caches,
    table: &'a Table,
    now: Instant,
    /// Results of `would_get_lock`, by UID of the request.
    would_get_lock: HashMap<String, bool>,
}

impl<'a> Arbiter<'a> {
    /// An arbiter on these caches and locks.
    pub fn new(caches: &'a Caches, table: &'a Table, now: Instant) -> Self {
        Self { caches, table, now, would_get_lock: HashMap::new() }
    }

    /// What blocks the request: a Cluster, or a part of one; then a lock; then, if the request [`can_be_carried_out`], a request that comes first.
    pub fn blocker(
        &mut self,
        request: &ProvisioningRequest,
        observed: &Observed,
        can_be_carried_out: bool,
    ) -> Option<Blocker> {
        // Once the Cluster is created, nobody can take its name or endpoint.
        if observed.is_created {
            return None;
        }
        let demand = Demand::of(request, observed.template.as_deref(), &self.caches.hosts);
        let foreign = observed.foreign_part.as_ref().map(|part| taken_by_part(&demand, part));
        if let Some(message) = self.cluster(&demand, observed).or(foreign) {
            return Some(Blocker { uid: None, message, recheck: None });
        }
        if let Some((uid, lock)) = self.table.other(&observed.uid, &demand) {
            let recheck = lock.until.map(|until| until.saturating_duration_since(self.now));
            let owner = owner(&demand, &lock.namespace, &lock.request);
            let message = taken_by_request(&demand.resource(lock.demand.same_cluster(&demand)), &owner);
            return Some(Blocker { uid: Some(uid.clone()), message, recheck });
        }
        let has_lock = self.table.locks.get(&observed.uid).is_some_and(|lock| lock.demand == demand);
        if !can_be_carried_out || has_lock || observed.own_cluster().is_some() {
            return None;
        }
        let other = self.first(request, observed, demand.by_kube_vip)?;
        let owner = owner(&demand, &other.namespace().unwrap_or_default(), &key(&other));
        let message = requested_first(&demand.resource(shares_name(request, &other)), &owner);
        Some(Blocker { uid: other.uid(), message, recheck: None })
    }

    /// The message, if a Cluster has the name or the endpoint, also one whose request does not exist any more. Of two that are being created
    /// the older one continues.
    fn cluster(&self, demand: &Demand, observed: &Observed) -> Option<String> {
        if let Some(cluster) = observed.cluster.as_deref().filter(|_| !observed.cluster_is_own) {
            return Some(taken_by_cluster(&demand.resource(true), cluster, self.caches));
        }
        let requested = demand.endpoint.as_ref()?;
        let own = observed.own_cluster();
        let is_near = |cluster: &Cluster| cluster.namespace().as_deref() == Some(&demand.namespace);
        let cluster = self.caches.clusters.with_endpoint(&requested.host).into_iter().find(|cluster| {
            let is_own = is_near(cluster) && demand.cluster.as_ref() == Some(&cluster.name_any());
            let is_later = own.is_some_and(|own| {
                cluster.is_creating() && creation_order_of_cluster(own) < creation_order_of_cluster(cluster)
            });
            !is_own && !is_later && has_endpoint(cluster, requested, demand.by_kube_vip)
        })?;
        let endpoint = demand.resource(false);
        Some(if is_near(&cluster) {
            taken_by_cluster(&endpoint, &cluster, self.caches)
        } else {
            taken(&endpoint, "a Cluster in another namespace (not shown)", "that Cluster")
        })
    }

    /// Which other contending request comes before this one, if any:
    ///
    /// 1. one that is being deleted and still has its finalizer, or that has attached hosts; the oldest of them;
    /// 2. of those that would get the lock now, a request that holds hosts before others, then the oldest.
    fn first(
        &mut self,
        request: &ProvisioningRequest,
        observed: &Observed,
        by_kube_vip: bool,
    ) -> Option<Arc<ProvisioningRequest>> {
        let mut others = contenders(&self.caches.requests, request, by_kube_vip);
        let holdings: HashMap<_, _> = others.iter().map(|other| (other.uid(), self.holding(other))).collect();
        let holding = |other: &ProvisioningRequest| holdings.get(&other.uid()).copied().flatten();
        let is_being_deleted = |other: &ProvisioningRequest| other.metadata.deletion_timestamp.is_some();
        let always_first = |other: &ProvisioningRequest| {
            is_being_deleted(other) && has_finalizer(other) || holding(other) == Some(Holding::Attached)
        };
        if let Some(other) = others.iter().filter(|other| always_first(other)).min_by_key(|other| creation_order(other))
        {
            return Some(Arc::clone(other));
        }
        let own = (observed.held().next().is_none(), creation_order(request));
        let rank = |other: &ProvisioningRequest| (holding(other).is_none(), creation_order(other));
        others.retain(|other| !is_being_deleted(other) && rank(other) < own);
        others.sort_by_cached_key(|other| rank(other));
        others.into_iter().find(|other| self.would_get_lock(other))
    }

    /// Whether [`Locks::acquire`](super::Locks::acquire) would give the request the lock now.
    fn would_get_lock(&mut self, request: &ProvisioningRequest) -> bool {
        let uid = request.uid().unwrap_or_default();
        if let Some(known) = self.would_get_lock.get(&uid) {
            return *known;
        }
        let observed = observe(self.caches, request);
        let would_get_lock = can_be_carried_out(request, &observed) && self.blocker(request, &observed, true).is_none();
        self.would_get_lock.insert(uid, would_get_lock);
        would_get_lock
    }

    /// How the request holds hosts, if it does.
    fn holding(&self, request: &ProvisioningRequest) -> Option<Holding> {
        let held = self.caches.hosts.with_mark(&request.namespace()?, &request.uid()?);
        let cluster = request.spec.template_parameters.cluster_name.as_deref().unwrap_or_default();
        held.iter().map(|host| if host.is_attached_to(cluster) { Holding::Attached } else { Holding::Reserved }).max()
    }
}

/// How a request holds hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holding {
    /// None is attached to a machine of its cluster yet.
    Reserved,
    /// At least one is attached to a machine of its cluster.
    Attached,
}

/// Whether the request could be carried out if no other request or Cluster had its cluster name or endpoint.
pub fn can_be_carried_out(request: &ProvisioningRequest, observed: &Observed) -> bool {
    observed.missing_providers.is_empty() && validate(request, observed).is_ok()
}

/// A request as messages to another one name it.
fn owner(demand: &Demand, namespace: &str, request: &str) -> String {
    if namespace == demand.namespace {
        format!("ProvisioningRequest {request}")
    } else {
        "a ProvisioningRequest in another namespace (not shown)".to_owned()
    }
}

/// The message for what a Cluster in the request's namespace has.
fn taken_by_cluster(resource: &Resource, cluster: &Cluster, caches: &Caches) -> String {
    let name = format!("Cluster {}/{}", cluster.namespace().unwrap_or_default(), cluster.name_any());
    match cluster.annotations().get(names::REQUEST_ANNOTATION) {
        Some(request) if owner_exists(caches, cluster) => {
            taken_by_request(resource, &format!("ProvisioningRequest {request}"))
        }
        Some(request) => {
            let owner = format!("{name} of ProvisioningRequest {request}, which does not exist any more");
            format!(
                "{}. To manage that cluster, apply ProvisioningRequest {request} again, unchanged. To delete that cluster, do the same, then \
                 delete ProvisioningRequest {request}",
                taken(resource, &owner, "that Cluster")
            )
        }
        None => taken(resource, &format!("{name}, which this operator did not create"), "that Cluster"),
    }
}

/// The message for an object that has the name of a part of the cluster.
fn taken_by_part(demand: &Demand, part: &ForeignPart) -> String {
    let kind = part.kind.name();
    let origin = match &part.request {
        Some(request) if part.owner_exists => format!("of ProvisioningRequest {request}"),
        Some(request) => format!("of ProvisioningRequest {request}, which does not exist any more"),
        None => "which this operator did not create".to_owned(),
    };
    let owner = format!("{kind} {}/{}, {origin}", demand.namespace, part.name);
    taken(&demand.resource(true), &owner, &format!("that {kind}"))
}

fn taken_by_request(resource: &Resource, owner: &str) -> String {
    taken(resource, owner, "that request")
}

fn taken(resource: &Resource, owner: &str, until_deleted: &str) -> String {
    format!("{resource} is taken by {owner}; {}", how_to_continue(resource, until_deleted))
}

/// The message for what another request demands too.
fn requested_first(resource: &Resource, owner: &str) -> String {
    format!("{resource} is also requested by {owner}, which comes first; {}", how_to_continue(resource, "that request"))
}

fn how_to_continue(resource: &Resource, until_deleted: &str) -> String {
    format!(
        "this request continues when {until_deleted} is deleted. To continue now, delete this request and create it with another {}",
        resource.field
    )
}
