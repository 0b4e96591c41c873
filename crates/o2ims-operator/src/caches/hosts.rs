//! ByoHosts, by holder, id, request and address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use cluster_api::byoh::ByoHost;
use cluster_api::cluster::canonical_host;
use kube::ResourceExt as _;
use kube::runtime::reflector::Store;
use o2ims_types::names;
use operator_kit::cache::{CachedObjects, Index};

use super::marked::{MarkedObjects, namespace};

/// ByoHosts, by holder, id, request and address.
#[derive(Clone)]
pub struct Hosts {
    objects: MarkedObjects<ByoHost>,
    by_id: Index<(String, String), ByoHost>,
    by_request: Index<String, ByoHost>,
    by_address: Index<String, ByoHost>,
}

/// Every host has the others.
fn is_of_one_host(address: IpAddr) -> bool {
    address != IpAddr::V4(Ipv4Addr::LOCALHOST) && address != IpAddr::V6(Ipv6Addr::LOCALHOST)
}

impl Hosts {
    /// A view of `objects`; adds the indexes that it needs to them.
    pub fn new(objects: &mut CachedObjects<ByoHost>) -> Self {
        Self {
            objects: MarkedObjects::new(objects),
            by_id: objects.index(|host: &ByoHost| {
                let id = host.labels().get(names::HOST_ID_LABEL);
                id.map(|id| (namespace(host), id.clone())).into_iter().collect()
            }),
            by_request: objects.index(|host: &ByoHost| {
                host.annotations().get(names::REQUEST_ANNOTATION).cloned().into_iter().collect()
            }),
            by_address: objects.index(|host: &ByoHost| {
                host.addresses()
                    .into_iter()
                    .filter(|address| is_of_one_host(*address))
                    .map(|address| address.to_string())
                    .collect()
            }),
        }
    }

    /// The host of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<ByoHost>> {
        self.objects.get(namespace, name)
    }

    /// The hosts with the mark of the request with this UID.
    pub fn with_mark(&self, namespace: &str, uid: &str) -> Vec<Arc<ByoHost>> {
        self.objects.marked(namespace, uid)
    }

    /// The hosts whose annotation `request` names this request (`namespace/name`), whatever its UID.
    pub fn naming_request(&self, request: &str) -> Vec<Arc<ByoHost>> {
        self.by_request.get(request)
    }

    /// The hosts with this id.
    pub fn with_id(&self, namespace: &str, id: &str) -> Vec<Arc<ByoHost>> {
        self.by_id.get(&(namespace.to_owned(), id.to_owned()))
    }

    /// The hosts that have this address, in any namespace.
    pub fn with_address(&self, host: &str) -> Vec<Arc<ByoHost>> {
        self.by_address.get(&canonical_host(host))
    }

    /// All hosts: for a change that may concern each of them, such as a new list.
    pub fn all(&self) -> &Store<ByoHost> {
        self.objects.all()
    }
}
