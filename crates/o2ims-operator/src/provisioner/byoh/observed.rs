//! What the caches show that concerns one request, and the questions that the steps ask of it. Plain data: no cache, no client.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster_api::Kind;
use cluster_api::byoh::{ByoHost, ByohVariant};
use cluster_api::cluster::{ByoCluster, Cluster};
use cluster_api::conditions::Condition;
use cluster_api::control_plane::KubeadmControlPlane;
use cluster_api::machine::{Machine, MachineDeployment};
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt as _};
use o2ims_types::o2ims::v1alpha1::cluster_template::Install;
use o2ims_types::{ClusterTemplate, names};

use super::installer;
use super::marks::{MarkedCluster as _, MarkedHost as _};
use crate::caches::{MissingProvider, version_of};
use crate::provisioner::step::Step;

/// Everything that the pure steps need to know.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The time at which it was observed, by which maintenance windows are judged. Deadlines are judged where the status is derived.
    pub now: Timestamp,
    /// The mark on everything that is the request's: its UID, or, where it was restored from a backup, the UID that it had
    /// when its cluster was created. See [`super::identity`].
    pub uid: String,
    /// Providers that are not installed, or not in a version that can be used.
    pub missing_providers: BTreeSet<MissingProvider>,
    /// Name of the cluster that the request asks for.
    pub cluster_name: String,
    /// Hosts that are held by a request that does not exist any more.
    pub orphans: BTreeSet<String>,
    /// Which BYOH is installed, if one is.
    pub variant: Option<ByohVariant>,
    /// The template that the request names.
    pub template: Option<Arc<ClusterTemplate>>,
    /// The ClusterResourceSet that the template names.
    pub resource_set: ResourceSetLookup,
    /// What that ClusterResourceSet has not applied to the cluster that it selects; a message.
    pub unapplied: Option<String>,
    /// Who has the cluster name or the endpoint, or comes first, once that is decided; a message.
    pub contention: Option<String>,
    /// Every ByoHost that the request names or holds, or that is a node of its cluster, by name.
    pub hosts: BTreeMap<String, Arc<ByoHost>>,
    /// ByoHosts whose label `host-id` is one of the request's, by id.
    pub hosts_by_id: BTreeMap<String, String>,
    /// The Cluster of the request's cluster name, also one of another request.
    pub cluster: Option<Arc<Cluster>>,
    /// The Cluster belongs to this request.
    pub cluster_is_own: bool,
    /// Where the cluster is in its life.
    pub phase: Phase,
    /// The creation of the request's cluster has ended: the parameters that it was created with stay.
    pub is_created: bool,
    /// The request had a Cluster, and it is not known whether its nodes still run.
    pub misses_cluster: bool,
    /// The request's KubeadmControlPlane.
    pub control_plane: Option<Arc<KubeadmControlPlane>>,
    /// The request's ByoCluster.
    pub byo_cluster: Option<Arc<ByoCluster>>,
    /// The request's MachineDeployments, by name.
    pub deployments: BTreeMap<String, Arc<MachineDeployment>>,
    /// The request's Machines.
    pub machines: Vec<Arc<Machine>>,
    /// Every object that the operator created for the request.
    pub owned: BTreeMap<(Kind, String), OwnedObject>,
    /// Machines of other requests that are nodes on hosts which look free, by host: their ByoHosts were deleted and registered again.
    pub foreign_nodes: BTreeMap<String, Arc<Machine>>,
    /// Templates that one of those refers to.
    pub referenced: BTreeSet<(Kind, String)>,
    /// While no Cluster has the name: an object of another owner that has the name of a part of the cluster.
    pub foreign_part: Option<ForeignPart>,
}

/// An object of another owner that has the name of a part of the request's cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignPart {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The request that it was created for, as `namespace/name`, if it was.
    pub request: Option<String>,
    /// Whether that request exists.
    pub owner_exists: bool,
}

/// Where the cluster of a request is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// No Cluster has its name.
    #[default]
    Absent,
    /// No Cluster has its name, and nodes of it run, or may run. Cluster API deletes a Cluster after its nodes, so it was not deleted by
    /// Cluster API.
    Lost,
    /// A Cluster that does not belong to the request has its name.
    Foreign,
    /// The operator creates it.
    Creating,
    /// It was created.
    Running,
    /// The operator deletes its Cluster, although its request is not being deleted.
    TearingDown,
    /// Its Cluster is being deleted, not by the operator.
    Deleting,
}

/// The ClusterResourceSet that the template names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ResourceSetLookup {
    /// It does not exist.
    #[default]
    Missing,
    /// The labels that it selects clusters by.
    Labels(BTreeMap<String, String>),
}

/// An object that the operator created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedObject {
    /// Its UID.
    pub uid: String,
    /// Its resource version.
    pub version: u64,
    /// Hash of what was applied.
    pub applied_hash: String,
    /// It is being deleted.
    pub deleting: bool,
    /// UID of the Cluster that it refers to as Cluster API makes it do, which shows that Cluster API has seen it.
    pub adopted_by: Option<String>,
}

impl OwnedObject {
    /// The record of an object.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self {
            uid: object.uid().unwrap_or_default(),
            version: version_of(object),
            applied_hash: object.annotations().get(names::APPLIED_HASH_ANNOTATION).cloned().unwrap_or_default(),
            deleting: object.meta().deletion_timestamp.is_some(),
            adopted_by: object
                .owner_references()
                .iter()
                .find(|owner| owner.kind == Kind::Cluster.name())
                .map(|owner| owner.uid.clone()),
        }
    }

    /// The step that deletes it. Where nodes are deleted with it, it must also be as it was observed.
    pub fn delete(&self, kind: Kind, name: &str) -> Step {
        let with_nodes = matches!(kind, Kind::Cluster | Kind::KubeadmControlPlane | Kind::MachineDeployment);
        let resource_version = with_nodes.then(|| self.version.to_string());
        Step::Delete { kind, name: name.to_owned(), uid: self.uid.clone(), resource_version }
    }
}

impl Observed {
    /// The ByoHost of this name in the request's namespace.
    pub fn host(&self, name: &str) -> Option<&ByoHost> {
        self.hosts.get(name).map(AsRef::as_ref)
    }

    /// Name of the ByoHost that carries the label `host-id` with this value.
    pub fn host_with_id(&self, id: &str) -> Option<&str> {
        self.hosts_by_id.get(id).map(String::as_str)
    }

    /// Hosts that the request holds.
    pub fn held(&self) -> impl Iterator<Item = &Arc<ByoHost>> {
        self.hosts.values().filter(|host| self.holds(host))
    }

    /// Whether the request holds the host: by its mark, or, where that was removed, by a Machine that runs on it.
    pub fn holds(&self, host: &ByoHost) -> bool {
        match host.holder() {
            Some(holder) => holder == self.uid,
            None => {
                self.cluster.is_some() && host.is_attached_to(&self.cluster_name) && self.machine_of(host).is_some()
            }
        }
    }

    /// The request's Machine that the host is attached to, as its ByoHost or its Node says: a ByoHost that was restored from a
    /// backup has no status.
    pub fn machine_of(&self, host: &ByoHost) -> Option<&Machine> {
        let attached = host.attached_machine();
        let mut machines = self.machines.iter().map(AsRef::as_ref);
        machines
            .find(|machine| attached == Some(&machine.spec.infrastructure_ref.name))
            .or_else(|| self.node(&host.name_any()))
    }

    /// The Machine whose node this is, unless it is being deleted.
    pub fn node(&self, name: &str) -> Option<&Machine> {
        self.machines
            .iter()
            .map(AsRef::as_ref)
            .find(|machine| machine.metadata.deletion_timestamp.is_none() && machine.server() == Some(name))
    }

    /// The Cluster, if it belongs to this request.
    pub fn own_cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref().filter(|_| self.cluster_is_own)
    }

    /// The condition that says that Cluster API cannot connect to the API server of the cluster any more; `None` if it can, or, after a restart of
    /// Cluster API, if it has not connected yet. Its Machines go on saying what was last known of their nodes.
    pub fn lost_connection(&self) -> Option<&Condition> {
        let is_initialized = self.control_plane.as_ref().is_some_and(|object| object.is_initialized());
        let conditions = &self.own_cluster()?.status.conditions;
        let probe = Condition::find(conditions, "RemoteConnectionProbe")?;
        // The words of a probe that succeeded before (`setRemoteConnectionProbeCondition` of the Cluster controller).
        let has_succeeded = probe.message.contains("last succeeded");
        (is_initialized && probe.status == "False" && has_succeeded).then_some(probe)
    }

    /// How Kubernetes is installed on the hosts: a running cluster keeps what it was created with, also when the template changes.
    pub fn install(&self) -> Install {
        self.known_install().unwrap_or_default()
    }

    /// As [`Observed::install`]; `None` if neither the Cluster nor the template says it.
    pub fn known_install(&self) -> Option<Install> {
        let running = self.own_cluster().filter(|_| self.is_created);
        let sound = |install: &Install| install.installer.as_ref().is_none_or(installer::is_sound);
        let kept = running.and_then(|cluster| cluster.install()).filter(sound);
        kept.or_else(|| Some(self.template.as_ref()?.spec.install.clone()))
    }

    /// Hosts that the request holds, that are attached to machines of its cluster, and that are not being cleaned.
    pub fn in_service(&self) -> impl Iterator<Item = &ByoHost> {
        self.held()
            .map(AsRef::as_ref)
            .filter(|host| host.is_attached_to(&self.cluster_name) && !host.is_unregistering())
    }

    /// Whether a node runs for the request that a deletion of its objects would end.
    pub fn runs_nodes(&self) -> bool {
        let is_not_being_deleted = |machine: &Machine| machine.metadata.deletion_timestamp.is_none();
        self.in_service().next().is_some() || self.machines.iter().any(|machine| is_not_being_deleted(machine))
    }

    /// Derives [`Observed::phase`] and [`Observed::is_created`] from everything else.
    pub fn derive_phase(&mut self) {
        self.is_created = self.own_cluster().is_some_and(|cluster| !cluster.is_creating());
        self.phase = match (&self.cluster, self.own_cluster()) {
            (None, _) if self.runs_nodes() || self.misses_cluster => Phase::Lost,
            (None, _) => Phase::Absent,
            (Some(_), None) => Phase::Foreign,
            (_, Some(cluster)) if cluster.is_being_torn_down() => Phase::TearingDown,
            (_, Some(cluster)) if cluster.metadata.deletion_timestamp.is_some() => Phase::Deleting,
            (_, Some(cluster)) if cluster.is_creating() => Phase::Creating,
            _ => Phase::Running,
        };
    }

    /// Parts of the cluster that Cluster API can delete only while their Cluster exists.
    pub fn parts(&self) -> impl Iterator<Item = &(Kind, String)> {
        let needs_cluster =
            |kind: Kind| matches!(kind, Kind::KubeadmControlPlane | Kind::MachineDeployment | Kind::ByoCluster);
        self.owned.keys().filter(move |(kind, _)| needs_cluster(*kind))
    }

    /// The Machine of a ByoHost that BYOH regards as not in use although the Machine's node runs on it: the ByoHost was deleted and registered
    /// again. BYOH goes by its label; a host that has its machine in its status only is one whose reattachment was interrupted.
    pub fn reregistered_machine(&self, host: &ByoHost) -> Option<&Machine> {
        if host.machine_name().is_some() || host.is_attached_to(&self.cluster_name) || host.is_unregistering() {
            return None;
        }
        self.running_machine_of(host)
    }

    /// The Machine of a host of the request, if it runs and its reference was removed from the host's status.
    pub fn detached_machine(&self, host: &ByoHost) -> Option<&Machine> {
        if host.status.machine_ref.is_some() || host.machine_name().is_none() || host.is_unregistering() {
            return None;
        }
        self.running_machine_of(host).filter(|_| host.holder() == Some(&self.uid))
    }

    fn running_machine_of(&self, host: &ByoHost) -> Option<&Machine> {
        self.machine_of(host).filter(|machine| machine.was_a_node() && machine.metadata.deletion_timestamp.is_none())
    }
}
