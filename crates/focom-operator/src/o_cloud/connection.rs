//! The connection to one O-Cloud: a client, and a watch of the ProvisioningRequests that came from this SMO.
//!
//! The watch is restarted with a back-off of its own. Nothing is written to an O-Cloud unless its watch is up.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use kube::core::ApiResource;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use o2ims_types::names::{self, focom};
use o2ims_types::{FocomProvisioningRequest, OCloud};
use operator_kit::cache::{CachedWatch, SizeLimit, SyncState, WatchFailure, api_status};
use operator_kit::controller::{Backoff, Trigger};
use operator_kit::metrics::Metrics;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::ConnectionError;
use super::limiter::ConcurrencyLimiter;
use super::orphans;
use super::remote_request::{API_VERSION, KIND, PLURAL, RemoteRequest, VERSION};
use crate::caches::{OClouds, Requests};

/// How long an O-Cloud may take to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to list the ProvisioningRequests of this SMO.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// If the watch was synced for this long, the back-off is reset, and the next attempt starts without delay.
const STABLE_AFTER: Duration = Duration::from_secs(30);
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Bounds how late it is noticed that an O-Cloud answers again.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Timeout of the watch at the O-Cloud, in seconds. It bounds how late a connection that died silently is noticed.
const WATCH_SECONDS: u32 = 60;

/// What the ProvisioningRequests of one O-Cloud may take of the operator's memory. One of a cluster of ten hosts takes about 6 KiB, so
/// this is for more than five thousand; and it is an eighth of the memory that the operator may have. What an answer takes while it is decoded
/// is bounded by the client's longest answer alone.
const RECORDS_MAX: SizeLimit<RemoteRequest> = SizeLimit { bytes: 32 * 1024 * 1024, size: RemoteRequest::size };

/// Longest answer that is quoted, in characters.
const QUOTE_MAX: usize = 500;
/// Longest version that is shown, in characters.
const VERSION_MAX: usize = 64;

/// State of a connection.
#[derive(Clone)]
pub enum ConnectionState {
    /// The first attempt is not decided yet; or a watch that worked has ended, and the next attempt is not decided.
    /// Nothing is written.
    Connecting,
    /// The O-Cloud answers.
    Ready(ReadyOCloud),
    /// The O-Cloud cannot be used now.
    Failed(ConnectionError),
}

/// An O-Cloud that answers.
#[derive(Clone)]
pub struct ReadyOCloud {
    /// Value of the label [`focom::SMO_LABEL`], which identifies this SMO.
    pub smo: String,
    /// The kind ProvisioningRequest, as it is served there.
    pub kind: ApiResource,
    /// Whether ProvisioningRequest is namespaced there; Nephio's is cluster-scoped.
    pub namespaced: bool,
    /// Version of its API server.
    pub server_version: String,
    /// Cache of the ProvisioningRequests that came from this SMO.
    pub requests: Store<RemoteRequest>,
}

impl ReadyOCloud {
    /// `namespace`, or `None` where ProvisioningRequest is cluster-scoped.
    pub fn namespace<'a>(&self, namespace: &'a str) -> Option<&'a str> {
        self.namespaced.then_some(namespace)
    }

    /// The ProvisioningRequest of this name, if it came from this SMO.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<RemoteRequest>> {
        let reference = ObjectRef::new_with(name, self.kind.clone());
        self.requests.get(&match self.namespace(namespace) {
            Some(namespace) => reference.within(namespace),
            None => reference,
        })
    }
}

/// Called when the state of a connection, or of a Secret, has changed.
pub type Changed = Arc<dyn Fn() + Send + Sync>;

/// What all connections have in common.
#[derive(Clone)]
pub struct ConnectionSettings {
    /// Value of the label [`focom::SMO_LABEL`], which identifies this SMO.
    pub smo: String,
    /// Metrics.
    pub metrics: Metrics,
    /// Triggers the FocomProvisioningRequest that a changed ProvisioningRequest was created for.
    pub trigger: Trigger<FocomProvisioningRequest>,
    /// Triggers an OCloud.
    pub o_clouds_trigger: Trigger<OCloud>,
    /// Cache of the SMO's requests.
    pub requests: Requests,
    /// Cache of the OClouds.
    pub o_clouds: OClouds,
}

/// Identifies an O-Cloud, and the secret to redact.
pub struct Identity {
    /// `namespace/name` of the OCloud, for logs.
    pub name: String,
    /// Namespace and name of the OCloud; `None` for the SMO's own cluster.
    pub o_cloud: Option<(String, String)>,
    /// Identifies the O-Cloud; see
    /// [`ClusterCredentials::fingerprint`](super::kubeconfig::ClusterCredentials::fingerprint).
    pub fingerprint: String,
    /// Bearer token of the kubeconfig; [`Connection::quote`] removes it from answers.
    pub token: Option<String>,
}

/// A connection to one O-Cloud. Its task ends when this is dropped.
pub struct Connection {
    client: Client,
    identity: Identity,
    shared: Arc<Shared>,
    limiter: ConcurrencyLimiter,
    _stop: DropGuard,
}

/// What a connection shares with its task.
struct Shared {
    state: Mutex<ConnectionState>,
    probe_requested: Notify,
    changed: Changed,
}

impl Connection {
    /// A connection, and the task that keeps it up, which has to be run.
    pub fn new(
        client: Client,
        identity: Identity,
        settings: &ConnectionSettings,
        changed: Changed,
    ) -> (Self, impl Future<Output = anyhow::Result<()>> + Send + use<>) {
        let state = Mutex::new(ConnectionState::Connecting);
        let shared = Arc::new(Shared { state, probe_requested: Notify::new(), changed });
        let stop = CancellationToken::new();
        let task = ConnectionTask {
            name: identity.name.clone(),
            o_cloud: identity.o_cloud.clone(),
            client: client.clone(),
            settings: settings.clone(),
            shared: shared.clone(),
        };
        let stopped = stop.clone();
        let run = async move {
            stopped.run_until_cancelled(task.run_catching_panics()).await;
            Ok(())
        };
        let limiter = ConcurrencyLimiter::new(settings.trigger.clone());
        (Self { client, identity, shared, limiter, _stop: stop.drop_guard() }, run)
    }

    /// Identifies the O-Cloud.
    pub fn fingerprint(&self) -> &str {
        &self.identity.fingerprint
    }

    /// Quotes an answer of the O-Cloud: shortened, and with the token removed.
    pub fn quote(&self, answer: &str) -> String {
        let quote = match self.identity.token.as_deref() {
            Some(token) if !token.is_empty() => answer.replace(token, "…"),
            _ => answer.to_owned(),
        };
        quote.chars().take(QUOTE_MAX).collect()
    }

    /// The client to write with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The state as it is now.
    pub fn state(&self) -> ConnectionState {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Limits how many requests write at once.
    pub fn limiter(&self) -> &ConcurrencyLimiter {
        &self.limiter
    }

    /// Requests a probe of the O-Cloud, because a call was not answered.
    pub fn request_probe(&self) {
        self.shared.probe_requested.notify_one();
    }
}

struct ConnectionTask {
    /// See [`Identity`].
    name: String,
    o_cloud: Option<(String, String)>,
    client: Client,
    settings: ConnectionSettings,
    shared: Arc<Shared>,
}

impl ConnectionTask {
    /// Runs the connection. A panic, for example while an answer is decoded, is caught and counts as a failed attempt,
    /// so that one O-Cloud cannot stop the operator.
    async fn run_catching_panics(self) {
        loop {
            // After a panic nothing of the attempt is used but the state, which is replaced.
            if AssertUnwindSafe(self.run()).catch_unwind().await.is_err() {
                self.shared.set(ConnectionState::Failed(ConnectionError::internal()));
                sleep(RETRY_MAX).await;
            }
        }
    }

    async fn run(&self) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        loop {
            let mut synced_at = None;
            let error = match timeout(PROBE_TIMEOUT, self.probe()).await {
                Ok(Ok(found)) => self.watch(found, &mut synced_at).await.err(),
                Ok(Err(error)) => Some(error),
                Err(_) => Some(ConnectionError::timeout()),
            };
            let was_stable = synced_at.is_some_and(|at: Instant| at.elapsed() > STABLE_AFTER);
            match error {
                Some(error) => {
                    let (failures, reason) = (backoff.failures(), error.reason);
                    tracing::debug!(failures, reason, "OCloud {} cannot be used: {}", self.name, error.message);
                    self.shared.set(ConnectionState::Failed(error));
                }
                // The watch did work. The next probe tells whether the O-Cloud still answers.
                None => self.shared.set_connecting(),
            }
            if was_stable {
                backoff.reset();
            } else {
                sleep(backoff.next_delay()).await;
            }
        }
    }

    /// Reads the version, and the scope of ProvisioningRequests.
    async fn probe(&self) -> Result<ProbeResult, ConnectionError> {
        let version = self.client.apiserver_version().await.map_err(|error| ConnectionError::from_kube(&error))?;
        let resources = self.client.list_api_group_resources(API_VERSION).await;
        let resources = resources.map_err(|error| ConnectionError::from_kube(&error))?.resources;
        let kind =
            resources.iter().find(|resource| resource.name == PLURAL).ok_or_else(ConnectionError::api_missing)?;
        Ok(ProbeResult {
            namespaced: kind.namespaced,
            server_version: version.git_version.chars().take(VERSION_MAX).collect(),
        })
    }

    /// Watches until the watch fails, the first list takes too long, or a probe is requested. `Ok` if the O-Cloud may
    /// still answer: the caller probes it again. `synced_at` is set when the first list is complete.
    async fn watch(&self, found: ProbeResult, synced_at: &mut Option<Instant>) -> Result<(), ConnectionError> {
        let kind = ApiResource {
            group: names::GROUP.to_owned(),
            version: VERSION.to_owned(),
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            plural: PLURAL.to_owned(),
        };
        let ours = watcher::Config::default()
            .labels(&format!("{}={}", focom::SMO_LABEL, self.settings.smo))
            .timeout(WATCH_SECONDS);
        let api = Api::all_with(self.client.clone(), &kind);
        let reflection =
            CachedWatch::new_with("remote provisioningrequests", api, ours, &self.settings.metrics, kind.clone())
                .ignore_unchanged()
                .triggers(&self.settings.trigger, source)
                .triggers(&self.settings.o_clouds_trigger, self.o_cloud_of_orphan());
        let ready = ReadyOCloud {
            smo: self.settings.smo.clone(),
            kind,
            namespaced: found.namespaced,
            server_version: found.server_version,
            requests: reflection.store(),
        };
        let state = reflection.state();
        let is_synced = |state: &SyncState| *state == SyncState::Synced;
        let (mut listed, mut synced) = (state.clone(), state.clone());
        let shared = self.shared.clone();
        let reflection = reflection
            .on_relist(move || shared.set(ConnectionState::Ready(ready.clone())))
            .on_delete(self.trigger_requests_of_name());
        let list_takes_too_long = async {
            if timeout(LIST_TIMEOUT, listed.wait_for(is_synced)).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        let probe_requested = async {
            if synced.wait_for(is_synced).await.is_ok() {
                *synced_at = Some(Instant::now());
            }
            // A probe that was requested before the list was complete is discarded: the list has shown that the O-Cloud
            // answers.
            let _ = timeout(Duration::ZERO, self.shared.probe_requested.notified()).await;
            self.shared.probe_requested.notified().await;
        };
        tokio::select! {
            failure = reflection.until_failure(RECORDS_MAX) => match failure {
                // List can succeed where watch is forbidden.
                WatchFailure::Api(error) if !is_synced(&state.borrow()) || is_refused(&error) => {
                    Err(ConnectionError::from_watch(&error))
                }
                WatchFailure::Api(_) => Ok(()),
                WatchFailure::TooLarge(objects) => {
                    Err(ConnectionError::too_large(objects, RECORDS_MAX.bytes, &self.settings.smo))
                }
            },
            () = list_takes_too_long => Err(ConnectionError::timeout()),
            () = probe_requested => Ok(()),
        }
    }

    /// The OCloud of an orphan, whose status names it; a change maps what was and what is. What has its request triggers none.
    fn o_cloud_of_orphan(&self) -> impl Fn(&RemoteRequest) -> Vec<ObjectRef<OCloud>> + Send + Sync + 'static {
        let id = self.o_cloud.clone();
        let (requests, o_clouds) = (self.settings.requests.clone(), self.settings.o_clouds.clone());
        move |remote| {
            let o_cloud = id.as_ref().and_then(|(namespace, name)| o_clouds.get(namespace, name));
            let concerned = o_cloud.filter(|o_cloud| orphans::is_orphan(remote, o_cloud, &requests));
            concerned.iter().map(|o_cloud| ObjectRef::from_obj(o_cloud.as_ref())).collect()
        }
    }

    /// Triggers the FocomProvisioningRequests that could use the name of a deleted ProvisioningRequest: one of them may
    /// wait for that name.
    fn trigger_requests_of_name(&self) -> impl Fn(&RemoteRequest) + Send + Sync + 'static {
        let (requests, trigger) = (self.settings.requests.clone(), self.settings.trigger.clone());
        move |deleted| {
            let (name, namespace) = (deleted.name_any(), deleted.namespace());
            for request in requests.for_remote_name(&name) {
                if namespace.as_deref().is_none_or(|namespace| namespace == request.o_cloud().0) {
                    trigger.enqueue(ObjectRef::from_obj(request.as_ref()));
                }
            }
        }
    }
}

/// Whether the O-Cloud has refused the watch. A revision that is too old (410) is no refusal.
fn is_refused(error: &watcher::Error) -> bool {
    api_status(error).is_some_and(|status| matches!(status.code, 401 | 403 | 404))
}

impl Shared {
    fn set(&self, new: ConnectionState) {
        use ConnectionState::Failed;
        let mut current = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Of several messages for one reason the first is kept: each new one would be written into every status.
        let same = matches!((&*current, &new), (Failed(old), Failed(new)) if old.reason == new.reason);
        if !same {
            *current = new;
        }
        drop(current);
        if !same {
            (self.changed)();
        }
    }

    /// Sets the state to Connecting without a call of `changed`: nothing is written to the O-Cloud until its
    /// ProvisioningRequests are listed again, and statuses stay as they are.
    fn set_connecting(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = ConnectionState::Connecting;
    }
}

/// What a probe has found.
struct ProbeResult {
    namespaced: bool,
    server_version: String,
}

/// The FocomProvisioningRequest that a ProvisioningRequest was created for.
fn source(remote: &RemoteRequest) -> Vec<ObjectRef<FocomProvisioningRequest>> {
    let label = |key: &str| remote.labels().get(key);
    match (label(focom::SOURCE_LABEL), label(focom::SOURCE_NAMESPACE_LABEL)) {
        (Some(name), Some(namespace)) => vec![ObjectRef::new(name).within(namespace)],
        _ => Vec::new(),
    }
}
