//! Events: changes of a request that a user should notice when they happen. What the status says anyway is not repeated.

use kube::Resource as _;
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::focom::v1alpha1::focom_provisioning_request::{FocomProvisioningRequestStatus, Phase};

use super::adopt::adopted;
use super::decision::Warning;
use super::plan::Step;
use super::status::ready_reason;
use crate::context::Context;

const ACTION: &str = "Provision";

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether something is wrong.
    pub is_warning: bool,
    /// Reason of the event.
    pub reason: String,
    /// Message of the event.
    pub note: String,
}

impl Notice {
    fn new(is_warning: bool, reason: &str, note: &str) -> Self {
        Self { is_warning, reason: reason.to_owned(), note: note.to_owned() }
    }
}

/// The event that is due after `carried_out`: the request was sent, has failed for a new reason, or has recovered. `old`: its former status,
/// if the operator has written one.
pub fn notice(
    carried_out: &[Step],
    old: Option<&FocomProvisioningRequestStatus>,
    new: &FocomProvisioningRequestStatus,
) -> Option<Notice> {
    if carried_out.iter().any(|step| matches!(step, Step::Create(_))) {
        return Some(Notice::new(false, "Sent", &new.message));
    }
    let failure = |status: &FocomProvisioningRequestStatus| {
        (status.phase == Phase::Failed.name()).then(|| ready_reason(status).to_owned())
    };
    match (old.and_then(failure), failure(new)) {
        (was, Some(is)) if was.as_ref() != Some(&is) => Some(Notice::new(true, &is, &new.message)),
        (Some(_), None) if new.phase == Phase::Synced.name() => Some(Notice::new(false, "Recovered", &new.message)),
        _ => None,
    }
}

/// Publishes the event that is due; see [`notice`].
pub async fn tell_of_status(
    request: &FocomProvisioningRequest,
    context: &Context,
    carried_out: &[Step],
    new: &FocomProvisioningRequestStatus,
) {
    let old = request.status.as_ref().filter(|_| !request.is_new());
    let Some(Notice { is_warning, reason, note }) = notice(carried_out, old, new) else { return };
    let regarding = request.object_ref(&());
    if is_warning {
        context.events.warning(&regarding, &reason, ACTION, &note).await;
    } else {
        context.events.normal(&regarding, &reason, ACTION, &note).await;
    }
}

/// Warns of a ProvisioningRequest that stays on an O-Cloud without a request.
pub async fn warn(request: &FocomProvisioningRequest, context: &Context, warning: &Warning) {
    tracing::warn!(note = warning.message, reason = warning.reason);
    context.events.warning(&request.object_ref(&()), warning.reason, ACTION, &warning.message).await;
}

/// Tells that the request has adopted the ProvisioningRequest of this name.
pub async fn tell_of_adoption(request: &FocomProvisioningRequest, context: &Context, name: &str) {
    context.events.normal(&request.object_ref(&()), "Adopted", ACTION, &adopted(name)).await;
}
