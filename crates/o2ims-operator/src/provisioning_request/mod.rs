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

use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use o2ims_types::provisioning_request::HostStatus;
use o2ims_types::{ProvisioningRequest, ProvisioningRequestStatus, ProvisioningState, conditions, names};
use operator_kit::controller::{Class, Error, Outcome};
use operator_kit::events::Events;
use operator_kit::write::status::{find, patch_status_if_changed};
use tokio::time::Instant;

use crate::watches::Watches;
use expect::{Expectations, Write};
use observe::Observed;
use rivals::{Decided, Locks};
use validate::{Refusal, Valid};

/// What a reconcile works with.
pub struct Context {
    /// To write with.
    pub client: Client,
    /// To read from.
    pub watches: Watches,
    /// What the caches have yet to show.
    pub expectations: Expectations,
    /// Who may begin, of those that want the same.
    pub locks: Arc<Locks>,
    /// To tell users.
    pub events: Events,
    /// Test hook: the request (`namespace/name`) whose reconcile panics.
    pub panic_on: Option<String>,
}

impl Context {
    /// A request is gone: nothing is kept of it.
    pub fn forget(&self, uid: &str) {
        self.expectations.forget(uid);
        self.locks.forget(uid, Instant::now());
    }
}

/// What is decided for a request, before anything is written.
pub struct Decision {
    /// What there is.
    pub observed: Observed,
    /// Whether it goes on.
    pub verdict: Result<Valid, Refusal>,
    /// The writes that are due.
    pub steps: Vec<plan::Step>,
    /// How it stands among those that want the same.
    pub standing: Decided,
}

/// Decides what is due, on what was observed. Without client: what it needs to know is in the caches, and in what this
/// process remembers of its own writes and of who has begun.
///
/// # Errors
/// How the reconcile ends if nothing can be decided now.
pub fn decide(
    request: &ProvisioningRequest,
    mut observed: Observed,
    watches: &Watches,
    expectations: &Expectations,
    locks: &Arc<Locks>,
    now: Instant,
) -> Result<Decision, Outcome> {
    if let Some(patience) = expect::pending(expectations, request, &observed, watches, now) {
        return Err(Outcome::Progressing { recheck: Some(patience) });
    }
    let mut verdict = validate::validate(request, &observed);
    let able = verdict.is_ok() && observed.missing_providers.is_empty();
    let standing = locks.acquire(request, &observed, able, watches, now).ok_or(Outcome::Done)?;
    if standing.rival.is_some() {
        observed.rival.clone_from(&standing.rival);
        verdict = validate::validate(request, &observed);
    }
    let steps = plan::plan(request, &verdict, &observed);
    Ok(Decision { observed, verdict, steps, standing })
}

/// Brings one request a step further.
///
/// # Errors
/// What the API server refused or did not answer; waiting is an [`Outcome`], not an error.
pub async fn reconcile(request: Arc<ProvisioningRequest>, context: Arc<Context>) -> Result<Outcome, Error> {
    let outcome = go_on(&request, &context).await;
    let known = context.watches.requests.get(&ObjectRef::from_obj(request.as_ref()));
    if known.is_none_or(|known| known.uid() != request.uid()) {
        // It went while it was worked on, and nobody tells that again.
        context.forget(&request.uid().unwrap_or_default());
    }
    outcome
}

async fn go_on(request: &ProvisioningRequest, context: &Context) -> Result<Outcome, Error> {
    let observed = observe::observe(&context.watches, request);
    panic_if_told(request, context);
    let Context { client, watches, expectations, locks, .. } = context;
    let decision = match decide(request, observed, watches, expectations, locks, Instant::now()) {
        Ok(decision) => decision,
        Err(outcome) => return Ok(outcome),
    };
    let Decision { observed, verdict, steps, standing } = &decision;
    let mut written = Vec::new();
    let applied = apply::apply(client, request, &observed.uid, steps, &mut written).await;
    let uid = request.uid().unwrap_or_default();
    expectations.add(&uid, written, Instant::now());
    let ends = |step: &plan::Step| matches!(step, plan::Step::RemoveFinalizer | plan::Step::LetGo);
    if steps.iter().any(ends) && applied.is_ok() {
        expectations.forget(&uid);
        return Ok(Outcome::Done);
    }
    let obstacle = match &applied {
        // Somebody else was faster; what is true now is on its way.
        Err(error) if error.class() == Class::Conflict => return applied.map(|()| Outcome::Done),
        Err(error) => Some(error.message().to_owned()),
        Ok(()) => None,
    };
    let assessment = status::assess(request, verdict, observed, obstacle.as_deref(), Timestamp::now());
    write_status(request, context, &assessment).await?;
    let outcome = match standing.recheck {
        Some(recheck) => Outcome::Progressing { recheck: Some(recheck) },
        None => assessment.outcome(),
    };
    if applied.is_ok() {
        tell_of_words(request, context, steps).await;
    }
    applied.map(|()| outcome)
}

/// Events for words of the owner that are taken off, so that none goes without a word.
async fn tell_of_words(request: &ProvisioningRequest, context: &Context, steps: &[plan::Step]) {
    for step in steps {
        let plan::Step::DropWords(annotations) = step else { continue };
        for annotation in annotations {
            let id = request.annotations().get(*annotation).cloned().unwrap_or_default();
            let note = format!("annotation {annotation}={id} is taken off: nothing that it names is lost any more");
            context.events.normal(&request.object_ref(&()), "AnnotationTakenOff", "Provision", &note).await;
        }
    }
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
        context.expectations.add(request.uid().unwrap_or_default(), [write], Instant::now());
    }
    tell(request, context, assessment).await;
    Ok(())
}

/// Events for what a user would want to be told: a new state, what is wrong with a cluster that runs, and a host that has begun to
/// fail.
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
    let wrong = |status: &ProvisioningRequestStatus| {
        let found = find(&status.conditions, conditions::DEGRADED).filter(|found| found.status == "True");
        found.map(|found| found.message.clone())
    };
    let is_degraded = wrong(&assessment.status).filter(|now| old.and_then(wrong).as_ref() != Some(now));
    if let Some(note) = is_degraded {
        context.events.warning(&regarding, "Degraded", "Provision", &note).await;
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
