//! How long something does not answer, and how many requests are lost. It is printed, and never judged: it depends on the machine.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::harness::Tenant;

/// Asks something ten times a second, until this is dropped.
pub struct Silence {
    answers: Arc<Mutex<Answers>>,
    task: JoinHandle<()>,
}

/// How something has answered.
#[derive(Default)]
pub struct Answers {
    /// How long it did not answer at most.
    silent: Duration,
    /// Requests without an answer, each of which is waited for for two seconds.
    lost: u32,
    asked: u32,
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { silent, lost, asked } = self;
        write!(f, "silent for {silent:.1?} at most, {lost} of {asked} requests lost")
    }
}

impl Silence {
    /// Of what this asks.
    pub fn of<F: Future<Output = bool> + Send>(answers: impl Fn() -> F + Send + 'static) -> Self {
        let told = Arc::new(Mutex::new(Answers::default()));
        let so_far = Arc::clone(&told);
        let task = tokio::spawn(async move {
            let (mut pace, mut last) = (tokio::time::interval(Duration::from_millis(100)), Instant::now());
            loop {
                pace.tick().await;
                let asked = tokio::time::timeout(Duration::from_secs(2), answers()).await;
                let mut told = so_far.lock().expect("not poisoned");
                told.silent = told.silent.max(last.elapsed());
                told.asked += 1;
                if asked == Ok(true) {
                    last = Instant::now();
                } else {
                    told.lost += 1;
                }
            }
        });
        Self { answers: told, task }
    }

    /// Of the API server of a cluster.
    pub async fn of_the_api(tenant: &Tenant, cluster: &str) -> anyhow::Result<Self> {
        let client = tenant.workload(cluster).await?;
        Ok(Self::of(move || {
            let client = client.clone();
            async move { client.apiserver_version().await.is_ok() }
        }))
    }

    /// What was found so far; from now on it is measured anew.
    pub fn take(&self) -> Answers {
        std::mem::take(&mut *self.answers.lock().expect("not poisoned"))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.task.abort();
    }
}
