//! The heartbeat of the runtime that runs the work, for the thread that renews the lease.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// The heartbeat of the runtime that runs the work. Clones share it.
#[derive(Clone)]
pub(crate) struct Heartbeat {
    start: Instant,
    /// Milliseconds after `start`.
    last: Arc<AtomicU64>,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { start: Instant::now(), last: Arc::default() }
    }
}

impl Heartbeat {
    /// The runtime runs its tasks now.
    pub(crate) fn beat(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Time since the last beat.
    pub(crate) fn age(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_has_the_age_of_its_last_beat() {
        let heartbeat = Heartbeat::default();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(heartbeat.age(), Duration::from_secs(5));
        heartbeat.clone().beat();
        sleep(Duration::from_secs(2)).await;
        assert_eq!(heartbeat.age(), Duration::from_secs(2));
    }
}
