//! Follows a request by a watch, and prints what changes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use o2ims_types::{ProvisioningRequest, ProvisioningState};

use crate::say_at;

/// A request as it changes.
pub struct Follower {
    changes: BoxStream<'static, Result<Option<ProvisioningRequest>, watcher::Error>>,
    begun: Instant,
    told: String,
    states: Vec<ProvisioningState>,
}

impl Follower {
    /// Follows the request of this name, which need not exist yet. Seconds are counted from `begun`.
    pub fn new(api: Api<ProvisioningRequest>, name: &str, begun: Instant) -> Self {
        let changes = watcher::watch_object(api, name).default_backoff().boxed();
        Self { changes, begun, told: String::new(), states: Vec::new() }
    }

    /// Waits until the request is fulfilled.
    ///
    /// # Errors
    /// When it fails, is deleted, or `limit` passes.
    pub async fn until_fulfilled(&mut self, limit: Duration) -> anyhow::Result<ProvisioningRequest> {
        let follow = async {
            loop {
                // It may not be there yet.
                let Some(request) = self.next().await? else { continue };
                let Some(status) = &request.status else { continue };
                match status.provisioning_status.provisioning_state {
                    ProvisioningState::Fulfilled => return Ok(request),
                    ProvisioningState::Failed => {
                        bail!("the request has failed: {}", status.provisioning_status.provisioning_message)
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(limit, follow).await.unwrap_or_else(|_| Err(self.too_late("fulfilled", limit)))
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

    /// The states that were seen, each change once.
    pub fn states(&self) -> &[ProvisioningState] {
        &self.states
    }

    fn too_late(&self, what: &str, limit: Duration) -> anyhow::Error {
        let told = if self.told.is_empty() { "nothing" } else { &self.told };
        anyhow!("the request was not {what} after {} s; last seen: {told}", limit.as_secs())
    }

    async fn next(&mut self) -> anyhow::Result<Option<ProvisioningRequest>> {
        let request = self.changes.try_next().await.context("watching the request")?.context("the watch ended")?;
        if let Some(request) = &request {
            self.note(request);
        }
        Ok(request)
    }

    fn note(&mut self, request: &ProvisioningRequest) {
        let Some(status) = &request.status else { return };
        let state = status.provisioning_status.provisioning_state;
        if self.states.last() != Some(&state) {
            self.states.push(state);
        }
        let nodes = status.extensions.ready_nodes.as_deref().unwrap_or("0/0");
        let told = format!(
            "{} {state}, {nodes} nodes ready: {}",
            request.name_any(),
            status.provisioning_status.provisioning_message
        );
        if told != self.told {
            say_at(self.begun, &told);
            self.told = told;
        }
    }
}
