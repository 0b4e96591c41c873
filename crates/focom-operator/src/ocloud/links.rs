//! The link to each O-Cloud: the watch of its Secret, its connection, or why it has none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::config::KubeConfigOptions;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Config};
use o2ims_types::conditions::focom::reason;
use o2ims_types::{FocomProvisioningRequest, OCloud};
use operator_kit::client::{self, Limits};
use operator_kit::controller::Trigger;
use operator_kit::process::TaskSpawner;

use super::connection::{Changed, Connection, Identity, Setup, View};
use super::credentials::{Credentials, Seen};
use super::fault::Fault;
use super::kubeconfig::Access;

/// The mark of the very cluster.
const LOCAL: &str = "local";
/// Who asks, in the O-Clouds' logs.
const USER_AGENT: &str = "focom-operator";
/// O-Clouds are far away, but one that takes longer than this keeps others waiting, and one that says more fills the memory
/// that others need.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(5),
    request: Duration::from_secs(10),
    watch_start: Duration::from_secs(10),
    answer_max: 16 * 1024 * 1024,
};

/// Namespace and name of an OCloud, or of its Secret.
pub type Id = (String, String);

/// What a request finds where its O-Cloud should be.
#[derive(Clone)]
pub struct Found {
    /// To write with, where there is a connection.
    pub connection: Option<Arc<Connection>>,
    /// What is known.
    pub view: View,
}

/// All links.
pub struct Links {
    setup: Setup,
    /// The SMO's own API.
    client: Client,
    tasks: TaskSpawner,
    o_clouds: Trigger<OCloud>,
    local_id: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    links: HashMap<Id, Link>,
    local: Option<Arc<Connection>>,
}

#[derive(Default)]
struct Link {
    credentials: Option<(Id, Credentials)>,
    connection: Option<(Access, Arc<Connection>)>,
    fault: Option<Fault>,
}

impl Links {
    /// No links yet.
    pub fn new(client: Client, setup: Setup, tasks: TaskSpawner, o_clouds: Trigger<OCloud>, local_id: String) -> Self {
        Self { setup, client, tasks, o_clouds, local_id, state: Mutex::default() }
    }

    /// What is known of the Secret; the first call starts its watch.
    pub fn credentials(&self, id: &Id, secret: &Id) -> Seen {
        let mut state = self.lock();
        let link = state.links.entry(id.clone()).or_default();
        if let Some((watched, credentials)) = &link.credentials
            && watched == secret
        {
            return credentials.seen();
        }
        // What the former Secret said does not hold any more.
        (link.connection, link.fault) = (None, None);
        let (client, changed) = (self.client.clone(), self.changed(id));
        let (credentials, task) = Credentials::watch(client, &secret.0, &secret.1, changed);
        link.credentials = Some((secret.clone(), credentials));
        self.tasks.start(format!("secret of {}/{}", id.0, id.1), task);
        Seen::NotYet
    }

    /// Lets go of the Secret too, so that it is not even watched.
    pub fn forbid(&self, id: &Id, fault: Fault) {
        self.lock().links.entry(id.clone()).or_default().credentials = None;
        self.close(id, fault);
    }

    /// Ends the connection, for the reason given.
    pub fn close(&self, id: &Id, fault: Fault) {
        let mut state = self.lock();
        let link = state.links.entry(id.clone()).or_default();
        let closed = link.connection.take();
        let is_new = link.fault.as_ref() != Some(&fault);
        link.fault = Some(fault);
        drop(state);
        if is_new || closed.is_some() {
            self.tell_requests(id);
        }
    }

    /// Connects with `access`, unless that is so already.
    pub async fn connect(&self, id: &Id, access: Access) {
        if self
            .lock()
            .links
            .get(id)
            .is_some_and(|link| link.connection.as_ref().is_some_and(|(used, _)| *used == access))
        {
            return;
        }
        let client = match self.client_for(&access).await {
            Ok(client) => client,
            Err(fault) => return self.close(id, fault),
        };
        let identity = Identity { mark: access.mark(), token: access.token().map(ToOwned::to_owned) };
        let (connection, task) = Connection::new(client, identity, &self.setup, self.changed(id));
        let mut state = self.lock();
        let link = state.links.entry(id.clone()).or_default();
        link.connection = Some((access, Arc::new(connection)));
        link.fault = None;
        drop(state);
        tracing::info!(namespace = id.0, name = id.1, "connecting to the O-Cloud");
        self.tasks.start(format!("connection to {}/{}", id.0, id.1), task);
    }

    async fn client_for(&self, access: &Access) -> Result<Client, Fault> {
        let refused = |message: &str| Fault::new(reason::KUBECONFIG_REFUSED, message);
        let file = access.kubeconfig().map_err(|error| refused(&error.to_string()))?;
        // What these errors say quotes the kubeconfig.
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .map_err(|_| refused("the kubeconfig's certificates or address cannot be used"))?;
        client::build(config, USER_AGENT, LIMITS, &self.setup.metrics)
            .map_err(|_| refused("the kubeconfig's certificates or keys cannot be used"))
    }

    /// The OCloud is gone.
    pub fn forget(&self, id: &Id) {
        if self.lock().links.remove(id).is_some() {
            tracing::info!(namespace = id.0, name = id.1, "OCloud is gone, its connection is closed");
        }
        self.tell_requests(id);
    }

    /// A namespace is gone, and with it what was kept for its requests; `exists` tells OClouds of a new one of that name.
    pub fn forget_namespace(&self, namespace: &str, exists: impl Fn(&Id) -> bool) {
        self.lock().links.retain(|id, _| id.0 != namespace || exists(id));
    }

    /// Whether there is a connection to the O-Cloud, up or not.
    pub fn is_connected(&self, id: &Id) -> bool {
        self.lock().links.get(id).is_some_and(|link| link.connection.is_some())
    }

    /// What is known of the O-Cloud.
    pub fn find(&self, id: &Id) -> Found {
        let state = self.lock();
        let link = state.links.get(id);
        let connection = link.and_then(|link| link.connection.as_ref()).map(|(_, connection)| connection.clone());
        let fault = link.and_then(|link| link.fault.clone());
        drop(state);
        let view = match (&connection, fault) {
            (Some(connection), _) => connection.view(),
            (None, Some(fault)) => View::Broken(fault),
            (None, None) => View::Connecting,
        };
        Found { connection, view }
    }

    /// What is known of the ProvisioningRequests of this very cluster; the first call starts to watch them.
    pub fn local(&self) -> Found {
        let mut state = self.lock();
        let connection = if let Some(connection) = &state.local {
            connection.clone()
        } else {
            let changed = self.changed_local();
            let identity = Identity { mark: LOCAL.to_owned(), token: None };
            let (connection, task) = Connection::new(self.client.clone(), identity, &self.setup, changed);
            self.tasks.start("connection to this cluster", task);
            let connection = Arc::new(connection);
            state.local = Some(connection.clone());
            connection
        };
        drop(state);
        Found { view: connection.view(), connection: Some(connection) }
    }

    fn changed(&self, id: &Id) -> Changed {
        let (requests, trigger, o_clouds, id) =
            (self.setup.requests.clone(), self.setup.trigger.clone(), self.o_clouds.clone(), id.clone());
        Arc::new(move || {
            o_clouds.enqueue(ObjectRef::new(&id.1).within(&id.0));
            touch(&requests, &trigger, |request| is_for(request, &id));
        })
    }

    fn changed_local(&self) -> Changed {
        let (requests, trigger, id) = (self.setup.requests.clone(), self.setup.trigger.clone(), self.local_id.clone());
        Arc::new(move || touch(&requests, &trigger, |request| request.o_cloud().1 == id))
    }

    fn tell_requests(&self, id: &Id) {
        touch(&self.setup.requests, &self.setup.trigger, |request| is_for(request, id));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_for(request: &FocomProvisioningRequest, id: &Id) -> bool {
    request.o_cloud() == (id.0.as_str(), id.1.as_str())
}

fn touch(
    requests: &Store<FocomProvisioningRequest>,
    trigger: &Trigger<FocomProvisioningRequest>,
    concerned: impl Fn(&FocomProvisioningRequest) -> bool,
) {
    for request in requests.state().iter().filter(|request| concerned(request)) {
        trigger.enqueue(ObjectRef::from_obj(request.as_ref()));
    }
}
