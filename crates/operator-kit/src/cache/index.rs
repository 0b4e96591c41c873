//! Secondary indexes of a cached watch, so that a lookup costs what it finds and not a scan of all objects.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
};

use kube::Resource;

/// Finds the objects of a [`CachedWatch`](super::CachedWatch) by a key that is derived from them. Clones are the same.
///
/// The watch updates its indexes with every event, after its store and before it calls mappers and hooks. A list
/// replaces an index as a whole, so a reader sees either all of the old list or all of the new one.
pub struct Index<Key, K>(Arc<RwLock<Entries<Key, K>>>);

/// Namespace and name of an object; the namespace is empty for cluster-scoped kinds. The order of results.
type ObjectName = Arc<(String, String)>;

struct Entries<Key, K> {
    /// The objects under each key.
    objects: HashMap<Key, BTreeMap<ObjectName, Arc<K>>>,
    /// The keys that each object is under, to find it again when it changes.
    keys: HashMap<ObjectName, Vec<Key>>,
}

impl<Key, K> Clone for Index<Key, K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Key: Eq + Hash, K> Index<Key, K> {
    /// The objects under this key, in the order of namespace and name.
    pub fn get(&self, key: &Key) -> Vec<Arc<K>> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        entries.objects.get(key).map(|objects| objects.values().cloned().collect()).unwrap_or_default()
    }
}

/// Receives every change of a store, in order, when the store has it.
pub(crate) trait StoreListener<K>: Send + Sync {
    /// The object was added or changed.
    fn applied(&self, object: &Arc<K>);
    /// The object is not in the store any more.
    fn deleted(&self, object: &K);
    /// The store holds these objects and no others.
    fn replaced(&self, objects: &[Arc<K>]);
}

/// Keeps an index up to date.
pub(crate) struct Indexer<Key, K, F> {
    index: Index<Key, K>,
    keys: F,
}

impl<Key, K, F> Indexer<Key, K, F>
where
    Key: Eq + Hash,
    F: Fn(&K) -> Vec<Key>,
{
    /// An indexer of an empty store.
    pub(crate) fn new(keys: F) -> Self {
        Self { index: Index(Arc::new(RwLock::new(Entries::new()))), keys }
    }

    /// The index, for readers.
    pub(crate) fn index(&self) -> Index<Key, K> {
        self.index.clone()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries<Key, K>> {
        self.index.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Key, K, F> StoreListener<K> for Indexer<Key, K, F>
where
    Key: Eq + Hash + Clone + Send + Sync,
    K: Resource + Send + Sync,
    F: Fn(&K) -> Vec<Key> + Send + Sync,
{
    fn applied(&self, object: &Arc<K>) {
        let keys = (self.keys)(object);
        self.write().insert(object, keys);
    }

    fn deleted(&self, object: &K) {
        self.write().remove(&object_name(object));
    }

    fn replaced(&self, objects: &[Arc<K>]) {
        let mut entries = Entries::new();
        for object in objects {
            entries.insert(object, (self.keys)(object));
        }
        *self.write() = entries;
    }
}

impl<Key: Eq + Hash, K> Entries<Key, K> {
    fn new() -> Self {
        Self { objects: HashMap::new(), keys: HashMap::new() }
    }

    fn insert(&mut self, object: &Arc<K>, keys: Vec<Key>)
    where
        Key: Clone,
        K: Resource,
    {
        let name = object_name(object.as_ref());
        self.remove(&name);
        for key in &keys {
            self.objects.entry(key.clone()).or_default().insert(Arc::clone(&name), Arc::clone(object));
        }
        if !keys.is_empty() {
            self.keys.insert(name, keys);
        }
    }

    fn remove(&mut self, name: &ObjectName) {
        for key in self.keys.remove(name).unwrap_or_default() {
            if let Some(objects) = self.objects.get_mut(&key) {
                objects.remove(name);
                if objects.is_empty() {
                    self.objects.remove(&key);
                }
            }
        }
    }
}

fn object_name<K: Resource>(object: &K) -> ObjectName {
    let meta = object.meta();
    Arc::new((meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::core::ObjectMeta;

    /// A ConfigMap that is indexed by the keys of its data.
    fn object(namespace: &str, name: &str, keys: &[&str]) -> Arc<ConfigMap> {
        Arc::new(ConfigMap {
            metadata: ObjectMeta {
                namespace: Some(namespace.to_owned()),
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(keys.iter().map(|key| ((*key).to_owned(), String::new())).collect()),
            ..ConfigMap::default()
        })
    }

    fn keys(object: &ConfigMap) -> Vec<String> {
        object.data.iter().flat_map(|data| data.keys().cloned()).collect()
    }

    fn found(index: &Index<String, ConfigMap>, key: &str) -> Vec<String> {
        let name = |object: &Arc<ConfigMap>| {
            let (namespace, name) = object_name(object.as_ref()).as_ref().clone();
            format!("{namespace}/{name}")
        };
        index.get(&key.to_owned()).iter().map(name).collect()
    }

    #[test]
    fn objects_are_found_under_their_keys_in_the_order_of_their_names() {
        let indexer = Indexer::new(keys);
        let index = indexer.index();
        for name in ["c", "a", "b"] {
            indexer.applied(&object("y", name, &["shared", name]));
        }
        indexer.applied(&object("x", "z", &["shared"]));
        indexer.applied(&object("x", "none", &[]));
        assert_eq!(found(&index, "shared"), ["x/z", "y/a", "y/b", "y/c"]);
        assert_eq!(found(&index, "a"), ["y/a"]);
        assert_eq!(found(&index, "other"), Vec::<String>::new());
    }

    #[test]
    fn a_changed_object_is_found_under_its_new_keys_alone() {
        let indexer = Indexer::new(keys);
        let index = indexer.index();
        indexer.applied(&object("x", "a", &["old", "kept"]));
        let changed = object("x", "a", &["kept", "new"]);
        indexer.applied(&changed);
        assert!(found(&index, "old").is_empty());
        assert!(Arc::ptr_eq(&index.get(&"kept".to_owned())[0], &changed), "the newest record");
        assert_eq!(found(&index, "new"), ["x/a"]);
        indexer.deleted(&changed);
        let entries = index.0.read().expect("lock");
        assert!(entries.objects.is_empty() && entries.keys.is_empty(), "nothing is kept of what is gone");
    }

    #[test]
    fn a_list_replaces_everything() {
        let indexer = Indexer::new(keys);
        let index = indexer.index();
        for name in ["a", "b"] {
            indexer.applied(&object("x", name, &["k", name]));
        }
        indexer.replaced(&[object("x", "b", &["k"]), object("x", "c", &["k"])]);
        assert_eq!(found(&index, "k"), ["x/b", "x/c"]);
        assert!(found(&index, "a").is_empty() && found(&index, "b").is_empty());
        indexer.deleted(&object("x", "b", &[]));
        assert_eq!(found(&index, "k"), ["x/c"]);
    }
}
