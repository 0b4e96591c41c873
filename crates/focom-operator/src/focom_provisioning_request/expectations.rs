//! What the caches have yet to show of our own writes. Without it a reconcile that comes too early would write again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::Resource;
use o2ims_types::FocomProvisioningRequest;
use operator_kit::apply::content_hash;
use tokio::time::Instant;

use crate::o_cloud::remote_request::RemoteRequest;

/// How long a cache may lag behind before it is believed all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// API servers give up a request after 60 s.
const LATE: Duration = Duration::from_secs(60);

/// The newest writes, by the UID of the request.
#[derive(Default)]
pub struct Expectations(Mutex<HashMap<String, Expected>>);

#[derive(Default)]
struct Expected {
    request: Option<Version>,
    remote: Option<Version>,
    /// What the O-Cloud made of what was sent.
    stored: Option<String>,
    /// Until when a write that was not answered may still be carried out.
    unanswered: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Version {
    number: u64,
    until: Instant,
}

impl Version {
    fn of(object: &impl Resource) -> Self {
        Self { number: version(object), until: Instant::now() + PATIENCE }
    }

    fn is_awaited(self, cached: Option<u64>, now: Instant) -> bool {
        now < self.until && cached.is_none_or(|cached| cached < self.number)
    }
}

/// The resourceVersion as a number, as API servers count them.
fn version(object: &impl Resource) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

impl Expectations {
    /// How long to wait until the caches have what was written; `None` when they do.
    pub fn missing(
        &self,
        uid: &str,
        request: &FocomProvisioningRequest,
        remote: Option<&RemoteRequest>,
    ) -> Option<Duration> {
        let now = Instant::now();
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = all.get(uid)?;
        let own = expected.request.filter(|own| own.is_awaited(Some(version(request)), now));
        let there = expected.remote.filter(|there| there.is_awaited(remote.map(version), now));
        own.into_iter().chain(there).map(|version| version.until.duration_since(now)).max()
    }

    /// The request was written.
    pub fn wrote_request(&self, uid: &str, written: &FocomProvisioningRequest) {
        self.change(uid, |expected| expected.request = Some(Version::of(written)));
    }

    /// The ProvisioningRequest was written.
    pub fn wrote_remote(&self, uid: &str, written: &RemoteRequest) {
        self.change(uid, |expected| {
            expected.remote = Some(Version::of(written));
            expected.unanswered = None;
            expected.stored = Some(content_hash(&written.spec));
        });
    }

    /// The ProvisioningRequest was deleted; it may not come back into the cache, so nothing of it is awaited.
    pub fn deleted_remote(&self, uid: &str) {
        self.change(uid, |expected| (expected.remote, expected.unanswered) = (None, None));
    }

    /// A write was not answered: it may be carried out late.
    pub fn unanswered(&self, uid: &str) {
        self.change(uid, |expected| expected.unanswered = Some(Instant::now() + LATE));
    }

    /// Whether a write that was not answered may still be carried out.
    pub fn may_come_late(&self, uid: &str) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(uid).and_then(|expected| expected.unanswered).is_some_and(|until| Instant::now() < until)
    }

    /// Whether this is what the O-Cloud made of the last write.
    pub fn is_stored(&self, uid: &str, remote: &RemoteRequest) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(uid)
            .and_then(|expected| expected.stored.as_ref())
            .is_some_and(|stored| *stored == content_hash(&remote.spec))
    }

    /// The request is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    fn change(&self, uid: &str, change: impl FnOnce(&mut Expected)) {
        change(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(uid.to_owned()).or_default());
    }
}
