//! Kubernetes events. They inform people, so a failure to publish one does not fail a reconcile.
//!
//! Needs the right `create` on `events` of `events.k8s.io`.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use crate::write::status::truncated;

/// Longest note that the API takes, in bytes (`events.k8s.io/v1`, `note`).
const NOTE_MAX: usize = 1024;
/// The recorder has no time limit of its own, and a reconcile must not wait for an event.
const PUBLISH_LIMIT: Duration = Duration::from_secs(5);

/// Publishes and logs the events of one operator. The caller publishes on a change only.
///
/// Each event is an object of its own. kube would combine events that differ in their note only into a series, which
/// shows the note of the first.
#[derive(Clone)]
pub struct Events {
    client: Client,
    reporter: Reporter,
}

impl Events {
    /// `controller` names the controller, `instance` the process (its pod).
    pub fn new(client: Client, controller: impl Into<String>, instance: impl Into<String>) -> Self {
        Self { client, reporter: Reporter { controller: controller.into(), instance: Some(instance.into()) } }
    }

    /// An event of type Normal. `reason` and `action` are CamelCase constants of at most 128 characters.
    pub async fn normal(&self, regarding: &ObjectReference, reason: &str, action: &str, note: &str) {
        self.publish(EventType::Normal, regarding, reason, action, note).await;
    }

    /// An event of type Warning: people should look at it.
    pub async fn warning(&self, regarding: &ObjectReference, reason: &str, action: &str, note: &str) {
        self.publish(EventType::Warning, regarding, reason, action, note).await;
    }

    async fn publish(&self, type_: EventType, regarding: &ObjectReference, reason: &str, action: &str, note: &str) {
        let (namespace, name) = (regarding.namespace.as_deref(), regarding.name.as_deref());
        tracing::info!(kind = regarding.kind.as_deref(), namespace, name, reason, note, "event");
        let event = Event {
            type_,
            reason: reason.to_owned(),
            action: action.to_owned(),
            note: Some(truncated(note.to_owned(), NOTE_MAX)),
            secondary: None,
        };
        // A recorder makes a series only of events that it has published itself.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        match tokio::time::timeout(PUBLISH_LIMIT, recorder.publish(&event, regarding)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(reason, error = %crate::controller::error::Error::from(error), "event not published");
            }
            Err(_) => tracing::warn!(reason, "event not published: no answer"),
        }
    }
}
