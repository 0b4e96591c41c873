//! What the API server was asked, from its own audit log.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The audit policy of a bed: who asked what, without bodies. The stage of an arriving request says nothing that its
/// completion does not say too.
pub(crate) const POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
"omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}"#;

/// The audit log of the management API server. Each request is listed once: a watch when it has begun, everything else
/// when it was answered. The server writes the entry just after the answer has gone out, so who looks for a request of his
/// own may have to look twice.
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
    /// The client program, as it calls itself.
    pub user_agent: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or a lower-case HTTP method.
    pub verb: String,
    /// Path and query of the request.
    pub uri: String,
    /// The resource's API group; empty for the core group.
    pub api_group: String,
    /// The resource in plural, such as `byohosts`; empty for requests that are not about a resource.
    pub resource: String,
    /// Such as `status`; empty for the object itself.
    pub subresource: String,
    /// The namespace; empty for cluster-wide requests.
    pub namespace: String,
    /// The object's name; empty for lists, and for creations that leave the name to the body.
    pub name: String,
    /// The HTTP status that was answered; 0 if the log has none.
    pub code: u16,
    /// The user has no right to it, as RBAC says. A 403 may also be a policy's, or that of a namespace that is being deleted.
    pub lacks_right: bool,
    /// When the request came, RFC 3339 with microseconds.
    pub received: String,
    /// When this stage was reached, RFC 3339 with microseconds.
    pub completed: String,
}

impl AuditEntry {
    /// Whether the request meant to change something.
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

    /// The end of the log as it is now.
    pub fn mark(&self) -> Result<AuditMark> {
        let metadata = std::fs::metadata(&self.path).with_context(|| self.unreadable())?;
        Ok(AuditMark(metadata.len()))
    }

    /// All requests of the bed's life.
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
        // The last line may still be in the middle of being written.
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut entries = Vec::new();
        for line in bytes.get(..complete).unwrap_or_default().split(|byte| *byte == b'\n') {
            // The start of the very first line is missing if the mark was taken in the middle of it.
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

/// A line of the log (`audit.k8s.io/v1`, kind `Event`), as far as it is used here.
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
