//! What requests cannot share: a cluster name in a namespace, and an endpoint.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use cluster_api::cluster::{Cluster, canonical_host};
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::VirtualIpProvider;
use o2ims_types::o2ims::v1alpha1::provisioning_request::{API_PORT, Endpoint};
use o2ims_types::{ClusterTemplate, ProvisioningRequest};

use crate::caches::{Hosts, Requests};
use crate::provisioner::byoh::marks::MarkedHost as _;
use crate::provisioner::byoh::observed::Observed;

/// What requests cannot share.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// Namespace of the request.
    pub namespace: String,
    /// Name of the cluster.
    pub cluster: Option<String>,
    /// Where the cluster's API is to answer.
    pub endpoint: Option<Endpoint>,
    /// kube-vip advertises the endpoint, or the template is not known: if it is an IP address, it serves one cluster, whatever the port.
    pub by_kube_vip: bool,
}

/// One of the things that requests cannot share, for messages: `clusterName core`.
pub struct Resource {
    /// The field of `templateParameters`.
    pub field: &'static str,
    value: String,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.value)
    }
}

/// Where two that want the same meet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockKey {
    /// Namespace and name of a cluster.
    Cluster(String, String),
    /// Address or name of an endpoint.
    Host(String),
}

impl Demand {
    /// What a request demands.
    pub fn of(request: &ProvisioningRequest, template: Option<&ClusterTemplate>, hosts: &Hosts) -> Self {
        Self {
            namespace: request.namespace().unwrap_or_default(),
            cluster: request.spec.template_parameters.cluster_name.clone(),
            endpoint: wanted_endpoint(request, hosts),
            by_kube_vip: is_by_kube_vip(template),
        }
    }

    /// Under which keys a lock on it is found.
    pub fn keys(&self) -> Vec<LockKey> {
        let cluster = self.cluster.iter().map(|name| LockKey::Cluster(self.namespace.clone(), name.clone()));
        let host = |endpoint: &Endpoint| LockKey::Host(canonical_host(&endpoint.host));
        cluster.chain(self.endpoint.iter().map(host)).collect()
    }

    /// Whether both are the same cluster.
    pub fn same_cluster(&self, other: &Self) -> bool {
        self.cluster.is_some() && self.cluster == other.cluster && self.namespace == other.namespace
    }

    /// Whether only one of both can be had.
    pub fn overlaps(&self, other: &Self) -> bool {
        let by_kube_vip = self.by_kube_vip || other.by_kube_vip;
        let endpoints = self.endpoint.as_ref().zip(other.endpoint.as_ref());
        self.same_cluster(other)
            || endpoints.is_some_and(|(one, two)| same_endpoint(&one.host, one.port, &two.host, two.port, by_kube_vip))
    }

    /// Whether the request's Cluster shows all of it: then the Cluster is the lock.
    pub fn is_shown(&self, observed: &Observed) -> bool {
        let has =
            |cluster: &Cluster| self.endpoint.as_ref().is_none_or(|requested| has_endpoint(cluster, requested, false));
        observed.is_created || observed.own_cluster().is_some_and(|cluster| has(cluster))
    }

    /// The cluster name, or the endpoint.
    pub fn resource(&self, is_name: bool) -> Resource {
        match &self.endpoint {
            Some(requested) if !is_name => {
                Resource { field: "controlPlaneEndpoint", value: format!("{}:{}", requested.host, requested.port) }
            }
            _ => Resource { field: "clusterName", value: self.cluster.clone().unwrap_or_default() },
        }
    }
}

/// Whether kube-vip advertises the endpoint of a cluster; true for a template that is not known.
fn is_by_kube_vip(template: Option<&ClusterTemplate>) -> bool {
    template.is_none_or(|template| template.spec.virtual_ip.provider == VirtualIpProvider::KubeVip)
}

/// The requests that ask for the cluster name or the endpoint that `request` asks for, each once. `by_kube_vip`: see
/// [`Demand::by_kube_vip`].
pub fn contenders(
    requests: &Requests,
    request: &ProvisioningRequest,
    by_kube_vip: bool,
) -> Vec<Arc<ProvisioningRequest>> {
    let wanted = &request.spec.template_parameters;
    let cluster = wanted.cluster_name.as_deref();
    let mut all =
        cluster.map(|name| requests.for_cluster(&request.namespace().unwrap_or_default(), name)).unwrap_or_default();
    if let Some(endpoint) = &wanted.control_plane_endpoint {
        let at_endpoint = requests.for_endpoint(&endpoint.host);
        all.extend(at_endpoint.into_iter().filter(|other| !shares_name(request, other)));
    }
    all.retain(|other| contends(request, other, by_kube_vip));
    all
}

/// Whether `request` asks for the cluster name or the endpoint that `other` asks for.
fn contends(request: &ProvisioningRequest, other: &ProvisioningRequest, by_kube_vip: bool) -> bool {
    let shares_endpoint = || {
        let (one, two) = (&request.spec.template_parameters, &other.spec.template_parameters);
        let both = one.control_plane_endpoint.as_ref().zip(two.control_plane_endpoint.as_ref());
        both.is_some_and(|(one, two)| same_endpoint(&one.host, one.port, &two.host, two.port, by_kube_vip))
    };
    other.uid() != request.uid() && (shares_name(request, other) || shares_endpoint())
}

/// Whether both ask for the same cluster name.
pub fn shares_name(request: &ProvisioningRequest, other: &ProvisioningRequest) -> bool {
    let wanted = &request.spec.template_parameters.cluster_name;
    wanted.is_some()
        && other.spec.template_parameters.cluster_name == *wanted
        && other.namespace() == request.namespace()
}

/// Whether a Cluster has the endpoint that the request needs.
pub fn wants_endpoint_of(request: &ProvisioningRequest, cluster: &Cluster, hosts: &Hosts) -> bool {
    wanted_endpoint(request, hosts).is_some_and(|requested| has_endpoint(cluster, &requested, true))
}

/// Where the API of the request's cluster is to answer: at the requested endpoint, or at its one master, unless that host is in use or held by
/// another request.
fn wanted_endpoint(request: &ProvisioningRequest, hosts: &Hosts) -> Option<Endpoint> {
    let wanted = &request.spec.template_parameters;
    if wanted.control_plane_endpoint.is_some() {
        return wanted.control_plane_endpoint.clone();
    }
    let [master] = &wanted.hosts.as_ref()?.masters[..] else { return None };
    let host = hosts.get(&request.namespace()?, master.name())?;
    let is_free =
        host.in_use_reason().is_none() && host.holder().is_none_or(|holder| request.uid().as_deref() == Some(holder));
    let address = host.endpoint_address(master.ip()).filter(|_| is_free)?;
    Some(Endpoint { host: address.to_string(), port: API_PORT })
}

/// Whether the Cluster has the endpoint.
pub fn has_endpoint(cluster: &Cluster, requested: &Endpoint, by_kube_vip: bool) -> bool {
    let endpoint = cluster.spec.control_plane_endpoint.as_ref();
    endpoint.is_some_and(|has| same_endpoint(&requested.host, requested.port, &has.host, has.port, by_kube_vip))
}

/// Behind a load balancer the port counts.
fn same_endpoint(host: &str, port: i32, other: &str, other_port: i32, by_kube_vip: bool) -> bool {
    let serves_one_cluster = by_kube_vip && host.parse::<IpAddr>().is_ok();
    canonical_host(host) == canonical_host(other) && (serves_one_cluster || port == other_port)
}
