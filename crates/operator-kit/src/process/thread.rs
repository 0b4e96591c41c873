//! A thread that has a runtime of its own.

use std::{future::Future, sync::mpsc, thread};

use anyhow::Context as _;
use tokio::{
    runtime::{Builder, EnterGuard, Handle},
    sync::oneshot,
    task::JoinHandle,
};

/// A thread that has a runtime of its own, for a task that must not wait for the work on the other threads, however much
/// there is. It ends when this is dropped, and its tasks with it.
pub(crate) struct OwnThread {
    runtime: Handle,
    _stop: oneshot::Sender<()>,
}

impl OwnThread {
    /// Starts the thread.
    ///
    /// Errors if the operating system refuses it.
    pub(crate) fn start(name: &str) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (sender, receiver) = mpsc::channel();
        // The runtime is created and dropped on its thread: where other tasks run, a runtime must not be dropped.
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => {
                    let _ = sender.send(Ok(runtime.handle().clone()));
                    let _ = runtime.block_on(stopped);
                }
                Err(error) => drop(sender.send(Err(error))),
            }
        })?;
        let runtime = receiver.recv().context("the thread has ended")??;
        Ok(Self { runtime, _stop: stop })
    }

    /// Until the guard is dropped, what is created here, such as a client, belongs to the runtime of the thread.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Starts the task on the thread.
    pub(crate) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.runtime.spawn(task)
    }
}
