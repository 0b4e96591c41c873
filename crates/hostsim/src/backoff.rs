//! Growing delays between attempts, and watches that use them.

use std::{fmt::Debug, time::Duration};

use futures::{Stream, StreamExt};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, utils::Backoff, watcher},
};
use serde::de::DeserializeOwned;

/// A delay that doubles from attempt to attempt up to a few seconds.
#[derive(Clone, Debug)]
pub(crate) struct Growing {
    next: Duration,
}

impl Growing {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(4);

    pub(crate) fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// The delay before the next attempt.
    pub(crate) fn step(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(Self::LONGEST);
        delay
    }

    /// Waits before the next attempt.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.step()).await;
    }
}

impl Iterator for Growing {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.step())
    }
}

impl Backoff for Growing {
    fn reset(&mut self) {
        *self = Self::new();
    }
}

/// Watches objects without end; errors are logged and the watch is opened again.
pub(crate) fn watch<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = watcher::Event<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(api, config).backoff(Growing::new()).filter_map(|event| async move {
        event.inspect_err(|error| tracing::debug!(%error, "watch interrupted, opening it again")).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_limit_and_starts_over() {
        let mut delay = Growing::new();
        let steps: Vec<_> = std::iter::repeat_with(|| delay.step()).take(10).collect();
        assert_eq!(steps[0], Growing::FIRST);
        assert_eq!(steps[1], Growing::FIRST * 2);
        assert_eq!(steps[9], Growing::LONGEST);
        Backoff::reset(&mut delay);
        assert_eq!(delay.step(), Growing::FIRST);
    }
}
