//! A FocomProvisioningRequest: `observe → validate → plan → apply → status`. Only `apply` and the write of the status talk to
//! API servers; the other steps are functions.

pub mod adopt;
pub mod apply;
pub mod expect;
pub mod observe;
pub mod plan;
pub mod status;
pub mod validate;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource as _, ResourceExt as _};
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::focom_provisioning_request::{FocomProvisioningRequestStatus, Phase};
use o2ims_types::names::focom;
use operator_kit::controller::{Class, Error, Outcome};
use operator_kit::write::status::patch_status_if_changed;

use crate::ocloud::connection::View;
use crate::ocloud::gate;
use crate::operator::Context;
use apply::Failure;
use observe::{Observed, Remote};
use status::Obstacle;

/// When a ProvisioningRequest that is not the request's is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// Brings one request a step further.
///
/// # Errors
/// What an API server refused or did not answer; waiting is an [`Outcome`], not an error.
pub async fn reconcile(request: Arc<FocomProvisioningRequest>, context: Arc<Context>) -> Result<Outcome, Error> {
    let observed = observe::observe(&context.watches, &context.links, &context.local_id, &request);
    let way = validate::way(&request, &observed);
    // What a request may not reach is not even looked up for it.
    let remote = way.is_ok().then(|| Remote::observe(&context.links, &context.watches, &request, &observed.target));
    if is_too_early(&request, remote.as_ref()) {
        return Ok(Outcome::progressing());
    }
    let found = remote.as_ref().and_then(|remote| remote.request.as_deref());
    if let Some(patience) = context.expectations.missing(&observed.uid, &request, found) {
        return Ok(Outcome::progressing_for(patience));
    }
    let verdict = way.and_then(|()| match remote.as_ref() {
        Some(remote) if request.meta().deletion_timestamp.is_none() => {
            validate::transitions(&request, remote.own())?;
            if must_be_checked(&request, remote) { validate::parameters(&request, &observed) } else { Ok(()) }
        }
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
    if let Some((reason, note)) = what_is_left(&request, &observed, remote.as_ref(), &steps) {
        tracing::warn!(note, reason);
        context.events.warning(&request.object_ref(&()), reason, "Provision", &note).await;
    }
    let applied = apply::apply(&context, &request, &observed, remote.as_ref(), &steps).await;
    drop(place);
    if steps.contains(&plan::Step::RemoveFinalizer) && applied.is_ok() {
        return Ok(Outcome::Done);
    }
    if let Ok(Some(name)) = &applied {
        let note = format!(
            "ProvisioningRequest {name} on the O-Cloud is this request's now; only its labels and annotations were written"
        );
        context.events.normal(&request.object_ref(&()), "Adopted", "Provision", &note).await;
        return Ok(Outcome::progressing_for(gate::PATIENCE));
    }
    let obstacle = match &applied {
        // Somebody else was faster; what is true now is on its way.
        Err(Failure { error, .. }) if error.class() == Class::Conflict => return end(applied, Outcome::Done),
        Err(failure) => Some(obstacle(failure)),
        Ok(_) => None,
    };
    let (status, outcome) =
        status::assess(&request, &observed, &verdict, remote.as_ref(), obstacle.as_ref(), Timestamp::now());
    write_status(&request, &context, &observed, &status).await?;
    match &applied {
        // Nothing failed; and what is not marked is not watched.
        Err(failure) if status::OF_ADOPTION.contains(&failure.reason) => Ok(Outcome::progressing_for(LOOK_AGAIN)),
        _ => end(applied, outcome),
    }
}

fn end(applied: Result<Option<String>, Failure>, outcome: Outcome) -> Result<Outcome, Error> {
    applied.map_or_else(|failure| Err(failure.error), |_| Ok(outcome))
}

/// Whether the first word of the O-Cloud should be waited for, which comes soon: a user has been told before, and will be then.
fn is_too_early(request: &FocomProvisioningRequest, remote: Option<&Remote>) -> bool {
    let connecting = remote.is_some_and(|remote| matches!(remote.found.view, View::Connecting));
    let goes_anyway = plan::is_abandoned(request) || plan::is_orphaned(request);
    connecting && request.status.is_some() && !goes_anyway
}

/// Whether the template has a say: not about what was sent as it stands.
fn must_be_checked(request: &FocomProvisioningRequest, remote: &Remote) -> bool {
    match remote.own().or_else(|| remote.left()) {
        Some(sent) => !plan::is_sent(request, sent),
        None => remote.open().is_some() || !request.was_sent(),
    }
}

/// What is about to be left on an O-Cloud with nobody to know of it: reason and words of an event.
fn what_is_left(
    request: &FocomProvisioningRequest,
    observed: &Observed,
    remote: Option<&Remote>,
    steps: &[plan::Step],
) -> Option<(&'static str, String)> {
    let goes = steps.contains(&plan::Step::RemoveFinalizer);
    let moves = plan::leaves(request) && steps.iter().any(|step| matches!(step, plan::Step::Create(_)));
    let (namespace, id) = request.o_cloud();
    let status = request.status.as_ref();
    let name = match remote {
        Some(remote) => remote.name(request),
        None => focom::remote_request(&request.name_any()),
    };
    let is_there = remote.is_some_and(|remote| remote.own().is_some()) || request.was_sent();
    if plan::is_orphaned(request) {
        let note = format!(
            "ProvisioningRequest {name} stays on O-Cloud {namespace}/{id}, with its cluster and hosts, because this request was deleted \
             with --cascade=orphan; a request of the same name, namespace and spec takes it back"
        );
        return (goes && is_there).then_some(("Orphaned", note));
    }
    if plan::is_abandoned(request) && goes || moves {
        let sent_to = status.and_then(|status| status.sent_to.as_deref()).unwrap_or("unknown");
        let note = format!(
            "ProvisioningRequest {namespace}/{name} may stay on the O-Cloud that OCloud {namespace}/{id} led to (sentTo {sent_to}), with \
             its cluster and hosts; delete it there"
        );
        return Some(("Abandoned", note));
    }
    let stays =
        remote.filter(|remote| remote.left().is_some() && plan::taken_back(request, observed, remote).is_none());
    let note = |_| {
        format!(
            "ProvisioningRequest {name} stays on O-Cloud {namespace}/{id}: it was made for an earlier object of this name, and this \
             request has not adopted it"
        )
    };
    stays.filter(|_| goes).map(note).map(|note| ("NotDeleted", note))
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
