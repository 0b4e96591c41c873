//! Decides which of several requests that demand the same cluster name or endpoint continues.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cluster_api::cluster::Cluster;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_types::{ProvisioningRequest, names};
use tokio::time::Instant;

use super::demand::{Demand, contenders, has_endpoint, shares_name};
use super::lock_table::Table;
use crate::caches::Caches;
use crate::provisioner::byoh::identity::owner_exists;
use crate::provisioner::byoh::marks::MarkedCluster as _;
use crate::provisioner::byoh::observe::observe;
use crate::provisioner::byoh::observed::{Contender, Observed};
use crate::provisioner::byoh::validate::validate;
use crate::request::{has_finalizer, key};

/// To whom a Cluster belongs, for messages.
fn owner_description(cluster: &Cluster, caches: &Caches) -> String {
    match cluster.annotations().get(names::REQUEST_ANNOTATION) {
        Some(request) if !owner_exists(caches, cluster) => format!(
            "Cluster {}/{} of ProvisioningRequest {request}, which does not exist any more (apply that request again to manage its cluster \
             again; to delete the cluster, delete the request after that)",
            cluster.namespace().unwrap_or_default(),
            cluster.name_any()
        ),
        Some(request) => format!("ProvisioningRequest {request}"),
        None => "a Cluster that was not created for a ProvisioningRequest".to_owned(),
    }
}

type Age = (Option<Timestamp>, Option<String>);

fn age(request: &ProvisioningRequest) -> Age {
    (request.metadata.creation_timestamp.as_ref().map(|time| time.0), request.uid())
}

fn age_of_cluster(cluster: &Cluster) -> Age {
    (cluster.metadata.creation_timestamp.as_ref().map(|time| time.0), cluster.uid())
}

/// Why a request does not continue.
pub struct Blocker {
    /// UID of the request that it waits for, if it is a request; the watch reports a change of a Cluster.
    pub uid: Option<String>,
    /// Who has what the request demands.
    pub contender: Contender,
    /// When to look again.
    pub recheck: Option<Duration>,
}

/// One decision, on the caches and locks of one moment.
pub struct Arbiter<'a> {
    caches: &'a Caches,
    table: &'a Table,
    now: Instant,
    /// Whether a request would begin, by UID.
    begins: HashMap<String, bool>,
}

impl<'a> Arbiter<'a> {
    /// An arbiter on these caches and locks.
    pub fn new(caches: &'a Caches, table: &'a Table, now: Instant) -> Self {
        Self { caches, table, now, begins: HashMap::new() }
    }

    /// What blocks the request: a Cluster; then a lock; then, if it is `able` to begin, a request that comes first.
    pub fn blocker(&mut self, request: &ProvisioningRequest, observed: &Observed, able: bool) -> Option<Blocker> {
        // A running cluster has its name and its endpoint.
        if observed.is_created {
            return None;
        }
        let demand = Demand::of(request, observed.template.as_deref(), &self.caches.hosts);
        if let Some(contender) = self.cluster(&demand, observed) {
            return Some(Blocker { uid: None, contender, recheck: None });
        }
        if let Some((uid, lock)) = self.table.other(&observed.uid, &demand) {
            let recheck = lock.until.map(|until| until.saturating_duration_since(self.now));
            let contender = contender(&demand, lock.demand.same_cluster(&demand), &lock.namespace, &lock.request);
            return Some(Blocker { uid: Some(uid.clone()), contender, recheck });
        }
        let has_lock = self.table.locks.get(&observed.uid).is_some_and(|lock| lock.demand == demand);
        if !able || has_lock || observed.own_cluster().is_some() {
            return None;
        }
        let other = self.first(request, observed, demand.carried)?;
        let namespace = other.namespace().unwrap_or_default();
        let contender = contender(&demand, shares_name(request, &other), &namespace, &key(&other));
        Some(Blocker { uid: other.uid(), contender, recheck: None })
    }

    /// A Cluster that has the name, or the endpoint; also one whose request is gone. Of two that are being created the older one continues.
    fn cluster(&self, demand: &Demand, observed: &Observed) -> Option<Contender> {
        if let Some(cluster) = observed.cluster.as_deref().filter(|_| !observed.cluster_is_own) {
            return Some(Contender { request: owner_description(cluster, self.caches), what: demand.what(true) });
        }
        let requested = demand.endpoint.as_ref()?;
        let own = observed.own_cluster();
        let is_near = |cluster: &Cluster| cluster.namespace().as_deref() == Some(&demand.namespace);
        let cluster = self.caches.clusters.with_endpoint(&requested.host).into_iter().find(|cluster| {
            let is_own = is_near(cluster) && demand.cluster.as_ref() == Some(&cluster.name_any());
            let is_later =
                own.is_some_and(|own| cluster.is_creating() && age_of_cluster(own) < age_of_cluster(cluster));
            !is_own && !is_later && has_endpoint(cluster, requested, demand.carried)
        })?;
        let request = if is_near(&cluster) {
            owner_description(&cluster, self.caches)
        } else {
            "a Cluster of another namespace".to_owned()
        };
        Some(Contender { request, what: demand.what(false) })
    }

    /// The request that comes first of those that ask for the same: one whose deletion has not ended, or whose hosts are in use; otherwise, of
    /// those that can begin, one that holds hosts, then the older one.
    fn first(
        &mut self,
        request: &ProvisioningRequest,
        observed: &Observed,
        carried: bool,
    ) -> Option<Arc<ProvisioningRequest>> {
        let mut others = contenders(&self.caches.requests, request, carried);
        let claims: HashMap<_, _> = others.iter().map(|other| (other.uid(), self.claim(other))).collect();
        let claim = |other: &ProvisioningRequest| claims.get(&other.uid()).copied().flatten();
        let is_being_deleted = |other: &ProvisioningRequest| other.metadata.deletion_timestamp.is_some();
        let stays = |other: &ProvisioningRequest| {
            is_being_deleted(other) && has_finalizer(other) || claim(other) == Some(Claim::InUse)
        };
        if let Some(other) = others.iter().filter(|other| stays(other)).min_by_key(|other| age(other)) {
            return Some(Arc::clone(other));
        }
        let own = (observed.held().next().is_none(), age(request));
        let rank = |other: &ProvisioningRequest| (claim(other).is_none(), age(other));
        others.retain(|other| !is_being_deleted(other) && rank(other) < own);
        others.sort_by_cached_key(|other| rank(other));
        others.into_iter().find(|other| self.would_begin(other))
    }

    /// Whether the request would begin if it were looked at now.
    fn would_begin(&mut self, request: &ProvisioningRequest) -> bool {
        let uid = request.uid().unwrap_or_default();
        if let Some(known) = self.begins.get(&uid) {
            return *known;
        }
        let observed = observe(self.caches, request);
        let able = is_able(request, &observed);
        let begins = able && self.blocker(request, &observed, able).is_none();
        self.begins.insert(uid, begins);
        begins
    }

    /// How the request holds hosts, if it does.
    fn claim(&self, request: &ProvisioningRequest) -> Option<Claim> {
        let held = self.caches.hosts.with_mark(&request.namespace()?, &request.uid()?);
        let cluster = request.spec.template_parameters.cluster_name.as_deref().unwrap_or_default();
        held.iter().map(|host| if host.is_attached_to(cluster) { Claim::InUse } else { Claim::Free }).max()
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

/// The contender for messages. A request of another namespace is not named.
fn contender(demand: &Demand, is_name: bool, namespace: &str, request: &str) -> Contender {
    let request = if namespace == demand.namespace {
        format!("ProvisioningRequest {request}")
    } else {
        "a ProvisioningRequest of another namespace".to_owned()
    };
    Contender { request, what: demand.what(is_name) }
}
