//! What is next in an upgrade: every host is checked before the first one is changed; then one host after the other, masters first. The objects
//! follow when all masters are done, and then after each worker. Everything is derived from the hosts' annotations and the Machines.

use cluster_api::conditions::Condition;
use cluster_api::control_plane::KubeadmControlPlane;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::{Drain, InstallMethod, PauseAfter};
use o2ims_types::{ProvisioningRequest, names};
use operator_kit::text;

use super::adoption;
use super::job::{self, Job, Purpose, Standing};
use super::member::Member;
use super::outcome::{Next, halted, is_retried};
use super::{restore, window};
use crate::provisioner::byoh::desired::{DesiredCluster, RequestedHost};
use crate::provisioner::byoh::masters;
use crate::provisioner::byoh::observed::{Observed, Phase};
use crate::provisioner::step::Step;
use crate::request::annotation_command;

/// What is next in the upgrade of the request's cluster.
pub fn next(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Next {
    let (Some(control_plane), Some(to)) = (&observed.control_plane, desired.target.as_deref()) else {
        return Next::Nothing;
    };
    if observed.phase != Phase::Running || observed.install().method != InstallMethod::Installer {
        return Next::Nothing;
    }
    // Until then it is a creation, or the masters change.
    if desired.masters.iter().any(|master| observed.node(&master.name).is_none())
        || masters::has_unnamed(request, desired, observed)
    {
        return Next::Nothing;
    }
    let adopting = adoption::begun(observed);
    if !adopting.is_empty() {
        let message = format!("upgrading to {to}: handing {} over to Cluster API", text::list(&adopting, " and "));
        return Next::Going { steps: adoption::finish(observed), message };
    }
    let members = members(desired, control_plane, observed);
    let behind: Vec<_> = members.iter().filter(|member| member.is_behind(to)).collect();
    if let Some(restoring) = members.iter().find_map(|member| restore::next(request, observed, member, to)) {
        return restoring;
    }
    if behind.is_empty() && control_plane.spec.version == to {
        return members.iter().find_map(restore::close).unwrap_or(Next::Nothing);
    }
    if let Some(hostless) = without_host(desired, observed) {
        let message = format!("upgrading to {to}: waits: {hostless} is a node, but its ByoHost is gone or is not held");
        return Next::Going { steps: Vec::new(), message };
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

fn members<'a>(
    desired: &'a DesiredCluster,
    control_plane: &'a KubeadmControlPlane,
    observed: &'a Observed,
) -> Vec<Member<'a>> {
    desired
        .hosts()
        .filter_map(|(requested, role)| {
            let host = observed.host(&requested.name).filter(|host| observed.holds(host))?;
            let machine = observed.node(&requested.name)?;
            Some(Member { desired, control_plane, requested, role, host, machine })
        })
        .collect()
}

/// A host of the request that is a node, and whose ByoHost the request does not hold.
fn without_host<'a>(desired: &'a DesiredCluster, observed: &Observed) -> Option<&'a RequestedHost> {
    let is_held = |name: &str| observed.host(name).is_some_and(|host| observed.holds(host));
    let mut hosts = desired.hosts().map(|(requested, _)| requested);
    hosts.find(|requested| observed.node(&requested.name).is_some() && !is_held(&requested.name))
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
    if steps.is_empty() && !failed.is_empty() {
        let (causes, ids): (Vec<_>, Vec<_>) = failed.into_iter().unzip();
        let is_changed = members.iter().any(|member| member.runs(to));
        let so_far = if is_changed { "does not go on" } else { "has not begun, and no host was changed" };
        let what = format!("the upgrade to {to} {so_far}: {}", text::list(&causes, "; "));
        return Some(halted(request, &what, &ids.join(",")));
    }
    if steps.is_empty() && running.is_empty() {
        return None;
    }
    running.extend(steps.iter().filter_map(|step| match step {
        Step::GiveJob(order) => Some(order.host.clone()),
        _ => None,
    }));
    let message = format!("upgrading to {to}: checking {} and bringing the images there", text::list(&running, ", "));
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
    let told = |what: &str| format!("upgrading {} to {to}: {}: {what}", member.version(), member.requested);
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
            let what = format!("the upgrade to {to} has stopped at {}: {why}", member.requested);
            restore::offer(request, member, halted(request, &what, &job.id(attempt)))
        }
        Standing::NotGiven => {
            if let Some(why) = pause_before(request, member, members, to) {
                return going(Vec::new(), &format!("waits: {why}"));
            }
            if let Some((why, at)) = window_before(request, member, to, observed) {
                return Next::Scheduled { message: told(&why), at };
            }
            match unhealthy(members, observed) {
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

/// Why the upgrade does not go on with this host yet, and what to do, if the template wants it to wait here.
fn pause_before(
    request: &ProvisioningRequest,
    member: &Member<'_>,
    members: &[Member<'_>],
    to: &str,
) -> Option<String> {
    let waits = match member.desired.template.spec.upgrade.pause_after {
        PauseAfter::None => false,
        PauseAfter::ControlPlane => !member.is_master(),
        PauseAfter::EachHost => members.iter().any(|other| other.has_run(to) || other.version() == to),
    };
    (waits && !is_told_to_go_on(request, member, to)).then(|| {
        let [this_host, all] = commands_to_go_on(request, member, to);
        format!(
            "spec.upgrade.pauseAfter of the ClusterTemplate is {:?}; to go on with this host: {this_host}; with every host: {all}",
            member.desired.template.spec.upgrade.pause_after
        )
    })
}

/// The window that the upgrade waits for before this host, and when it begins, unless the owner has said that it does not wait.
fn window_before(
    request: &ProvisioningRequest,
    member: &Member<'_>,
    to: &str,
    observed: &Observed,
) -> Option<(String, Timestamp)> {
    let windows = &member.desired.template.spec.upgrade.windows;
    let at = window::next(windows, observed.now).filter(|_| !is_told_to_go_on(request, member, to))?;
    let [this_host, all] = commands_to_go_on(request, member, to);
    let why = format!(
        "waits for the maintenance window that begins at {at} (spec.upgrade.windows of the ClusterTemplate). To begin at once, remove the windows \
         there; or for this host: {this_host}; for every host: {all}"
    );
    Some((why, at))
}

/// The word of the owner by which an upgrade goes on with this host.
fn word_for(member: &Member<'_>, to: &str) -> String {
    format!("{to}/{}", member.requested.name)
}

fn is_told_to_go_on(request: &ProvisioningRequest, member: &Member<'_>, to: &str) -> bool {
    let this_host = word_for(member, to);
    let given = request.annotations().get(names::CONTINUE_ANNOTATION).map(String::as_str).unwrap_or_default();
    given.split(',').any(|word| word.trim() == to || word.trim() == this_host)
}

/// The commands by which an upgrade goes on: with this host, with every host.
fn commands_to_go_on(request: &ProvisioningRequest, member: &Member<'_>, to: &str) -> [String; 2] {
    let command = |word: &str| annotation_command(request, names::CONTINUE_ANNOTATION, &format!("={word}"));
    [command(&word_for(member, to)), command(to)]
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

/// Why the next host must wait: the cluster could not do without it.
fn unhealthy(members: &[Member<'_>], observed: &Observed) -> Option<String> {
    if let Some(why) = unhealthy_control_plane(observed) {
        return Some(why);
    }
    let member = members.iter().find(|member| {
        let conditions = &member.machine.status.conditions;
        !Condition::is_true(conditions, "NodeHealthy")
    });
    if let Some(member) = member {
        return Some(format!("the node of {} is not Ready", member.requested));
    }
    let leaving = observed.machines.iter().find(|machine| machine.metadata.deletion_timestamp.is_some());
    leaving.map(|machine| format!("Machine {} is being deleted", machine.name_any()))
}

/// Why no master can be done without, as Cluster API's conditions say.
pub fn unhealthy_control_plane(observed: &Observed) -> Option<String> {
    if let Some(lost) = observed.lost_connection() {
        return Some(format!("Cluster API cannot connect to the cluster: {}", lost.explain()));
    }
    let control_plane = observed.control_plane.as_ref()?;
    // Cluster API never looks at an etcd that is not on the masters.
    let has_external_etcd = control_plane.spec.kubeadm_config_spec.cluster_configuration.etcd.external.is_some();
    let etcd = (!has_external_etcd).then_some("EtcdClusterHealthy");
    for type_ in etcd.into_iter().chain(["ControlPlaneComponentsHealthy"]) {
        let condition = Condition::find(&control_plane.status.conditions, type_);
        if let Some(condition) = condition.filter(|condition| condition.status != "True") {
            return Some(format!(
                "{type_} of KubeadmControlPlane {}: {}",
                control_plane.name_any(),
                condition.explain()
            ));
        }
    }
    None
}
