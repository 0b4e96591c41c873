//! Read your own writes: a request is not reconciled on caches that do not show yet what was written for it. Without this, a stale cache
//! would repeat a write, or an object that was just created would be taken for missing.

use cluster_api::Kind;
use operator_kit::cache;

/// A write whose effect the caches have yet to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The finalizer of the request.
    Finalizer,
    /// The removal of the finalizer of the request.
    FinalizerRemoval,
    /// The status of the request, at this resource version.
    Status(u64),
    /// An object that was created or changed, at this resource version.
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
