//! How long something does not answer. It is printed, and never judged: it depends on the machine.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::harness::Tenant;

/// How long something did not answer at most, while it was asked again and again. It is asked until this is dropped.
pub struct Silence {
    longest: Arc<Mutex<Duration>>,
    task: JoinHandle<()>,
}

impl Silence {
    /// Of what this asks.
    pub fn of<F: Future<Output = bool> + Send>(answers: impl Fn() -> F + Send + 'static) -> Self {
        let longest = Arc::new(Mutex::new(Duration::ZERO));
        let so_far = Arc::clone(&longest);
        let task = tokio::spawn(async move {
            let (mut pace, mut last) = (tokio::time::interval(Duration::from_millis(100)), Instant::now());
            loop {
                pace.tick().await;
                let asked = tokio::time::timeout(Duration::from_secs(2), answers()).await;
                let mut longest = so_far.lock().expect("not poisoned");
                *longest = (*longest).max(last.elapsed());
                if asked == Ok(true) {
                    last = Instant::now();
                }
            }
        });
        Self { longest, task }
    }

    /// Of the API server of a cluster.
    pub async fn of_the_api(tenant: &Tenant, cluster: &str) -> anyhow::Result<Self> {
        let client = tenant.workload(cluster).await?;
        Ok(Self::of(move || {
            let client = client.clone();
            async move { client.apiserver_version().await.is_ok() }
        }))
    }

    /// The longest time so far; from now on it is measured anew.
    pub fn take(&self) -> Duration {
        std::mem::take(&mut *self.longest.lock().expect("not poisoned"))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.task.abort();
    }
}
