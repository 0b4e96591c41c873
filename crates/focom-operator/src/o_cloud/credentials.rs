//! Watches the Secret of an OCloud, and only that one: a new kubeconfig is used as soon as it is written, and the
//! operator needs no right to read other Secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1;
use kube::core::ObjectMeta;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, Resource};
use operator_kit::cache::api_status;
use operator_kit::controller::Backoff;
use serde::Deserialize;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection::Changed;

/// The keys under which a Secret may have the kubeconfig: Nephio's, then Cluster API's.
pub const KEYS: [&str; 2] = ["kubeconfig", "value"];
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A Secret, whose `Debug` leaves its content out of logs.
#[derive(Resource, Clone, Default, Deserialize)]
#[resource(inherit = v1::Secret)]
struct Secret {
    metadata: ObjectMeta,
    #[serde(default)]
    data: BTreeMap<String, ByteString>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.metadata.name).finish_non_exhaustive()
    }
}

/// State of a Secret.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretState {
    /// The API server has not answered yet.
    NotYet,
    /// It does not exist.
    Missing,
    /// It has none of [`KEYS`].
    Empty,
    /// The operator may not read it.
    Forbidden,
    /// The kubeconfig.
    Kubeconfig(Arc<Vec<u8>>),
}

/// The watch of one Secret, which ends when this is dropped.
pub struct Credentials {
    state: Arc<Mutex<SecretState>>,
    _stop: DropGuard,
}

impl Credentials {
    /// A watch, and the task that keeps it up, which has to be run.
    pub fn watch(
        client: Client,
        namespace: &str,
        name: &str,
        changed: Changed,
    ) -> (Self, impl Future<Output = anyhow::Result<()>> + Send + use<>) {
        let state = Arc::new(Mutex::new(SecretState::NotYet));
        let stop = CancellationToken::new();
        let api = Api::<Secret>::namespaced(client, namespace);
        let (name, stopped, shared) = (name.to_owned(), stop.clone(), state.clone());
        let run = async move {
            stopped.run_until_cancelled(watch(api, &name, &shared, &changed)).await;
            Ok(())
        };
        (Self { state, _stop: stop.drop_guard() }, run)
    }

    /// The state as it is now.
    pub fn state(&self) -> SecretState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn watch(api: Api<Secret>, name: &str, state: &Mutex<SecretState>, changed: &Changed) {
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    let mut events = watch_object(api, name).boxed();
    while let Some(change) = events.next().await {
        let now = match &change {
            Ok(secret) => {
                backoff.reset();
                Some(secret.as_ref().map_or(SecretState::Missing, content))
            }
            // Without an answer the last state is kept.
            Err(error) => api_status(error).filter(|status| status.code == 403).map(|_| SecretState::Forbidden),
        };
        if let Some(now) = now {
            let mut last = state.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = *last != now;
            *last = now;
            drop(last);
            if is_new {
                changed();
            }
        }
        if change.is_err() {
            sleep(backoff.next_delay()).await;
        }
    }
}

fn content(secret: &Secret) -> SecretState {
    let found = KEYS.iter().find_map(|key| secret.data.get(*key));
    found.map_or(SecretState::Empty, |content| SecretState::Kubeconfig(Arc::new(content.0.clone())))
}
