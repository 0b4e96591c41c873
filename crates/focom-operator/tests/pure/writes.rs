//! What a write to an O-Cloud ran into, as the user of the request is told.

use focom_operator::focom_provisioning_request::adopt::adopted;
use focom_operator::focom_provisioning_request::write_error::{
    explain_status, marked_elsewhere, may_come_late, not_gone, request_gone, unreadable,
};
use kube::core::Status;
use o2ims_types::conditions::focom::reason;
use operator_kit::controller::Class;
use serde_json::json;

const WHAT: &str = "ProvisioningRequest team/edge-o2ims";

#[test]
fn each_answer_of_an_o_cloud_is_explained() {
    let answer = |code: u16, message: &str| -> Status {
        serde_json::from_value(json!({"code": code, "message": message, "reason": "Invalid"})).unwrap()
    };
    let rights = "is forbidden: User \"smo\" cannot patch resource";
    for (code, message, reason, requires_action, told) in [
        (422, "no such field", reason::REFUSED, true, "the O-Cloud refuses it: no such field"),
        (403, "exceeded quota", reason::REFUSED, true, "the O-Cloud refuses it: exceeded quota"),
        (500, "admission webhook \"a\" denied", reason::REFUSED, true, "the O-Cloud refuses it: admission webhook"),
        (
            403,
            "ValidatingAdmissionPolicy 'a' denied request: no",
            reason::REFUSED,
            true,
            "the O-Cloud refuses it: ValidatingAdmissionPolicy",
        ),
        (
            403,
            "unable to create new content because it is being terminated",
            reason::IN_PROGRESS,
            false,
            "its namespace is being deleted on the O-Cloud; it can be sent when that namespace is created again",
        ),
        (
            403,
            rights,
            reason::FORBIDDEN,
            true,
            "the SMO's account on the O-Cloud may not write it: give the account its rights there",
        ),
        (
            404,
            "not found",
            reason::IN_PROGRESS,
            false,
            "the O-Cloud has no such namespace: create it there, or create the request again with another oCloudNamespace",
        ),
        (500, "no", reason::IN_PROGRESS, false, "the O-Cloud answers with an error (500)"),
    ] {
        let error = explain_status(WHAT, &answer(code, message), message);
        messages::record(error.error.message());
        assert_eq!((error.reason, error.requires_action), (reason, requires_action), "{message}");
        assert!(error.error.message().starts_with(&format!("{WHAT}: {told}")), "{}", error.error.message());
    }
    let error = unreadable(WHAT);
    messages::record(error.error.message());
    assert_eq!(error.error.message(), format!("{WHAT}: the O-Cloud's answer cannot be read"));
}

#[test]
fn what_a_request_waits_for_at_its_end_is_named() {
    for (error, class, message) in [
        (request_gone("edge"), Class::Conflict, "FocomProvisioningRequest edge does not exist any more"),
        (
            may_come_late(),
            Class::Transient,
            "the O-Cloud has not answered a write and may still carry it out: this request is kept for a minute after that write",
        ),
        (not_gone("team/edge"), Class::Transient, "ProvisioningRequest team/edge is still on the O-Cloud"),
        (
            marked_elsewhere("copy", "other"),
            Class::Transient,
            "ProvisioningRequest copy of namespace \"other\" on the O-Cloud has the label focom.nephio.org/source-uid with the UID of this \
             request, so the deletion of this request waits: remove that label, or delete that ProvisioningRequest",
        ),
    ] {
        messages::record(error.message());
        assert_eq!((error.class(), error.message()), (class, message));
    }
    let note = adopted("edge-o2ims");
    messages::record(&note);
    assert!(note.starts_with("this request has adopted ProvisioningRequest edge-o2ims on the O-Cloud"), "{note}");
}
