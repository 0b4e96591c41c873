//! The controllers and the process: the only place that starts tasks.

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
use futures::{FutureExt, StreamExt, future::BoxFuture, pin_mut, stream};
use kube::{
    Resource,
    runtime::{
        controller::{self, Action},
        reflector::{ObjectRef, Store},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    select,
    sync::{mpsc, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    events::Events,
    lease::Leadership,
    metrics::Metrics,
    outcome::{Class, Error, Outcome, random_unit, verdict},
    reflect::{Reflection, SyncState, Trigger},
    telemetry::panic_message,
};

/// Reconciles the objects of one kind: never one object twice at a time, a bounded number of objects at once.
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
    time_limit: Duration,
    after: Vec<watch::Receiver<SyncState>>,
    leadership: Option<watch::Receiver<Leadership>>,
}

impl<K> Controller<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Debug + Unpin + Send + Sync,
{
    /// A controller of the objects in `roots`, run by what comes through `trigger`. For changes of the objects
    /// themselves, `roots` must map each to itself:
    /// `roots.triggers(&trigger, |object| vec![ObjectRef::from_obj(object)])`.
    ///
    /// At its start it reconciles every object once.
    pub fn new(name: &'static str, roots: &Reflection<K>, trigger: &Trigger<K>, metrics: &Metrics) -> Self {
        Self {
            name,
            store: roots.store(),
            dyntype: roots.dyntype().clone(),
            trigger: trigger.clone(),
            metrics: metrics.clone(),
            events: None,
            concurrency: 16,
            time_limit: Duration::from_secs(60),
            after: vec![roots.state()],
            leadership: None,
        }
    }

    /// How many objects are reconciled at once; 16 unless set. At least 1.
    #[must_use]
    pub fn concurrency(mut self, objects: u16) -> Self {
        // kube reads 0 as "without bound".
        self.concurrency = objects.max(1);
        self
    }

    /// Time limit of one reconcile; 60 s unless set. After it the reconcile is dropped at its next await.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Publishes a Warning event for a terminal error and for a long row of transient ones.
    #[must_use]
    pub fn events(mut self, events: Events) -> Self {
        self.events = Some(events);
        self
    }

    /// Holds the start until this watch is synced, or its kind is known not to be installed.
    #[must_use]
    pub fn after(mut self, watch: watch::Receiver<SyncState>) -> Self {
        self.after.push(watch);
        self
    }

    /// Holds the start until this process leads. The watches go on meanwhile, so that a standby starts warm.
    #[must_use]
    pub fn when_leading(mut self, leadership: watch::Receiver<Leadership>) -> Self {
        self.leadership = Some(leadership);
        self
    }

    /// Reconciles until told to stop, then lets the running reconciles end.
    ///
    /// Errors only if the watch of the objects or the lease has ended.
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
        let requests = self.trigger.stream();
        self.trigger.touch_all_with(&self.store, &self.dyntype);

        let runner = Arc::new(Runner {
            name: self.name,
            dyntype: self.dyntype.clone(),
            metrics: self.metrics,
            events: self.events,
            time_limit: self.time_limit,
            failures: Mutex::default(),
            context,
            reconcile,
        });
        let ends = kube::runtime::Controller::for_stream_with(stream::pending(), self.store, self.dyntype)
            .reconcile_on(requests)
            .with_config(controller::Config::default().concurrency(self.concurrency))
            .graceful_shutdown_on(stop.clone().cancelled_owned())
            .run(
                |object, runner: Arc<Runner<K, C, F>>| async move { runner.reconcile(object).await },
                |_, never, _| match *never {},
                Arc::clone(&runner),
            );
        pin_mut!(ends);
        while let Some(end) = ends.next().await {
            match end {
                Ok(_) => {}
                Err(controller::Error::ObjectNotFound(object)) => {
                    runner.forget(&object.into_kind_unchecked(runner.dyntype.clone()));
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
        for state in &mut self.after {
            state.wait_for(|state| *state != SyncState::Syncing).await.context("a watch ended")?;
        }
        if let Some(leadership) = &mut self.leadership {
            leadership.wait_for(|now| now.leading).await.context("the lease task ended")?;
        }
        Ok(())
    }
}

/// Failures of one object in a row. Conflicts are counted apart: they come back fast and must not lift the delay of
/// the others.
#[derive(Clone, Copy, Default)]
struct Failures {
    conflicts: u32,
    others: u32,
}

/// What every reconcile of a controller shares.
struct Runner<K: Resource, C, F> {
    name: &'static str,
    dyntype: K::DynamicType,
    metrics: Metrics,
    events: Option<Events>,
    time_limit: Duration,
    failures: Mutex<HashMap<ObjectRef<K>, Failures>>,
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
            let attempt = self.count(&reference, &result);
            let verdict = verdict(&result, attempt, random_unit());
            let took = started.elapsed();
            self.metrics.reconcile_ended(self.name, verdict.result, took);
            let milliseconds = took.as_millis();
            match &result {
                Ok(Outcome::Blocked { reason }) => tracing::debug!(milliseconds, reason, "blocked"),
                Ok(_) => tracing::debug!(milliseconds, result = verdict.result, "reconciled"),
                Err(Error::Conflict(_)) => {
                    tracing::debug!(milliseconds, attempt, error = %error_text(&result), "conflict, observing again");
                }
                Err(error) => {
                    tracing::warn!(milliseconds, attempt, %error, class = verdict.result, "reconcile failed");
                }
            }
            if verdict.warn
                && let (Err(error), Some(events)) = (&result, &self.events)
            {
                let regarding = object.object_ref(&self.dyntype);
                events.warning(&regarding, "ReconcileFailed", "Reconcile", error.message()).await;
            }
            Ok(verdict.action)
        }
        .instrument(span)
        .await
    }

    /// The reconcile with its time limit; a panic in it becomes an error of this object alone.
    async fn guarded(&self, object: Arc<K>) -> Result<Outcome, Error> {
        // The future is made inside, so that a panic before its first await is caught too. Nothing of it is used
        // after a panic, which is what unwind safety is about; shared state is the reconciler's own concern.
        let attempt = async { (self.reconcile)(object, Arc::clone(&self.context)).await };
        match AssertUnwindSafe(timeout(self.time_limit, attempt)).catch_unwind().await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                Err(Error::transient(format!("reconcile took more than {} s", self.time_limit.as_secs_f32())))
            }
            Err(payload) => {
                self.metrics.panicked(self.name);
                let cause = panic_message(payload.as_ref());
                tracing::error!(cause, "reconcile panicked");
                // The message may hold anything; it stays in the log.
                Err(Error::transient("internal error: the reconcile panicked, see the operator's log"))
            }
        }
    }

    /// Keeps the books and returns which failure in a row this is.
    fn count(&self, object: &ObjectRef<K>, result: &Result<Outcome, Error>) -> u32 {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = match result {
            Ok(_) => {
                failures.remove(object);
                0
            }
            Err(error) => {
                let row = failures.entry(object.clone()).or_default();
                let count = if error.class() == Class::Conflict { &mut row.conflicts } else { &mut row.others };
                *count = count.saturating_add(1);
                *count
            }
        };
        self.metrics.backing_off(self.name, failures.len());
        attempt
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

/// The tasks of the process and their end.
///
/// * **Work** (controllers) stops first: it takes nothing new and gets some time to finish.
/// * **Services** (watches, lease, admin endpoint) go on until the work has ended, so that the lease is released only
///   when nothing acts under it any more.
///
/// A task that ends by itself ends the process with an error: half an operator is worse than a restart.
pub struct Process {
    work: JoinSet<anyhow::Result<()>>,
    services: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, String>,
    work_stop: CancellationToken,
    service_stop: CancellationToken,
    grace: Duration,
}

/// Services only have to let go.
const SERVICE_GRACE: Duration = Duration::from_secs(5);

impl Default for Process {
    fn default() -> Self {
        Self {
            work: JoinSet::new(),
            services: JoinSet::new(),
            names: HashMap::new(),
            work_stop: CancellationToken::new(),
            service_stop: CancellationToken::new(),
            grace: Duration::from_secs(10),
        }
    }
}

impl Process {
    /// A process without tasks, with 10 s for running work to finish.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time that running work gets at a stop.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Tells the work to stop; hand it to the controllers.
    pub fn work_stop(&self) -> CancellationToken {
        self.work_stop.clone()
    }

    /// Tells the services to stop.
    pub fn service_stop(&self) -> CancellationToken {
        self.service_stop.clone()
    }

    /// Starts a task of work.
    pub fn work(&mut self, name: impl Into<String>, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.names.insert(self.work.spawn(task).id(), name.into());
    }

    /// Starts a service.
    pub fn service(
        &mut self,
        name: impl Into<String>,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.names.insert(self.services.spawn(task).id(), name.into());
    }

    /// Runs until SIGTERM or SIGINT. Errors (for the exit code) if a task ended by itself, failed or panicked.
    pub async fn run(self) -> anyhow::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        self.run_until(async {
            let name = select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "stopping");
        })
        .await
    }

    /// As [`Process::run`], stopped by `shutdown` instead of a signal.
    pub async fn run_until(mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let result = self.supervise(shutdown).await;
        if let Err(error) = &result {
            tracing::error!(error = %format!("{error:#}"), "process ends");
        }
        // Whatever still works is dropped: without the lease, or after the grace, it must not go on.
        self.work.shutdown().await;
        self.service_stop.cancel();
        let services = timeout(SERVICE_GRACE, async {
            let mut failed = Ok(());
            while let Some(end) = self.services.join_next_with_id().await {
                failed = failed.and(end_of(&self.names, end));
            }
            failed
        })
        .await;
        result?;
        if let Ok(result) = services {
            result?;
        } else {
            tracing::warn!("services did not stop in time");
        }
        tracing::info!("stopped");
        Ok(())
    }

    async fn supervise(&mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        select! {
            () = shutdown => {}
            Some(end) = self.work.join_next_with_id() => return Err(early(&self.names, end)),
            Some(end) = self.services.join_next_with_id() => return Err(early(&self.names, end)),
        }
        self.work_stop.cancel();
        let grace = tokio::time::sleep(self.grace);
        pin_mut!(grace);
        loop {
            select! {
                end = self.work.join_next_with_id() => match end {
                    Some(end) => end_of(&self.names, end)?,
                    None => return Ok(()),
                },
                Some(end) = self.services.join_next_with_id() => return Err(early(&self.names, end)),
                () = &mut grace => {
                    tracing::warn!(tasks = self.work.len(), "work did not finish in time, dropping it");
                    return Ok(());
                }
            }
        }
    }
}

/// A name and what to do.
type Child = (String, BoxFuture<'static, anyhow::Result<()>>);

/// Starts tasks while the process runs, such as one for each API server that objects tell of. Clones are the same.
#[derive(Clone)]
pub struct Tasks(mpsc::UnboundedSender<Child>);

/// Runs what [`Tasks`] start; it is a service of the process.
pub struct TaskRunner(mpsc::UnboundedReceiver<Child>);

impl Tasks {
    /// The two halves.
    pub fn new() -> (Self, TaskRunner) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), TaskRunner(receiver))
    }

    /// Starts a task, which may end by itself without harm. Nothing happens when the process is about to end.
    pub fn start(&self, name: impl Into<String>, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let _ = self.0.send((name.into(), task.boxed()));
    }
}

impl TaskRunner {
    /// Runs tasks until told to stop; then drops them.
    ///
    /// Errors if one fails or panics: nobody would start it again.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let (mut running, mut names) = (JoinSet::new(), HashMap::new());
        loop {
            select! {
                () = stop.cancelled() => break,
                Some((name, task)) = self.0.recv() => {
                    names.insert(running.spawn(task).id(), name);
                }
                Some(end) = running.join_next_with_id() => {
                    let id = id_of(&end);
                    end_of(&names, end)?;
                    names.remove(&id);
                }
            }
        }
        running.shutdown().await;
        Ok(())
    }
}

type End = Result<(Id, anyhow::Result<()>), JoinError>;

/// How a task ended that was told to.
fn end_of(names: &HashMap<Id, String>, end: End) -> anyhow::Result<()> {
    let (id, result) = match end {
        Ok((id, result)) => (id, result),
        Err(error) => (error.id(), Err(error.into())),
    };
    let name = names.get(&id).map_or("unnamed", String::as_str);
    result.with_context(|| format!("task {name} failed"))
}

fn id_of(end: &End) -> Id {
    match end {
        Ok((id, _)) => *id,
        Err(error) => error.id(),
    }
}

/// The error of a task that ended though nobody told it to.
fn early(names: &HashMap<Id, String>, end: End) -> anyhow::Error {
    let id = id_of(&end);
    match end_of(names, end) {
        Err(error) => error,
        Ok(()) => anyhow!("task {} ended by itself", names.get(&id).map_or("unnamed", String::as_str)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Server;
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
        let roots = Reflection::<ConfigMap>::new("configmaps", api, watcher::Config::default(), metrics)
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

    #[tokio::test(start_paused = true)]
    async fn a_stop_lets_running_work_finish_before_the_services_stop() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut process = Process::new();
        let (log, stop) = (Arc::clone(&order), process.work_stop());
        process.work("work", async move {
            stop.cancelled().await;
            sleep(Duration::from_secs(9)).await;
            log.lock().expect("lock").push("work");
            Ok(())
        });
        let (log, stop) = (Arc::clone(&order), process.service_stop());
        process.service("lease", async move {
            stop.cancelled().await;
            log.lock().expect("lock").push("lease");
            Ok(())
        });
        process.run_until(sleep(Duration::from_secs(1))).await.expect("clean stop");
        assert_eq!(*order.lock().expect("lock"), ["work", "lease"]);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_does_not_finish_is_dropped_after_the_grace() {
        let mut process = Process::new().grace(Duration::from_secs(3));
        process.work("stuck", std::future::pending());
        let begun = Instant::now();
        process.run_until(std::future::ready(())).await.expect("a stop is no failure");
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_by_itself_ends_the_process() {
        let mut failing: Vec<(&str, Process)> = Vec::new();
        let mut process = Process::new();
        process.service("lease", async { anyhow::bail!("lost the lease") });
        failing.push(("task lease failed: lost the lease", process));
        let mut process = Process::new();
        process.work("controller", async { Ok(()) });
        failing.push(("task controller ended by itself", process));
        let mut process = Process::new();
        process.work("broken", async { panic!("no") });
        failing.push(("task broken failed", process));
        for (message, mut process) in failing {
            let stop = process.service_stop();
            process.service("other", async move {
                stop.cancelled().await;
                Ok(())
            });
            let error = process.run_until(std::future::pending()).await.expect_err(message);
            assert!(format!("{error:#}").starts_with(message), "{error:#}");
        }
    }
}
