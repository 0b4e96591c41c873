//! Watching kinds: a store of (slim) records, the triggers that changes cause, and the state of the watch.
//!
//! A [`CachedWatch`] survives that the kind is not installed, finds deletions that it missed while disconnected, and
//! skips objects that it cannot decode. It needs `list` and `watch` rights on the kind.

use std::{fmt::Debug, hash::Hash, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Resource,
    core::Status,
    runtime::{
        reflector::{ObjectRef, Store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    controller::{
        backoff::Backoff,
        error::{Error, is_not_found},
        trigger::Trigger,
    },
    metrics::Metrics,
};

pub use kube::core::DeserializeGuard;

/// State of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// The first list is not complete; the store says nothing yet.
    Syncing,
    /// The API server does not serve the kind; the store is empty. Asked again every few seconds.
    NotInstalled,
    /// The store holds what the API server had, give or take what is on its way.
    Synced,
}

type ObjectHook<K> = Box<dyn Fn(&K) + Send + Sync>;
type Hook = Box<dyn Fn() + Send + Sync>;
/// Whether two records of one object say the same.
type Same<K> = fn(&K, &K) -> bool;

/// A watched kind and its store. See the [module](self).
pub struct CachedWatch<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    name: &'static str,
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    metrics: Metrics,
    dyntype: K::DynamicType,
    writer: Writer<K>,
    store: Store<K>,
    state: watch::Sender<SyncState>,
    mappers: Vec<ObjectHook<K>>,
    relists: Vec<Hook>,
    deletions: Vec<ObjectHook<K>>,
    same: Option<Same<K>>,
    on_undecodable: Option<&'static str>,
}

const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// After this time without an error the delay starts small again.
const RETRY_RESET: Duration = Duration::from_secs(30);

impl<K> CachedWatch<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Send + Sync,
{
    /// A watch of the objects that `api` and `config` select. `name` is for logs and metrics. `K` may be a slim view:
    /// what it does not declare is not kept.
    pub fn new(name: &'static str, api: Api<DeserializeGuard<K>>, config: watcher::Config, metrics: &Metrics) -> Self
    where
        K::DynamicType: Default,
    {
        Self::new_with(name, api, config, metrics, K::DynamicType::default())
    }

    /// As [`CachedWatch::new`], for kinds that are known at run time only.
    pub fn new_with(
        name: &'static str,
        api: Api<DeserializeGuard<K>>,
        config: watcher::Config,
        metrics: &Metrics,
        dyntype: K::DynamicType,
    ) -> Self {
        let writer = Writer::new(dyntype.clone());
        Self {
            name,
            api,
            config,
            metrics: metrics.clone(),
            dyntype,
            store: writer.as_reader(),
            writer,
            state: watch::Sender::new(SyncState::Syncing),
            mappers: Vec::new(),
            relists: Vec::new(),
            deletions: Vec::new(),
            same: None,
            on_undecodable: None,
        }
    }

    /// Requests a reconcile of what `mapper` names for every object that is added, changed (the old record is mapped
    /// too, so that an object that leaves its owner reaches both), deleted, or seen in a list.
    #[must_use]
    pub fn triggers<R>(
        mut self,
        trigger: &Trigger<R>,
        mapper: impl Fn(&K) -> Vec<ObjectRef<R>> + Send + Sync + 'static,
    ) -> Self
    where
        R: Resource + Clone + 'static,
        R::DynamicType: Eq + Hash + Clone + Send + Sync,
    {
        let trigger = trigger.clone();
        self.mappers.push(Box::new(move |object| trigger.enqueue_each(mapper(object))));
        self
    }

    /// Calls `hook` after every complete list, when the objects in it (and those that vanished) have been mapped.
    #[must_use]
    pub fn on_relist(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.relists.push(Box::new(hook));
        self
    }

    /// Calls `hook` for every object that is gone, with its last record.
    #[must_use]
    pub fn on_delete(mut self, hook: impl Fn(&K) + Send + Sync + 'static) -> Self {
        self.deletions.push(Box::new(hook));
        self
    }

    /// Maps an object that was written only if its record differs in more than the resourceVersion: heartbeats, and
    /// fields that `K` does not keep, cause nothing then. The store holds the newest record all the same.
    #[must_use]
    pub fn ignore_unchanged(mut self) -> Self
    where
        K: PartialEq,
    {
        self.same = Some(equal_except_resource_version);
        self
    }

    /// An object that cannot be decoded is an error, logged with what to do about it; otherwise it is a warning.
    #[must_use]
    pub fn on_undecodable(mut self, advice: &'static str) -> Self {
        self.on_undecodable = Some(advice);
        self
    }

    /// The records. Empty until the state is [`SyncState::Synced`].
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// The state and its changes.
    pub fn state(&self) -> watch::Receiver<SyncState> {
        self.state.subscribe()
    }

    pub(crate) fn dyntype(&self) -> &K::DynamicType {
        &self.dyntype
    }

    /// Watches until told to stop. Errors of the API server are logged, counted and tried again; they never end it.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        stop.run_until_cancelled(self.watch()).await;
        Ok(())
    }

    /// As [`CachedWatch::run`], up to the first error, which the caller has to deal with.
    pub async fn until_failure(mut self) -> watcher::Error {
        let mut events = watcher(self.api.clone(), self.config.clone()).boxed();
        loop {
            match events.next().await {
                Some(Ok(event)) => self.accept(event),
                Some(Err(error)) => return error,
                // kube's watcher has no end.
                None => futures::future::pending().await,
            }
        }
    }

    async fn watch(&mut self) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        let mut last_error: Option<Instant> = None;
        loop {
            let mut events = watcher(self.api.clone(), self.config.clone()).boxed();
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => self.accept(event),
                    Err(error) => {
                        if last_error.is_some_and(|at| at.elapsed() > RETRY_RESET) {
                            backoff.reset();
                        }
                        let missing = is_missing(&error);
                        if missing {
                            self.kind_is_missing();
                        } else {
                            self.metrics.watch_failed(self.name);
                            tracing::warn!(watch = self.name, error = %describe(error), "watch failed, trying again");
                        }
                        sleep(backoff.next_delay()).await;
                        last_error = Some(Instant::now());
                        if missing {
                            // The watcher would go on from a revision of the former installation; list anew.
                            break;
                        }
                    }
                }
            }
        }
    }

    fn accept(&mut self, event: Event<DeserializeGuard<K>>) {
        match event {
            Event::Init => self.writer.apply_watcher_event(&Event::Init),
            Event::InitApply(object) => {
                if let Some(object) = self.decoded(object) {
                    self.writer.apply_watcher_event(&Event::InitApply(object));
                }
            }
            Event::InitDone => {
                self.replace_store();
                self.set_state(SyncState::Synced);
            }
            Event::Apply(object) => {
                let reference = self.reference(object.meta());
                let old = self.store.get(&reference);
                match self.decoded(object) {
                    Some(object) => {
                        let same = self.same.zip(old.as_deref()).is_some_and(|(same, old)| same(old, &object));
                        self.writer.apply_watcher_event(&Event::Apply(object));
                        if !same {
                            self.enqueue(old.as_deref());
                            self.enqueue(self.store.get(&reference).as_deref());
                        }
                    }
                    // A list would not have it either: an outdated record must not stay.
                    None => self.remove(old.as_deref()),
                }
            }
            Event::Delete(object) => {
                let old = self.store.get(&self.reference(object.meta()));
                match object.0 {
                    Ok(object) => {
                        self.remove(Some(&object));
                        self.enqueue(old.as_deref());
                    }
                    Err(_) => self.remove(old.as_deref()),
                }
            }
        }
    }

    /// Swaps in the complete list and maps what is new in it, what changed, and what vanished unseen.
    fn replace_store(&mut self) {
        let before = self.store.state();
        self.writer.apply_watcher_event(&Event::InitDone);
        for old in &before {
            let now = self.store.get(&self.reference(old.meta()));
            if now.is_none() {
                self.tell_deleted(old);
            }
            if now.is_none_or(|now| now.meta().resource_version != old.meta().resource_version) {
                self.enqueue(Some(old));
            }
        }
        for object in self.store.state() {
            self.enqueue(Some(&object));
        }
        for hook in &self.relists {
            hook();
        }
    }

    fn kind_is_missing(&mut self) {
        if *self.state.borrow() == SyncState::NotInstalled {
            return;
        }
        tracing::info!(watch = self.name, "kind is not installed, waiting for it");
        self.writer.apply_watcher_event(&Event::Init);
        self.replace_store();
        self.set_state(SyncState::NotInstalled);
    }

    fn set_state(&self, state: SyncState) {
        let changed = self.state.send_if_modified(|current| std::mem::replace(current, state) != state);
        if changed {
            tracing::info!(watch = self.name, ?state, objects = self.store.len(), "watch state changed");
        }
    }

    fn decoded(&self, object: DeserializeGuard<K>) -> Option<K> {
        match object.0 {
            Ok(mut object) => {
                // Half of a typical object, and of no use to a reader.
                object.meta_mut().managed_fields = None;
                Some(object)
            }
            Err(invalid) => {
                self.metrics.object_undecodable(self.name);
                let (namespace, name) = (invalid.metadata.namespace, invalid.metadata.name);
                // The decoder's message quotes values, which may be secret: it is not logged.
                if let Some(advice) = self.on_undecodable {
                    let what = "object does not have the expected form, nothing is done for it";
                    tracing::error!(watch = self.name, namespace, name, advice, "{what}");
                } else {
                    let what = "object does not have the expected form, skipped";
                    tracing::warn!(watch = self.name, namespace, name, "{what}");
                }
                None
            }
        }
    }

    fn remove(&mut self, object: Option<&K>) {
        if let Some(object) = object {
            self.writer.apply_watcher_event(&Event::Delete(object.clone()));
            self.tell_deleted(object);
            self.enqueue(Some(object));
        }
    }

    fn tell_deleted(&self, object: &K) {
        for hook in &self.deletions {
            hook(object);
        }
    }

    fn enqueue(&self, object: Option<&K>) {
        if let Some(object) = object {
            for mapper in &self.mappers {
                mapper(object);
            }
        }
    }

    fn reference(&self, meta: &kube::core::ObjectMeta) -> ObjectRef<K> {
        let reference = ObjectRef::new_with(meta.name.as_deref().unwrap_or_default(), self.dyntype.clone());
        match meta.namespace.as_deref() {
            Some(namespace) => reference.within(namespace),
            None => reference,
        }
    }
}

fn equal_except_resource_version<K: Resource + Clone + PartialEq>(old: &K, new: &K) -> bool {
    let mut old = old.clone();
    old.meta_mut().resource_version.clone_from(&new.meta().resource_version);
    old == *new
}

fn is_missing(error: &watcher::Error) -> bool {
    api_status(error).is_some_and(is_not_found)
}

/// What the API server answered, if a watch has failed by an answer.
pub fn api_status(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

/// The error without values of objects, which a decoder would quote.
fn describe(error: watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) => format!("list: {}", Error::from(error)),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            format!("watch: {}", Error::from(error))
        }
        watcher::Error::WatchError(status) => format!("watch: {}", Error::from(kube::Error::Api(status))),
        watcher::Error::NoResourceVersion => "objects of this kind carry no resourceVersion".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Server;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;
    use std::sync::{Arc, Mutex};

    struct Watched {
        server: Server,
        store: Store<ConfigMap>,
        state: watch::Receiver<SyncState>,
        touched: Arc<Mutex<Vec<String>>>,
        metrics: Metrics,
        stop: CancellationToken,
    }

    /// Watches ConfigMaps and notes what the mapper sees.
    fn watched(server: Server) -> Watched {
        watched_as(server, |reflection| reflection)
    }

    fn watched_as(server: Server, set_up: fn(CachedWatch<ConfigMap>) -> CachedWatch<ConfigMap>) -> Watched {
        let metrics = Metrics::new("test", "0");
        let touched = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&touched);
        let api = Api::all(server.client(&metrics));
        let reflection = CachedWatch::<ConfigMap>::new("configmaps", api, watcher::Config::default(), &metrics)
            .triggers(&Trigger::<ConfigMap>::new(), move |object| {
                notes.lock().expect("lock").push(object.name_any());
                vec![ObjectRef::from_obj(object)]
            });
        let reflection = set_up(reflection);
        let stop = CancellationToken::new();
        let (store, state) = (reflection.store(), reflection.state());
        tokio::spawn(reflection.run(stop.clone()));
        Watched { server, store, state, touched, metrics, stop }
    }

    impl Watched {
        async fn until(&mut self, state: SyncState) {
            let reached = self.state.wait_for(|now| *now == state);
            tokio::time::timeout(Duration::from_secs(60), reached).await.expect("in time").expect("runs");
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = self.store.state().iter().map(|object| object.name_any()).collect();
            names.sort();
            names
        }

        fn take_touched(&self) -> Vec<String> {
            let mut touched = std::mem::take(&mut *self.touched.lock().expect("lock"));
            touched.sort();
            touched.dedup();
            touched
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            self.stop.cancel();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_may_come_and_go() {
        let server = Server::with(&["a"]);
        server.install(false);
        let mut watched = watched(server);
        watched.until(SyncState::NotInstalled).await;
        assert!(watched.store.is_empty());
        sleep(Duration::from_mins(3)).await;
        watched.server.install(true);
        let installed = Instant::now();
        watched.until(SyncState::Synced).await;
        assert!(installed.elapsed() <= RETRY_MAX, "{:?}", installed.elapsed());
        assert_eq!((watched.names(), watched.take_touched()), (vec!["a".into()], vec!["a".into()]));

        watched.server.install(false);
        watched.until(SyncState::NotInstalled).await;
        assert!(watched.store.is_empty());
        assert_eq!(watched.take_touched(), ["a"], "what went with its kind is a change");
    }

    #[tokio::test(start_paused = true)]
    async fn changes_and_deletions_are_seen_also_those_missed_while_disconnected() {
        let mut watched = watched(Server::with(&["a", "b", "c"]));
        watched.until(SyncState::Synced).await;
        sleep(Duration::from_secs(1)).await;
        watched.take_touched();
        watched.server.modify("b");
        watched.server.delete("c");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(watched.take_touched(), ["b", "c"]);
        assert_eq!(watched.names(), ["a", "b"]);

        watched.server.expire_watches(|server| server.delete("b"));
        sleep(Duration::from_secs(10)).await;
        assert_eq!(watched.names(), ["a"]);
        assert!(watched.take_touched().contains(&"b".to_owned()), "deleted unseen");
        assert!(watched.store.state().iter().all(|object| object.metadata.managed_fields.is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn where_ignore_unchanged_count_a_new_revision_alone_triggers_nothing() {
        let mut watched = watched_as(Server::with(&["a", "b"]), CachedWatch::ignore_unchanged);
        watched.until(SyncState::Synced).await;
        sleep(Duration::from_secs(1)).await;
        watched.take_touched();
        let revision = |watched: &Watched| {
            watched.store.get(&ObjectRef::new("a").within("default")).expect("stored").metadata.resource_version.clone()
        };
        let before = revision(&watched);
        watched.server.set_data("a", &serde_json::json!({}));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(watched.take_touched(), Vec::<String>::new());
        assert_ne!(revision(&watched), before, "the store holds the newest record");
        watched.server.modify("a");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(watched.take_touched(), ["a"]);
        watched.server.delete("a");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(watched.take_touched(), ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_of_unexpected_form_is_left_out_and_blocks_nothing() {
        let server = Server::with(&["a", "broken"]);
        server.set_data("broken", &serde_json::json!("not a map"));
        let mut watched = watched(server);
        watched.until(SyncState::Synced).await;
        assert_eq!(watched.names(), ["a"]);
        sleep(Duration::from_secs(1)).await;
        watched.server.set_data("a", &serde_json::json!(7));
        sleep(Duration::from_secs(1)).await;
        assert!(watched.names().is_empty(), "an outdated record does not stay");
        let text = watched.metrics.encode().expect("text");
        assert!(text.contains(r#"watch_undecodable_objects_total{watch="configmaps"} 2"#), "{text}");
    }
}
