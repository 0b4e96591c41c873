//! The tasks of the process, and in which order they stop.

use std::{collections::HashMap, future::Future, time::Duration};

use anyhow::anyhow;
use futures::pin_mut;
use tokio::{
    select,
    task::{Id, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::process::tasks::{TaskEnd, id_of, task_result};

/// The tasks of the process, and their order at its end.
///
/// * **Work** (controllers) stops first: it starts nothing new and has 10 s to finish.
/// * **Services** (watches, lease, admin endpoint) run until the work has ended, so that the lease is released only
///   when nothing acts under it any more.
///
/// A task that ends by itself ends the process with an error: half an operator is worse than a restart.
pub struct Process {
    work: JoinSet<anyhow::Result<()>>,
    services: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, String>,
    work_stop: CancellationToken,
    service_stop: CancellationToken,
}

/// Time that running work has to finish after a stop.
const WORK_GRACE: Duration = Duration::from_secs(10);
/// Services have only connections to close, and the lease to release.
const SERVICE_GRACE: Duration = Duration::from_secs(5);

impl Default for Process {
    fn default() -> Self {
        Self {
            work: JoinSet::new(),
            services: JoinSet::new(),
            names: HashMap::new(),
            work_stop: CancellationToken::new(),
            service_stop: CancellationToken::new(),
        }
    }
}

impl Process {
    /// A process without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the work has to stop; for the controllers.
    pub fn work_stop(&self) -> CancellationToken {
        self.work_stop.clone()
    }

    /// Cancelled when the services have to stop.
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

    /// As [`Process::run`], but stops when `shutdown` ends.
    pub(crate) async fn run_until(mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let result = self.supervise(shutdown).await;
        if let Err(error) = &result {
            tracing::error!(error = %format!("{error:#}"), "process ends");
        }
        // Work that still runs is dropped: without the lease, or after its grace, it must not go on.
        self.work.shutdown().await;
        self.service_stop.cancel();
        let services = timeout(SERVICE_GRACE, async {
            let mut failed = Ok(());
            while let Some(end) = self.services.join_next_with_id().await {
                failed = failed.and(task_result(&self.names, end));
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
            Some(end) = self.work.join_next_with_id() => return Err(unexpected_end(&self.names, end)),
            Some(end) = self.services.join_next_with_id() => return Err(unexpected_end(&self.names, end)),
        }
        self.work_stop.cancel();
        let grace = tokio::time::sleep(WORK_GRACE);
        pin_mut!(grace);
        loop {
            select! {
                end = self.work.join_next_with_id() => match end {
                    Some(end) => task_result(&self.names, end)?,
                    None => return Ok(()),
                },
                Some(end) = self.services.join_next_with_id() => return Err(unexpected_end(&self.names, end)),
                () = &mut grace => {
                    tracing::warn!(tasks = self.work.len(), "work did not finish in time, dropping it");
                    return Ok(());
                }
            }
        }
    }
}

/// The error for a task that ended without being told to stop.
fn unexpected_end(names: &HashMap<Id, String>, end: TaskEnd) -> anyhow::Error {
    let id = id_of(&end);
    match task_result(names, end) {
        Err(error) => error,
        Ok(()) => anyhow!("task {} ended by itself", names.get(&id).map_or("unnamed", String::as_str)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::time::{Instant, sleep};

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
        let mut process = Process::new();
        process.work("stuck", std::future::pending());
        let begun = Instant::now();
        process.run_until(std::future::ready(())).await.expect("a stop is no failure");
        assert_eq!(begun.elapsed(), WORK_GRACE);
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
