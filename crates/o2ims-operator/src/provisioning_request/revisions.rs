//! The revisions of a request: the specs that it was accepted with, to go back to.

use o2ims_types::{ProvisioningRequest, ProvisioningRequestStatus, ProvisioningState, Revision, Revisions};
use operator_kit::controller::Error;
use operator_kit::write::revisions;
use serde_json::{Value, json};

use crate::context::Context;

/// Records the present spec, which was accepted, unless the status says that it is recorded. `None`: the API server refuses that.
///
/// # Errors
/// A later try may succeed.
pub async fn record(request: &ProvisioningRequest, context: &Context) -> Result<Option<Revision>, Error> {
    let known = request.status.as_ref().and_then(|status| status.extensions.revisions.clone());
    let (accepted, fulfilled) = known.map(|known| (known.accepted, known.fulfilled)).unzip();
    let accepted = accepted.map(|Revision { name, number }| revisions::Revision { name, number });
    let kept = fulfilled.flatten().map(|fulfilled| fulfilled.name);
    let recorded = context.revisions.record(request, &spec(request)?, accepted, kept.as_deref()).await?;
    Ok(recorded.map(|revisions::Revision { name, number }| Revision { name, number }))
}

/// The spec as it is recorded. The workers are written out even if there are none: `kubectl apply` leaves what a manifest does not have and
/// another client has added.
///
/// # Errors
/// The spec cannot be encoded.
pub fn spec(request: &ProvisioningRequest) -> Result<Value, Error> {
    let mut spec = serde_json::to_value(&request.spec)?;
    if let Some(hosts) = spec["templateParameters"]["hosts"].as_object_mut() {
        hosts.entry("workers").or_insert_with(|| json!([]));
    }
    Ok(spec)
}

/// Says in the status that the present spec was accepted, as this revision.
pub fn note(status: &mut ProvisioningRequestStatus, accepted: Revision) {
    let is_fulfilled = status.provisioning_status.provisioning_state == ProvisioningState::Fulfilled;
    let known = &mut status.extensions.revisions;
    *known = Some(Revisions::after(known.as_ref(), accepted, is_fulfilled));
}
