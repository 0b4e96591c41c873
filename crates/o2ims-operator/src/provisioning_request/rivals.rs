//! Requests that want the same cluster name or the same endpoint. Hosts need no such rule: the API server decides on each
//! claim.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use o2ims_types::cluster_template::VirtualIpProvider;
use o2ims_types::provisioning_request::{API_PORT, Endpoint};
use o2ims_types::{ClusterTemplate, ProvisioningRequest, conditions, names};
use operator_kit::status;

use super::observe::request_exists;
use super::plan::key;
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

/// Other requests that want the same cluster name or endpoint.
pub fn contenders(
    requests: &Store<ProvisioningRequest>,
    request: &ProvisioningRequest,
    template: Option<&ClusterTemplate>,
) -> Vec<Arc<ProvisioningRequest>> {
    let carried = is_carried(template);
    requests.state().into_iter().filter(|other| contends(request, other, carried)).collect()
}

/// Whether masters carry the endpoint themselves, as far as is known.
fn is_carried(template: Option<&ClusterTemplate>) -> bool {
    template.is_none_or(|template| template.spec.virtual_ip.provider == VirtualIpProvider::KubeVip)
}

/// Whether `request` wants the cluster name or the endpoint that `other` wants or has. An endpoint that is `carried` by the
/// masters themselves serves one cluster, on whatever port.
pub fn contends(request: &ProvisioningRequest, other: &ProvisioningRequest, carried: bool) -> bool {
    let shares_endpoint = || {
        let asked = request.spec.template_parameters.control_plane_endpoint.as_ref();
        asked.is_some_and(|asked| {
            endpoints_of(other).any(|(host, port)| same_endpoint(&asked.host, asked.port, &host, port, carried))
        })
    };
    other.uid() != request.uid() && (shares_name(request, other) || shares_endpoint())
}

fn shares_name(request: &ProvisioningRequest, other: &ProvisioningRequest) -> bool {
    let wanted = &request.spec.template_parameters.cluster_name;
    wanted.is_some()
        && other.spec.template_parameters.cluster_name == *wanted
        && other.namespace() == request.namespace()
}

/// The Cluster object is the lock on a cluster's name; before there is one, a request that holds hosts goes first, then
/// the older one. The same holds for an endpoint: two control planes on one address would take it from each other.
pub fn find(
    watches: &Watches,
    request: &ProvisioningRequest,
    foreign: Option<&Cluster>,
    template: Option<&ClusterTemplate>,
    contenders: &[Arc<ProvisioningRequest>],
) -> Option<Rival> {
    let wanted = &request.spec.template_parameters;
    let name = format!("clusterName {}", wanted.cluster_name.as_deref().unwrap_or_default());
    if let Some(cluster) = foreign {
        return Some(Rival { request: maker(cluster, &watches.requests), what: name });
    }
    let endpoint = |asked: &Endpoint| format!("controlPlaneEndpoint {}:{}", asked.host, asked.port);
    // Who it is in another namespace is nobody's business.
    let is_near = |namespace: Option<String>| namespace == request.namespace();
    if let Some(other) = contenders.iter().filter(|other| goes_first(other, request)).min_by_key(|other| age(other)) {
        let what = match &wanted.control_plane_endpoint {
            Some(asked) if !shares_name(request, other) => endpoint(asked),
            _ => name,
        };
        let request = if is_near(other.namespace()) {
            format!("ProvisioningRequest {}", key(other))
        } else {
            "a ProvisioningRequest of another namespace".to_owned()
        };
        return Some(Rival { request, what });
    }
    // A cluster that nobody asks for any more answers all the same.
    let asked = &wanted_endpoint(request, &watches.hosts)?;
    let cluster = watches.clusters.find(|cluster| {
        let is_own = is_near(cluster.namespace()) && wanted.cluster_name.as_ref() == Some(&cluster.name_any());
        !is_own && has_endpoint(cluster, asked, is_carried(template))
    })?;
    let request = if is_near(cluster.namespace()) {
        maker(&cluster, &watches.requests)
    } else {
        "a Cluster of another namespace".to_owned()
    };
    Some(Rival { request, what: endpoint(asked) })
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

/// Who made a Cluster, for messages.
fn maker(cluster: &Cluster, requests: &Store<ProvisioningRequest>) -> String {
    let uid = cluster.labels().get(names::REQUEST_UID_LABEL);
    match cluster.annotations().get(names::REQUEST_ANNOTATION) {
        Some(_) if uid.is_some_and(|uid| !request_exists(requests, uid)) => format!(
            "Cluster {}/{}, which a ProvisioningRequest that does not exist any more has left",
            cluster.namespace().unwrap_or_default(),
            cluster.name_any()
        ),
        Some(request) => format!("ProvisioningRequest {request}"),
        None => "a Cluster that no ProvisioningRequest made".to_owned(),
    }
}

/// The endpoint that a request asks for, and the one that its cluster has.
fn endpoints_of(request: &ProvisioningRequest) -> impl Iterator<Item = (String, i32)> {
    let asked = request.spec.template_parameters.control_plane_endpoint.as_ref();
    let made = request.status.as_ref().and_then(|status| status.extensions.control_plane_endpoint.as_deref());
    let made = made.and_then(|made| made.rsplit_once(':'));
    asked
        .map(|asked| (asked.host.clone(), asked.port))
        .into_iter()
        .chain(made.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?))))
}

/// Behind a load balancer the port counts.
fn same_endpoint(host: &str, port: i32, other: &str, other_port: i32, carried: bool) -> bool {
    match (host.parse::<IpAddr>(), other.parse::<IpAddr>()) {
        (Ok(address), Ok(other)) => address == other && (carried || port == other_port),
        _ => host == other && port == other_port,
    }
}

/// A request that holds hosts goes before one that does not; then the older one. A request that waits for something else,
/// or is wrong, holds nobody up.
fn goes_first(other: &ProvisioningRequest, request: &ProvisioningRequest) -> bool {
    match (holds_hosts(other), holds_hosts(request)) {
        (true, false) => true,
        (false, true) => false,
        _ => {
            age(other) < age(request)
                && (other.metadata.deletion_timestamp.is_none() || holds_hosts(other))
                && !cannot_go_on(other)
        }
    }
}

fn cannot_go_on(request: &ProvisioningRequest) -> bool {
    request.status.as_ref().is_some_and(|status| {
        [conditions::VALIDATED, conditions::HOSTS_RESERVED].iter().any(|type_| {
            status::find(&status.conditions, type_).is_some_and(|condition| {
                // What was said of an earlier form of the request does not count.
                condition.status == "False"
                    && condition.reason != conditions::reason::IN_PROGRESS
                    && condition.observed_generation == request.metadata.generation
            })
        })
    })
}

/// Whether the status says that the request holds hosts. One that was refused before it had a Cluster has let go of them by
/// now, though its status was written before it did.
pub fn holds_hosts(request: &ProvisioningRequest) -> bool {
    let held = request.status.as_ref().and_then(|status| status.provisioned_resource_set.as_ref());
    held.is_some_and(|held| held.o_cloud_node_cluster_id.is_some() || !cannot_go_on(request))
}

fn age(request: &ProvisioningRequest) -> (Option<k8s_openapi::jiff::Timestamp>, Option<String>) {
    (request.metadata.creation_timestamp.as_ref().map(|time| time.0), request.uid())
}

/// Requests that have begun to take what they want, as long as no status shows it: an older one, which comes to the cache or
/// becomes able to go on in the meantime, would begin as well. One process works at a time, so this is written nowhere.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashSet<String>>);

impl Turns {
    /// Whether the request with this UID may begin, or go on: none of its contenders has begun.
    pub fn take(&self, uid: &str, contenders: &[String]) -> bool {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = !contenders.iter().any(|other| turns.contains(other));
        if free && !turns.contains(uid) {
            turns.insert(uid.to_owned());
        }
        free
    }

    /// The request does not go on, or its status shows what it holds.
    pub fn give_back(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}
