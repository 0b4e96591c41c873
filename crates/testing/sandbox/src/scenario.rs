//! Scenarios: tests that share what is expensive to start. They run as a test binary does, side by side.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use tokio::sync::Semaphore;

/// Result of a scenario.
pub type Outcome = anyhow::Result<()>;
type Running = Pin<Box<dyn Future<Output = Outcome>>>;

/// What scenarios share.
pub trait World: Send + Sync + 'static {
    /// Called when every scenario has ended. Stops what was started, and checks what must hold whatever ran.
    fn stop(&self) -> impl Future<Output = Outcome>;
}

/// One scenario in a world.
pub struct Scenario<W> {
    /// What a user sees.
    pub name: String,
    slow: bool,
    needs_servers: bool,
    body: Box<dyn FnOnce(Arc<W>) -> Running + Send>,
}

impl<W: World> Scenario<W> {
    /// A scenario.
    pub fn new<F>(name: &str, body: impl FnOnce(Arc<W>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Outcome> + 'static,
    {
        let body = move |world| -> Running { Box::pin(body(world)) };
        Self { name: name.to_owned(), slow: false, needs_servers: false, body: Box::new(body) }
    }

    /// Marks the scenario as slow: it runs with `--include-ignored` only.
    #[must_use]
    pub fn slow(self) -> Self {
        Self { slow: true, ..self }
    }

    /// Marks the scenario as one for machines that can have servers; elsewhere it is left out. One runs at a time: two
    /// racks would need more inotify instances than machines have by default.
    #[must_use]
    pub fn with_servers(self) -> Self {
        Self { needs_servers: true, ..self }
    }
}

/// Scenarios wait most of the time.
const SIDE_BY_SIDE: usize = 8;

/// Runs the scenarios that the command line selects, and stops the world. `no_servers` is why this machine can have no
/// servers, if it cannot.
pub fn run<W: World>(world: W, scenarios: Vec<Scenario<W>>, no_servers: Option<&str>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(SIDE_BY_SIDE));
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (world, rack) = (Arc::new(world), Arc::new(Semaphore::new(1)));
    let trials = scenarios
        .into_iter()
        .filter(|scenario| !scenario.needs_servers || no_servers.is_none())
        .map(|Scenario { name, slow, needs_servers, body }| {
            let (world, rack, handle) = (Arc::clone(&world), Arc::clone(&rack), runtime.handle().clone());
            let run = async move || {
                let _rack = if needs_servers { Some(rack.acquire_owned().await?) } else { None };
                body(world).await
            };
            Trial::test(name, move || handle.block_on(run()).map_err(|error| format!("{error:#}").into()))
                .with_ignored_flag(slow)
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Err(error) = runtime.block_on(world.stop()) {
        eprintln!("what the scenarios share did not end as it should: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
