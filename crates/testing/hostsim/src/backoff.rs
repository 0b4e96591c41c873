//! Delays between attempts, and watches that use them.

use std::{fmt::Debug, time::Duration};

use futures::{Stream, StreamExt};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, utils::Backoff, watcher},
};
use serde::de::DeserializeOwned;

/// A delay that doubles with each attempt, up to a few seconds.
#[derive(Clone, Debug)]
pub(crate) struct ExponentialBackoff {
    next: Duration,
}

impl ExponentialBackoff {
    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(4);

    pub(crate) fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// The delay before the next attempt.
    pub(crate) fn step(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(Self::MAX);
        delay
    }

    /// Waits before the next attempt.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.step()).await;
    }
}

impl Iterator for ExponentialBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.step())
    }
}

impl Backoff for ExponentialBackoff {
    fn reset(&mut self) {
        *self = Self::new();
    }
}

/// Watches objects. The stream does not end: after an error, which is logged, the watch is opened again.
pub(crate) fn watch<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = watcher::Event<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(api, config).backoff(ExponentialBackoff::new()).filter_map(|event| async move {
        event.inspect_err(|error| tracing::debug!(%error, "watch interrupted, opening it again")).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_limit_and_starts_over() {
        let mut delay = ExponentialBackoff::new();
        let steps: Vec<_> = std::iter::repeat_with(|| delay.step()).take(10).collect();
        assert_eq!(steps[0], ExponentialBackoff::FIRST);
        assert_eq!(steps[1], ExponentialBackoff::FIRST * 2);
        assert_eq!(steps[9], ExponentialBackoff::MAX);
        Backoff::reset(&mut delay);
        assert_eq!(delay.step(), ExponentialBackoff::FIRST);
    }
}
