//! Read your own writes: an object is not reconciled on caches that do not show yet what was written for it.
//!
//! Without this, a reconcile that comes before the watch event of a write would repeat the write, or take a new object
//! for missing.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a cache may lag behind a write. After that the reconcile goes on: the preconditions of its writes protect
/// it from what is outdated.
const EXPECTATION_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes that the caches do not show yet, by the key of the object that was reconciled (such as its UID).
///
/// `W` describes a write; the caller knows how to find its effect in the caches.
#[derive(Debug)]
pub struct Expectations<Key, W>(Mutex<HashMap<Key, Vec<Expected<W>>>>);

#[derive(Debug)]
struct Expected<W> {
    write: W,
    deadline: Instant,
}

impl<Key, W> Default for Expectations<Key, W> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Key: Eq + Hash, W> Expectations<Key, W> {
    /// Expects that the caches show these writes; `now` is the time at which they were made.
    pub fn add(&self, key: impl Into<Key>, writes: impl IntoIterator<Item = W>, now: Instant) {
        let mut writes =
            writes.into_iter().map(|write| Expected { write, deadline: now + EXPECTATION_TIMEOUT }).peekable();
        if writes.peek().is_some() {
            self.lock().entry(key.into()).or_default().extend(writes);
        }
    }

    /// How long to wait at most for the writes under this key, or `None` if none is pending. Writes that
    /// `is_observed` finds in the caches, and those whose time is over, are dropped.
    pub fn pending<Q>(&self, key: &Q, is_observed: impl Fn(&W) -> bool, now: Instant) -> Option<Duration>
    where
        Key: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let mut all = self.lock();
        let expected = all.get_mut(key)?;
        expected.retain(|expected| now < expected.deadline && !is_observed(&expected.write));
        let latest = expected.iter().map(|expected| expected.deadline).max();
        if latest.is_none() {
            all.remove(key);
        }
        latest.map(|deadline| deadline.duration_since(now))
    }

    /// Drops the writes under this key that `is_void` selects: their effect will not show, as with an object that was
    /// deleted right after it was written.
    pub fn withdraw<Q>(&self, key: &Q, is_void: impl Fn(&W) -> bool)
    where
        Key: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let mut all = self.lock();
        if let Some(expected) = all.get_mut(key) {
            expected.retain(|expected| !is_void(&expected.write));
            if expected.is_empty() {
                all.remove(key);
            }
        }
    }

    /// Drops everything under this key. Call it when the object is deleted.
    pub fn forget<Q>(&self, key: &Q)
    where
        Key: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.lock().remove(key);
    }

    /// The number of keys that have pending writes.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no key has pending writes.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Vec<Expected<W>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn expectations() -> (Expectations<String, u64>, Instant) {
        (Expectations::default(), Instant::now())
    }

    #[test]
    fn a_write_is_pending_until_it_is_observed() {
        let (expectations, now) = expectations();
        assert_eq!(expectations.pending("a", |_| false, now), None, "nothing was written");
        expectations.add("a", [3, 4], now);
        assert_eq!(expectations.pending("b", |_| false, now), None, "keys are independent");
        assert_eq!(expectations.pending("a", |write| *write <= 2, now), Some(EXPECTATION_TIMEOUT));
        assert_eq!(expectations.pending("a", |write| *write <= 3, now + SECOND), Some(4 * SECOND));
        assert_eq!(expectations.pending("a", |write| *write == 4, now + SECOND), None, "3 was observed before");
        assert!(expectations.is_empty());
    }

    #[test]
    fn a_write_is_waited_for_no_longer_than_its_time() {
        let (expectations, now) = expectations();
        expectations.add("a", [1], now);
        expectations.add("a", [2], now + SECOND);
        assert_eq!(expectations.pending("a", |_| false, now + 2 * SECOND), Some(4 * SECOND));
        assert_eq!(expectations.pending("a", |_| false, now + EXPECTATION_TIMEOUT), Some(SECOND));
        assert_eq!(expectations.pending("a", |write| *write == 2, now + EXPECTATION_TIMEOUT), None);
        assert_eq!(expectations.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_is_the_runtimes() {
        let expectations = Expectations::<String, u64>::default();
        expectations.add("a", [1], Instant::now());
        let left = expectations.pending("a", |_| false, Instant::now()).expect("pending");
        tokio::time::sleep(left).await;
        assert_eq!(expectations.pending("a", |_| false, Instant::now()), None);
    }

    #[test]
    fn what_is_void_or_gone_is_not_waited_for() {
        let (expectations, now) = expectations();
        expectations.add("a", [1, 2], now);
        expectations.withdraw("a", |write| *write == 2);
        assert!(expectations.pending("a", |write| *write == 2, now).is_some(), "1 is still pending");
        expectations.withdraw("a", |write| *write == 1);
        assert!(expectations.is_empty());
        expectations.add("a", [1], now);
        expectations.add("b", [1], now);
        expectations.forget("a");
        assert_eq!(expectations.len(), 1);
        expectations.add("c", [], now);
        assert_eq!(expectations.len(), 1, "no writes, nothing to wait for");
    }
}
