//! The queue between watches and a controller.

use std::{
    collections::HashSet,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{Stream, StreamExt, stream};
use kube::{
    Resource,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::sync::Notify;

/// The set of objects of the kind `R` that are to be reconciled. It feeds one
/// [`Controller`](crate::controller::Controller); clones share the set.
///
/// Nothing is collected until that controller runs: it starts with all objects of its store, and a standby that waits
/// for the lease must not collect objects without end.
pub struct Trigger<R: Resource>(Arc<Pending<R>>);

struct Pending<R: Resource> {
    /// `None` until the controller runs.
    objects: Mutex<Option<HashSet<ObjectRef<R>>>>,
    added: Notify,
}

impl<R: Resource> Clone for Trigger<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Resource> Default for Trigger<R> {
    fn default() -> Self {
        Self(Arc::new(Pending { objects: Mutex::new(None), added: Notify::new() }))
    }
}

impl<R> Trigger<R>
where
    R: Resource + Clone + 'static,
    R::DynamicType: Eq + Hash + Clone,
{
    /// An empty set.
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
        let mut pending = self.0.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pending) = pending.as_mut() {
            pending.extend(objects);
            self.0.added.notify_one();
        }
    }

    /// Whether objects are collected: the controller runs, or did.
    pub(crate) fn is_collecting(&self) -> bool {
        self.0.objects.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Starts to collect. The stream has every object that is enqueued from now on. For one consumer.
    pub(crate) fn stream(&self) -> impl Stream<Item = ObjectRef<R>> + Send + 'static
    where
        R::DynamicType: Send + Sync,
    {
        self.0.objects.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
        stream::unfold(Arc::clone(&self.0), |pending| async move {
            loop {
                let taken = pending
                    .objects
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .as_mut()
                    .map(std::mem::take)
                    .unwrap_or_default();
                if !taken.is_empty() {
                    return Some((stream::iter(taken), pending));
                }
                pending.added.notified().await;
            }
        })
        .flatten()
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
    use k8s_openapi::api::core::v1::ConfigMap;
    use std::time::Duration;

    #[tokio::test]
    async fn a_trigger_holds_each_object_once_and_nothing_before_its_controller_runs() {
        let trigger = Trigger::<ConfigMap>::new();
        let reference = |name: &str| ObjectRef::<ConfigMap>::new(name).within("default");
        trigger.enqueue(reference("early"));
        let mut stream = Box::pin(trigger.stream());
        for _ in 0..3 {
            trigger.enqueue(reference("a"));
            trigger.enqueue(reference("b"));
        }
        let mut names = Vec::new();
        while let Ok(Some(next)) = tokio::time::timeout(Duration::from_millis(20), stream.next()).await {
            names.push(next.name);
        }
        names.sort();
        assert_eq!(names, ["a", "b"]);
    }
}
