//! One O-Cloud's API: a client, what is known of its ProvisioningRequests, and one watch of those that are ours.
//!
//! The watch is kept up with a back-off of its own. Nobody sends anything to an O-Cloud that is not known to answer.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt as _};
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::focom_provisioning_request::RemoteProvisioningStatus;
use o2ims_types::names::{self, focom};
use o2ims_types::provisioning_request::ProvisionedResourceSet;
use operator_kit::cache::{CachedWatch, SyncState, api_status};
use operator_kit::controller::{Backoff, Trigger};
use operator_kit::metrics::Metrics;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::fault::Fault;
use super::gate::Gate;

/// Group and version of the ProvisioningRequests that are driven.
pub const API_VERSION: &str = "o2ims.provisioning.oran.org/v1alpha1";
const VERSION: &str = "v1alpha1";
const KIND: &str = "ProvisioningRequest";
const PLURAL: &str = "provisioningrequests";

/// How long an O-Cloud may take to say what it is.
const PROBE: Duration = Duration::from_secs(5);
/// How long it may take to list the ProvisioningRequests of this SMO.
const LIST: Duration = Duration::from_secs(60);
/// What has worked for this long has not failed: the next try comes at once.
const STEADY: Duration = Duration::from_secs(30);
const RETRY_MIN: Duration = Duration::from_millis(500);
/// How late an O-Cloud that came back is noticed at most.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The O-Cloud ends its watch after this time, so a connection that died silently is noticed soon after it; in seconds.
const WATCH_SECONDS: u32 = 60;

/// Longest answer that is quoted, in characters.
const QUOTE_MAX: usize = 500;
/// Longest version that is shown, in characters.
const VERSION_MAX: usize = 64;

/// A ProvisioningRequest of an O-Cloud, as far as it concerns us. It is read, never written back.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
pub struct RemoteRequest {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Whatever it says there.
    #[serde(default)]
    pub spec: Value,
    /// What of its status is brought back.
    #[serde(default, deserialize_with = "as_far_as_possible")]
    pub status: RemoteStatus,
}

/// Each field by itself: one of another form must hide neither the others nor that the ProvisioningRequest exists.
fn as_far_as_possible<'de, D: Deserializer<'de>>(status: D) -> Result<RemoteStatus, D::Error> {
    fn part<T: DeserializeOwned>(value: &Value) -> Option<T> {
        T::deserialize(value).ok()
    }
    let status = Value::deserialize(status)?;
    let said = &status["provisioningStatus"];
    let provisioning_status = said.is_object().then(|| RemoteProvisioningStatus {
        provisioning_state: part(&said["provisioningState"]).unwrap_or_default(),
        provisioning_message: part(&said["provisioningMessage"]).unwrap_or_default(),
        // The API stores whole seconds.
        provisioning_update_time: part(&said["provisioningUpdateTime"])
            .and_then(|Time(time)| Timestamp::from_second(time.as_second()).ok().map(Time)),
    });
    Ok(RemoteStatus {
        provisioning_status,
        provisioned_resource_set: part(&status["provisionedResourceSet"]),
        observed_generation: part(&status["observedGeneration"]),
    })
}

impl Resource for RemoteRequest {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }
    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }
    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }
    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What of its status is brought back. Every field is optional: other operators write other fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RemoteStatus {
    /// State and message.
    pub provisioning_status: Option<RemoteProvisioningStatus>,
    /// What the request holds.
    pub provisioned_resource_set: Option<ProvisionedResourceSet>,
    /// Generation that the status speaks of; Nephio's operator does not say.
    pub observed_generation: Option<i64>,
}

/// What is known of an O-Cloud.
#[derive(Clone)]
pub enum View {
    /// It has not answered yet, and not failed to either.
    Connecting,
    /// It answers.
    Open(Open),
    /// It cannot be used now.
    Broken(Fault),
}

/// An O-Cloud that answers.
#[derive(Clone)]
pub struct Open {
    /// Marks what came from this SMO.
    pub smo: String,
    /// The kind, as it is served there.
    pub kind: ApiResource,
    /// Whether its ProvisioningRequests have namespaces; Nephio's have none.
    pub namespaced: bool,
    /// Version of its API server.
    pub server_version: String,
    /// The ProvisioningRequests that came from this SMO.
    pub requests: Store<RemoteRequest>,
}

impl Open {
    /// The namespace to use, where there are namespaces.
    pub fn namespace<'a>(&self, asked: &'a str) -> Option<&'a str> {
        self.namespaced.then_some(asked)
    }

    /// The ProvisioningRequest of this name, if it came from this SMO.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<RemoteRequest>> {
        let reference = ObjectRef::new_with(name, self.kind.clone());
        self.requests.get(&match self.namespace(namespace) {
            Some(namespace) => reference.within(namespace),
            None => reference,
        })
    }
}

/// Called when what is known of the O-Cloud has changed.
pub type Changed = Arc<dyn Fn() + Send + Sync>;

/// What every connection is made with.
#[derive(Clone)]
pub struct Setup {
    /// Marks what came from this SMO.
    pub smo: String,
    /// Metrics.
    pub metrics: Metrics,
    /// Told of changed ProvisioningRequests.
    pub trigger: Trigger<FocomProvisioningRequest>,
    /// All requests of the SMO.
    pub requests: Store<FocomProvisioningRequest>,
}

/// Which O-Cloud it is.
pub struct Identity {
    /// Tells it from others; see [`Access::mark`](super::kubeconfig::Access::mark).
    pub mark: String,
    /// What must not be seen in anything that the O-Cloud says.
    pub token: Option<String>,
}

/// One O-Cloud's API. Its task ends when this is dropped.
pub struct Connection {
    client: Client,
    identity: Identity,
    shared: Arc<Shared>,
    gate: Gate,
    _stop: DropGuard,
}

struct Shared {
    view: Mutex<View>,
    doubt: Notify,
    changed: Changed,
}

impl Connection {
    /// A connection, and the task that keeps it up.
    pub fn new(
        client: Client,
        identity: Identity,
        setup: &Setup,
        changed: Changed,
    ) -> (Self, impl Future<Output = anyhow::Result<()>> + Send + use<>) {
        let shared = Arc::new(Shared { view: Mutex::new(View::Connecting), doubt: Notify::new(), changed });
        let stop = CancellationToken::new();
        let task = Keeper { client: client.clone(), setup: setup.clone(), shared: shared.clone() };
        let stopped = stop.clone();
        let run = async move {
            stopped.run_until_cancelled(task.outlive_panics()).await;
            Ok(())
        };
        (Self { client, identity, shared, gate: Gate::new(setup.trigger.clone()), _stop: stop.drop_guard() }, run)
    }

    /// Which O-Cloud it is.
    pub fn mark(&self) -> &str {
        &self.identity.mark
    }

    /// What the O-Cloud said, cut to a length that people read, and without the token if it repeats that.
    pub fn quote(&self, said: &str) -> String {
        let said = match self.identity.token.as_deref() {
            Some(token) if !token.is_empty() => said.replace(token, "…"),
            _ => said.to_owned(),
        };
        said.chars().take(QUOTE_MAX).collect()
    }

    /// To write with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What is known now.
    pub fn view(&self) -> View {
        self.shared.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many may write at once.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// A request was not answered: the O-Cloud has to show that it is there.
    pub fn doubt(&self) {
        self.shared.doubt.notify_one();
    }
}

struct Keeper {
    client: Client,
    setup: Setup,
    shared: Arc<Shared>,
}

impl Keeper {
    /// What an O-Cloud says must not end the operator, whatever it is.
    async fn outlive_panics(self) {
        loop {
            // Nothing of the attempt is used after a panic but the view, which is replaced.
            if AssertUnwindSafe(self.keep_up()).catch_unwind().await.is_err() {
                self.shared.set(View::Broken(Fault::internal()));
                sleep(RETRY_MAX).await;
            }
        }
    }

    async fn keep_up(&self) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        loop {
            let begun = Instant::now();
            let fault = match timeout(PROBE, self.probe()).await {
                Ok(Ok(found)) => self.watch(found).await.err(),
                Ok(Err(fault)) => Some(fault),
                Err(_) => Some(Fault::silent()),
            };
            let was_steady = begun.elapsed() > STEADY;
            match fault {
                Some(fault) => {
                    tracing::debug!(failures = backoff.failures(), reason = fault.reason, "O-Cloud cannot be used");
                    self.shared.set(View::Broken(fault));
                }
                // It did answer; whether it still does, the next probe tells. Until then nothing is sent to it.
                None => self.shared.suspend(),
            }
            if was_steady {
                backoff.reset();
            } else {
                sleep(backoff.next_delay()).await;
            }
        }
    }

    /// Asks what is there: the version, and the scope of ProvisioningRequests.
    async fn probe(&self) -> Result<Found, Fault> {
        let version = self.client.apiserver_version().await.map_err(|error| Fault::of(&error))?;
        let resources = self.client.list_api_group_resources(API_VERSION).await.map_err(|error| Fault::of(&error))?;
        let kind =
            resources.resources.iter().find(|resource| resource.name == PLURAL).ok_or_else(Fault::api_missing)?;
        Ok(Found {
            namespaced: kind.namespaced,
            server_version: version.git_version.chars().take(VERSION_MAX).collect(),
        })
    }

    /// Watches until that fails. `Ok` if it had worked before.
    async fn watch(&self, found: Found) -> Result<(), Fault> {
        let kind = ApiResource {
            group: names::GROUP.to_owned(),
            version: VERSION.to_owned(),
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            plural: PLURAL.to_owned(),
        };
        let ours = watcher::Config::default()
            .labels(&format!("{}={}", focom::SMO_LABEL, self.setup.smo))
            .timeout(WATCH_SECONDS);
        let api = Api::all_with(self.client.clone(), &kind);
        let reflection =
            CachedWatch::new_with("remote provisioningrequests", api, ours, &self.setup.metrics, kind.clone())
                .ignore_unchanged()
                .triggers(&self.setup.trigger, source);
        let open = Open {
            smo: self.setup.smo.clone(),
            kind,
            namespaced: found.namespaced,
            server_version: found.server_version,
            requests: reflection.store(),
        };
        let state = reflection.state();
        let is_synced = |state: &SyncState| *state == SyncState::Synced;
        let (mut listed, mut settled) = (state.clone(), state.clone());
        let shared = self.shared.clone();
        let reflection =
            reflection.on_relist(move || shared.set(View::Open(open.clone()))).on_delete(self.name_is_free());
        let list_takes_too_long = async {
            if timeout(LIST, listed.wait_for(is_synced)).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        let doubted = async {
            // Before that it is doubted anyway, and what was doubted then has been answered by the list.
            let _ = settled.wait_for(is_synced).await;
            let _ = timeout(Duration::ZERO, self.shared.doubt.notified()).await;
            self.shared.doubt.notified().await;
        };
        tokio::select! {
            error = reflection.until_failure() => match &error {
                // The list may have worked: who may list may not yet watch.
                error if !is_synced(&state.borrow()) || is_answer(error) => Err(Fault::of_watch(error)),
                _ => Ok(()),
            },
            () = list_takes_too_long => Err(Fault::silent()),
            () = doubted => Ok(()),
        }
    }

    /// Requests whose ProvisioningRequest would have the name of one that is gone: one of them may have waited for it.
    fn name_is_free(&self) -> impl Fn(&RemoteRequest) + Send + Sync + 'static {
        let (requests, trigger) = (self.setup.requests.clone(), self.setup.trigger.clone());
        move |gone| {
            let (name, namespace) = (gone.name_any(), gone.namespace());
            for request in requests.state() {
                let same = focom::remote_requests(&request.name_any()).contains(&name)
                    && namespace.as_deref().is_none_or(|namespace| namespace == request.o_cloud().0);
                if same {
                    trigger.enqueue(ObjectRef::from_obj(request.as_ref()));
                }
            }
        }
    }
}

/// Whether the O-Cloud has answered, and what it said is why the watch has ended. A revision that is too old (410) is no reason
/// against it.
fn is_answer(error: &watcher::Error) -> bool {
    api_status(error).is_some_and(|status| matches!(status.code, 401 | 403 | 404))
}

impl Shared {
    fn set(&self, view: View) {
        let mut current = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        // The first words for a reason stay: others for the same trouble would only be written everywhere again and again.
        let same = matches!((&*current, &view), (View::Broken(old), View::Broken(new)) if old.reason == new.reason);
        if !same {
            *current = view;
        }
        drop(current);
        if !same {
            (self.changed)();
        }
    }

    /// Nothing is sent until it is known again; what users are told stays as it is meanwhile.
    fn suspend(&self) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = View::Connecting;
    }
}

/// What the O-Cloud said of itself.
struct Found {
    namespaced: bool,
    server_version: String,
}

/// The request that a ProvisioningRequest was made for.
fn source(remote: &RemoteRequest) -> Vec<ObjectRef<FocomProvisioningRequest>> {
    let label = |key: &str| remote.labels().get(key);
    match (label(focom::SOURCE_LABEL), label(focom::SOURCE_NAMESPACE_LABEL)) {
        (Some(name), Some(namespace)) => vec![ObjectRef::new(name).within(namespace)],
        _ => Vec::new(),
    }
}
