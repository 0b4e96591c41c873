//! How far each host of a request is: from its ByoHost and its Machine. Pure.

use std::fmt;

use std::sync::Arc;

use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use cluster_api::conditions::{Condition, one_line};
use cluster_api::machine::Machine;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::InstallMethod;
use o2ims_types::{HostRef, ProvisioningRequest, names};

use super::consent::may_remove_hosts;
use super::desired::{DesiredCluster, RequestedHost};
use super::give_up;
use super::machine_deletion::deletion_of;
use super::marks::MarkedHost as _;
use super::observed::Observed;
use super::upgrade::version::is_same;
use crate::provisioner::report::HOST_FAILED;
use crate::request::requested_hosts;

/// Condition of a Machine: its Node is Ready.
const NODE_HEALTHY: &str = "NodeHealthy";
/// What kubeadm says when the cluster does not know the token of a join, or its API server is not the expected one.
const UNKNOWN_TOKEN: &str = "couldn't validate the identity of the API Server";

/// One host of the request.
#[derive(Clone, Debug)]
pub struct HostProgress {
    /// As the request names it.
    pub requested: RequestedHost,
    /// What it is for.
    pub role: &'static str,
    /// This request holds it.
    pub held: bool,
    /// The request does not name it any more, but it is not released yet.
    pub removed: bool,
    /// How far it is.
    pub state: State,
    /// Why it is not Ready, if that is known.
    pub message: String,
}

/// How far a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not held, and not known to be in use.
    Free,
    /// Its ByoHost does not exist, or another request holds it, or it is in use, or its agent does not answer.
    Unavailable,
    /// Held; not attached to a machine yet.
    Reserved,
    /// Its agent makes it a node.
    Bootstrapping,
    /// It is a node.
    Joined,
    /// Its node is Ready at the requested version.
    Ready,
    /// It is a node of a cluster that Cluster API cannot connect to.
    Unknown,
    /// Its agent reported a failure, or does not answer.
    Failed,
    /// Its agent removes the node.
    Cleaning,
}

impl State {
    /// As it stands in the status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "Free",
            Self::Unavailable => "Unavailable",
            Self::Reserved => "Reserved",
            Self::Bootstrapping => "Bootstrapping",
            Self::Joined => "Joined",
            Self::Ready => "Ready",
            Self::Unknown => "Unknown",
            Self::Failed => HOST_FAILED,
            Self::Cleaning => "Cleaning",
        }
    }
}

impl fmt::Display for HostProgress {
    /// `host 1 (target-1): ...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = if self.message.is_empty() { self.state.name() } else { &self.message };
        write!(f, "{}: {told}", self.requested)
    }
}

/// Every host of the request, masters first.
pub fn progress_of_all(
    request: &ProvisioningRequest,
    valid: Option<&DesiredCluster>,
    observed: &Observed,
) -> Vec<HostProgress> {
    let version = valid
        .map(|valid| valid.version.clone())
        .or_else(|| observed.control_plane.as_ref().map(|object| object.spec.version.clone()))
        .unwrap_or_default();
    let target = valid.and_then(|valid| valid.target.clone());
    let versions: Vec<_> = [Some(version), target].into_iter().flatten().collect();
    let mut all: Vec<_> = requested_hosts(request).map(|(host, role)| view(host, role, &versions, observed)).collect();
    let removed: Vec<_> = observed
        .held()
        .filter(|host| !all.iter().any(|view| view.requested.name == host.name_any()))
        .map(|host| removed(request, host, &versions, observed))
        .collect();
    all.extend(removed);
    for view in all.iter_mut().filter(|view| view.state == State::Cleaning) {
        view.message.push_str(&give_up::advice(request, observed.host(&view.requested.name).into_iter(), observed));
    }
    all
}

/// A host that the request does not name and that is not released yet.
fn removed(request: &ProvisioningRequest, host: &ByoHost, versions: &[String], observed: &Observed) -> HostProgress {
    // A master that leaves has no label of a role any more.
    let is_worker = host.labels().get(names::ROLE_LABEL).is_some_and(|role| role == names::ROLE_WORKER);
    let role = if is_worker { names::ROLE_WORKER } else { names::ROLE_CONTROL_PLANE };
    let machine = observed.machine_of(host);
    let is_running_master =
        machine.is_some_and(|machine| machine.is_master() && machine.metadata.deletion_timestamp.is_none());
    let (state, message) = match (may_remove_hosts(request, observed), is_running_master) {
        (true, false) => (State::Cleaning, leaving(host, observed)),
        (true, true) => (progress(host, role, machine, versions, observed).0, "leaves the control plane".to_owned()),
        (false, _) => progress(host, role, machine, versions, observed),
    };
    HostProgress {
        requested: RequestedHost { id: host.host_id().unwrap_or_default().to_owned(), name: host.name_any() },
        role,
        held: true,
        removed: true,
        state,
        message,
    }
}

/// What the removal of a host waits for.
fn leaving(host: &ByoHost, observed: &Observed) -> String {
    let machine = observed.machine_of(host).filter(|machine| machine.metadata.deletion_timestamp.is_some());
    machine.map(deletion_of).or_else(|| host.in_use_reason()).unwrap_or_else(|| "is being released".to_owned())
}

fn view(reference: &HostRef, role: &'static str, versions: &[String], observed: &Observed) -> HostProgress {
    let requested = RequestedHost { id: reference.id(), name: reference.name().to_owned() };
    let host = observed.host(&requested.name);
    let held = host.is_some_and(|host| observed.holds(host));
    // The Machine of a running node is reported also when its ByoHost is gone or has lost its mark.
    if let Some(machine) = observed.node(&requested.name).filter(|_| !held && observed.is_created) {
        let (state, message) = health(machine, &requested.name, versions, observed);
        return HostProgress { requested, role, held: true, removed: false, state, message };
    }
    let (state, message) = match host {
        None => (State::Unavailable, "is not registered".to_owned()),
        Some(host) if !held => match host.holder() {
            Some(_) => (State::Unavailable, host.held_reason()),
            None => host
                .busy_reason()
                .or_else(|| host.not_alive_reason())
                .map_or((State::Free, String::new()), |why| (State::Unavailable, why)),
        },
        Some(host) => progress(host, role, observed.machine_of(host), versions, observed),
    };
    HostProgress { requested, role, held, removed: false, state, message }
}

/// What a host waits for that is not attached to a Machine.
fn waits_for(host: &ByoHost, role: &str, observed: &Observed) -> String {
    let is_worker = role == names::ROLE_WORKER;
    if is_worker && !observed.control_plane.as_ref().is_some_and(|object| object.is_initialized()) {
        return "waits for the control plane".to_owned();
    }
    let namespace = host.namespace().unwrap_or_default();
    let (kind, owner) = if is_worker {
        (Kind::MachineDeployment, names::worker(&namespace, &observed.cluster_name, &host.name_any()))
    } else {
        (Kind::KubeadmControlPlane, names::control_plane(&namespace, &observed.cluster_name))
    };
    let is_meant = |machine: &Arc<Machine>| {
        let is_owned = if is_worker { machine.deployment() == Some(owner.as_str()) } else { machine.is_master() };
        is_owned && machine.server().is_none()
    };
    if observed.machines.iter().any(is_meant) {
        return "waits to be attached to a machine".to_owned();
    }
    // Why Cluster API creates none is in its events only.
    format!(
        "waits for Cluster API to create a Machine; if this does not change, kubectl describe {} {owner} -n {namespace} says why",
        kind.name().to_lowercase()
    )
}

/// How far a host is that the request holds.
fn progress(
    host: &ByoHost,
    role: &str,
    machine: Option<&Machine>,
    versions: &[String],
    observed: &Observed,
) -> (State, String) {
    if host.is_unregistering() {
        return (State::Cleaning, "is being cleaned by its agent".to_owned());
    }
    let Some(machine) = machine else {
        // A dead agent is reported before its host is needed: nothing else would show it.
        if let Some(dead) = host.not_alive_reason() {
            return (State::Failed, dead);
        }
        let own = observed.own_cluster().is_some_and(|cluster| host.is_attached_to(&cluster.name_any()));
        return match host.in_use_reason() {
            Some(_) if own => (State::Bootstrapping, "is being attached to its machine".to_owned()),
            Some(busy) => (State::Reserved, busy),
            None => (State::Reserved, waits_for(host, role, observed)),
        };
    };
    if machine.metadata.deletion_timestamp.is_some() {
        return (State::Cleaning, deletion_of(machine));
    }
    if machine.status.node_ref.is_none() {
        if let Some(failure) = host.failure() {
            let hint = lost_token(&failure, machine);
            return (State::Failed, format!("{failure}{hint}"));
        }
        if let Some(failure) = machine_failure(machine).or_else(|| host.not_alive_reason()) {
            return (State::Failed, failure);
        }
        let message = if host.bootstrapped() {
            "its bootstrap script has run; waiting for its node to appear".to_owned()
        } else if host.spec.installation_secret.is_some() && !host.installed() {
            "its agent has been given the install script and has not reported back yet".to_owned()
        } else if host.waits_for_installer() {
            waits_for_installer(host, observed.install().method)
        } else {
            "its agent has been given the bootstrap script and has not reported back yet".to_owned()
        };
        return (State::Bootstrapping, message);
    }
    health(machine, &host.name_any(), versions, observed)
}

/// Why a Machine has failed for good, if it has: Cluster API makes no second ByoMachine for it.
fn machine_failure(machine: &Machine) -> Option<String> {
    let deleted = Condition::find(&machine.status.conditions, "InfrastructureReady")
        .filter(|condition| condition.status == "False" && condition.reason == "ObjectDeleted")?;
    Some(format!("its Machine {} has failed: {}", machine.name_any(), one_line(&deleted.message)))
}

/// What to do about a join whose token does not exist any more. Cluster API renews the token of a node that has not joined, and makes no second one
/// for it once it is lost (`refreshBootstrapTokenIfNeeded` of the KubeadmConfig controller).
fn lost_token(failure: &str, machine: &Machine) -> String {
    if !failure.contains(UNKNOWN_TOKEN) {
        return String::new();
    }
    let remedy = if machine.is_master() {
        format!("delete Machine {}; Cluster API creates another one", machine.name_any())
    } else {
        "remove the host from the request, and add it again when it is released".to_owned()
    };
    format!(
        ". If the cluster's API answers, the join token is lost: it lives for 15 minutes, and Cluster API does not renew it while it is paused, does not \
         run or cannot connect to the cluster. Then {remedy}"
    )
}

/// How a Machine is that has become a node. It has one of `versions`: that of the cluster, or the one that the cluster is upgraded to.
fn health(machine: &Machine, host: &str, versions: &[String], observed: &Observed) -> (State, String) {
    let Some(node) = &machine.status.node_ref else { return (State::Bootstrapping, String::new()) };
    if node.name != host {
        return (State::Failed, format!("its Machine {} has become node {}", machine.name_any(), node.name));
    }
    if let Some(failure) = machine_failure(machine) {
        return (State::Failed, failure);
    }
    if observed.lost_connection().is_some() {
        let message = "the state of its node is not known: Cluster API cannot connect to the cluster";
        return (State::Unknown, message.to_owned());
    }
    if !Condition::is_true(&machine.status.conditions, NODE_HEALTHY) {
        let unhealthy = Condition::find(&machine.status.conditions, NODE_HEALTHY);
        let why = unhealthy.map(Condition::explain).unwrap_or_default();
        let unapplied = observed.unapplied.as_ref().map_or_else(String::new, |message| format!("; {message}"));
        let since = unhealthy.and_then(Condition::since).map(|since| format!(" since {since}")).unwrap_or_default();
        let remedy = unhealthy.filter(|condition| condition.status == "Unknown").map(|_| remedy(machine));
        return (
            State::Joined,
            format!("its node is not Ready{since}: {why}{}{unapplied}", remedy.unwrap_or_default()),
        );
    }
    let running = &machine.status.node_info.kubelet_version;
    if !versions.iter().any(|version| is_same(version, running)) {
        let plain = |version: &str| version.split('+').next().unwrap_or_default().to_owned();
        let (running, wanted) = (plain(running), plain(versions.first().map_or("", String::as_str)));
        return (State::Joined, format!("its node runs Kubernetes {running}, the cluster has {wanted}"));
    }
    (State::Ready, String::new())
}

/// What to do about a node that does not answer.
fn remedy(machine: &Machine) -> &'static str {
    if machine.is_master() {
        "; switch its server on, or repair it"
    } else {
        "; switch its server on, repair it, or remove the host from hosts.workers"
    }
}

/// Since when the node of a host is not Ready, of a host that has become a node of the cluster.
pub fn not_ready_since(host: &HostProgress, observed: &Observed) -> Option<Timestamp> {
    let machine = observed.node(&host.requested.name)?;
    match host.state {
        State::Unknown => observed.lost_connection()?.since(),
        State::Joined => Condition::find(&machine.status.conditions, NODE_HEALTHY)
            .filter(|condition| condition.status != "True")?
            .since(),
        _ => None,
    }
}

fn waits_for_installer(host: &ByoHost, method: InstallMethod) -> String {
    let waits = "its agent waits for";
    match method {
        InstallMethod::Installer => format!("{waits} the install script"),
        InstallMethod::None => {
            format!("{waits} an installer; with install.method none it has to be started with --skip-installation")
        }
        InstallMethod::Bundle => {
            let system = host.status.host_info.as_ref().map(|info| info.os_image.as_str()).unwrap_or_default();
            format!(
                "{waits} BYOH's install script, which BYOH makes for the systems of its bundles only; this is {system}"
            )
        }
    }
}

/// Whether the request holds every host that it names.
pub fn all_held(hosts: &[HostProgress]) -> bool {
    !hosts.is_empty() && hosts.iter().all(|host| host.held)
}
