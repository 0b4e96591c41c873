//! A ProvisioningRequest: `observe → validate → plan → apply → status`. Only `apply` and the write of the status talk to
//! the API server; the other steps are functions.

pub mod apply;
pub mod consent;
pub mod expect;
pub mod hosts;
pub mod leftovers;
pub mod observe;
pub mod plan;
pub mod reserve;
pub mod rivals;
pub mod status;
pub mod teardown;
pub mod validate;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use o2ims_types::provisioning_request::HostStatus;
use o2ims_types::{ProvisioningRequest, ProvisioningState, names};
use operator_kit::events::Events;
use operator_kit::outcome::{Class, Error, Outcome};
use operator_kit::status::patch_status_if_changed;

use crate::watches::Watches;
use expect::{Expectations, Write};
use rivals::Turns;

/// What a reconcile works with.
pub struct Context {
    /// To write with.
    pub client: Client,
    /// To read from.
    pub watches: Watches,
    /// What the caches have yet to show.
    pub expectations: Expectations,
    /// Whose turn it is, of those that want the same.
    pub turns: Turns,
    /// To tell users.
    pub events: Events,
    /// Test hook: the request (`namespace/name`) whose reconcile panics.
    pub panic_on: Option<String>,
}

/// Brings one request a step further.
///
/// # Errors
/// What the API server refused or did not answer; waiting is an [`Outcome`], not an error.
pub async fn reconcile(request: Arc<ProvisioningRequest>, context: Arc<Context>) -> Result<Outcome, Error> {
    let observed = observe::observe(&context.watches, &request);
    panic_if_told(&request, &context);
    if let Some(patience) = context.expectations.missing(&request, &observed, &context.watches) {
        return Ok(Outcome::Progressing { recheck: Some(patience) });
    }
    let verdict = validate::validate(&request, &observed);
    let has_turn = take_turn(&request, verdict.is_ok(), &observed, &context.turns);
    let verdict = if has_turn { verdict } else { Err(validate::no_turn()) };
    let steps = plan::plan(&request, &verdict, &observed);
    let mut written = Vec::new();
    let applied = apply::apply(&context.client, &request, &observed.uid, &steps, &mut written).await;
    context.expectations.add(&observed.uid, written);
    let ends = |step: &plan::Step| matches!(step, plan::Step::RemoveFinalizer | plan::Step::LetGo);
    if steps.iter().any(ends) && applied.is_ok() {
        context.expectations.forget(&observed.uid);
        context.turns.give_back(&observed.uid);
        return Ok(Outcome::Done);
    }
    let obstacle = match &applied {
        // Somebody else was faster; what is true now is on its way.
        Err(error) if error.class() == Class::Conflict => return applied.map(|()| Outcome::Done),
        Err(error) => Some(error.message().to_owned()),
        Ok(()) => None,
    };
    let assessment = status::assess(&request, &verdict, &observed, obstacle.as_deref(), Timestamp::now());
    write_status(&request, &context, &assessment).await?;
    applied.map(|()| if has_turn { assessment.outcome() } else { Outcome::Progressing { recheck: Some(TURN) } })
}

/// When a request looks again whether another one is still beginning; mostly it is told before.
const TURN: Duration = Duration::from_secs(5);

/// Takes the turn of a request that is about to begin, and gives it back otherwise. False while another one that wants the
/// same is beginning.
fn take_turn(request: &ProvisioningRequest, valid: bool, observed: &observe::Observed, turns: &Turns) -> bool {
    let begins = valid && request.meta().deletion_timestamp.is_none() && !rivals::holds_hosts(request);
    if !begins {
        turns.give_back(&observed.uid);
        return true;
    }
    turns.take(&observed.uid, &observed.contenders)
}

/// The hook of the test that proves that a panic in one reconcile stops no other.
#[allow(clippy::panic, clippy::manual_assert, reason = "a panic is what it is for")]
fn panic_if_told(request: &ProvisioningRequest, context: &Context) {
    if context.panic_on.as_deref() == Some(plan::key(request).as_str()) {
        panic!("forced by --test-panic-on");
    }
}

async fn write_status(
    request: &ProvisioningRequest,
    context: &Context,
    assessment: &status::Assessment,
) -> Result<(), Error> {
    let api = Api::<ProvisioningRequest>::namespaced(context.client.clone(), &request.namespace().unwrap_or_default());
    let old = request.status.as_ref();
    let written = patch_status_if_changed(&api, request, old, &assessment.status, names::FIELD_MANAGER).await?;
    if let Some(written) = written {
        let write = Write::Status(observe::version_of(&written));
        context.expectations.add(&request.uid().unwrap_or_default(), vec![write]);
    }
    tell(request, context, assessment).await;
    Ok(())
}

/// Events for what a user would want to be told: a new state, and a host that has begun to fail.
async fn tell(request: &ProvisioningRequest, context: &Context, assessment: &status::Assessment) {
    let regarding = request.object_ref(&());
    let old = request.status.as_ref();
    let failing = |host: &&HostStatus| host.state == hosts::State::Failed.name();
    for host in assessment.status.extensions.hosts.iter().filter(failing) {
        let known = old
            .is_some_and(|old| old.extensions.hosts.iter().filter(failing).any(|old| old.host_name == host.host_name));
        if !known {
            let note = format!("host {} ({}): {}", host.host_id, host.host_name, host.message);
            context.events.warning(&regarding, "HostFailed", "Provision", &note).await;
        }
    }
    let new = &assessment.status.provisioning_status;
    if old.map(|old| old.provisioning_status.provisioning_state) != Some(new.provisioning_state) {
        let (reason, note) = (event_reason(new.provisioning_state), &new.provisioning_message);
        if new.provisioning_state == ProvisioningState::Failed {
            context.events.warning(&regarding, reason, "Provision", note).await;
        } else {
            context.events.normal(&regarding, reason, "Provision", note).await;
        }
    }
}

const fn event_reason(state: ProvisioningState) -> &'static str {
    match state {
        ProvisioningState::Pending => "Pending",
        ProvisioningState::Progressing => "Progressing",
        ProvisioningState::Fulfilled => "Fulfilled",
        ProvisioningState::Failed => "Failed",
        ProvisioningState::Deleting => "Deleting",
    }
}
