//! What an upgrade looks at before it goes on with the next host, whatever is done to that.

use cluster_api::conditions::Condition;
use cluster_api::control_plane::KubeadmControlPlane;
use cluster_api::machine::Machine;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::PauseAfter;
use o2ims_types::{ProvisioningRequest, names};

use super::hop::is_passed_over;
use super::member::Member;
use super::window;
use crate::provisioner::byoh::desired::DesiredCluster;
use crate::provisioner::byoh::give_up;
use crate::provisioner::byoh::masters;
use crate::provisioner::byoh::observed::Observed;
use crate::request::annotation_command;

/// The hosts of the request that are nodes, masters first, without those that the upgrade passes over.
pub fn members<'a>(
    request: &ProvisioningRequest,
    desired: &'a DesiredCluster,
    control_plane: &'a KubeadmControlPlane,
    observed: &'a Observed,
) -> Vec<Member<'a>> {
    let is_lost = |name: &str| observed.node(name).is_some_and(|machine| is_passed_over(request, machine, observed));
    let first = desired.masters.iter().map(|master| master.name.as_str()).find(|name| !is_lost(name));
    let misses_master = desired.masters.iter().any(|master| is_lost(&master.name));
    let nodes = desired.hosts().filter_map(|(requested, role)| {
        let host = observed.host(&requested.name).filter(|host| observed.holds(host))?;
        let machine = observed.node(&requested.name).filter(|_| !is_lost(&requested.name))?;
        let is_first = first == Some(&requested.name);
        Some(Member { desired, control_plane, requested, role, host, machine, is_first, misses_master })
    });
    nodes.collect()
}

/// That a host of the request is a node, and that the request does not hold its ByoHost.
pub fn hostless(desired: &DesiredCluster, observed: &Observed) -> Option<String> {
    let is_held = |name: &str| observed.host(name).is_some_and(|host| observed.holds(host));
    let mut hosts = desired.hosts().map(|(requested, _)| requested);
    let requested = hosts.find(|requested| observed.node(&requested.name).is_some() && !is_held(&requested.name))?;
    Some(format!("{requested} is a node, but its ByoHost is gone or is not held"))
}

/// Why the upgrade does not go on with this host yet, and what to do, if the template wants it to wait here.
pub fn pause_before(
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
        let upgrade = &member.desired.template.spec.upgrade;
        let at_once = if upgrade.windows.is_empty() { "" } else { ", at once and whatever spec.upgrade.windows says," };
        format!(
            "spec.upgrade.pauseAfter of the ClusterTemplate is {:?}; to go on{at_once} with this host: {this_host}; with every host: {all}",
            upgrade.pause_after
        )
    })
}

/// The window that the upgrade waits for before this host, and when it begins, unless the owner has said that it does not wait.
pub fn window_before(
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

/// Why the next host must wait: the cluster could not do without it.
pub fn unhealthy(request: &ProvisioningRequest, members: &[Member<'_>], observed: &Observed) -> Option<String> {
    let is_lost = |machine: &Machine| is_passed_over(request, machine, observed);
    let misses_master = observed.machines.iter().any(|machine| machine.is_master() && is_lost(machine));
    // The conditions of the control plane name a master that is passed over too: the others are judged one by one then.
    let unhealthy = if misses_master && observed.lost_connection().is_none() {
        masters::unhealthy_but(observed, is_lost)
    } else {
        unhealthy_control_plane(observed)
    };
    if unhealthy.is_some() {
        return unhealthy;
    }
    let member = members.iter().find(|member| !is_healthy(member.machine));
    if let Some(member) = member {
        return Some(format!("the node of {} is not Ready", member.requested));
    }
    let leaving = observed.machines.iter().find(|machine| machine.metadata.deletion_timestamp.is_some());
    leaving.map(|machine| format!("Machine {} is being deleted", machine.name_any()))
}

fn is_healthy(machine: &Machine) -> bool {
    Condition::is_true(&machine.status.conditions, "NodeHealthy")
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

/// What to do if the servers of nodes that do not answer do not come back; empty if all answer, or if the cluster cannot do without them.
pub fn advice(request: &ProvisioningRequest, members: &[Member<'_>]) -> String {
    let is_silent = |member: &&Member<'_>| give_up::is_silent(member.machine);
    let masters = members.first().map_or(0, |member| member.desired.masters.len());
    let answering = members.iter().filter(|member| member.is_master() && !is_silent(member)).count();
    let silent: Vec<_> = members.iter().filter(is_silent).map(|member| member.requested.name.as_str()).collect();
    if silent.is_empty() || 2 * answering <= masters {
        return String::new();
    }
    let all = give_up::named_and(request, &silent);
    let command = annotation_command(request, names::LOST_HOSTS_ANNOTATION, &format!("={all}"));
    format!(
        "; if {} does not come back, switch it off, then have the upgrade pass over it: {command}",
        silent.join(" or ")
    )
}
