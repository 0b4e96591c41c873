//! A FocomProvisioningRequest: `observe → validate → plan → apply → status`. Only `apply` and the write of the status talk to
//! API servers; the other steps are functions.

pub mod apply;
pub mod expect;
pub mod observe;
pub mod plan;
pub mod status;
pub mod validate;

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource as _, ResourceExt as _};
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::focom_provisioning_request::{FocomProvisioningRequestStatus, Phase};
use o2ims_types::names::focom;
use operator_kit::outcome::{Class, Error, Outcome};
use operator_kit::status::patch_status_if_changed;

use crate::ocloud::connection::View;
use crate::ocloud::gate;
use crate::operator::Context;
use apply::Failure;
use observe::{Observed, Remote};
use status::Obstacle;

/// Brings one request a step further.
///
/// # Errors
/// What an API server refused or did not answer; waiting is an [`Outcome`], not an error.
pub async fn reconcile(request: Arc<FocomProvisioningRequest>, context: Arc<Context>) -> Result<Outcome, Error> {
    let observed = observe::observe(&context.watches, &context.local_id, &request);
    let way = validate::way(&request, &observed);
    // What a request may not reach is not even looked up for it.
    let remote = way.is_ok().then(|| Remote::observe(&context.links, &request, &observed.target));
    if is_too_early(&request, remote.as_ref()) {
        return Ok(Outcome::progressing());
    }
    let found = remote.as_ref().and_then(|remote| remote.request.as_deref());
    if let Some(patience) = context.expectations.missing(&observed.uid, &request, found) {
        return Ok(Outcome::progressing_for(patience));
    }
    let verdict = way.and_then(|()| match remote.as_ref() {
        Some(remote) if must_be_checked(&request, &observed, remote) => validate::parameters(&request, &observed),
        _ => Ok(()),
    });
    let settled = |own: &_| context.expectations.is_stored(&observed.uid, own);
    let mut steps = plan::plan(&request, &observed, &verdict, remote.as_ref(), settled);
    if request.status.is_none() && request.meta().deletion_timestamp.is_none() {
        // First a word to the user, then the rest: the write of the status is what starts the next reconcile.
        steps.clear();
    }
    let place = match connection_for(&steps, remote.as_ref()) {
        Some(connection) => match connection.gate().enter(&ObjectRef::from_obj(request.as_ref())) {
            Some(place) => Some(place),
            None => return Ok(Outcome::progressing_for(gate::PATIENCE)),
        },
        None => None,
    };
    if let Some(note) = what_is_left(&request, &steps) {
        tracing::warn!(note, "abandoned");
        context.events.warning(&request.object_ref(&()), "Abandoned", "Provision", &note).await;
    }
    let applied = apply::apply(&context, &request, &observed, remote.as_ref(), &steps).await;
    drop(place);
    if steps.contains(&plan::Step::RemoveFinalizer) && applied.is_ok() {
        return Ok(Outcome::Done);
    }
    let obstacle = match &applied {
        // Somebody else was faster; what is true now is on its way.
        Err(Failure { error, .. }) if error.class() == Class::Conflict => return end(applied, Outcome::Done),
        Err(failure) => Some(obstacle(failure)),
        Ok(()) => None,
    };
    let (status, outcome) =
        status::assess(&request, &observed, &verdict, remote.as_ref(), obstacle.as_ref(), Timestamp::now());
    write_status(&request, &context, &observed, &status).await?;
    end(applied, outcome)
}

fn end(applied: Result<(), Failure>, outcome: Outcome) -> Result<Outcome, Error> {
    applied.map_or_else(|failure| Err(failure.error), |()| Ok(outcome))
}

/// Whether the first word of the O-Cloud should be waited for, which comes soon: a user has been told before, and will be then.
fn is_too_early(request: &FocomProvisioningRequest, remote: Option<&Remote>) -> bool {
    let connecting = remote.is_some_and(|remote| matches!(remote.found.view, View::Connecting));
    let goes_anyway = request.meta().deletion_timestamp.is_some() && plan::is_abandoned(request);
    connecting && request.status.is_some() && !goes_anyway
}

/// Whether the template has a say: not about what was sent as it stands, nor about what is taken back.
fn must_be_checked(request: &FocomProvisioningRequest, observed: &Observed, remote: &Remote) -> bool {
    request.meta().deletion_timestamp.is_none()
        && match remote.own(&observed.uid) {
            Some(own) => !plan::is_sent(request, own),
            None => remote.open().is_some() || !request.was_sent(),
        }
}

/// What is about to be left on an O-Cloud with nobody to know of it.
fn what_is_left(request: &FocomProvisioningRequest, steps: &[plan::Step]) -> Option<String> {
    let removes = plan::is_abandoned(request) && steps.contains(&plan::Step::RemoveFinalizer);
    let moves = plan::leaves(request) && steps.iter().any(|step| matches!(step, plan::Step::Create(_)));
    let (namespace, id) = (&request.spec.o_cloud_namespace, &request.spec.o_cloud_id);
    let name = focom::remote_request(&request.name_any());
    (removes || moves).then(|| {
        let sent_to = request.status.as_ref().and_then(|status| status.sent_to.as_deref()).unwrap_or("unknown");
        format!(
            "ProvisioningRequest {namespace}/{name} may stay on the O-Cloud that OCloud {namespace}/{id} led to (sentTo {sent_to}), with \
             its cluster and hosts; delete it there"
        )
    })
}

/// The connection that `steps` are going to use.
fn connection_for<'a>(
    steps: &[plan::Step],
    remote: Option<&'a Remote>,
) -> Option<&'a crate::ocloud::connection::Connection> {
    let remote = remote.filter(|remote| !steps.is_empty() && remote.open().is_some())?;
    remote.found.connection.as_deref()
}

fn obstacle(failure: &Failure) -> Obstacle {
    Obstacle { reason: failure.reason, message: failure.error.message().to_owned(), lasting: failure.lasting }
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
    tell(request, context, new).await;
    Ok(())
}

/// Events for what a user would want to be told: a new phase, and a new state on the O-Cloud.
async fn tell(request: &FocomProvisioningRequest, context: &Context, new: &FocomProvisioningRequestStatus) {
    let regarding = request.object_ref(&());
    let old = request.status.as_ref();
    let ready = status::reason(new);
    if new.phase == Phase::Failed.name() {
        if old.map(|old| (&old.phase, status::reason(old))) != Some((&new.phase, ready)) {
            context.events.warning(&regarding, ready, "Provision", &new.message).await;
        }
    } else if old.map(|old| &old.phase) != Some(&new.phase) {
        context.events.normal(&regarding, &new.phase, "Provision", &new.message).await;
    }
    let state = |status: &FocomProvisioningRequestStatus| {
        status
            .provisioning_status
            .as_ref()
            .map(|status| status.provisioning_state.clone())
            .filter(|state| !state.is_empty())
    };
    let (was, is) = (old.and_then(state), state(new));
    if let Some(is) = is.filter(|is| was.as_ref() != Some(is)) {
        let note = format!("{is}: {}", new.message);
        context.events.normal(&regarding, "ProvisioningStateChanged", "Provision", &note).await;
    }
}
