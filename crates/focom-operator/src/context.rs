//! What every reconcile works with.

use kube::Client;
use operator_kit::cache::SyncState;
use operator_kit::controller::Conflicts;
use operator_kit::events::Events;
use operator_kit::traces::Traces;
use operator_kit::write::revisions::Revisions;
use tokio::sync::watch::Receiver;

use crate::caches::Caches;
use crate::focom_provisioning_request::expectations::Expectations;
use crate::o_cloud::registry::ConnectionRegistry;

/// What every reconcile works with.
pub struct Context {
    /// The SMO's own API, to write with.
    pub client: Client,
    /// The SMO's objects, to read from.
    pub caches: Caches,
    /// Whether the cache of the requests is complete.
    pub requests_state: Receiver<SyncState>,
    /// The connections to the O-Clouds.
    pub connections: ConnectionRegistry,
    /// Own writes that the caches do not show yet.
    pub expectations: Expectations,
    /// Conflicts in a row, by UID of the request.
    pub conflicts: Conflicts,
    /// Events for users.
    pub events: Events,
    /// Specs of requests to go back to.
    pub revisions: Revisions,
    /// To tell when what took place.
    pub traces: Traces,
    /// The oCloudId that means the SMO's own cluster.
    pub local_id: String,
}
