//! What a user is told, derived anew each time from what was asked and what was observed. Pure: `now` is a parameter, and
//! of the old status only ids and the times at which conditions changed are read.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};
use o2ims_types::conditions::{self, reason};
use o2ims_types::provisioning_request::{HostStatus, ProvisionedResourceSet, ProvisioningStatus, StatusExtensions};
use o2ims_types::{HostRef, ProvisioningRequest, ProvisioningRequestStatus, ProvisioningState, names};
use operator_kit::controller::Outcome;
use operator_kit::write::status::{self, ConditionStatus, ConditionUpdate};

use super::hosts::{HostView, State};
use super::observe::Observed;
use super::plan::has_finalizer;
use super::validate::{Refusal, Valid};
use crate::byoh::host::ByoHost;
use crate::capi::read::{Cluster, Condition as CapiCondition, KubeadmControlPlane, Machine};

/// The status to be written, and when to look again without being told.
#[derive(Clone, Debug)]
pub struct Assessment {
    /// The status.
    pub status: ProvisioningRequestStatus,
    /// Time until the next deadline, if one is running.
    pub recheck: Option<Duration>,
}

impl Assessment {
    /// The outcome of the reconcile.
    pub fn outcome(&self) -> Outcome {
        let message = || self.status.provisioning_status.provisioning_message.clone();
        match self.status.provisioning_status.provisioning_state {
            ProvisioningState::Fulfilled => Outcome::Done,
            ProvisioningState::Progressing | ProvisioningState::Deleting => {
                Outcome::Progressing { recheck: self.recheck }
            }
            ProvisioningState::Pending | ProvisioningState::Failed => match self.recheck {
                Some(recheck) => Outcome::Progressing { recheck: Some(recheck) },
                None => Outcome::Blocked { reason: message() },
            },
        }
    }
}

/// How far one stage is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Done,
    Refused { reason: &'static str, message: String, terminal: bool },
    InProgress { message: String },
    Paused { message: String },
    Waiting,
}

/// Derives the status. `obstacle` is what the last write ran into.
pub fn assess(
    request: &ProvisioningRequest,
    verdict: &Result<Valid, Refusal>,
    observed: &Observed,
    obstacle: Option<&str>,
    now: Timestamp,
) -> Assessment {
    let old = request.status.clone().unwrap_or_default();
    let hosts = super::hosts::views(request, verdict.as_ref().ok(), observed);
    let mut new = ProvisioningRequestStatus {
        provisioning_status: ProvisioningStatus::default(),
        provisioned_resource_set: resources(request, &old, &hosts, observed),
        conditions: old.conditions.clone(),
        observed_generation: request.metadata.generation,
        extensions: extensions(&old, verdict, observed, &hosts),
    };
    let facts = Facts { request, verdict, observed, hosts: &hosts, obstacle, now };
    let is_deleted = request.meta().deletion_timestamp.is_some();
    let tell = if is_deleted { deleting } else { provisioning };
    let (state, message, recheck) = tell(facts, &mut new.conditions);
    let before = &old.provisioning_status;
    let same = before.provisioning_state == state && before.provisioning_message == message && request.status.is_some();
    new.provisioning_status = ProvisioningStatus {
        provisioning_state: state,
        provisioning_message: message,
        provisioning_update_time: if same {
            before.provisioning_update_time.clone()
        } else {
            Some(Time(whole_seconds(now)))
        },
    };
    Assessment { status: new, recheck }
}

fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

type Told = (ProvisioningState, String, Option<Duration>);

/// What a status is derived from.
#[derive(Clone, Copy)]
struct Facts<'a> {
    request: &'a ProvisioningRequest,
    verdict: &'a Result<Valid, Refusal>,
    observed: &'a Observed,
    hosts: &'a [HostView],
    obstacle: Option<&'a str>,
    now: Timestamp,
}

fn provisioning(facts: Facts<'_>, list: &mut Vec<Condition>) -> Told {
    let Facts { request, verdict, observed, hosts, obstacle, now } = facts;
    let exists = observed.own_cluster().is_some();
    let paused = paused(request, observed);
    // Nothing else matters then; the control plane's stage says why.
    let is_lost = observed.has_lost_its_cluster();
    let (leaving, hosts): (Vec<_>, Vec<_>) = hosts.iter().cloned().partition(|host| host.leaving);
    let hosts = &hosts[..];
    let reserved = all_held(hosts);
    let stages = [
        (conditions::PROVIDERS_AVAILABLE, providers(observed)),
        (conditions::VALIDATED, if is_lost { Stage::Done } else { validated(verdict) }),
        (conditions::HOSTS_RESERVED, if is_lost { Stage::Done } else { hosts_reserved(verdict, reserved) }),
        (conditions::CONTROL_PLANE_READY, control_plane(request, observed, hosts)),
        (conditions::WORKERS_READY, workers(request, observed, hosts)),
    ];
    let timeouts = verdict.as_ref().map(|valid| valid.template.spec.timeouts.clone()).unwrap_or_default();
    let mut first_open: Option<(&str, Stage, Option<Duration>)> = None;
    for (type_, stage) in stages {
        // A stage is judged once the ones before it are done; the last two are what a cluster that exists is judged by.
        let stage = match (&first_open, stage) {
            (Some(_), stage) if stage != Stage::Done => Stage::Waiting,
            // Its time does not run during a pause, and begins anew after it.
            (None, Stage::InProgress { message }) => match &paused {
                Some(paused) => Stage::Paused { message: format!("{paused}{}", held_up(observed)) },
                None => Stage::InProgress { message },
            },
            (_, stage) => stage,
        };
        set(list, type_, &stage, request.metadata.generation, now);
        if first_open.is_none() && stage != Stage::Done {
            let limit = match type_ {
                conditions::CONTROL_PLANE_READY => Some(timeouts.control_plane),
                conditions::WORKERS_READY => Some(timeouts.workers),
                _ => None,
            };
            let left = limit.map(|limit| left_of(list, type_, std::time::Duration::from(limit), now));
            first_open = Some((type_, stage, left));
        }
    }
    let outcome = match first_open {
        None => {
            let masters = hosts.iter().filter(|host| host.role == names::ROLE_CONTROL_PLANE).count();
            let workers = hosts.len() - masters;
            let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
            let mut message = format!("cluster is ready: {}, {}", plural(masters, "master"), plural(workers, "worker"));
            for host in &leaving {
                message = format!("{message}; {}", host.sentence());
            }
            for more in [degraded(facts, ""), paused.clone(), obstacle.map(ToOwned::to_owned)].into_iter().flatten() {
                message = format!("{message}; {more}");
            }
            (ProvisioningState::Fulfilled, message, None)
        }
        Some((_, Stage::Paused { message }, _)) => {
            (if exists { ProvisioningState::Progressing } else { ProvisioningState::Pending }, message, None)
        }
        Some((_, Stage::Refused { message, terminal, .. }, _)) => {
            // A cluster that is there is not pending: it waits for what it shall become.
            let told = match (terminal, exists) {
                (true, _) => ProvisioningState::Failed,
                (false, true) => ProvisioningState::Progressing,
                (false, false) => ProvisioningState::Pending,
            };
            let obstacle = obstacle.map(|obstacle| format!("; {obstacle}")).unwrap_or_default();
            (told, format!("{message}{obstacle}"), None)
        }
        Some((type_, stage, left)) => {
            let message = match &stage {
                Stage::InProgress { message } => message.clone(),
                _ => String::new(),
            };
            let message = obstacle.map_or(message, ToOwned::to_owned);
            match left {
                Some(left) if left.is_zero() => {
                    let message =
                        format!("{} took longer than {} s: {message}", describe(type_), limit_of(type_, verdict));
                    set_reason(list, type_, reason::DEADLINE_EXCEEDED, &message, request.metadata.generation, now);
                    (ProvisioningState::Failed, message, None)
                }
                left => {
                    let told =
                        if reserved || exists { ProvisioningState::Progressing } else { ProvisioningState::Pending };
                    (told, message, left)
                }
            }
        }
    };
    let stalled = outcome.0 == ProvisioningState::Failed;
    summarise(list, outcome.0, stalled, &outcome.1, request.metadata.generation, now);
    // Where that is what the state is about, Ready has it.
    let told = if outcome.0 == ProvisioningState::Fulfilled { "" } else { outcome.1.as_str() };
    let wrong = degraded(facts, told);
    flag(list, conditions::DEGRADED, reason::MISMATCH, wrong, request.metadata.generation, now);
    flag(list, conditions::PAUSED, reason::PAUSED, paused, request.metadata.generation, now);
    outcome
}

fn paused(request: &ProvisioningRequest, observed: &Observed) -> Option<String> {
    let pauses = super::consent::pauses(observed);
    if pauses.is_empty() {
        return None;
    }
    let left: Vec<_> = super::consent::left_paused(observed).collect();
    let ways_on = if left.is_empty() {
        String::new()
    } else {
        let (hosts, ids): (Vec<_>, Vec<_>) =
            left.iter().map(|host| (host.display(), host.uid().unwrap_or_default())).unzip();
        format!(
            "; BYOH has asked for the cleaning of {} and left its pause there, which keeps the agent from it; to take that off: {}",
            hosts.join(", "),
            super::consent::command(request, observed, names::CLEAN_ANNOTATION, &ids.join(","))
        )
    };
    Some(format!(
        "paused by somebody: {}; this operator does nothing to the cluster until that is taken off{ways_on}",
        pauses.join(", ")
    ))
}

/// What a pause holds up that its end would let go on.
fn held_up(observed: &Observed) -> String {
    let going = observed.own_cluster().filter(|cluster| cluster.metadata.deletion_timestamp.is_some());
    going.map_or_else(String::new, |cluster| {
        format!(
            "; Cluster {} is being deleted by somebody: without the pause its servers are reset",
            cluster.name_any()
        )
    })
}

/// What is wrong with a cluster that exists and is not what keeps it from being Ready, or is hidden by what is `told`: it neither
/// takes the state nor gets lost.
fn degraded(facts: Facts<'_>, told: &str) -> Option<String> {
    let Facts { verdict, observed, hosts, .. } = facts;
    if !observed.is_running() {
        return None;
    }
    let mut all: Vec<String> = match verdict {
        Ok(valid) => valid.warnings.clone(),
        Err(refusal) => {
            let lost = super::validate::lost_sight(facts.request, observed);
            [vec![refusal.message.clone()], lost].concat()
        }
    };
    all.extend(hosts.iter().filter(|host| !host.leaving && host.state == State::Failed).map(HostView::sentence));
    all.retain(|text| told.is_empty() || !told.contains(text.as_str()));
    (!all.is_empty()).then(|| all.join("; "))
}

/// A condition that is True while there is something to tell.
fn flag(
    list: &mut Vec<Condition>,
    type_: &str,
    reason: &str,
    message: Option<String>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let new = ConditionUpdate {
        type_,
        status: if message.is_some() { ConditionStatus::True } else { ConditionStatus::False },
        reason: if message.is_some() { reason } else { reason::IDLE },
        message: message.unwrap_or_default(),
        observed_generation: generation,
    };
    status::set(list, new, whole_seconds(now));
}

fn describe(type_: &str) -> &'static str {
    if type_ == conditions::CONTROL_PLANE_READY { "the control plane" } else { "workers" }
}

/// Seconds.
fn limit_of(type_: &str, verdict: &Result<Valid, Refusal>) -> u64 {
    let timeouts = verdict.as_ref().map(|valid| valid.template.spec.timeouts.clone()).unwrap_or_default();
    let limit = if type_ == conditions::CONTROL_PLANE_READY { timeouts.control_plane } else { timeouts.workers };
    Duration::from(limit).as_secs()
}

/// Time that is left of `limit`, counted from when the condition last changed its status.
fn left_of(list: &[Condition], type_: &str, limit: Duration, now: Timestamp) -> Duration {
    let since = status::find(list, type_).map_or(now, |condition| condition.last_transition_time.0);
    left(since, limit, now)
}

fn left(since: Timestamp, limit: Duration, now: Timestamp) -> Duration {
    let spent = Duration::from_secs(u64::try_from(now.as_second() - since.as_second()).unwrap_or_default());
    limit.saturating_sub(spent)
}

fn set(list: &mut Vec<Condition>, type_: &str, stage: &Stage, generation: Option<i64>, now: Timestamp) {
    let (truth, reason, message) = match stage {
        Stage::Done => (ConditionStatus::True, reason::SUCCEEDED, String::new()),
        Stage::Refused { reason, message, .. } => (ConditionStatus::False, *reason, message.clone()),
        Stage::InProgress { message } => (ConditionStatus::False, reason::IN_PROGRESS, message.clone()),
        Stage::Paused { message } => (ConditionStatus::Unknown, reason::PAUSED, message.clone()),
        Stage::Waiting => (ConditionStatus::Unknown, reason::WAITING, String::new()),
    };
    let new = ConditionUpdate { type_, status: truth, reason, message, observed_generation: generation };
    status::set(list, new, whole_seconds(now));
}

fn set_reason(
    list: &mut Vec<Condition>,
    type_: &str,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let new = ConditionUpdate {
        type_,
        status: ConditionStatus::False,
        reason,
        message: message.to_owned(),
        observed_generation: generation,
    };
    status::set(list, new, whole_seconds(now));
}

/// `Ready`, `Reconciling` and `Stalled`, as kstatus wants them. Each is set once: a condition that goes forth and back
/// would get a new time, and the status a new write, each time it is looked at.
fn summarise(
    list: &mut Vec<Condition>,
    state: ProvisioningState,
    stalled: bool,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let ready_reason = match state {
        ProvisioningState::Fulfilled => reason::SUCCEEDED,
        ProvisioningState::Deleting => reason::DELETING,
        _ => list
            .iter()
            .find(|condition| condition.status == "False" && !SUMMARY.contains(&condition.type_.as_str()))
            .map_or(reason::IN_PROGRESS, |condition| stage_reason(&condition.reason)),
    };
    let truth = |holds: bool| if holds { ConditionStatus::True } else { ConditionStatus::False };
    let reconciling = !stalled && state != ProvisioningState::Fulfilled;
    let stalled_reason = if state == ProvisioningState::Deleting { reason::DEADLINE_EXCEEDED } else { ready_reason };
    for (type_, holds, reason) in [
        (conditions::READY, state == ProvisioningState::Fulfilled, ready_reason),
        (conditions::RECONCILING, reconciling, if reconciling { ready_reason } else { reason::IDLE }),
        (conditions::STALLED, stalled, if stalled { stalled_reason } else { reason::IDLE }),
    ] {
        let told = if holds || type_ == conditions::READY { message.to_owned() } else { String::new() };
        let new =
            ConditionUpdate { type_, status: truth(holds), reason, message: told, observed_generation: generation };
        status::set(list, new, whole_seconds(now));
    }
}

const SUMMARY: [&str; 3] = [conditions::READY, conditions::RECONCILING, conditions::STALLED];

/// The constant for a reason that was read back from a condition.
fn stage_reason(text: &str) -> &'static str {
    [
        reason::INVALID,
        reason::TEMPLATE_UNAVAILABLE,
        reason::UNSUPPORTED,
        reason::NAME_TAKEN,
        reason::HOSTS_UNAVAILABLE,
        reason::PROVIDER_NOT_INSTALLED,
        reason::DEADLINE_EXCEEDED,
        reason::CLUSTER_MISSING,
        reason::CONTROL_PLANE_LOST,
    ]
    .into_iter()
    .find(|known| *known == text)
    .unwrap_or(reason::IN_PROGRESS)
}

fn providers(observed: &Observed) -> Stage {
    match missing_providers(observed) {
        None => Stage::Done,
        Some(message) => Stage::Refused { reason: reason::PROVIDER_NOT_INSTALLED, message, terminal: false },
    }
}

fn missing_providers(observed: &Observed) -> Option<String> {
    (!observed.missing_providers.is_empty()).then(|| {
        format!(
            "missing on the O-Cloud's management cluster: {}; this request goes on when that is installed",
            observed.missing_providers.join(" and ")
        )
    })
}

fn validated(verdict: &Result<Valid, Refusal>) -> Stage {
    match verdict {
        Err(refusal) if !refusal.hosts => {
            Stage::Refused { reason: refusal.reason, message: refusal.message.clone(), terminal: refusal.terminal }
        }
        _ => Stage::Done,
    }
}

fn hosts_reserved(verdict: &Result<Valid, Refusal>, reserved: bool) -> Stage {
    match verdict {
        Err(refusal) => {
            Stage::Refused { reason: refusal.reason, message: refusal.message.clone(), terminal: refusal.terminal }
        }
        Ok(_) if reserved => Stage::Done,
        Ok(_) => Stage::InProgress { message: "reserving hosts".to_owned() },
    }
}

fn control_plane(request: &ProvisioningRequest, observed: &Observed, hosts: &[HostView]) -> Stage {
    let masters: Vec<_> = hosts.iter().filter(|host| host.role == names::ROLE_CONTROL_PLANE).collect();
    if observed.has_lost_its_cluster() {
        return lost_cluster(request, observed);
    }
    let is_cut = super::consent::cut(observed);
    if let Some((kind, name)) = is_cut {
        return Stage::InProgress {
            message: format!(
                "{} {name} was deleted by somebody while the cluster was made: nothing runs yet, and all of it is made anew",
                kind.name()
            ),
        };
    }
    let is_cleaned = |cluster: &Cluster| cluster.annotations().contains_key(names::CLEANING_ANNOTATION);
    let is_going = |cluster: &&Arc<Cluster>| cluster.metadata.deletion_timestamp.is_some() || is_cleaned(cluster);
    if let Some(cluster) = observed.own_cluster().filter(is_going) {
        let name = cluster.name_any();
        return Stage::InProgress {
            message: if cluster.is_being_made() {
                format!("Cluster {name} is taken down to be made anew")
            } else if is_cleaned(cluster) {
                format!("Cluster {name} is being taken down, as this request's annotation asks for")
            } else {
                format!("Cluster {name} is being deleted by somebody else")
            },
        };
    }
    if observed.is_running() && observed.control_plane.is_none() {
        let namespace = request.namespace().unwrap_or_default();
        let message = format!(
            "KubeadmControlPlane {} was deleted by somebody, and cannot be made again for a cluster that runs: its nodes run on, but no \
             master is replaced any more. Save what you need of the cluster; then delete this request, which resets its servers, and make a \
             new one",
            names::control_plane(&namespace, &observed.cluster_name)
        );
        return Stage::Refused { reason: reason::CONTROL_PLANE_LOST, message, terminal: true };
    }
    let (Some(cluster), Some(control_plane)) = (observed.own_cluster(), &observed.control_plane) else {
        let busy = observed.held().find_map(|host| Some(format!("host {} {}", host.name_any(), host.busy()?)));
        return Stage::InProgress { message: busy.unwrap_or_else(|| "making the cluster's objects".to_owned()) };
    };
    if let Some(message) = lost_control_plane(observed, control_plane) {
        return Stage::Refused { reason: reason::CONTROL_PLANE_LOST, message, terminal: true };
    }
    if let Some(message) = trouble(&masters) {
        return Stage::InProgress { message };
    }
    let complete = control_plane.status.counts.complete(masters.len(), control_plane.metadata.generation);
    if complete && masters.iter().all(|host| host.state == State::Ready) {
        return Stage::Done;
    }
    let explained = control_plane.status.conditions.iter().find(|condition| {
        condition.status == "False" && condition.type_ == "CertificatesAvailable" && !condition.explain().is_empty()
    });
    if let Some(condition) = explained {
        return Stage::InProgress {
            message: format!(
                "KubeadmControlPlane {}: {}: {}",
                control_plane.name_any(),
                condition.type_,
                condition.explain()
            ),
        };
    }
    let waiting = masters.iter().find(|host| host.state != State::Ready).map(|host| host.sentence());
    let message = waiting.unwrap_or_else(|| {
        // Cluster API tells of a node that is silent after five minutes.
        let endpoint = cluster.spec.control_plane_endpoint.as_ref();
        let api = endpoint.map(|at| format!("{}:{}", at.host, at.port)).unwrap_or_default();
        format!(
            "waiting for KubeadmControlPlane {}: {} of {} replicas ready; if that stays so, see whether {} up and the cluster's API \
             answers at {api}",
            control_plane.name_any(),
            control_plane.status.counts.ready_replicas,
            masters.len(),
            if let [master] = &masters[..] { format!("{} is", master.asked) } else { "every master is".to_owned() }
        )
    });
    Stage::InProgress { message }
}

/// The Cluster object went, and its nodes run: what is left, and the ways on.
fn lost_cluster(request: &ProvisioningRequest, observed: &Observed) -> Stage {
    let name = &observed.cluster_name;
    let id = super::consent::lost_id(request, observed);
    let hosts: Vec<_> = observed.in_service().map(ByoHost::display).collect();
    let what = if !observed.runs_nodes() {
        "neither its Machines nor its hosts are known here; its servers may still run its nodes".to_owned()
    } else if hosts.is_empty() {
        "its Machines are still there".to_owned()
    } else {
        format!("its nodes run on {}", hosts.join(", "))
    };
    let paused: Vec<_> = observed.in_service().filter(|host| host.is_paused()).map(ByoHost::display).collect();
    let paused = if paused.is_empty() {
        String::new()
    } else {
        format!(" ({} paused; BYOH takes that off when Cluster and Machines are back)", paused.join(", "))
    };
    let going: Vec<_> = observed.made.iter().filter(|(_, part)| part.deleting).map(|(part, _)| part).collect();
    let going: Vec<_> = going.into_iter().map(|(kind, name)| format!("{} {name}", kind.name())).collect();
    let back = if super::consent::can_be_restored(observed) {
        format!(
            "have the Cluster made again for them: {}",
            super::consent::command(request, observed, names::RESTORE_ANNOTATION, &id)
        )
    } else if !observed.runs_nodes() {
        "restore its hosts, paused and with their status, and then its Machines and Cluster, from a backup: this request then takes them \
         back by itself"
            .to_owned()
    } else if going.is_empty() {
        "apply the Cluster and its parts again, from a backup or by a move back: this request then takes them back by itself".to_owned()
    } else {
        format!(
            "do not apply the Cluster again: somebody has deleted {}, and under a Cluster that goes on and resets the servers of it",
            going.join(", ")
        )
    };
    let clean = if observed.runs_nodes() {
        "have the servers reset and a new cluster made"
    } else {
        "end on its servers what still runs of it, which their agents might reset, and have a new cluster made"
    };
    let misdirected = super::consent::misdirected(request, observed);
    let misdirected = misdirected.map_or_else(String::new, |text| format!("; {text}"));
    Stage::Refused {
        reason: reason::CLUSTER_MISSING,
        message: format!(
            "Cluster {name} is gone without having been taken down, and {what}{paused}; nothing is done to them. If the cluster is to \
             live, {back}; if it is to go, {clean}: {}{misdirected}",
            super::consent::command(request, observed, names::CLEAN_ANNOTATION, &id)
        ),
        terminal: true,
    }
}

/// The last master went, and with it etcd: no Machine of the control plane is left, and no host of one.
fn lost_control_plane(observed: &Observed, control_plane: &KubeadmControlPlane) -> Option<String> {
    if !observed.is_running() || !control_plane.status.initialized {
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
    if observed.machines.iter().any(is_member) || observed.in_service().any(ByoHost::is_held_as_master) {
        return None;
    }
    Some(format!(
        "the last master of cluster {} was deleted, and etcd with it: the cluster cannot be restored; delete this request, or restore \
         etcd from a backup by hand",
        observed.cluster_name
    ))
}

fn workers(request: &ProvisioningRequest, observed: &Observed, hosts: &[HostView]) -> Stage {
    let workers: Vec<_> = hosts.iter().filter(|host| host.role == names::ROLE_WORKER).collect();
    if observed.own_cluster().is_none() {
        return Stage::Waiting;
    }
    if let Some(message) = trouble(&workers) {
        return Stage::InProgress { message };
    }
    if let Some(host) = workers.iter().find(|host| host.state != State::Ready) {
        return Stage::InProgress { message: host.sentence() };
    }
    let incomplete =
        observed.deployments.values().find(|object| !object.status.complete(1, object.metadata.generation));
    if let Some(deployment) = incomplete {
        return Stage::InProgress { message: format!("waiting for MachineDeployment {}", deployment.name_any()) };
    }
    let there = observed.deployments.len() + super::consent::orphaned_workers(observed).count();
    // Those that a restored request does not name stay.
    let more_may_stay = !super::consent::may_take_out(request, observed);
    if there == workers.len() || there > workers.len() && more_may_stay {
        Stage::Done
    } else {
        Stage::InProgress { message: "bringing the number of workers to what was asked for".to_owned() }
    }
}

/// The first host with a failure.
fn trouble(hosts: &[&HostView]) -> Option<String> {
    hosts.iter().find(|host| host.state == State::Failed).map(|host| host.sentence())
}

fn deleting(facts: Facts<'_>, list: &mut Vec<Condition>) -> Told {
    let Facts { request, verdict, observed, hosts, obstacle, now } = facts;
    // What a host waits for, if it is one that this is asked of.
    let waiting = |asked_of: fn(&ByoHost) -> bool| -> Vec<String> {
        let held = hosts.iter().filter(|view| view.held);
        held.filter_map(|view| {
            let host = observed.host(&view.asked.name).filter(|host| asked_of(host))?;
            Some(format!("{} {}", view.asked, host.busy()?))
        })
        .collect()
    };
    let paused = paused(request, observed);
    let message = if let Some(obstacle) = obstacle {
        obstacle.to_owned()
    } else if let Some(paused) = &paused {
        format!("the deletion waits: {paused}")
    } else if let Some(missing) = missing_providers(observed).filter(|_| observed.runs_nodes()) {
        format!("the deletion waits: {missing}")
    } else if super::consent::keeps_cluster(request, observed) {
        format!(
            "letting go of cluster {}, which runs on (finalizer {})",
            observed.cluster_name,
            names::ORPHAN_FINALIZER
        )
    } else if let Some(cluster) = observed.own_cluster() {
        let waits = CapiCondition::find(&cluster.status.v1beta2.conditions, "Deleting")
            .filter(|condition| condition.status == "True")
            .map(|condition| format!(" ({})", condition.explain()))
            .unwrap_or_default();
        if let Some(machine) = super::teardown::headless_masters(observed).next() {
            format!("deleting Machine {}, whose KubeadmControlPlane was deleted by somebody", machine.name_any())
        } else if super::teardown::is_unnoticed(cluster, observed) {
            format!("waiting for Cluster API to take notice of Cluster {}, which is to be deleted", cluster.name_any())
        } else {
            let name = cluster.name_any();
            let cleaning = waiting(ByoHost::is_unregistering);
            [vec![format!("deleting Cluster {name}{waits}")], cleaning].concat().join("; ")
        }
    } else if let Some((kind, name)) = observed.made.keys().next() {
        format!("deleting {} {name}", kind.name())
    } else {
        let busy = waiting(|_| true);
        match (busy.is_empty(), foreign_finalizers(request)) {
            (false, _) => format!("waiting for hosts: {}", busy.join("; ")),
            (true, Some(finalizers)) if !has_finalizer(request) => {
                format!("all hosts are free; waiting for finalizer {finalizers} of somebody else")
            }
            (true, _) => "releasing hosts".to_owned(),
        }
    };
    let limit: Duration = verdict
        .as_ref()
        .map(|valid| valid.template.spec.timeouts.deletion)
        .or_else(|_| observed.template.as_ref().map(|template| template.spec.timeouts.deletion).ok_or(()))
        .map_or(Duration::from_secs(20 * 60), Into::into);
    let since = request.metadata.deletion_timestamp.as_ref().map_or(now, |time| time.0);
    let left = Some(left(since, limit, now)).filter(|left| !left.is_zero() && paused.is_none());
    let in_time = left.is_some() || paused.is_some();
    let message =
        if in_time { message } else { format!("deletion takes longer than {} s: {message}", limit.as_secs()) };
    summarise(list, ProvisioningState::Deleting, !in_time, &message, request.metadata.generation, now);
    flag(list, conditions::PAUSED, reason::PAUSED, paused, request.metadata.generation, now);
    (ProvisioningState::Deleting, message, left)
}

/// Finalizers that are not the operator's.
fn foreign_finalizers(request: &ProvisioningRequest) -> Option<String> {
    let others: Vec<_> =
        request.finalizers().iter().filter(|finalizer| *finalizer != names::FINALIZER).cloned().collect();
    (!others.is_empty()).then(|| others.join(", "))
}

/// UIDs of what the request holds; that of its Cluster from when it is let go. They stay until the request is gone, also when an
/// object is gone before it: a Cluster that is gone while its hosts are not known to be clean is missed.
fn resources(
    request: &ProvisioningRequest,
    old: &ProvisioningRequestStatus,
    hosts: &[HostView],
    observed: &Observed,
) -> Option<ProvisionedResourceSet> {
    let before = old.provisioned_resource_set.clone();
    let cluster = observed.own_cluster().filter(|cluster| !cluster.is_being_made()).and_then(|cluster| cluster.uid());
    let is_deleted = request.meta().deletion_timestamp.is_some();
    let ended = observed.cluster.is_none() && !is_deleted && !observed.has_lost_its_cluster();
    if !all_held(hosts) && observed.own_cluster().is_none() {
        // Nothing is held any more, unless hosts are on their way out.
        return before.filter(|_| !ended || observed.held().next().is_some());
    }
    let hosts = hosts.iter().filter_map(|view| observed.host(&view.asked.name).filter(|_| view.held)?.uid()).collect();
    let recorded = before.and_then(|before| before.o_cloud_node_cluster_id).filter(|_| !ended);
    Some(ProvisionedResourceSet {
        o_cloud_node_cluster_id: cluster.or(recorded),
        o_cloud_infrastructure_resource_ids: hosts,
    })
}

fn extensions(
    old: &ProvisioningRequestStatus,
    verdict: &Result<Valid, Refusal>,
    observed: &Observed,
    hosts: &[HostView],
) -> StatusExtensions {
    let asked: Vec<_> = hosts.iter().filter(|host| !host.leaving).collect();
    let ready = asked.iter().filter(|host| host.state == State::Ready).count();
    let cluster = observed.own_cluster();
    let valid = verdict.as_ref().ok();
    StatusExtensions {
        k8s_version: valid.map(|valid| valid.version.clone()).or_else(|| old.extensions.k8s_version.clone()),
        ready_nodes: (!asked.is_empty()).then(|| format!("{ready}/{}", asked.len())),
        control_plane_endpoint: valid
            .filter(|_| cluster.is_some())
            .map(|valid| format!("{}:{}", valid.endpoint.host, valid.endpoint.port))
            .or_else(|| old.extensions.control_plane_endpoint.clone().filter(|_| cluster.is_some())),
        kubeconfig_secret: cluster.map(|cluster| format!("{}-kubeconfig", cluster.name_any())),
        hosts: hosts
            .iter()
            .map(|view| HostStatus {
                host_name: view.asked.name.clone(),
                host_id: view.asked.id.clone(),
                role: view.role.to_owned(),
                state: view.state.name().to_owned(),
                message: view.message.clone(),
            })
            .collect(),
    }
}

/// Whether the request holds every host that it names.
fn all_held(hosts: &[HostView]) -> bool {
    !hosts.is_empty() && hosts.iter().all(|host| host.held)
}

/// Hosts of a request as it is written, masters first.
pub fn asked(request: &ProvisioningRequest) -> impl Iterator<Item = (&HostRef, &'static str)> {
    request.spec.template_parameters.hosts.iter().flat_map(|hosts| {
        let masters = hosts.masters.iter().map(|host| (host, names::ROLE_CONTROL_PLANE));
        masters.chain(hosts.workers.iter().map(|host| (host, names::ROLE_WORKER)))
    })
}
