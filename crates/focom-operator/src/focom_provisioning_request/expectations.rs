//! What this process remembers of its own writes: those that the caches do not show yet, and the result of the last
//! write to the O-Cloud.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Resource;
use o2ims_types::FocomProvisioningRequest;
use operator_kit::cache;
use operator_kit::write::apply::content_hash;
use tokio::time::Instant;

use crate::o_cloud::remote_request::RemoteRequest;

/// API servers give up a request after 60 s.
const LATE: Duration = Duration::from_secs(60);

/// A write whose effect the caches have yet to show, with the resource version that it led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    /// Of the request.
    Request(u64),
    /// Of the ProvisioningRequest.
    Remote(u64),
}

/// The newest writes, by the UID of the request.
#[derive(Default)]
pub struct Expectations {
    writes: cache::Expectations<String, Write>,
    remote: Mutex<HashMap<String, RemoteWrite>>,
}

/// The last write to the O-Cloud.
#[derive(Default)]
struct RemoteWrite {
    /// Hash of the spec, as the O-Cloud stored it.
    stored: Option<String>,
    /// Until when a write that was not answered may still be carried out.
    unanswered: Option<Instant>,
    /// Whether the O-Cloud has refused it, so that nothing was written.
    refused: bool,
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
        let is_observed = |write: &Write| match write {
            Write::Request(written) => version(request) >= *written,
            Write::Remote(written) => remote.is_some_and(|remote| version(remote) >= *written),
        };
        self.writes.pending(uid, is_observed, Instant::now())
    }

    /// The request was written.
    pub fn wrote_request(&self, uid: &str, written: &FocomProvisioningRequest) {
        self.writes.add(uid, [Write::Request(version(written))], Instant::now());
    }

    /// The ProvisioningRequest was written.
    pub fn wrote_remote(&self, uid: &str, written: &RemoteRequest) {
        self.writes.withdraw(uid, is_remote);
        self.writes.add(uid, [Write::Remote(version(written))], Instant::now());
        let last = RemoteWrite { stored: Some(content_hash(&written.spec)), unanswered: None, refused: false };
        self.remote().insert(uid.to_owned(), last);
    }

    /// The ProvisioningRequest was deleted; the cache may never show its writes, so none of them is awaited.
    pub fn deleted_remote(&self, uid: &str) {
        self.writes.withdraw(uid, is_remote);
        if let Some(last) = self.remote().get_mut(uid) {
            last.unanswered = None;
        }
    }

    /// A write was not answered: it may be carried out late.
    pub fn unanswered(&self, uid: &str) {
        self.remote().entry(uid.to_owned()).or_default().unanswered = Some(Instant::now() + LATE);
    }

    /// The O-Cloud is asked to make a ProvisioningRequest that of the request.
    pub fn sending(&self, uid: &str) {
        self.remote().entry(uid.to_owned()).or_default().refused = false;
    }

    /// It has refused that.
    pub fn refused(&self, uid: &str) {
        self.remote().entry(uid.to_owned()).or_default().refused = true;
    }

    /// Whether it is certain that the O-Cloud to which the request was sent last has refused it.
    pub fn was_refused(&self, uid: &str) -> bool {
        self.remote().get(uid).is_some_and(|last| last.refused && last.unanswered.is_none())
    }

    /// Whether a write that was not answered may still be carried out.
    pub fn may_come_late(&self, uid: &str) -> bool {
        self.remote().get(uid).and_then(|last| last.unanswered).is_some_and(|until| Instant::now() < until)
    }

    /// Whether the spec of `remote` is what the O-Cloud stored at the last write.
    pub fn is_stored(&self, uid: &str, remote: &RemoteRequest) -> bool {
        let all = self.remote();
        let stored = all.get(uid).and_then(|last| last.stored.as_ref());
        stored.is_some_and(|stored| *stored == content_hash(&remote.spec))
    }

    /// The request was deleted.
    pub fn forget(&self, uid: &str) {
        self.writes.forget(uid);
        self.remote().remove(uid);
    }

    fn remote(&self) -> MutexGuard<'_, HashMap<String, RemoteWrite>> {
        self.remote.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_remote(write: &Write) -> bool {
    matches!(write, Write::Remote(_))
}
