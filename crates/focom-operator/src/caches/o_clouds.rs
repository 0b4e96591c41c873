//! OClouds, by the namespaces that they concern.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use o2ims_types::OCloud;
use operator_kit::cache::{CachedObjects, Index};

/// OClouds, by the namespaces that they concern.
#[derive(Clone)]
pub struct OClouds {
    store: Store<OCloud>,
    by_namespace: Index<String, OCloud>,
}

impl OClouds {
    /// A view of `objects`; adds the index that it needs to them.
    pub fn new(objects: &mut CachedObjects<OCloud>) -> Self {
        Self {
            by_namespace: objects
                .index(|o_cloud: &OCloud| vec![o_cloud.secret().0, o_cloud.namespace().unwrap_or_default()]),
            store: objects.store(),
        }
    }

    /// All OClouds.
    pub fn all(&self) -> &Store<OCloud> {
        &self.store
    }

    /// The OCloud of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<OCloud>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    /// The OClouds that are in this namespace, or whose Secret is.
    pub fn of_namespace(&self, namespace: &str) -> Vec<Arc<OCloud>> {
        self.by_namespace.get(namespace)
    }
}
