//! A rolling upgrade: one host after the other is drained, taken out, cleaned by its agent, and becomes a node again, at the new version. Masters come
//! first, and all of them in one go: Cluster API replaces their machines when the control plane has the version. Each worker is deleted with its
//! MachineDeployment, which is created again when the host is clean. Everything is derived from Machines and hosts.
//!
//! BYOH attaches a host again while its agent still has one write of the cleaning to make, and that write detaches the new machine for ever. So the hosts
//! of all masters lose the label of their role before, and each gets it back when it is clean: see [`is_replaced`](super::hop::is_replaced).

use std::sync::Arc;

use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use cluster_api::control_plane::KubeadmControlPlane;
use cluster_api::machine::Machine;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_types::ProvisioningRequest;
use serde_json::json;

use super::adoption::without_gate;
use super::gate::{advice, hostless, members, pause_before, unhealthy, unhealthy_control_plane, window_before};
use super::hop::{half_upgraded, is_replaced};
use super::job;
use super::member::Member;
use super::outcome::Next;
use super::strategy;
use crate::provisioner::byoh::desired::{DesiredCluster, RequestedHost};
use crate::provisioner::byoh::hosts::{HostProgress, progress_of_all};
use crate::provisioner::byoh::marks::MarkedHost as _;
use crate::provisioner::byoh::masters;
use crate::provisioner::byoh::observed::{Observed, Phase};
use crate::provisioner::byoh::warnings::unnamed_hosts;
use crate::provisioner::report::Rejection;
use crate::provisioner::step::Step;

/// What is next in the rolling upgrade of the request's cluster to this version.
pub fn next(
    request: &ProvisioningRequest,
    desired: &DesiredCluster,
    observed: &Observed,
    control_plane: &KubeadmControlPlane,
    to: &str,
) -> Next {
    let told = |what: &str| format!("upgrading to {to}, by resetting one host after the other: {what}");
    let going = |steps: Vec<Step>, what: &str| Next::Going { steps, message: told(what) };
    let members = members(request, desired, control_plane, observed);
    let window = |member: &Member<'_>| {
        let (why, at) = window_before(request, member, to, observed)?;
        Some(Next::Scheduled { message: told(&format!("{} {why}", member.requested)), at })
    };
    if control_plane.spec.version != to {
        return match why_not_yet(request, desired, observed, &members) {
            Wait::Change => Next::Nothing,
            Wait::For(why) => going(Vec::new(), &format!("waits: {why}")),
            Wait::No => members
                .first()
                .and_then(window)
                .unwrap_or_else(|| going(begin(control_plane, &members, to), "the masters come first")),
        };
    }
    let is_outdated = |machine: &Machine| machine.spec.version.as_deref() != Some(to);
    let leaves = |machine: &Machine| {
        machine.metadata.deletion_timestamp.is_some()
            && machine.server().is_some_and(|server| desired.hosts().any(|(requested, _)| requested.name == server))
    };
    let is_left = members.iter().any(|member| is_outdated(member.machine))
        || observed.machines.iter().any(|machine| leaves(machine) && is_outdated(machine));
    if !is_left {
        return Next::Nothing;
    }
    if let Some(host) = is_out(request, desired, observed) {
        return going(Vec::new(), &host.to_string());
    }
    if let Some(master) = members.iter().find(|member| member.is_master() && is_outdated(member.machine)) {
        let waits =
            unhealthy_control_plane(observed).map(|why| format!("; Cluster API waits: {why}")).unwrap_or_default();
        return going(Vec::new(), &format!("{} is to be replaced by Cluster API{waits}", master.requested));
    }
    let Some(worker) = members.iter().find(|member| is_outdated(member.machine)) else { return Next::Nothing };
    let waits_for =
        |why: &str| going(Vec::new(), &format!("{} waits: {why}{}", worker.requested, advice(request, &members)));
    let why = unnamed_hosts(request, observed).or_else(|| hostless(desired, observed));
    if let Some(why) = why.or_else(|| pause_before(request, worker, &members, to)) {
        return waits_for(&why);
    }
    if let Some(scheduled) = window(worker) {
        return scheduled;
    }
    match unhealthy(request, &members, observed) {
        Some(why) => waits_for(&why),
        None => going(remove(worker.machine, observed), &format!("{} is drained and reset", worker.requested)),
    }
}

/// Why a rolling upgrade does not begin.
enum Wait {
    /// The masters are being created or changed.
    Change,
    /// For this.
    For(String),
    /// It begins.
    No,
}

fn why_not_yet(
    request: &ProvisioningRequest,
    desired: &DesiredCluster,
    observed: &Observed,
    members: &[Member<'_>],
) -> Wait {
    let is_node = |name: &str| observed.node(name).is_some();
    if desired.masters.iter().any(|master| !is_node(&master.name)) || masters::has_unnamed(request, desired, observed) {
        return Wait::Change;
    }
    let absent = || {
        let worker = desired.workers.iter().find(|worker| !is_node(&worker.name))?;
        Some(format!("{worker} is no node yet"))
    };
    let why = unnamed_hosts(request, observed).or_else(|| hostless(desired, observed)).or_else(absent);
    // A reset would end it in the middle.
    let other_job = || job::open_on(observed.held().map(AsRef::as_ref));
    let why = why.or_else(other_job).or_else(|| half_done(request, desired, observed));
    // No master is passed over: it would be the first that Cluster API replaces, and its host would never become clean.
    let why = why.or_else(|| unhealthy_control_plane(observed)).or_else(|| unhealthy(request, members, observed));
    why.map_or(Wait::No, Wait::For)
}

/// A master of another version: what Cluster API replaces first would be chosen by a version that does not run there.
fn half_done(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Option<String> {
    let host = half_upgraded(request, observed)?;
    Some(format!(
        "the upgrade of {host} has been left halfway, or it runs another version of Kubernetes than the control plane; to upgrade it without a reset, set \
         spec.upgrade.strategy InPlace in ClusterTemplate {}",
        desired.template.name_any()
    ))
}

/// Has Cluster API replace the masters, each one before its successor is there, as there is no spare host; when no host has the label of its role any more.
fn begin(control_plane: &KubeadmControlPlane, members: &[Member<'_>], to: &str) -> Vec<Step> {
    if members.iter().any(|member| member.host.is_held_as_master()) {
        return Vec::new();
    }
    let mut spec = json!({
        "version": to,
        "rollout": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0}}},
    });
    if let Some(settings) = without_gate(control_plane, to) {
        spec["kubeadmConfigSpec"] = settings;
    }
    vec![Step::PatchSpec {
        kind: Kind::KubeadmControlPlane,
        name: control_plane.name_any(),
        uid: control_plane.uid().unwrap_or_default(),
        spec,
    }]
}

/// What a rolling upgrade has to end before its request lets the cluster go, as with `--cascade=orphan`: nothing else gives a host its role back. The
/// cluster gets the version that its control plane has, so no further host is reset but the masters that Cluster API replaces by then. With what is waited
/// for; `None` if every host is a node and none is to be replaced, or a master is not held any more.
pub fn unfinished(
    request: &ProvisioningRequest,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
) -> Option<(DesiredCluster, String)> {
    let desired = verdict.as_ref().ok().filter(|desired| desired.is_rolling && strategy::is_recorded(observed))?;
    let target = observed.control_plane.as_ref()?.spec.version.clone();
    // No host is claimed during a deletion: an edit that came with it takes none, and the mark of a master that somebody has removed stays away.
    let is_held = |host: &RequestedHost| observed.host(&host.name).is_some_and(|host| observed.holds(host));
    if observed.phase != Phase::Running || !desired.masters.iter().all(is_held) {
        return None;
    }
    let workers = desired.workers.iter().filter(|worker| is_held(worker)).cloned().collect();
    let desired = DesiredCluster { target: Some(target), workers, ..desired.clone() };
    let has_no_role = |host: &ByoHost| {
        desired.masters.iter().any(|master| master.name == host.name_any()) && !host.is_held_as_master()
    };
    let waits_for = is_out(request, &desired, observed).map(|host| host.to_string()).or_else(|| {
        let is_to_go = |machine: &Arc<Machine>| is_replaced(machine, &desired, observed);
        let machine = observed.machines.iter().find(|machine| is_to_go(machine));
        let host = machine.and_then(|machine| machine.server().map(ToOwned::to_owned));
        host.or_else(|| Some(observed.held().find(|host| has_no_role(host))?.display()))
    })?;
    let message = format!("the upgrade has begun to reset hosts, and first brings these back: {waits_for}");
    Some((desired, message))
}

/// The first host that is no node, because its machine is replaced; masters first.
fn is_out(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Option<HostProgress> {
    let hosts = progress_of_all(request, Some(desired), observed);
    hosts.into_iter().find(|host| !host.removed && observed.node(&host.requested.name).is_none())
}

/// Since when a host of a rolling upgrade has another machine and is to become its node, and whether as a master; `None` if none is.
pub fn comes_back_since(desired: &DesiredCluster, observed: &Observed) -> Option<(bool, Timestamp)> {
    if !desired.is_rolling {
        return None;
    }
    let coming = |machine: &&Arc<Machine>| machine.metadata.deletion_timestamp.is_none() && !machine.was_a_node();
    let mut coming = observed.machines.iter().filter(coming);
    coming.find_map(|machine| Some((machine.is_master(), machine.metadata.creation_timestamp.as_ref()?.0)))
}

/// Deletes a worker with its MachineDeployment, or without one where somebody has deleted that.
fn remove(machine: &Machine, observed: &Observed) -> Vec<Step> {
    let name = machine.deployment().unwrap_or_default();
    match observed.owned.get(&(Kind::MachineDeployment, name.to_owned())) {
        Some(deployment) if deployment.deleting => Vec::new(),
        Some(deployment) => vec![deployment.delete(Kind::MachineDeployment, name)],
        None => vec![Step::delete_with_nodes(Kind::Machine, machine)],
    }
}
