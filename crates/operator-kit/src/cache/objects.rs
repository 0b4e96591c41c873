//! The objects of one kind: a store, and the indexes on it.

use std::{hash::Hash, sync::Arc};

use kube::{
    Resource,
    core::ObjectMeta,
    runtime::{
        reflector::{ObjectRef, Store, store::Writer},
        watcher::Event,
    },
};
use tokio::task::{spawn_blocking, yield_now};

use crate::cache::index::{Index, Indexer, StoreListener, name_of};

/// The objects of one kind, with indexes on them. A [`CachedWatch`](super::CachedWatch) fills it from the API server.
///
/// An index always follows the store: when a change is applied, the store has it first, then each index.
pub struct CachedObjects<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    dyntype: K::DynamicType,
    writer: Writer<K>,
    store: Store<K>,
    indexes: Vec<Box<dyn StoreListener<K>>>,
}

impl<K> Default for CachedObjects<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
{
    fn default() -> Self {
        Self::new_with(K::DynamicType::default())
    }
}

impl<K> FromIterator<K> for CachedObjects<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
{
    fn from_iter<I: IntoIterator<Item = K>>(objects: I) -> Self {
        let mut all = Self::default();
        for object in objects {
            all.apply(object);
        }
        all
    }
}

impl<K> CachedObjects<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    /// An empty collection, for a kind that is known only at run time.
    pub fn new_with(dyntype: K::DynamicType) -> Self {
        let writer = Writer::new(dyntype.clone());
        Self { dyntype, store: writer.as_reader(), writer, indexes: Vec::new() }
    }

    /// A reader of the store.
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    pub(crate) fn dyntype(&self) -> &K::DynamicType {
        &self.dyntype
    }

    /// An index of the objects by the keys that `keys` derives from each. `keys` must depend on the object
    /// alone.
    pub fn index<Key>(&mut self, keys: impl Fn(&K) -> Vec<Key> + Send + Sync + 'static) -> Index<Key, K>
    where
        Key: Eq + Hash + Send + Sync + 'static,
        K: Send + Sync,
    {
        let indexer = Indexer::new(keys);
        indexer.stage(&by_name(self.store.state()));
        indexer.commit();
        let index = indexer.index();
        self.indexes.push(Box::new(indexer));
        index
    }

    /// The object of this namespace and name.
    pub(crate) fn get(&self, meta: &ObjectMeta) -> Option<Arc<K>> {
        self.store.get(&self.reference(meta))
    }

    /// Adds or replaces an object. Returns the object that it replaced, and the object as it is stored.
    pub fn apply(&mut self, object: K) -> (Option<Arc<K>>, Option<Arc<K>>) {
        let reference = self.reference(object.meta());
        let before = self.store.get(&reference);
        self.writer.apply_watcher_event(&Event::Apply(object));
        let now = self.store.get(&reference);
        if let Some(now) = &now {
            for index in &self.indexes {
                index.applied(before.as_deref(), now);
            }
        }
        (before, now)
    }

    /// Removes the object of this namespace and name. Returns the object that was removed.
    pub fn delete(&mut self, object: &K) -> Option<Arc<K>> {
        let before = self.get(object.meta())?;
        self.writer.apply_watcher_event(&Event::Delete(K::clone(&before)));
        for index in &self.indexes {
            index.deleted(&before);
        }
        Some(before)
    }

    /// Begins a list, which changes nothing until [`CachedObjects::finish_list`].
    pub(crate) fn begin_list(&mut self) {
        self.writer.apply_watcher_event(&Event::Init);
    }

    /// Adds an object to the list that was begun.
    pub(crate) fn add_to_list(&mut self, object: K) {
        self.writer.apply_watcher_event(&Event::InitApply(object));
    }

    /// Replaces all objects with those of the list. Returns the objects of before.
    ///
    /// The task yields again and again: thousands of objects must not hold its thread. Until this returns, an index may
    /// still have the former objects.
    pub(crate) async fn finish_list(&mut self) -> Vec<Arc<K>>
    where
        K: Send + Sync,
        K::DynamicType: Send + Sync,
    {
        let before = self.store.state();
        self.writer.apply_watcher_event(&Event::InitDone);
        yield_now().await;
        let all = self.store.state();
        // The names of tens of thousands of objects take longer to sort than a thread may be held.
        let sorted = spawn_blocking(|| by_name(all)).await;
        let now = sorted.unwrap_or_else(|_| by_name(self.store.state()));
        for index in &self.indexes {
            for objects in now.chunks(STAGED_AT_ONCE) {
                index.stage(objects);
                yield_now().await;
            }
            index.commit();
            yield_now().await;
        }
        before
    }

    fn reference(&self, meta: &ObjectMeta) -> ObjectRef<K> {
        let reference = ObjectRef::new_with(meta.name.as_deref().unwrap_or_default(), self.dyntype.clone());
        match meta.namespace.as_deref() {
            Some(namespace) => reference.within(namespace),
            None => reference,
        }
    }
}

/// Objects that an index takes before other tasks get their turn.
const STAGED_AT_ONCE: usize = 1000;

fn by_name<K: Resource>(mut objects: Vec<Arc<K>>) -> Vec<Arc<K>> {
    objects.sort_by(|one, two| name_of(one.as_ref()).cmp(&name_of(two.as_ref())));
    objects
}
