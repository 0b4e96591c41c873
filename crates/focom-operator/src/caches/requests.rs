//! FocomProvisioningRequests, by what they refer to.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::names::focom;
use operator_kit::cache::{CachedObjects, Index};

/// FocomProvisioningRequests, by what they refer to.
#[derive(Clone)]
pub struct Requests {
    store: Store<FocomProvisioningRequest>,
    by_uid: Index<String, FocomProvisioningRequest>,
    by_o_cloud: Index<(String, String), FocomProvisioningRequest>,
    by_o_cloud_name: Index<String, FocomProvisioningRequest>,
    by_o_cloud_namespace: Index<String, FocomProvisioningRequest>,
    by_remote_name: Index<String, FocomProvisioningRequest>,
    by_template: Index<(String, String, String), FocomProvisioningRequest>,
}

impl Requests {
    /// A view of `objects`; adds the indexes that it needs to them.
    pub fn new(objects: &mut CachedObjects<FocomProvisioningRequest>) -> Self {
        type Request = FocomProvisioningRequest;
        Self {
            by_uid: objects.index(|request: &Request| request.uid().into_iter().collect()),
            by_o_cloud: objects.index(|request: &Request| {
                let (namespace, name) = request.o_cloud();
                vec![(namespace.to_owned(), name.to_owned())]
            }),
            by_o_cloud_name: objects.index(|request: &Request| vec![request.o_cloud().1.to_owned()]),
            by_o_cloud_namespace: objects.index(|request: &Request| vec![request.o_cloud().0.to_owned()]),
            by_remote_name: objects.index(|request: &Request| focom::remote_requests(&request.name_any()).to_vec()),
            by_template: objects.index(|request: &Request| {
                let spec = &request.spec;
                let namespace = request.namespace().unwrap_or_default();
                vec![(namespace, spec.template_name.clone(), spec.template_version.clone())]
            }),
            store: objects.store(),
        }
    }

    /// All requests.
    pub fn all(&self) -> &Store<FocomProvisioningRequest> {
        &self.store
    }

    /// Whether this SMO has a request with this UID.
    pub fn exists(&self, uid: &str) -> bool {
        self.by_uid.contains(uid)
    }

    /// The request of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<FocomProvisioningRequest>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    /// Requests that are for the OCloud of this namespace and name.
    pub fn for_o_cloud(&self, namespace: &str, name: &str) -> Vec<Arc<FocomProvisioningRequest>> {
        self.by_o_cloud.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Requests that are for an OCloud of this name, in any namespace.
    pub fn for_o_cloud_name(&self, name: &str) -> Vec<Arc<FocomProvisioningRequest>> {
        self.by_o_cloud_name.get(name)
    }

    /// Requests that are for an OCloud of this namespace.
    pub fn for_o_cloud_namespace(&self, namespace: &str) -> Vec<Arc<FocomProvisioningRequest>> {
        self.by_o_cloud_namespace.get(namespace)
    }

    /// Requests whose ProvisioningRequest has or can have this name on its O-Cloud.
    pub fn for_remote_name(&self, name: &str) -> Vec<Arc<FocomProvisioningRequest>> {
        self.by_remote_name.get(name)
    }

    /// Requests that name the template.
    pub fn for_template(&self, namespace: &str, name: &str, version: &str) -> Vec<Arc<FocomProvisioningRequest>> {
        self.by_template.get(&(namespace.to_owned(), name.to_owned(), version.to_owned()))
    }
}
