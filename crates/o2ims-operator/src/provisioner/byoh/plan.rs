//! What to do next, as a function of what was asked and what was observed. The same input gives the same plan, and a plan that has been
//! carried out leaves an empty one. The order of the policies is here; each policy has a file of its own.

use kube::ResourceExt as _;
use o2ims_types::{ProvisioningRequest, names};

use super::desired::DesiredCluster;
use super::instructions::remove_spent;
use super::marks::Marks;
use super::observed::{Observed, Phase};
use super::{claim, consent, create, maintain, pause, recover, remediate, scale, teardown};
use crate::provisioner::report::Rejection;
use crate::provisioner::step::{Manifest, Step};
use crate::request::{has_finalizer, is_deleted};

/// The steps that are due now. An empty list means that there is nothing to do but to wait for a change.
pub fn plan(
    request: &ProvisioningRequest,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
) -> Vec<Step> {
    pause::allowed(due(request, verdict, observed), observed)
}

fn due(request: &ProvisioningRequest, verdict: &Result<DesiredCluster, Rejection>, observed: &Observed) -> Vec<Step> {
    if is_deleted(request) {
        return teardown::plan(request, observed);
    }
    if !observed.missing_providers.is_empty() {
        return Vec::new();
    }
    // A request that was restored from a backup may lack the finalizer, whatever is wrong with it.
    if !has_finalizer(request) && (verdict.is_ok() || observed.runs_nodes()) {
        return vec![first_write(request, observed)];
    }
    let unpaused = remediate::unpause(request, observed);
    if !unpaused.is_empty() {
        return unpaused;
    }
    match (observed.phase, verdict) {
        (Phase::Lost, _) => recover::recover(request, observed),
        (Phase::Cleaning, _) => teardown::clean(observed),
        (_, verdict) => match (remove_spent(request, observed), verdict) {
            (Some(step), _) => vec![step],
            (None, Ok(desired)) => provision(request, desired, observed),
            (None, Err(_)) => rejected(request, observed),
        },
    }
}

fn first_write(request: &ProvisioningRequest, observed: &Observed) -> Step {
    let protects = observed.template.as_ref().is_some_and(|template| template.spec.deletion_protection);
    let is_said = request.annotations().contains_key(names::DELETION_PROTECTION_ANNOTATION);
    if protects && !is_said { Step::Protect } else { Step::AddFinalizer }
}

/// Nothing is held for a request that is rejected; but a cluster that exists is not touched.
fn rejected(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    match observed.phase {
        Phase::Absent => teardown::remains(observed),
        Phase::Foreign if observed.owned.is_empty() => claim::release_all(observed),
        _ if observed.is_complete => {
            let mut steps = remediate::reattach(request, observed);
            steps.extend(claim::install_scripts(observed));
            steps.extend(claim::release_unassigned(&request.namespace().unwrap_or_default(), observed));
            steps
        }
        _ => Vec::new(),
    }
}

fn provision(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Vec<Step> {
    let reattached = remediate::reattach(request, observed);
    if !reattached.is_empty() {
        return reattached;
    }
    let claims = claim::claims(request, desired, observed);
    if !claims.is_empty() {
        return claims;
    }
    let marks = Marks::of(request, desired, &observed.uid);
    let Some(existing) = observed.own_cluster() else {
        return create::begin(request, desired, observed, &marks).into_iter().collect();
    };
    let manifests = || create::manifests(desired, &observed.uid, &marks, &existing.uid().unwrap_or_default());
    match observed.phase {
        Phase::Creating => create::go_on(desired, observed, &marks, &manifests()),
        // Somebody else deletes it: the request's owner has not consented that masters are deleted which Cluster API leaves.
        Phase::Deleting => teardown::unpause(existing).into_iter().collect(),
        _ => keep(request, desired, observed, &marks, &manifests()),
    }
}

/// Keeps a cluster that runs as its request asks for it.
fn keep(
    request: &ProvisioningRequest,
    desired: &DesiredCluster,
    observed: &Observed,
    marks: &Marks<'_>,
    manifests: &[Manifest],
) -> Vec<Step> {
    let scripts = claim::install_scripts(observed);
    if !scripts.is_empty() {
        return scripts;
    }
    if let Some(step) = maintain::restore_marks(desired, observed, marks, manifests) {
        return vec![step];
    }
    let needed = maintain::still_needed(manifests, observed);
    let mut steps = maintain::maintain(desired, observed, &needed);
    steps.extend(scale::surplus_masters(desired, observed));
    steps.extend(consent::note_restored(request, observed));
    if !consent::may_take_out(request, observed) {
        return steps;
    }
    if steps.is_empty() {
        steps.extend(scale::remove_workers(observed, &needed));
        steps.extend(maintain::prune(desired, observed, &needed));
    }
    steps.extend(claim::release_removed(desired, observed));
    steps
}
