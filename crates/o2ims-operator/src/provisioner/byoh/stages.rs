//! The stages of a request: what each of them waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cluster_api::Kind;
use cluster_api::cluster::Cluster;
use cluster_api::conditions::{Condition, one_line};
use cluster_api::control_plane::KubeadmControlPlane;
use cluster_api::kinds::SUPPORTED_RELEASES;
use cluster_api::machine::{Machine, ReplicaStatus};
use kube::ResourceExt as _;
use o2ims_types::conditions::{self, reason};
use o2ims_types::o2ims::v1alpha1::cluster_template::InstallMethod;
use o2ims_types::{ProvisioningRequest, names};
use operator_kit::text;

use super::consent::{may_remove_hosts, unmanaged_workers};
use super::create::interrupted;
use super::desired::DesiredCluster;
use super::hosts::{HostProgress, State, all_held, not_ready_since};
use super::instructions::{can_be_restored, command, ineffective, lost_id};
use super::machine_deletion::held_up;
use super::marks::MarkedHost;
use super::masters;
use super::observed::{Observed, Phase};
use super::upgrade::hop::is_passed_over;
use super::upgrade::next::next;
use super::upgrade::outcome::Next;
use super::upgrade::rolling;
use crate::caches::MissingProvider;
use crate::provisioner::report::{Rejection, Stage, StageState, Tolerance};

/// The stages in order. `hosts` are those that the request names.
pub fn stages(
    request: &ProvisioningRequest,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
    hosts: &[HostProgress],
) -> Vec<Stage> {
    // While the Cluster is lost, Validated and HostsReserved count as done, so that the first unfinished stage is ControlPlaneReady, which
    // reports the loss.
    let is_lost = observed.phase == Phase::Lost;
    let timeouts = verdict.as_ref().map(|desired| desired.template.spec.timeouts.clone()).unwrap_or_default();
    // Times in a status are whole seconds.
    let grace = Duration::from_secs(Duration::from(timeouts.unreachable).as_secs());
    let done_if_lost = |state: StageState| if is_lost { StageState::Done } else { state };
    let mut stages = vec![
        Stage::new(conditions::PROVIDERS_AVAILABLE, providers(observed)),
        Stage::new(conditions::VALIDATED, done_if_lost(validated(verdict))),
        Stage::new(conditions::HOSTS_RESERVED, done_if_lost(hosts_reserved(verdict, hosts))),
    ];
    stages.extend(upgraded(request, verdict, observed).map(|state| {
        let stage = Stage::new(conditions::UPGRADED, state);
        match verdict.as_ref().ok().and_then(|desired| rolling::comes_back_since(desired, observed)) {
            Some((true, since)) => {
                stage.within_since("spec.timeouts.controlPlane", Duration::from(timeouts.control_plane), since)
            }
            Some((false, since)) => {
                stage.within_since("spec.timeouts.workers", Duration::from(timeouts.workers), since)
            }
            None => stage,
        }
    }));
    let masters_ready = control_plane(request, verdict, observed, hosts);
    let tolerated_masters = tolerated_masters(&masters_ready, observed, hosts, grace);
    let workers_ready = workers(request, observed, hosts);
    let tolerated_workers = tolerated_workers(&workers_ready, observed, hosts, grace);
    stages.extend([
        Stage::new(conditions::CONTROL_PLANE_READY, masters_ready)
            .within("spec.timeouts.controlPlane", Duration::from(timeouts.control_plane))
            .tolerating(tolerated_masters),
        Stage::new(conditions::WORKERS_READY, workers_ready)
            .within("spec.timeouts.workers", Duration::from(timeouts.workers))
            .tolerating(tolerated_workers),
    ]);
    stages
}

/// What owns Machines: how many there are to be, its counters, generation and conditions.
type Owner<'a> = (usize, &'a ReplicaStatus, Option<i64>, &'a [Condition]);

fn tolerated_masters(
    state: &StageState,
    observed: &Observed,
    hosts: &[HostProgress],
    grace: Duration,
) -> Option<Tolerance> {
    let masters = of_role(hosts, names::ROLE_CONTROL_PLANE);
    let object = observed.control_plane.as_ref()?;
    let status = &object.status;
    let owner = (masters.len(), &status.counts, object.metadata.generation, status.conditions.as_slice());
    tolerance(state, observed, &masters, &[owner], grace)
}

fn tolerated_workers(
    state: &StageState,
    observed: &Observed,
    hosts: &[HostProgress],
    grace: Duration,
) -> Option<Tolerance> {
    let workers = of_role(hosts, names::ROLE_WORKER);
    let deployments = observed.deployments.values();
    let owners: Vec<Owner<'_>> = deployments
        .map(|object| (1, &object.status.counts, object.metadata.generation, object.status.conditions.as_slice()))
        .collect();
    (owners.len() == workers.len()).then(|| tolerance(state, observed, &workers, &owners, grace))?
}

/// Until when it is tolerated that nodes of a running cluster are not Ready; `None` if the stage waits for something else, or if it is not known
/// since when they are not. Cluster API writes a Machine first, and counts it afterwards.
fn tolerance(
    state: &StageState,
    observed: &Observed,
    hosts: &[&HostProgress],
    owners: &[Owner<'_>],
    grace: Duration,
) -> Option<Tolerance> {
    let StageState::InProgress { message } = state else { return None };
    if observed.phase != Phase::Running {
        return None;
    }
    let missing: Vec<_> = hosts.iter().filter(|host| host.state != State::Ready).collect();
    let mut since = missing.iter().map(|host| not_ready_since(host, observed)).collect::<Option<Vec<_>>>()?;
    for (wanted, counts, generation, conditions) in owners {
        if !counts.all_exist(*wanted, *generation) {
            return None;
        }
        let machines_ready = Condition::find(conditions, "MachinesReady");
        if missing.is_empty() && !counts.complete(*wanted, *generation) {
            since.push(machines_ready?.since()?);
        } else {
            since.extend(machines_ready.filter(|condition| condition.status != "True").and_then(Condition::since));
        }
    }
    let until = since.into_iter().min()?.checked_add(grace).ok()?;
    let told: Vec<_> = missing.iter().filter(|host| host.state != State::Unknown).map(ToString::to_string).collect();
    Some(Tolerance { until, messages: if told.is_empty() { vec![message.clone()] } else { told } })
}

fn of_role<'a>(hosts: &'a [HostProgress], role: &str) -> Vec<&'a HostProgress> {
    hosts.iter().filter(|host| host.role == role).collect()
}

/// How far the upgrade is; `None` for a cluster that was not upgraded. It comes before the nodes: while a node is upgraded, what is not Ready is
/// part of it.
fn upgraded(
    request: &ProvisioningRequest,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
) -> Option<StageState> {
    let told = request.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let was_upgraded = told.iter().any(|condition| condition.type_ == conditions::UPGRADED);
    match verdict.as_ref().map_or(Next::Nothing, |desired| next(request, desired, observed)) {
        Next::Nothing if was_upgraded && is_mixed(request, observed) => Some(StageState::InProgress {
            message: "the upgrade was left halfway, and hosts run different versions; set k8sVersion to the version that is wanted"
                .to_owned(),
        }),
        Next::Nothing => was_upgraded.then_some(StageState::Done),
        Next::Going { message, .. } => Some(StageState::InProgress { message }),
        Next::Scheduled { message, at } => {
            Some(StageState::Scheduled { reason: reason::WAITING_FOR_WINDOW, message, at })
        }
        Next::Halted { message } => Some(StageState::Blocked { reason: reason::HALTED, message, terminal: true }),
    }
}

/// Whether the Machines have different versions, or another one than their control plane, but for those that an upgrade passes over.
fn is_mixed(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let wanted = observed.control_plane.as_ref().map(|object| object.spec.version.as_str());
    let nodes = observed.machines.iter().filter(|machine| machine.status.node_ref.is_some());
    let nodes = nodes.filter(|machine| !is_passed_over(request, machine, observed));
    nodes.map(|machine| machine.spec.version.as_deref()).any(|version| version != wanted)
}

fn providers(observed: &Observed) -> StageState {
    let Some(message) = missing_providers_message(observed) else { return StageState::Done };
    let is_installed = |missing: &MissingProvider| matches!(missing, MissingProvider::OtherVersions(..));
    let reason = if observed.missing_providers.iter().all(is_installed) {
        reason::PROVIDER_VERSION_NOT_SERVED
    } else {
        reason::PROVIDER_NOT_INSTALLED
    };
    StageState::Blocked { reason, message, terminal: false }
}

/// The message that names the providers that are not installed, and the kinds that are not served in the version that is used; `None` if
/// nothing is missing.
pub fn missing_providers_message(observed: &Observed) -> Option<String> {
    let mut not_installed = Vec::new();
    // By the version that is needed: Cluster API's kinds and BYOH's are used in different ones.
    let mut other_versions: BTreeMap<&str, (BTreeSet<&str>, Vec<String>, bool)> = BTreeMap::new();
    for missing in &observed.missing_providers {
        match missing {
            MissingProvider::NotInstalled(provider) => not_installed.push(*provider),
            MissingProvider::OtherVersions(provider, kind, served) => {
                let (providers, kinds, is_of_cluster_api) = other_versions.entry(kind.version()).or_default();
                providers.insert(*provider);
                kinds.push(format!("{}.{} in {}", kind.plural(), kind.group(), served.join(" and ")));
                *is_of_cluster_api |= !kind.is_of_byoh();
            }
        }
    }
    let mut parts = Vec::new();
    if !not_installed.is_empty() {
        let (are, them) = if not_installed.len() == 1 { ("is", "it") } else { ("are", "them") };
        let providers = not_installed.join(" and ");
        parts.push(format!("{providers} {are} not installed on the management cluster; install {them}"));
    }
    for (version, (providers, kinds, is_of_cluster_api)) in other_versions {
        let providers = providers.into_iter().collect::<Vec<_>>().join(" and ");
        let supported = if is_of_cluster_api {
            format!(" (this operator supports Cluster API {SUPPORTED_RELEASES})")
        } else {
            String::new()
        };
        parts.push(format!(
            "the management cluster serves {}, and this operator needs {version}; install a release of {providers} that serves \
             {version}{supported}",
            kinds.join(", ")
        ));
    }
    (!parts.is_empty()).then(|| format!("{}, then this operator continues", parts.join("; ")))
}

fn validated(verdict: &Result<DesiredCluster, Rejection>) -> StageState {
    match verdict {
        Err(rejection) if !rejection.is_about_hosts => StageState::blocked(rejection),
        _ => StageState::Done,
    }
}

fn hosts_reserved(verdict: &Result<DesiredCluster, Rejection>, hosts: &[HostProgress]) -> StageState {
    match verdict {
        Err(rejection) => StageState::blocked(rejection),
        Ok(_) if all_held(hosts) => StageState::Done,
        Ok(_) => {
            let held = hosts.iter().filter(|host| host.held).count();
            StageState::InProgress { message: format!("claiming hosts: {held} of {} are held", hosts.len()) }
        }
    }
}

fn control_plane(
    request: &ProvisioningRequest,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
    hosts: &[HostProgress],
) -> StageState {
    if observed.phase == Phase::Lost {
        return lost_cluster(request, observed);
    }
    if let Some(message) = tear_down_message(observed) {
        return StageState::InProgress { message };
    }
    if observed.is_created && observed.control_plane.is_none() {
        let namespace = request.namespace().unwrap_or_default();
        let message = format!(
            "KubeadmControlPlane {} was deleted, not by this operator, and cannot be created again for a running cluster. The nodes keep \
             running, but failed masters are not replaced. Back up what you need, delete this request ({}), then create a new request",
            names::control_plane(&namespace, &observed.cluster_name),
            hosts_after_deletion(observed)
        );
        return StageState::Blocked { reason: reason::CONTROL_PLANE_LOST, message, terminal: true };
    }
    let (Some(cluster), Some(control_plane)) = (observed.own_cluster(), &observed.control_plane) else {
        let name = &observed.cluster_name;
        let in_use = observed.held().find_map(|host| Some(format!("{} {}", host.display(), host.in_use_reason()?)));
        let message = in_use.map_or_else(
            || format!("creating the objects of Cluster {name}"),
            |in_use| format!("creation of Cluster {name} waits: {in_use}"),
        );
        return StageState::InProgress { message };
    };
    if let Some(message) = control_plane_loss(observed, control_plane) {
        return StageState::Blocked { reason: reason::CONTROL_PLANE_LOST, message, terminal: true };
    }
    let masters = of_role(hosts, names::ROLE_CONTROL_PLANE);
    let desired = verdict.as_ref().ok();
    let change = desired.and_then(|desired| masters::message(request, desired, observed));
    // Not Blocked: a failed host can recover until the time limit.
    if let Some(message) = first_failure(&masters) {
        return StageState::InProgress {
            message: text::list(&change.into_iter().chain([message]).collect::<Vec<_>>(), "; "),
        };
    }
    let is_unknown = |host: &&HostProgress| host.state == State::Unknown;
    if let Some(probe) = observed.lost_connection().filter(|_| masters.iter().any(is_unknown)) {
        let message = format!(
            "Cluster API cannot connect to Cluster {} ({}), so the states of its nodes are not known; {}",
            cluster.name_any(),
            probe.explain(),
            what_to_check(cluster, &masters)
        );
        return StageState::InProgress { message };
    }
    let expected = desired.map_or(masters.len(), |desired| masters::expected(request, desired, observed));
    let all_ready = control_plane.status.counts.complete(expected, control_plane.metadata.generation);
    let all_up = masters.iter().all(|host| host.state == State::Ready);
    let message = match change {
        None if all_ready && all_up => return StageState::Done,
        None => waits_for(cluster, control_plane, &masters),
        Some(change) => {
            let host = (!all_up).then(|| waits_for(cluster, control_plane, &masters));
            text::list(&[vec![change], host.into_iter().collect(), held_up(observed)].concat(), "; ")
        }
    };
    StageState::InProgress { message }
}

/// Why the Cluster is being deleted although its request is not, if it is.
fn tear_down_message(observed: &Observed) -> Option<String> {
    let name = &observed.cluster_name;
    match observed.phase {
        Phase::Creating => interrupted(observed).map(|(kind, part)| {
            format!(
                "{} {part} is being deleted, not by this operator, before the creation of Cluster {name} has finished. No node runs yet; this \
                 operator deletes the Cluster and creates it again",
                kind.name()
            )
        }),
        Phase::TearingDown if !observed.is_created => Some(format!(
            "Cluster {name} is being deleted, because a part of it was deleted, not by this operator, before its creation had finished; this \
             operator creates it again when the deletion is finished"
        )),
        Phase::Deleting if !observed.is_created => Some(format!(
            "Cluster {name} is being deleted, not by this operator, before its creation has finished; this operator creates it again when the \
             deletion is finished"
        )),
        Phase::TearingDown => Some(format!(
            "Cluster {name} is being deleted, because of this request's annotation {}",
            names::CLEAN_ANNOTATION
        )),
        Phase::Deleting => Some(format!(
            "Cluster {name} is being deleted, not by this operator ({}). When the Cluster is gone and its hosts are not in use any more, this \
             operator creates it again",
            hosts_after_deletion(observed)
        )),
        _ => None,
    }
}

/// What becomes of the hosts of a deleted cluster, for messages.
fn hosts_after_deletion(observed: &Observed) -> &'static str {
    match observed.known_install().map(|install| install.method) {
        Some(InstallMethod::Installer | InstallMethod::Bundle) => "the agents clean the hosts",
        Some(InstallMethod::None) => {
            "with install.method none the nodes keep running: run \"kubeadm reset\" on each server"
        }
        None => "the agents clean the hosts, except with install.method none",
    }
}

/// What a control plane waits for whose replicas are not all Ready.
fn waits_for(cluster: &Cluster, control_plane: &KubeadmControlPlane, masters: &[&HostProgress]) -> String {
    let name = control_plane.name_any();
    if let Some(cause) = cause(control_plane, masters) {
        return format!("KubeadmControlPlane {name}: {cause}");
    }
    if let Some(waiting) = masters.iter().find(|host| host.state != State::Ready) {
        return waiting.to_string();
    }
    let (counts, generation) = (&control_plane.status.counts, control_plane.metadata.generation);
    if let Some(message) = changing(Kind::KubeadmControlPlane, &name, counts, masters.len(), generation) {
        return message;
    }
    // While the cluster's API server does not answer, Cluster API keeps the last conditions of its Machines for five minutes
    // (--remote-conditions-grace-period). Until then the message says what to check.
    format!(
        "waiting for KubeadmControlPlane {name}: {} of {} replicas ready; if this does not change, {}",
        control_plane.status.counts.ready_replicas,
        masters.len(),
        what_to_check(cluster, masters)
    )
}

/// What Cluster API does with an object whose `wanted` nodes are all Ready.
fn changing(kind: Kind, name: &str, counts: &ReplicaStatus, wanted: usize, generation: Option<i64>) -> Option<String> {
    let kind = kind.name();
    if usize::try_from(counts.ready_replicas) != Ok(wanted) {
        return None;
    }
    Some(if counts.observed_generation < generation {
        format!(
            "waiting for Cluster API to report on the last change of {kind} {name}; if this does not change, check that its controllers run"
        )
    } else {
        format!(
            "waiting for {kind} {name}: {} of {wanted} replicas ready, of {} in all, {} of them up to date",
            counts.ready_replicas, counts.replicas, counts.up_to_date_replicas
        )
    })
}

/// A cause that no host shows; most conditions repeat that replicas are not Ready.
fn cause(control_plane: &KubeadmControlPlane, masters: &[&HostProgress]) -> Option<String> {
    let conditions = &control_plane.status.conditions;
    let certificates = Condition::find(conditions, "CertificatesAvailable")
        .filter(|condition| condition.status != "True" && !condition.explain().is_empty());
    if let Some(condition) = certificates {
        return Some(format!("{}: {}", condition.type_, condition.explain()));
    }
    // While a host bootstraps, another one rightly waits for it.
    let lacks_machine = masters.iter().all(|host| matches!(host.state, State::Ready | State::Reserved));
    let blocked = Condition::find(conditions, "ScalingUp")
        .filter(|condition| lacks_machine && condition.status == "True" && condition.message.contains("blocked"))?;
    Some(format!("{}: {}", blocked.type_, one_line(&blocked.message)))
}

/// What to check when the API server of the cluster does not seem to answer.
fn what_to_check(cluster: &Cluster, masters: &[&HostProgress]) -> String {
    let endpoint = cluster.spec.control_plane_endpoint.as_ref();
    let api = endpoint.map(|at| format!("{}:{}", at.host, at.port)).unwrap_or_default();
    let subject =
        if let [master] = masters { format!("{} is", master.requested) } else { "every master is".to_owned() };
    format!("check that {subject} up and that the cluster's API answers at {api}")
}

/// The state while the Cluster is lost: what is left, and what the request's owner can do.
fn lost_cluster(request: &ProvisioningRequest, observed: &Observed) -> StageState {
    let name = &observed.cluster_name;
    let id = lost_id(request, observed);
    let what = what_is_left(observed);
    let paused: Vec<_> = observed.in_service().filter(|host| host.is_paused()).map(MarkedHost::display).collect();
    let paused = if paused.is_empty() {
        String::new()
    } else {
        format!(
            " (paused: {}; BYOH removes that pause when Cluster and Machines exist again)",
            text::list(&paused, ", ")
        )
    };
    let how_to_keep = how_to_keep(request, observed, &id);
    let how_to_replace = if observed.runs_nodes() {
        format!("to tear down the cluster ({}) and create a new one", hosts_after_deletion(observed))
    } else {
        "to create a new cluster, run \"kubeadm reset\" on each of its servers, then".to_owned()
    };
    let ineffective = ineffective(request, observed).map_or_else(String::new, |text| format!("; {text}"));
    StageState::Blocked {
        reason: reason::CLUSTER_MISSING,
        message: format!(
            "Cluster {name} is gone, but this request is not being deleted; {what}{paused}. This operator changes nothing until you decide. \
             {how_to_keep}; {how_to_replace}: {}{ineffective}",
            command(request, observed, names::CLEAN_ANNOTATION, &id)
        ),
        terminal: true,
    }
}

fn what_is_left(observed: &Observed) -> String {
    let hosts: Vec<_> = observed.in_service().map(MarkedHost::display).collect();
    if !observed.runs_nodes() {
        let name = &observed.cluster_name;
        format!(
            "no Machine and no attached ByoHost of cluster {name} is left, but its nodes may still run on the servers"
        )
    } else if hosts.is_empty() {
        "its Machines still exist".to_owned()
    } else {
        format!("its nodes run on {}", text::list(&hosts, ", "))
    }
}

/// The part of the message that says how to keep the cluster; it does not end with a full stop.
fn how_to_keep(request: &ProvisioningRequest, observed: &Observed, id: &str) -> String {
    if can_be_restored(observed) {
        let command = command(request, observed, names::RESTORE_ANNOTATION, id);
        return format!(
            "To keep the cluster, let this operator create the Cluster object again for the existing KubeadmControlPlane and ByoCluster: \
             {command}"
        );
    }
    if !observed.runs_nodes() {
        return "To keep the cluster, restore its objects from a backup: first the ByoHosts, with their status and with \
                annotation cluster.x-k8s.io/paused, then the others. This operator then manages them again; no annotation on this request is \
                needed"
            .to_owned();
    }
    let deleting: Vec<_> = observed.owned.iter().filter(|(_, part)| part.deleting).map(|(part, _)| part).collect();
    if deleting.is_empty() {
        return "To keep the cluster, restore its Cluster, KubeadmControlPlane and ByoCluster from a backup, or move them back with clusterctl \
                move. This operator then manages them again; no annotation on this request is needed"
            .to_owned();
    }
    let parts: Vec<_> = deleting.iter().map(|(kind, name)| format!("{} {name}", kind.name())).collect();
    let way = if deleting.iter().any(|(kind, _)| *kind == Kind::KubeadmControlPlane) {
        "The cluster cannot be kept, so back up what you need"
    } else {
        "To keep the rest of the cluster, back up what you need from the servers of these Machines, then restore the Cluster from a backup"
    };
    format!(
        "The deletion of {} cannot be undone: it continues as soon as a Cluster of this name exists, and Cluster API then deletes the Machines \
         of these objects. {way}",
        parts.join(", ")
    )
}

/// Why the control plane cannot be kept: its KubeadmControlPlane is being deleted, or its last master is deleted or being deleted.
fn control_plane_loss(observed: &Observed, control_plane: &KubeadmControlPlane) -> Option<String> {
    if !observed.is_created || !control_plane.is_initialized() {
        return None;
    }
    if control_plane.metadata.deletion_timestamp.is_some() {
        return Some(format!(
            "KubeadmControlPlane {} is being deleted, not by this operator. This cannot be undone: Cluster API deletes it and its masters once \
             no worker is left. Back up what you need, then delete this request",
            control_plane.name_any()
        ));
    }
    let is_running_master = |machine: &Arc<Machine>| {
        machine.is_master() && machine.was_a_node() && machine.metadata.deletion_timestamp.is_none()
    };
    if observed.machines.iter().any(is_running_master) || observed.in_service().any(MarkedHost::is_held_as_master) {
        return None;
    }
    Some(format!(
        "the last master of cluster {} is deleted or being deleted, and a stacked etcd with it; neither Cluster API nor this operator can \
         create them again. Back up what you need from the workers, delete this request ({}), then create a new request",
        observed.cluster_name,
        hosts_after_deletion(observed)
    ))
}

fn workers(request: &ProvisioningRequest, observed: &Observed, hosts: &[HostProgress]) -> StageState {
    let workers = of_role(hosts, names::ROLE_WORKER);
    if observed.own_cluster().is_none() {
        return StageState::Waiting;
    }
    // Not Blocked: see `control_plane`.
    if let Some(message) = first_failure(&workers) {
        return StageState::InProgress { message };
    }
    if let Some(host) = workers.iter().find(|host| host.state != State::Ready) {
        return StageState::InProgress { message: host.to_string() };
    }
    let not_ready =
        observed.deployments.values().find(|object| !object.status.counts.complete(1, object.metadata.generation));
    if let Some(deployment) = not_ready {
        let (name, counts) = (deployment.name_any(), &deployment.status.counts);
        let message = changing(Kind::MachineDeployment, &name, counts, 1, deployment.metadata.generation)
            .unwrap_or_else(|| {
                format!("waiting for MachineDeployment {name}: {} of 1 replicas ready", counts.ready_replicas)
            });
        return StageState::InProgress { message };
    }
    let existing = observed.deployments.len() + unmanaged_workers(observed).count();
    // Workers that a restored request does not name are kept.
    let keeps_more = !may_remove_hosts(request, observed);
    if existing == workers.len() || existing > workers.len() && keeps_more {
        StageState::Done
    } else {
        let (name, wanted) = (&observed.cluster_name, workers.len());
        let scaling = format!("scaling cluster {name} from {existing} to {wanted} workers");
        StageState::InProgress { message: text::list(&[vec![scaling], held_up(observed)].concat(), "; ") }
    }
}

/// The first host with a failure.
fn first_failure(hosts: &[&HostProgress]) -> Option<String> {
    hosts.iter().find(|host| host.state == State::Failed).map(ToString::to_string)
}
