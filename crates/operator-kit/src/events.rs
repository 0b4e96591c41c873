//! Kubernetes events. They inform people, so a failure to publish one does not fail a reconcile.
//!
//! Needs the right `create` on `events`. They are of `v1`: those of `events.k8s.io/v1` have no `lastTimestamp`, by which
//! `kubectl get events --sort-by=.lastTimestamp` and most tools sort.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

use crate::text::cut;

/// Longest message that the API takes, in bytes.
const MESSAGE_MAX: usize = 1024;
/// A reconcile must not wait for an event.
const PUBLISH_LIMIT: Duration = Duration::from_secs(5);

/// Publishes and logs the events of one operator. The caller publishes on a change only.
///
/// Each event is an object of its own.
#[derive(Clone)]
pub struct Events {
    client: Client,
    controller: String,
    instance: String,
}

impl Events {
    /// `controller` names the controller, `instance` the process (its pod).
    pub fn new(client: Client, controller: impl Into<String>, instance: impl Into<String>) -> Self {
        Self { client, controller: controller.into(), instance: instance.into() }
    }

    /// An event of type Normal. `reason` and `action` are CamelCase constants of at most 128 characters.
    pub async fn normal(&self, regarding: &ObjectReference, reason: &str, action: &str, note: &str) {
        self.publish("Normal", regarding, reason, action, note).await;
    }

    /// An event of type Warning: people should look at it.
    pub async fn warning(&self, regarding: &ObjectReference, reason: &str, action: &str, note: &str) {
        self.publish("Warning", regarding, reason, action, note).await;
    }

    async fn publish(&self, type_: &str, regarding: &ObjectReference, reason: &str, action: &str, note: &str) {
        let (namespace, name) = (regarding.namespace.as_deref(), regarding.name.as_deref());
        tracing::info!(kind = regarding.kind.as_deref(), namespace, name, reason, note, "event");
        let event = self.event(type_, regarding, reason, action, note, Timestamp::now());
        let api =
            Api::<Event>::namespaced(self.client.clone(), event.metadata.namespace.as_deref().unwrap_or_default());
        match tokio::time::timeout(PUBLISH_LIMIT, api.create(&PostParams::default(), &event)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(reason, error = %crate::controller::error::Error::from(error), "event not published");
            }
            Err(_) => tracing::warn!(reason, "event not published: no answer"),
        }
    }

    fn event(
        &self,
        type_: &str,
        regarding: &ObjectReference,
        reason: &str,
        action: &str,
        note: &str,
        now: Timestamp,
    ) -> Event {
        // Events about cluster-scoped objects are in this namespace.
        let namespace = regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = format!("{}.", regarding.name.as_deref().unwrap_or_default());
        Event {
            metadata: ObjectMeta { namespace: Some(namespace), generate_name: Some(name), ..ObjectMeta::default() },
            involved_object: regarding.clone(),
            type_: Some(type_.to_owned()),
            reason: Some(reason.to_owned()),
            action: Some(action.to_owned()),
            message: Some(cut(note.to_owned(), MESSAGE_MAX)),
            source: Some(EventSource { component: Some(self.controller.clone()), host: None }),
            reporting_component: Some(self.controller.clone()),
            reporting_instance: Some(self.instance.clone()),
            event_time: Some(MicroTime(now)),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Event::default()
        }
    }
}
