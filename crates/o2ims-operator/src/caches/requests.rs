//! ProvisioningRequests, by what they ask for.

use std::sync::Arc;

use cluster_api::Kind;
use cluster_api::cluster::canonical_host;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use o2ims_types::o2ims::v1alpha1::provisioning_request::Hosts as RequestedHosts;
use o2ims_types::{HostRef, ProvisioningRequest, names};
use operator_kit::cache::{CachedObjects, Index};

use super::marked::namespace;

type ByNamespacedName = Index<(String, String), ProvisioningRequest>;

/// ProvisioningRequests, with all fields, by what they ask for.
#[derive(Clone)]
pub struct Requests {
    store: Store<ProvisioningRequest>,
    by_uid: Index<String, ProvisioningRequest>,
    by_cluster: ByNamespacedName,
    by_endpoint: Index<String, ProvisioningRequest>,
    by_host: ByNamespacedName,
    by_host_id: ByNamespacedName,
    by_template: ByNamespacedName,
    by_part: ByNamespacedName,
}

impl Requests {
    /// A view of `objects`; adds the indexes that it needs to them.
    pub fn new(objects: &mut CachedObjects<ProvisioningRequest>) -> Self {
        Self {
            by_uid: objects.index(|request: &ProvisioningRequest| request.uid().into_iter().collect()),
            by_cluster: objects.index(|request: &ProvisioningRequest| {
                let name = request.spec.template_parameters.cluster_name.clone();
                name.map(|name| (namespace(request), name)).into_iter().collect()
            }),
            by_endpoint: objects.index(|request: &ProvisioningRequest| {
                let endpoint = request.spec.template_parameters.control_plane_endpoint.as_ref();
                endpoint.map(|endpoint| canonical_host(&endpoint.host)).into_iter().collect()
            }),
            by_host: objects.index(|request| of_hosts(request, |host| host.name().to_owned())),
            by_host_id: objects.index(|request| of_hosts(request, HostRef::id)),
            by_template: objects.index(|request: &ProvisioningRequest| {
                vec![(request.spec.template_name.clone(), request.spec.template_version.clone())]
            }),
            by_part: objects.index(|request| {
                let namespace = namespace(request);
                part_names(request).into_iter().map(|(_, name)| (namespace.clone(), name)).collect()
            }),
            store: objects.store(),
        }
    }

    /// The request of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<ProvisioningRequest>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    /// The request with this UID.
    pub fn with_uid(&self, uid: &str) -> Option<Arc<ProvisioningRequest>> {
        self.by_uid.get(uid).into_iter().next()
    }

    /// Whether a request with this UID exists.
    pub fn exists(&self, uid: &str) -> bool {
        let is_current = |request: &Arc<ProvisioningRequest>| {
            self.store.get(&ObjectRef::from_obj(request.as_ref())).is_some_and(|now| now.uid() == request.uid())
        };
        self.by_uid.get(uid).iter().any(is_current)
    }

    /// Requests that ask for the cluster of this name.
    pub fn for_cluster(&self, namespace: &str, name: &str) -> Vec<Arc<ProvisioningRequest>> {
        self.by_cluster.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Requests that ask for an endpoint at this address or name, on any port.
    pub fn for_endpoint(&self, host: &str) -> Vec<Arc<ProvisioningRequest>> {
        self.by_endpoint.get(&canonical_host(host))
    }

    /// Requests that name the host.
    pub fn for_host(&self, namespace: &str, name: &str) -> Vec<Arc<ProvisioningRequest>> {
        self.by_host.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Requests that name a host by this id.
    pub fn for_host_id(&self, namespace: &str, id: &str) -> Vec<Arc<ProvisioningRequest>> {
        self.by_host_id.get(&(namespace.to_owned(), id.to_owned()))
    }

    /// Requests that name the template, in any namespace.
    pub fn for_template(&self, name: &str, version: &str) -> Vec<Arc<ProvisioningRequest>> {
        self.by_template.get(&(name.to_owned(), version.to_owned()))
    }

    /// Requests that would create a part of this name for their clusters.
    pub fn for_part(&self, namespace: &str, name: &str) -> Vec<Arc<ProvisioningRequest>> {
        self.by_part.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// All requests: for a change that may concern each of them, such as a new list.
    pub fn all(&self) -> &Store<ProvisioningRequest> {
        &self.store
    }
}

/// Parts of the cluster that a request asks for, by names that another object could have: the names of templates have hashes.
pub fn part_names(request: &ProvisioningRequest) -> Vec<(Kind, String)> {
    let (namespace, wanted) = (namespace(request), &request.spec.template_parameters);
    let Some(cluster) = &wanted.cluster_name else { return Vec::new() };
    let workers = wanted.hosts.iter().flat_map(|hosts| &hosts.workers);
    let workers = workers.map(|host| (Kind::MachineDeployment, names::worker(&namespace, cluster, host.name())));
    let control_plane = (Kind::KubeadmControlPlane, names::control_plane(&namespace, cluster));
    [(Kind::ByoCluster, cluster.clone()), control_plane].into_iter().chain(workers).collect()
}

fn of_hosts(request: &ProvisioningRequest, key: impl Fn(&HostRef) -> String) -> Vec<(String, String)> {
    let hosts = request.spec.template_parameters.hosts.iter().flat_map(RequestedHosts::all);
    hosts.map(|host| (namespace(request), key(host))).collect()
}
