//! The `ByoHost` object as the agent reads and writes it. It is a dynamic object, because neither variant's schema
//! covers the other's.

use cluster_api::{
    Kind,
    byoh::{MACHINE_NAME_LABEL, MACHINE_VERSION_ANNOTATION, UNREGISTERING_ANNOTATION},
    labels::CLUSTER_NAME_LABEL,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::ApiResource,
};
use serde_json::{Map, Value, json};

/// Annotations that attachment sets on a host, and release removes.
pub(crate) const ATTACHMENT_ANNOTATIONS: [&str; 4] = [
    "byoh.infrastructure.cluster.x-k8s.io/endpointip",
    UNREGISTERING_ANNOTATION,
    MACHINE_VERSION_ANNOTATION,
    "byoh.infrastructure.cluster.x-k8s.io/bundle-registry",
];
/// Labels that attachment sets on a host, and release removes.
pub(crate) const ATTACHMENT_LABELS: [&str; 2] = [CLUSTER_NAME_LABEL, MACHINE_NAME_LABEL];

/// The resource `byohosts`.
pub(crate) fn resource() -> ApiResource {
    Kind::ByoHost.api_resource()
}

/// The API of a namespace's hosts.
pub(crate) fn api(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &resource())
}

/// Severity of a condition that is not true.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Severity {
    Info,
    Error,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Info => "Info",
            Self::Error => "Error",
        }
    }
}

/// The fields that an agent reads and changes.
pub(crate) trait ByoHost {
    /// A field of `spec`; `None` if it is absent or null.
    fn spec(&self, field: &str) -> Option<&Value>;
    /// A field of `status`; `None` if it is absent or null.
    fn status(&self, field: &str) -> Option<&Value>;
    /// Sets a field of `spec` or `status` (`part`); `None` removes it.
    fn set(&mut self, part: &str, field: &str, value: Option<Value>);
    /// Whether a condition is `True`.
    fn is_true(&self, condition: &str) -> bool;
    fn mark_true(&mut self, condition: &str);
    fn mark_false(&mut self, condition: &str, reason: &str, severity: Severity);
    fn annotation(&self, key: &str) -> Option<&str>;
    /// Name and namespace of the Secret that a field of `spec` refers to.
    fn secret(&self, field: &str) -> Option<(String, String)>;
}

impl ByoHost for DynamicObject {
    fn spec(&self, field: &str) -> Option<&Value> {
        self.data.get("spec")?.get(field).filter(|value| !value.is_null())
    }

    fn status(&self, field: &str) -> Option<&Value> {
        self.data.get("status")?.get(field).filter(|value| !value.is_null())
    }

    fn set(&mut self, part: &str, field: &str, value: Option<Value>) {
        if !self.data.is_object() {
            self.data = Value::Object(Map::new());
        }
        let Some(object) = self.data.as_object_mut() else { return };
        let part = object.entry(part).or_insert_with(|| Value::Object(Map::new()));
        let Some(part) = part.as_object_mut() else { return };
        match value {
            Some(value) => part.insert(field.to_owned(), value),
            None => part.remove(field),
        };
    }

    fn is_true(&self, condition: &str) -> bool {
        conditions(&self.data).iter().any(|c| c["type"] == condition && c["status"] == "True")
    }

    fn mark_true(&mut self, condition: &str) {
        mark(self, json!({"type": condition, "status": "True"}));
    }

    fn mark_false(&mut self, condition: &str, reason: &str, severity: Severity) {
        mark(self, json!({"type": condition, "status": "False", "severity": severity.as_str(), "reason": reason}));
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    fn secret(&self, field: &str) -> Option<(String, String)> {
        let reference = self.spec(field)?;
        let text = |key: &str| reference.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some((text("name"), text("namespace")))
    }
}

fn conditions(data: &Value) -> Vec<Value> {
    data.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// The current time in the format of Kubernetes.
pub(crate) fn now() -> Value {
    serde_json::to_value(Time(Timestamp::now())).unwrap_or_default()
}

/// Sets a condition. Its transition time changes only if another field changes.
fn mark(host: &mut DynamicObject, mut condition: Value) {
    let mut list = conditions(&host.data);
    let old = list.iter().position(|c| c["type"] == condition["type"]);
    let same = |a: &Value, b: &Value| {
        ["status", "severity", "reason", "message"]
            .iter()
            .all(|field| a[field].as_str().unwrap_or_default() == b[field].as_str().unwrap_or_default())
    };
    match old {
        Some(at) if same(&list[at], &condition) => return,
        Some(at) => {
            condition["lastTransitionTime"] = now();
            list[at] = condition;
        }
        None => {
            condition["lastTransitionTime"] = now();
            list.push(condition);
        }
    }
    sort(&mut list);
    host.set("status", "conditions", Some(Value::Array(list)));
}

/// Sorts conditions as Cluster API does: `Ready` first, the others by name.
fn sort(list: &mut [Value]) {
    list.sort_by_key(|c| {
        let name = c["type"].as_str().unwrap_or_default().to_owned();
        (name != "Ready", name)
    });
}

/// The JSON merge patch from `before` to `after`; `None` if they are equal.
fn merge_patch(before: &Value, after: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(previous) => {
                if let Some(change) = merge_patch(previous, value) {
                    patch.insert(key.clone(), change);
                }
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The object without its status, and the status without its conditions. They and the conditions are written
/// separately.
fn parts(host: &DynamicObject) -> serde_json::Result<(Value, Value)> {
    let mut main = serde_json::to_value(host)?;
    let mut status = Value::Object(Map::new());
    if let Some(object) = main.as_object_mut()
        && let Some(taken) = object.remove("status")
    {
        status = taken;
    }
    if let Some(object) = status.as_object_mut() {
        object.remove("conditions");
    }
    Ok((main, status))
}

/// How often a write of conditions is retried after a conflict.
const MAX_RETRIES: u32 = 5;

/// Writes the difference between two states of a host, in the order and with the patches of Cluster API's patch
/// library, which the agent uses: conditions, then the object without its status, then the rest of the status.
/// Conditions are a list, which a merge patch replaces, so they are read again and written with the resource version as
/// a precondition. A failed write does not prevent the later ones.
pub(crate) async fn write(
    api: &Api<DynamicObject>,
    name: &str,
    before: &DynamicObject,
    after: &DynamicObject,
) -> anyhow::Result<()> {
    let mut outcome = write_conditions(api, name, before, after).await;
    let (main_before, status_before) = parts(before)?;
    let (main_after, status_after) = parts(after)?;
    if let Some(patch) = merge_patch(&main_before, &main_after) {
        let written = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        outcome = outcome.and(written.map(drop).map_err(Into::into));
    }
    if let Some(patch) = merge_patch(&status_before, &status_after) {
        let patch = Patch::Merge(json!({"status": patch}));
        let written = api.patch_status(name, &PatchParams::default(), &patch).await;
        outcome = outcome.and(written.map(drop).map_err(Into::into));
    }
    outcome
}

async fn write_conditions(
    api: &Api<DynamicObject>,
    name: &str,
    before: &DynamicObject,
    after: &DynamicObject,
) -> anyhow::Result<()> {
    let old = conditions(&before.data);
    let changed: Vec<_> = conditions(&after.data).into_iter().filter(|c| !old.contains(c)).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let mut attempt = 0;
    loop {
        let latest = api.get(name).await?;
        let mut list = conditions(&latest.data);
        list.retain(|c| !changed.iter().any(|new| new["type"] == c["type"]));
        list.extend(changed.iter().cloned());
        sort(&mut list);
        let patch = json!({
            "metadata": {"resourceVersion": latest.metadata.resource_version},
            "status": {"conditions": list},
        });
        match api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 && attempt < MAX_RETRIES => attempt += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_api::byoh::BOOTSTRAP_SUCCEEDED;

    fn host(data: Value) -> DynamicObject {
        let mut host = DynamicObject::new("target-1", &resource());
        host.data = data;
        host
    }

    #[test]
    fn merge_patch_names_only_what_changed() {
        let before = json!({"a": {"x": 1, "y": 2}, "b": [1], "c": 3});
        let after = json!({"a": {"x": 1, "z": 4}, "b": [1, 2], "c": 3});
        assert_eq!(merge_patch(&before, &after), Some(json!({"a": {"y": null, "z": 4}, "b": [1, 2]})));
        assert_eq!(merge_patch(&before, &before), None);
    }

    #[test]
    fn an_unchanged_condition_keeps_its_time() {
        let mut host = host(json!({"status": {"conditions": [
            {"type": "AgentConnected", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
            {"type": BOOTSTRAP_SUCCEEDED, "status": "False", "severity": "Info", "reason": "K8sNodeAbsent",
             "lastTransitionTime": "2020-01-01T00:00:00Z"},
        ]}}));
        let before = host.clone();
        host.mark_false(BOOTSTRAP_SUCCEEDED, "K8sNodeAbsent", Severity::Info);
        assert_eq!(host, before);
        host.mark_true(BOOTSTRAP_SUCCEEDED);
        assert!(host.is_true(BOOTSTRAP_SUCCEEDED));
        assert!(host.is_true("AgentConnected"));
        assert_ne!(host.data["status"]["conditions"][1]["lastTransitionTime"], "2020-01-01T00:00:00Z");
        assert!(host.data["status"]["conditions"][1].get("severity").is_none());
    }

    #[test]
    fn fields_are_set_and_removed() {
        let mut host = host(json!({}));
        host.set("spec", "bootstrapSecret", Some(json!({"name": "s", "namespace": "n"})));
        assert_eq!(host.secret("bootstrapSecret"), Some(("s".to_owned(), "n".to_owned())));
        host.set("spec", "bootstrapSecret", None);
        assert_eq!(host.spec("bootstrapSecret"), None);
    }
}
