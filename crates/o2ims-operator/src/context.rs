//! What a reconcile works with.

use kube::Client;
use operator_kit::controller::Conflicts;
use operator_kit::events::Events;
use operator_kit::traces::Traces;
use operator_kit::write::revisions::Revisions;
use tokio::time::Instant;

use crate::caches::Caches;
use crate::expectations::Expectations;
use crate::metrics::Metrics;
use crate::provisioner::registry::Provisioners;

/// What a reconcile works with.
pub struct Context {
    /// To write with.
    pub client: Client,
    /// To read from.
    pub caches: Caches,
    /// The provisioners, by `clusterProvisioner`.
    pub provisioners: Provisioners,
    /// What the caches have yet to show.
    pub expectations: Expectations,
    /// Conflicts in a row, by UID of the request.
    pub conflicts: Conflicts,
    /// To tell users.
    pub events: Events,
    /// Specs of requests to go back to.
    pub revisions: Revisions,
    /// To tell how long requests take.
    pub metrics: Metrics,
    /// To tell when what took place.
    pub traces: Traces,
}

impl Context {
    /// The request with this UID is gone: nothing is kept of it.
    pub fn forget(&self, uid: &str) {
        self.expectations.forget(uid);
        self.conflicts.forget(uid);
        self.revisions.forget(uid);
        self.provisioners.forget(uid, Instant::now());
    }
}
