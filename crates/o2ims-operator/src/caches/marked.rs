//! Objects that carry the mark of a request.

use std::sync::Arc;

use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt as _};
use o2ims_types::names;
use operator_kit::cache::{CachedObjects, Index};

/// The objects of one kind, by the mark of a request.
#[derive(Clone)]
pub struct MarkedObjects<K: Resource<DynamicType = ()> + 'static> {
    store: Store<K>,
    by_mark: Index<(String, String), K>,
}

impl<K> MarkedObjects<K>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    /// A view of `objects`; adds the index that it needs to them.
    pub fn new(objects: &mut CachedObjects<K>) -> Self {
        let by_mark =
            objects.index(|object: &K| mark(object).map(|uid| (namespace(object), uid.clone())).into_iter().collect());
        Self { store: objects.store(), by_mark }
    }

    /// All objects.
    pub fn all(&self) -> &Store<K> {
        &self.store
    }

    /// The object of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    /// The objects with the mark of the request with this UID.
    pub fn marked(&self, namespace: &str, uid: &str) -> Vec<Arc<K>> {
        self.by_mark.get(&(namespace.to_owned(), uid.to_owned()))
    }
}

/// Whether the object has the mark of the request with this UID.
pub fn is_marked_by<K: Resource>(object: &K, uid: &str) -> bool {
    mark(object).is_some_and(|mark| mark == uid)
}

/// The value of the object's mark: the owner UID of its request.
fn mark<K: Resource>(object: &K) -> Option<&String> {
    object.labels().get(names::REQUEST_UID_LABEL)
}

/// The namespace as a part of a key.
pub fn namespace<K: Resource>(object: &K) -> String {
    object.namespace().unwrap_or_default()
}

/// The resource version of an object as a number, to tell whether a cache shows a write; 0 if there is none.
pub fn version_of<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}
