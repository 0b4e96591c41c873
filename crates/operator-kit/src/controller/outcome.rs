//! What a reconcile returns, and when the object is reconciled again.
//!
//! Waiting is never an error: a reconcile that cannot go on returns [`Outcome::Progressing`] or [`Outcome::Blocked`].

use std::time::Duration;

use kube::runtime::controller::Action;

use crate::controller::{
    backoff::{BACKOFF_MAX, CONFLICT_MIN, TERMINAL_RETRY, TRANSIENT_MIN, delay, with_jitter},
    conflicts::LASTING_CONFLICT,
    error::Error,
};

/// How a reconcile ended without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The object is as desired; the next change triggers the next reconcile.
    Done,
    /// Work goes on elsewhere. A change triggers the next reconcile, or the timer `recheck` (a deadline, not a poll).
    Progressing {
        /// Reconcile again after this time even if nothing changes; `None` waits for a change.
        recheck: Option<Duration>,
    },
    /// Nothing can be done until something else changes that is watched.
    Blocked {
        /// What is missing, for people.
        reason: String,
    },
}

impl Outcome {
    /// Progressing, until the next change.
    pub fn progressing() -> Self {
        Self::Progressing { recheck: None }
    }

    /// Progressing, reconciled again after `recheck` at the latest.
    pub fn progressing_for(recheck: Duration) -> Self {
        Self::Progressing { recheck: Some(recheck) }
    }

    /// Blocked for the reason given.
    pub fn blocked(reason: impl Into<String>) -> Self {
        Self::Blocked { reason: reason.into() }
    }
}

/// What follows from the end of a reconcile.
#[derive(Clone, Debug, PartialEq)]
pub struct Disposition {
    /// When the object is reconciled again.
    pub action: Action,
    /// Value of the metrics label `result`.
    pub result: &'static str,
    /// Whether a Warning event is due: once for terminal errors, once for transient ones and once for conflicts since the last success, not
    /// once per failure.
    pub warn: bool,
}

/// So many transient failures are reported as an event; fewer are usual in a network.
const WARN_AFTER: u32 = 5;

/// Decides what follows from the result of a reconcile.
///
/// `failures` counts the failures of this object since its last success, from 1, for each class separately (it is
/// ignored after a success). `jitter` is a random number from 0 to 1; it moves a delay by up to a quarter either way, so
/// that objects that failed together are not tried again together.
///
/// Conflicts start at 50 ms and transient errors at 0.5 s, both double up to 60 s; terminal errors wait 5 min. From the
/// [`LASTING_CONFLICT`]th on, a conflict counts as a transient error; its delay is as long as that of one by then.
pub fn disposition(result: &Result<Outcome, Error>, failures: u32, jitter: f64) -> Disposition {
    match result {
        Ok(Outcome::Done) => Disposition { action: Action::await_change(), result: "done", warn: false },
        Ok(Outcome::Progressing { recheck }) => Disposition {
            action: recheck.map_or_else(Action::await_change, Action::requeue),
            result: "progressing",
            warn: false,
        },
        Ok(Outcome::Blocked { .. }) => Disposition { action: Action::await_change(), result: "blocked", warn: false },
        Err(Error::Conflict(_)) => Disposition {
            action: Action::requeue(delay(CONFLICT_MIN, BACKOFF_MAX, failures, jitter)),
            result: if failures < LASTING_CONFLICT { "conflict" } else { "transient" },
            warn: failures == LASTING_CONFLICT,
        },
        Err(Error::Transient(_)) => Disposition {
            action: Action::requeue(delay(TRANSIENT_MIN, BACKOFF_MAX, failures, jitter)),
            result: "transient",
            warn: failures == WARN_AFTER,
        },
        Err(Error::Terminal(_)) => Disposition {
            action: Action::requeue(with_jitter(TERMINAL_RETRY, jitter)),
            result: "terminal",
            warn: failures <= 1,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_no_error_and_polls_nothing() {
        let waits = [Ok(Outcome::Done), Ok(Outcome::progressing()), Ok(Outcome::blocked("host"))];
        for result in waits {
            let disposition = disposition(&result, 1, 0.5);
            assert_eq!(disposition.action, Action::await_change());
            assert!(!disposition.warn);
        }
        let timed = disposition(&Ok(Outcome::progressing_for(Duration::from_secs(7))), 1, 0.5);
        assert_eq!(timed.action, Action::requeue(Duration::from_secs(7)));
    }

    #[test]
    fn conflicts_come_back_at_once_and_a_lasting_one_slows_down() {
        let requeue = |failures| disposition(&Err(Error::conflict("x")), failures, 0.5).action;
        assert_eq!(requeue(1), Action::requeue(Duration::from_millis(50)));
        assert_eq!(requeue(3), Action::requeue(Duration::from_millis(200)));
        assert_eq!(requeue(30), Action::requeue(BACKOFF_MAX));
        let lasting = disposition(&Err(Error::conflict("x")), LASTING_CONFLICT, 0.5);
        assert_eq!((lasting.result, lasting.action), ("transient", Action::requeue(Duration::from_millis(25_600))));
        assert_eq!(disposition(&Err(Error::conflict("x")), LASTING_CONFLICT - 1, 0.5).result, "conflict");
    }

    #[test]
    fn a_row_of_failures_warns_once() {
        let warnings = |error: fn() -> Error| (1..100).filter(|n| disposition(&Err(error()), *n, 0.5).warn).count();
        assert_eq!(warnings(|| Error::terminal("x")), 1);
        assert_eq!(warnings(|| Error::transient("x")), 1);
        assert_eq!(warnings(|| Error::conflict("x")), 1, "a conflict that lasts");
    }
}
