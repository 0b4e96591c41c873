//! Delays between tries: exponential, with a maximum and jitter.

use std::time::Duration;

use crate::random::random_unit;

/// First delay of a reconcile that met a conflict: the caches will soon show what is true now.
pub(crate) const CONFLICT_MIN: Duration = Duration::from_millis(50);
/// First delay of a reconcile that failed and may succeed the next time.
pub(crate) const TRANSIENT_MIN: Duration = Duration::from_millis(500);
/// Longest delay of both.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Delay of a reconcile that fails until something changes.
pub(crate) const TERMINAL_RETRY: Duration = Duration::from_secs(300);

/// Exponential back-off of one loop that tries again after a failure.
///
/// The first delay is `min`; each failure doubles it, up to `max`. Jitter moves a delay by up to a quarter either way,
/// never above `max`, so that loops that failed together do not try again together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// A back-off without failures so far.
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    /// Counts a failure and returns the delay before the next try.
    pub fn next_delay(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        delay(self.min, self.max, self.failures, random_unit())
    }

    /// Starts again at the shortest delay.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the start or the last reset.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// The delay after this many failures in a row (the first is 1); `jitter` is a random number from 0 to 1.
pub(crate) fn delay(min: Duration, max: Duration, failures: u32, jitter: f64) -> Duration {
    let doubled = min.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    with_jitter(doubled.min(max), jitter).min(max)
}

/// The delay, moved by up to a quarter either way; `jitter` is a random number from 0 to 1.
pub(crate) fn with_jitter(delay: Duration, jitter: f64) -> Duration {
    delay.mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0))
}

/// The period, lengthened by up to a fifth; `jitter` is a random number from 0 to 1. For loops that must not run
/// faster than their period, whatever the result of the last try.
pub(crate) fn lengthened(period: Duration, jitter: f64) -> Duration {
    period.mul_f64(1.0 + 0.2 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(500);
    const MAX: Duration = Duration::from_secs(60);

    #[test]
    fn backoff_doubles_to_the_cap_and_never_overflows() {
        let delay_after = |failures| delay(MIN, MAX, failures, 0.5);
        assert_eq!(delay_after(1), Duration::from_millis(500));
        assert_eq!(delay_after(2), Duration::from_secs(1));
        assert_eq!(delay_after(7), Duration::from_secs(32));
        assert_eq!(delay_after(8), MAX);
        assert_eq!(delay_after(u32::MAX), MAX);
        assert!(delay(MIN, MAX, 1, 0.0) < delay(MIN, MAX, 1, 1.0));
    }

    #[test]
    fn a_reset_starts_again_at_the_shortest_delay() {
        let mut backoff = Backoff::new(MIN, MAX);
        for _ in 0..20 {
            backoff.next_delay();
        }
        assert!(backoff.next_delay() >= MAX.mul_f64(0.75) && backoff.next_delay() <= MAX);
        assert_eq!(backoff.failures(), 22);
        backoff.reset();
        assert!(backoff.next_delay() <= MIN.mul_f64(1.25));
        assert_eq!(backoff.failures(), 1);
    }
}
