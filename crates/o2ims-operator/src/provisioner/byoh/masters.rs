//! Masters that are added, removed and exchanged. Cluster API knows a number of masters only, and chooses by itself which Machine goes and which host
//! a new one gets. This policy leaves it one choice:
//!
//! * the role label is on hosts that may become masters, and on no other: BYOH goes by it;
//! * a Machine whose host is to go has the annotation `delete-machine`: Cluster API takes it first when the number is lowered;
//! * where the number stays, the Machine is deleted, and Cluster API creates another one, which gets the host that was added.
//!
//! Masters come before others go. The last of a control plane is exchanged by way of three masters, as etcd's members are odd in number. Everything is
//! derived from Machines and hosts, so the request may be edited at any time.

use std::collections::BTreeMap;

use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use cluster_api::conditions::Condition;
use cluster_api::control_plane::KubeadmControlPlane;
use cluster_api::labels::DELETE_MACHINE_ANNOTATION;
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::ProvisioningRequest;
use operator_kit::text;
use serde_json::{Value, json};

use super::claim;
use super::consent::may_remove_hosts;
use super::desired::{DesiredCluster, RequestedHost};
use super::manifests::control_plane::NODE_DELETION_SECONDS;
use super::marks::MarkedHost as _;
use super::observed::Observed;
use super::upgrade::hop::{QUORUM_SIZE, is_replaced};
use crate::provisioner::step::Step;

/// The value of [`DELETE_MACHINE_ANNOTATION`] that the operator sets, and removes again. One that a user has set stays.
const BY_OPERATOR: &str = "o2ims-operator";
/// Cluster API's conditions of a master's Machine, as its own checks before a change of the control plane read them.
const HEALTH: [&str; 5] = [
    "APIServerPodHealthy",
    "ControllerManagerPodHealthy",
    "SchedulerPodHealthy",
    "EtcdPodHealthy",
    "EtcdMemberHealthy",
];

/// The masters of a running cluster, and those that its request names.
struct Masters<'a> {
    desired: &'a DesiredCluster,
    observed: &'a Observed,
    control_plane: &'a KubeadmControlPlane,
    /// An edit of the request may remove hosts.
    may_remove: bool,
    /// The number of masters that Cluster API is asked for.
    replicas: usize,
    /// Those that are not being deleted.
    live: Vec<Master<'a>>,
    /// Those that are being deleted.
    deleting: Vec<&'a Machine>,
}

/// A Machine of the control plane.
#[derive(Clone, Copy)]
struct Master<'a> {
    machine: &'a Machine,
    /// The host that it has, once it has one.
    host: Option<&'a str>,
}

impl Master<'_> {
    /// Why it does not count as a healthy member of the control plane.
    fn unhealthy(&self) -> Option<String> {
        let conditions = &self.machine.status.conditions;
        if !self.machine.was_a_node() {
            return Some(format!("{} is no node yet", self.display()));
        }
        if !Condition::is_true(conditions, "NodeHealthy") {
            return Some(format!("the node of {} is not Ready", self.display()));
        }
        let failed = HEALTH.into_iter().filter_map(|type_| Condition::find(conditions, type_));
        let failed = failed.filter(|condition| condition.status != "True");
        let mut told = failed.map(|condition| {
            format!("{} of Machine {}: {}", condition.type_, self.machine.name_any(), condition.explain())
        });
        told.next()
    }

    fn display(&self) -> String {
        self.host.map_or_else(|| format!("Machine {}", self.machine.name_any()), ToOwned::to_owned)
    }

    fn is_annotated(&self) -> bool {
        self.machine.annotations().contains_key(DELETE_MACHINE_ANNOTATION)
    }

    fn annotate(&self, value: Option<&str>) -> Step {
        Step::Annotate {
            kind: Kind::Machine,
            name: self.machine.name_any(),
            uid: self.machine.uid().unwrap_or_default(),
            resource_version: self.machine.resource_version(),
            annotations: BTreeMap::from([(DELETE_MACHINE_ANNOTATION.to_owned(), value.map(ToOwned::to_owned))]),
        }
    }
}

/// The host of a master: that which BYOH has attached, or else its node.
fn host_of<'a>(machine: &'a Machine, observed: &'a Observed) -> Option<&'a str> {
    let name = &machine.spec.infrastructure_ref.name;
    let attached = observed.hosts.iter().find(|(_, host)| host.attached_machine() == Some(name));
    attached.map(|(name, _)| name.as_str()).or_else(|| machine.server())
}

impl<'a> Masters<'a> {
    /// `None` while there is no control plane, or it is being deleted.
    fn of(request: &ProvisioningRequest, desired: &'a DesiredCluster, observed: &'a Observed) -> Option<Self> {
        let control_plane = observed.control_plane.as_ref()?;
        if control_plane.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let machines = observed.machines.iter().map(AsRef::as_ref).filter(|machine| machine.is_master());
        let (deleting, live): (Vec<_>, Vec<_>) =
            machines.partition(|machine| machine.metadata.deletion_timestamp.is_some());
        Some(Self {
            desired,
            observed,
            control_plane,
            may_remove: may_remove_hosts(request, observed),
            replicas: control_plane.spec.replicas.and_then(|count| usize::try_from(count).ok()).unwrap_or_default(),
            live: live.into_iter().map(|machine| Master { machine, host: host_of(machine, observed) }).collect(),
            deleting,
        })
    }

    fn wanted(&self) -> usize {
        self.desired.masters.len()
    }

    fn is_wanted(&self, host: &str) -> bool {
        self.desired.masters.iter().any(|wanted| wanted.name == host)
    }

    /// Masters whose host the request does not name as one.
    fn unnamed(&self) -> impl Iterator<Item = Master<'a>> {
        self.live.iter().copied().filter(|master| master.host.is_some_and(|host| !self.is_wanted(host)))
    }

    /// Machines that have no host yet.
    fn without_host(&self) -> impl Iterator<Item = Master<'a>> {
        self.live.iter().copied().filter(|master| master.host.is_none())
    }

    /// Hosts that are to become masters, and are no nodes yet.
    fn coming(&self) -> Vec<&'a RequestedHost> {
        let is_node = |wanted: &&RequestedHost| {
            let mut nodes = self.live.iter().filter(|master| master.machine.was_a_node());
            nodes.any(|master| master.host == Some(&wanted.name))
        };
        self.desired.masters.iter().filter(|wanted| !is_node(wanted)).collect()
    }

    /// Whether a host that could become a master waits, for which Cluster API creates no Machine before another one is gone.
    fn lacks_room(&self) -> bool {
        let is_ready = |wanted: &&RequestedHost| {
            let has_machine = self.live.iter().any(|master| master.host == Some(&wanted.name));
            let host = self.observed.host(&wanted.name).filter(|_| !has_machine);
            host.is_some_and(|host| host.is_held_as_master() && host.in_use_reason().is_none())
        };
        let ready = self.desired.masters.iter().filter(is_ready).count();
        ready > self.without_host().count() + self.replicas.saturating_sub(self.live.len())
    }

    /// The number of masters that Cluster API is to have next.
    fn goal(&self) -> usize {
        let (wanted, most) = (self.wanted(), self.replicas.max(self.wanted()));
        if self.unnamed().next().is_none() {
            return wanted;
        }
        if !self.may_remove {
            return most;
        }
        if self.coming().is_empty() {
            return wanted;
        }
        let needs_quorum = self.lacks_room() && self.unnamed().all(|master| master.machine.was_a_node());
        if needs_quorum { most.max(QUORUM_SIZE) } else { most }
    }

    /// Whether every requested master is held, or runs at least.
    fn holds_all(&self) -> bool {
        self.desired.masters.iter().all(|wanted| {
            let is_held = self.observed.host(&wanted.name).is_some_and(|host| self.observed.holds(host));
            is_held || self.observed.node(&wanted.name).is_some()
        })
    }

    /// The steps that are due now.
    fn steps(&self) -> Vec<Step> {
        if !self.holds_all() {
            return Vec::new();
        }
        let goal = self.goal();
        let mut steps = Vec::new();
        if goal > self.replicas {
            steps.push(self.set_replicas(goal));
        }
        steps.extend(self.marks(goal));
        if !steps.is_empty() {
            return steps;
        }
        if goal < self.replicas {
            return vec![self.set_replicas(goal)];
        }
        let surplus = self.surplus();
        if !surplus.is_empty() {
            return surplus;
        }
        let next = self.next_to_delete().filter(|master| self.obstacle(master).is_none());
        next.map(|master| Step::delete_with_nodes(Kind::Machine, master.machine)).into_iter().collect()
    }

    fn set_replicas(&self, goal: usize) -> Step {
        let mut spec = json!({"replicas": goal});
        if goal < QUORUM_SIZE {
            // Cluster API refuses 0 with fewer masters.
            spec["rollout"] = json!({"strategy": {"rollingUpdate": {"maxSurge": 1}}});
        }
        self.patch(spec)
    }

    /// What says which masters go. Those that stay lose their annotation first, as Cluster API may be about to choose.
    fn marks(&self, goal: usize) -> Vec<Step> {
        let lowers = goal < self.replicas && self.coming().is_empty();
        let goes = |master: &Master<'_>| match master.host {
            Some(host) => self.may_remove && !self.is_wanted(host),
            None => lowers,
        };
        let (going, staying): (Vec<_>, Vec<_>) = self.live.iter().copied().partition(goes);
        let set_before = |master: &Master<'_>| {
            master.machine.annotations().get(DELETE_MACHINE_ANNOTATION).is_some_and(|by| by == BY_OPERATOR)
        };
        let takes_back = staying.iter().filter(|master| set_before(master)).map(|master| master.annotate(None));
        let annotates = going.iter().filter(|master| !master.is_annotated());
        let annotates = annotates.map(|master| master.annotate(Some(BY_OPERATOR)));
        let limits = self.limits().filter(|_| !going.is_empty() || !self.deleting.is_empty());
        limits.into_iter().chain(takes_back).chain(annotates).chain(self.roles_to_remove()).collect()
    }

    /// How Cluster API is to delete masters, where their control plane does not say it: one that an earlier release has created, or whose template has had
    /// another limit since. Cluster API hands it on to Machines in place, also to those that are being deleted.
    fn limits(&self) -> Option<Step> {
        let deletion = &self.control_plane.spec.machine_template.spec.deletion;
        let drain = self.desired.template.spec.timeouts.drain_seconds();
        let mut wanted = json!({});
        if deletion.node_deletion_timeout_seconds.is_none() {
            wanted["nodeDeletionTimeoutSeconds"] = json!(NODE_DELETION_SECONDS);
        }
        if let Some(drain) = drain.filter(|drain| deletion.node_drain_timeout_seconds != Some(*drain)) {
            wanted["nodeDrainTimeoutSeconds"] = json!(drain);
        }
        (wanted != json!({})).then(|| self.patch(json!({"machineTemplate": {"spec": {"deletion": wanted}}})))
    }

    fn patch(&self, spec: Value) -> Step {
        Step::PatchSpec {
            kind: Kind::KubeadmControlPlane,
            name: self.control_plane.name_any(),
            uid: self.control_plane.uid().unwrap_or_default(),
            spec,
        }
    }

    /// Takes the role label off hosts that go, before they are cleaned: BYOH would attach them to the next Machine. A host that stays gets it back when it
    /// is clean.
    fn roles_to_remove(&self) -> Vec<Step> {
        let is_leaving = |host: &&ByoHost| {
            let is_named = self.is_wanted(&host.name_any());
            let machine = self.observed.machine_of(host);
            let is_deleted =
                host.is_unregistering() || machine.is_some_and(|machine| machine.metadata.deletion_timestamp.is_some());
            let goes = machine.is_some_and(|machine| is_replaced(machine, self.desired, self.observed));
            if is_named { is_deleted || goes } else { self.may_remove && host.in_use_reason().is_some() }
        };
        let held = self.observed.held().map(AsRef::as_ref).filter(|host| host.is_held_as_master());
        held.filter(|host| !host.is_attached_to_other(&self.desired.cluster))
            .filter(is_leaving)
            .map(claim::remove_role)
            .collect()
    }

    /// Deletes Machines beyond the masters that are wanted, which Cluster API created while somebody had scaled the control plane or rolled it out, or for a
    /// host that the request does not name any more. They never get a host, and Cluster API does not scale down while a Machine is unhealthy.
    fn surplus(&self) -> Vec<Step> {
        let has_hosts = self.live.iter().filter(|master| master.host.is_some()).count() >= self.replicas;
        if !has_hosts || !self.control_plane.is_initialized() || self.control_plane.spec.rollout.after.is_some() {
            return Vec::new();
        }
        self.without_host().map(|master| Step::delete_with_nodes(Kind::Machine, master.machine)).collect()
    }

    /// The master that is to be deleted by itself: to make room for another one; or because it is not healthy, which keeps Cluster API from changing the
    /// control plane. The least useful one comes first.
    fn next_to_delete(&self) -> Option<Master<'a>> {
        let lacks_room = self.lacks_room();
        let going = self.unnamed().filter(|master| self.may_remove && (lacks_room || master.unhealthy().is_some()));
        going.min_by_key(|master| (master.machine.was_a_node(), master.unhealthy().is_none(), master.host))
    }

    /// Why a master cannot be deleted now: the control plane could not do without it.
    fn obstacle(&self, master: &Master<'_>) -> Option<String> {
        if let Some(leaving) = self.deleting.first() {
            return Some(format!("Machine {} is being deleted", leaving.name_any()));
        }
        if !master.machine.was_a_node() {
            return None;
        }
        if let Some(lost) = self.observed.lost_connection() {
            return Some(format!("Cluster API cannot connect to the cluster: {}", lost.explain()));
        }
        let is_other = |other: &&Master<'_>| other.machine.name_any() != master.machine.name_any();
        let others: Vec<_> = self.live.iter().filter(is_other).collect();
        others.iter().find_map(|other| other.unhealthy()).or_else(|| {
            let host = master.display();
            (others.len() + 1 < QUORUM_SIZE).then(|| {
                format!("without {host} etcd has no quorum; if {host} does not come back, the cluster cannot be mended")
            })
        })
    }

    /// What is going on with the masters; `None` if nothing is. Without the states of the hosts that come.
    fn message(&self) -> Option<String> {
        let going: Vec<_> = if self.may_remove { self.unnamed().collect() } else { Vec::new() };
        let leaving =
            self.deleting.iter().map(|machine| host_of(machine, self.observed).unwrap_or_default().to_owned());
        let leaving: Vec<_> =
            leaving.chain(going.iter().map(Master::display)).filter(|host| !host.is_empty()).collect();
        let coming: Vec<_> = self.coming().iter().map(ToString::to_string).collect();
        if !self.control_plane.is_initialized() || leaving.is_empty() && coming.is_empty() {
            return None;
        }
        let nodes = self.live.iter().filter(|master| master.machine.was_a_node()).count();
        let leaving = text::list(&leaving, ", ");
        let what = match (leaving.is_empty(), coming.is_empty()) {
            (true, _) => format!("scaling cluster {} from {nodes} to {} masters", self.desired.cluster, self.wanted()),
            (false, true) => format!("removing master {leaving}"),
            (false, false) => format!("replacing master {leaving} by {}", text::list(&coming, ", ")),
        };
        let waits =
            self.next_to_delete().and_then(|master| self.obstacle(&master)).filter(|_| self.deleting.is_empty());
        let waits = waits.map(|why| format!("waits: {why}"));
        let has_own_etcd = self.control_plane.spec.kubeadm_config_spec.cluster_configuration.etcd.external.is_none();
        let risk = (nodes + self.deleting.len() == 2 && has_own_etcd)
            .then(|| "while there are two masters, the loss of one of them stops the cluster's API".to_owned());
        Some([Some(what), waits, risk].into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}

/// The steps that bring the masters closer to those that the request names.
pub fn change(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Vec<Step> {
    Masters::of(request, desired, observed).map(|masters| masters.steps()).unwrap_or_default()
}

/// What is going on with the masters of a cluster, for its status; `None` if nothing is.
pub fn message(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Option<String> {
    Masters::of(request, desired, observed)?.message()
}

/// The number of masters that the control plane has when nothing is left to be done: also those that a restored request does not name.
pub fn expected(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> usize {
    Masters::of(request, desired, observed)
        .map_or(desired.masters.len(), |masters| if masters.may_remove { masters.wanted() } else { masters.goal() })
}

/// Why a master does not count as a healthy member of the control plane, of those that are counted on.
pub fn unhealthy_but(observed: &Observed, is_not_counted: impl Fn(&Machine) -> bool) -> Option<String> {
    let masters = observed.machines.iter().map(AsRef::as_ref).filter(|machine| machine.is_master());
    let counted = masters.filter(|machine| !is_not_counted(machine));
    counted.map(|machine| Master { machine, host: host_of(machine, observed) }).find_map(|master| master.unhealthy())
}

/// Whether the cluster has a master that the request does not name as one. Until it is gone, no host is upgraded.
pub fn has_unnamed(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> bool {
    Masters::of(request, desired, observed)
        .is_some_and(|masters| masters.unnamed().next().is_some() || !masters.deleting.is_empty())
}

/// The hosts that a running cluster has as masters, or holds as such.
pub fn existing(observed: &Observed) -> Vec<String> {
    let held = observed.held().filter(|host| host.is_held_as_master()).map(|host| host.name_any());
    let machines = observed.machines.iter().filter(|machine| machine.is_master());
    let machines = machines.filter(|machine| machine.metadata.deletion_timestamp.is_none());
    let mut all: Vec<_> =
        held.chain(machines.filter_map(|machine| host_of(machine, observed).map(ToOwned::to_owned))).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Releases hosts that are held as masters and that no Machine can get: a request that cannot have all masters that it adds holds none of them.
pub fn release_spare(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    let Some(control_plane) = &observed.control_plane else { return Vec::new() };
    let machines = observed.machines.iter().filter(|machine| machine.is_master()).count();
    let wanted = control_plane.spec.replicas.and_then(|count| usize::try_from(count).ok()).unwrap_or_default();
    if machines < wanted
        || observed.machines.iter().any(|machine| machine.is_master() && host_of(machine, observed).is_none())
    {
        return Vec::new();
    }
    let held = observed.held().filter(|host| host.is_held_as_master() && observed.node(&host.name_any()).is_none());
    held.filter_map(|host| claim::release(request, host, observed)).collect()
}
