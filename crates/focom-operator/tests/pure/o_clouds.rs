//! What the owner of an OCloud and the author of a TemplateInfo are told.

use std::io;

use focom_operator::o_cloud::connection::ConnectionState;
use focom_operator::o_cloud::error::ConnectionError;
use focom_operator::o_cloud::kubeconfig;
use focom_operator::o_cloud::reconcile::{assess, empty, forbidden, missing, not_granted, rejected};
use focom_operator::template_info::reconcile::assess as assess_template;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::core::Status;
use o2ims_types::conditions::focom::reason;
use o2ims_types::{OCloud, TemplateInfo};
use serde_json::{Value, json};

use crate::decisions::open;

fn o_cloud() -> OCloud {
    serde_json::from_value(json!({
        "apiVersion": "focom.nephio.org/v1alpha1", "kind": "OCloud", "metadata": {"name": "site", "namespace": "team"},
        "spec": {"o2imsSecret": {"secretRef": {"name": "access", "namespace": "keys"}}},
    }))
    .unwrap()
}

/// Status, reason and message of the one condition.
fn ready(conditions: &[Condition]) -> [&str; 3] {
    let [ready] = conditions else { panic!("{conditions:?}") };
    messages::record(&ready.message);
    [&ready.status, &ready.reason, &ready.message]
}

fn api_error(code: u16) -> kube::Error {
    let status: Status = serde_json::from_value(json!({"code": code, "message": "secret"})).unwrap();
    kube::Error::Api(Box::new(status))
}

fn transport(kind: io::ErrorKind, text: &str) -> ConnectionError {
    ConnectionError::from_kube(&kube::Error::Service(Box::new(io::Error::new(kind, text))))
}

#[test]
fn an_o_cloud_that_answers_is_ready() {
    for (namespaced, scope) in [(true, "namespaced"), (false, "cluster-scoped")] {
        let status = assess(&o_cloud(), &open(namespaced), Timestamp::UNIX_EPOCH);
        let message = format!("the O-Cloud answers; its ProvisioningRequests are {scope}");
        assert_eq!(ready(&status.conditions), ["True", reason::READY, &message]);
    }
    let status = assess(&o_cloud(), &ConnectionState::Connecting, Timestamp::UNIX_EPOCH);
    assert_eq!(ready(&status.conditions), ["Unknown", reason::CONNECTING, "the O-Cloud has not answered yet"]);
}

#[test]
fn each_failure_says_what_to_do_and_names_the_secret() {
    let refused = kubeconfig::read(b"a: b").err().unwrap();
    let undecodable = kube::Error::SerdeError(serde_json::from_str::<u8>("x").unwrap_err());
    let certificate = |text: &str| transport(io::ErrorKind::InvalidData, &format!("invalid peer certificate: {text}"));
    let not_accepted = |why: &str| format!("the O-Cloud's certificate is not accepted: {why}");
    let not_reached = |why: &str| format!("the O-Cloud cannot be reached: {why}");
    for (error, reason, message) in [
        (
            missing(&o_cloud()),
            reason::SECRET_MISSING,
            "Secret keys/access does not exist: put a kubeconfig of the O-Cloud there".to_owned(),
        ),
        (
            empty(&o_cloud()),
            reason::SECRET_MISSING,
            "Secret keys/access has neither the key kubeconfig nor the key value: put a kubeconfig of the O-Cloud there".to_owned(),
        ),
        (
            rejected(&o_cloud(), &refused),
            reason::KUBECONFIG_REFUSED,
            "Secret keys/access: the kubeconfig is not used: a is not a field that is allowed here".to_owned(),
        ),
        (
            forbidden(&o_cloud()),
            reason::SECRET_NOT_ALLOWED,
            "the operator may not read Secret keys/access: kubectl create rolebinding focom-operator-secrets --namespace keys".to_owned(),
        ),
        (
            not_granted(&o_cloud()),
            reason::SECRET_NOT_ALLOWED,
            "Secrets of namespace keys are not for OClouds of namespace team: move the Secret, or annotate Namespace keys with".to_owned(),
        ),
        (
            ConnectionError::unusable(),
            reason::KUBECONFIG_REFUSED,
            "the address, the certificates or the key in the kubeconfig cannot be used: put a valid kubeconfig into the Secret".to_owned(),
        ),
        (
            ConnectionError::from_kube(&api_error(401)),
            reason::UNAUTHORIZED,
            "the O-Cloud does not accept the credentials (401): put valid ones into the Secret".to_owned(),
        ),
        (
            ConnectionError::from_kube(&api_error(403)),
            reason::FORBIDDEN,
            "the O-Cloud does not let the account list and watch provisioningrequests (403)".to_owned(),
        ),
        (
            ConnectionError::from_kube(&api_error(404)),
            reason::API_MISSING,
            "the O-Cloud has no provisioningrequests of o2ims.provisioning.oran.org/v1alpha1".to_owned(),
        ),
        (
            ConnectionError::from_kube(&api_error(500)),
            reason::UNREACHABLE,
            "the O-Cloud answers with an error (500)".to_owned(),
        ),
        (
            ConnectionError::from_kube(&undecodable),
            reason::UNREACHABLE,
            "what answers at the O-Cloud's address is no Kubernetes API".to_owned(),
        ),
        (
            ConnectionError::too_large(7_000, 32 * 1024 * 1024, "smo-1"),
            reason::TOO_LARGE,
            "the O-Cloud has sent more than 32 MiB of ProvisioningRequests with the label focom.nephio.org/smo=smo-1 (after 7000 of them)"
                .to_owned(),
        ),
        (ConnectionError::timeout(), reason::UNREACHABLE, "the O-Cloud does not answer in time".to_owned()),
        (
            ConnectionError::internal(),
            reason::UNREACHABLE,
            "internal error while speaking to the O-Cloud, see the operator's log".to_owned(),
        ),
        (
            certificate("UnknownIssuer"),
            reason::CERTIFICATE_INVALID,
            not_accepted("it is not signed by the authority in the kubeconfig"),
        ),
        (
            certificate("certificate not valid for name \"a\""),
            reason::CERTIFICATE_INVALID,
            not_accepted("it is for another host name or address than the kubeconfig's"),
        ),
        (certificate("certificate expired"), reason::CERTIFICATE_INVALID, not_accepted("it has expired")),
        (certificate("certificate not valid yet"), reason::CERTIFICATE_INVALID, not_accepted("it is not valid yet")),
        (certificate("BadEncoding"), reason::CERTIFICATE_INVALID, not_accepted("it is not valid")),
        (
            transport(io::ErrorKind::InvalidData, "received fatal alert: HandshakeFailure"),
            reason::CERTIFICATE_INVALID,
            not_accepted("the O-Cloud ends the TLS handshake, probably because of the client certificate"),
        ),
        (
            transport(io::ErrorKind::ConnectionRefused, "no"),
            reason::UNREACHABLE,
            not_reached("connection refused"),
        ),
        (
            transport(io::ErrorKind::ConnectionReset, "no"),
            reason::UNREACHABLE,
            not_reached("the connection was closed"),
        ),
        (
            transport(io::ErrorKind::HostUnreachable, "no"),
            reason::UNREACHABLE,
            not_reached("no route to its address"),
        ),
        (
            transport(io::ErrorKind::UnexpectedEof, "no"),
            reason::UNREACHABLE,
            not_reached("what answers there does not speak TLS"),
        ),
        (transport(io::ErrorKind::Other, "dns error"), reason::UNREACHABLE, not_reached("its host name is unknown")),
        (transport(io::ErrorKind::Other, "no"), reason::UNREACHABLE, not_reached("the connection fails")),
    ] {
        let status = assess(&o_cloud(), &ConnectionState::Failed(error), Timestamp::UNIX_EPOCH);
        let [is_ready, is_because, told] = ready(&status.conditions);
        assert_eq!([is_ready, is_because], ["False", reason], "{told}");
        assert!(told.starts_with(&message), "{told} is not {message}");
        assert!(told.contains("keys"), "{told} does not say where the kubeconfig is");
    }
}

#[test]
fn the_author_of_a_template_info_is_told_about_its_schema() {
    let of = |schema: Value| -> TemplateInfo {
        serde_json::from_value(json!({
            "apiVersion": "provisioning.oran.org/v1alpha1", "kind": "TemplateInfo", "metadata": {"name": "t-v1"},
            "spec": {"templateName": "t", "templateVersion": "v1", "templateParameterSchema": schema},
        }))
        .unwrap()
    };
    let told = |schema: &str| {
        let status = assess_template(&of(json!(schema)), Timestamp::UNIX_EPOCH);
        ready(&status.conditions).map(ToOwned::to_owned)
    };
    assert_eq!(told("type: object"), ["True", reason::READY, "requests are checked against the schema"]);
    let [is_ready, because, message] = told("type: 5");
    assert_eq!([is_ready.as_str(), because.as_str()], ["False", reason::INVALID]);
    assert!(message.starts_with("templateParameterSchema is not a JSON Schema: "), "{message}");
}
