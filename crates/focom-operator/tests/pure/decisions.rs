//! Plan and status as functions: no client, no clock.

use std::sync::Arc;

use focom_operator::focom_provisioning_request::decision::decide;
use focom_operator::focom_provisioning_request::expectations::Expectations;
use focom_operator::focom_provisioning_request::manifest::{self, contains};
use focom_operator::focom_provisioning_request::observe::{Observed, RemoteState, Target, relation};
use focom_operator::focom_provisioning_request::plan::{self, Step};
use focom_operator::focom_provisioning_request::status::assess;
use focom_operator::focom_provisioning_request::validate::{self, Rejection};
use focom_operator::focom_provisioning_request::write_error::WriteError;
use focom_operator::o_cloud::connection::{ConnectionState, ReadyOCloud};
use focom_operator::o_cloud::error::ConnectionError;
use focom_operator::o_cloud::registry::ConnectionSnapshot;
use focom_operator::o_cloud::remote_request::RemoteRequest;
use k8s_openapi::jiff::Timestamp;
use kube::core::ApiResource;
use kube::runtime::reflector::store::Writer;
use o2ims_types::FocomProvisioningRequest;
use operator_kit::controller::{Error, LASTING_CONFLICT_ADVICE, Outcome};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::model::record_status;

const UID: &str = "uid-1";

pub fn request(more: Value) -> FocomProvisioningRequest {
    let mut object = json!({
        "apiVersion": "focom.nephio.org/v1alpha1", "kind": "FocomProvisioningRequest",
        "metadata": {"name": "edge", "namespace": "team", "uid": UID, "generation": 1},
        "spec": {"oCloudId": "site", "oCloudNamespace": "team", "templateName": "t", "templateVersion": "v1", "templateParameters": {"a": 1}},
    });
    template_schema::overlay(&mut object, more);
    serde_json::from_value(object).unwrap()
}

pub fn with_finalizer() -> FocomProvisioningRequest {
    request(json!({"metadata": {"finalizers": ["focom.nephio.org/finalizer"]}}))
}

pub fn deleted(more: Value) -> FocomProvisioningRequest {
    let mut object = json!({"metadata": {"finalizers": ["focom.nephio.org/finalizer"], "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    template_schema::overlay(&mut object, more);
    request(object)
}

pub fn observed(remote: Option<&RemoteState>) -> Observed {
    Observed {
        uid: UID.to_owned(),
        namespace: "team".to_owned(),
        target: Target::OCloud(None),
        namespace_terminating: false,
        template: None,
        remote: remote.cloned(),
    }
}

pub fn open(namespaced: bool) -> ConnectionState {
    let kind = ApiResource {
        group: "o2ims.provisioning.oran.org".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "o2ims.provisioning.oran.org/v1alpha1".to_owned(),
        kind: "ProvisioningRequest".to_owned(),
        plural: "provisioningrequests".to_owned(),
    };
    let requests = Writer::new(kind.clone()).as_reader();
    ConnectionState::Ready(ReadyOCloud {
        smo: "smo".to_owned(),
        kind,
        namespaced,
        server_version: "v1".to_owned(),
        requests,
    })
}

pub fn remote(state: ConnectionState, request: Option<Value>) -> RemoteState {
    let request = request.map(|object| Arc::new(serde_json::from_value::<RemoteRequest>(object).unwrap()));
    let relation =
        request.as_deref().map(|found| relation(found, &self::request(json!({})), "smo", |uid| uid == "living"));
    let connection = ConnectionSnapshot { connection: None, fingerprint: None, state };
    RemoteState { connection, request, relation, was_refused: false }
}

pub fn broken() -> ConnectionState {
    ConnectionState::Failed(ConnectionError::new("Unreachable", "no answer"))
}

/// The plan for a request whose user has been told something already.
pub fn steps(request: &FocomProvisioningRequest, remote: &RemoteState) -> Vec<Step> {
    let mut request = request.clone();
    request.status.get_or_insert_default();
    plan::plan(&request, &observed(Some(remote)), &Ok(()), |_| false)
}

/// What an O-Cloud has after this manifest was applied.
pub fn stored(manifest: &Value) -> Value {
    let mut object = manifest.clone();
    object["metadata"]["uid"] = json!("remote-uid");
    object["metadata"]["generation"] = json!(1);
    object
}

pub fn created(steps: &[Step]) -> Value {
    steps.iter().find_map(|step| if let Step::Create(manifest) = step { Some(manifest.clone()) } else { None }).unwrap()
}

#[test]
fn the_finalizer_comes_before_the_first_effect() {
    let plan = steps(&request(json!({})), &remote(open(true), None));
    assert_eq!(plan.first(), Some(&Step::AddFinalizer));
    assert_eq!(plan.len(), 2);
    let manifest = created(&plan);
    assert_eq!(
        (&manifest["metadata"]["name"], &manifest["metadata"]["namespace"]),
        (&json!("edge-o2ims"), &json!("team"))
    );
    let clusterwide = created(&steps(&with_finalizer(), &remote(open(false), None)));
    assert!(clusterwide["metadata"]["namespace"].is_null());
}

#[test]
fn nothing_is_planned_for_what_may_not_go_or_cannot_be_asked() {
    let rejection = Err(Rejection { reason: "NotAllowed", message: "no".to_owned() });
    assert!(plan::plan(&request(json!({"status": {}})), &observed(None), &rejection, |_| false).is_empty());
    assert!(steps(&with_finalizer(), &remote(broken(), None)).is_empty());
    assert!(steps(&with_finalizer(), &remote(ConnectionState::Connecting, None)).is_empty());
    assert!(validate::authorize(&request(json!({})), &observed(None).target).is_err(), "an unknown OCloud");
}

#[test]
fn what_belongs_to_others_is_left_alone() {
    for labels in
        [json!({}), json!({"focom.nephio.org/source-uid": "other"}), json!({"focom.nephio.org/source": "edge"})]
    {
        let theirs =
            json!({"metadata": {"name": "edge-o2ims", "namespace": "team", "uid": "u", "labels": labels}, "spec": {}});
        assert!(steps(&with_finalizer(), &remote(open(true), Some(theirs.clone()))).is_empty());
        // Its deletion is none of ours either.
        assert_eq!(steps(&deleted(json!({})), &remote(open(true), Some(theirs))), [Step::RemoveFinalizer]);
    }
}

#[test]
fn a_deletion_waits_and_is_given_up_on_purpose_only() {
    let own = stored(&created(&steps(&with_finalizer(), &remote(open(true), None))));
    let mut leaving = own.clone();
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let delete = Step::Delete("remote-uid".to_owned());
    let plan = |more: Value, view: ConnectionState, found: Option<Value>| steps(&deleted(more), &remote(view, found));
    assert_eq!(plan(json!({}), open(true), Some(own.clone())), std::slice::from_ref(&delete));
    assert!(plan(json!({}), open(true), Some(leaving.clone())).is_empty());
    assert_eq!(plan(json!({}), open(true), None), [Step::RemoveFinalizer]);
    assert!(plan(json!({}), broken(), None).is_empty());
    let given_up = |value: &str| json!({"metadata": {"annotations": {"focom.nephio.org/abandon": value}}});
    assert_eq!(plan(given_up("true"), broken(), None), [Step::RemoveFinalizer]);
    assert_eq!(plan(given_up("true"), open(true), Some(own)), [delete, Step::RemoveFinalizer]);
    assert_eq!(plan(given_up("true"), open(true), Some(leaving)), [Step::RemoveFinalizer]);
    assert!(plan(given_up("yes"), broken(), None).is_empty());
    // Sent elsewhere than the OCloud leads to now.
    assert!(plan(json!({"status": {"sentTo": "elsewhere", "remoteName": "edge-o2ims"}}), open(true), None).is_empty());
    let moved = request(json!({"status": {"sentTo": "elsewhere", "remoteName": "edge-o2ims"}}));
    assert!(steps(&moved, &remote(open(true), None)).is_empty());
    let leaves = |value: &str| {
        request(json!({
            "metadata": {"annotations": {"focom.nephio.org/abandon": value}},
            "status": {"sentTo": "elsewhere", "remoteName": "edge-o2ims"},
        }))
    };
    assert!(steps(&leaves("true"), &remote(open(true), None)).is_empty(), "it has to name what it leaves");
    assert!(steps(&leaves("elsewhere"), &remote(open(true), None)).is_empty(), "the status comes first");
}

/// What is known of a request that may use its OCloud.
fn allowed(remote: &RemoteState) -> Observed {
    let o_cloud = json!({
        "apiVersion": "focom.nephio.org/v1alpha1", "kind": "OCloud", "metadata": {"name": "site", "namespace": "team"},
        "spec": {"o2imsSecret": {"secretRef": {"name": "site"}}},
    });
    Observed {
        target: Target::OCloud(Some(Arc::new(serde_json::from_value(o_cloud).unwrap()))),
        ..observed(Some(remote))
    }
}

/// An O-Cloud that answers and has nothing.
fn site(fingerprint: &str) -> RemoteState {
    let mut site = remote(open(true), None);
    site.connection.fingerprint = Some(fingerprint.to_owned());
    site
}

fn with_status(mut request: FocomProvisioningRequest, site: &RemoteState) -> FocomProvisioningRequest {
    let (status, _) = assess(&request, &observed(Some(site)), &Ok(()), None, Timestamp::UNIX_EPOCH);
    request.status = Some(status);
    request
}

fn sent_to(request: &FocomProvisioningRequest) -> Option<&str> {
    request.status.as_ref()?.sent_to.as_deref()
}

#[test]
fn the_status_says_where_a_request_is_sent_before_it_is() {
    // The first status, which is written in any case, if the O-Cloud answers.
    let first = with_status(request(json!({})), &site("first"));
    assert_eq!((sent_to(&first), first.was_sent(), first.may_have_been_sent()), (Some("first"), false, false));
    let status = first.status.as_ref().unwrap();
    assert_eq!(
        (status.phase.as_str(), status.message.as_str()),
        ("Pending", "O-Cloud team/site answers; this request has not been sent to it yet")
    );
    assert!(status.sent_to_o_cloud.is_none(), "its spec may still name another one");
    assert!(matches!(steps(&first, &site("first")).as_slice(), [Step::AddFinalizer, Step::Create(_)]));
    // One of its own, if it has waited for the O-Cloud.
    let waiting = with_status(request(json!({})), &remote(broken(), None));
    assert_eq!((sent_to(&waiting), steps(&waiting, &site("first"))), (None, vec![]));
    let told = with_status(waiting, &site("first"));
    assert_eq!((sent_to(&told), steps(&told, &site("first")).len()), (Some("first"), 2));
    // What is adopted becomes its own, too; a dry run does nothing.
    let mut there = site("first");
    (there.request, there.relation) =
        (remote(open(true), Some(left(json!({})))).request, remote(open(true), Some(left(json!({})))).relation);
    assert_eq!(steps(&with_finalizer(), &there), []);
    assert!(matches!(steps(&with_status(with_finalizer(), &there), &there).as_slice(), [Step::Adopt(..)]));
    assert_eq!(sent_to(&with_status(request(annotated("adopt", "uid")), &site("first"))), Some("first"));
    assert_eq!(sent_to(&with_status(request(annotated("adopt", "dry-run")), &site("first"))), None);
}

#[test]
fn a_request_that_was_not_sent_is_free_to_go_elsewhere() {
    let finalizer = json!({"metadata": {"finalizers": ["focom.nephio.org/finalizer"]}});
    let mut refused = site("second");
    refused.was_refused = true;
    let before_anything = with_status(request(json!({})), &site("first"));
    let after_a_refusal = with_status(request(finalizer.clone()), &site("first"));
    for (request, elsewhere) in [(before_anything, site("second")), (after_a_refusal.clone(), refused.clone())] {
        assert_eq!(steps(&request, &elsewhere), []);
        let moved = with_status(request, &elsewhere);
        assert_eq!((sent_to(&moved), moved.was_sent()), (Some("second"), false));
        assert!(steps(&moved, &elsewhere).iter().any(|step| matches!(step, Step::Create(_))));
    }
    let going = |request: &FocomProvisioningRequest| {
        let mut going = request.clone();
        going.metadata.deletion_timestamp = deleted(json!({})).metadata.deletion_timestamp;
        going
    };
    assert_eq!(steps(&going(&after_a_refusal), &refused), [Step::RemoveFinalizer]);
    // The operator may have ended right after it was sent.
    for request in [after_a_refusal.clone(), going(&after_a_refusal)] {
        assert_eq!(steps(&request, &site("second")), []);
        let (_, message, ready) = told(&request, &site("second"), None);
        assert_eq!(ready, "False OCloudChanged");
        assert!(message.contains("was being sent to, and it is not known whether that one has its"), "{message}");
        assert_eq!(sent_to(&with_status(request, &site("second"))), Some("first"));
    }
    let created = with_status(after_a_refusal, &site("first"));
    assert!(created.was_sent(), "it was sent: {:?}", created.status);
}

#[test]
fn a_request_that_leaves_its_o_cloud_by_its_owners_word_says_where_it_goes() {
    let sent = request(held(json!({
        "metadata": {"annotations": {"focom.nephio.org/abandon": "first"}}, "status": {"sentTo": "first", "sentToOCloud": "team/site"},
    })));
    let decision = decide(&sent, &allowed(&site("second")), &Expectations::default()).unwrap();
    assert_eq!((decision.steps, decision.warning.map(|warning| warning.reason)), (vec![], Some("Abandoned")));
    let moved = with_status(sent, &site("second"));
    let status = moved.status.as_ref().unwrap();
    assert_eq!((sent_to(&moved), moved.was_sent(), status.phase.as_str()), (Some("second"), false, "Pending"));
    assert!(
        status.provisioning_status.is_none() && status.provisioned_resource_set.is_none(),
        "that was the former O-Cloud's"
    );
    let decision = decide(&moved, &allowed(&site("second")), &Expectations::default()).unwrap();
    assert!(matches!(decision.steps.as_slice(), [Step::Create(_)]) && decision.warning.is_none());
}

/// A request whose O-Cloud had something for it when it was last seen.
pub fn held(more: Value) -> Value {
    let mut object = json!({
        "metadata": {"finalizers": ["focom.nephio.org/finalizer"]},
        "status": {
            "phase": "Synced", "remoteName": "edge-o2ims",
            "provisioningStatus": {"provisioningState": "fulfilled", "provisioningMessage": "it is ready"},
            "provisionedResourceSet": {"oCloudNodeClusterId": "id"},
        },
    });
    template_schema::overlay(&mut object, more);
    object
}

pub fn annotated(key: &str, value: &str) -> Value {
    json!({"metadata": {"annotations": {format!("focom.nephio.org/{key}"): value}}})
}

#[test]
fn a_deletion_waits_for_what_is_gone_and_was_not_seen_being_deleted() {
    let none = || remote(open(true), None);
    let plan = |more: Value| steps(&deleted(held(more)), &none());
    // The O-Cloud is asked whether it is there without its mark.
    assert_eq!(plan(json!({})), [Step::FindAndAdopt]);
    let (phase, message, ready) = told(&deleted(held(json!({}))), &none(), None);
    assert_eq!((phase.as_str(), ready.as_str()), ("Deleting", "False ProvisioningRequestGone"));
    for words in [
        "ProvisioningRequest edge-o2ims is gone from O-Cloud team/site, and was not seen being deleted",
        "if the ProvisioningRequest reappears on the O-Cloud, it is deleted, and then this request.",
        "kubectl annotate fpr edge -n team focom.nephio.org/abandon=true --overwrite",
    ] {
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(plan(annotated("abandon", "true")), [Step::RemoveFinalizer]);
    assert_eq!(plan(annotated("abandon", "yes")), [Step::FindAndAdopt]);
    assert_eq!(plan(annotated("send-again", "id")), [Step::FindAndAdopt], "what is deleted is not sent");
    assert_eq!(plan(annotated("send-again", "other")), [Step::FindAndAdopt]);
    let was_going = json!({"status": {"provisioningStatus": {"provisioningState": "deleting"}}});
    assert_eq!(plan(was_going), [Step::RemoveFinalizer]);
    assert_eq!(plan(json!({"status": {"provisionedResourceSet": null}})), [Step::RemoveFinalizer], "it held nothing");
    let own = stored(&created(&steps(&with_finalizer(), &none())));
    assert_eq!(
        steps(&deleted(held(json!({}))), &remote(open(true), Some(own))),
        [Step::Delete("remote-uid".to_owned())]
    );
}

#[test]
fn a_deletion_that_the_o_cloud_has_taken_is_noted() {
    let state = |request: &FocomProvisioningRequest, found: &RemoteState, write_error: Option<&WriteError>| {
        let (status, _) = assess(request, &observed(Some(found)), &Ok(()), write_error, Timestamp::UNIX_EPOCH);
        status.provisioning_status.map(|said| (said.provisioning_state, said.provisioning_message))
    };
    let has = |more: Value| {
        let mut object = stored(&created(&steps(&with_finalizer(), &remote(open(true), None))));
        object["status"] =
            json!({"provisioningStatus": {"provisioningState": "fulfilled", "provisioningMessage": "it is ready"}});
        template_schema::overlay(&mut object, more);
        remote(open(true), Some(object))
    };
    let said = |state: &str, message: &str| Some((state.to_owned(), message.to_owned()));
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let (alive, leaves) = (request(held(json!({}))), deleted(held(json!({}))));
    assert_eq!(state(&alive, &has(json!({})), None), said("fulfilled", "it is ready"));
    assert_eq!(state(&alive, &has(going.clone()), None), said("deleting", ""), "by somebody else");
    assert_eq!(state(&leaves, &has(json!({})), None), said("deleting", ""), "by this operator");
    let says =
        json!({"status": {"provisioningStatus": {"provisioningState": "deleting", "provisioningMessage": "soon"}}});
    assert_eq!(state(&leaves, &has(says), None), said("deleting", "soon"));
    let former = json!({"metadata": {"labels": {"focom.nephio.org/source-uid": "former"}}});
    assert_eq!(state(&leaves, &has(former), None), said("deleting", ""), "what an earlier object has left");
    let refused = WriteError::permanent("Refused", "no");
    assert_eq!(state(&leaves, &has(json!({})), Some(&refused)), said("fulfilled", "it is ready"));
    // While the O-Cloud cannot be asked, nothing of it is forgotten.
    let noted = deleted(held(json!({"status": {"provisioningStatus": {"provisioningState": "deleting"}}})));
    assert_eq!(state(&noted, &remote(broken(), None), None), said("deleting", "it is ready"));
}

#[test]
fn the_word_to_send_again_has_to_be_right_and_is_used_up() {
    let none = || remote(open(true), None);
    let annotated = |value: &str| request(held(annotated("send-again", value)));
    assert!(steps(&request(held(json!({}))), &none()).is_empty());
    let (_, message, ready) = told(&request(held(json!({}))), &none(), None);
    assert_eq!(ready, "False ProvisioningRequestGone");
    let command = "kubectl annotate fpr edge -n team focom.nephio.org/send-again=id --overwrite";
    assert!(message.ends_with(command), "{message}");
    assert!(steps(&annotated("x"), &none()).is_empty());
    let (_, message, _) = told(&annotated("x"), &none(), None);
    let words = "The annotation focom.nephio.org/send-again of this request names \"x\", but the id is id";
    assert!(message.contains(command) && message.ends_with(words), "{message}");
    let own = stored(&created(&steps(&annotated("id"), &none())));
    for value in ["id", "x"] {
        assert_eq!(steps(&annotated(value), &remote(open(true), Some(own.clone()))), [Step::RemoveSendAgain]);
    }
}

fn parameters() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,5}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Carried out, a plan leaves none, also where the O-Cloud fills fields in; and any change makes one.
    #[test]
    fn a_plan_that_is_carried_out_leaves_none(first in parameters(), second in parameters()) {
        let with = |value: &Value| {
            request(json!({"metadata": {"finalizers": ["focom.nephio.org/finalizer"]}, "spec": {"templateParameters": {"p": value}}}))
        };
        let mut there = stored(&created(&steps(&with(&first), &remote(open(true), None))));
        there["spec"]["filledIn"] = json!("by the server");
        prop_assert!(steps(&with(&first), &remote(open(true), Some(there.clone()))).is_empty());
        let change = steps(&with(&second), &remote(open(true), Some(there)));
        prop_assert_eq!(change.is_empty(), first == second);
    }

    #[test]
    fn everything_holds_itself(value in parameters()) {
        prop_assert!(contains(&value, &value));
    }
}

fn told(
    request: &FocomProvisioningRequest,
    remote: &RemoteState,
    write_error: Option<&WriteError>,
) -> (String, String, String) {
    let (status, outcome) = assess(request, &observed(Some(remote)), &Ok(()), write_error, Timestamp::UNIX_EPOCH);
    record_status(&status);
    assert!(matches!(outcome, Outcome::Done) == is_ready(&status.conditions), "{outcome:?}");
    (status.phase, status.message, ready(&status.conditions))
}

fn ready(conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]) -> String {
    conditions
        .iter()
        .find(|found| found.type_ == "Ready")
        .map(|found| format!("{} {}", found.status, found.reason))
        .unwrap()
}

fn is_ready(conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]) -> bool {
    ready(conditions).starts_with("True")
}

#[test]
fn phase_and_message_follow_from_what_is_seen() {
    let sent = stored(&created(&steps(&with_finalizer(), &remote(open(true), None))));
    let says = |state: &str, seen: i64| {
        let mut object = sent.clone();
        object["status"] = json!({"provisioningStatus": {"provisioningState": state, "provisioningMessage": format!("it is {state}")}, "observedGeneration": seen});
        remote(open(true), Some(object))
    };
    let known = request(json!({"status": {"phase": "Synced", "remoteName": "edge-o2ims"}}));
    let refused = WriteError::permanent("Refused", "no such field");
    let cases = [
        (
            told(&request(json!({})), &remote(ConnectionState::Connecting, None), None),
            "Pending",
            "connecting to O-Cloud team/site",
            "False Connecting",
        ),
        (
            told(&request(json!({})), &remote(broken(), None), None),
            "Pending",
            "waiting for O-Cloud team/site: no answer",
            "Unknown Unreachable",
        ),
        (
            told(&known, &remote(broken(), None), None),
            "Synced",
            "waiting for O-Cloud team/site: no answer",
            "Unknown Unreachable",
        ),
        (
            told(&known, &remote(open(true), None), None),
            "Creating",
            "ProvisioningRequest edge-o2ims was sent to O-Cloud team/site",
            "False InProgress",
        ),
        (told(&known, &remote(open(true), None), Some(&refused)), "Failed", "no such field", "False Refused"),
        (
            told(&known, &remote(open(true), Some(sent.clone())), None),
            "Synced",
            "ProvisioningRequest edge-o2ims exists on O-Cloud team/site; the operator there has not reported a state yet",
            "False InProgress",
        ),
        (told(&known, &says("progressing", 1), None), "Synced", "it is progressing", "False InProgress"),
        (told(&known, &says("fulfilled", 1), None), "Synced", "it is fulfilled", "True Succeeded"),
        // It is about the request before it was changed.
        (told(&known, &says("fulfilled", 0), None), "Synced", "it is fulfilled", "False InProgress"),
        (told(&known, &says("failed", 1), None), "Failed", "it is failed", "False RemoteFailed"),
        (told(&known, &says("somethingNew", 1), None), "Synced", "it is somethingNew", "False InProgress"),
        (
            told(&deleted(json!({})), &says("fulfilled", 1), None),
            "Deleting",
            "ProvisioningRequest edge-o2ims is being deleted on O-Cloud team/site",
            "False Deleting",
        ),
        (told(&deleted(json!({})), &says("deleting", 1), None), "Deleting", "it is deleting", "False Deleting"),
    ];
    for (found, phase, message, ready) in cases {
        assert_eq!(found, (phase.to_owned(), message.to_owned(), ready.to_owned()));
    }
}

#[test]
fn a_conflict_that_lasts_is_told() {
    let conflict = || WriteError::from(Error::conflict("the object has been modified").advice(LASTING_CONFLICT_ADVICE));
    let message = format!("the object has been modified; {LASTING_CONFLICT_ADVICE}");
    let known = request(json!({"status": {"phase": "Synced", "remoteName": "edge-o2ims"}}));
    let new = request(json!({}));
    for (request, phase) in [(&new, "Pending"), (&known, "Synced"), (&deleted(json!({})), "Deleting")] {
        let said = told(request, &remote(open(true), None), Some(&conflict()));
        assert_eq!(said, (phase.to_owned(), message.clone(), "False InProgress".to_owned()));
    }
}

#[test]
fn what_an_o_cloud_says_has_an_end_and_odd_fields_hide_nothing() {
    let mut object = stored(&created(&steps(&with_finalizer(), &remote(open(true), None))));
    object["status"] = json!({
        "provisioningStatus": {"provisioningState": "fulfilled", "provisioningMessage": "x".repeat(1_000_000), "provisioningUpdateTime": "yesterday"},
        "provisionedResourceSet": "none", "observedGeneration": 1,
    });
    let found = remote(open(true), Some(object));
    let (status, _) = assess(&with_finalizer(), &observed(Some(&found)), &Ok(()), None, Timestamp::UNIX_EPOCH);
    assert!(is_ready(&status.conditions));
    assert!(serde_json::to_string(&status).unwrap().len() < 20_000);
}

#[test]
fn a_guest_is_not_told_what_is_the_owners() {
    let guest = request(json!({"spec": {"oCloudNamespace": "owner"}}));
    let (_, message, _) = told(
        &guest,
        &remote(ConnectionState::Failed(ConnectionError::new("SecretMissing", "Secret owner/s does not exist")), None),
        None,
    );
    assert!(message.contains("SecretMissing") && !message.contains("owner/s "), "{message}");
}

pub fn left(more: Value) -> Value {
    let mut object = stored(&created(&steps(&with_finalizer(), &remote(open(true), None))));
    object["metadata"]["labels"]["focom.nephio.org/source-uid"] = json!("former");
    object["metadata"]["resourceVersion"] = json!("7");
    template_schema::overlay(&mut object, more);
    object
}

#[test]
fn what_an_earlier_object_of_the_name_has_left_is_taken_as_it_is_or_not_at_all() {
    let taken = |found: Value| steps(&with_finalizer(), &remote(open(true), Some(found)));
    let plan = taken(left(json!({})));
    let [Step::Adopt(manifest, uid)] = plan.as_slice() else { panic!("{plan:?}") };
    assert_eq!((uid.as_str(), &manifest["metadata"]["resourceVersion"]), ("remote-uid", &json!("7")));
    assert_eq!(manifest["metadata"]["labels"]["focom.nephio.org/source-uid"], json!(UID));
    for differs in [
        json!({"spec": {"templateParameters": {"a": 2}}}),
        json!({"spec": {"templateName": "other"}}),
        json!({"metadata": {"annotations": {"focom.nephio.org/applied-hash": "other"}}, "spec": {"templateParameters": {"more": 1}}}),
        json!({"metadata": {"labels": {"focom.nephio.org/source-uid": "living"}}}),
        json!({"metadata": {"labels": {"focom.nephio.org/source-namespace": "other"}}}),
        json!({"metadata": {"labels": {"focom.nephio.org/source": "other"}}}),
        json!({"metadata": {"labels": {"focom.nephio.org/smo": "other"}}}),
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    ] {
        assert!(taken(left(differs.clone())).is_empty(), "{differs}");
    }
    // What was applied with another mark and is the same is the same.
    let marked_otherwise = json!({"metadata": {"annotations": {"focom.nephio.org/applied-hash": "other"}}});
    assert_eq!(taken(left(marked_otherwise)).len(), 1);
    // A dry run takes nothing.
    let dry = request(json!({"metadata": {"annotations": {"focom.nephio.org/adopt": "dry-run"}}}));
    assert_eq!(steps(&dry, &remote(open(true), Some(left(json!({}))))), [Step::AddFinalizer]);
}

#[test]
fn a_deletion_takes_back_what_an_earlier_object_has_left_only_if_it_is_the_same() {
    let plan = |found: Value| steps(&deleted(json!({})), &remote(open(true), Some(found)));
    assert_eq!(plan(left(json!({}))), [Step::Delete("remote-uid".to_owned())]);
    assert!(plan(left(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}))).is_empty());
    assert_eq!(plan(left(json!({"spec": {"templateParameters": {"a": 2}}}))), [Step::RemoveFinalizer]);
}

#[test]
fn what_is_annotated_for_adoption_is_never_sent() {
    for value in ["dry-run", "uid", ""] {
        let request = request(json!({
            "metadata": {"annotations": {"focom.nephio.org/adopt": value}, "finalizers": ["focom.nephio.org/finalizer"]},
        }));
        assert_eq!(steps(&request, &remote(open(true), None)), [Step::FindAndAdopt], "{value:?}");
    }
    let sent_by_nephios = json!({"metadata": {"finalizers": ["focom.nephio.org/finalizer"]}, "status": {"phase": "Fulfilled", "remoteName": "edge"}});
    assert_eq!(steps(&request(sent_by_nephios.clone()), &remote(open(true), None)), [Step::FindAndAdopt]);
    assert_eq!(
        steps(&deleted(sent_by_nephios), &remote(open(true), None)),
        [Step::FindAndAdopt, Step::RemoveFinalizer]
    );
}

#[test]
fn a_protection_is_passed_on_and_holds_a_deletion() {
    let says = |value: Value| json!({"metadata": {"annotations": {"focom.nephio.org/deletion-protection": value}}});
    let protection = |manifest: &Value| {
        manifest["metadata"]["annotations"]["o2ims.provisioning.oran.org/deletion-protection"].clone()
    };
    let plain = stored(&created(&steps(&with_finalizer(), &remote(open(true), None))));
    assert!(protection(&plain).is_null());
    let mut protected = plain.clone();
    protected["metadata"]["annotations"]["o2ims.provisioning.oran.org/deletion-protection"] = json!("true");
    protected["metadata"]["resourceVersion"] = json!("7");
    assert!(steps(&with_finalizer(), &remote(open(true), Some(protected.clone()))).is_empty(), "somebody else's");
    for value in ["true", "false"] {
        let due = steps(&request(says(json!(value))), &remote(open(true), Some(plain.clone())));
        let Some(Step::Update(manifest, _)) = due.last() else { panic!("{due:?}") };
        assert_eq!(protection(manifest), json!(value));
        let there = stored(manifest);
        assert_eq!(steps(&request(says(json!(value))), &remote(open(true), Some(there.clone()))), [Step::AddFinalizer]);
        // Taken off the request, it is taken off there; what was sent is no other request for that.
        assert_eq!(steps(&request(json!({})), &remote(open(true), Some(there.clone()))).len(), 2);
        assert!(manifest::is_current_spec(&request(json!({})), &serde_json::from_value(there).unwrap()));
    }
    let deletes = |more: Value, found: &Value| steps(&deleted(more), &remote(open(true), Some(found.clone())));
    assert!(deletes(json!({}), &protected).is_empty());
    assert!(deletes(says(json!("true")), &plain).is_empty());
    let delete = Step::Delete("remote-uid".to_owned());
    assert_eq!(
        deletes(says(json!("false")), &protected),
        [Step::Unprotect("remote-uid".to_owned(), "7".to_owned()), delete.clone()]
    );
    assert_eq!(deletes(says(json!("false")), &plain), [delete]);
    let abandoned = json!({"metadata": {"annotations": {"focom.nephio.org/abandon": "true"}}});
    assert_eq!(deletes(abandoned, &protected), [Step::RemoveFinalizer]);
    let orphaned = json!({"metadata": {"finalizers": ["focom.nephio.org/finalizer", "orphan"]}});
    assert_eq!(deletes(orphaned.clone(), &plain), [Step::RemoveFinalizer]);
    assert_eq!(steps(&deleted(orphaned), &remote(broken(), None)), [Step::RemoveFinalizer]);
}

#[test]
fn lost_hosts_are_passed_on_once() {
    let says = |more: Value| {
        let mut all = json!({"metadata": {
            "annotations": {"focom.nephio.org/lost-hosts": "target-2"}, "finalizers": ["focom.nephio.org/finalizer"],
        }});
        template_schema::overlay(&mut all, more);
        request(all)
    };
    assert!(matches!(steps(&says(json!({})), &remote(open(true), None))[..], [Step::Create(_)]), "it is sent first");
    let mut sent = stored(&created(&steps(&with_finalizer(), &remote(open(true), None))));
    sent["metadata"]["resourceVersion"] = json!("7");
    let passed_on =
        [Step::PassOnLostHosts("remote-uid".to_owned(), "7".to_owned(), "target-2".to_owned()), Step::RemoveLostHosts];
    assert_eq!(steps(&says(json!({})), &remote(open(true), Some(sent.clone()))), passed_on);
    assert!(steps(&with_finalizer(), &remote(open(true), Some(sent.clone()))).is_empty());
    // An edit goes first.
    let edited =
        steps(&says(json!({"spec": {"templateParameters": {"a": 2}}})), &remote(open(true), Some(sent.clone())));
    assert!(matches!(edited[..], [Step::Update(..)]), "{edited:?}");
    // So does the deletion; it waits for hosts on the O-Cloud then.
    let gone = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    assert_eq!(
        steps(&says(gone.clone()), &remote(open(true), Some(sent.clone()))),
        [Step::Delete("remote-uid".to_owned())]
    );
    sent["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(steps(&says(gone), &remote(open(true), Some(sent))), passed_on);
}

#[test]
fn a_request_that_was_sent_stays_where_it_was_sent_to() {
    let sent = stored(&created(&steps(&with_finalizer(), &remote(open(true), None))));
    let own: RemoteRequest = serde_json::from_value(sent).unwrap();
    let told =
        |more: Value| validate::check_transitions(&request(more), Some(&own)).map_err(|rejection| rejection.message);
    let status = json!({"sentToOCloud": "team/site", "remoteName": "edge-o2ims"});
    assert_eq!(told(json!({"status": status})), Ok(()));
    assert_eq!(told(json!({"spec": {"templateParameters": {"a": 2}}, "status": status})), Ok(()));
    for (field, from) in
        [("oCloudId", "site"), ("oCloudNamespace", "team"), ("templateName", "t"), ("templateVersion", "v1")]
    {
        let message = told(json!({"spec": {field: "other"}, "status": status})).unwrap_err();
        assert!(message.starts_with(&format!("spec.{field} cannot change from {from} to other")), "{message}");
    }
    let moved = request(json!({"spec": {"oCloudId": "other"}, "status": status}));
    assert_eq!(moved.o_cloud(), ("team", "site"));
    assert_eq!(request(json!({"spec": {"oCloudId": "other"}})).o_cloud(), ("team", "other"), "never sent");
}

/// As after a restore of the SMO's etcd from an older snapshot: UID and name are the same.
#[test]
fn an_older_state_of_the_request_changes_nothing_until_it_says_the_same() {
    let sent = |parameter: i64, generation: &str| {
        let was = request(json!({
            "metadata": {"finalizers": ["focom.nephio.org/finalizer"]}, "spec": {"templateParameters": {"a": parameter}},
        }));
        let mut object = stored(&created(&steps(&was, &remote(open(true), None))));
        object["metadata"]["annotations"]["focom.nephio.org/source-generation"] = json!(generation);
        remote(open(true), Some(object))
    };
    assert!(steps(&with_finalizer(), &sent(2, "7")).is_empty());
    let (phase, message, ready) = told(&with_finalizer(), &sent(2, "7"), None);
    assert_eq!((phase.as_str(), ready.as_str()), ("Failed", "False AdoptionRequired"));
    assert!(
        message.contains("(generation 7, this is 1)") && message.contains("spec.templateParameters.a"),
        "{message}"
    );
    let plan = steps(&with_finalizer(), &sent(1, "7"));
    let [Step::Update(manifest, _)] = plan.as_slice() else { panic!("{plan:?}") };
    assert_eq!(manifest["metadata"]["annotations"]["focom.nephio.org/source-generation"], json!("1"));
    assert_eq!(steps(&with_finalizer(), &sent(2, "1")).len(), 1, "an edit");
    assert!(steps(&with_finalizer(), &sent(1, "0")).is_empty(), "the same in another generation");
}

#[test]
fn where_a_request_was_sent_is_kept_while_its_o_cloud_cannot_be_asked() {
    let sent = request(
        json!({"status": {"phase": "Creating", "remoteName": "edge-o2ims", "sentTo": "first", "sentToOCloud": "team/site"}}),
    );
    let mut elsewhere = remote(broken(), None);
    elsewhere.connection.fingerprint = Some("second".to_owned());
    let (status, _) = assess(&sent, &observed(Some(&elsewhere)), &Ok(()), None, Timestamp::UNIX_EPOCH);
    assert_eq!(status.sent_to.as_deref(), Some("first"));
}

#[test]
fn a_request_is_not_forgotten_where_it_was_sent_because_another_has_its_name_elsewhere() {
    let theirs = json!({"metadata": {"name": "edge-o2ims", "namespace": "team", "uid": "u", "labels": {"focom.nephio.org/source-uid": "living"}}});
    let mut elsewhere = remote(open(true), Some(theirs));
    elsewhere.connection.fingerprint = Some("second".to_owned());
    let status = json!({"status": {"phase": "Synced", "remoteName": "edge-o2ims", "sentTo": "first"}});
    assert!(steps(&deleted(status), &elsewhere).is_empty());
}

/// What a former request of the name has left on the O-Cloud that the OCloud leads to now is not what this one has.
#[test]
fn a_request_that_was_sent_elsewhere_neither_adopts_nor_deletes_what_a_former_one_has_left() {
    let status = json!({"status": {"phase": "Synced", "remoteName": "edge-o2ims", "sentTo": "first"}});
    for same in [json!({}), json!({"spec": {"templateParameters": {"a": 2}}})] {
        let mut elsewhere = remote(open(true), Some(left(same)));
        elsewhere.connection.fingerprint = Some("second".to_owned());
        for sent in [deleted(status.clone()), request(status.clone())] {
            assert_eq!(steps(&sent, &elsewhere), []);
            let (_, message, ready) = told(&sent, &elsewhere, None);
            assert_eq!(ready, "False OCloudChanged", "{message}");
        }
        let given_up = json!({"metadata": {"annotations": {"focom.nephio.org/abandon": "true"}}});
        let mut let_go = deleted(status.clone());
        let_go.metadata.annotations = request(given_up).metadata.annotations;
        assert_eq!(steps(&let_go, &elsewhere), [Step::RemoveFinalizer]);
    }
}
