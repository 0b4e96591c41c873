//! What a provisioner has to supply, and the one path on which each of them is driven.

use std::time::Duration;

use kube::ResourceExt as _;
use o2ims_types::ProvisioningRequest;
use operator_kit::controller::Outcome;
use tokio::time::Instant;

use super::report::{Rejection, Report};
use super::step::Step;
use crate::expectations::{Expectations, Write};
use crate::request::is_being_deleted;

/// A back end: how requests of one `clusterProvisioner` become clusters. Every step but [`Provisioner::admit`] is a function of the
/// request and of the caches at that moment; none of them writes.
pub trait Provisioner: Send + Sync + 'static {
    /// What the caches show that concerns one request.
    type Observed;
    /// A request that can be carried out, with every default filled in.
    type Desired;

    /// The value of `clusterProvisioner` that selects it.
    fn name(&self) -> &'static str;

    /// Collects from the caches what concerns the request.
    fn observe(&self, request: &ProvisioningRequest) -> Self::Observed;

    /// The owner UID: the value of the request's mark. Its own UID, or, where it was restored from a backup, the earlier one.
    fn owner_uid<'a>(&self, observed: &'a Self::Observed) -> &'a str;

    /// Whether the caches show this write for the request.
    fn shows(&self, write: &Write, request: &ProvisioningRequest, observed: &Self::Observed) -> bool;

    /// Checks the request, and gives it what only one request can have.
    ///
    /// # Errors
    /// How the reconcile ends if nothing can be decided now.
    fn admit(
        &self,
        request: &ProvisioningRequest,
        observed: &mut Self::Observed,
        now: Instant,
    ) -> Result<Admission<Self::Desired>, Outcome>;

    /// The writes that are due now, in order. An empty list means that there is nothing to do but to wait for a change.
    fn plan(
        &self,
        request: &ProvisioningRequest,
        verdict: &Result<Self::Desired, Rejection>,
        observed: &Self::Observed,
    ) -> Vec<Step>;

    /// What the status is derived from.
    fn report(
        &self,
        request: &ProvisioningRequest,
        verdict: &Result<Self::Desired, Rejection>,
        observed: &Self::Observed,
    ) -> Report;

    /// Whether an object was created, or a host is held, for the request.
    fn is_engaged(&self, observed: &Self::Observed) -> bool;

    /// The request with this UID is gone.
    fn forget(&self, uid: &str, now: Instant);
}

/// How a request was admitted.
pub struct Admission<D> {
    /// Whether it can be carried out.
    pub verdict: Result<D, Rejection>,
    /// When to look again, if no change is watched before.
    pub recheck: Option<Duration>,
    /// Kept until the request's steps and its status are written.
    pub guard: Box<dyn Send>,
}

/// What is decided for a request, before anything is written.
pub struct Decided<P: Provisioner + ?Sized> {
    /// What the caches show.
    pub observed: P::Observed,
    /// Whether the request can be carried out.
    pub verdict: Result<P::Desired, Rejection>,
    /// The writes that are due.
    pub steps: Vec<Step>,
    /// When to look again, whatever the status says.
    pub recheck: Option<Duration>,
    /// See [`Admission::guard`].
    pub guard: Box<dyn Send>,
}

/// Decides what is due for a request, on what was observed. Without client: what it needs to know is in the caches, and in what this
/// process remembers of its own writes and of the requests that it has admitted.
///
/// # Errors
/// How the reconcile ends if nothing can be decided now.
pub fn decide<P: Provisioner + ?Sized>(
    provisioner: &P,
    request: &ProvisioningRequest,
    mut observed: P::Observed,
    expectations: &Expectations,
    now: Instant,
) -> Result<Decided<P>, Outcome> {
    let is_shown = |write: &Write| provisioner.shows(write, request, &observed);
    let uid = request.uid().unwrap_or_default();
    if let Some(patience) = expectations.pending(&uid, is_shown, now) {
        return Err(Outcome::Progressing { recheck: Some(patience) });
    }
    let Admission { verdict, recheck, guard } = provisioner.admit(request, &mut observed, now)?;
    let mut steps = provisioner.plan(request, &verdict, &observed);
    // A new request has its first status before anything else is written for it. Otherwise, of many requests that are created at once, the
    // last ones would wait for the other writes for the first ones. The status starts the next reconcile. Where something exists, as for a
    // request that was applied again, the finalizer comes even before: without it a deletion would leave that.
    if request.is_new() && !is_being_deleted(request) {
        let exists = provisioner.is_engaged(&observed);
        steps.retain(|step| exists && matches!(step, Step::Protect | Step::AddFinalizer));
    }
    Ok(Decided { observed, verdict, steps, recheck, guard })
}

/// A decision, whichever provisioner made it.
pub struct Decision {
    /// The owner UID: the value of the request's mark.
    pub owner_uid: String,
    /// The writes that are due.
    pub steps: Vec<Step>,
    /// What the status is derived from.
    pub report: Report,
    /// The request has passed validation and is carried out: its spec is one to go back to.
    pub is_accepted: bool,
    /// When to look again, whatever the status says.
    pub recheck: Option<Duration>,
    _guard: Box<dyn Send>,
}

/// A provisioner whose types are not known.
pub trait AnyProvisioner: Send + Sync + 'static {
    /// See [`Provisioner::name`].
    fn name(&self) -> &'static str;

    /// Observes and decides.
    ///
    /// # Errors
    /// How the reconcile ends if nothing can be decided now.
    fn decide(
        &self,
        request: &ProvisioningRequest,
        expectations: &Expectations,
        now: Instant,
    ) -> Result<Decision, Outcome>;

    /// See [`Provisioner::is_engaged`].
    fn is_engaged(&self, request: &ProvisioningRequest) -> bool;

    /// See [`Provisioner::forget`].
    fn forget(&self, uid: &str, now: Instant);
}

impl<P: Provisioner> AnyProvisioner for P {
    fn name(&self) -> &'static str {
        Provisioner::name(self)
    }

    fn decide(
        &self,
        request: &ProvisioningRequest,
        expectations: &Expectations,
        now: Instant,
    ) -> Result<Decision, Outcome> {
        let decided = decide(self, request, self.observe(request), expectations, now)?;
        let report = self.report(request, &decided.verdict, &decided.observed);
        Ok(Decision {
            owner_uid: self.owner_uid(&decided.observed).to_owned(),
            is_accepted: decided.verdict.is_ok() && report.is_carried_out() && !request.is_new(),
            report,
            steps: decided.steps,
            recheck: decided.recheck,
            _guard: decided.guard,
        })
    }

    fn is_engaged(&self, request: &ProvisioningRequest) -> bool {
        Provisioner::is_engaged(self, &self.observe(request))
    }

    fn forget(&self, uid: &str, now: Instant) {
        Provisioner::forget(self, uid, now);
    }
}

impl Decision {
    /// A decision without steps, with its report.
    pub fn none(request_uid: String, report: Report) -> Self {
        Self {
            owner_uid: request_uid,
            steps: Vec::new(),
            report,
            is_accepted: false,
            recheck: None,
            _guard: Box::new(()),
        }
    }
}
