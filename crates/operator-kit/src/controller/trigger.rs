//! The queue between watches and a controller.

use std::{
    collections::{HashSet, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use futures::{Stream, stream};
use kube::{
    Resource,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::sync::Notify;

/// The objects of the kind `R` that are to be reconciled, each once, first in, first out. It feeds one
/// [`Controller`](crate::controller::Controller); clones share the queue.
///
/// The controller takes an object only when it can reconcile it: kube keeps what it has taken in a set without an order,
/// in which an object can wait for as long as there are others. Objects whose timer has fired are in that set, and come before
/// this queue: they are few.
///
/// Nothing is collected until that controller runs: it starts with all objects of its store, and a standby that waits
/// for the lease must not collect objects without end.
pub struct Trigger<R: Resource>(Arc<Shared<R>>);

type Predicate<R> = Box<dyn Fn(&ObjectRef<R>) -> bool + Send + Sync>;

struct Shared<R: Resource> {
    /// `None` until the controller runs.
    queue: Mutex<Option<Queue<R>>>,
    changed: Notify,
    comes_first: OnceLock<Predicate<R>>,
}

struct Queue<R: Resource> {
    /// How many objects are reconciled at once.
    slots: usize,
    /// One of the slots is for objects that come first.
    reserves: bool,
    first: VecDeque<ObjectRef<R>>,
    others: VecDeque<ObjectRef<R>>,
    /// All that wait.
    waiting: HashSet<ObjectRef<R>>,
    /// All that were taken, or are reconciled because of a timer, until the end of the reconcile.
    busy: HashSet<ObjectRef<R>>,
}

impl<R: Resource> Clone for Trigger<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Resource> Default for Trigger<R> {
    fn default() -> Self {
        Self(Arc::new(Shared { queue: Mutex::new(None), changed: Notify::new(), comes_first: OnceLock::new() }))
    }
}

impl<R> Queue<R>
where
    R: Resource,
    R::DynamicType: Eq + Hash + Clone,
{
    fn new(slots: usize, reserves: bool) -> Self {
        Self {
            reserves,
            slots,
            first: VecDeque::new(),
            others: VecDeque::new(),
            waiting: HashSet::new(),
            busy: HashSet::new(),
        }
    }

    /// Takes the next object that can be reconciled now. One that is busy waits for the end of its reconcile.
    fn take(&mut self) -> Option<ObjectRef<R>> {
        let free = self.slots.saturating_sub(self.busy.len());
        let reserved = usize::from(self.reserves && self.slots > 1);
        let taken = if free > 0 { take_unless(&mut self.first, &self.busy) } else { None };
        let taken = taken.or_else(|| if free > reserved { take_unless(&mut self.others, &self.busy) } else { None })?;
        self.waiting.remove(&taken);
        self.busy.insert(taken.clone());
        Some(taken)
    }
}

/// The first object of the list that is not busy. At most as many are skipped as are busy.
fn take_unless<T: Eq + Hash>(list: &mut VecDeque<T>, busy: &HashSet<T>) -> Option<T> {
    let position = list.iter().position(|object| !busy.contains(object))?;
    list.remove(position)
}

impl<R> Trigger<R>
where
    R: Resource + Clone + 'static,
    R::DynamicType: Eq + Hash + Clone,
{
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Triggers a reconcile of the object; nothing happens if it does not exist.
    pub fn enqueue(&self, object: ObjectRef<R>) {
        self.enqueue_each([object]);
    }

    /// Triggers a reconcile of every object in the store.
    pub fn enqueue_all(&self, store: &Store<R>)
    where
        R::DynamicType: Default,
    {
        self.enqueue_all_with(store, &R::DynamicType::default());
    }

    pub(crate) fn enqueue_all_with(&self, store: &Store<R>, dyntype: &R::DynamicType) {
        self.enqueue_each(
            store.state().iter().map(|object| ObjectRef::from_obj_with(object.as_ref(), dyntype.clone())),
        );
    }

    /// Triggers a reconcile of each of the objects.
    pub fn enqueue_each(&self, objects: impl IntoIterator<Item = ObjectRef<R>>) {
        if !self.is_collecting() {
            return;
        }
        // The predicate and the iterator may take their time: the queue is not locked meanwhile.
        let comes_first =
            |object: &ObjectRef<R>| self.0.comes_first.get().is_some_and(|comes_first| comes_first(object));
        let objects: Vec<_> = objects.into_iter().map(|object| (comes_first(&object), object)).collect();
        let mut queue = self.queue();
        let Some(queue) = queue.as_mut() else { return };
        for (comes_first, object) in objects {
            if queue.waiting.insert(object.clone()) {
                let list = if comes_first { &mut queue.first } else { &mut queue.others };
                list.push_back(object);
            }
        }
        self.0.changed.notify_one();
    }

    /// Has the objects for which `comes_first` is true taken before the others.
    pub(crate) fn set_first(&self, comes_first: impl Fn(&ObjectRef<R>) -> bool + Send + Sync + 'static) {
        // Set once, by the controller.
        let _ = self.0.comes_first.set(Box::new(comes_first));
    }

    /// Whether objects are collected: the controller runs, or did.
    pub(crate) fn is_collecting(&self) -> bool {
        self.queue().is_some()
    }

    /// Starts to collect. The stream has every object that is enqueued from now on, when fewer than `slots` objects are busy. For one
    /// consumer.
    pub(crate) fn stream(&self, slots: u16) -> impl Stream<Item = ObjectRef<R>> + Send + 'static
    where
        R::DynamicType: Send + Sync,
    {
        self.queue().get_or_insert_with(|| Queue::new(usize::from(slots), self.0.comes_first.get().is_some()));
        stream::unfold(self.clone(), |trigger| async move {
            loop {
                let taken = trigger.queue().as_mut().and_then(Queue::take);
                if let Some(taken) = taken {
                    return Some((taken, trigger));
                }
                trigger.0.changed.notified().await;
            }
        })
    }

    /// The object is reconciled until the guard is dropped.
    pub(crate) fn reconciling(&self, object: &ObjectRef<R>) -> Busy<R> {
        if let Some(queue) = self.queue().as_mut() {
            queue.busy.insert(object.clone());
        }
        Busy { trigger: self.clone(), object: object.clone() }
    }

    fn queue(&self) -> MutexGuard<'_, Option<Queue<R>>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object that is being reconciled.
pub(crate) struct Busy<R>
where
    R: Resource + Clone + 'static,
    R::DynamicType: Eq + Hash + Clone,
{
    trigger: Trigger<R>,
    object: ObjectRef<R>,
}

impl<R> Drop for Busy<R>
where
    R: Resource + Clone + 'static,
    R::DynamicType: Eq + Hash + Clone,
{
    fn drop(&mut self) {
        if let Some(queue) = self.trigger.queue().as_mut() {
            queue.busy.remove(&self.object);
        }
        self.trigger.0.changed.notify_one();
    }
}

/// References to the objects, as a mapper returns them.
pub fn references<'a, K>(objects: impl IntoIterator<Item = &'a Arc<K>>) -> Vec<ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + 'static,
{
    objects.into_iter().map(|object| ObjectRef::from_obj(object.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, StreamExt};
    use k8s_openapi::api::core::v1::ConfigMap;

    fn reference(name: &str) -> ObjectRef<ConfigMap> {
        ObjectRef::new(name).within("default")
    }

    /// Takes what can be taken now, by name.
    fn taken(stream: &mut (impl Stream<Item = ObjectRef<ConfigMap>> + Unpin)) -> Vec<String> {
        std::iter::from_fn(|| stream.next().now_or_never().flatten()).map(|object| object.name).collect()
    }

    #[test]
    fn a_trigger_has_each_object_once_in_order_and_nothing_before_its_controller_runs() {
        let trigger = Trigger::<ConfigMap>::new();
        trigger.enqueue(reference("early"));
        let mut stream = Box::pin(trigger.stream(10));
        for _ in 0..3 {
            for name in ["c", "a", "b"] {
                trigger.enqueue(reference(name));
            }
        }
        assert_eq!(taken(&mut stream), ["c", "a", "b"]);
    }

    #[test]
    fn no_more_is_taken_than_can_be_reconciled_and_no_object_twice_at_once() {
        let trigger = Trigger::<ConfigMap>::new();
        let mut stream = Box::pin(trigger.stream(2));
        trigger.enqueue_each(["a", "b", "c"].map(reference));
        assert_eq!(taken(&mut stream), ["a", "b"]);
        let running = trigger.reconciling(&reference("a"));
        trigger.enqueue_each(["d", "a"].map(reference));
        assert_eq!(taken(&mut stream), Vec::<String>::new());
        drop(trigger.reconciling(&reference("b")));
        assert_eq!(taken(&mut stream), ["c"]);
        drop(trigger.reconciling(&reference("c")));
        assert_eq!(taken(&mut stream), ["d"]);
        drop(trigger.reconciling(&reference("d")));
        assert_eq!(taken(&mut stream), Vec::<String>::new(), "a is reconciled");
        drop(running);
        assert_eq!(taken(&mut stream), ["a"]);
    }

    #[test]
    fn what_comes_first_has_a_slot_whatever_else_is_reconciled() {
        let trigger = Trigger::<ConfigMap>::new();
        trigger.set_first(|object| object.name.starts_with("new"));
        let mut stream = Box::pin(trigger.stream(3));
        trigger.enqueue_each(["a", "b", "c", "new-1", "new-2"].map(reference));
        assert_eq!(taken(&mut stream), ["new-1", "new-2"]);
        for name in ["new-1", "new-2"] {
            drop(trigger.reconciling(&reference(name)));
        }
        assert_eq!(taken(&mut stream), ["a", "b"]);
        trigger.enqueue(reference("new-3"));
        assert_eq!(taken(&mut stream), ["new-3"]);
    }

    #[test]
    fn a_controller_with_one_slot_takes_all_objects() {
        let trigger = Trigger::<ConfigMap>::new();
        let mut stream = Box::pin(trigger.stream(1));
        trigger.enqueue_each(["a", "b"].map(reference));
        assert_eq!(taken(&mut stream), ["a"]);
        drop(trigger.reconciling(&reference("a")));
        assert_eq!(taken(&mut stream), ["b"]);
    }
}
