//! ClusterTemplates, by the ClusterResourceSet that they name.

use std::sync::Arc;

use kube::runtime::reflector::{ObjectRef, Store};
use o2ims_types::ClusterTemplate;
use operator_kit::cache::{CachedObjects, Index};

/// ClusterTemplates, with all fields, by the ClusterResourceSet that they name.
#[derive(Clone)]
pub struct Templates {
    store: Store<ClusterTemplate>,
    by_resource_set: Index<String, ClusterTemplate>,
}

impl Templates {
    /// A view of `objects`; adds the index that it needs to them.
    pub fn new(objects: &mut CachedObjects<ClusterTemplate>) -> Self {
        Self {
            by_resource_set: objects.index(|template: &ClusterTemplate| {
                template.spec.cni.iter().map(|cni| cni.cluster_resource_set.clone()).collect()
            }),
            store: objects.store(),
        }
    }

    /// All of them.
    pub fn all(&self) -> &Store<ClusterTemplate> {
        &self.store
    }

    /// The template of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<ClusterTemplate>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    /// The templates that name this ClusterResourceSet, in any namespace.
    pub fn with_resource_set(&self, name: &str) -> Vec<Arc<ClusterTemplate>> {
        self.by_resource_set.get(name)
    }
}
