//! One O-Cloud's API: a client, what is known of its ProvisioningRequests, and one watch of those that are ours.
//!
//! The watch is kept up with a back-off of its own. Nobody sends anything to an O-Cloud that is not known to answer.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt as _};
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::focom_provisioning_request::RemoteProvisioningStatus;
use o2ims_types::names::focom;
use o2ims_types::provisioning_request::ProvisionedResourceSet;
use operator_kit::metrics::Metrics;
use operator_kit::outcome;
use operator_kit::reflect::{Reflection, Trigger};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::fault::Fault;
use super::gate::Gate;

/// Group and version of the ProvisioningRequests that are driven.
pub const API_VERSION: &str = "o2ims.provisioning.oran.org/v1alpha1";
const GROUP: &str = "o2ims.provisioning.oran.org";
const VERSION: &str = "v1alpha1";
const KIND: &str = "ProvisioningRequest";
const PLURAL: &str = "provisioningrequests";

/// How long an O-Cloud may take to say what it is.
const PROBE: Duration = Duration::from_secs(5);
const RETRY_MIN: Duration = Duration::from_millis(500);
/// How late an O-Cloud that came back is noticed at most.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The O-Cloud ends its watch after this time, so a connection that died silently is noticed soon after it; in seconds.
const WATCH_SECONDS: u32 = 60;

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

/// A status of another form is none: it must not hide that the ProvisioningRequest exists.
fn as_far_as_possible<'de, D: Deserializer<'de>>(status: D) -> Result<RemoteStatus, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(status)?).unwrap_or_default())
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
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
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
}

/// One O-Cloud's API. Its task ends when this is dropped.
pub struct Connection {
    client: Client,
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
        setup: &Setup,
        changed: Changed,
    ) -> (Self, impl Future<Output = anyhow::Result<()>> + Send + use<>) {
        let shared = Arc::new(Shared { view: Mutex::new(View::Connecting), doubt: Notify::new(), changed });
        let stop = CancellationToken::new();
        let task = Keeper { client: client.clone(), setup: setup.clone(), shared: shared.clone() };
        let stopped = stop.clone();
        let run = async move {
            stopped.run_until_cancelled(task.keep_up()).await;
            Ok(())
        };
        (Self { client, shared, gate: Gate::new(setup.trigger.clone()), _stop: stop.drop_guard() }, run)
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
    async fn keep_up(self) {
        let mut attempt = 0;
        loop {
            let fault = match timeout(PROBE, self.probe()).await {
                Ok(Ok(found)) => match self.watch(found).await {
                    // It did answer; whether it still does, the next probe tells.
                    Watched::Worked => {
                        attempt = 0;
                        continue;
                    }
                    Watched::Never(fault) => fault,
                },
                Ok(Err(fault)) => fault,
                Err(_) => Fault::silent(),
            };
            attempt += 1;
            tracing::debug!(attempt, reason = fault.reason, "O-Cloud cannot be used");
            self.set(View::Broken(fault));
            sleep(outcome::delay(RETRY_MIN, RETRY_MAX, attempt)).await;
        }
    }

    /// Asks what is there: the version, and the scope of ProvisioningRequests.
    async fn probe(&self) -> Result<Found, Fault> {
        let version = self.client.apiserver_version().await.map_err(|error| Fault::of(&error))?;
        let resources = self.client.list_api_group_resources(API_VERSION).await.map_err(|error| Fault::of(&error))?;
        let kind =
            resources.resources.iter().find(|resource| resource.name == PLURAL).ok_or_else(Fault::api_missing)?;
        Ok(Found { namespaced: kind.namespaced, server_version: version.git_version })
    }

    async fn watch(&self, found: Found) -> Watched {
        let kind = ApiResource {
            group: GROUP.to_owned(),
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
            Reflection::new_with("remote provisioningrequests", api, ours, &self.setup.metrics, kind.clone())
                .only_real_changes()
                .triggers(&self.setup.trigger, source);
        let open = Open {
            smo: self.setup.smo.clone(),
            kind,
            namespaced: found.namespaced,
            server_version: found.server_version,
            requests: reflection.store(),
        };
        let mut state = reflection.state();
        let shared = self.shared.clone();
        let reflection = reflection.on_relist(move || shared.set(View::Open(open.clone())));
        // A doubt from before is answered by the probe that was just made.
        let _ = tokio::time::timeout(Duration::ZERO, self.shared.doubt.notified()).await;
        let ended = tokio::select! {
            error = reflection.until_failure() => Some(error),
            () = self.shared.doubt.notified() => None,
        };
        let worked = *state.borrow_and_update() == operator_kit::SyncState::Synced;
        match ended {
            Some(error) if !worked => Watched::Never(Fault::of_watch(&error)),
            _ => Watched::Worked,
        }
    }

    fn set(&self, view: View) {
        self.shared.set(view);
    }
}

impl Shared {
    fn set(&self, view: View) {
        let mut current = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let same = matches!((&*current, &view), (View::Broken(old), View::Broken(new)) if old == new);
        *current = view;
        drop(current);
        if !same {
            (self.changed)();
        }
    }
}

/// What the O-Cloud said of itself.
struct Found {
    namespaced: bool,
    server_version: String,
}

/// How a watch ended.
enum Watched {
    /// It had listed everything before it ended.
    Worked,
    /// It could not even begin.
    Never(Fault),
}

/// The request that a ProvisioningRequest was made for.
fn source(remote: &RemoteRequest) -> Vec<ObjectRef<FocomProvisioningRequest>> {
    let label = |key: &str| remote.labels().get(key);
    match (label(focom::SOURCE_LABEL), label(focom::SOURCE_NAMESPACE_LABEL)) {
        (Some(name), Some(namespace)) => vec![ObjectRef::new(name).within(namespace)],
        _ => Vec::new(),
    }
}
