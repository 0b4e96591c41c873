//! Why a write of a plan failed.

use kube::core::Status;
use o2ims_types::conditions::focom::reason;
use o2ims_types::names::focom;
use operator_kit::controller::{Error, is_denied_by_policy, lacks_rights};

use super::validate::Rejection;

/// Why a write failed, and what that means for the request.
#[derive(Debug)]
pub struct WriteError {
    /// Decides about the next try; its message is for the user.
    pub error: Error,
    /// Reason of the condition.
    pub reason: &'static str,
    /// Whether the write fails until a user changes something.
    pub requires_action: bool,
    /// Whether it is certain that nothing was written.
    pub nothing_written: bool,
}

impl WriteError {
    /// An error that lasts until a user changes something.
    pub fn permanent(reason: &'static str, message: impl Into<String>) -> Self {
        Self { error: Error::terminal(message), reason, requires_action: true, nothing_written: true }
    }

    /// An error that may pass by itself.
    pub fn transient(reason: &'static str, message: impl Into<String>) -> Self {
        Self { error: Error::transient(message), reason, requires_action: false, nothing_written: false }
    }
}

/// The request was deleted before its finalizer was written.
pub fn request_gone(request: &str) -> Error {
    Error::conflict(format!("FocomProvisioningRequest {request} does not exist any more"))
}

/// A write to the O-Cloud may still be carried out.
pub fn may_come_late() -> Error {
    Error::transient(
        "the O-Cloud has not answered a write and may still carry it out: this request is kept for a minute after that write",
    )
}

/// The answer to a write is no object.
pub fn unreadable(what: &str) -> WriteError {
    WriteError::transient(reason::IN_PROGRESS, format!("{what}: the O-Cloud's answer cannot be read"))
}

/// The ProvisioningRequest is not gone yet. `place`: its name, with its namespace if it has one.
pub fn not_gone(place: &str) -> Error {
    Error::transient(format!("ProvisioningRequest {place} is still on the O-Cloud"))
}

/// A ProvisioningRequest of another name has the mark of the request.
pub fn marked_elsewhere(name: &str, namespace: &str) -> Error {
    Error::transient(format!(
        "ProvisioningRequest {name} of namespace {namespace:?} on the O-Cloud has the label {} with the UID of this request, so the \
         deletion of this request waits: remove that label, or delete that ProvisioningRequest",
        focom::SOURCE_UID_LABEL
    ))
}

/// What an answer of the O-Cloud's API server means. `what`: the object; `quote`: the answer, as it may be quoted.
pub fn explain_status(what: &str, status: &Status, quote: &str) -> WriteError {
    let refused = || WriteError::permanent(reason::REFUSED, format!("{what}: the O-Cloud refuses it: {quote}"));
    let waiting = |message: &str| WriteError::transient(reason::IN_PROGRESS, format!("{what}: {message}"));
    let error = match status.code {
        _ if status.message.contains("admission webhook") => refused(),
        // Only a Status object of an API server is a refusal.
        400 | 422 if is_status(status) => refused(),
        403 if is_denied_by_policy(&status.message) => refused(),
        403 if status.message.contains("because it is being terminated") => waiting(
            "its namespace is being deleted on the O-Cloud; it can be sent when that namespace is created again",
        ),
        // For example a quota, which can be raised.
        403 if !lacks_rights(status) => WriteError {
            requires_action: true,
            ..WriteError::transient(reason::REFUSED, format!("{what}: the O-Cloud refuses it: {quote}"))
        },
        403 => WriteError {
            requires_action: true,
            ..WriteError::transient(
                reason::FORBIDDEN,
                format!("{what}: the SMO's account on the O-Cloud may not write it: give the account its rights there"),
            )
        },
        404 => waiting(
            "the O-Cloud has no such namespace: create it there, or create the request again with another oCloudNamespace",
        ),
        code => waiting(&format!("the O-Cloud answers with an error ({code})")),
    };
    // An API server refuses a write before it stores anything.
    WriteError { nothing_written: (400..500).contains(&status.code) && is_status(status), ..error }
}

/// Whether the answer is a Status object. This is kube's reason for one that is none, such as a proxy's.
fn is_status(status: &Status) -> bool {
    !status.reason.starts_with("Failed to parse error data")
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self { error, reason: reason::IN_PROGRESS, requires_action: false, nothing_written: false }
    }
}

impl From<Rejection> for WriteError {
    fn from(rejection: Rejection) -> Self {
        Self::permanent(rejection.reason, rejection.message)
    }
}
