//! How many requests to one O-Cloud may be under way at once. One that answers slowly then holds few of the operator's
//! workers, and the other O-Clouds' requests go on.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use o2ims_types::FocomProvisioningRequest;
use operator_kit::controller::Trigger;

/// Enough to fill a good connection: a write takes some milliseconds.
const PLACES: usize = 4;

/// When a request that has no place looks again, if it is not called before.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Lets a few in; the others are called when there is room.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    trigger: Trigger<FocomProvisioningRequest>,
}

#[derive(Default)]
struct State {
    inside: usize,
    /// In the order in which they came, each once.
    waiting: VecDeque<ObjectRef<FocomProvisioningRequest>>,
    known: HashSet<ObjectRef<FocomProvisioningRequest>>,
}

/// A place inside, given back on drop.
pub struct Place(Gate);

impl Gate {
    /// An empty gate that calls through `trigger`.
    pub fn new(trigger: Trigger<FocomProvisioningRequest>) -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), trigger }))
    }

    /// A place, or `None`: then the request is called when there is one. Who was called may have nothing to do any more, or be
    /// gone, so a request should come back after [`PATIENCE`] all the same.
    pub fn enter(&self, request: &ObjectRef<FocomProvisioningRequest>) -> Option<Place> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.inside < PLACES {
            state.inside += 1;
            return Some(Place(self.clone()));
        }
        if state.known.insert(request.clone()) {
            state.waiting.push_back(request.clone());
        }
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.inside -= 1;
        // As many as can be inside: of those that are called some may not come.
        for _ in 0..PLACES {
            let Some(next) = state.waiting.pop_front() else { break };
            state.known.remove(&next);
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
        let gate = Gate::new(Trigger::new());
        let mut inside: Vec<_> = (0..PLACES).filter_map(|number| gate.enter(&request(number))).collect();
        assert_eq!(inside.len(), PLACES);
        for number in PLACES..20 {
            assert!(gate.enter(&request(number)).is_none() && gate.enter(&request(number)).is_none());
        }
        assert_eq!(gate.0.state.lock().expect("lock").waiting.len(), 20 - PLACES, "each waits once");
        inside.pop();
        let waiting = gate.0.state.lock().expect("lock").waiting.len();
        assert_eq!(waiting, 20 - 2 * PLACES, "as many are called as there are places");
        let entered = gate.enter(&request(4));
        assert!(entered.is_some() && gate.enter(&request(5)).is_none());
        let state = gate.0.state.lock().expect("lock");
        assert_eq!(state.waiting.back(), Some(&request(5)), "who was too late waits again");
        assert_eq!(state.known.len(), state.waiting.len());
    }
}
