//! The caches of the SMO's objects. Reconciles read from here and nowhere else.

use kube::runtime::reflector::{ObjectRef, Store};
use o2ims_types::{FocomProvisioningRequest, OCloud, TemplateInfo};

use crate::authorization::Namespace;

/// The caches, each of all namespaces.
#[derive(Clone)]
pub struct Caches {
    /// Requests.
    pub requests: Store<FocomProvisioningRequest>,
    /// OClouds.
    pub o_clouds: Store<OCloud>,
    /// TemplateInfos.
    pub templates: Store<TemplateInfo>,
    /// Namespaces, for their grants and their deletion.
    pub namespaces: Store<Namespace>,
}

impl Caches {
    /// Whether the namespace is being deleted.
    pub fn is_terminating(&self, namespace: &str) -> bool {
        let namespace = self.namespaces.get(&ObjectRef::new(namespace));
        namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
    }
}
