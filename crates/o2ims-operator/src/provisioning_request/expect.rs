//! Read your own writes: a request is not reconciled on caches that do not show yet what was written for it. Without
//! this, one stale look would repeat a write, or take an object that was just made for missing.

use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use o2ims_types::ProvisioningRequest;
use operator_kit::cache;
use tokio::time::Instant;

use super::observe::{Observed, version_of};
use super::plan::has_finalizer;
use crate::capi::contract::Kind;
use crate::watches::Watches;

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
pub type Expectations = cache::Expectations<String, Write>;

/// `None` when the caches show every write for the request, or have had their time; otherwise how long to wait for them
/// at most.
pub fn pending(
    expectations: &Expectations,
    request: &ProvisioningRequest,
    observed: &Observed,
    watches: &Watches,
    now: Instant,
) -> Option<Duration> {
    let uid = request.metadata.uid.as_ref()?;
    expectations.pending(uid, |write| is_observed(write, request, observed, watches), now)
}

fn is_observed(write: &Write, request: &ProvisioningRequest, observed: &Observed, watches: &Watches) -> bool {
    match write {
        Write::Finalizer => has_finalizer(request),
        Write::Status(version) => version_of(request) >= *version,
        Write::Object { kind, name, version } => {
            observed.made.get(&(*kind, name.clone())).is_some_and(|made| made.version >= *version)
        }
        Write::Host { name, version } => {
            let host = ObjectRef::new(name).within(&request.namespace().unwrap_or_default());
            // A host that is gone will not show anything.
            watches.hosts.get(&host).is_none_or(|host| version_of(host.as_ref()) >= *version)
        }
        Write::Deletion { kind, name, uid } => {
            observed.made.get(&(*kind, name.clone())).is_none_or(|made| made.deleting || made.uid != *uid)
        }
    }
}
