//! Secondary indexes of a cached watch, so that a lookup need not scan all objects.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    mem,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use kube::Resource;

/// Finds the objects of a [`CachedWatch`](super::CachedWatch) by a key that is derived from them. Clones
/// share their entries.
///
/// The watch updates its indexes with every event, after its store and before it calls mappers and hooks. A list
/// replaces an index as a whole, so a reader sees either all of the old list or all of the new one.
pub struct Index<Key, K>(Arc<RwLock<Entries<Key, K>>>);

/// The objects under each key, in the order of namespace and name.
type Entries<Key, K> = HashMap<Key, Vec<Arc<K>>>;

impl<Key, K> Clone for Index<Key, K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Key: Eq + Hash, K> Index<Key, K> {
    /// The objects under this key, in the order of namespace and name. A key of owned strings is found by borrowed ones,
    /// as in a [`HashMap`].
    pub fn get<Q>(&self, key: &Q) -> Vec<Arc<K>>
    where
        Key: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.entries().get(key).cloned().unwrap_or_default()
    }

    /// Whether there is an object under this key.
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        Key: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.entries().contains_key(key)
    }

    fn entries(&self) -> RwLockReadGuard<'_, Entries<Key, K>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is called for every change of a store, in order, after the store has applied it.
pub(crate) trait StoreListener<K>: Send + Sync {
    /// The object was added, or changed from what it was `before`.
    fn applied(&self, before: Option<&K>, now: &Arc<K>);
    /// The object is not in the store any more.
    fn deleted(&self, before: &K);
    /// The store holds these objects, among others. In the order of their names; nothing changes before `commit`.
    fn stage(&self, objects: &[Arc<K>]);
    /// The store holds the objects that were staged, and no others.
    fn commit(&self);
}

/// Keeps an index up to date.
pub(crate) struct Indexer<Key, K, F> {
    index: Index<Key, K>,
    staged: Mutex<Entries<Key, K>>,
    keys: F,
}

impl<Key, K, F> Indexer<Key, K, F>
where
    Key: Eq + Hash,
    F: Fn(&K) -> Vec<Key>,
{
    /// An indexer of an empty store.
    pub(crate) fn new(keys: F) -> Self {
        Self { index: Index(Arc::new(RwLock::new(Entries::new()))), staged: Mutex::default(), keys }
    }

    /// The index, for readers.
    pub(crate) fn index(&self) -> Index<Key, K> {
        self.index.clone()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries<Key, K>> {
        self.index.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, entries: &mut Entries<Key, K>, object: &K)
    where
        K: Resource,
    {
        for key in (self.keys)(object) {
            let Some(objects) = entries.get_mut(&key) else { continue };
            if let Ok(position) = position(objects, object) {
                objects.remove(position);
            }
            if objects.is_empty() {
                entries.remove(&key);
            }
        }
    }
}

impl<Key, K, F> StoreListener<K> for Indexer<Key, K, F>
where
    Key: Eq + Hash + Send + Sync,
    K: Resource + Send + Sync,
    F: Fn(&K) -> Vec<Key> + Send + Sync,
{
    fn applied(&self, before: Option<&K>, now: &Arc<K>) {
        let entries = &mut *self.write();
        if let Some(before) = before {
            self.remove(entries, before);
        }
        for key in (self.keys)(now) {
            let objects = entries.entry(key).or_insert_with(|| Vec::with_capacity(1));
            match position(objects, now.as_ref()) {
                Ok(position) => objects[position] = Arc::clone(now),
                Err(position) => objects.insert(position, Arc::clone(now)),
            }
        }
    }

    fn deleted(&self, before: &K) {
        self.remove(&mut self.write(), before);
    }

    fn stage(&self, objects: &[Arc<K>]) {
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        for object in objects {
            for key in (self.keys)(object) {
                let objects = staged.entry(key).or_insert_with(|| Vec::with_capacity(1));
                // An object may have one key twice.
                if objects.last().is_none_or(|last| !Arc::ptr_eq(last, object)) {
                    objects.push(Arc::clone(object));
                }
            }
        }
    }

    fn commit(&self) {
        let staged = mem::take(&mut *self.staged.lock().unwrap_or_else(PoisonError::into_inner));
        // The former entries are dropped when readers can go on.
        let former = mem::replace(&mut *self.write(), staged);
        drop(former);
    }
}

/// `Ok`: the position of the object. `Err`: the position at which to insert it.
fn position<K: Resource>(objects: &[Arc<K>], object: &K) -> Result<usize, usize> {
    objects.binary_search_by(|other| name_of(other.as_ref()).cmp(&name_of(object)))
}

/// Namespace and name; the namespace is empty for cluster-scoped kinds.
pub(crate) fn name_of<K: Resource>(object: &K) -> (&str, &str) {
    let meta = object.meta();
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
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
            let (namespace, name) = name_of(object.as_ref());
            format!("{namespace}/{name}")
        };
        index.get(key).iter().map(name).collect()
    }

    #[test]
    fn objects_are_found_under_their_keys_in_the_order_of_their_names() {
        let indexer = Indexer::new(keys);
        let index = indexer.index();
        for name in ["c", "a", "b"] {
            indexer.applied(None, &object("y", name, &["shared", name]));
        }
        indexer.applied(None, &object("x", "z", &["shared"]));
        indexer.applied(None, &object("x", "none", &[]));
        assert_eq!(found(&index, "shared"), ["x/z", "y/a", "y/b", "y/c"]);
        assert_eq!(found(&index, "a"), ["y/a"]);
        assert_eq!(found(&index, "other"), Vec::<String>::new());
    }

    #[test]
    fn a_changed_object_is_found_under_its_new_keys_alone() {
        let indexer = Indexer::new(keys);
        let index = indexer.index();
        let former = object("x", "a", &["old", "kept"]);
        indexer.applied(None, &former);
        let changed = object("x", "a", &["kept", "new"]);
        indexer.applied(Some(&former), &changed);
        assert!(found(&index, "old").is_empty());
        assert!(Arc::ptr_eq(&index.get("kept")[0], &changed), "the newest record");
        assert_eq!(found(&index, "new"), ["x/a"]);
        indexer.deleted(&changed);
        assert!(index.entries().is_empty(), "nothing is kept of what is gone");
    }

    #[test]
    fn a_list_replaces_everything() {
        let indexer = Indexer::new(keys);
        let index = indexer.index();
        for name in ["a", "b"] {
            indexer.applied(None, &object("x", name, &["k", name]));
        }
        indexer.stage(&[object("x", "b", &["k"])]);
        indexer.stage(&[object("x", "c", &["k"])]);
        assert_eq!(found(&index, "k"), ["x/a", "x/b"], "nothing changes before the list is complete");
        indexer.commit();
        assert_eq!(found(&index, "k"), ["x/b", "x/c"]);
        assert!(found(&index, "a").is_empty() && found(&index, "b").is_empty());
        indexer.deleted(&object("x", "b", &["k"]));
        assert_eq!(found(&index, "k"), ["x/c"]);
    }
}
