//! A watched kind: a store of its objects, the reconciles that changes trigger, and the state of the watch.
//!
//! A [`CachedWatch`] waits for a kind that is not installed or not served in its version, finds deletions that it missed while disconnected, and
//! skips objects that it cannot decode. It needs the rights `list` and `watch` on the kind.
//!
//! kube's shared streams are not used: they do not forward deletions, do not report objects that were deleted between
//! two lists, and do not map the former record of an object.

use std::{collections::HashMap, fmt::Debug, hash::Hash, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Resource,
    core::{ObjectMeta, Status},
    runtime::{
        reflector::{ObjectRef, Store},
        watcher::{self, Event, InitialListStrategy, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    task::yield_now,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::objects::CachedObjects,
    controller::{
        backoff::Backoff,
        error::{Error, is_not_found},
        trigger::Trigger,
    },
    metrics::{Counted, Metrics},
};

pub use kube::core::DeserializeGuard;

/// State of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// The first list is not complete; the store is empty.
    Syncing,
    /// The API server does not serve the kind; the store is empty. The watch tries again every few seconds.
    NotInstalled,
    /// As [`SyncState::NotInstalled`], but the API server serves the kind in these other versions.
    OtherVersions(Vec<String>),
    /// The first list is complete. The store holds what the API server has, except for events that are on their way.
    Synced,
}

type ObjectHook<K> = Box<dyn Fn(&K) + Send + Sync>;
type Hook = Box<dyn Fn() + Send + Sync>;
/// Whether two records of one object are equal.
type Same<K> = fn(&K, &K) -> bool;

/// How much the records of one watch may take, for an API server that is not trusted.
#[derive(Debug)]
pub struct SizeLimit<K> {
    /// Most bytes of all records together. While a list is read, there may be as much again.
    pub bytes: usize,
    /// Bytes of a record.
    pub size: fn(&K) -> usize,
}

/// Why a watch has ended.
#[derive(Debug)]
pub enum WatchFailure {
    /// The API server did not answer, or refused the watch.
    Api(watcher::Error),
    /// The records exceed the limit; so many objects have been read.
    TooLarge(usize),
}

/// How many objects there are, and how much their records take.
#[derive(Clone, Copy, Default)]
struct Extent {
    objects: usize,
    bytes: usize,
}

impl Extent {
    fn add(&mut self, bytes: usize) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn remove(&mut self, bytes: usize) {
        self.objects = self.objects.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Bytes that are kept of an object that cannot be decoded, without its name.
const UNDECODABLE_SIZE: usize = 256;

/// What an object triggers.
struct Mapper<K> {
    map: ObjectHook<K>,
    /// It depends on the spec alone.
    of_spec: bool,
}

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
    objects: CachedObjects<K>,
    state: watch::Sender<SyncState>,
    mappers: Vec<Mapper<K>>,
    relist_hooks: Vec<Hook>,
    delete_hooks: Vec<ObjectHook<K>>,
    is_same: Option<Same<K>>,
    undecodable_advice: Option<&'static str>,
    /// The objects that cannot be decoded now, as the metrics count them,
    undecodable: HashMap<Name, Counted>,
    /// and those of the list that was begun.
    undecodable_in_list: Vec<Name>,
}

/// Namespace and name.
type Name = (String, String);

/// Objects in one answer of a list. An answer is decoded at once, so it must not hold its thread for long: 500 hosts, which
/// is kube's default, take more than 100 ms.
const PAGE_SIZE: u32 = 100;
/// Where `kubectl apply` keeps a copy of what was applied.
const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// After this time without an error the back-off is reset.
const RETRY_RESET: Duration = Duration::from_secs(30);

impl<K> CachedWatch<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Send + Sync,
{
    /// A watch of the objects that `api` and `config` select. `name` is for logs and metrics. Only the fields that `K`
    /// declares are kept.
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
        metrics.watch_added(name);
        Self {
            name,
            api,
            config: config.page_size(PAGE_SIZE),
            metrics: metrics.clone(),
            objects: CachedObjects::new_with(dyntype),
            state: watch::Sender::new(SyncState::Syncing),
            mappers: Vec::new(),
            relist_hooks: Vec::new(),
            delete_hooks: Vec::new(),
            is_same: None,
            undecodable_advice: None,
            undecodable: HashMap::new(),
            undecodable_in_list: Vec::new(),
        }
    }

    /// Triggers a reconcile of the objects that `mapper` returns for every object that is added, changed, deleted, or
    /// in a list. For a changed object, the former record is mapped too: an object that changes its owner triggers
    /// both.
    ///
    /// `mapper` runs only while the controller of the trigger does.
    #[must_use]
    pub fn triggers<R>(
        self,
        trigger: &Trigger<R>,
        mapper: impl Fn(&K) -> Vec<ObjectRef<R>> + Send + Sync + 'static,
    ) -> Self
    where
        R: Resource + Clone + 'static,
        R::DynamicType: Eq + Hash + Clone + Send + Sync,
    {
        self.maps(trigger, mapper, false)
    }

    /// As [`CachedWatch::triggers`], for what depends on the spec alone: a write that leaves `metadata.generation` as it is, such as one
    /// of the status, triggers nothing.
    #[must_use]
    pub fn triggers_on_spec<R>(
        self,
        trigger: &Trigger<R>,
        mapper: impl Fn(&K) -> Vec<ObjectRef<R>> + Send + Sync + 'static,
    ) -> Self
    where
        R: Resource + Clone + 'static,
        R::DynamicType: Eq + Hash + Clone + Send + Sync,
    {
        self.maps(trigger, mapper, true)
    }

    fn maps<R>(
        mut self,
        trigger: &Trigger<R>,
        mapper: impl Fn(&K) -> Vec<ObjectRef<R>> + Send + Sync + 'static,
        of_spec: bool,
    ) -> Self
    where
        R: Resource + Clone + 'static,
        R::DynamicType: Eq + Hash + Clone + Send + Sync,
    {
        let trigger = trigger.clone();
        let map = Box::new(move |object: &K| {
            if trigger.is_collecting() {
                trigger.enqueue_each(mapper(object));
            }
        });
        self.mappers.push(Mapper { map, of_spec });
        self
    }

    /// The objects that it fills, to add indexes.
    pub fn objects(&mut self) -> &mut CachedObjects<K> {
        &mut self.objects
    }

    /// Calls `hook` after every complete list, when the mappers have seen its objects and those that were deleted.
    #[must_use]
    pub fn on_relist(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.relist_hooks.push(Box::new(hook));
        self
    }

    /// Calls `hook` for every object that was deleted, with its last record.
    #[must_use]
    pub fn on_delete(mut self, hook: impl Fn(&K) + Send + Sync + 'static) -> Self {
        self.delete_hooks.push(Box::new(hook));
        self
    }

    /// Triggers nothing for a write that changes only the resourceVersion of the record, such as a heartbeat in a field
    /// that `K` does not declare. The store keeps the newest record all the same.
    #[must_use]
    pub fn ignore_unchanged(mut self) -> Self
    where
        K: PartialEq,
    {
        self.is_same = Some(equal_except_resource_version);
        self
    }

    /// Logs an object that cannot be decoded as an error, with this advice to the administrator, instead of as a
    /// warning.
    #[must_use]
    pub fn on_undecodable(mut self, advice: &'static str) -> Self {
        self.undecodable_advice = Some(advice);
        self
    }

    /// The objects. Empty until the state is [`SyncState::Synced`].
    pub fn store(&self) -> Store<K> {
        self.objects.store()
    }

    /// The state and its changes.
    pub fn state(&self) -> watch::Receiver<SyncState> {
        self.state.subscribe()
    }

    pub(crate) fn dyntype(&self) -> &K::DynamicType {
        self.objects.dyntype()
    }

    /// Watches until told to stop. Errors of the API server are logged, counted and tried again; they never end it.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        stop.run_until_cancelled(self.watch()).await;
        Ok(())
    }

    /// As [`CachedWatch::run`], but ends with the first error, or when the records exceed the limit, and returns why.
    pub async fn until_failure(mut self, limit: SizeLimit<K>) -> WatchFailure {
        let mut events = watcher(self.api.clone(), self.config.clone()).boxed();
        let (mut stored, mut listed) = (Extent::default(), Extent::default());
        loop {
            let event = match events.next().await {
                Some(Ok(event)) => event,
                Some(Err(error)) => return WatchFailure::Api(error),
                // kube's watcher has no end.
                None => futures::future::pending().await,
            };
            match &event {
                Event::Init => listed = Extent::default(),
                Event::InitApply(object) => listed.add(size_of(object, &limit)),
                Event::InitDone => stored = std::mem::take(&mut listed),
                Event::Apply(object) => {
                    self.forget_size(object, &limit, &mut stored);
                    stored.add(size_of(object, &limit));
                }
                Event::Delete(object) => self.forget_size(object, &limit, &mut stored),
            }
            if let Some(extent) = [listed, stored].into_iter().find(|extent| extent.bytes > limit.bytes) {
                return WatchFailure::TooLarge(extent.objects);
            }
            self.accept(event).await;
        }
    }

    /// Takes what is kept of the object now off `stored`.
    fn forget_size(&self, object: &DeserializeGuard<K>, limit: &SizeLimit<K>, stored: &mut Extent) {
        let meta = object.meta();
        if let Some(record) = self.objects.get(meta) {
            stored.remove((limit.size)(&record));
        } else if self.undecodable.contains_key(&name(meta)) {
            stored.remove(undecodable_size(meta));
        }
    }

    async fn watch(&mut self) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        let mut last_error: Option<Instant> = None;
        let mut config = self.config.clone().streaming_lists();
        loop {
            let mut events = watcher(self.api.clone(), config.clone()).boxed();
            while let Some(event) = events.next().await {
                let error = match event {
                    Ok(event) => {
                        self.accept(event).await;
                        continue;
                    }
                    Err(error) => error,
                };
                if config.initial_list_strategy == InitialListStrategy::StreamingList && is_invalid(&error) {
                    tracing::debug!(watch = self.name, "the API server has no streaming lists");
                    config.initial_list_strategy = InitialListStrategy::ListWatch;
                    break;
                }
                if last_error.is_some_and(|at| at.elapsed() > RETRY_RESET) {
                    backoff.reset();
                }
                let missing = is_missing(&error);
                if missing {
                    self.kind_is_missing().await;
                } else {
                    self.metrics.watch_failed(self.name);
                    tracing::warn!(watch = self.name, error = %describe(error), "watch failed, trying again");
                }
                sleep(backoff.next_delay()).await;
                last_error = Some(Instant::now());
                if missing {
                    // The watcher would continue from a revision of the former installation: list again.
                    break;
                }
            }
        }
    }

    async fn accept(&mut self, event: Event<DeserializeGuard<K>>) {
        match event {
            Event::Init => self.begin_list(),
            Event::InitApply(object) => match self.decoded(object) {
                Ok(object) => self.objects.add_to_list(object),
                Err(meta) => self.undecodable_in_list.push(name(&meta)),
            },
            Event::InitDone => {
                self.finish_list().await;
                self.set_state(&SyncState::Synced);
            }
            Event::Apply(object) => {
                match self.decoded(object) {
                    Ok(object) => {
                        self.undecodable.remove(&name(object.meta()));
                        self.replace(object);
                    }
                    // An outdated record must not stay: a list would not have it either.
                    Err(meta) => {
                        self.undecodable.insert(name(&meta), self.metrics.object_undecodable(self.name));
                        let former = self.objects.get(&meta);
                        self.remove(former.as_deref());
                    }
                }
            }
            Event::Delete(object) => {
                self.undecodable.remove(&name(object.meta()));
                let former = self.objects.get(object.meta());
                match object.0 {
                    Ok(object) => {
                        self.remove(Some(&object));
                        self.enqueue(former.as_deref());
                    }
                    Err(_) => self.remove(former.as_deref()),
                }
            }
        }
    }

    /// Stores the object and maps it and its former record.
    fn replace(&mut self, object: K) {
        let (former, now) = self.objects.apply(object);
        let Some(now) = now else { return };
        let former = former.as_deref();
        if self.is_same.zip(former).is_some_and(|(is_same, former)| is_same(former, &now)) {
            return;
        }
        let spec_changed = former.is_none_or(|former| !has_same_spec(former, now.as_ref()));
        for object in former.into_iter().chain([now.as_ref()]) {
            for mapper in self.mappers.iter().filter(|mapper| spec_changed || !mapper.of_spec) {
                (mapper.map)(object);
            }
        }
    }

    fn begin_list(&mut self) {
        self.objects.begin_list();
        self.undecodable_in_list.clear();
    }

    /// Swaps in the complete list and maps its objects, the former records of those that changed, and those that
    /// were deleted.
    ///
    /// The task yields between objects: it must not hold its thread for thousands of them.
    async fn finish_list(&mut self) {
        let undecodable = std::mem::take(&mut self.undecodable_in_list).into_iter();
        self.undecodable = undecodable.map(|name| (name, self.metrics.object_undecodable(self.name))).collect();
        for former in self.objects.finish_list().await {
            let now = self.objects.get(former.meta());
            if now.is_none() {
                self.call_delete_hooks(&former);
            }
            if now.is_none_or(|now| now.meta().resource_version != former.meta().resource_version) {
                self.enqueue(Some(&former));
            }
            yield_now().await;
        }
        for object in self.objects.store().state() {
            self.enqueue(Some(&object));
            yield_now().await;
        }
        for hook in &self.relist_hooks {
            hook();
        }
    }

    async fn kind_is_missing(&mut self) {
        let known = self.state.borrow().clone();
        let state = match self.other_versions().await {
            Ok(versions) if versions.is_empty() => SyncState::NotInstalled,
            Ok(versions) => SyncState::OtherVersions(versions),
            // What was found before is not forgotten for one call that failed.
            Err(_) if matches!(known, SyncState::OtherVersions(_)) => return,
            Err(_) => SyncState::NotInstalled,
        };
        if state == known {
            return;
        }
        // Before the store is empty: an empty store must not be read as a kind that is installed and has no objects.
        self.set_state(&state);
        self.begin_list();
        self.finish_list().await;
    }

    /// The versions in which the API server serves the kind, where the watched one is not among them.
    async fn other_versions(&self) -> kube::Result<Vec<String>> {
        let (group, plural) = (K::group(self.dyntype()), K::plural(self.dyntype()));
        let client = self.api.clone().into_client();
        let groups = client.list_api_groups().await?.groups.into_iter();
        let mut served = Vec::new();
        for version in groups.filter(|found| found.name == group).flat_map(|found| found.versions) {
            let kinds = client.list_api_group_resources(&version.group_version).await?;
            if kinds.resources.iter().any(|kind| kind.name == plural) {
                served.push(version.version);
            }
        }
        // It may have been installed since the watch failed.
        let is_served = served.iter().any(|version| *version == K::version(self.dyntype()));
        Ok(if is_served { Vec::new() } else { served })
    }

    fn set_state(&self, state: &SyncState) {
        let changed = self.state.send_if_modified(|current| {
            let changed = current != state;
            current.clone_from(state);
            changed
        });
        if changed {
            tracing::info!(watch = self.name, ?state, objects = self.objects.store().len(), "watch state changed");
        }
    }

    /// The object without what no reader uses; of one that cannot be decoded, its metadata.
    fn decoded(&self, object: DeserializeGuard<K>) -> Result<K, Box<ObjectMeta>> {
        match object.0 {
            Ok(mut object) => {
                // These are most of a typical object, and no reader uses them.
                let meta = object.meta_mut();
                meta.managed_fields = None;
                if let Some(annotations) = &mut meta.annotations {
                    annotations.remove(LAST_APPLIED_ANNOTATION);
                }
                Ok(object)
            }
            Err(invalid) => {
                let (namespace, name) = (&invalid.metadata.namespace, &invalid.metadata.name);
                // The decoder's message quotes values, which may be secret: it is not logged.
                if let Some(advice) = self.undecodable_advice {
                    let what = "object does not have the expected form, nothing is done for it";
                    tracing::error!(watch = self.name, namespace, name, advice, "{what}");
                } else {
                    let what = "object does not have the expected form, skipped";
                    tracing::warn!(watch = self.name, namespace, name, "{what}");
                }
                Err(Box::new(invalid.metadata))
            }
        }
    }

    fn remove(&mut self, object: Option<&K>) {
        if let Some(object) = object {
            self.objects.delete(object);
            self.call_delete_hooks(object);
            self.enqueue(Some(object));
        }
    }

    fn call_delete_hooks(&self, object: &K) {
        for hook in &self.delete_hooks {
            hook(object);
        }
    }

    /// Runs the mappers, which trigger reconciles.
    fn enqueue(&self, object: Option<&K>) {
        if let Some(object) = object {
            for mapper in &self.mappers {
                (mapper.map)(object);
            }
        }
    }
}

fn equal_except_resource_version<K: Resource + Clone + PartialEq>(old: &K, new: &K) -> bool {
    let mut old = old.clone();
    old.meta_mut().resource_version.clone_from(&new.meta().resource_version);
    old == *new
}

/// Whether the spec was not changed between two records of one object: the API server counts the changes.
fn has_same_spec<K: Resource>(old: &K, new: &K) -> bool {
    let (old, new) = (old.meta(), new.meta());
    new.generation.is_some() && old.generation == new.generation && old.uid == new.uid
}

/// What will be kept of an object.
fn size_of<K: Resource>(object: &DeserializeGuard<K>, limit: &SizeLimit<K>) -> usize {
    object.0.as_ref().map_or_else(|invalid| undecodable_size(&invalid.metadata), limit.size)
}

fn undecodable_size(meta: &ObjectMeta) -> usize {
    let (namespace, name) = name(meta);
    UNDECODABLE_SIZE + namespace.len() + name.len()
}

fn name(meta: &ObjectMeta) -> Name {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn is_missing(error: &watcher::Error) -> bool {
    api_status(error).is_some_and(is_not_found)
}

/// The API server does not accept the options of the watch. Without the feature `WatchList` it does so for a streaming list.
fn is_invalid(error: &watcher::Error) -> bool {
    api_status(error).is_some_and(Status::is_invalid)
}

/// The answer of the API server that a watch failed with; `None` if it failed without one.
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
    use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
    use kube::ResourceExt;
    use std::sync::{Arc, Mutex};

    fn default() -> watcher::Config {
        watcher::Config::default()
    }

    struct Watched {
        server: Server,
        store: Store<ConfigMap>,
        state: watch::Receiver<SyncState>,
        mapped: Arc<Mutex<Vec<String>>>,
        metrics: Metrics,
        stop: CancellationToken,
    }

    /// Watches ConfigMaps and notes what the mapper sees.
    fn watched(server: Server) -> Watched {
        watched_as(server, |watch| watch)
    }

    fn watched_as(server: Server, set_up: fn(CachedWatch<ConfigMap>) -> CachedWatch<ConfigMap>) -> Watched {
        let metrics = Metrics::new("test", "0");
        let mapped = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&mapped);
        let trigger = Trigger::<ConfigMap>::new();
        // A running controller collects, and mappers run only then.
        drop(trigger.stream(16));
        let api = Api::all(server.client(&metrics));
        let watch = CachedWatch::<ConfigMap>::new("configmaps", api, watcher::Config::default(), &metrics).triggers(
            &trigger,
            move |object| {
                notes.lock().expect("lock").push(object.name_any());
                vec![ObjectRef::from_obj(object)]
            },
        );
        let watch = set_up(watch);
        let stop = CancellationToken::new();
        let (store, state) = (watch.store(), watch.state());
        tokio::spawn(watch.run(stop.clone()));
        Watched { server, store, state, mapped, metrics, stop }
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

        fn take_mapped(&self) -> Vec<String> {
            let mut mapped = std::mem::take(&mut *self.mapped.lock().expect("lock"));
            mapped.sort();
            mapped.dedup();
            mapped
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
        assert_eq!((watched.names(), watched.take_mapped()), (vec!["a".into()], vec!["a".into()]));

        watched.server.install(false);
        watched.until(SyncState::NotInstalled).await;
        assert!(watched.store.is_empty());
        sleep(Duration::from_secs(1)).await;
        assert_eq!(watched.take_mapped(), ["a"], "what went with its kind is a change");
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_is_served_in_other_versions_is_not_taken_for_one_that_is_not_installed() {
        let (server, metrics) = (Server::default(), Metrics::new("test", "0"));
        server.serve_leases_in(&["v2", "v2beta1"]);
        let watch = CachedWatch::<Lease>::new("leases", Api::all(server.client(&metrics)), default(), &metrics);
        let (stop, state) = (CancellationToken::new(), watch.state());
        let until = async |wanted: SyncState| {
            let mut state = state.clone();
            let reached = state.wait_for(|now| *now == wanted);
            tokio::time::timeout(Duration::from_secs(60), reached).await.expect("in time").expect("runs");
        };
        tokio::spawn(watch.run(stop.clone()));
        until(SyncState::OtherVersions(vec!["v2".into(), "v2beta1".into()])).await;
        server.serve_leases_in(&["v2"]);
        until(SyncState::OtherVersions(vec!["v2".into()])).await;
        server.serve_leases_in(&[]);
        until(SyncState::NotInstalled).await;
        server.install(true);
        until(SyncState::Synced).await;
        stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn changes_and_deletions_are_seen_also_those_missed_while_disconnected() {
        let mut watched = watched(Server::with(&["a", "b", "c"]));
        watched.until(SyncState::Synced).await;
        sleep(Duration::from_secs(1)).await;
        watched.take_mapped();
        watched.server.modify("b");
        watched.server.delete("c");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(watched.take_mapped(), ["b", "c"]);
        assert_eq!(watched.names(), ["a", "b"]);

        watched.server.expire_watches(|server| server.delete("b"));
        sleep(Duration::from_secs(10)).await;
        assert_eq!(watched.names(), ["a"]);
        assert!(watched.take_mapped().contains(&"b".to_owned()), "deleted unseen");
        assert!(watched.store.state().iter().all(|object| object.metadata.managed_fields.is_none()));
    }

    /// How a watch ends that may keep three objects, or two and one that cannot be decoded; `change` comes after its first list.
    async fn failure_of_three(server: Server, change: impl FnOnce(&Server)) -> WatchFailure {
        let metrics = Metrics::new("test", "0");
        let watch = CachedWatch::<ConfigMap>::new("test", Api::all(server.client(&metrics)), default(), &metrics);
        let mut state = watch.state();
        let limit = SizeLimit { bytes: 3 * 300, size: |_| 300 };
        let end = tokio::spawn(watch.until_failure(limit));
        if state.wait_for(|state| *state == SyncState::Synced).await.is_ok() {
            change(&server);
        }
        tokio::time::timeout(Duration::from_secs(60), end).await.expect("it ends").expect("no panic")
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_with_a_limit_ends_when_its_records_exceed_it() {
        let nothing = |_: &Server| {};
        let listed = failure_of_three(Server::with(&["a", "b", "c", "d", "e"]), nothing).await;
        assert!(matches!(listed, WatchFailure::TooLarge(4)), "the rest of a list is not read: {listed:?}");
        let added = failure_of_three(Server::with(&["a", "b", "c"]), |server| {
            server.modify("a");
            server.delete("b");
            for name in ["d", "a", "e"] {
                server.modify(name);
            }
        });
        let added = added.await;
        assert!(
            matches!(added, WatchFailure::TooLarge(4)),
            "what changes counts once, what goes not at all: {added:?}"
        );
        let undecodable = failure_of_three(Server::with(&["a", "b"]), |server| {
            for name in ["c", "c", "d"] {
                server.set_data(name, &serde_json::json!("not a map"));
            }
        });
        let undecodable = undecodable.await;
        assert!(matches!(undecodable, WatchFailure::TooLarge(4)), "what cannot be decoded counts too: {undecodable:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_without_streaming_lists_is_listed_in_pages() {
        let names: Vec<String> = (0..250).map(|number| format!("{number:03}")).collect();
        let server = Server::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
        server.refuse_streaming_lists();
        let mut watched = watched(server);
        watched.until(SyncState::Synced).await;
        assert_eq!(watched.names(), names);
        let text = watched.metrics.encode().expect("text");
        assert!(text.contains("watch_errors_total{watch=\"configmaps\"} 0"), "no error is counted: {text}");
        watched.server.expire_watches(|server| server.delete("000"));
        sleep(Duration::from_secs(10)).await;
        assert_eq!(watched.names(), names[1..]);
    }

    #[tokio::test(start_paused = true)]
    async fn where_only_real_changes_count_a_new_revision_alone_triggers_nothing() {
        let mut watched = watched_as(Server::with(&["a", "b"]), CachedWatch::ignore_unchanged);
        watched.until(SyncState::Synced).await;
        sleep(Duration::from_secs(1)).await;
        watched.take_mapped();
        let revision = |watched: &Watched| {
            watched.store.get(&ObjectRef::new("a").within("default")).expect("stored").metadata.resource_version.clone()
        };
        let before = revision(&watched);
        watched.server.set_data("a", &serde_json::json!({}));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(watched.take_mapped(), Vec::<String>::new());
        assert_ne!(revision(&watched), before, "the store holds the newest record");
        watched.server.modify("a");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(watched.take_mapped(), ["a"]);
        watched.server.delete("a");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(watched.take_mapped(), ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_depends_on_the_spec_is_not_triggered_by_a_write_of_the_status() {
        let (server, metrics) = (Server::default(), Metrics::new("test", "0"));
        let put = |generation: i64, data: &str| {
            server.put(&serde_json::json!({
                "metadata": { "name": "a", "namespace": "default", "uid": "a", "generation": generation },
                "data": { "a": data },
            }));
        };
        put(1, "first");
        let (trigger, counts) = (Trigger::<ConfigMap>::new(), Arc::new(Mutex::new((0, 0))));
        drop(trigger.stream(16));
        let (every, on_spec) = (Arc::clone(&counts), Arc::clone(&counts));
        let watch = CachedWatch::<ConfigMap>::new("test", Api::all(server.client(&metrics)), default(), &metrics)
            .triggers(&trigger, move |_| {
                every.lock().expect("lock").0 += 1;
                Vec::new()
            })
            .triggers_on_spec(&trigger, move |_| {
                on_spec.lock().expect("lock").1 += 1;
                Vec::new()
            });
        let (stop, mut state) = (CancellationToken::new(), watch.state());
        tokio::spawn(watch.run(stop.clone()));
        state.wait_for(|now| *now == SyncState::Synced).await.expect("runs");
        let taken = || std::mem::take(&mut *counts.lock().expect("lock"));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(taken(), (1, 1));
        put(1, "of the status");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(taken(), (2, 0), "the former record and the new one");
        put(2, "of the spec");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(taken(), (2, 2));
        server.delete("a");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(taken(), (2, 2), "the last record and the one before");
        stop.cancel();
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
        assert_eq!(undecodable(&watched.metrics), 2);
    }

    /// How many objects the watch cannot decode, as the metrics say.
    fn undecodable(metrics: &Metrics) -> u32 {
        let text = metrics.encode().expect("text");
        let found =
            text.lines().find_map(|line| line.strip_prefix(r#"test_watch_undecodable_objects{watch="configmaps"} "#));
        found.and_then(|count| count.parse().ok()).expect("a count")
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_of_unexpected_form_is_counted_as_long_as_it_is_there() {
        let server = Server::with(&["a", "b", "c", "d"]);
        let broken = serde_json::json!("not a map");
        for name in ["a", "b", "c"] {
            server.set_data(name, &broken);
        }
        let mut watched = watched(server);
        assert_eq!(undecodable(&watched.metrics), 0, "the series is there before the list");
        watched.until(SyncState::Synced).await;
        assert_eq!(undecodable(&watched.metrics), 3, "those of the first list");
        watched.server.set_data("a", &serde_json::json!("no map either"));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(undecodable(&watched.metrics), 3, "each is counted once");
        watched.server.modify("a");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(
            (undecodable(&watched.metrics), watched.names()),
            (2, vec!["a".into(), "d".into()]),
            "one is mended"
        );
        watched.server.delete("b");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(undecodable(&watched.metrics), 1, "one is deleted");
        watched.server.set_data("d", &broken);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(undecodable(&watched.metrics), 2, "one came by a change");
        watched.server.expire_watches(|server| server.delete("c"));
        sleep(Duration::from_secs(10)).await;
        assert_eq!(undecodable(&watched.metrics), 1, "one was deleted unseen");

        watched.server.install(false);
        watched.until(SyncState::NotInstalled).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(undecodable(&watched.metrics), 0, "they went with their kind");
        watched.server.install(true);
        watched.until(SyncState::Synced).await;
        assert_eq!(undecodable(&watched.metrics), 1);
        watched.stop.cancel();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(undecodable(&watched.metrics), 0, "nobody watches any more");
    }

    #[tokio::test(start_paused = true)]
    async fn no_mapper_runs_before_the_controller_of_its_trigger() {
        let (server, metrics) = (Server::with(&["a"]), Metrics::new("test", "0"));
        let (trigger, calls) = (Trigger::<ConfigMap>::new(), Arc::new(Mutex::new(0)));
        let counter = Arc::clone(&calls);
        let watch = CachedWatch::<ConfigMap>::new("test", Api::all(server.client(&metrics)), default(), &metrics)
            .triggers(&trigger, move |object| {
                *counter.lock().expect("lock") += 1;
                vec![ObjectRef::from_obj(object)]
            });
        let (stop, mut state) = (CancellationToken::new(), watch.state());
        tokio::spawn(watch.run(stop.clone()));
        state.wait_for(|now| *now == SyncState::Synced).await.expect("runs");
        sleep(Duration::from_secs(1)).await;
        server.modify("a");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(*calls.lock().expect("lock"), 0);
        drop(trigger.stream(16));
        server.modify("a");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(*calls.lock().expect("lock"), 2, "the former record and the new one");
        stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn other_tasks_run_while_a_long_list_is_mapped() {
        let names: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        let server = Server::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut watched = watched(server);
        let most_at_once = Arc::new(Mutex::new((0, 0)));
        let (progress, mapped) = (Arc::clone(&most_at_once), Arc::clone(&watched.mapped));
        let other = tokio::spawn(async move {
            loop {
                {
                    let now = mapped.lock().expect("lock").len();
                    let mut progress = progress.lock().expect("lock");
                    *progress = (now, progress.1.max(now - progress.0));
                }
                yield_now().await;
            }
        });
        watched.until(SyncState::Synced).await;
        other.abort();
        assert_eq!(watched.take_mapped().len(), 1000);
        let (_, most) = *most_at_once.lock().expect("lock");
        assert!(most < 10, "{most} objects were mapped without a pause");
    }

    #[tokio::test(start_paused = true)]
    async fn indexes_follow_the_store() {
        let (server, metrics) = (Server::with(&["a", "b", "c"]), Metrics::new("test", "0"));
        let mut watch = CachedWatch::<ConfigMap>::new("test", Api::all(server.client(&metrics)), default(), &metrics);
        let by_data =
            watch.objects().index(|object| object.data.iter().flat_map(|data| data.keys().cloned()).collect());
        let by_name = watch.objects().index(|object| vec![object.name_any()]);
        let (stop, mut state) = (CancellationToken::new(), watch.state());
        tokio::spawn(watch.run(stop.clone()));
        state.wait_for(|now| *now == SyncState::Synced).await.expect("runs");
        sleep(Duration::from_secs(1)).await;
        let changed = || by_data.get("changed").iter().map(|object| object.name_any()).collect::<Vec<_>>();
        let is_known = |name: &str| by_name.contains(name);
        assert!(changed().is_empty() && is_known("a"));

        for name in ["c", "a"] {
            server.modify(name);
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(changed(), ["a", "c"]);
        server.delete("a");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(changed(), ["c"]);
        assert!(!is_known("a") && is_known("b"));

        server.expire_watches(|server| {
            server.delete("b");
            server.modify("d");
        });
        sleep(Duration::from_secs(10)).await;
        assert_eq!(changed(), ["c", "d"]);
        assert!(!is_known("b"), "deleted unseen");

        server.set_data("c", &serde_json::json!(7));
        server.install(false);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(changed(), Vec::<String>::new());
        stop.cancel();
    }
}
