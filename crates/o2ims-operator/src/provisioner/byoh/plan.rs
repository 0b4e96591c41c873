//! The plan: what to do next, as a function of what is requested and what is observed. The same input gives the same plan. When a plan has
//! been carried out, the next plan is empty. The order of the policies is here; each policy has a file of its own.

use cluster_api::cluster::Cluster;
use kube::ResourceExt as _;
use o2ims_types::{ProvisioningRequest, names};

use super::desired::DesiredCluster;
use super::instructions::remove_carried_out;
use super::marks::Marks;
use super::observed::{Observed, Phase};
use super::upgrade::adoption;
use super::upgrade::next::next;
use super::upgrade::outcome::Next;
use super::upgrade::{rolling, strategy};
use super::{
    certificates, claim, consent, create, dry_run, give_up, maintain, masters, pause, reattach, recover, scale,
    snapshot, support, teardown,
};
use crate::provisioner::report::Rejection;
use crate::provisioner::step::{Manifest, Step};
use crate::request::{has_finalizer, is_being_deleted};

/// The steps that are due now. An empty list means that there is nothing to do but to wait for a change.
pub fn plan(
    request: &ProvisioningRequest,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
) -> Vec<Step> {
    let steps = if pause::of_request(request).is_some() {
        // Objects that are halfway to another version are brought there: Cluster API would replace machines, or nothing would be able to delete them.
        adoption::finish(observed)
    } else {
        let steps = steps_ignoring_pauses(request, verdict, observed);
        // Nothing waits for them.
        if steps.is_empty() { support::orders(request, observed) } else { steps }
    };
    pause::allowed(steps, observed)
}

/// The steps that would be due if nothing were paused.
fn steps_ignoring_pauses(
    request: &ProvisioningRequest,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
) -> Vec<Step> {
    if is_being_deleted(request) {
        if has_finalizer(request) && !adoption::begun(observed).is_empty() {
            // A cluster that is kept must be whole when its pause ends.
            let keeps = consent::keeps_cluster(request, observed);
            return if keeps { adoption::finish(observed) } else { adoption::give_up(observed) };
        }
        // Hosts that were reset become nodes again before a cluster is kept.
        if consent::keeps_cluster(request, observed)
            && let Some((kept, _)) = rolling::unfinished(request, verdict, observed)
        {
            return finish_resets(request, &kept, observed);
        }
        return teardown::plan(request, observed);
    }
    if !observed.missing_providers.is_empty() {
        return Vec::new();
    }
    // A rejected request whose nodes run gets the finalizer too: it may have been restored from a backup without it.
    if !has_finalizer(request) && (verdict.is_ok() || observed.runs_nodes()) {
        return vec![first_write(request, observed)];
    }
    let unpause_steps = claim::unpause_hosts(request, observed);
    if !unpause_steps.is_empty() {
        return unpause_steps;
    }
    match observed.phase {
        Phase::Lost => recover::recover(request, observed),
        Phase::TearingDown => [adoption::give_up(observed), teardown::tear_down_cluster(observed)].concat(),
        Phase::Running if !adoption::begun(observed).is_empty() => adoption::finish(observed),
        Phase::Deleting if !adoption::begun(observed).is_empty() => adoption::give_up(observed),
        _ => match (remove_carried_out(request, observed), verdict) {
            (Some(step), _) => vec![step],
            (None, Ok(desired)) => provision(request, desired, observed),
            (None, Err(_)) => plan_rejected(request, observed),
        },
    }
}

/// The first write: deletion protection, if the template wants it and the request does not say otherwise; else the finalizer.
fn first_write(request: &ProvisioningRequest, observed: &Observed) -> Step {
    let template_protects = observed.template.as_ref().is_some_and(|template| template.spec.deletion_protection);
    let has_annotation = request.annotations().contains_key(names::DELETION_PROTECTION_ANNOTATION);
    if template_protects && !has_annotation { Step::Protect } else { Step::AddFinalizer }
}

/// The steps for a rejected request. It holds no hosts while it has no Cluster. A cluster that is created keeps running: only reattachments,
/// install scripts and the release of hosts that were held for a change continue.
fn plan_rejected(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    match observed.phase {
        Phase::Absent => teardown::delete_leftovers(request, observed),
        Phase::Foreign if observed.owned.is_empty() => claim::release_all(request, observed),
        _ if observed.is_created => {
            let mut steps = reattach::reattach(request, observed);
            steps.extend(claim::install_scripts(observed));
            steps.extend(claim::release_workers_without_deployment(request, observed));
            steps.extend(masters::release_spare(request, observed));
            // What is wrong with a request may stay so for years.
            if steps.is_empty() { renewal(request, observed).unwrap_or_default() } else { steps }
        }
        _ => Vec::new(),
    }
}

/// The steps of a renewal of certificates, before which snapshots that are over are taken off; `None` if nothing is to be renewed.
fn renewal(request: &ProvisioningRequest, observed: &Observed) -> Option<Vec<Step>> {
    let over = snapshot::take_off(request, observed);
    if !over.is_empty() {
        return Some(over);
    }
    match certificates::next(request, observed) {
        Next::Nothing => None,
        renewal => Some(renewal.into_steps()),
    }
}

fn provision(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Vec<Step> {
    let reattached = reattach::reattach(request, observed);
    if !reattached.is_empty() {
        return reattached;
    }
    let restored = claim::restore_host_marks(request, desired, observed);
    if !restored.is_empty() {
        return restored;
    }
    let marks = Marks::of(request, desired, &observed.uid);
    let claims = claim::claims(request, desired, observed);
    let existing = observed.own_cluster();
    let manifests =
        |existing: &Cluster| create::manifests(desired, &observed.uid, &marks, &existing.uid().unwrap_or_default());
    if !claims.is_empty() {
        // What runs is maintained also while the API server would refuse what a new host needs.
        let running = existing.filter(|_| observed.phase == Phase::Running);
        let mut steps = running.map_or_else(Vec::new, |existing| {
            maintain_running(request, desired, observed, &marks, &manifests(existing))
        });
        steps.retain(|step| !matches!(step, Step::Create(_)));
        return [steps, dry_run::dry_run(desired, observed, &marks), claims].concat();
    }
    let Some(existing) = existing else {
        return create::create_cluster(request, desired, observed, &marks).into_iter().collect();
    };
    match observed.phase {
        Phase::Creating => create::continue_creation(request, desired, observed, &marks, &manifests(existing)),
        // The Cluster was deleted without consent of the request's owner. Only the operator's own pause is removed. Machines of masters that
        // Cluster API leaves behind (their KubeadmControlPlane is gone) are not deleted here, as `teardown::cluster` would do.
        Phase::Deleting => teardown::unpause_created_cluster(existing).into_iter().collect(),
        _ => maintain_running(request, desired, observed, &marks, &manifests(existing)),
    }
}

/// The steps that give a cluster back the hosts that were reset, before its request lets it go.
fn finish_resets(request: &ProvisioningRequest, kept: &DesiredCluster, observed: &Observed) -> Vec<Step> {
    let restored = claim::restore_host_marks(request, kept, observed);
    let Some(existing) = observed.own_cluster().filter(|_| restored.is_empty()) else { return restored };
    let marks = Marks::of(request, kept, &observed.uid);
    let manifests = create::manifests(kept, &observed.uid, &marks, &existing.uid().unwrap_or_default());
    let mut steps = maintain_running(request, kept, observed, &marks, &manifests);
    // Its owner keeps what runs: also what an edit before the deletion was to remove, or whose host is not held any more.
    steps.retain(|step| !matches!(step, Step::Delete { .. }));
    steps
}

/// The steps that keep a running cluster as its request specifies it.
fn maintain_running(
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
    let record = strategy::record(request, desired, observed).into_iter().collect();
    [record, change_running(request, desired, observed, manifests)].concat()
}

/// The steps that bring a running cluster to what its request asks for.
fn change_running(
    request: &ProvisioningRequest,
    desired: &DesiredCluster,
    observed: &Observed,
    manifests: &[Manifest],
) -> Vec<Step> {
    let needed = maintain::still_needed(manifests, observed);
    let mut steps = maintain::maintain(desired, observed, &needed);
    steps.extend(masters::change(request, desired, observed));
    steps.extend(consent::note_restored(request, observed));
    if consent::may_remove_hosts(request, observed) {
        if steps.is_empty() {
            steps.extend(scale::remove_workers(observed, &needed));
            steps.extend(maintain::prune(desired, observed, &needed));
        }
        steps.extend(give_up::skip_draining(request, observed));
        steps.extend(scale::limit_drains(desired, observed));
        steps.extend(claim::release_removed(request, desired, observed));
    }
    if !steps.is_empty() {
        return steps;
    }
    match next(request, desired, observed) {
        Next::Nothing => renewal(request, observed).unwrap_or_else(|| snapshot::order(request, desired, observed)),
        upgrade => upgrade.into_steps(),
    }
}
