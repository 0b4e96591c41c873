//! What to do next, as a function of what was asked and what was observed. The same input gives the same plan, and a plan that has been
//! carried out leaves an empty one. The order of the policies is here; each policy has a file of its own.

use cluster_api::Kind;
use kube::ResourceExt as _;
use o2ims_types::{ProvisioningRequest, names};

use super::desired::DesiredCluster;
use super::instructions::remove_spent;
use super::manifests::cluster;
use super::marks::{MarkedCluster as _, Marks};
use super::observed::Observed;
use super::{claim, consent, create, maintain, pause, recover, remediate, rollout, scale, teardown};
use crate::provisioner::report::Rejection;
use crate::provisioner::step::Step;
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
    if observed.has_lost_cluster() {
        return recover::recover(request, observed);
    }
    if let Some(steps) = teardown::clean(observed) {
        return steps;
    }
    if let Some(step) = remove_spent(request, observed) {
        return vec![step];
    }
    match verdict {
        Ok(desired) => provision(request, desired, observed),
        Err(_) => rejected(request, observed),
    }
}

fn first_write(request: &ProvisioningRequest, observed: &Observed) -> Step {
    let protects = observed.template.as_ref().is_some_and(|template| template.spec.deletion_protection);
    let is_said = request.annotations().contains_key(names::DELETION_PROTECTION_ANNOTATION);
    if protects && !is_said { Step::Protect } else { Step::AddFinalizer }
}

/// Nothing is held for a request that is rejected; but a cluster that exists is not touched.
fn rejected(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    if observed.cluster.is_none() {
        return teardown::remains(observed);
    }
    if observed.own_cluster().is_none() && observed.owned.is_empty() {
        return claim::release_all(observed);
    }
    if !observed.is_running() {
        return Vec::new();
    }
    let mut steps = remediate::reattach(request, observed);
    steps.extend(claim::install_scripts(observed));
    steps.extend(claim::release_unassigned(&request.namespace().unwrap_or_default(), observed));
    steps
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
    if existing.metadata.deletion_timestamp.is_some() {
        // Somebody else deletes it: the request's owner has not consented that masters are deleted which Cluster API leaves.
        return teardown::unpause(existing).into_iter().collect();
    }
    let manifests = create::manifests(desired, &observed.uid, &marks, &existing.uid().unwrap_or_default());
    if existing.is_creating() {
        return create::go_on(desired, observed, &marks, &manifests);
    }
    let scripts = claim::install_scripts(observed);
    if !scripts.is_empty() {
        return scripts;
    }
    if existing.labels().get(names::REQUEST_UID_LABEL).is_none() {
        let manifest = marks.manifest(Kind::Cluster, cluster::cluster(desired));
        return vec![Step::RestoreMarks(manifest, existing.uid().unwrap_or_default())];
    }
    if let Some(step) = maintain::mark_control_plane(&manifests, observed) {
        return vec![step];
    }
    let needed = maintain::still_needed(&manifests, observed);
    let mut steps = maintain::maintain(desired, observed, &needed);
    steps.extend(rollout::surplus_masters(desired, observed));
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
