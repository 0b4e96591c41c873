//! The stages of a request: what each of them waits for.

use std::sync::Arc;
use std::time::Duration;

use cluster_api::cluster::Cluster;
use cluster_api::control_plane::KubeadmControlPlane;
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::conditions::{self, reason};
use o2ims_types::{ProvisioningRequest, names};

use super::consent::{may_take_out, unmanaged_workers};
use super::create::interrupted;
use super::desired::DesiredCluster;
use super::hosts::{HostProgress, State, all_held};
use super::instructions::{can_be_restored, command, ineffective, lost_id};
use super::marks::MarkedHost;
use super::observed::{Observed, Phase};
use crate::provisioner::report::{Rejection, Stage, StageState};

/// The stages in order. `hosts` are those that the request names.
pub fn stages(
    request: &ProvisioningRequest,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
    hosts: &[HostProgress],
) -> Vec<Stage> {
    // While the Cluster is lost nothing else matters; the stage of the control plane tells it.
    let is_lost = observed.phase == Phase::Lost;
    let timeouts = verdict.as_ref().map(|desired| desired.template.spec.timeouts.clone()).unwrap_or_default();
    let unless_lost = |state: StageState| if is_lost { StageState::Done } else { state };
    vec![
        Stage::new(conditions::PROVIDERS_AVAILABLE, providers(observed)),
        Stage::new(conditions::VALIDATED, unless_lost(validated(verdict))),
        Stage::new(conditions::HOSTS_RESERVED, unless_lost(hosts_reserved(verdict, all_held(hosts)))),
        Stage::new(conditions::CONTROL_PLANE_READY, control_plane(request, observed, hosts))
            .within("the control plane", Duration::from(timeouts.control_plane)),
        Stage::new(conditions::WORKERS_READY, workers(request, observed, hosts))
            .within("workers", Duration::from(timeouts.workers)),
    ]
}

fn providers(observed: &Observed) -> StageState {
    match missing_providers(observed) {
        None => StageState::Done,
        Some(message) => StageState::Refused { reason: reason::PROVIDER_NOT_INSTALLED, message, terminal: false },
    }
}

/// What a user has to install; `None` if nothing is missing.
pub fn missing_providers(observed: &Observed) -> Option<String> {
    (!observed.missing_providers.is_empty()).then(|| {
        format!(
            "missing on the O-Cloud's management cluster: {}; this request goes on when that is installed",
            observed.missing_providers.join(" and ")
        )
    })
}

fn validated(verdict: &Result<DesiredCluster, Rejection>) -> StageState {
    match verdict {
        Err(rejection) if !rejection.hosts => StageState::refused(rejection),
        _ => StageState::Done,
    }
}

fn hosts_reserved(verdict: &Result<DesiredCluster, Rejection>, reserved: bool) -> StageState {
    match verdict {
        Err(rejection) => StageState::refused(rejection),
        Ok(_) if reserved => StageState::Done,
        Ok(_) => StageState::InProgress { message: "reserving hosts".to_owned() },
    }
}

fn control_plane(request: &ProvisioningRequest, observed: &Observed, hosts: &[HostProgress]) -> StageState {
    if observed.phase == Phase::Lost {
        return lost_cluster(request, observed);
    }
    if let Some(message) = taken_down(observed) {
        return StageState::InProgress { message };
    }
    if observed.is_complete && observed.control_plane.is_none() {
        let namespace = request.namespace().unwrap_or_default();
        let message = format!(
            "KubeadmControlPlane {} was deleted by somebody, and cannot be made again for a cluster that runs: its nodes run on, but no \
             master is replaced any more. Save what you need of the cluster; then delete this request, which resets its servers, and make a \
             new one",
            names::control_plane(&namespace, &observed.cluster_name)
        );
        return StageState::Refused { reason: reason::CONTROL_PLANE_LOST, message, terminal: true };
    }
    let (Some(cluster), Some(control_plane)) = (observed.own_cluster(), &observed.control_plane) else {
        let busy = observed.held().find_map(|host| Some(format!("host {} {}", host.name_any(), host.in_use_reason()?)));
        return StageState::InProgress { message: busy.unwrap_or_else(|| "making the cluster's objects".to_owned()) };
    };
    if let Some(message) = lost_control_plane(observed, control_plane) {
        return StageState::Refused { reason: reason::CONTROL_PLANE_LOST, message, terminal: true };
    }
    let masters: Vec<_> = hosts.iter().filter(|host| host.role == names::ROLE_CONTROL_PLANE).collect();
    if let Some(message) = first_failure(&masters) {
        return StageState::InProgress { message };
    }
    let complete = control_plane.status.counts.complete(masters.len(), control_plane.metadata.generation);
    if complete && masters.iter().all(|host| host.state == State::Ready) {
        return StageState::Done;
    }
    StageState::InProgress { message: waits_for(cluster, control_plane, &masters) }
}

/// Why the Cluster is being taken down although its request stays, if it is.
fn taken_down(observed: &Observed) -> Option<String> {
    if let Some((kind, name)) = interrupted(observed) {
        return Some(format!(
            "{} {name} was deleted by somebody while the cluster was made: nothing runs yet, and all of it is made anew",
            kind.name()
        ));
    }
    let name = &observed.cluster_name;
    match observed.phase {
        Phase::Cleaning | Phase::Deleting if !observed.is_complete => {
            Some(format!("Cluster {name} is taken down to be made anew"))
        }
        Phase::Cleaning => Some(format!("Cluster {name} is being taken down, as this request's annotation asks for")),
        Phase::Deleting => Some(format!("Cluster {name} is being deleted by somebody else")),
        _ => None,
    }
}

/// What a control plane waits for that is not complete.
fn waits_for(cluster: &Cluster, control_plane: &KubeadmControlPlane, masters: &[&HostProgress]) -> String {
    let name = control_plane.name_any();
    let explained = control_plane.status.conditions.iter().find(|condition| {
        condition.status == "False" && condition.type_ == "CertificatesAvailable" && !condition.explain().is_empty()
    });
    if let Some(condition) = explained {
        return format!("KubeadmControlPlane {name}: {}: {}", condition.type_, condition.explain());
    }
    if let Some(waiting) = masters.iter().find(|host| host.state != State::Ready) {
        return waiting.to_string();
    }
    // Cluster API tells of a silent node after five minutes.
    let endpoint = cluster.spec.control_plane_endpoint.as_ref();
    let api = endpoint.map(|at| format!("{}:{}", at.host, at.port)).unwrap_or_default();
    let up = if let [master] = masters { format!("{} is", master.asked) } else { "every master is".to_owned() };
    format!(
        "waiting for KubeadmControlPlane {name}: {} of {} replicas ready; if that stays so, see whether {up} up and the cluster's API \
         answers at {api}",
        control_plane.status.counts.ready_replicas,
        masters.len()
    )
}

/// The lost Cluster of nodes that run: what is left, and what its owner can do.
fn lost_cluster(request: &ProvisioningRequest, observed: &Observed) -> StageState {
    let name = &observed.cluster_name;
    let id = lost_id(request, observed);
    let what = what_is_left(observed);
    let paused: Vec<_> = observed.in_service().filter(|host| host.is_paused()).map(MarkedHost::display).collect();
    let paused = if paused.is_empty() {
        String::new()
    } else {
        format!(" ({} paused; BYOH takes that off when Cluster and Machines are back)", paused.join(", "))
    };
    let back = how_to_restore(request, observed, &id);
    let clean = if observed.runs_nodes() {
        "have the servers reset and a new cluster made"
    } else {
        "end on its servers what still runs of it, which their agents might reset, and have a new cluster made"
    };
    let ineffective = ineffective(request, observed).map_or_else(String::new, |text| format!("; {text}"));
    StageState::Refused {
        reason: reason::CLUSTER_MISSING,
        message: format!(
            "Cluster {name} is gone without having been taken down, and {what}{paused}; nothing is done to them. If the cluster is to \
             live, {back}; if it is to go, {clean}: {}{ineffective}",
            command(request, observed, names::CLEAN_ANNOTATION, &id)
        ),
        terminal: true,
    }
}

fn what_is_left(observed: &Observed) -> String {
    let hosts: Vec<_> = observed.in_service().map(MarkedHost::display).collect();
    if !observed.runs_nodes() {
        "neither its Machines nor its hosts are known here; its servers may still run its nodes".to_owned()
    } else if hosts.is_empty() {
        "its Machines are still there".to_owned()
    } else {
        format!("its nodes run on {}", hosts.join(", "))
    }
}

fn how_to_restore(request: &ProvisioningRequest, observed: &Observed, id: &str) -> String {
    if can_be_restored(observed) {
        let command = command(request, observed, names::RESTORE_ANNOTATION, id);
        return format!("have the Cluster made again for them: {command}");
    }
    if !observed.runs_nodes() {
        return "restore its hosts, paused and with their status, and then its Machines and Cluster, from a backup: this request then \
                takes them back by itself"
            .to_owned();
    }
    let going = observed.owned.iter().filter(|(_, part)| part.deleting);
    let going: Vec<_> = going.map(|((kind, name), _)| format!("{} {name}", kind.name())).collect();
    if going.is_empty() {
        "apply the Cluster and its parts again, from a backup or by a move back: this request then takes them back by itself".to_owned()
    } else {
        format!(
            "do not apply the Cluster again: somebody has deleted {}, and under a Cluster that goes on and resets the servers of it",
            going.join(", ")
        )
    }
}

/// The last master went, and with it etcd: no Machine of the control plane is left, and no host of one.
fn lost_control_plane(observed: &Observed, control_plane: &KubeadmControlPlane) -> Option<String> {
    if !observed.is_complete || !control_plane.status.initialized {
        return None;
    }
    if control_plane.metadata.deletion_timestamp.is_some() {
        return Some(format!(
            "KubeadmControlPlane {} is being deleted by somebody, which cannot be undone: it goes with its masters as soon as no worker \
             is left; save what you need of the cluster, then delete this request",
            control_plane.name_any()
        ));
    }
    let is_member = |machine: &Arc<Machine>| {
        machine.is_master() && machine.was_a_node() && machine.metadata.deletion_timestamp.is_none()
    };
    if observed.machines.iter().any(is_member) || observed.in_service().any(MarkedHost::is_held_as_master) {
        return None;
    }
    Some(format!(
        "the last master of cluster {} was deleted, and etcd with it: the cluster cannot be restored; delete this request, or restore \
         etcd from a backup by hand",
        observed.cluster_name
    ))
}

fn workers(request: &ProvisioningRequest, observed: &Observed, hosts: &[HostProgress]) -> StageState {
    let workers: Vec<_> = hosts.iter().filter(|host| host.role == names::ROLE_WORKER).collect();
    if observed.own_cluster().is_none() {
        return StageState::Waiting;
    }
    if let Some(message) = first_failure(&workers) {
        return StageState::InProgress { message };
    }
    if let Some(host) = workers.iter().find(|host| host.state != State::Ready) {
        return StageState::InProgress { message: host.to_string() };
    }
    let incomplete =
        observed.deployments.values().find(|object| !object.status.complete(1, object.metadata.generation));
    if let Some(deployment) = incomplete {
        return StageState::InProgress { message: format!("waiting for MachineDeployment {}", deployment.name_any()) };
    }
    let there = observed.deployments.len() + unmanaged_workers(observed).count();
    // Those that a restored request does not name stay.
    let more_may_stay = !may_take_out(request, observed);
    if there == workers.len() || there > workers.len() && more_may_stay {
        StageState::Done
    } else {
        StageState::InProgress { message: "bringing the number of workers to what was asked for".to_owned() }
    }
}

/// The first host with a failure.
fn first_failure(hosts: &[&HostProgress]) -> Option<String> {
    hosts.iter().find(|host| host.state == State::Failed).map(ToString::to_string)
}
