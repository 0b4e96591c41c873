//! Read your own writes: a request is not reconciled on caches that do not show yet what was written for it. Without
//! this, one stale look would repeat a write, or take an object that was just made for missing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cluster_api::Kind;
use o2ims_types::ProvisioningRequest;

/// A write whose effect the caches have yet to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The finalizer of the request.
    Finalizer,
    /// The status of the request, at this resource version.
    Status(u64),
    /// An object that was made or changed, at this resource version.
    Object {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its resource version.
        version: u64,
    },
    /// A host that was marked, at this resource version.
    Host {
        /// Its name.
        name: String,
        /// Its resource version.
        version: u64,
    },
    /// An object that was deleted.
    Deletion {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
}

/// Writes by UID of the request, which is not its mark where it was restored from a backup.
#[derive(Debug, Default)]
pub struct Expectations(Mutex<HashMap<String, Pending>>);

#[derive(Debug)]
struct Pending {
    since: Instant,
    writes: Vec<Write>,
}

/// How long the caches are waited for. After that the API server's own preconditions have to do.
const PATIENCE: Duration = Duration::from_secs(5);

impl Expectations {
    /// Remembers writes for the request.
    pub fn add(&self, uid: &str, writes: Vec<Write>, now: Instant) {
        if writes.is_empty() {
            return;
        }
        let mut all = self.lock();
        let pending = all.entry(uid.to_owned()).or_insert_with(|| Pending { since: now, writes: Vec::new() });
        pending.writes.extend(writes);
    }

    /// `None` when the caches show every write for the request, or have had their time; otherwise how long to wait for
    /// them at most.
    pub fn missing(
        &self,
        request: &ProvisioningRequest,
        is_shown: impl Fn(&Write) -> bool,
        now: Instant,
    ) -> Option<Duration> {
        let uid = request.metadata.uid.as_ref()?;
        let mut all = self.lock();
        let pending = all.get_mut(uid)?;
        pending.writes.retain(|write| !is_shown(write));
        let left = PATIENCE.saturating_sub(now.saturating_duration_since(pending.since));
        if pending.writes.is_empty() || left.is_zero() {
            all.remove(uid);
            return None;
        }
        Some(left)
    }

    /// For how many requests something is remembered.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The request is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
