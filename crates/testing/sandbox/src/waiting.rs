//! Waits for a state of an object, by a watch.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{anyhow, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// Watches one object until `done` returns true for it (`None`: it does not exist), and returns it.
///
/// # Errors
/// When that does not happen within `limit`; the error shows the last state.
pub async fn wait<K>(
    api: Api<K>,
    name: &str,
    what: &str,
    limit: Duration,
    mut done: impl FnMut(Option<&K>) -> bool,
) -> anyhow::Result<Option<K>>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut last: Option<K> = None;
    let seen = async {
        let mut events = watcher::watch_object(api, name).default_backoff().boxed();
        while let Some(object) = events.try_next().await? {
            let finished = done(object.as_ref());
            last = object;
            if finished {
                return Ok(());
            }
        }
        Err(anyhow!("the watch ended"))
    };
    match tokio::time::timeout(limit, seen).await {
        Ok(result) => result.map(|()| last),
        Err(_) => {
            bail!("waited {} s for {what}; last seen: {last:#?}", limit.as_secs())
        }
    }
}
