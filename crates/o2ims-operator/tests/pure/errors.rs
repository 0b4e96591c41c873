//! What a write ran into, as the user of the request is told.

use cluster_api::Kind;
use kube::core::Status;
use o2ims_operator::apply::error::{gone, lasting, left, of_host, taken, would_be_refused};
use o2ims_operator::provisioner::step::{DryRun, Setting};
use o2ims_operator::provisioning_request::events::removed_instruction;
use o2ims_types::names;
use operator_kit::controller::{Class, Error};
use operator_kit::write::revisions::not_recorded;
use serde_json::json;

use crate::model::{from, request};

fn answer(code: u16, message: &str) -> Error {
    Error::from(kube::Error::Api(Box::new(from::<Status>(json!({"code": code, "message": message})))))
}

fn dry_run() -> DryRun {
    DryRun {
        resource: Kind::KubeadmControlPlane.api_resource(),
        object: json!({"metadata": {"name": "core"}}),
        may_exist: false,
        hosts: "host 1 (target-1)".to_owned(),
        settings: vec![Setting {
            path: "spec.kubeadmConfigSpec",
            source: "spec.kubeadm.controlPlane of ClusterTemplate x".to_owned(),
        }],
    }
}

#[test]
fn each_names_its_object_and_what_to_do() {
    let webhook = "admission webhook \"vbyohost.kb.io\" denied the request: no";
    let undecodable = || serde_json::from_str::<u8>("x").unwrap_err();
    let rights = "byohosts \"target-1\" is forbidden: User \"o2ims\" cannot patch resource \"byohosts\"";
    for (error, class, message) in [
        (
            taken("KubeadmControlPlane", "site-a", "core"),
            Class::Transient,
            "KubeadmControlPlane site-a/core exists already and is not this request's; remove it, or use another clusterName",
        ),
        (
            would_be_refused(answer(422, "spec.kubeadmConfigSpec.a is wrong"), "site-a", &dry_run()),
            Class::Terminal,
            "host 1 (target-1): not claimed, because KubeadmControlPlane site-a/core would be refused (dry run): API server answered 422: \
             spec.kubeadmConfigSpec.a is wrong; correct spec.kubeadm.controlPlane of ClusterTemplate x",
        ),
        (
            would_be_refused(answer(403, "exceeded quota: q"), "site-a", &dry_run()),
            Class::Transient,
            "host 1 (target-1): not claimed, because KubeadmControlPlane site-a/core would be refused (dry run): API server answered 403: \
             exceeded quota: q",
        ),
        (
            gone(Kind::ByoCluster, "site-a", "core"),
            Class::Conflict,
            "ByoCluster site-a/core is gone, so no Cluster is created for it",
        ),
        (
            left(Kind::MachineDeployment, "site-a", "core"),
            Class::Transient,
            "MachineDeployment site-a/core still exists, so this request stays until it is gone",
        ),
        (
            of_host(answer(403, webhook), "site-a", "target-1"),
            Class::Transient,
            "ByoHost site-a/target-1: API server answered 403: admission webhook \"vbyohost.kb.io\" denied the request: no; apply \
             deploy/byoh/webhook-exemption.yaml",
        ),
        (
            of_host(answer(403, rights), "site-a", "target-1"),
            Class::Transient,
            "ByoHost site-a/target-1: forbidden, check the operator's RBAC rules: byohosts \"target-1\" is forbidden: User \"o2ims\" cannot \
             patch resource \"byohosts\"",
        ),
        (
            lasting(answer(409, "changed")),
            Class::Conflict,
            "API server answered 409: changed; this happens at every try: another client changes the same object again and again, or this \
             operator's watch of it is behind. To see who writes it, kubectl get that object with -o yaml --show-managed-fields",
        ),
        (
            Error::from(kube::Error::SerdeError(undecodable())),
            Class::Transient,
            "cannot decode the answer of the API server (Syntax error at line 1, column 1)",
        ),
        (Error::from(undecodable()), Class::Terminal, "cannot convert JSON (Syntax error at line 1, column 1)"),
    ] {
        messages::record(error.message());
        assert_eq!((error.class(), error.message()), (class, message));
    }
}

#[test]
fn an_instruction_that_was_removed_is_named() {
    let mut request = request("one", "core", &[1], &[]);
    request.metadata.annotations = Some([(names::CLEAN_ANNOTATION.to_owned(), "core-uid".to_owned())].into());
    let note = removed_instruction(&request, names::CLEAN_ANNOTATION);
    messages::record(&note);
    let annotation = names::CLEAN_ANNOTATION;
    assert_eq!(note, format!("annotation {annotation}=core-uid was removed: nothing that it names is lost any more"));
}

#[test]
fn a_spec_that_is_not_recorded_is_told() {
    let note = not_recorded(&answer(403, "exceeded quota: q"));
    messages::record(&note);
    let told = "the spec of this request is carried out, but not recorded as a ControllerRevision, so there is no revision to go back to it: API \
                server answered 403: exceeded quota: q";
    assert_eq!(note, told);
}
