//! Metrics: what is counted in the caches.

use focom_operator::metrics;
use o2ims_types::{FocomProvisioningRequest, OCloud, OrphanedRequests};
use operator_kit::cache::CachedObjects;
use operator_kit::metrics::Metrics;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn condition(type_: &str, reason: &str) -> Value {
    let since = "2026-01-01T00:00:00Z";
    json!({"type": type_, "status": "True", "reason": reason, "message": "", "lastTransitionTime": since})
}

fn request(name: &str, status: &Value) -> FocomProvisioningRequest {
    from(json!({
        "apiVersion": "focom.nephio.org/v1alpha1", "kind": "FocomProvisioningRequest",
        "metadata": {"name": name, "namespace": "team"}, "status": status,
        "spec": {"oCloudId": "site", "oCloudNamespace": "team", "templateName": "t", "templateVersion": "v1", "templateParameters": {}},
    }))
}

fn o_cloud(name: &str, reason: Option<&str>) -> OCloud {
    let status = reason.map(|reason| json!({"conditions": [condition("Ready", reason)]}));
    from(json!({
        "apiVersion": "focom.nephio.org/v1alpha1", "kind": "OCloud",
        "metadata": {"name": name, "namespace": "team"}, "status": status,
        "spec": {"o2imsSecret": {"secretRef": {"name": name}}},
    }))
}

fn with_orphans(name: &str, count: i64) -> OCloud {
    let mut o_cloud = o_cloud(name, Some("Ready"));
    let orphans = OrphanedRequests { count, ..OrphanedRequests::default() };
    o_cloud.status.as_mut().unwrap().orphaned_requests = Some(orphans);
    o_cloud
}

#[test]
fn requests_are_counted_by_phase_and_o_clouds_by_state() {
    let requests: CachedObjects<_> = [
        request("a", &Value::Null),
        request("b", &json!({"phase": ""})),
        request("c", &json!({"phase": "Synced"})),
        request("d", &json!({"phase": "Failed", "conditions": [condition("Stalled", "Refused")]})),
        request("e", &json!({"phase": "of another operator\n"})),
    ]
    .into_iter()
    .collect();
    let o_clouds: CachedObjects<_> = [
        o_cloud("a", None),
        o_cloud("b", Some("Ready")),
        o_cloud("c", Some("Unreachable")),
        o_cloud("d", Some("Unreachable")),
        o_cloud("e", Some("of somebody else")),
        with_orphans("f", 2),
        with_orphans("g", 3),
    ]
    .into_iter()
    .collect();
    let process = Metrics::new("focom-operator", "0");
    metrics::register(&process, &requests.store(), &o_clouds.store());
    let text = process.encode_for_prometheus().unwrap();
    for sample in [
        r#"focom_requests{phase="Pending"} 2.0"#,
        r#"focom_requests{phase="Creating"} 0.0"#,
        r#"focom_requests{phase="Synced"} 1.0"#,
        r#"focom_requests{phase="Failed"} 1.0"#,
        r#"focom_requests{phase="Deleting"} 0.0"#,
        r#"focom_requests{phase="Other"} 1.0"#,
        "focom_requests_stalled 1.0",
        "focom_orphaned_provisioning_requests 5.0",
        r#"focom_oclouds{state="Connecting"} 1.0"#,
        r#"focom_oclouds{state="Ready"} 3.0"#,
        r#"focom_oclouds{state="Unreachable"} 2.0"#,
        r#"focom_oclouds{state="SecretMissing"} 0.0"#,
        r#"focom_oclouds{state="TooLarge"} 0.0"#,
        r#"focom_oclouds{state="Other"} 1.0"#,
    ] {
        assert!(text.lines().any(|line| line == sample), "{sample} in\n{text}");
    }
}
