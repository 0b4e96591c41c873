//! The Secret of an OCloud, by a watch of that one Secret: a new kubeconfig is used as soon as it is written, and the
//! operator needs the right to read no other.

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

/// Where a kubeconfig may stand in a Secret: Nephio's key, then Cluster API's.
pub const KEYS: [&str; 2] = ["kubeconfig", "value"];
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A Secret whose content does not get into any log.
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

/// What is known of the Secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Seen {
    /// No answer yet.
    NotYet,
    /// There is none.
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
    seen: Arc<Mutex<Seen>>,
    _stop: DropGuard,
}

impl Credentials {
    /// A watch, and the task that keeps it up.
    pub fn watch(
        client: Client,
        namespace: &str,
        name: &str,
        changed: Changed,
    ) -> (Self, impl Future<Output = anyhow::Result<()>> + Send + use<>) {
        let seen = Arc::new(Mutex::new(Seen::NotYet));
        let stop = CancellationToken::new();
        let api = Api::<Secret>::namespaced(client, namespace);
        let (name, stopped, view) = (name.to_owned(), stop.clone(), seen.clone());
        let run = async move {
            stopped.run_until_cancelled(keep_up(api, &name, &view, &changed)).await;
            Ok(())
        };
        (Self { seen, _stop: stop.drop_guard() }, run)
    }

    /// What is known now.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn keep_up(api: Api<Secret>, name: &str, view: &Mutex<Seen>, changed: &Changed) {
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    let mut news = watch_object(api, name).boxed();
    while let Some(change) = news.next().await {
        let now = match &change {
            Ok(secret) => {
                backoff.reset();
                Some(secret.as_ref().map_or(Seen::Missing, content))
            }
            // Without an answer the last one holds.
            Err(error) => api_status(error).filter(|status| status.code == 403).map(|_| Seen::Forbidden),
        };
        if let Some(now) = now {
            let mut seen = view.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = *seen != now;
            *seen = now;
            drop(seen);
            if is_new {
                changed();
            }
        }
        if change.is_err() {
            sleep(backoff.next_delay()).await;
        }
    }
}

fn content(secret: &Secret) -> Seen {
    let found = KEYS.iter().find_map(|key| secret.data.get(*key));
    found.map_or(Seen::Empty, |content| Seen::Kubeconfig(Arc::new(content.0.clone())))
}
