//! Brings one request a step further: observe, decide (validate and plan), apply, status.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::conditions::focom::reason;
use o2ims_types::focom::v1alpha1::focom_provisioning_request::FocomProvisioningRequestStatus;
use o2ims_types::names::focom;
use operator_kit::controller::{Class, Error, LASTING_CONFLICT_ADVICE, Outcome};
use operator_kit::write::status::patch_status_if_changed;

use super::apply::apply;
use super::decision::{Decision, decide};
use super::observe::{Observed, Target, observe};
use super::phase::ADOPTION_REASONS;
use super::plan::Step;
use super::status::{self, RECHECK_INTERVAL};
use super::{events, revisions};
use crate::context::Context;
use crate::o_cloud::connection::Connection;
use crate::o_cloud::limiter;
use crate::traces;

/// Brings one request a step further.
///
/// # Errors
/// What an API server refused or did not answer; waiting is an [`Outcome`], not an error.
pub async fn reconcile(request: Arc<FocomProvisioningRequest>, context: Arc<Context>) -> Result<Outcome, Error> {
    let connection = context.connections.for_request(&request);
    let was_refused = context.expectations.was_refused(&request.uid().unwrap_or_default());
    let observed = observe(&request, &context.caches, connection, &context.local_id, was_refused);
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
        events::warn(&request, &context, &warning).await;
    }
    let applied = apply(&context, &request, &observed, &steps).await;
    drop(permit);
    let has_conflict = applied.as_ref().is_err_and(|failed| failed.error.class() == Class::Conflict);
    let conflict_lasts = context.conflicts.record(&observed.uid, has_conflict);
    let write_error = match applied {
        Ok(Some(adopted)) => {
            events::tell_of_adoption(&request, &context, &adopted).await;
            context.traces.hand_over(|| traces::of_adoption(&request, &adopted, Timestamp::now()));
            return Ok(Outcome::progressing_for(limiter::RETRY_AFTER));
        }
        Ok(None) if steps.contains(&Step::RemoveFinalizer) => {
            context.traces.hand_over(|| traces::of_deletion(&request, Timestamp::now()));
            return Ok(Outcome::Done);
        }
        // Another client wrote first. That change, which this reconcile has not seen, triggers the next one.
        Err(failed) if has_conflict && !conflict_lasts => return Err(failed.error),
        Err(failed) if has_conflict => Some(failed.error.advice(LASTING_CONFLICT_ADVICE).into()),
        Ok(None) => None,
        Err(failed) => Some(failed),
    };
    let is_accepted = write_error.is_none() && verdict.is_ok() && revisions::is_accepted(&request, &observed);
    let recorded = if is_accepted { revisions::record(&request, &context).await } else { Ok(None) };
    let now = Timestamp::now();
    let (mut status, outcome) = status::assess(&request, &observed, &verdict, write_error.as_ref(), now);
    if let Ok(Some(accepted)) = &recorded {
        let is_fulfilled = status::ready_reason(&status) == reason::SUCCEEDED;
        revisions::note(&mut status, accepted.clone(), is_fulfilled, now);
    }
    write_status(&request, &context, &observed, &status).await?;
    let carried_out: &[Step] = if write_error.is_none() { &steps } else { &[] };
    events::tell_of_status(&request, &context, carried_out, &status).await;
    match write_error {
        // Nothing failed. Perhaps no watch shows what the request is to adopt, so the reconcile is repeated.
        Some(rejected) if ADOPTION_REASONS.contains(&rejected.reason) => Ok(Outcome::progressing_for(RECHECK_INTERVAL)),
        Some(failed) => Err(failed.error),
        None => recorded.map(|_| outcome),
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
        context.traces.hand_over(|| traces::of_status(request, new));
    }
    Ok(())
}
