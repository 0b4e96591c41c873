//! The revisions of a request: the specs that its O-Cloud has accepted, to go back to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use o2ims_types::focom::v1alpha1::focom_provisioning_request::FocomProvisioningRequestStatus;
use o2ims_types::{FocomProvisioningRequest, ProvisioningState, Revision, Revisions};
use operator_kit::controller::Error;
use operator_kit::write::revisions;

use super::annotations;
use super::manifest::is_current_spec;
use super::observe::{Observed, RemoteState};
use crate::context::Context;

/// Whether the O-Cloud has the present spec and carries it out, by its own word. One that is refused there, at once or in its status, is not
/// accepted.
pub fn is_accepted(request: &FocomProvisioningRequest, observed: &Observed) -> bool {
    let own = observed.remote.as_ref().and_then(RemoteState::own);
    let is_carried_out = own.is_some_and(|own| {
        let states = [ProvisioningState::Progressing, ProvisioningState::Fulfilled];
        own.metadata.deletion_timestamp.is_none()
            && is_current_spec(request, own)
            && own.current_state().is_some_and(|now| states.iter().any(|state| state.name() == now))
    });
    // A status comes first.
    is_carried_out
        && !request.is_new()
        && request.metadata.deletion_timestamp.is_none()
        && !annotations::pauses(request)
}

/// Records the present spec, which was accepted, unless the status says that it is recorded. `None`: the API server refuses that.
///
/// # Errors
/// A later try may succeed.
pub async fn record(request: &FocomProvisioningRequest, context: &Context) -> Result<Option<Revision>, Error> {
    let known = request.status.as_ref().and_then(|status| status.revisions.clone());
    let (accepted, fulfilled) = known.map(|known| (known.accepted, known.fulfilled)).unzip();
    let accepted = accepted.map(|Revision { name, number }| revisions::Revision { name, number });
    let kept = fulfilled.flatten().map(|fulfilled| fulfilled.name);
    let spec = serde_json::to_value(&request.spec)?;
    let recorded = context.revisions.record(request, &spec, accepted, kept.as_deref()).await?;
    Ok(recorded.map(|revisions::Revision { name, number }| Revision { name, number }))
}

/// Says in the status that the present spec was accepted, as this revision.
pub fn note(status: &mut FocomProvisioningRequestStatus, accepted: Revision, is_fulfilled: bool, now: Timestamp) {
    let noted = Some(Revisions::after(status.revisions.as_ref(), accepted, is_fulfilled));
    if status.revisions != noted {
        status.revisions = noted;
        status.last_updated = Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
    }
}
