//! The table of locks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kube::runtime::reflector::ObjectRef;
use o2ims_types::ProvisioningRequest;
use tokio::time::Instant;

use super::demand::{Demand, LockKey};

/// The locks, and who waits for whom.
#[derive(Default)]
pub struct Table {
    /// By UID of the request.
    pub locks: HashMap<String, Lock>,
    /// UIDs of requests, by what they have locked.
    pub by_key: BTreeMap<LockKey, BTreeSet<String>>,
    /// Who waits for a request, by its UID.
    pub waiting: HashMap<String, HashMap<String, ObjectRef<ProvisioningRequest>>>,
    /// Whom a request waits for.
    pub waits_for: HashMap<String, String>,
    /// UIDs of requests that are gone and whose locks are to end.
    pub gone: BTreeSet<String>,
}

/// A lock of one request.
pub struct Lock {
    /// What is locked.
    pub demand: Demand,
    /// Namespace of the request.
    pub namespace: String,
    /// `namespace/name` of the request.
    pub request: String,
    /// The request has the finalizer: it may have written more than that.
    pub begun: bool,
    /// The request is being reconciled.
    pub running: bool,
    /// When the lock of a request that is gone ends.
    pub until: Option<Instant>,
}

impl Table {
    /// Adds a lock.
    pub fn insert(&mut self, uid: &str, lock: Lock) {
        self.remove(uid);
        for key in lock.demand.keys() {
            self.by_key.entry(key).or_default().insert(uid.to_owned());
        }
        self.locks.insert(uid.to_owned(), lock);
    }

    /// Removes the lock of a request.
    pub fn remove(&mut self, uid: &str) {
        self.gone.remove(uid);
        let Some(lock) = self.locks.remove(uid) else { return };
        for key in lock.demand.keys() {
            if let Some(all) = self.by_key.get_mut(&key) {
                all.remove(uid);
                if all.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
    }

    /// The lock of another request on something of this.
    pub fn other(&self, uid: &str, demand: &Demand) -> Option<(&String, &Lock)> {
        let near = demand.keys().into_iter().filter_map(|key| self.by_key.get(&key)).flatten();
        near.filter(|other| *other != uid)
            .filter_map(|other| self.locks.get_key_value(other))
            .find(|(_, lock)| lock.demand.overlaps(demand))
    }

    /// Notes that a request waits for another one.
    pub fn wait(&mut self, uid: &str, request: ObjectRef<ProvisioningRequest>, other: String) {
        self.waiting.entry(other.clone()).or_default().insert(uid.to_owned(), request);
        self.waits_for.insert(uid.to_owned(), other);
    }

    /// The request does not wait any more.
    pub fn stop_waiting(&mut self, uid: &str) {
        let Some(other) = self.waits_for.remove(uid) else { return };
        if let Some(all) = self.waiting.get_mut(&other) {
            all.remove(uid);
            if all.is_empty() {
                self.waiting.remove(&other);
            }
        }
    }

    /// The requests that waited for this one.
    pub fn wake(&mut self, uid: &str) -> Vec<ObjectRef<ProvisioningRequest>> {
        let all = self.waiting.remove(uid).unwrap_or_default();
        for waiting in all.keys() {
            self.waits_for.remove(waiting);
        }
        all.into_values().collect()
    }

    /// Removes the locks whose time is over; returns the requests that waited for them.
    pub fn expire(&mut self, now: Instant) -> Vec<ObjectRef<ProvisioningRequest>> {
        let is_over = |uid: &&String| self.locks[*uid].until.is_some_and(|until| until <= now);
        let over: Vec<_> = self.gone.iter().filter(is_over).cloned().collect();
        let mut woken = Vec::new();
        for uid in over {
            self.remove(&uid);
            woken.extend(self.wake(&uid));
        }
        woken
    }
}
