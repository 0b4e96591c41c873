//! A request that can be carried out, with every default filled in.

use std::collections::BTreeMap;
use std::sync::Arc;

use o2ims_types::o2ims::v1alpha1::cluster_template::Install;
use o2ims_types::{ClusterTemplate, HostRef, names};

/// A request that can be carried out: everything is there and of the right form.
#[derive(Clone, Debug)]
pub struct DesiredCluster {
    /// Namespace of the request and of everything that is created for it.
    pub namespace: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Kubernetes version, of an existing cluster that of its control plane: what a new machine gets.
    pub version: String,
    /// The Kubernetes version that an existing cluster is to have next: that of the request, or one on the way to it; `None` if the request names none.
    pub target: Option<String>,
    /// It comes to that version by having its hosts reset, not in place.
    pub is_rolling: bool,
    /// Control-plane hosts, in the order of the request.
    pub masters: Vec<RequestedHost>,
    /// Worker hosts, in the order of the request.
    pub workers: Vec<RequestedHost>,
    /// Where the cluster's API answers.
    pub endpoint: Endpoint,
    /// Network of the pods.
    pub pod_cidr: Option<String>,
    /// Network of the Services.
    pub service_cidr: Option<String>,
    /// Labels of the Cluster: the request's, and those that the ClusterResourceSet selects.
    pub labels: BTreeMap<String, String>,
    /// How Kubernetes is installed on the hosts.
    pub install: Install,
    /// The template.
    pub template: Arc<ClusterTemplate>,
    /// What would reject a new cluster, but does not change a running one.
    pub warnings: Vec<String>,
}

/// Where the cluster's API answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address or name.
    pub host: String,
    /// TCP port.
    pub port: i32,
    /// It is an address that the masters must carry by themselves.
    pub virtual_ip: bool,
}

/// A host as the request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedHost {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

impl RequestedHost {
    /// A host of a request.
    pub fn of(host: &HostRef) -> Self {
        Self { id: host.id(), name: host.name().to_owned() }
    }
}

impl std::fmt::Display for RequestedHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "host {} ({})", self.id, self.name)
    }
}

impl DesiredCluster {
    /// Every host with its role, masters first.
    pub fn hosts(&self) -> impl Iterator<Item = (&RequestedHost, &'static str)> {
        let masters = self.masters.iter().map(|host| (host, names::ROLE_CONTROL_PLANE));
        masters.chain(self.workers.iter().map(|host| (host, names::ROLE_WORKER)))
    }
}
