//! Follows a request by a watch, and prints its changes.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use o2ims_types::{FocomProvisioningRequest, ProvisioningRequest};
use serde::de::DeserializeOwned;

use crate::output::say_at;

/// A request of the SMO or of an O-Cloud.
pub trait Request: Resource + Clone + Debug + DeserializeOwned + Send + 'static {
    /// The state of a ProvisioningRequest, or the phase of a FocomProvisioningRequest; `None` without a status.
    fn stage(&self) -> Option<String>;
    /// Further information for people, to be printed after the stage.
    fn detail(&self) -> String;
    /// The message of the status.
    fn message(&self) -> String;
    /// Whether the cluster is provisioned.
    fn is_fulfilled(&self) -> bool;
    /// Whether the request has failed.
    fn has_failed(&self) -> bool;
}

impl Request for ProvisioningRequest {
    fn stage(&self) -> Option<String> {
        Some(self.status.as_ref().filter(|_| !self.is_new())?.provisioning_status.provisioning_state.to_string())
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
        Some(self.status.as_ref().filter(|_| !self.is_new())?.phase.clone())
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

/// Follows one request.
pub struct Follower<R> {
    changes: BoxStream<'static, Result<Option<R>, watcher::Error>>,
    begun: Instant,
    /// The last line that was printed.
    last_line: String,
    stages: Vec<String>,
}

impl<R: Request> Follower<R> {
    /// Follows the request of this name, which need not exist yet. Printed seconds are counted from `begun`.
    pub fn new(api: Api<R>, name: &str, begun: Instant) -> Self {
        let changes = watcher::watch_object(api, name).default_backoff().boxed();
        Self { changes, begun, last_line: String::new(), stages: Vec::new() }
    }

    /// Waits until the request is fulfilled.
    ///
    /// # Errors
    /// When the request fails, or `limit` passes.
    pub async fn until_fulfilled(&mut self, limit: Duration) -> anyhow::Result<R> {
        self.until(limit, R::is_fulfilled).await
    }

    /// Waits until `done` returns true for the request.
    ///
    /// # Errors
    /// When the request fails, or `limit` passes.
    pub async fn until(&mut self, limit: Duration, done: impl Fn(&R) -> bool) -> anyhow::Result<R> {
        let follow = async {
            loop {
                // The request may not exist yet.
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
            .unwrap_or_else(|_| Err(self.timeout_error("as far as it should be", limit)))
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
        tokio::time::timeout(limit, follow).await.unwrap_or_else(|_| Err(self.timeout_error("gone", limit)))
    }

    /// The stages that the request went through.
    pub fn stages(&self) -> &[String] {
        &self.stages
    }

    fn timeout_error(&self, what: &str, limit: Duration) -> anyhow::Error {
        let last = if self.last_line.is_empty() { "nothing" } else { &self.last_line };
        anyhow!("the request was not {what} after {} s; last seen: {last}", limit.as_secs())
    }

    /// The next state of the request; `None` if it does not exist.
    async fn next(&mut self) -> anyhow::Result<Option<R>> {
        let request = self.changes.try_next().await.context("watching the request")?.context("the watch ended")?;
        if let Some(request) = &request {
            self.print_change(request);
        }
        Ok(request)
    }

    /// Prints a line about the request if it differs from the line before.
    fn print_change(&mut self, request: &R) {
        let Some(stage) = request.stage() else { return };
        let line = format!("{} {stage}{}: {}", request.name_any(), request.detail(), request.message());
        if self.stages.last() != Some(&stage) {
            self.stages.push(stage);
        }
        if line != self.last_line {
            say_at(self.begun, &line);
            self.last_line = line;
        }
    }
}
