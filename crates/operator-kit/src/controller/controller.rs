//! A controller: takes objects from its queue, the trigger, and reconciles them.
//!
//! It runs on kube's `Controller`, and adds a panic guard, a time limit, a back-off per object, and a start that waits
//! for caches and leadership.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt::Debug,
    future::Future,
    hash::Hash,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use futures::{FutureExt, StreamExt, pin_mut, stream};
use kube::{
    Resource,
    runtime::{
        controller::{self, Action},
        reflector::{ObjectRef, Store},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    cache::watch::{CachedWatch, SyncState},
    controller::{
        conflicts::LASTING_CONFLICT,
        error::{Class, Error},
        outcome::{Outcome, disposition},
        trigger::Trigger,
    },
    events::Events,
    metrics::Metrics,
    process::lease::Leadership,
    random::random_unit,
    telemetry::panic_message,
};

/// Time limit of one reconcile. After it the reconcile is dropped at its next await.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Reconciles the objects of one kind: each object at most once at a time, and a bounded number of objects at once.
///
/// A reconcile that fails, panics or exceeds its time limit delays its own object alone.
pub struct Controller<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    name: &'static str,
    store: Store<K>,
    dyntype: K::DynamicType,
    trigger: Trigger<K>,
    metrics: Metrics,
    events: Option<Events>,
    concurrency: u16,
    /// Watches that have to be synced first, by name.
    after: Vec<(String, watch::Receiver<SyncState>)>,
    leadership: Option<watch::Receiver<Leadership>>,
}

impl<K> Controller<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Debug + Unpin + Send + Sync,
{
    /// A controller that reconciles the objects of `watch` that are put into `trigger`, the queue of this controller.
    /// A change of an object itself has to be mapped too:
    /// `watch.triggers(&trigger, |object| vec![ObjectRef::from_obj(object)])`.
    ///
    /// At its start it reconciles every object once. `name` is for logs and metrics.
    pub fn new(name: &'static str, watch: &CachedWatch<K>, trigger: &Trigger<K>, metrics: &Metrics) -> Self {
        metrics.controller_added(name);
        Self {
            name,
            store: watch.store(),
            dyntype: watch.dyntype().clone(),
            trigger: trigger.clone(),
            metrics: metrics.clone(),
            events: None,
            concurrency: 16,
            after: vec![(K::plural(watch.dyntype()).into_owned(), watch.state())],
            leadership: None,
        }
    }

    /// Sets how many objects are reconciled at once; 16 unless set, at least 1.
    #[must_use]
    pub fn concurrency(mut self, objects: u16) -> Self {
        // kube reads 0 as "without bound".
        self.concurrency = objects.max(1);
        self
    }

    /// Publishes Warning events about failures: one for the first terminal error, and one for the fifth transient error,
    /// since the last success. A conflict has one when it lasts ([`LASTING_CONFLICT`]).
    #[must_use]
    pub fn events(mut self, events: Events) -> Self {
        self.events = Some(events);
        self
    }

    /// Delays the start until the watch of this name is synced, or its kind is known not to be installed.
    #[must_use]
    pub fn after(mut self, name: impl Into<String>, watch: watch::Receiver<SyncState>) -> Self {
        self.after.push((name.into(), watch));
        self
    }

    /// Reconciles objects for which `comes_first` is true before all others, such as new ones: a first status comes soon, whatever else is
    /// to be done.
    #[must_use]
    pub fn first(self, comes_first: impl Fn(&K) -> bool + Send + Sync + 'static) -> Self {
        let store = self.store.clone();
        self.trigger.set_first(move |object| store.get(object).is_some_and(|object| comes_first(&object)));
        self
    }

    /// Delays the start until this process leads. The watches run meanwhile, so that a standby has full caches.
    #[must_use]
    pub fn when_leading(mut self, leadership: watch::Receiver<Leadership>) -> Self {
        self.leadership = Some(leadership);
        self
    }

    /// Reconciles until `stop` is cancelled, then waits for the running reconciles.
    ///
    /// Errors only if a watch or the lease has ended.
    pub async fn run<C, F, Fut>(mut self, stop: CancellationToken, context: Arc<C>, reconcile: F) -> anyhow::Result<()>
    where
        C: Send + Sync + 'static,
        F: Fn(Arc<K>, Arc<C>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Outcome, Error>> + Send + 'static,
    {
        match stop.run_until_cancelled(self.until_startable()).await {
            None => return Ok(()),
            Some(started) => started?,
        }
        tracing::info!(controller = self.name, objects = self.store.len(), "controller starts");
        let requests = self.trigger.stream(self.concurrency);
        self.trigger.enqueue_all_with(&self.store, &self.dyntype);

        let runner = Arc::new(Runner {
            name: self.name,
            dyntype: self.dyntype.clone(),
            metrics: self.metrics,
            events: self.events,
            failures: Mutex::default(),
            trigger: self.trigger,
            context,
            reconcile,
        });
        let ends = kube::runtime::Controller::for_stream_with(stream::pending(), self.store, self.dyntype)
            .reconcile_on(requests)
            .with_config(controller::Config::default().concurrency(self.concurrency))
            .graceful_shutdown_on(stop.clone().cancelled_owned())
            .run(
                |object: Arc<K>, runner: Arc<Runner<K, C, F>>| {
                    let reference = ObjectRef::from_obj_with(object.as_ref(), runner.dyntype.clone());
                    let busy = runner.trigger.reconciling(&reference);
                    async move {
                        let result = runner.reconcile(object).await;
                        drop(busy);
                        result
                    }
                },
                |_, never, _| match *never {},
                Arc::clone(&runner),
            );
        pin_mut!(ends);
        while let Some(end) = ends.next().await {
            match end {
                Ok(_) => {}
                Err(controller::Error::ObjectNotFound(object)) => {
                    let object = object.into_kind_unchecked(runner.dyntype.clone());
                    runner.forget(&object);
                    // It was taken, and is not reconciled.
                    drop(runner.trigger.reconciling(&object));
                }
                Err(controller::Error::ReconcilerFailed(never, _)) => match never {},
                Err(error) => {
                    return Err(anyhow!(error.to_string()).context(format!("controller {}", runner.name)));
                }
            }
        }
        tracing::info!(controller = runner.name, "controller stopped");
        Ok(())
    }

    async fn until_startable(&mut self) -> anyhow::Result<()> {
        for (name, state) in &mut self.after {
            state
                .wait_for(|state| *state != SyncState::Syncing)
                .await
                .with_context(|| format!("the watch of {name} has ended before its first list"))?;
        }
        if let Some(leadership) = &mut self.leadership {
            leadership.wait_for(|now| now.leading).await.context("the task that renews the lease has ended")?;
        }
        Ok(())
    }
}

/// Failures of one object since its last success. Each class is counted separately: conflicts are tried again fast, and
/// must not lengthen the delay of other failures; and the first terminal error has its event also after transient ones.
#[derive(Clone, Copy, Default)]
struct Failures {
    conflicts: u32,
    transient: u32,
    terminal: u32,
}

impl Failures {
    /// Records a failure, and returns how many of its class there were since the last success.
    fn record(&mut self, class: Class) -> u32 {
        let count = match class {
            Class::Conflict => &mut self.conflicts,
            Class::Transient => &mut self.transient,
            Class::Terminal => &mut self.terminal,
        };
        *count = count.saturating_add(1);
        *count
    }
}

/// What all reconciles of a controller share.
struct Runner<K: Resource, C, F> {
    name: &'static str,
    dyntype: K::DynamicType,
    metrics: Metrics,
    events: Option<Events>,
    failures: Mutex<HashMap<ObjectRef<K>, Failures>>,
    trigger: Trigger<K>,
    context: Arc<C>,
    reconcile: F,
}

impl<K, C, F, Fut> Runner<K, C, F>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
    F: Fn(Arc<K>, Arc<C>) -> Fut,
    Fut: Future<Output = Result<Outcome, Error>>,
{
    async fn reconcile(&self, object: Arc<K>) -> Result<Action, Infallible> {
        let started = Instant::now();
        let reference = ObjectRef::from_obj_with(object.as_ref(), self.dyntype.clone());
        let span = tracing::info_span!(
            "reconcile",
            controller = self.name,
            namespace = reference.namespace,
            name = reference.name
        );
        async {
            let running = self.metrics.reconcile_started(self.name);
            let result = self.guarded(Arc::clone(&object)).await;
            drop(running);
            let failures = self.record(&reference, &result);
            let disposition = disposition(&result, failures, random_unit());
            let took = started.elapsed();
            self.metrics.reconcile_ended(self.name, disposition.result, took);
            let milliseconds = took.as_millis();
            match &result {
                Ok(Outcome::Blocked { reason }) => tracing::debug!(milliseconds, reason, "blocked"),
                Ok(_) => tracing::debug!(milliseconds, result = disposition.result, "reconciled"),
                Err(Error::Conflict(_)) if failures < LASTING_CONFLICT => {
                    tracing::debug!(milliseconds, failures, error = %error_text(&result), "conflict, observing again");
                }
                Err(error) => {
                    tracing::warn!(milliseconds, failures, %error, class = disposition.result, "reconcile failed");
                }
            }
            if disposition.warn
                && let (Err(error), Some(events)) = (&result, &self.events)
            {
                let regarding = object.object_ref(&self.dyntype);
                events.warning(&regarding, "ReconcileFailed", "Reconcile", error.message()).await;
            }
            Ok(disposition.action)
        }
        .instrument(span)
        .await
    }

    /// The reconcile with its time limit; a panic in it becomes an error of this object alone.
    async fn guarded(&self, object: Arc<K>) -> Result<Outcome, Error> {
        // The future is made inside, so that a panic before its first await is caught too. After a panic nothing of the
        // future is used, so it is unwind safe; the reconciler guards the state that it shares.
        let reconcile = async { (self.reconcile)(object, Arc::clone(&self.context)).await };
        match AssertUnwindSafe(timeout(TIME_LIMIT, reconcile)).catch_unwind().await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::transient(format!("reconcile took more than {} s", TIME_LIMIT.as_secs_f32()))),
            Err(payload) => {
                self.metrics.panicked(self.name);
                let cause = panic_message(payload.as_ref());
                tracing::error!(cause, "reconcile panicked");
                // The message may contain secrets, so only the log has it.
                Err(Error::transient("internal error: the reconcile panicked, see the operator's log"))
            }
        }
    }

    /// Records the result and returns how many failures of its class there were since the last success; 0 after a
    /// success.
    fn record(&self, object: &ObjectRef<K>, result: &Result<Outcome, Error>) -> u32 {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match result {
            Ok(_) => {
                failures.remove(object);
                0
            }
            Err(error) => failures.entry(object.clone()).or_default().record(error.class()),
        };
        self.metrics.backing_off(self.name, failures.len());
        count
    }

    fn forget(&self, object: &ObjectRef<K>) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(object);
        self.metrics.backing_off(self.name, failures.len());
    }
}

fn error_text(result: &Result<Outcome, Error>) -> &str {
    result.as_ref().err().map_or("", Error::message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{process::process::Process, testing::Server};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Api, ResourceExt, runtime::watcher};
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::time::sleep;

    /// Runs a controller of ConfigMaps in a process of its own.
    fn operate<F, Fut>(server: &Server, metrics: &Metrics, reconcile: F) -> Process
    where
        F: Fn(Arc<ConfigMap>, Arc<()>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Outcome, Error>> + Send + 'static,
    {
        let trigger = Trigger::new();
        let api = Api::all(server.client(metrics));
        let roots = CachedWatch::<ConfigMap>::new("configmaps", api, watcher::Config::default(), metrics)
            .triggers(&trigger, |object| vec![ObjectRef::from_obj(object)]);
        let controller = Controller::new("test", &roots, &trigger, metrics);
        let mut process = Process::new();
        process.service("watch", roots.run(process.service_stop()));
        process.work("controller", controller.run(process.work_stop(), Arc::new(()), reconcile));
        process
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_delays_its_own_object_alone() {
        let server = Server::with(&["bad", "good"]);
        let metrics = Metrics::new("test", "0");
        let (bad, good) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let seen = (Arc::clone(&bad), Arc::clone(&good));
        let process = operate(&server, &metrics, move |object, _| {
            let counter = if object.name_any() == "bad" { &seen.0 } else { &seen.1 };
            let count = counter.fetch_add(1, Ordering::Relaxed);
            let bad = object.name_any() == "bad";
            async move {
                assert!(!(bad && count < 3), "poisoned");
                Ok(Outcome::Done)
            }
        });
        process.run_until(sleep(Duration::from_secs(30))).await.expect("the process goes on");
        assert_eq!(good.load(Ordering::Relaxed), 1, "reconciled once, not disturbed");
        assert_eq!(bad.load(Ordering::Relaxed), 4, "three panics with back-off, then success, then rest");
        let text = metrics.encode().expect("text");
        assert!(text.contains(r#"reconcile_panics_total{controller="test"} 3"#), "{text}");
        assert!(text.contains(r#"objects_backing_off{controller="test"} 0"#), "{text}");
        assert!(text.contains(r#"reconciles_in_flight{controller="test"} 0"#), "{text}");
    }

    #[test]
    fn a_terminal_error_warns_once_also_after_transient_ones() {
        let mut failures = Failures::default();
        let mut warns = |error: Error| {
            let count = failures.record(error.class());
            disposition(&Err(error), count, 0.5).warn
        };
        assert!(!warns(Error::conflict("x")) && !warns(Error::transient("x")));
        assert!(warns(Error::terminal("x")), "not the first failure, but the first terminal one");
        assert!(!warns(Error::transient("x")) && !warns(Error::terminal("x")), "its event is published already");
        assert!(!warns(Error::transient("x")) && !warns(Error::transient("x")));
        assert!(warns(Error::transient("x")), "the fifth transient one");
        assert!(!warns(Error::transient("x")) && !warns(Error::terminal("x")) && !warns(Error::conflict("x")));
    }

    #[test]
    fn a_conflict_that_lasts_warns_once() {
        let mut failures = Failures::default();
        let mut warns = || {
            let count = failures.record(Class::Conflict);
            disposition(&Err(Error::conflict("x")), count, 0.5).warn
        };
        let warned: Vec<u32> = (1..=50).filter(|_| warns()).collect();
        assert_eq!(warned, [LASTING_CONFLICT]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reconcile_that_hangs_is_cut_and_tried_again() {
        let server = Server::with(&["a"]);
        let metrics = Metrics::new("test", "0");
        let count = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&count);
        let process = operate(&server, &metrics, move |_, _| {
            let first = seen.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if first {
                    std::future::pending::<()>().await;
                }
                Ok(Outcome::Done)
            }
        });
        process.run_until(sleep(Duration::from_secs(70))).await.expect("goes on");
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_starts_nothing_new_and_lets_a_running_reconcile_finish() {
        let server = Server::with(&["a"]);
        let metrics = Metrics::new("test", "0");
        let (begun, finished) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let seen = (Arc::clone(&begun), Arc::clone(&finished));
        let process = operate(&server, &metrics, move |_, _| {
            let seen = (Arc::clone(&seen.0), Arc::clone(&seen.1));
            async move {
                seen.0.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_secs(6)).await;
                seen.1.fetch_add(1, Ordering::Relaxed);
                Ok(Outcome::progressing_for(Duration::from_millis(1)))
            }
        });
        process.run_until(sleep(Duration::from_secs(3))).await.expect("clean stop");
        assert_eq!((begun.load(Ordering::Relaxed), finished.load(Ordering::Relaxed)), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_back_off_of_a_deleted_object_is_forgotten() {
        let server = Server::with(&["a"]);
        let metrics = Metrics::new("test", "0");
        let process = operate(&server, &metrics, |_, _| async { Err(Error::transient("no")) });
        let story = async {
            sleep(Duration::from_secs(10)).await;
            let text = metrics.encode().expect("text");
            assert!(text.contains(r#"objects_backing_off{controller="test"} 1"#), "{text}");
            server.delete("a");
            sleep(Duration::from_secs(60)).await;
            let text = metrics.encode().expect("text");
            assert!(text.contains(r#"objects_backing_off{controller="test"} 0"#), "{text}");
        };
        process.run_until(story).await.expect("goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn changes_and_timers_start_reconciles_and_nothing_else_does() {
        let server = Server::with(&["a"]);
        let metrics = Metrics::new("test", "0");
        let count = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&count);
        let process = operate(&server, &metrics, move |_, _| {
            let outcome = match seen.fetch_add(1, Ordering::Relaxed) {
                0 => Outcome::progressing_for(Duration::from_secs(5)),
                _ => Outcome::blocked("something"),
            };
            async move { Ok(outcome) }
        });
        let story = async {
            sleep(Duration::from_secs(20)).await;
            assert_eq!(count.load(Ordering::Relaxed), 2, "start and timer");
            server.modify("a");
            sleep(Duration::from_secs(20)).await;
            assert_eq!(count.load(Ordering::Relaxed), 3, "change");
        };
        process.run_until(story).await.expect("goes on");
    }
}
