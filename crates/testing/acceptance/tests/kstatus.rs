//! What kstatus, by which Flux judges, says of every state of the requests. The operators' own functions make the objects, and the library
//! itself is run, at Flux's version.

// Test code may panic.
#![allow(clippy::expect_used)]
#![allow(clippy::too_many_lines, reason = "a table is one list")]

#[path = "deploy/run.rs"]
mod run;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use focom_operator::focom_provisioning_request::manifest::manifest;
use focom_operator::focom_provisioning_request::observe::{Observed, RemoteState, Target, relation};
use focom_operator::focom_provisioning_request::status as focom_status;
use focom_operator::focom_provisioning_request::validate::validate;
use focom_operator::focom_provisioning_request::write_error::WriteError;
use focom_operator::o_cloud::connection::{ConnectionState, ReadyOCloud};
use focom_operator::o_cloud::error::ConnectionError;
use focom_operator::o_cloud::registry::ConnectionSnapshot;
use focom_operator::o_cloud::remote_request::RemoteRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::core::ApiResource;
use kube::runtime::reflector::store::Writer;
use o2ims_operator::provisioner::report::{Deleting, Pause, Progress, Provisioning, Report, Stage, StageState};
use o2ims_operator::provisioning_request::status;
use o2ims_types::conditions::{self, focom::reason as focom_reason, reason};
use o2ims_types::names::focom;
use o2ims_types::o2ims::v1alpha1::provisioning_request::{ProvisionedResourceSet, StatusExtensions};
use o2ims_types::{FocomProvisioningRequest, OCloud, OCloudSpec, Phase, ProvisioningRequest, ProvisioningState, crd};
use run::{Outcome, must};
use serde_json::{Value, json};
use testenv::tools::{self, Tool};

/// Those that have a time limit. When the first of them begins, all hosts are held.
const LIMITED: [&str; 2] = [conditions::CONTROL_PLANE_READY, conditions::WORKERS_READY];
/// Time limit of a stage and of a deletion, in seconds.
const LIMIT: u32 = 300;
/// The namespace of everything.
const NAMESPACE: &str = "team";
const SMO: &str = "smo";

/// What the state is called, the object in it, and the status that kstatus has to find.
type Case = (String, Value, &'static str);

#[tokio::test]
async fn every_state_of_a_provisioning_request() -> Outcome {
    let cases = provisioning_requests();
    let states: BTreeSet<_> = cases
        .iter()
        .filter_map(|(_, object, _)| object["status"]["provisioningStatus"]["provisioningState"].as_str())
        .collect();
    assert_eq!(states, BTreeSet::from(ProvisioningState::ALL.map(ProvisioningState::name)), "a state has no case");
    judge(&cases).await
}

#[tokio::test]
async fn every_state_of_a_focom_provisioning_request() -> Outcome {
    let cases = focom_provisioning_requests(&provisioning_requests());
    let phases: BTreeSet<_> = cases.iter().filter_map(|(_, object, _)| object["status"]["phase"].as_str()).collect();
    assert_eq!(phases, BTreeSet::from(Phase::ALL.map(Phase::name)), "a phase has no case");
    judge(&cases).await
}

/// Has kstatus judge the objects.
async fn judge(cases: &[Case]) -> Outcome {
    let program = tools::tool(Tool::Kstatus, |text| eprintln!("{text}")).await?;
    let objects: Vec<_> = cases.iter().map(|(_, object, _)| object.to_string()).collect();
    let written = must(&program, std::iter::empty::<&str>(), &objects.join("\n"))?;
    let told: Vec<_> = written.out.lines().collect();
    ensure!(told.len() == cases.len(), "{} answers for {} objects:\n{}", told.len(), cases.len(), written.out);
    for ((name, object, status), told) in cases.iter().zip(told) {
        let wanted = format!("{status}: {}", message(status, object));
        ensure!(told == wanted, "{name}: kstatus says\n{told}\nand not\n{wanted}\nof {object:#}");
    }
    Ok(())
}

/// The message of kstatus with this status. Where it goes by conditions, it is the request's own.
fn message(status: &str, object: &Value) -> String {
    let (generation, observed) = (&object["metadata"]["generation"], &object["status"]["observedGeneration"]);
    let ready = object["status"]["conditions"].as_array().into_iter().flatten();
    let ready = ready.filter(|condition| condition["type"] == conditions::READY).find_map(|it| it["message"].as_str());
    match status {
        "Terminating" => "Resource scheduled for deletion".to_owned(),
        _ if generation != observed => {
            let kind = object["kind"].as_str().expect("a kind");
            format!("{kind} generation is {generation}, but latest observed generation is {observed}")
        }
        "Current" => "Resource is Ready".to_owned(),
        _ => ready.expect("a condition Ready").to_owned(),
    }
}

/// The object as an API server has it after somebody has created it: with the defaults of its CRD.
fn created(mut object: Value) -> Value {
    let definitions = crd::all().expect("the CRDs");
    let definition = definitions.iter().find(|crd| crd["spec"]["names"]["kind"] == object["kind"]).expect("a CRD");
    set_defaults(&mut object, &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
    object
}

fn set_defaults(value: &mut Value, schema: &Value) {
    let Value::Object(fields) = value else { return };
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(default) = schema.get("default") {
            fields.entry(name.as_str()).or_insert_with(|| default.clone());
        }
        if let Some(field) = fields.get_mut(name) {
            set_defaults(field, schema);
        }
    }
}

fn time(second: u32) -> Timestamp {
    Timestamp::from_second(second.into()).expect("in range")
}

// At the O-Cloud.

/// Every state of a ProvisioningRequest, as its operator writes it.
fn provisioning_requests() -> Vec<Case> {
    let new: ProvisioningRequest = serde_json::from_value(created(json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest",
        "metadata": {"name": "core", "namespace": NAMESPACE, "uid": "uid", "generation": 1},
        "spec": {"templateName": "t", "templateVersion": "v1", "templateParameters": {"clusterName": "core"}},
    })))
    .expect("a ProvisioningRequest");
    assert!(new.is_new(), "the CRD has no default that says so: {new:?}");
    let waits = || StageState::InProgress { message: "waits".to_owned() };
    let blocked = |terminal| StageState::Blocked { reason: reason::INVALID, message: "is wrong".to_owned(), terminal };
    let paused = || Some(Pause { message: "paused: Cluster core".to_owned(), delays: "; it waits".to_owned() });
    let is = |progress| told(&new, Progress::Provisioning(progress), None, 0);

    let mut all = vec![("never seen by the operator".to_owned(), new.clone(), "InProgress")];
    let mut add = |name: &str, request: &ProvisioningRequest, status| {
        all.push((name.to_owned(), request.clone(), status));
    };
    for stage in conditions::STAGES {
        add(&format!("{stage} is in progress"), &is(at(stage, waits())), "InProgress");
        add(&format!("{stage} waits for something else"), &is(at(stage, blocked(false))), "InProgress");
        add(&format!("{stage} is paused"), &is(Provisioning { paused: paused(), ..at(stage, waits()) }), "InProgress");
        add(&format!("{stage} has failed"), &is(at(stage, blocked(true))), "Failed");
    }
    for stage in LIMITED {
        let late = told(&is(at(stage, waits())), Progress::Provisioning(at(stage, waits())), None, LIMIT);
        add(&format!("{stage} takes longer than its limit"), &late, "Failed");
        let after = told(&late, Progress::Provisioning(ready()), None, LIMIT);
        add(&format!("fulfilled after {stage} has taken longer than its limit"), &after, "Current");
    }
    let refused = Some("ByoHost team/target-1: refused");
    let stage = Progress::Provisioning(at(conditions::HOSTS_RESERVED, waits()));
    add("a write is refused", &told(&new, stage, refused, 0), "InProgress");

    let (fulfilled, failed) = (is(ready()), is(at(conditions::VALIDATED, blocked(true))));
    let degraded = is(Provisioning { degraded: vec!["host 1 has another label".to_owned()], ..ready() });
    add("fulfilled", &fulfilled, "Current");
    add("fulfilled and degraded", &degraded, "Current");
    add("fulfilled and paused", &is(Provisioning { paused: paused(), ..ready() }), "Current");
    add("fulfilled, a write is refused", &told(&new, Progress::Provisioning(ready()), refused, 0), "Current");
    let broken = Progress::Provisioning(at(conditions::WORKERS_READY, waits()));
    add("a node breaks", &told(&fulfilled, broken, None, 1), "InProgress");

    for (was, request) in [("fulfilled", &fulfilled), ("degraded", &degraded), ("failed", &failed)] {
        let mut changed = request.clone();
        changed.metadata.generation = Some(2);
        add(&format!("{was}, and then changed"), &changed, "InProgress");
        let seen = told(&changed, Progress::Provisioning(ready()), None, 1);
        add(&format!("{was}, and then changed to what runs"), &seen, "Current");
    }

    let deleted = |request: &ProvisioningRequest| {
        let mut request = request.clone();
        request.metadata.deletion_timestamp = Some(Time(time(0)));
        // The API server counts a deletion as a change.
        request.metadata.generation = Some(2);
        request
    };
    let tearing_down = |paused: Option<Pause>, second| {
        let limit = Duration::from_secs(LIMIT.into());
        let progress = Deleting { message: "deleting Cluster core".to_owned(), paused, limit, overdue: String::new() };
        told(&deleted(&fulfilled), Progress::Deleting(progress), None, second)
    };
    add("deleted before the operator has seen it", &deleted(&new), "Terminating");
    add("deleted, which the operator has not seen", &deleted(&fulfilled), "Terminating");
    add("being deleted", &tearing_down(None, 1), "Terminating");
    add("its deletion is paused", &tearing_down(paused(), LIMIT), "Terminating");
    add("its deletion takes longer than its limit", &tearing_down(None, LIMIT), "Terminating");
    all.into_iter().map(|(name, request, status)| (name, json!(request), status)).collect()
}

/// The request with the status that its operator writes.
fn told(
    request: &ProvisioningRequest,
    progress: Progress,
    write_error: Option<&str>,
    second: u32,
) -> ProvisioningRequest {
    let id = Some("cluster-uid".to_owned());
    let resources = ProvisionedResourceSet { o_cloud_node_cluster_id: id, ..ProvisionedResourceSet::default() };
    let report = Report { progress, resources: Some(resources), extensions: StatusExtensions::default() };
    let status = status::assess(request, &report, write_error, time(second)).status;
    ProvisioningRequest { status: Some(status), ..request.clone() }
}

/// The stages before this one are done, this one is in this state, and those after it wait.
fn at(open: &str, state: StageState) -> Provisioning {
    let current = conditions::STAGES.iter().position(|type_| *type_ == open).expect("a stage");
    let stages = conditions::STAGES.into_iter().enumerate().map(|(index, type_)| {
        let made = Stage::new(type_, if index < current { StageState::Done } else { StageState::Waiting });
        if LIMITED.contains(&type_) { made.within("its limit", Duration::from_secs(LIMIT.into())) } else { made }
    });
    let mut stages: Vec<_> = stages.collect();
    stages[current].state = state;
    let exists = LIMITED.contains(&conditions::STAGES[current]);
    let (ready, degraded) = ("cluster is ready".to_owned(), Vec::new());
    Provisioning {
        stages,
        has_begun: exists,
        exists,
        ready,
        degraded,
        paused: None,
        upcoming: Vec::new(),
        certificates: None,
    }
}

/// Every stage is done.
fn ready() -> Provisioning {
    at(conditions::WORKERS_READY, StageState::Done)
}

// At the SMO.

/// Every state of a FocomProvisioningRequest, as its operator writes it; among them one for each state of the
/// ProvisioningRequest on its O-Cloud, and one more for that during its own deletion.
fn focom_provisioning_requests(remote: &[Case]) -> Vec<Case> {
    let new: FocomProvisioningRequest = serde_json::from_value(created(json!({
        "apiVersion": "focom.nephio.org/v1alpha1", "kind": "FocomProvisioningRequest",
        "metadata": {"name": "edge", "namespace": NAMESPACE, "uid": "uid", "generation": 1},
        "spec": {"oCloudId": "site", "oCloudNamespace": NAMESPACE, "templateName": "t", "templateVersion": "v1",
            "templateParameters": {"a": 1}},
    })))
    .expect("a FocomProvisioningRequest");
    assert!(new.is_new(), "the CRD has no default that says so: {new:?}");
    let answers = || ConnectionState::Ready(o_cloud());
    let silent = || ConnectionState::Failed(ConnectionError::timeout());
    let is = |request: &FocomProvisioningRequest, state, found: Option<&Value>| {
        told_at_smo(request, &observed(request, state, found), None)
    };
    let fails = |request: &FocomProvisioningRequest, error: &WriteError| {
        told_at_smo(request, &observed(request, answers(), None), Some(error))
    };
    let (_, there, _) = remote.iter().find(|(name, ..)| name == "fulfilled").expect("one that is fulfilled");
    let pending = is(&new, answers(), None);
    let creating = is(&pending, answers(), None);
    let fulfilled = is(&creating, answers(), Some(there));
    let no_o_cloud = Observed { target: Target::OCloud(None), remote: None, ..observed(&new, answers(), None) };
    let refused = WriteError::permanent(focom_reason::REFUSED, "no such field");
    let interrupted = WriteError::transient(focom_reason::IN_PROGRESS, "it is tried again");
    let failed = fails(&creating, &refused);

    let mut all = vec![("never seen by the operator".to_owned(), new.clone(), "InProgress")];
    let mut add = |name: &str, request: &FocomProvisioningRequest, status| {
        all.push((name.to_owned(), request.clone(), status));
    };
    add("connecting to the O-Cloud", &is(&new, ConnectionState::Connecting, None), "InProgress");
    add("the O-Cloud does not answer", &is(&new, silent(), None), "InProgress");
    add("not sent yet", &pending, "InProgress");
    add("sent", &creating, "InProgress");
    add("there is no such OCloud", &told_at_smo(&new, &no_o_cloud, None), "Failed");
    add("refused by the O-Cloud", &failed, "Failed");
    add("a write fails and is tried again", &fails(&creating, &interrupted), "InProgress");
    add("fulfilled", &fulfilled, "Current");
    add("fulfilled, and then the O-Cloud does not answer", &is(&fulfilled, silent(), None), "InProgress");
    add("gone from the O-Cloud", &is(&fulfilled, answers(), None), "Failed");
    for (was, request) in [("fulfilled", &fulfilled), ("failed", &failed)] {
        let mut changed = request.clone();
        changed.metadata.generation = Some(2);
        add(&format!("{was}, and then changed"), &changed, "InProgress");
    }

    let deleted = |request: &FocomProvisioningRequest| {
        let mut request = request.clone();
        request.metadata.deletion_timestamp = Some(Time(time(0)));
        request.metadata.generation = Some(2);
        request
    };
    add("deleted before the operator has seen it", &deleted(&new), "Terminating");
    add("deleted, which the operator has not seen", &deleted(&fulfilled), "Terminating");
    add("being deleted, the O-Cloud does not answer", &is(&deleted(&fulfilled), silent(), None), "Terminating");
    for (name, there, status) in remote {
        let seen = is(&creating, answers(), Some(there));
        // One that somebody deletes on the O-Cloud is created again.
        let status = if *status == "Terminating" { "InProgress" } else { *status };
        add(&format!("on the O-Cloud: {name}"), &seen, status);
        let leaving = is(&deleted(&seen), answers(), Some(there));
        add(&format!("being deleted; on the O-Cloud: {name}"), &leaving, "Terminating");
    }
    all.into_iter().map(|(name, request, status)| (name, json!(request), status)).collect()
}

/// The request with the status that its operator writes.
fn told_at_smo(
    request: &FocomProvisioningRequest,
    observed: &Observed,
    write_error: Option<&WriteError>,
) -> FocomProvisioningRequest {
    let verdict = validate(request, observed);
    let (status, _) = focom_status::assess(request, observed, &verdict, write_error, time(0));
    FocomProvisioningRequest { status: Some(status), ..request.clone() }
}

/// What is observed of a request. `found`: the ProvisioningRequest that it was sent as has metadata and status of this one.
fn observed(request: &FocomProvisioningRequest, state: ConnectionState, found: Option<&Value>) -> Observed {
    let mut o_cloud_object = OCloud::new("site", OCloudSpec::default());
    o_cloud_object.metadata.namespace = Some(NAMESPACE.to_owned());
    let found = found.map(|found| {
        let mut sent = manifest(request, &o_cloud(), &focom::remote_request(&request.name_any()));
        for field in ["uid", "generation", "deletionTimestamp"] {
            sent["metadata"][field] = found["metadata"][field].clone();
        }
        sent["status"] = found["status"].clone();
        Arc::new(serde_json::from_value::<RemoteRequest>(sent).expect("a ProvisioningRequest"))
    });
    let relation = found.as_deref().map(|found| relation(found, request, SMO, |_| true));
    let connection = ConnectionSnapshot { connection: None, fingerprint: Some("first".to_owned()), state };
    Observed {
        uid: request.uid().expect("a UID"),
        namespace: NAMESPACE.to_owned(),
        namespace_terminating: false,
        target: Target::OCloud(Some(Arc::new(o_cloud_object))),
        template: None,
        remote: Some(RemoteState { connection, request: found, relation, was_refused: false }),
    }
}

/// An O-Cloud that answers.
fn o_cloud() -> ReadyOCloud {
    let kind = ApiResource::erase::<ProvisioningRequest>(&());
    let requests = Writer::new(kind.clone()).as_reader();
    ReadyOCloud { smo: SMO.to_owned(), kind, namespaced: true, server_version: "v1".to_owned(), requests }
}
