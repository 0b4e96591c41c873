//! One entry for each OCloud: the watch of its Secret, and its connection or the reason why it has none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::config::KubeConfigOptions;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Config, ResourceExt as _};
use o2ims_types::names::focom;
use o2ims_types::{FocomProvisioningRequest, OCloud};
use operator_kit::client::{self, Limits};
use operator_kit::controller::references;
use operator_kit::process::TaskSpawner;

use super::connection::{Changed, Connection, ConnectionSettings, ConnectionState, Identity};
use super::credentials::{Credentials, SecretState};
use super::error::ConnectionError;
use super::kubeconfig::ClusterCredentials;

/// The fingerprint of the SMO's own cluster.
const LOCAL: &str = "local";
/// Identifies the operator in the audit logs of O-Clouds.
const USER_AGENT: &str = "focom-operator";
/// Limits of a call. O-Clouds may be far away, but a slower one would delay the others, and a larger answer would take
/// memory that the others need.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(5),
    request: Duration::from_secs(10),
    watch_start: Duration::from_secs(10),
    answer_max: 16 * 1024 * 1024,
};

/// Namespace and name of an OCloud, or of its Secret.
pub type NamespacedName = (String, String);

/// Namespace and name of an OCloud.
pub fn id(o_cloud: &OCloud) -> NamespacedName {
    (o_cloud.namespace().unwrap_or_default(), o_cloud.name_any())
}

/// One O-Cloud's connection at the time of a reconcile.
#[derive(Clone)]
pub struct ConnectionSnapshot {
    /// To write with; `None` without usable credentials.
    pub connection: Option<Arc<Connection>>,
    /// [`Connection::fingerprint`] of the connection.
    pub fingerprint: Option<String>,
    /// Whether the O-Cloud answers.
    pub state: ConnectionState,
}

impl ConnectionSnapshot {
    fn of(connection: Arc<Connection>) -> Self {
        let (fingerprint, state) = (Some(connection.fingerprint().to_owned()), connection.state());
        Self { connection: Some(connection), fingerprint, state }
    }

    fn without_connection(state: ConnectionState) -> Self {
        Self { connection: None, fingerprint: None, state }
    }
}

/// The connections of all OClouds, and the one to the SMO's own cluster.
pub struct ConnectionRegistry {
    settings: ConnectionSettings,
    /// The SMO's own API.
    client: Client,
    tasks: TaskSpawner,
    local_id: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<NamespacedName, Entry>,
    local: Option<Arc<Connection>>,
}

/// What is kept for one OCloud.
#[derive(Default)]
struct Entry {
    /// The watch of its Secret, with the Secret's namespace and name.
    credentials: Option<(NamespacedName, Credentials)>,
    connection: Option<(ClusterCredentials, Arc<Connection>)>,
    error: Option<ConnectionError>,
}

impl ConnectionRegistry {
    /// An empty registry. `client` is for the SMO's own API; `local_id` is the oCloudId that means the SMO's own
    /// cluster.
    pub fn new(client: Client, settings: ConnectionSettings, tasks: TaskSpawner, local_id: String) -> Self {
        Self { settings, client, tasks, local_id, state: Mutex::default() }
    }

    /// What is known of the OCloud's Secret. The first call for a Secret starts its watch, and closes the connection
    /// that was made with the previous Secret.
    pub fn credentials(&self, id: &NamespacedName, secret: &NamespacedName) -> SecretState {
        let mut state = self.lock();
        let entry = state.entries.entry(id.clone()).or_default();
        if let Some((watched, credentials)) = &entry.credentials
            && watched == secret
        {
            return credentials.state();
        }
        (entry.connection, entry.error) = (None, None);
        let (client, changed) = (self.client.clone(), self.changed(id));
        let (credentials, task) = Credentials::watch(client, &secret.0, &secret.1, changed);
        entry.credentials = Some((secret.clone(), credentials));
        self.tasks.start(format!("secret of {}/{}", id.0, id.1), task);
        SecretState::NotYet
    }

    /// Closes the connection and stops the watch of the Secret, because the OCloud may not use it.
    pub fn deny(&self, id: &NamespacedName, error: ConnectionError) {
        self.lock().entries.entry(id.clone()).or_default().credentials = None;
        self.close(id, error);
    }

    /// Closes the connection. The statuses of requests show `error` until there is a new one.
    pub fn close(&self, id: &NamespacedName, error: ConnectionError) {
        let mut state = self.lock();
        let entry = state.entries.entry(id.clone()).or_default();
        let closed = entry.connection.take();
        let is_new = entry.error.as_ref() != Some(&error);
        entry.error = Some(error);
        drop(state);
        if is_new || closed.is_some() {
            self.enqueue_requests(id);
        }
    }

    /// Connects with these credentials, unless the present connection was made with them.
    pub async fn connect(&self, id: &NamespacedName, credentials: ClusterCredentials) {
        if self.is_connected_with(id, &credentials) {
            return;
        }
        let client = match self.client_for(&credentials).await {
            Ok(client) => client,
            Err(error) => return self.close(id, error),
        };
        let identity = Identity {
            name: format!("{}/{}", id.0, id.1),
            o_cloud: Some(id.clone()),
            fingerprint: credentials.fingerprint(),
            token: credentials.token().map(ToOwned::to_owned),
        };
        let (connection, task) = Connection::new(client, identity, &self.settings, self.changed(id));
        let mut state = self.lock();
        let entry = state.entries.entry(id.clone()).or_default();
        entry.connection = Some((credentials, Arc::new(connection)));
        entry.error = None;
        drop(state);
        tracing::info!(namespace = id.0, name = id.1, "connecting to the O-Cloud");
        self.tasks.start(format!("connection to {}/{}", id.0, id.1), task);
    }

    fn is_connected_with(&self, id: &NamespacedName, credentials: &ClusterCredentials) -> bool {
        let state = self.lock();
        let connection = state.entries.get(id).and_then(|entry| entry.connection.as_ref());
        connection.is_some_and(|(used, _)| used == credentials)
    }

    async fn client_for(&self, credentials: &ClusterCredentials) -> Result<Client, ConnectionError> {
        let file = credentials.kubeconfig().map_err(|_| ConnectionError::unusable())?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .map_err(|_| ConnectionError::unusable())?;
        client::build(config, USER_AGENT, LIMITS, &self.settings.metrics).map_err(|_| ConnectionError::unusable())
    }

    /// Removes the entry of an OCloud that was deleted.
    pub fn forget(&self, id: &NamespacedName) {
        if self.lock().entries.remove(id).is_some() {
            tracing::info!(namespace = id.0, name = id.1, "OCloud was deleted, its connection is closed");
        }
        self.enqueue_requests(id);
    }

    /// Removes the entries that were kept for the requests of a namespace that is deleted now. `exists` tells whether an
    /// OCloud exists, as in a new namespace of the same name.
    pub fn forget_namespace(&self, namespace: &str, exists: impl Fn(&NamespacedName) -> bool) {
        self.lock().entries.retain(|id, _| id.0 != namespace || exists(id));
    }

    /// Whether there is a connection for this OCloud, even if the O-Cloud does not answer.
    pub fn is_connected(&self, id: &NamespacedName) -> bool {
        self.lock().entries.get(id).is_some_and(|entry| entry.connection.is_some())
    }

    /// The connection to the O-Cloud of a request as it is now.
    pub fn for_request(&self, request: &FocomProvisioningRequest) -> ConnectionSnapshot {
        let (namespace, name) = request.o_cloud();
        if name == self.local_id { self.local() } else { self.get(&(namespace.to_owned(), name.to_owned())) }
    }

    /// Whether the O-Cloud has a ProvisioningRequest with a name of the request, as far as is known now.
    pub fn has_remote(&self, request: &FocomProvisioningRequest) -> bool {
        let ConnectionState::Ready(o_cloud) = self.for_request(request).state else { return false };
        let names = focom::remote_requests(&request.name_any());
        names.iter().any(|name| o_cloud.get(request.o_cloud().0, name).is_some())
    }

    /// The connection of an OCloud as it is now.
    pub fn get(&self, id: &NamespacedName) -> ConnectionSnapshot {
        let state = self.lock();
        let entry = state.entries.get(id);
        let connection = entry.and_then(|entry| entry.connection.as_ref()).map(|(_, connection)| connection.clone());
        let error = entry.and_then(|entry| entry.error.clone());
        drop(state);
        match (connection, error) {
            (Some(connection), _) => ConnectionSnapshot::of(connection),
            (None, Some(error)) => ConnectionSnapshot::without_connection(ConnectionState::Failed(error)),
            (None, None) => ConnectionSnapshot::without_connection(ConnectionState::Connecting),
        }
    }

    /// The connection to the SMO's own cluster as it is now.
    fn local(&self) -> ConnectionSnapshot {
        let connection = self.lock().local.clone();
        connection
            .map_or_else(|| ConnectionSnapshot::without_connection(ConnectionState::Connecting), ConnectionSnapshot::of)
    }

    /// Connects to the SMO's own cluster, unless that was done before. The SMO's own cluster is watched only
    /// if a request is for it.
    pub fn connect_local(&self) {
        let mut state = self.lock();
        if state.local.is_some() {
            return;
        }
        let identity =
            Identity { name: self.local_id.clone(), o_cloud: None, fingerprint: LOCAL.to_owned(), token: None };
        let (connection, task) = Connection::new(self.client.clone(), identity, &self.settings, self.changed_local());
        state.local = Some(Arc::new(connection));
        drop(state);
        self.tasks.start("connection to this cluster", task);
    }

    fn changed(&self, id: &NamespacedName) -> Changed {
        let (requests, trigger, o_clouds, id) = (
            self.settings.requests.clone(),
            self.settings.trigger.clone(),
            self.settings.o_clouds_trigger.clone(),
            id.clone(),
        );
        Arc::new(move || {
            o_clouds.enqueue(ObjectRef::new(&id.1).within(&id.0));
            trigger.enqueue_each(references(&requests.for_o_cloud(&id.0, &id.1)));
        })
    }

    fn changed_local(&self) -> Changed {
        let (requests, trigger, id) =
            (self.settings.requests.clone(), self.settings.trigger.clone(), self.local_id.clone());
        Arc::new(move || trigger.enqueue_each(references(&requests.for_o_cloud_name(&id))))
    }

    fn enqueue_requests(&self, id: &NamespacedName) {
        self.settings.trigger.enqueue_each(references(&self.settings.requests.for_o_cloud(&id.0, &id.1)));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
