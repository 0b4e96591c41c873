//! Limits how many requests write to one O-Cloud at once, so that a slow O-Cloud keeps few of the operator's workers
//! busy.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use o2ims_types::FocomProvisioningRequest;
use operator_kit::controller::Trigger;

/// How many requests may write to one O-Cloud at once. A write takes some milliseconds, so few of them use a good
/// connection well.
const MAX_IN_FLIGHT: usize = 4;

/// After this time a request that got no permit tries again, if it is not triggered before.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Gives permits to a few requests, and triggers the other ones when permits end.
#[derive(Clone)]
pub struct ConcurrencyLimiter(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    trigger: Trigger<FocomProvisioningRequest>,
}

#[derive(Default)]
struct State {
    in_flight: usize,
    /// In the order of their attempts, each once.
    waiting: VecDeque<ObjectRef<FocomProvisioningRequest>>,
    queued: HashSet<ObjectRef<FocomProvisioningRequest>>,
}

/// Permission to write, which ends when this is dropped.
pub struct Permit(ConcurrencyLimiter);

impl ConcurrencyLimiter {
    /// A limiter that has given no permits. It triggers waiting requests through `trigger`.
    pub fn new(trigger: Trigger<FocomProvisioningRequest>) -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), trigger }))
    }

    /// A permit, or `None`: then the request is triggered when a permit ends. Requests that are triggered may be deleted
    /// or have nothing to write any more, so each of them should also try again after [`RETRY_AFTER`].
    pub fn try_acquire(&self, request: &ObjectRef<FocomProvisioningRequest>) -> Option<Permit> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.in_flight < MAX_IN_FLIGHT {
            state.in_flight += 1;
            return Some(Permit(self.clone()));
        }
        if state.queued.insert(request.clone()) {
            state.waiting.push_back(request.clone());
        }
        None
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.in_flight -= 1;
        // As many are triggered as there are permits, because some of them may not try again.
        for _ in 0..MAX_IN_FLIGHT {
            let Some(next) = state.waiting.pop_front() else { break };
            state.queued.remove(&next);
            self.0.0.trigger.enqueue(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(number: usize) -> ObjectRef<FocomProvisioningRequest> {
        ObjectRef::new(&format!("r-{number}")).within("n")
    }

    #[test]
    fn those_that_come_back_get_in_one_after_the_other() {
        let limiter = ConcurrencyLimiter::new(Trigger::new());
        let mut in_flight: Vec<_> =
            (0..MAX_IN_FLIGHT).filter_map(|number| limiter.try_acquire(&request(number))).collect();
        assert_eq!(in_flight.len(), MAX_IN_FLIGHT);
        for number in MAX_IN_FLIGHT..20 {
            assert!(limiter.try_acquire(&request(number)).is_none() && limiter.try_acquire(&request(number)).is_none());
        }
        assert_eq!(limiter.0.state.lock().expect("lock").waiting.len(), 20 - MAX_IN_FLIGHT, "each waits once");
        in_flight.pop();
        let waiting = limiter.0.state.lock().expect("lock").waiting.len();
        assert_eq!(waiting, 20 - 2 * MAX_IN_FLIGHT, "as many are called as there are places");
        let entered = limiter.try_acquire(&request(4));
        assert!(entered.is_some() && limiter.try_acquire(&request(5)).is_none());
        let state = limiter.0.state.lock().expect("lock");
        assert_eq!(state.waiting.back(), Some(&request(5)), "who was too late waits again");
        assert_eq!(state.queued.len(), state.waiting.len());
    }
}
