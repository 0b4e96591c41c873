//! Brings one request a step further: observe, decide (validate and plan), apply, status.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource as _};
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::focom::v1alpha1::focom_provisioning_request::{FocomProvisioningRequestStatus, Phase};
use o2ims_types::names::focom;
use operator_kit::controller::{Class, Error, LASTING_CONFLICT_ADVICE, Outcome};
use operator_kit::write::status::patch_status_if_changed;

use super::apply::apply;
use super::decision::{Decision, decide};
use super::observe::{Observed, Target, observe};
use super::phase::ADOPTION_REASONS;
use super::plan::Step;
use super::status::{self, RECHECK_INTERVAL};
use crate::context::Context;
use crate::o_cloud::connection::Connection;
use crate::o_cloud::limiter;

/// Brings one request a step further.
///
/// # Errors
/// What an API server refused or did not answer; waiting is an [`Outcome`], not an error.
pub async fn reconcile(request: Arc<FocomProvisioningRequest>, context: Arc<Context>) -> Result<Outcome, Error> {
    let connection = context.connections.for_request(&request);
    let observed = observe(&request, &context.caches, connection, &context.local_id);
    connect_local(&observed, &context);
    let Decision { verdict, steps, warning } = match decide(&request, &observed, &context.expectations) {
        Ok(decision) => decision,
        Err(outcome) => return Ok(outcome),
    };
    let permit = match connection_for(&steps, &observed) {
        Some(connection) => match connection.limiter().try_acquire(&ObjectRef::from_obj(request.as_ref())) {
            Some(permit) => Some(permit),
            None => return Ok(Outcome::progressing_for(limiter::RETRY_AFTER)),
        },
        None => None,
    };
    if let Some(warning) = warning {
        tracing::warn!(note = warning.message, reason = warning.reason);
        context.events.warning(&request.object_ref(&()), warning.reason, "Provision", &warning.message).await;
    }
    let applied = apply(&context, &request, &observed, &steps).await;
    drop(permit);
    let has_conflict = applied.as_ref().is_err_and(|failed| failed.error.class() == Class::Conflict);
    let conflict_lasts = context.conflicts.record(&observed.uid, has_conflict);
    let write_error = match applied {
        Ok(_) if steps.contains(&Step::RemoveFinalizer) => return Ok(Outcome::Done),
        Ok(Some(adopted)) => return Ok(report_adoption(&request, &context, &adopted).await),
        // Another client wrote first. That change, which this reconcile has not seen, triggers the next one.
        Err(failed) if has_conflict && !conflict_lasts => return Err(failed.error),
        Err(failed) if has_conflict => Some(failed.error.advice(LASTING_CONFLICT_ADVICE).into()),
        Ok(None) => None,
        Err(failed) => Some(failed),
    };
    let (status, outcome) = status::assess(&request, &observed, &verdict, write_error.as_ref(), Timestamp::now());
    write_status(&request, &context, &observed, &status).await?;
    match write_error {
        // Nothing failed. Perhaps no watch shows what the request is to adopt, so the reconcile is repeated.
        Some(rejected) if ADOPTION_REASONS.contains(&rejected.reason) => Ok(Outcome::progressing_for(RECHECK_INTERVAL)),
        Some(failed) => Err(failed.error),
        None => Ok(outcome),
    }
}

/// Starts the watch of the SMO's own cluster for the first request that may use it.
fn connect_local(observed: &Observed, context: &Context) {
    if observed.remote.is_some() && matches!(observed.target, Target::Local(_)) {
        context.connections.connect_local();
    }
}

/// The connection that `steps` are going to use.
fn connection_for<'a>(steps: &[Step], observed: &'a Observed) -> Option<&'a Connection> {
    let remote = observed.remote.as_ref().filter(|remote| !steps.is_empty() && remote.ready().is_some())?;
    remote.connection.connection.as_deref()
}

async fn report_adoption(request: &FocomProvisioningRequest, context: &Context, name: &str) -> Outcome {
    let note = format!(
        "this request has adopted ProvisioningRequest {name} on the O-Cloud; only its labels and annotations were written"
    );
    context.events.normal(&request.object_ref(&()), "Adopted", "Provision", &note).await;
    Outcome::progressing_for(limiter::RETRY_AFTER)
}

async fn write_status(
    request: &FocomProvisioningRequest,
    context: &Context,
    observed: &Observed,
    new: &FocomProvisioningRequestStatus,
) -> Result<(), Error> {
    let api = Api::<FocomProvisioningRequest>::namespaced(context.client.clone(), &observed.namespace);
    let old = request.status.as_ref();
    if let Some(written) = patch_status_if_changed(&api, request, old, new, focom::FIELD_MANAGER).await? {
        context.expectations.wrote_request(&observed.uid, &written);
    }
    send_events(request, context, new).await;
    Ok(())
}

/// One event for a new phase, a new reason of a failure, or a new state on the O-Cloud.
async fn send_events(request: &FocomProvisioningRequest, context: &Context, new: &FocomProvisioningRequestStatus) {
    let regarding = request.object_ref(&());
    let old = request.status.as_ref().filter(|_| !request.is_new());
    let ready = status::ready_reason(new);
    if new.phase == Phase::Failed.name() {
        if old.map(|old| (&old.phase, status::ready_reason(old))) != Some((&new.phase, ready)) {
            context.events.warning(&regarding, ready, "Provision", &new.message).await;
        }
        return;
    }
    if old.map(|old| &old.phase) != Some(&new.phase) {
        context.events.normal(&regarding, &new.phase, "Provision", &new.message).await;
        return;
    }
    let (was, is) = (old.and_then(remote_state), remote_state(new));
    if let Some(is) = is.filter(|is| was != Some(is)) {
        let note = format!("{is}: {}", new.message);
        context.events.normal(&regarding, "ProvisioningStateChanged", "Provision", &note).await;
    }
}

fn remote_state(status: &FocomProvisioningRequestStatus) -> Option<&str> {
    let remote = status.provisioning_status.as_ref()?;
    Some(remote.provisioning_state.as_str()).filter(|state| !state.is_empty())
}
