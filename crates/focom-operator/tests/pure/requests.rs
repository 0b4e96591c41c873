//! What the user of a request is told, beside what follows from a plan.

use std::sync::Arc;

use focom_operator::focom_provisioning_request::adopt::nothing_to_adopt;
use focom_operator::focom_provisioning_request::decision::decide;
use focom_operator::focom_provisioning_request::expectations::Expectations;
use focom_operator::focom_provisioning_request::observe::{Observed, RemoteState, Target};
use focom_operator::focom_provisioning_request::revisions::{is_accepted, note};
use focom_operator::focom_provisioning_request::status::assess;
use focom_operator::focom_provisioning_request::validate::validate;
use focom_operator::focom_provisioning_request::write_error::WriteError;
use focom_operator::o_cloud::connection::ConnectionState;
use k8s_openapi::jiff::Timestamp;
use o2ims_types::FocomProvisioningRequest;
use serde_json::{Value, json};

use crate::decisions::{
    annotated, broken, created, deleted, left, observed, open, remote, request, steps, stored, with_finalizer,
};
use crate::model::record_status;

/// What is known of a request that may use its O-Cloud.
fn allowed(remote: Option<&RemoteState>) -> Observed {
    let o_cloud = json!({
        "apiVersion": "focom.nephio.org/v1alpha1", "kind": "OCloud", "metadata": {"name": "site", "namespace": "team"},
        "spec": {"o2imsSecret": {"secretRef": {"name": "access"}}},
    });
    let target = Target::OCloud(Some(Arc::new(serde_json::from_value(o_cloud).unwrap())));
    Observed { target, ..observed(remote) }
}

fn with_schema(schema: &str) -> Observed {
    let template = json!({
        "apiVersion": "provisioning.oran.org/v1alpha1", "kind": "TemplateInfo", "metadata": {"name": "t-v1"},
        "spec": {"templateName": "t", "templateVersion": "v1", "templateParameterSchema": schema},
    });
    let template = Some(Arc::new(serde_json::from_value(template).unwrap()));
    Observed { template, ..allowed(Some(&remote(open(true), None))) }
}

/// The message of a request that is judged by what is observed.
fn told(request: &FocomProvisioningRequest, observed: &Observed, write_error: Option<&WriteError>) -> String {
    let verdict = validate(request, observed);
    let (status, _) = assess(request, observed, &verdict, write_error, Timestamp::UNIX_EPOCH);
    record_status(&status);
    status.message
}

fn says(message: &str, words: &[&str]) {
    for words in words {
        assert!(message.contains(words), "{message:?} has no {words:?}");
    }
}

/// The ProvisioningRequest that the request has on its O-Cloud.
fn own(more: Value) -> RemoteState {
    let mut object = stored(&created(&steps(&with_finalizer(), &remote(open(true), None))));
    template_schema::overlay(&mut object, more);
    remote(open(true), Some(object))
}

/// A request that was sent.
fn sent(more: Value) -> FocomProvisioningRequest {
    let mut object = json!({"status": {"phase": "Synced", "remoteName": "edge-o2ims", "sentToOCloud": "team/site"}});
    template_schema::overlay(&mut object, more);
    request(object)
}

#[test]
fn a_rejected_request_says_what_to_do() {
    let of_others = request(json!({"spec": {"oCloudNamespace": "owner"}}));
    let local = Observed { target: Target::Local(None), ..observed(None) };
    for (message, words) in [
        (
            told(&of_others, &local, None),
            "oCloudNamespace owner is not for requests of namespace team: create Namespace owner if it does not exist and annotate it with \
             focom.nephio.org/requests-from=team, or use oCloudNamespace team",
        ),
        (
            told(&request(json!({})), &observed(None), None),
            "oCloudId site: there is no OCloud team/site: create it, or delete this request and create one with another oCloudId",
        ),
        (
            told(&sent(json!({})), &observed(None), None),
            "oCloudId site: there is no OCloud team/site: create it again, as it was when this request was sent",
        ),
        (
            told(&of_others, &observed(None), None),
            "oCloudId site: namespace team may use no OCloud owner/site: it does not exist, or its spec.allowedNamespaces does not name team",
        ),
        (
            told(&request(annotated("deletion-protection", "yes")), &allowed(Some(&own(json!({})))), None),
            "metadata.annotations[focom.nephio.org/deletion-protection] is \"yes\": it must be \"true\" or \"false\"",
        ),
        (
            told(&sent(json!({"spec": {"oCloudId": "other"}})), &allowed(Some(&own(json!({})))), None),
            "spec.oCloudId cannot change from site to other, because the request was sent to O-Cloud team/site: set it back to site, or create \
             a request with another name; the ProvisioningRequest on the O-Cloud is not changed",
        ),
        (
            told(&request(json!({})), &with_schema("required: [b]"), None),
            "templateParameters: \"b\" is a required property (templateParameterSchema of TemplateInfo team/t-v1)",
        ),
        (
            told(&request(json!({})), &with_schema("type: 5"), None),
            "TemplateInfo team/t-v1: templateParameterSchema is not a JSON Schema: ",
        ),
    ] {
        says(&message, &[words]);
    }
}

#[test]
fn a_request_on_its_way_says_how_far_it_is() {
    let reports = |state: &str| own(json!({"status": {"provisioningStatus": {"provisioningState": state}}}));
    let going = own(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    for (message, words) in [
        (
            told(&request(json!({})), &allowed(Some(&remote(open(true), None))), None),
            "O-Cloud team/site answers; this request has not been sent to it yet",
        ),
        (
            told(&sent(json!({})), &allowed(Some(&reports("progressing"))), None),
            "O-Cloud team/site reports state progressing, without a message",
        ),
        (
            told(&sent(json!({})), &allowed(Some(&going)), None),
            "ProvisioningRequest edge-o2ims is being deleted on O-Cloud team/site, although this request is not; it is created again when its \
             deletion is finished",
        ),
    ] {
        assert_eq!(message, words);
    }
}

#[test]
fn what_others_have_sent_is_explained() {
    let of = |more: Value, found: Value| told(&request(more), &allowed(Some(&remote(open(true), Some(found)))), None);
    let labels = |labels: Value| json!({"metadata": {"labels": labels}});
    let unmarked = json!({"metadata": {"name": "edge-o2ims", "namespace": "team", "uid": "u"}, "spec": {}});
    let mut without_smo = left(json!({}));
    without_smo["metadata"]["labels"].as_object_mut().unwrap().remove("focom.nephio.org/smo");
    let exists = "ProvisioningRequest edge-o2ims exists on O-Cloud team/site and is not this request's";
    says(
        &of(json!({}), left(json!({}))),
        &["was created for an earlier FocomProvisioningRequest", "this request adopts it"],
    );
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    says(&of(json!({}), left(going)), &["is not this request's and is being deleted; this request is sent when that"]);
    let living = left(labels(json!({"focom.nephio.org/source-uid": "living"})));
    says(&of(json!({}), living), &[exists, ": choose another metadata.name"]);
    says(
        &of(json!({}), unmarked.clone()),
        &[exists, "with focom.nephio.org/adopt=dry-run to see whether it can be adopted"],
    );
    let guest = request(json!({"spec": {"oCloudNamespace": "owner"}}));
    let mut owners = allowed(Some(&remote(open(true), Some(unmarked))));
    owners.target = serde_json::from_value(json!({
        "apiVersion": "focom.nephio.org/v1alpha1", "kind": "OCloud", "metadata": {"name": "site", "namespace": "owner"},
        "spec": {"o2imsSecret": {"secretRef": {"name": "access"}}, "allowedNamespaces": ["team"]},
    }))
    .map(|o_cloud| Target::OCloud(Some(Arc::new(o_cloud))))
    .unwrap();
    says(
        &told(&guest, &owners, None),
        &["For a request of namespace team it can be adopted when it has the labels focom.nephio.org/source=edge and"],
    );
    let other_smo = left(labels(json!({"focom.nephio.org/smo": "other"})));
    says(
        &of(json!({}), other_smo),
        &["by another SMO (other): if this is that SMO, restored, start the operator with"],
    );
    says(
        &of(json!({}), without_smo),
        &["has no label focom.nephio.org/smo that names the SMO: annotate this request with"],
    );
    says(
        &of(annotated("adopt", "other"), left(json!({}))),
        &[
            "has the UID remote-uid, and the annotation focom.nephio.org/adopt of this request names other: nothing is written",
        ],
    );
    says(&of(annotated("adopt", "dry-run"), left(json!({}))), &["dry run: ", "(UID remote-uid) would be adopted"]);
    let differs = left(json!({"spec": {"templateParameters": {"a": 2}}}));
    says(
        &of(json!({}), differs),
        &["cannot be adopted, because it differs from this request in spec.templateParameters.a. Nothing was written"],
    );
    let nothing = |request: FocomProvisioningRequest| {
        let error = WriteError::from(nothing_to_adopt(&request));
        told(&request, &allowed(Some(&remote(open(true), None))), Some(&error))
    };
    let neither = "there is neither ProvisioningRequest edge-o2ims nor edge on O-Cloud team/site, and";
    says(
        &nothing(request(annotated("adopt", "uid"))),
        &[neither, "nothing is sent while this request has the annotation focom.nephio.org/adopt"],
    );
    says(&nothing(request(json!({}))), &[neither, "the status of this request says that another operator has sent it"]);
}

#[test]
fn a_deletion_says_what_it_waits_for() {
    let of = |more: Value, remote: &RemoteState| told(&deleted(more), &allowed(Some(remote)), None);
    let protection = "deletion-protection";
    let protected =
        own(json!({"metadata": {"annotations": {"o2ims.provisioning.oran.org/deletion-protection": "true"}}}));
    let orphaned = json!({"metadata": {"finalizers": ["focom.nephio.org/finalizer", "orphan"]}});
    let leaving = Observed { namespace_terminating: true, ..observed(None) };
    for (message, words) in [
        (of(json!({}), &remote(open(true), None)), "O-Cloud team/site has no ProvisioningRequest of this request"),
        (
            told(&deleted(json!({})), &observed(None), None),
            "oCloudId site: there is no OCloud team/site: create it again, then the deletion continues; to delete this request without waiting",
        ),
        (of(json!({}), &remote(ConnectionState::Connecting, None)), "connecting to O-Cloud team/site"),
        (
            of(json!({}), &remote(broken(), None)),
            "waiting for O-Cloud team/site: no answer; to delete this request without waiting for the ProvisioningRequest, which may then \
             stay on the O-Cloud, annotate this request with focom.nephio.org/abandon=true",
        ),
        (
            of(orphaned, &own(json!({}))),
            "this request is deleted with --cascade=orphan: its ProvisioningRequest stays on O-Cloud team/site",
        ),
        (
            told(&deleted(json!({})), &leaving, None),
            "namespace team is being deleted, and OCloud team/site is already deleted, so this operator cannot delete ProvisioningRequest \
             edge-o2ims on that O-Cloud: delete it there; to delete this request without waiting",
        ),
        (
            of(annotated(protection, "true"), &own(json!({}))),
            "this request has the annotation focom.nephio.org/deletion-protection=true, which forbids the deletion of ProvisioningRequest \
             edge-o2ims on O-Cloud team/site: annotate this request with focom.nephio.org/deletion-protection=false to have both deleted",
        ),
        (
            of(json!({}), &protected),
            "ProvisioningRequest edge-o2ims on O-Cloud team/site is protected from deletion by its annotation \
             o2ims.provisioning.oran.org/deletion-protection=true: annotate this request with",
        ),
    ] {
        assert!(message.starts_with(words), "{message:?} does not begin with {words:?}");
    }
}

#[test]
fn who_leaves_something_on_an_o_cloud_is_warned() {
    let orphaned = deleted(json!({"metadata": {"finalizers": ["focom.nephio.org/finalizer", "orphan"]}}));
    let abandoned = deleted(json!({
        "metadata": {"annotations": {"focom.nephio.org/abandon": "true"}},
        "status": {"phase": "Synced", "remoteName": "edge-o2ims", "sentTo": "first"},
    }));
    let differs = left(json!({"spec": {"templateParameters": {"a": 2}}}));
    for (request, remote, reason, words) in [
        (
            orphaned,
            own(json!({})),
            "Orphaned",
            "ProvisioningRequest edge-o2ims stays on O-Cloud team/site, with its cluster and hosts",
        ),
        (
            abandoned,
            remote(broken(), None),
            "Abandoned",
            "ProvisioningRequest team/edge-o2ims may stay on the O-Cloud that OCloud team/site led to (sentTo first)",
        ),
        (
            deleted(json!({})),
            remote(open(true), Some(differs)),
            "NotDeleted",
            "ProvisioningRequest edge-o2ims stays on O-Cloud team/site: it was created for an earlier FocomProvisioningRequest",
        ),
    ] {
        let decision = decide(&request, &allowed(Some(&remote)), &Expectations::default()).unwrap();
        let warning = decision.warning.unwrap();
        messages::record(&warning.message);
        assert_eq!(warning.reason, reason);
        assert!(warning.message.starts_with(words), "{}", warning.message);
    }
}

#[test]
fn a_spec_is_accepted_when_the_o_cloud_carries_it_out() {
    let reported = |state: &str| json!({"status": {"provisioningStatus": {"provisioningState": state}}});
    let accepted = |request: &FocomProvisioningRequest, more: Value| is_accepted(request, &allowed(Some(&own(more))));
    let present = sent(json!({}));
    for (state, expected) in
        [("progressing", true), ("fulfilled", true), ("pending", false), ("failed", false), ("", false)]
    {
        assert_eq!(accepted(&present, reported(state)), expected, "{state}");
    }
    let mut outdated = reported("fulfilled");
    template_schema::overlay(
        &mut outdated,
        json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 1}}),
    );
    assert!(!accepted(&present, outdated), "the operator there has not seen it");
    let edited = sent(json!({"spec": {"templateParameters": {"a": 2}}}));
    assert!(!accepted(&edited, reported("fulfilled")), "it is not sent");
    for pause in ["paused", "plan"] {
        assert!(!accepted(&sent(annotated(pause, "true")), reported("fulfilled")), "{pause}");
        assert!(accepted(&sent(annotated(pause, "false")), reported("fulfilled")), "{pause}");
    }
    assert!(!accepted(&deleted(json!({})), reported("fulfilled")));
    assert!(!is_accepted(&present, &observed(None)));
}

#[test]
fn the_status_names_the_revision_and_changes_with_it_alone() {
    let mut status = sent(json!({})).status.unwrap();
    let revision = |number| o2ims_types::Revision { name: format!("edge-{number}"), number };
    note(&mut status, revision(1), true, Timestamp::UNIX_EPOCH);
    let noted = status.clone();
    assert!(noted.last_updated.is_some());
    note(&mut status, revision(1), true, Timestamp::now());
    assert_eq!(status, noted, "nothing to write");
    note(&mut status, revision(2), false, Timestamp::UNIX_EPOCH);
    let revisions = status.revisions.unwrap();
    assert_eq!((revisions.accepted, revisions.fulfilled), (revision(2), Some(revision(1))));
}
