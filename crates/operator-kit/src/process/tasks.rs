//! Tasks that start while the process runs.

use std::{collections::HashMap, future::Future};

use anyhow::Context as _;
use futures::{FutureExt, future::BoxFuture};
use tokio::{
    select,
    sync::mpsc,
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

/// A name and the task.
type Child = (String, BoxFuture<'static, anyhow::Result<()>>);

/// Starts tasks while the process runs, such as one for each API server that an object names. Clones are the same.
#[derive(Clone)]
pub struct TaskSpawner(mpsc::UnboundedSender<Child>);

/// Runs the tasks of a [`TaskSpawner`]; it has to be run as a service.
pub struct TaskRunner(mpsc::UnboundedReceiver<Child>);

impl TaskSpawner {
    /// A spawner and its runner.
    pub fn new() -> (Self, TaskRunner) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), TaskRunner(receiver))
    }

    /// Starts a task. It may end at any time; at the end of the process it is not started.
    pub fn start(&self, name: impl Into<String>, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let _ = self.0.send((name.into(), task.boxed()));
    }
}

impl TaskRunner {
    /// Runs tasks until `stop` is cancelled, then drops them.
    ///
    /// Errors if a task fails or panics, because nothing would start it again.
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
                    task_result(&names, end)?;
                    names.remove(&id);
                }
            }
        }
        running.shutdown().await;
        Ok(())
    }
}

/// The end of a task of a `JoinSet`.
pub(crate) type TaskEnd = Result<(Id, anyhow::Result<()>), JoinError>;

/// The result of a task, with its name in the error.
pub(crate) fn task_result(names: &HashMap<Id, String>, end: TaskEnd) -> anyhow::Result<()> {
    let (id, result) = match end {
        Ok((id, result)) => (id, result),
        Err(error) => (error.id(), Err(error.into())),
    };
    let name = names.get(&id).map_or("unnamed", String::as_str);
    result.with_context(|| format!("task {name} failed"))
}

pub(crate) fn id_of(end: &TaskEnd) -> Id {
    match end {
        Ok((id, _)) => *id,
        Err(error) => error.id(),
    }
}
