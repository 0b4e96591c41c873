//! Metrics: what is counted in the caches, and what is observed when a status is written.

use cluster_api::byoh::{ByohVariant, UNREGISTERING_ANNOTATION};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_operator::metrics::Metrics;
use o2ims_types::conditions::{self, reason};
use o2ims_types::{ProvisioningRequest, ProvisioningRequestStatus, names};
use operator_kit::metrics::Metrics as ProcessMetrics;
use operator_kit::write::status::{ConditionStatus, ConditionUpdate, set};
use serde_json::json;

use crate::model::{World, from, request};

fn registered(world: &World) -> (ProcessMetrics, Metrics) {
    let (process, caches) = (ProcessMetrics::new("o2ims-operator", "0"), world.watches());
    let metrics = Metrics::new(&process, caches.requests.all(), caches.hosts.all(), caches.machines.all());
    (process, metrics)
}

fn tells(process: &ProcessMetrics, samples: &[&str]) {
    let text = process.encode_for_prometheus().unwrap();
    for sample in samples {
        assert!(text.lines().any(|line| line == *sample), "{sample} in\n{text}");
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A world with one cluster, on hosts 1 and 2.
fn running(hosts: u32) -> World {
    let mut world = World::new(ByohVariant::Platform9, json!({}), hosts);
    world.submit(request("one", "core", &[1], &[2]));
    world.settle();
    world
}

fn condition(type_: &str, reason: &str) -> serde_json::Value {
    let since = "2026-01-01T00:00:00Z";
    json!({"type": type_, "status": "True", "reason": reason, "message": "", "lastTransitionTime": since})
}

fn status(state: &str, conditions: &[serde_json::Value]) -> ProvisioningRequestStatus {
    from(json!({"provisioningStatus": {"provisioningState": state}, "conditions": conditions}))
}

#[test]
fn requests_are_counted_by_state() {
    let mut world = running(2);
    world.submit(request("two", "edge", &[3], &[]));
    for (name, reason) in [("three", reason::DEADLINE_EXCEEDED), ("four", "a reason\nof somebody else")] {
        let mut failed = request(name, name, &[3], &[]);
        let conditions = [condition(conditions::STALLED, reason), condition(conditions::DEGRADED, reason::MISMATCH)];
        failed.status = Some(status("failed", &conditions));
        world.submit(failed);
    }
    let (process, _) = registered(&world);
    tells(
        &process,
        &[
            r#"o2ims_requests{state="pending"} 1.0"#,
            r#"o2ims_requests{state="progressing"} 0.0"#,
            r#"o2ims_requests{state="fulfilled"} 1.0"#,
            r#"o2ims_requests{state="failed"} 2.0"#,
            r#"o2ims_requests{state="deleting"} 0.0"#,
            r#"o2ims_requests_stalled{reason="DeadlineExceeded"} 1.0"#,
            r#"o2ims_requests_stalled{reason="Invalid"} 0.0"#,
            r#"o2ims_requests_stalled{reason="Other"} 1.0"#,
            "o2ims_requests_degraded 2.0",
        ],
    );
}

#[test]
fn each_host_is_counted_once() {
    let mut world = running(6);
    world.edit_host("target-3", |host| {
        host.labels_mut().insert(names::REQUEST_UID_LABEL.to_owned(), "somebody".to_owned());
    });
    world.edit_host("target-4", |host| {
        host.labels_mut().insert(names::REQUEST_UID_LABEL.to_owned(), "somebody".to_owned());
        host.annotations_mut().insert(UNREGISTERING_ANNOTATION.to_owned(), String::new());
    });
    for name in ["target-1", "target-5"] {
        world.edit_host(name, |host| host.status.host_info = None);
    }
    let (process, _) = registered(&world);
    tells(
        &process,
        &[
            r#"o2ims_hosts{state="free",alive="true"} 1.0"#,
            r#"o2ims_hosts{state="free",alive="false"} 1.0"#,
            r#"o2ims_hosts{state="held",alive="true"} 1.0"#,
            r#"o2ims_hosts{state="held",alive="false"} 0.0"#,
            r#"o2ims_hosts{state="in_use",alive="true"} 1.0"#,
            r#"o2ims_hosts{state="in_use",alive="false"} 1.0"#,
            r#"o2ims_hosts{state="cleaning",alive="true"} 1.0"#,
            r#"o2ims_hosts{state="cleaning",alive="false"} 0.0"#,
        ],
    );
}

#[test]
fn the_first_certificate_that_expires_is_told() {
    let mut world = running(2);
    let expiry = |process: &ProcessMetrics| {
        let text = process.encode_for_prometheus().unwrap();
        let values =
            text.lines().filter_map(|line| line.strip_prefix("o2ims_certificate_expiry_timestamp_seconds{kind="));
        let mut values: Vec<_> = values.map(str::to_owned).collect();
        values.sort();
        values
    };
    assert!(expiry(&registered(&world).0).is_empty(), "Cluster API has read none yet");
    assert_eq!(world.machines.len(), 2);
    for (machine, second) in world.machines.values_mut().zip([1_900_000_000, 2_000_000_000]) {
        machine.record.status.certificates_expiry_date = Some(Time(at(second)));
    }
    assert_eq!(expiry(&registered(&world).0), [r#""control-plane"} 1900000000.0"#]);
    world.machines.values_mut().next().unwrap().record.metadata.deletion_timestamp = Some(Time(at(1_800_000_000)));
    assert_eq!(expiry(&registered(&world).0), [r#""control-plane"} 2000000000.0"#]);
    // What a host reports itself counts instead of what Cluster API has read of it.
    let on = world.machines.values().nth(1).unwrap().record.server().unwrap().to_owned();
    world.report_dates(&on, &json!({"agent": at(2_000_000_001), "controlPlane": at(2_100_000_000)}));
    let both = [r#""agent"} 2000000001.0"#, r#""control-plane"} 2100000000.0"#];
    assert_eq!(expiry(&registered(&world).0), both);
}

/// The request, with these conditions as they are from this second on.
fn with(request: &ProvisioningRequest, types: &[&str], status: ConditionStatus, second: i64) -> ProvisioningRequest {
    let mut request = request.clone();
    for type_ in types {
        let (reason, message) = (reason::IN_PROGRESS, String::new());
        let update = ConditionUpdate { type_, status, reason, message, observed_generation: None };
        set(&mut request.status.as_mut().unwrap().conditions, update, at(second));
    }
    request
}

#[test]
fn a_request_is_observed_when_it_is_first_fulfilled_and_never_again() {
    let mut world = World::new(ByohVariant::Platform9, json!({}), 2);
    world.submit(request("one", "core", &[1], &[2]));
    let (process, metrics) = registered(&world);
    let written = |old: &ProvisioningRequest, new: &ProvisioningRequest| {
        metrics.status_written(old, new.status.as_ref().unwrap());
    };
    let new = world.requests["one"].clone();
    world.reconcile("one");
    let begun = world.requests["one"].clone();
    written(&new, &begun);
    tells(&process, &["o2ims_provisioning_duration_seconds_count 0"]);

    let since = world.second;
    let reserved = with(&begun, &[conditions::HOSTS_RESERVED], ConditionStatus::True, since + 10);
    written(&begun, &reserved);
    let creating = with(&reserved, &[conditions::CONTROL_PLANE_READY], ConditionStatus::False, since + 10);
    written(&reserved, &creating);
    let done = [conditions::CONTROL_PLANE_READY, conditions::WORKERS_READY, conditions::READY];
    let fulfilled = with(&creating, &done, ConditionStatus::True, since + 70);
    written(&creating, &fulfilled);
    let once = [
        "o2ims_provisioning_duration_seconds_count 1",
        "o2ims_provisioning_duration_seconds_sum 70.0",
        r#"o2ims_stage_duration_seconds_sum{stage="HostsReserved"} 10.0"#,
        r#"o2ims_stage_duration_seconds_count{stage="ControlPlaneReady"} 1"#,
        r#"o2ims_stage_duration_seconds_sum{stage="ControlPlaneReady"} 60.0"#,
        r#"o2ims_stage_duration_seconds_count{stage="WorkersReady"} 0"#,
    ];
    tells(&process, &once);

    // A node that fails and comes back provisions nothing.
    let failed = with(&fulfilled, &done, ConditionStatus::False, since + 1000);
    written(&fulfilled, &failed);
    let recovered = with(&failed, &done, ConditionStatus::True, since + 5000);
    written(&failed, &recovered);
    written(&recovered, &recovered);
    tells(&process, &once);
}

#[test]
fn whole_lives_are_observed_by_what_the_status_says() {
    let mut world = World::new(ByohVariant::Platform9, json!({}), 2);
    world.submit(request("one", "core", &[1], &[2]));
    world.reconcile("one");
    let (process, metrics) = registered(&world);
    let begun = world.requests["one"].clone();
    world.second += 90;
    world.settle();
    let fulfilled = world.requests["one"].clone();
    metrics.status_written(&begun, fulfilled.status.as_ref().unwrap());
    tells(&process, &["o2ims_provisioning_duration_seconds_count 1"]);

    world.delete_request("one");
    metrics.deletion_finished(&world.requests["one"], at(world.second + 30));
    tells(&process, &["o2ims_deletion_duration_seconds_count 1", "o2ims_deletion_duration_seconds_sum 30.0"]);
}

#[test]
fn a_time_limit_that_is_exceeded_is_counted_once() {
    let (process, metrics) = registered(&World::new(ByohVariant::Platform9, json!({}), 0));
    let late = |stage: &str| condition(stage, reason::DEADLINE_EXCEEDED);
    let in_time = |stage: &str| condition(stage, reason::IN_PROGRESS);
    let mut request = request("one", "core", &[1], &[]);
    request.status = Some(status("progressing", &[in_time(conditions::WORKERS_READY)]));
    let steps = [
        status("failed", &[late(conditions::WORKERS_READY), late(conditions::STALLED)]),
        status("failed", &[late(conditions::WORKERS_READY), late(conditions::STALLED)]),
        // The deletion was late before its first status.
        status("deleting", &[late(conditions::WORKERS_READY), late(conditions::STALLED)]),
        status("deleting", &[late(conditions::WORKERS_READY), late(conditions::STALLED)]),
    ];
    tells(&process, &[r#"o2ims_deadline_exceeded_total{stage="WorkersReady"} 0"#]);
    for new in steps {
        metrics.status_written(&request, &new);
        request.status = Some(new);
    }
    tells(
        &process,
        &[
            r#"o2ims_deadline_exceeded_total{stage="ControlPlaneReady"} 0"#,
            r#"o2ims_deadline_exceeded_total{stage="WorkersReady"} 1"#,
            r#"o2ims_deadline_exceeded_total{stage="Deletion"} 1"#,
        ],
    );
}
