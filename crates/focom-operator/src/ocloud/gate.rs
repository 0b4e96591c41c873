//! How many requests to one O-Cloud may be under way at once. One that answers slowly then holds few of the operator's
//! workers, and the other O-Clouds' requests go on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use kube::runtime::reflector::ObjectRef;
use o2ims_types::FocomProvisioningRequest;
use operator_kit::Trigger;

/// Enough to fill a good connection: a write takes some milliseconds.
const PLACES: usize = 4;

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
    waiting: VecDeque<ObjectRef<FocomProvisioningRequest>>,
}

/// A place inside, given back on drop.
pub struct Place(Gate);

impl Gate {
    /// An empty gate that calls through `trigger`.
    pub fn new(trigger: Trigger<FocomProvisioningRequest>) -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), trigger }))
    }

    /// A place, or `None`: then the request is reconciled again when there is one.
    pub fn enter(&self, request: &ObjectRef<FocomProvisioningRequest>) -> Option<Place> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.inside < PLACES {
            state.inside += 1;
            return Some(Place(self.clone()));
        }
        if !state.waiting.contains(request) {
            state.waiting.push_back(request.clone());
        }
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.inside -= 1;
        if let Some(next) = state.waiting.pop_front() {
            self.0.0.trigger.touch(next);
        }
    }
}
