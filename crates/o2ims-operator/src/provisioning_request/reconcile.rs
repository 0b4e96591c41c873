//! The reconcile of a ProvisioningRequest: decide, apply, status. Only the last two talk to the API server; between them an accepted spec is recorded.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt as _};
use o2ims_types::{ProvisioningRequest, names};
use operator_kit::controller::{Class, Error, Outcome};
use operator_kit::write::status::patch_status_if_changed;
use tokio::time::Instant;

use super::status::{self, Assessment};
use super::{events, revisions};
use crate::apply;
use crate::caches::version_of;
use crate::context::Context;
use crate::expectations::Write;
use crate::provisioner::interface::Decision;
use crate::provisioner::step::Step;
use crate::traces;

/// Brings one request a step further.
///
/// # Errors
/// What the API server refused or did not answer; waiting is an [`Outcome`], not an error.
pub async fn reconcile(request: Arc<ProvisioningRequest>, context: Arc<Context>) -> Result<Outcome, Error> {
    let outcome = bring_further(&request, &context).await;
    let known = context.caches.requests.get(&request.namespace().unwrap_or_default(), &request.name_any());
    if known.is_none_or(|known| known.uid() != request.uid()) {
        // It was deleted during this reconcile, and no event comes any more.
        context.forget(&request.uid().unwrap_or_default());
    }
    outcome
}

async fn bring_further(request: &ProvisioningRequest, context: &Context) -> Result<Outcome, Error> {
    let Context { client, provisioners, expectations, .. } = context;
    let decision = match provisioners.decide(request, expectations, Instant::now()) {
        Ok(decision) => decision,
        Err(outcome) => return Ok(outcome),
    };
    let Decision { owner_uid, steps, report, is_accepted, recheck, .. } = &decision;
    let mut written = Vec::new();
    let applied = apply::apply(client, request, owner_uid, steps, &mut written).await;
    let uid = request.uid().unwrap_or_default();
    let is_torn_down = steps.contains(&Step::RemoveFinalizer) && written.contains(&Write::FinalizerRemoval);
    expectations.add(uid.clone(), written, Instant::now());
    let has_conflict = applied.as_ref().is_err_and(|error| error.class() == Class::Conflict);
    let conflict_lasts = context.conflicts.record(&uid, has_conflict);
    let is_last = |step: &Step| matches!(step, Step::RemoveFinalizer | Step::Orphan);
    if steps.iter().any(is_last) && applied.is_ok() {
        expectations.forget(&uid);
        if is_torn_down {
            let now = Timestamp::now();
            context.metrics.deletion_finished(request, now);
            context.traces.hand_over(|| traces::of_deletion(request, now));
        }
        return Ok(Outcome::Done);
    }
    let applied = match applied {
        // Another client has changed the object before; the caches will show that change.
        Err(conflict) if has_conflict && !conflict_lasts => return Err(conflict),
        Err(conflict) if has_conflict => Err(apply::error::lasting(conflict)),
        applied => applied,
    };
    let write_error = applied.as_ref().err().map(|error| error.message().to_owned());
    let recorded = if *is_accepted && applied.is_ok() { revisions::record(request, context).await } else { Ok(None) };
    let mut assessment = status::assess(request, report, write_error.as_deref(), Timestamp::now());
    if let Ok(Some(accepted)) = &recorded {
        revisions::note(&mut assessment.status, accepted.clone());
    }
    write_status(request, context, &assessment).await?;
    events::tell_of_status(request, context, &assessment.status).await;
    applied?;
    events::tell_of_instructions(request, context, steps).await;
    recorded?;
    Ok(match recheck {
        Some(recheck) => Outcome::Progressing { recheck: Some(*recheck) },
        None => assessment.outcome(),
    })
}

async fn write_status(request: &ProvisioningRequest, context: &Context, assessment: &Assessment) -> Result<(), Error> {
    let api = Api::<ProvisioningRequest>::namespaced(context.client.clone(), &request.namespace().unwrap_or_default());
    let old = request.status.as_ref();
    let written = patch_status_if_changed(&api, request, old, &assessment.status, names::FIELD_MANAGER).await?;
    if let Some(written) = written {
        let write = Write::Status(version_of(&written));
        context.expectations.add(request.uid().unwrap_or_default(), [write], Instant::now());
        context.metrics.status_written(request, &assessment.status);
        context.traces.hand_over(|| traces::of_status(request, &assessment.status));
    }
    Ok(())
}
