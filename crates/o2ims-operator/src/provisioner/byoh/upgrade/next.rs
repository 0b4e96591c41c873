//! What is next in an upgrade: every host is checked before the first one is changed; then one host after the other, masters first. The objects
//! follow when all masters are done, and then after each worker. Everything is derived from the hosts' annotations and the Machines.

use cluster_api::conditions::Condition;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::{Drain, InstallMethod};
use o2ims_types::{ProvisioningRequest, names};
use operator_kit::text;

use super::adoption;
use super::gate::{advice, hostless, members, pause_before, unhealthy, window_before};
use super::hop;
use super::job::{self, Job, Purpose, Standing};
use super::member::Member;
use super::outcome::{Next, halted, is_retried};
use super::{restore, rolling};
use crate::provisioner::byoh::desired::DesiredCluster;
use crate::provisioner::byoh::masters;
use crate::provisioner::byoh::observed::{Observed, Phase};
use crate::provisioner::step::Step;

/// What is next in the upgrade of the request's cluster.
pub fn next(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Next {
    let lost = observed.machines.iter().filter(|machine| hop::is_passed_over(request, machine, observed));
    let lost: Vec<_> = lost.filter_map(|machine| machine.server().map(ToOwned::to_owned)).collect();
    let told = |message: String| {
        if lost.is_empty() {
            return message;
        }
        format!("{message}; passed over, by annotation {}: {}", names::LOST_HOSTS_ANNOTATION, lost.join(", "))
    };
    match next_host(request, desired, observed) {
        Next::Nothing => Next::Nothing,
        Next::Going { steps, message } => Next::Going { steps, message: told(message) },
        Next::Scheduled { message, at } => Next::Scheduled { message: told(message), at },
        Next::Halted { message } => Next::Halted { message: told(message) },
    }
}

fn next_host(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Next {
    let (Some(control_plane), Some(to)) = (&observed.control_plane, desired.target.as_deref()) else {
        return Next::Nothing;
    };
    let adopting = adoption::begun(observed);
    if observed.phase == Phase::Running && adopting.is_empty() && desired.is_rolling {
        // The job of an upgrade that was taken back.
        if let Some(closing) = members(request, desired, control_plane, observed).iter().find_map(restore::close) {
            return closing;
        }
        match rolling::next(request, desired, observed, control_plane, to) {
            // A master that an upgrade in place has passed over, or left halfway, is not reset: its Machine has the version.
            Next::Nothing => {}
            rolling => return rolling,
        }
    }
    if observed.phase != Phase::Running || observed.install().method != InstallMethod::Installer {
        return Next::Nothing;
    }
    // Until then it is a creation, or the masters change.
    if desired.masters.iter().any(|master| observed.node(&master.name).is_none())
        || masters::has_unnamed(request, desired, observed)
    {
        return Next::Nothing;
    }
    if !adopting.is_empty() {
        let message = format!("upgrading to {to}: handing {} over to Cluster API", text::list(&adopting, " and "));
        return Next::Going { steps: adoption::finish(observed), message };
    }
    let members = members(request, desired, control_plane, observed);
    let behind: Vec<_> = members.iter().filter(|member| member.is_behind(to)).collect();
    if let Some(restoring) = members.iter().find_map(|member| restore::next(request, observed, member, to)) {
        return restoring;
    }
    if behind.is_empty() && control_plane.spec.version == to {
        return members.iter().find_map(restore::close).unwrap_or(Next::Nothing);
    }
    if let Some(why) = hostless(desired, observed) {
        return Next::Going { steps: Vec::new(), message: format!("upgrading to {to}: waits: {why}") };
    }
    if let Some(message) = without_unit(&behind) {
        return Next::Halted { message };
    }
    if let Some(checks) = preflight(request, observed, &behind, &members, to) {
        return checks;
    }
    if control_plane.spec.version != to || behind.iter().any(|member| member.is_master()) {
        return match behind.iter().find(|member| member.is_master() && !member.has_run(to)) {
            Some(master) => upgrade(request, observed, master, &members, to),
            None => Next::Going {
                steps: vec![adoption::begin_control_plane(control_plane, to)],
                message: format!("upgrading to {to}: every master runs it"),
            },
        };
    }
    let Some(worker) = behind.first() else { return Next::Nothing };
    if !worker.has_run(to) {
        return upgrade(request, observed, worker, &members, to);
    }
    let deployment = worker.machine.deployment().and_then(|name| observed.deployments.get(name));
    let steps = deployment.map(|deployment| adoption::begin_worker(deployment, to)).into_iter().collect();
    Next::Going { steps, message: format!("upgrading to {to}: {} runs it", worker.requested) }
}

/// Hosts without the unit that runs jobs.
fn without_unit(behind: &[&Member<'_>]) -> Option<String> {
    let lacks_unit = |member: &&&Member<'_>| !member.host.annotations().contains_key(names::HOST_UNIT_ANNOTATION);
    let without = behind.iter().filter(lacks_unit).map(|member| member.requested);
    let (shown, hosts): (Vec<_>, Vec<_>) = without.map(|host| (host.to_string(), host.name.clone())).unzip();
    (!hosts.is_empty()).then(|| {
        format!(
            "the upgrade cannot begin: the unit o2ims-host does not report from {}. Where it is, systemctl status o2ims-host on the host says why; to put it \
             there: {}; or set k8sVersion back",
            text::list(&shown, ", "),
            job::command_for_unit(&hosts)
        )
    })
}

/// The checks of all hosts, before the first one is changed; `None` when they are done.
fn preflight(
    request: &ProvisioningRequest,
    observed: &Observed,
    behind: &[&Member<'_>],
    members: &[Member<'_>],
    to: &str,
) -> Option<Next> {
    let (mut steps, mut running, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for member in behind {
        if member.job(Purpose::Upgrade, to).standing().1 != Standing::NotGiven {
            continue;
        }
        let job = member.job(Purpose::Preflight, to);
        let (attempt, standing) = job.standing();
        match standing {
            Standing::Done => {}
            Standing::NotGiven if job.is_delayed() => running.push(member.requested.to_string()),
            Standing::NotGiven => steps.extend(job.order(1, &observed.uid).map(Step::GiveJob)),
            Standing::Failed(_) if is_retried(request, &job.id(attempt)) => {
                steps.extend(job.order(attempt + 1, &observed.uid).map(Step::GiveJob));
            }
            Standing::Failed(why) => failed.push((format!("{}: {why}", member.requested), job.id(attempt))),
            Standing::Given | Standing::Running(_) => running.push(member.requested.to_string()),
        }
    }
    let advice = advice(request, members);
    if steps.is_empty() && !failed.is_empty() {
        let (causes, ids): (Vec<_>, Vec<_>) = failed.into_iter().unzip();
        let is_changed = members.iter().any(|member| member.runs(to));
        let so_far = if is_changed { "does not go on" } else { "has not begun, and no host was changed" };
        let what = format!("the upgrade to {to} {so_far}: {}{advice}", text::list(&causes, "; "));
        return Some(halted(request, &what, &ids.join(",")));
    }
    if steps.is_empty() && running.is_empty() {
        return None;
    }
    running.extend(steps.iter().filter_map(|step| match step {
        Step::GiveJob(order) => Some(order.host.clone()),
        _ => None,
    }));
    let running = text::list(&running, ", ");
    let message = format!("upgrading to {to}: checking {running} and bringing the images there{advice}");
    Some(Next::Going { steps, message })
}

/// The upgrade of one host.
fn upgrade(
    request: &ProvisioningRequest,
    observed: &Observed,
    member: &Member<'_>,
    members: &[Member<'_>],
    to: &str,
) -> Next {
    let job = Job { drain: drain_limit(member, members), ..member.job(Purpose::Upgrade, to) };
    let advice = advice(request, members);
    let told = |what: &str| format!("upgrading {} to {to}: {}: {what}{advice}", member.runs_or_has(), member.requested);
    let going = |steps: Vec<Step>, what: &str| Next::Going { steps, message: told(what) };
    let (attempt, standing) = job.standing();
    let give = || going(job.order(attempt + 1, &observed.uid).map(Step::GiveJob).into_iter().collect(), "has its job");
    match standing {
        // A host that has failed may be why the cluster is not healthy, so it is not waited for.
        Standing::Failed(_) if is_retried(request, &job.id(attempt)) => {
            match window_before(request, member, to, observed) {
                Some((why, at)) => Next::Scheduled { message: told(&why), at },
                None => give(),
            }
        }
        Standing::Failed(why) => {
            let what = format!("the upgrade to {to} has stopped at {}: {why}{advice}", member.requested);
            restore::offer(request, member, halted(request, &what, &job.id(attempt)))
        }
        Standing::NotGiven => {
            if let Some(why) = pause_before(request, member, members, to) {
                return going(Vec::new(), &format!("waits: {why}"));
            }
            if let Some((why, at)) = window_before(request, member, to, observed) {
                return Next::Scheduled { message: told(&why), at };
            }
            match unhealthy(request, members, observed) {
                Some(why) => going(Vec::new(), &format!("waits: {why}")),
                None => give(),
            }
        }
        Standing::Given => going(
            Vec::new(),
            "has its job and has not reported yet; if this does not change, systemctl status o2ims-host on the host says why",
        ),
        Standing::Running(what) => going(Vec::new(), &what),
        Standing::Done => going(Vec::new(), "is done; waiting for Cluster API to see the node's version"),
    }
}

/// How long the drain of a host may take before its upgrade, in seconds, 0 for ever; `None` if it is not drained. Of pods that are evicted, another
/// worker has to take care. Whether somebody has cordoned that, Cluster API does not say. A master runs no pods but its own, unless its taint was removed.
fn drain_limit(member: &Member<'_>, members: &[Member<'_>]) -> Option<i32> {
    let spec = &member.desired.template.spec;
    let is_another = |other: &&Member<'_>| {
        let conditions = &other.machine.status.conditions;
        !other.is_master() && other.requested != member.requested && Condition::is_true(conditions, "NodeHealthy")
    };
    let is_drained = spec.upgrade.drain == Drain::WhenPossible && !member.is_master();
    (is_drained && members.iter().any(|other| is_another(&other)))
        .then(|| spec.timeouts.drain_seconds().unwrap_or_default())
}
