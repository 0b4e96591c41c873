//! The requests that the API server has answered, from its audit log.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The audit policy: metadata of all requests, without bodies. The stage `RequestReceived` is left out because a later
/// stage of the same request has all of its information.
pub(crate) const POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
"omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}"#;

/// The audit log of the management cluster's API server. Each request is listed once: a watch when it has begun, all
/// others when they were answered. The server writes an entry after it has sent the answer, so a client that looks for
/// its own request may have to read the log again.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
}

/// A position in the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditMark(u64);

/// One request to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// The request's unique id.
    pub id: String,
    /// `ResponseComplete`, `ResponseStarted` (a watch) or `Panic`.
    pub stage: String,
    /// The user name.
    pub user: String,
    /// The `User-Agent` of the client.
    pub user_agent: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or a lower-case HTTP method.
    pub verb: String,
    /// Path and query.
    pub uri: String,
    /// The resource's API group; empty for the core group.
    pub api_group: String,
    /// The plural name of the resource, such as `byohosts`; empty for requests that are not about a resource.
    pub resource: String,
    /// The subresource, such as `status`; empty for the object itself.
    pub subresource: String,
    /// The namespace; empty for requests without one.
    pub namespace: String,
    /// The object's name; empty for lists, and for creations whose path has no name.
    pub name: String,
    /// The HTTP status of the answer; 0 if the log has none.
    pub code: u16,
    /// Whether RBAC refused the request. A 403 can also come from a policy, or from a namespace that is being deleted.
    pub lacks_right: bool,
    /// When the request was received, RFC 3339 with microseconds.
    pub received: String,
    /// When this stage was reached, RFC 3339 with microseconds.
    pub completed: String,
}

impl AuditEntry {
    /// Whether the request is one that changes objects.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Whether the request is a watch.
    pub fn is_watch(&self) -> bool {
        self.verb == "watch"
    }
}

impl AuditLog {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The current end of the log.
    pub fn mark(&self) -> Result<AuditMark> {
        let metadata = std::fs::metadata(&self.path).with_context(|| self.unreadable())?;
        Ok(AuditMark(metadata.len()))
    }

    /// All requests since the start of the API server.
    pub fn entries(&self) -> Result<Vec<AuditEntry>> {
        self.since(&AuditMark(0))
    }

    /// The requests that were logged after the mark.
    pub fn since(&self, mark: &AuditMark) -> Result<Vec<AuditEntry>> {
        let mut bytes = Vec::new();
        let mut read = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(mark.0))?;
            file.read_to_end(&mut bytes)
        };
        read().with_context(|| self.unreadable())?;
        // The last line may not be written to its end yet.
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut entries = Vec::new();
        for line in bytes.get(..complete).unwrap_or_default().split(|byte| *byte == b'\n') {
            // The first line is incomplete if the position was in the middle of it.
            let Ok(event) = serde_json::from_slice::<Event>(line) else { continue };
            let entry = AuditEntry::from(event);
            let ended_watch = entry.is_watch() && entry.stage == "ResponseComplete" && entry.code == 200;
            let begun_only = !entry.is_watch() && entry.stage == "ResponseStarted";
            if !ended_watch && !begun_only {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn unreadable(&self) -> String {
        format!("cannot read the audit log {}", self.path.display())
    }
}

/// The fields of a line of the log (`audit.k8s.io/v1`, kind `Event`) that are used here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
    #[serde(default)]
    annotations: HashMap<String, String>,
    request_received_timestamp: String,
    stage_timestamp: String,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

impl From<Event> for AuditEntry {
    fn from(event: Event) -> Self {
        Self {
            id: event.audit_id,
            stage: event.stage,
            user: event.user.username,
            user_agent: event.user_agent,
            verb: event.verb,
            uri: event.request_uri,
            api_group: event.object_ref.api_group,
            resource: event.object_ref.resource,
            subresource: event.object_ref.subresource,
            namespace: event.object_ref.namespace,
            name: event.object_ref.name,
            code: event.response_status.code,
            lacks_right: event.annotations.get("authorization.k8s.io/decision").is_some_and(|said| said == "forbid"),
            received: event.request_received_timestamp,
            completed: event.stage_timestamp,
        }
    }
}
