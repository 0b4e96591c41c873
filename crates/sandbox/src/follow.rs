//! Follows a request by a watch, and prints what changes.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use o2ims_types::{FocomProvisioningRequest, ProvisioningRequest};
use serde::de::DeserializeOwned;

use crate::say_at;

/// A request of either side.
pub trait Request: Resource + Clone + Debug + DeserializeOwned + Send + 'static {
    /// How far it is, in the word of its own kind.
    fn stage(&self) -> Option<String>;
    /// What stands beside it in a line for people.
    fn detail(&self) -> String;
    /// Its message.
    fn message(&self) -> String;
    /// Whether its cluster is there.
    fn is_fulfilled(&self) -> bool;
    /// Whether it has failed.
    fn has_failed(&self) -> bool;
}

impl Request for ProvisioningRequest {
    fn stage(&self) -> Option<String> {
        Some(self.status.as_ref()?.provisioning_status.provisioning_state.to_string())
    }
    fn detail(&self) -> String {
        let nodes = self.status.as_ref().and_then(|status| status.extensions.ready_nodes.as_deref());
        format!(", {} nodes ready", nodes.unwrap_or("0/0"))
    }
    fn message(&self) -> String {
        self.status.as_ref().map(|status| status.provisioning_status.provisioning_message.clone()).unwrap_or_default()
    }
    fn is_fulfilled(&self) -> bool {
        self.stage().as_deref() == Some("fulfilled")
    }
    fn has_failed(&self) -> bool {
        self.stage().as_deref() == Some("failed")
    }
}

impl Request for FocomProvisioningRequest {
    fn stage(&self) -> Option<String> {
        Some(self.status.as_ref()?.phase.clone())
    }
    fn detail(&self) -> String {
        self.remote_state().map(|state| format!(", the O-Cloud says {state}")).unwrap_or_default()
    }
    fn message(&self) -> String {
        self.status.as_ref().map(|status| status.message.clone()).unwrap_or_default()
    }
    fn is_fulfilled(&self) -> bool {
        self.stage().as_deref() == Some("Synced") && self.remote_state() == Some("fulfilled")
    }
    fn has_failed(&self) -> bool {
        self.stage().as_deref() == Some("Failed")
    }
}

/// A request as it changes.
pub struct Follower<R> {
    changes: BoxStream<'static, Result<Option<R>, watcher::Error>>,
    begun: Instant,
    told: String,
    stages: Vec<String>,
}

impl<R: Request> Follower<R> {
    /// Follows the request of this name, which need not exist yet. Seconds are counted from `begun`.
    pub fn new(api: Api<R>, name: &str, begun: Instant) -> Self {
        let changes = watcher::watch_object(api, name).default_backoff().boxed();
        Self { changes, begun, told: String::new(), stages: Vec::new() }
    }

    /// Waits until the request is fulfilled.
    ///
    /// # Errors
    /// When it fails, or `limit` passes.
    pub async fn until_fulfilled(&mut self, limit: Duration) -> anyhow::Result<R> {
        self.until(limit, R::is_fulfilled).await
    }

    /// Waits until `done` holds for the request.
    ///
    /// # Errors
    /// When it fails, or `limit` passes.
    pub async fn until(&mut self, limit: Duration, done: impl Fn(&R) -> bool) -> anyhow::Result<R> {
        let follow = async {
            loop {
                // It may not be there yet.
                let Some(request) = self.next().await? else { continue };
                if done(&request) {
                    return Ok(request);
                }
                if request.has_failed() {
                    bail!("the request has failed: {}", request.message());
                }
            }
        };
        tokio::time::timeout(limit, follow)
            .await
            .unwrap_or_else(|_| Err(self.too_late("as far as it should be", limit)))
    }

    /// Waits until the request does not exist any more.
    ///
    /// # Errors
    /// When `limit` passes.
    pub async fn until_gone(&mut self, limit: Duration) -> anyhow::Result<()> {
        let follow = async {
            while self.next().await?.is_some() {}
            Ok(())
        };
        tokio::time::timeout(limit, follow).await.unwrap_or_else(|_| Err(self.too_late("gone", limit)))
    }

    /// The stages that were seen, each change once.
    pub fn stages(&self) -> &[String] {
        &self.stages
    }

    fn too_late(&self, what: &str, limit: Duration) -> anyhow::Error {
        let told = if self.told.is_empty() { "nothing" } else { &self.told };
        anyhow!("the request was not {what} after {} s; last seen: {told}", limit.as_secs())
    }

    async fn next(&mut self) -> anyhow::Result<Option<R>> {
        let request = self.changes.try_next().await.context("watching the request")?.context("the watch ended")?;
        if let Some(request) = &request {
            self.note(request);
        }
        Ok(request)
    }

    fn note(&mut self, request: &R) {
        let Some(stage) = request.stage() else { return };
        let told = format!("{} {stage}{}: {}", request.name_any(), request.detail(), request.message());
        if self.stages.last() != Some(&stage) {
            self.stages.push(stage);
        }
        if told != self.told {
            say_at(self.begun, &told);
            self.told = told;
        }
    }
}
