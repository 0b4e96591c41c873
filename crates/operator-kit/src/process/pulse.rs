//! A sign of life of the threads that work, for the one that renews the lease.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// The last sign of life of the threads that work. Clones are the same.
#[derive(Clone)]
pub(crate) struct Pulse {
    start: Instant,
    /// Milliseconds after `start`.
    last: Arc<AtomicU64>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { start: Instant::now(), last: Arc::default() }
    }
}

impl Pulse {
    /// The threads that work are alive now.
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
    async fn a_pulse_has_the_age_of_its_last_beat() {
        let pulse = Pulse::default();
        sleep(Duration::from_secs(5)).await;
        assert_eq!(pulse.age(), Duration::from_secs(5));
        pulse.clone().beat();
        sleep(Duration::from_secs(2)).await;
        assert_eq!(pulse.age(), Duration::from_secs(2));
    }
}
