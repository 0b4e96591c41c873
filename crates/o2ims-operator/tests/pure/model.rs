//! A model of what surrounds the pure steps: objects as the API server would keep them, and the moves that Cluster API,
//! BYOH, host agents and people make. It serves functions only; nothing here answers a network call.
//!
//! Reconciles go through the real `observe`, on stores that are filled from the model.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use cluster_api::Kind;
use cluster_api::NameRef;
use cluster_api::byoh::ByoHost;
use cluster_api::byoh::{
    BYOHOST_CRD, ByohVariant, MACHINE_NAME_LABEL, MACHINE_VERSION_ANNOTATION, UNREGISTERING_ANNOTATION, crd_resource,
};
use cluster_api::cluster::{ByoCluster, Cluster, ClusterResourceSet, ClusterResourceSetBinding};
use cluster_api::conditions::Condition;
use cluster_api::control_plane::KubeadmControlPlane;
use cluster_api::labels::{
    CLUSTER_NAME_LABEL, CONTROL_PLANE_LABEL, DELETE_MACHINE_ANNOTATION, EXCLUDE_DRAINING_ANNOTATION, PAUSED_ANNOTATION,
    SET_NAME_LABEL,
};
use cluster_api::machine::{Deletion, Machine, MachineDeployment, ReplicaStatus};
use cluster_api::templates::{ByoMachineTemplate, K8sInstallerConfigTemplate, KubeadmConfigTemplate};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use kube::{Resource, ResourceExt as _};
use o2ims_operator::caches::{Caches, Clusters, Hosts, Machines, MarkedObjects, ProvidedKind, Requests, Templates};
use o2ims_operator::expectations::Expectations;
use o2ims_operator::provisioner::byoh::claim::take_back;
use o2ims_operator::provisioner::byoh::contention::Locks;
use o2ims_operator::provisioner::byoh::desired::DesiredCluster;
use o2ims_operator::provisioner::byoh::marks::{MarkedCluster as _, MarkedHost as _};
use o2ims_operator::provisioner::byoh::observe::observe;
use o2ims_operator::provisioner::byoh::observed::Observed;
use o2ims_operator::provisioner::byoh::provisioner::Byoh;
use o2ims_operator::provisioner::byoh::report::report;
use o2ims_operator::provisioner::byoh::upgrade::version::parse;
use o2ims_operator::provisioner::interface::{Decided, decide};
use o2ims_operator::provisioner::report::Rejection;
use o2ims_operator::provisioner::step::InstallScripts;
use o2ims_operator::provisioner::step::{HostPatch, InstallSecret, JobOrder, Step};
use o2ims_operator::provisioning_request::status::{Assessment, assess};
use o2ims_types::o2ims::v1alpha1::cluster_template::{InstallMethod, UpgradeStrategy};
use o2ims_types::{ClusterTemplate, ProvisioningRequest, ProvisioningRequestStatus, ProvisioningState, names};
use operator_kit::cache::{CachedObjects, SyncState};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

/// Where everything lives.
pub const NAMESPACE: &str = "site-a";
/// UID of somebody who holds what the requests want.
pub const STRANGER: &str = "stranger";

const FINALIZER: &str = "test/finalizer";
const BOOTSTRAP: &str = "K8sNodeBootstrapSucceeded";

/// A Machine, with what the slim record does not keep.
#[derive(Clone, Debug)]
pub struct ModelMachine {
    /// As the operator reads it.
    pub record: Machine,
    /// The KubeadmControlPlane or MachineDeployment that made it.
    pub owner: (Kind, String),
    template: String,
    version: String,
    cluster: String,
    selector: BTreeMap<String, String>,
    installer: bool,
}

/// Everything that there is.
#[derive(Clone, Debug)]
pub struct World {
    /// Seconds since 1970.
    pub second: i64,
    /// Counts writes: the same number means that nothing was written.
    pub revision: u64,
    serial: u64,
    pub dialect: ByohVariant,
    pub byoh_installed: bool,
    /// What the watch of Clusters says of the kind.
    pub cluster_api: SyncState,
    pub requests: BTreeMap<String, ProvisioningRequest>,
    pub templates: BTreeMap<String, ClusterTemplate>,
    pub resource_sets: BTreeMap<String, ClusterResourceSet>,
    pub resource_set_bindings: BTreeMap<String, ClusterResourceSetBinding>,
    pub hosts: BTreeMap<String, ByoHost>,
    pub clusters: BTreeMap<String, Cluster>,
    pub control_planes: BTreeMap<String, KubeadmControlPlane>,
    /// UIDs of Clusters whose infrastructure is ready.
    pub infrastructure_ready: BTreeSet<String>,
    pub deployments: BTreeMap<String, MachineDeployment>,
    pub byo_clusters: BTreeMap<String, ByoCluster>,
    pub machine_templates: BTreeMap<String, ByoMachineTemplate>,
    pub config_templates: BTreeMap<String, KubeadmConfigTemplate>,
    pub installer_templates: BTreeMap<String, K8sInstallerConfigTemplate>,
    pub machines: BTreeMap<String, ModelMachine>,
    /// Hosts with a Secret of install scripts.
    pub install_secrets: BTreeSet<String>,
    /// Versions in the templates of MachineSets, by name.
    pub machine_sets: BTreeMap<String, String>,
    /// KubeadmConfigs of masters with the feature gate that Cluster API sets up to 1.35.
    pub with_gate: BTreeSet<String>,
    /// Control planes whose masters Cluster API was asked to replace, without another Machine before.
    pub rolling: BTreeSet<String>,
    /// What was applied last, whole.
    pub applied: BTreeMap<(Kind, String), Value>,
    /// Hosts whose scripts fail.
    pub sick: BTreeSet<String>,
    /// Hosts whose agent does not answer.
    pub silent: BTreeSet<String>,
    /// Those of them whose server is off.
    pub dead: BTreeSet<String>,
    /// What the operator remembers of who has begun.
    locks: Arc<Locks>,
    /// Hosts whose agent is about to write the last part of a cleaning.
    cleaning: BTreeSet<String>,
    stash: (BTreeMap<String, ByoHost>, BTreeMap<String, ClusterTemplate>, BTreeMap<String, ClusterResourceSet>),
}

/// One reconcile on its way: what it saw, and what it still has to write.
#[derive(Clone, Debug)]
pub struct Flight {
    pub request: ProvisioningRequest,
    pub observed: Observed,
    pub verdict: Result<DesiredCluster, Rejection>,
    pub steps: Vec<Step>,
    pub next: usize,
}

impl Flight {
    /// The status that this reconcile writes; `write_error` is the error of its last write.
    pub fn assess(&self, write_error: Option<&str>, now: Timestamp) -> Assessment {
        let report = report(&self.request, &self.verdict, &self.observed);
        let assessment = assess(&self.request, &report, write_error, now);
        record_status(&assessment.status);
        assessment
    }
}

/// Notes what a status tells.
pub fn record_status(status: &ProvisioningRequestStatus) {
    messages::record(&status.provisioning_status.provisioning_message);
    status.conditions.iter().for_each(|condition| messages::record(&condition.message));
    status.extensions.hosts.iter().for_each(|host| messages::record(&host.message));
    let files = status.extensions.hosts.iter().flat_map(|host| [&host.support_bundle, &host.snapshot]);
    files.flatten().for_each(|file| messages::record(&file.message));
}

/// A precondition did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict;

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

/// A value from JSON.
pub fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A merge patch of how Machines are deleted.
fn overlay(deletion: &mut Deletion, patch: &Value) {
    for (field, seconds) in patch.as_object().into_iter().flatten() {
        let seconds = from(seconds.clone());
        match field.as_str() {
            "nodeDeletionTimeoutSeconds" => deletion.node_deletion_timeout_seconds = seconds,
            "nodeDrainTimeoutSeconds" => deletion.node_drain_timeout_seconds = seconds,
            other => panic!("sets {other}"),
        }
    }
}

/// The template that requests of [`request`] name.
pub fn template(spec: Value) -> ClusterTemplate {
    let mut all = json!({"name": "base", "version": "v1", "cni": {"clusterResourceSet": "cni"},
        "defaults": {"k8sVersion": "v1.33.1", "podCidr": "192.168.0.0/16", "serviceCidr": "10.128.0.0/12"}});
    template_schema::overlay(&mut all, spec);
    from(json!({"apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ClusterTemplate",
        "metadata": {"name": "base-v1", "namespace": names::OPERATOR_NAMESPACE}, "spec": all}))
}

/// A request for `cluster` on hosts by number.
pub fn request(name: &str, cluster: &str, masters: &[u32], workers: &[u32]) -> ProvisioningRequest {
    from(json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1",
        "kind": "ProvisioningRequest",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"templateName": "base", "templateVersion": "v1", "templateParameters": {
            "clusterName": cluster, "clusterProvisioner": "byoh", "hosts": {"masters": host_refs(masters), "workers": host_refs(workers)}
        }}
    }))
}

/// References to hosts by number.
pub fn host_refs(numbers: &[u32]) -> Value {
    numbers.iter().map(|number| json!({"hostId": number, "hostName": host_name(*number)})).collect()
}

/// Name of a host by number.
pub fn host_name(number: u32) -> String {
    format!("target-{number}")
}

/// Hosts that a request names.
pub fn asked(request: &ProvisioningRequest) -> BTreeMap<String, &'static str> {
    o2ims_operator::request::requested_hosts(request).map(|(host, role)| (host.name().to_owned(), role)).collect()
}

fn condition(conditions: &mut Vec<Condition>, type_: &str, status: &str, severity: &str, reason: &str) {
    conditions.retain(|condition| condition.type_ != type_);
    conditions.push(Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        severity: severity.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        last_transition_time: None,
    });
}

/// A condition whose status is new since `second`.
fn condition_since(conditions: &mut Vec<Condition>, type_: &str, status: &str, second: i64) {
    if Condition::find(conditions, type_).is_some_and(|condition| condition.status == status) {
        return;
    }
    condition(conditions, type_, status, "", "");
    conditions.last_mut().unwrap().last_transition_time = Some(at(second));
}

fn pick<T>(items: Vec<T>, pick: usize) -> Option<T> {
    let count = items.len();
    items.into_iter().nth(pick.checked_rem(count)?)
}

/// Changes an object, which gets a new resource version.
fn edit<K: Resource>(revision: &mut u64, objects: &mut BTreeMap<String, K>, name: &str, change: impl FnOnce(&mut K)) {
    *revision += 1;
    if let Some(object) = objects.get_mut(name) {
        change(object);
        object.meta_mut().resource_version = Some(revision.to_string());
    }
}

/// Runs the same code on the map of a kind.
macro_rules! with_kind {
    ($world:expr, $kind:expr, $map:ident => $body:expr) => {
        match $kind {
            Kind::Cluster => {
                let $map = &mut $world.clusters;
                $body
            }
            Kind::KubeadmControlPlane => {
                let $map = &mut $world.control_planes;
                $body
            }
            Kind::MachineDeployment => {
                let $map = &mut $world.deployments;
                $body
            }
            Kind::ByoCluster => {
                let $map = &mut $world.byo_clusters;
                $body
            }
            Kind::ByoMachineTemplate => {
                let $map = &mut $world.machine_templates;
                $body
            }
            Kind::KubeadmConfigTemplate => {
                let $map = &mut $world.config_templates;
                $body
            }
            Kind::K8sInstallerConfigTemplate => {
                let $map = &mut $world.installer_templates;
                $body
            }
            Kind::ByoHost => {
                let $map = &mut $world.hosts;
                $body
            }
            Kind::Machine => panic!("the operator only deletes, annotates and adopts Machines"),
            Kind::MachineSet | Kind::KubeadmConfig => panic!("the operator only adopts these"),
            Kind::ByoMachine | Kind::ClusterResourceSet | Kind::ClusterResourceSetBinding => {
                panic!("the operator does not write these")
            }
        }
    };
}

/// A kind whose objects are written once, under a name that is a function of their content.
pub fn is_template(kind: Kind) -> bool {
    matches!(kind, Kind::ByoMachineTemplate | Kind::KubeadmConfigTemplate | Kind::K8sInstallerConfigTemplate)
}

impl World {
    /// A template, its CNI, and `hosts` free hosts that carry their ids.
    pub fn new(dialect: ByohVariant, spec: Value, hosts: u32) -> Self {
        let mut world = Self {
            second: 1_000_000,
            revision: 10,
            serial: 0,
            dialect,
            byoh_installed: true,
            cluster_api: SyncState::Synced,
            requests: BTreeMap::new(),
            templates: BTreeMap::from([("base-v1".to_owned(), template(spec))]),
            resource_sets: BTreeMap::new(),
            resource_set_bindings: BTreeMap::new(),
            hosts: BTreeMap::new(),
            clusters: BTreeMap::new(),
            control_planes: BTreeMap::new(),
            infrastructure_ready: BTreeSet::new(),
            deployments: BTreeMap::new(),
            byo_clusters: BTreeMap::new(),
            machine_templates: BTreeMap::new(),
            config_templates: BTreeMap::new(),
            installer_templates: BTreeMap::new(),
            machines: BTreeMap::new(),
            install_secrets: BTreeSet::new(),
            machine_sets: BTreeMap::new(),
            with_gate: BTreeSet::new(),
            rolling: BTreeSet::new(),
            applied: BTreeMap::new(),
            sick: BTreeSet::new(),
            silent: BTreeSet::new(),
            dead: BTreeSet::new(),
            locks: Locks::new(|_| ()),
            cleaning: BTreeSet::new(),
            stash: (BTreeMap::new(), BTreeMap::new(), BTreeMap::new()),
        };
        world.resource_sets.insert(
            "cni".to_owned(),
            from(json!({"metadata": {"name": "cni", "namespace": NAMESPACE}, "spec": {"clusterSelector": {"matchLabels": {"cni": "cni"}}}})),
        );
        for number in 1..=hosts {
            world.register(number, true);
        }
        world
    }

    /// The time as the pure steps are told it.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_second(self.second).unwrap()
    }

    fn uid(&mut self, what: &str) -> String {
        self.serial += 1;
        format!("{what}-uid-{}", self.serial)
    }

    /// An agent registers its host.
    pub fn register(&mut self, number: u32, with_id: bool) {
        let name = host_name(number);
        let labels = if with_id { json!({"host-id": number.to_string()}) } else { json!({}) };
        self.revision += 1;
        let mut host: ByoHost = from(json!({
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": self.uid(&name), "resourceVersion": self.revision.to_string(), "labels": labels},
            "spec": {},
            "status": {
                "hostinfo": {"osimage": "Ubuntu 22.04.4 LTS"},
                "network": [{"ipAddrs": [format!("10.0.0.{number}/24")], "isDefault": true}],
            }
        }));
        condition(&mut host.status.conditions, BOOTSTRAP, "False", "Info", "WaitingForMachineRefToBeAssigned");
        if self.dialect == ByohVariant::Platform9 {
            condition(&mut host.status.conditions, "AgentConnected", "True", "", "");
        }
        self.hosts.insert(name, host);
    }

    /// Somebody applies a request; its UID is `<name>-uid`.
    pub fn submit(&mut self, mut request: ProvisioningRequest) {
        let name = request.name_any();
        self.revision += 1;
        request.metadata.uid = Some(format!("{name}-uid"));
        request.metadata.generation = Some(1);
        request.metadata.creation_timestamp = Some(at(self.second));
        request.metadata.resource_version = Some(self.revision.to_string());
        self.requests.insert(name, request);
    }

    /// Somebody changes a request's spec.
    pub fn edit_request(&mut self, name: &str, change: impl FnOnce(&mut ProvisioningRequest)) {
        edit(&mut self.revision, &mut self.requests, name, |request| {
            change(request);
            request.metadata.generation = request.metadata.generation.map(|generation| generation + 1);
        });
    }

    /// Somebody deletes a request.
    pub fn delete_request(&mut self, name: &str) {
        let second = self.second;
        edit(&mut self.revision, &mut self.requests, name, |request| {
            request.metadata.deletion_timestamp.get_or_insert(at(second));
        });
        self.drop_finished_requests();
    }

    fn drop_finished_requests(&mut self) {
        let locks = Arc::clone(&self.locks);
        self.requests.retain(|_, request| {
            let stays = request.metadata.deletion_timestamp.is_none() || !request.finalizers().is_empty();
            if !stays {
                locks.forget(&request.uid().unwrap_or_default(), Instant::now());
            }
            stays
        });
    }

    /// Changes a host.
    pub fn edit_host(&mut self, name: &str, change: impl FnOnce(&mut ByoHost)) {
        edit(&mut self.revision, &mut self.hosts, name, change);
    }

    /// Changes a Cluster.
    pub fn edit_cluster(&mut self, name: &str, change: impl FnOnce(&mut Cluster)) {
        edit(&mut self.revision, &mut self.clusters, name, change);
    }

    /// Changes every KubeadmControlPlane.
    pub fn edit_control_planes(&mut self, change: impl Fn(&mut KubeadmControlPlane)) {
        for name in self.control_planes.keys().cloned().collect::<Vec<_>>() {
            edit(&mut self.revision, &mut self.control_planes, &name, &change);
        }
    }

    /// Metadata of an object.
    pub fn meta(&self, kind: Kind, name: &str) -> Option<&ObjectMeta> {
        match kind {
            Kind::Cluster => self.clusters.get(name).map(Resource::meta),
            Kind::KubeadmControlPlane => self.control_planes.get(name).map(Resource::meta),
            Kind::MachineDeployment => self.deployments.get(name).map(Resource::meta),
            Kind::ByoCluster => self.byo_clusters.get(name).map(Resource::meta),
            Kind::ByoMachineTemplate => self.machine_templates.get(name).map(Resource::meta),
            Kind::KubeadmConfigTemplate => self.config_templates.get(name).map(Resource::meta),
            Kind::K8sInstallerConfigTemplate => self.installer_templates.get(name).map(Resource::meta),
            Kind::ByoHost => self.hosts.get(name).map(Resource::meta),
            Kind::Machine => self.machines.get(name).map(|machine| machine.record.meta()),
            Kind::MachineSet
            | Kind::KubeadmConfig
            | Kind::ByoMachine
            | Kind::ClusterResourceSet
            | Kind::ClusterResourceSetBinding => None,
        }
    }

    /// UID of the request whose mark an object carries.
    pub fn mark(&self, kind: Kind, name: &str) -> Option<&str> {
        self.meta(kind, name)?.labels.as_ref()?.get(names::REQUEST_UID_LABEL).map(String::as_str)
    }

    /// Hosts with the mark of a request.
    pub fn held(&self, uid: &str) -> Vec<&ByoHost> {
        self.hosts.values().filter(|host| host.holder() == Some(uid)).collect()
    }

    /// Objects that were made for a request.
    pub fn made(&self, uid: &str) -> Vec<(Kind, String)> {
        self.applied.keys().filter(|(kind, name)| self.mark(*kind, name) == Some(uid)).cloned().collect()
    }

    /// The Clusters that were made for a request.
    pub fn own_clusters(&self, uid: &str) -> Vec<&Cluster> {
        self.clusters
            .values()
            .filter(|cluster| cluster.labels().get(names::REQUEST_UID_LABEL).is_some_and(|mark| mark == uid))
            .collect()
    }

    /// The watched caches, with nothing on its way.
    pub fn watches(&self) -> Caches {
        let provided =
            |provider, kind, state: SyncState| ProvidedKind { provider, kind, state: watch::channel(state).1 };
        let byoh = if self.byoh_installed { SyncState::Synced } else { SyncState::NotInstalled };
        let mut crd = CachedObjects::<DynamicObject>::new_with(crd_resource());
        if self.byoh_installed {
            let properties = match self.dialect {
                ByohVariant::Upstream => json!({"bootstrapSecret": {}}),
                ByohVariant::Platform9 => json!({"uninstallationSecret": {}}),
            };
            let mut object = DynamicObject::new(BYOHOST_CRD, &crd_resource());
            object.data = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"properties": {"spec": {"properties": properties}}}}}]}});
            crd.apply(object);
        }
        let machines = self.machines.values().map(|machine| machine.record.clone());
        Caches {
            requests: Requests::new(&mut self.requests.values().cloned().collect()),
            templates: Templates::new(&mut self.templates.values().cloned().collect()),
            hosts: Hosts::new(&mut self.hosts.values().cloned().collect()),
            clusters: Clusters::new(&mut self.clusters.values().cloned().collect()),
            control_planes: MarkedObjects::new(&mut self.control_planes.values().cloned().collect()),
            machine_deployments: MarkedObjects::new(&mut self.deployments.values().cloned().collect()),
            machines: Machines::new(&mut machines.collect()),
            byo_clusters: MarkedObjects::new(&mut self.byo_clusters.values().cloned().collect()),
            machine_templates: MarkedObjects::new(&mut self.machine_templates.values().cloned().collect()),
            config_templates: MarkedObjects::new(&mut self.config_templates.values().cloned().collect()),
            installer_templates: MarkedObjects::new(&mut self.installer_templates.values().cloned().collect()),
            resource_sets: self.resource_sets.values().cloned().collect::<CachedObjects<_>>().store(),
            resource_set_bindings: self.resource_set_bindings.values().cloned().collect::<CachedObjects<_>>().store(),
            byohost_crd: crd.store(),
            providers: vec![
                provided("Cluster API", Kind::Cluster, self.cluster_api.clone()),
                provided("Bring-Your-Own-Host provider (BYOH)", Kind::ByoHost, byoh),
            ],
        }
    }

    // What the operator does.

    /// The reading half of a reconcile; `None` if the request is gone.
    pub fn begin(&self, name: &str) -> Option<Flight> {
        let request = self.requests.get(name)?.clone();
        let watches = self.watches();
        let observed = Observed { now: self.now(), ..observe(&watches, &request) };
        let byoh = Byoh { caches: watches, locks: Arc::clone(&self.locks) };
        let decided = decide(&byoh, &request, observed, &Expectations::default(), Instant::now());
        let Decided { observed, verdict, steps, .. } = decided.ok()?;
        Some(Flight { request, observed, verdict, steps, next: 0 })
    }

    /// The operator starts anew: what it remembered is lost.
    pub fn restart(&mut self) {
        self.locks = Locks::new(|_| ());
    }

    /// The next write of a reconcile. `Ok(false)`: there is none left.
    pub fn step(&mut self, flight: &mut Flight) -> Result<bool, Conflict> {
        let Some(step) = flight.steps.get(flight.next) else { return Ok(false) };
        let step = step.clone();
        flight.next += 1;
        self.apply_plan(flight, &step)?;
        Ok(true)
    }

    /// The last write of a reconcile: the status, if it differs.
    pub fn finish(&mut self, flight: &Flight) -> Option<Assessment> {
        let name = flight.request.name_any();
        if flight.steps.contains(&Step::RemoveFinalizer) || self.requests.get(&name)?.uid() != flight.request.uid() {
            return None;
        }
        let assessment = flight.assess(None, self.now());
        crate::rules::check_status(&flight.request, &assessment);
        crate::rules::check_finalizer(&self.requests[&name], &assessment);
        if flight.request.status.as_ref() != Some(&assessment.status) {
            edit(&mut self.revision, &mut self.requests, &name, |request| {
                request.status = Some(assessment.status.clone());
            });
        }
        Some(assessment)
    }

    /// A whole reconcile. Returns what was written.
    pub fn reconcile(&mut self, name: &str) -> Vec<Step> {
        let Some(mut flight) = self.begin(name) else { return Vec::new() };
        if flight.steps.is_empty() && flight.request.is_new() {
            // The first status starts the next reconcile at once.
            self.finish(&flight);
            let Some(next) = self.begin(name) else { return Vec::new() };
            flight = next;
        }
        let mut done = Vec::new();
        loop {
            match self.step(&mut flight) {
                Ok(true) => done.push(flight.steps[flight.next - 1].clone()),
                Ok(false) => break,
                Err(Conflict) => return done,
            }
        }
        self.finish(&flight);
        done
    }

    /// What the status says now.
    pub fn assess(&self, name: &str) -> Assessment {
        let flight = self.begin(name).unwrap();
        flight.assess(None, self.now())
    }

    /// State in the status of a request.
    pub fn state(&self, name: &str) -> Option<ProvisioningState> {
        Some(self.requests.get(name)?.status.as_ref()?.provisioning_status.provisioning_state)
    }

    /// Message in the status of a request.
    pub fn message(&self, name: &str) -> String {
        let status = self.requests.get(name).and_then(|request| request.status.clone()).unwrap_or_default();
        status.provisioning_status.provisioning_message
    }

    fn apply_plan(&mut self, flight: &Flight, step: &Step) -> Result<(), Conflict> {
        let name = flight.request.name_any();
        let same_request = |world: &Self| {
            let now = world.requests.get(&name).ok_or(Conflict)?;
            if now.metadata.resource_version == flight.request.metadata.resource_version {
                Ok(())
            } else {
                Err(Conflict)
            }
        };
        let uid_is = |world: &Self, kind: Kind, name: &str, uid: &str| {
            if world.meta(kind, name).and_then(|meta| meta.uid.as_deref()) == Some(uid) {
                Ok(())
            } else {
                Err(Conflict)
            }
        };
        match step {
            Step::Protect | Step::AddFinalizer | Step::RemoveFinalizer | Step::Orphan | Step::RemoveAnnotations(_) => {
                same_request(self)?;
            }
            Step::DryRun(_) | Step::Adopt { kind: Kind::MachineSet | Kind::KubeadmConfig, .. } => {}
            Step::PatchHost(HostPatch { host, resource_version, .. })
            | Step::GiveInstallScripts(InstallScripts { host, resource_version, .. })
            | Step::GiveJob(JobOrder { host, resource_version, .. }) => {
                let host = self.hosts.get(host).ok_or(Conflict)?;
                if host.metadata.resource_version.as_deref() != Some(resource_version) {
                    return Err(Conflict);
                }
            }
            Step::Create(manifest) => {
                if self.meta(manifest.kind, &manifest.name).is_some() {
                    return Err(Conflict);
                }
            }
            Step::Update(manifest, uid) | Step::RestoreMarks(manifest, uid) => {
                uid_is(self, manifest.kind, &manifest.name, uid)?;
            }
            Step::Delete { kind, name, uid, .. } => {
                if self.meta(*kind, name).is_none() {
                    return Ok(());
                }
                uid_is(self, *kind, name, uid)?;
            }
            Step::RecreateCluster { manifest, part: (kind, name, uid) } => {
                uid_is(self, *kind, name, uid)?;
                if self.meta(manifest.kind, &manifest.name).is_some() {
                    return Err(Conflict);
                }
            }
            Step::Reattach(reattachment) => {
                let host = self.hosts.get(&reattachment.host).ok_or(Conflict)?;
                if host.metadata.resource_version.as_ref() != Some(&reattachment.resource_version) {
                    return Err(Conflict);
                }
            }
            Step::Annotate { kind, name, uid, .. } | Step::PatchSpec { kind, name, uid, .. } => {
                uid_is(self, *kind, name, uid)?;
            }
            Step::Adopt { name, .. } => {
                self.machines.get(name).ok_or(Conflict)?;
            }
        }
        crate::rules::check(self, flight, step);
        let second = self.second;
        match step {
            Step::Protect => edit(&mut self.revision, &mut self.requests, &name, |request| {
                request.annotations_mut().insert(names::DELETION_PROTECTION_ANNOTATION.to_owned(), "true".to_owned());
            }),
            Step::RemoveAnnotations(words) => edit(&mut self.revision, &mut self.requests, &name, |request| {
                request.annotations_mut().retain(|annotation, _| !words.contains(&annotation.as_str()));
            }),
            Step::AddFinalizer => edit(&mut self.revision, &mut self.requests, &name, |request| {
                request.finalizers_mut().push(names::FINALIZER.to_owned());
            }),
            Step::RemoveFinalizer | Step::Orphan => {
                edit(&mut self.revision, &mut self.requests, &name, |request| {
                    request.finalizers_mut().retain(|finalizer| finalizer != names::FINALIZER);
                });
                self.drop_finished_requests();
            }
            Step::PatchHost(marks) => {
                if matches!(marks.install_secret, Some(InstallSecret::Delete(_))) {
                    self.install_secrets.remove(&marks.host);
                }
                self.edit_host(&marks.host, |host| {
                    patch(host.labels_mut(), &marks.labels);
                    patch(host.annotations_mut(), &marks.annotations);
                });
            }
            Step::GiveInstallScripts(equipment) => {
                self.install_secrets.insert(equipment.host.clone());
                let fields = equipment.references(&equipment.resource_version);
                let secret = |field: &str| {
                    let name = fields["spec"][field]["name"].as_str()?;
                    Some(NameRef { name: name.to_owned() })
                };
                self.edit_host(&equipment.host, |host| {
                    host.annotations_mut().insert(names::INSTALL_SECRET_ANNOTATION.to_owned(), equipment.name.clone());
                    host.spec.installation_secret = secret("installationSecret");
                    host.spec.uninstallation_secret = secret("uninstallationSecret");
                });
            }
            Step::DryRun(_) => {}
            Step::Create(manifest) | Step::RecreateCluster { manifest, .. } => {
                let mut object = manifest.object.clone();
                self.revision += 1;
                let metadata = &mut object["metadata"];
                metadata["uid"] = json!(self.uid(&manifest.name));
                metadata["resourceVersion"] = json!(self.revision.to_string());
                metadata["generation"] = json!(1);
                metadata["creationTimestamp"] = json!(at(second));
                with_kind!(self, manifest.kind, map => { map.insert(manifest.name.clone(), from(object)); });
                self.applied.insert((manifest.kind, manifest.name.clone()), manifest.object.clone());
            }
            Step::Update(manifest, _) => self.apply_again(manifest.kind, &manifest.name, &manifest.object),
            Step::RestoreMarks(manifest, _) => {
                let wanted: ObjectMeta = from(manifest.object["metadata"].clone());
                with_kind!(self, manifest.kind, map => edit(&mut self.revision, map, &manifest.name, |object| {
                    object.labels_mut().extend(wanted.labels.unwrap_or_default());
                    object.annotations_mut().extend(wanted.annotations.unwrap_or_default());
                }));
            }
            Step::Reattach(reattachment) => {
                let machine: NameRef = from(reattachment.machine.clone());
                self.edit_host(&reattachment.host, |host| {
                    host.labels_mut().extend(reattachment.labels.clone());
                    host.annotations_mut().extend(reattachment.annotations.clone());
                    host.status.machine_ref = Some(machine);
                    for type_ in &reattachment.conditions {
                        condition(&mut host.status.conditions, type_, "True", "", "");
                    }
                });
            }
            Step::Annotate { kind: Kind::Machine, name, annotations, .. } => {
                self.edit_machine(name, |machine| patch(machine.annotations_mut(), annotations));
            }
            Step::Annotate { kind, name, annotations, .. } => {
                with_kind!(self, *kind, map => edit(&mut self.revision, map, name, |object| {
                    patch(object.annotations_mut(), annotations);
                }));
            }
            Step::Delete { kind: Kind::Machine, name, .. } => {
                self.edit_machine(name, |machine| machine.metadata.deletion_timestamp = Some(at(second)));
            }
            Step::Delete { kind, name, .. } => self.delete(*kind, name),
            Step::PatchSpec { kind, name, spec, .. } => self.set(*kind, name, spec),
            Step::GiveJob(order) => self.edit_host(&order.host, |host| {
                host.annotations_mut().insert(names::JOB_ANNOTATION.to_owned(), order.job.clone());
            }),
            Step::Adopt { kind, name, fields } => self.adopt(*kind, name, fields),
        }
        Ok(())
    }

    /// A patch of what Cluster API has made.
    fn adopt(&mut self, kind: Kind, name: &str, fields: &Value) {
        let version = |path: &str| fields.pointer(path).and_then(Value::as_str).map(ToOwned::to_owned);
        match kind {
            Kind::Machine => self.edit_machine(name, |machine| machine.spec.version = version("/spec/version")),
            Kind::MachineSet => {
                self.machine_sets.insert(name.to_owned(), version("/spec/template/spec/version").unwrap());
            }
            Kind::KubeadmConfig => {
                if fields.pointer("/spec/clusterConfiguration/featureGates").is_some() {
                    self.with_gate.remove(name);
                }
            }
            other => panic!("adopts a {}", other.name()),
        }
        self.revision += 1;
    }

    /// A patch of single fields.
    fn set(&mut self, kind: Kind, name: &str, spec: &Value) {
        if kind == Kind::Machine {
            return self.edit_machine(name, |machine| overlay(&mut machine.spec.deletion, &spec["deletion"]));
        }
        with_kind!(self, kind, map => edit(&mut self.revision, map, name, |object| {
            let meta = object.meta_mut();
            meta.generation = meta.generation.map(|generation| generation + 1);
        }));
        let replicas = || spec["replicas"].as_i64().and_then(|replicas| i32::try_from(replicas).ok());
        match kind {
            Kind::Cluster => self.clusters.get_mut(name).unwrap().spec.paused = spec["paused"].as_bool().unwrap(),
            Kind::KubeadmControlPlane => {
                let object = self.control_planes.get_mut(name).unwrap();
                object.spec.replicas = replicas().or(object.spec.replicas);
                if spec["rollout"].get("after").is_some() {
                    object.spec.rollout.after = None;
                }
                if let Some(version) = spec["version"].as_str() {
                    version.clone_into(&mut object.spec.version);
                    self.rolling.remove(name);
                    if spec["rollout"]["strategy"]["rollingUpdate"]["maxSurge"] == json!(0) {
                        self.rolling.insert(name.to_owned());
                    }
                }
                overlay(&mut object.spec.machine_template.spec.deletion, &spec["machineTemplate"]["spec"]["deletion"]);
            }
            Kind::MachineDeployment => {
                let object = self.deployments.get_mut(name).unwrap();
                object.spec.replicas = replicas().or(object.spec.replicas);
                if let Some(version) = spec["template"]["spec"]["version"].as_str() {
                    object.spec.template.spec.version = Some(version.to_owned());
                }
            }
            other => panic!("sets fields of a {}", other.name()),
        }
    }

    /// Server-side apply by an owner: what it does not send any more goes, what others have set stays.
    fn apply_again(&mut self, kind: Kind, name: &str, object: &Value) {
        let before = self.applied.insert((kind, name.to_owned()), object.clone()).unwrap_or_default();
        let map = |object: &Value, field: &str| -> BTreeMap<String, String> {
            from(match &object["metadata"][field] {
                Value::Null => json!({}),
                map => map.clone(),
            })
        };
        let patches = ["labels", "annotations"].map(|field| {
            let mut patch: BTreeMap<_, _> = map(&before, field).into_keys().map(|key| (key, None)).collect();
            patch.extend(map(object, field).into_iter().map(|(key, value)| (key, Some(value))));
            patch
        });
        let owners: Option<Vec<OwnerReference>> = from(object["metadata"]["ownerReferences"].clone());
        with_kind!(self, kind, map => edit(&mut self.revision, map, name, |object| {
            let meta = object.meta_mut();
            patch(meta.labels.get_or_insert_default(), &patches[0]);
            patch(meta.annotations.get_or_insert_default(), &patches[1]);
            if owners.is_some() {
                meta.owner_references = owners;
            }
            meta.generation = meta.generation.map(|generation| generation + 1);
        }));
        let spec = &object["spec"];
        match kind {
            Kind::Cluster => {
                let cluster = self.clusters.get_mut(name).unwrap();
                let (had, is) = (before["spec"]["paused"].as_bool(), cluster.spec.paused);
                cluster.spec = from(spec.clone());
                if spec["paused"].is_null() && had != Some(is) {
                    cluster.spec.paused = is;
                }
            }
            Kind::KubeadmControlPlane => self.control_planes.get_mut(name).unwrap().spec = from(spec.clone()),
            Kind::MachineDeployment => self.deployments.get_mut(name).unwrap().spec = from(spec.clone()),
            _ => {}
        }
    }

    /// A deletion: at once, or when the finalizers are gone.
    pub fn delete(&mut self, kind: Kind, name: &str) {
        let second = self.second;
        let finalizers = self.meta(kind, name).and_then(|meta| meta.finalizers.clone()).unwrap_or_default();
        if finalizers.is_empty() {
            self.remove(kind, name);
        } else if self.meta(kind, name).is_some_and(|meta| meta.deletion_timestamp.is_none()) {
            with_kind!(self, kind, map => edit(&mut self.revision, map, name, |object| {
                object.meta_mut().deletion_timestamp = Some(at(second));
            }));
        }
    }

    /// An object goes at once, finalizers or not.
    pub fn vanish(&mut self, kind: Kind, name: &str) {
        self.remove(kind, name);
    }

    fn remove(&mut self, kind: Kind, name: &str) {
        self.revision += 1;
        with_kind!(self, kind, map => { map.remove(name); });
        self.applied.remove(&(kind, name.to_owned()));
        if kind == Kind::MachineDeployment {
            self.machine_sets.remove(name);
        }
    }
}

fn patch(map: &mut BTreeMap<String, String>, changes: &BTreeMap<String, Option<String>>) {
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

/// Something that happens outside of the operator; the number chooses among the objects that it can happen to. False:
/// it cannot happen now.
pub type Move = fn(&mut World, usize) -> bool;

/// What Cluster API, BYOH and agents do by themselves. If all of these go on, everything settles.
pub const PROGRESS: [Move; 22] = [
    World::cluster_is_noticed,
    World::part_is_noticed,
    World::cluster_is_adopted,
    World::machine_is_made,
    World::machine_takes_a_host,
    World::host_is_bootstrapped,
    World::node_appears,
    World::node_becomes_ready,
    World::counters_are_updated,
    World::owner_scales_down,
    World::master_is_replaced,
    World::cluster_is_taken_down,
    World::machine_is_taken_down,
    World::agent_starts_cleaning,
    World::agent_lets_go,
    World::agent_ends_cleaning,
    World::leftovers_are_collected,
    World::pause_is_seen,
    World::host_runs_its_job,
    World::given_up_host_is_taken_back,
    World::new_dates_are_reported,
    World::support_bundle_is_made,
];

/// What people and failures do.
pub const TROUBLE: [Move; 34] = [
    World::worker_is_added,
    World::worker_is_removed,
    World::master_is_exchanged,
    World::request_is_deleted,
    World::labels_are_changed,
    World::script_fails,
    World::agent_falls_silent,
    World::agent_recovers,
    World::host_reports_other_addresses,
    World::host_is_unregistered,
    World::host_comes_back,
    World::stranger_claims_a_host,
    World::stranger_lets_go,
    World::stranger_makes_the_cluster,
    World::template_goes_or_comes,
    World::template_is_edited,
    World::resource_set_goes_or_comes,
    World::cluster_is_paused_or_resumed,
    World::cluster_is_deleted_by_hand,
    World::deployment_is_deleted_by_hand,
    World::replicas_are_changed_by_hand,
    World::byoh_goes_or_comes,
    World::cluster_vanishes,
    World::cluster_is_paused_by_annotation,
    World::host_is_registered_anew_in_use,
    World::control_plane_is_rolled_by_hand,
    World::version_is_changed,
    World::job_fails,
    World::server_dies,
    World::host_is_called_lost,
    World::certificates_end_soon,
    World::masters_are_changed,
    World::node_fails,
    World::files_are_ordered,
];

impl World {
    pub fn cluster_is_noticed(&mut self, _: usize) -> bool {
        let fresh = self
            .clusters
            .values()
            .find(|cluster| cluster.finalizers().is_empty() && cluster.metadata.deletion_timestamp.is_none());
        let Some(name) = fresh.map(kube::ResourceExt::name_any) else { return false };
        self.edit_cluster(&name, |cluster| cluster.finalizers_mut().push(FINALIZER.to_owned()));
        true
    }

    /// Cluster API works on it.
    fn runs(&self, cluster: &str) -> bool {
        let is_paused =
            |meta: &ObjectMeta| meta.annotations.as_ref().is_some_and(|all| all.contains_key(PAUSED_ANNOTATION));
        // Coarser than Cluster API: a part that is paused stops all of them.
        let parts = self.parts(cluster);
        let is_held = parts.iter().any(|(kind, name)| self.meta(*kind, name).is_some_and(is_paused));
        self.clusters.get(cluster).is_some_and(|object| {
            !is_held
                && !is_paused(&object.metadata)
                && !object.spec.paused
                && !object.finalizers().is_empty()
                && self.applied.contains_key(&(Kind::Cluster, cluster.to_owned()))
        })
    }

    fn cluster_of(&self, kind: Kind, name: &str) -> String {
        let labels = self.meta(kind, name).and_then(|meta| meta.labels.as_ref());
        labels.and_then(|labels| labels.get(CLUSTER_NAME_LABEL)).cloned().unwrap_or_default()
    }

    fn parts(&self, cluster: &str) -> Vec<(Kind, String)> {
        let kinds = [Kind::KubeadmControlPlane, Kind::ByoCluster, Kind::MachineDeployment];
        let parts =
            self.applied.keys().filter(|(kind, name)| kinds.contains(kind) && self.cluster_of(*kind, name) == cluster);
        parts.cloned().collect()
    }

    /// The controller of a part adds its finalizer, whether or not it may work on it.
    pub fn part_is_noticed(&mut self, _: usize) -> bool {
        let kinds = [Kind::KubeadmControlPlane, Kind::ByoCluster, Kind::MachineDeployment];
        let parts: Vec<_> = self.applied.keys().filter(|(kind, _)| kinds.contains(kind)).cloned().collect();
        let is_fresh = |meta: &ObjectMeta| meta.finalizers.is_none() && meta.deletion_timestamp.is_none();
        let Some((kind, name)) = parts.into_iter().find(|(kind, name)| self.meta(*kind, name).is_some_and(is_fresh))
        else {
            return false;
        };
        with_kind!(self, kind, map => edit(&mut self.revision, map, &name, |object| {
            object.meta_mut().finalizers = Some(vec![FINALIZER.to_owned()]);
        }));
        true
    }

    pub fn cluster_is_adopted(&mut self, _: usize) -> bool {
        let clusters: Vec<_> =
            self.clusters.values().filter(|cluster| cluster.metadata.deletion_timestamp.is_none()).cloned().collect();
        for cluster in clusters {
            let name = cluster.name_any();
            if !self.runs(&name) {
                continue;
            }
            let owner: OwnerReference = from(
                json!({"apiVersion": Kind::Cluster.api_version(), "kind": "Cluster", "name": name, "uid": cluster.uid()}),
            );
            let parts = self.parts(&name);
            let fresh = parts
                .iter()
                .find(|(kind, part)| self.meta(*kind, part).is_some_and(|meta| meta.owner_references.is_none()));
            if let Some((kind, part)) = fresh {
                with_kind!(self, *kind, map => edit(&mut self.revision, map, part, |object| {
                    object.meta_mut().owner_references = Some(vec![owner]);
                }));
                return true;
            }
            let ready = parts.iter().any(|(kind, _)| *kind == Kind::ByoCluster);
            if ready && self.infrastructure_ready.insert(cluster.uid().unwrap()) {
                self.edit_cluster(&name, |_| ());
                return true;
            }
        }
        false
    }

    fn machines_of(&self, kind: Kind, name: &str) -> Vec<&ModelMachine> {
        self.machines.values().filter(|machine| machine.owner == (kind, name.to_owned())).collect()
    }

    /// Machine templates and counts of everything that makes Machines.
    fn owners(&self) -> Vec<(Kind, String, usize, Value, String)> {
        let count = |replicas: Option<i32>| usize::try_from(replicas.unwrap_or_default()).unwrap_or_default();
        let mut owners = Vec::new();
        for (name, object) in &self.control_planes {
            let spec = &self.applied[&(Kind::KubeadmControlPlane, name.clone())]["spec"];
            let wanted =
                if object.is_initialized() { count(object.spec.replicas) } else { count(object.spec.replicas).min(1) };
            owners.push((
                Kind::KubeadmControlPlane,
                name.clone(),
                wanted,
                spec["machineTemplate"].clone(),
                object.spec.version.clone(),
            ));
        }
        for (name, object) in &self.deployments {
            let template = self.applied[&(Kind::MachineDeployment, name.clone())]["spec"]["template"].clone();
            let version = object.spec.template.spec.version.clone().unwrap_or_default();
            let cluster = self.cluster_of(Kind::MachineDeployment, name);
            let initialized = self.control_planes.iter().any(|(name, object)| {
                object.is_initialized() && self.cluster_of(Kind::KubeadmControlPlane, name) == cluster
            });
            // What is there stays when the control plane goes.
            let most = if initialized { usize::MAX } else { self.machines_of(Kind::MachineDeployment, name).len() };
            let wanted = count(object.spec.replicas).min(most);
            owners.push((Kind::MachineDeployment, name.clone(), wanted, template, version));
        }
        owners.retain(|(kind, name, ..)| {
            self.meta(*kind, name).is_some_and(|meta| {
                meta.deletion_timestamp.is_none() && meta.finalizers.is_some() && meta.owner_references.is_some()
            })
        });
        owners
    }

    /// Cluster API changes a control plane only while no master is being deleted, and each is healthy, but for one that is to go.
    fn is_stable(&self, control_plane: &str, but: Option<&str>) -> bool {
        self.machines_of(Kind::KubeadmControlPlane, control_plane).iter().all(|machine| {
            let record = &machine.record;
            let is_healthy = Condition::is_true(&record.status.conditions, "NodeHealthy");
            record.metadata.deletion_timestamp.is_none() && (is_healthy || Some(record.name_any().as_str()) == but)
        })
    }

    /// Whether the others keep etcd's quorum without this master, which is being deleted.
    fn keeps_quorum_without(&self, name: &str) -> bool {
        let machine = &self.machines[name];
        let (kind, owner) = &machine.owner;
        let others = self.machines_of(*kind, owner);
        let others: Vec<_> = others.into_iter().filter(|other| other.record.name_any() != name).collect();
        let is_deleted = |meta: Option<&ObjectMeta>| meta.is_none_or(|meta| meta.deletion_timestamp.is_some());
        if *kind != Kind::KubeadmControlPlane || others.is_empty() || is_deleted(self.meta(*kind, owner)) {
            return true;
        }
        let nodes = others.iter().filter(|other| other.record.was_a_node()).count();
        let is_healthy = |other: &&&ModelMachine| Condition::is_true(&other.record.status.conditions, "NodeHealthy");
        let healthy = others.iter().filter(is_healthy).count();
        healthy > 0 && (!machine.record.was_a_node() || healthy > nodes / 2)
    }

    pub fn machine_is_made(&mut self, pick_: usize) -> bool {
        let wanting: Vec<_> = self
            .owners()
            .into_iter()
            .filter(|(kind, name, wanted, template, _)| {
                let cluster = self.cluster_of(*kind, name);
                let alive = self.clusters.get(&cluster).is_some_and(|cluster| {
                    cluster.metadata.deletion_timestamp.is_none()
                        && self.infrastructure_ready.contains(&cluster.uid().unwrap())
                });
                let has_template = self
                    .machine_templates
                    .contains_key(template["spec"]["infrastructureRef"]["name"].as_str().unwrap());
                let is_due = self.machines_of(*kind, name).len() < *wanted
                    && (*kind == Kind::MachineDeployment || self.is_stable(name, None));
                alive && has_template && self.runs(&cluster) && is_due
            })
            .collect();
        let Some((kind, owner, _, template, version)) = pick(wanting, pick_) else { return false };
        self.serial += 1;
        self.revision += 1;
        let name = format!("{owner}-{}", self.serial);
        let template_name = template["spec"]["infrastructureRef"]["name"].as_str().unwrap().to_owned();
        let spec = self.applied[&(Kind::ByoMachineTemplate, template_name.clone())]["spec"]["template"]["spec"].clone();
        let mut labels = template["metadata"]["labels"].clone();
        if kind == Kind::KubeadmControlPlane {
            labels[CONTROL_PLANE_LABEL] = json!("");
            if parse(&version).unwrap().minor < 36 {
                self.with_gate.insert(name.clone());
            }
        } else {
            labels[SET_NAME_LABEL] = json!(owner);
            self.machine_sets.insert(owner.clone(), version.clone());
        }
        let uid = self.uid(&name);
        let mut record: Machine = from(json!({
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": uid, "labels": labels, "resourceVersion": self.revision.to_string(),
                "creationTimestamp": at(self.second)},
            "spec": {"infrastructureRef": {"name": name}, "bootstrap": {"configRef": {"name": name}}, "version": version},
        }));
        overlay(&mut record.spec.deletion, &template["spec"]["deletion"]);
        self.machines.insert(
            name,
            ModelMachine {
                record,
                cluster: self.cluster_of(kind, &owner),
                owner: (kind, owner),
                template: template_name,
                version,
                selector: from(spec["selector"]["matchLabels"].clone()),
                installer: spec["installerRef"].is_object(),
            },
        );
        true
    }

    /// The host that BYOH takes for a machine's.
    fn host_of(&self, machine: &str) -> Option<String> {
        let label = format!("{NAMESPACE}.{machine}");
        self.hosts
            .values()
            .find(|host| host.labels().get(MACHINE_NAME_LABEL) == Some(&label))
            .map(kube::ResourceExt::name_any)
    }

    /// BYOH looks at the selector and at one label, nothing else.
    pub fn machine_takes_a_host(&mut self, pick_: usize) -> bool {
        let mut pairs = Vec::new();
        for (name, machine) in &self.machines {
            if machine.record.metadata.deletion_timestamp.is_some()
                || !self.runs(&machine.cluster)
                || self.host_of(name).is_some()
            {
                continue;
            }
            let fits = |host: &&ByoHost| {
                let labels = host.labels();
                !labels.contains_key(CLUSTER_NAME_LABEL)
                    && machine.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            };
            pairs.extend(self.hosts.values().filter(fits).map(|host| (name.clone(), host.name_any())));
        }
        let Some((machine, host)) = pick(pairs, pick_) else { return false };
        let ModelMachine { cluster, installer, version, .. } = self.machines[&machine].clone();
        let fork = self.dialect == ByohVariant::Platform9;
        self.edit_host(&host, |host| {
            host.labels_mut().insert(CLUSTER_NAME_LABEL.to_owned(), cluster);
            host.labels_mut().insert(MACHINE_NAME_LABEL.to_owned(), format!("{NAMESPACE}.{machine}"));
            host.annotations_mut().insert(MACHINE_VERSION_ANNOTATION.to_owned(), version);
            host.spec.bootstrap_secret = Some(NameRef { name: machine.clone() });
            let secret = |kind: &str| installer.then(|| NameRef { name: format!("byoh-{kind}-{machine}") });
            host.spec.installation_secret = secret("install");
            host.spec.uninstallation_secret = secret("uninstall").filter(|_| fork);
        });
        self.edit_host(&host, |host| {
            host.status.machine_ref = Some(NameRef { name: machine });
        });
        true
    }

    /// Whether agents run without `--skip-installation`.
    fn agents_install(&self) -> bool {
        let templates = self.templates.values().chain(self.stash.1.values());
        let mut methods = templates.map(|template| template.spec.install.method);
        methods.any(|method| method == InstallMethod::Installer)
    }

    fn agent_works(&self, host: &ByoHost) -> bool {
        let name = host.name_any();
        !self.silent.contains(&name)
            && !self.sick.contains(&name)
            && !host.annotations().contains_key(PAUSED_ANNOTATION)
    }

    pub fn host_is_bootstrapped(&mut self, pick_: usize) -> bool {
        let given = self.hosts.values().filter(|host| {
            host.status.machine_ref.is_some()
                && !host.bootstrapped()
                && !host.is_unregistering()
                && self.agent_works(host)
                && !self.cleaning.contains(&host.name_any())
                && (!self.agents_install()
                    || host.spec.installation_secret.is_some() && self.install_secrets.contains(&host.name_any()))
        });
        let Some(name) = pick(given.map(kube::ResourceExt::name_any).collect(), pick_) else { return false };
        let has_unit = self.install_secrets.contains(&name);
        self.edit_host(&name, |host| {
            condition(&mut host.status.conditions, BOOTSTRAP, "True", "", "");
            if has_unit {
                host.annotations_mut().insert(names::HOST_UNIT_ANNOTATION.to_owned(), "2".to_owned());
            }
        });
        true
    }

    /// Cluster API's controllers write down that an object is paused, or is not any more.
    pub fn pause_is_seen(&mut self, _: usize) -> bool {
        fn sees(meta: &ObjectMeta, conditions: &[Condition]) -> Option<&'static str> {
            let is_paused = meta.annotations.as_ref().is_some_and(|all| all.contains_key(PAUSED_ANNOTATION));
            (is_paused != Condition::is_true(conditions, "Paused")).then_some(if is_paused { "True" } else { "False" })
        }
        let planes = self.control_planes.values();
        let mut planes = planes.filter_map(|o| Some((o.name_any(), sees(&o.metadata, &o.status.conditions)?)));
        if let Some((name, status)) = planes.next() {
            edit(&mut self.revision, &mut self.control_planes, &name, |object| {
                condition(&mut object.status.conditions, "Paused", status, "", "");
            });
            return true;
        }
        let deployments = self.deployments.values();
        let mut deployments =
            deployments.filter_map(|o| Some((o.name_any(), sees(&o.metadata, &o.status.conditions)?)));
        let Some((name, status)) = deployments.next() else { return false };
        edit(&mut self.revision, &mut self.deployments, &name, |object| {
            condition(&mut object.status.conditions, "Paused", status, "", "");
        });
        true
    }

    /// The id and the state of a host's job that has not ended, with what it is for and its version.
    fn jobs(&self) -> Vec<(String, String, Option<String>)> {
        let works = self.hosts.values().filter(|host| !self.silent.contains(&host.name_any()));
        let jobs = works.filter_map(|host| {
            let id = host.annotations().get(names::JOB_ANNOTATION)?.split(' ').next()?.to_owned();
            let told = host.annotations().get(names::JOB_STATUS_ANNOTATION);
            let told: Value = told.map(|told| serde_json::from_str(told).unwrap()).unwrap_or_default();
            let state = told["state"].as_str().filter(|_| told["id"] == json!(id)).map(ToOwned::to_owned);
            Some((host.name_any(), id, state))
        });
        jobs.filter(|(.., state)| !matches!(state.as_deref(), Some("Done" | "Failed"))).collect()
    }

    fn report_job(&mut self, host: &str, id: &str, state: &str) {
        let told = json!({"id": id, "state": state, "snapshot": "v1-before", "message": "2 of 5: kubeadm upgrade"})
            .to_string();
        self.edit_host(host, |host| {
            host.annotations_mut().insert(names::JOB_STATUS_ANNOTATION.to_owned(), told);
        });
    }

    pub fn host_runs_its_job(&mut self, pick_: usize) -> bool {
        let Some((host, id, state)) = pick(self.jobs(), pick_) else { return false };
        if state.is_none() {
            self.report_job(&host, &id, "Running");
            return true;
        }
        if let Some(rest) = id.strip_prefix("upgrade-").or_else(|| id.strip_prefix("restore-")) {
            let version = rest.split('-').next().unwrap().to_owned();
            let nodes = self.machines.values();
            let node = nodes.map(|machine| &machine.record).find(|machine| machine.server() == Some(&host));
            let Some(name) = node.map(kube::ResourceExt::name_any) else { return false };
            self.edit_machine(&name, |machine| machine.status.node_info.kubelet_version = version);
        }
        self.report_job(&host, &id, "Done");
        true
    }

    /// The unit on a host reports its certificates.
    pub fn report_dates(&mut self, host: &str, dates: &Value) {
        self.edit_host(host, |host| {
            host.annotations_mut().insert(names::CERTIFICATES_ANNOTATION.to_owned(), dates.to_string());
        });
    }

    /// The unit on a host makes the support bundle that is ordered.
    pub fn support_bundle_is_made(&mut self, pick_: usize) -> bool {
        let works = self.hosts.values().filter(|host| !self.silent.contains(&host.name_any()));
        let ordered = works.filter_map(|host| {
            let name = host.annotations().get(names::SUPPORT_BUNDLE_ANNOTATION)?.clone();
            let told = host.annotations().get(names::SUPPORT_BUNDLE_STATUS_ANNOTATION);
            (!told.is_some_and(|told| told.contains(&format!("{name:?}")))).then(|| (host.name_any(), name))
        });
        let Some((host, name)) = pick(ordered.collect(), pick_) else { return false };
        let made =
            json!({"name": name, "state": "Done", "path": format!("/bundles/{name}"), "bytes": 7, "sha256": "ab"});
        self.edit_host(&host, |host| {
            host.annotations_mut().insert(names::SUPPORT_BUNDLE_STATUS_ANNOTATION.to_owned(), made.to_string());
        });
        true
    }

    /// The end of certificates in so many days.
    pub fn in_days(&self, days: i64) -> Timestamp {
        Timestamp::from_second(self.second + days * 86_400).unwrap()
    }

    /// The unit looks after a job that has renewed them.
    pub fn new_dates_are_reported(&mut self, _: usize) -> bool {
        let is_old = |host: &&ByoHost| {
            let text = |key: &str| host.annotations().get(key).cloned().unwrap_or_default();
            let told = text(names::JOB_STATUS_ANNOTATION);
            let is_done = told.contains("\"certificates-") && told.contains("\"Done\"");
            is_done && text(names::CERTIFICATES_ANNOTATION).contains("renew")
        };
        let Some(host) = self.hosts.values().find(is_old).map(kube::ResourceExt::name_any) else { return false };
        self.report_dates(&host, &json!({"agent": self.in_days(300), "controlPlane": self.in_days(365)}));
        true
    }

    /// Those of a control plane on one of its hosts.
    pub fn certificates_end_soon(&mut self, pick_: usize) -> bool {
        let masters = self.machines.values().map(|machine| &machine.record).filter(|machine| machine.is_master());
        let nodes = masters.filter_map(|machine| Some(machine.status.node_ref.as_ref()?.name.clone()));
        let has_unit = |name: &String| {
            let host = self.hosts.get(name);
            host.is_some_and(|host| host.annotations().contains_key(names::HOST_UNIT_ANNOTATION))
        };
        let Some(host) = pick(nodes.filter(has_unit).collect(), pick_) else { return false };
        let due = if pick_.is_multiple_of(5) { "Ended" } else { "Soon" };
        self.report_dates(&host, &json!({"agent": self.in_days(300), "controlPlane": self.in_days(50), "renew": due}));
        true
    }

    pub fn job_fails(&mut self, pick_: usize) -> bool {
        let Some((host, id, _)) = pick(self.jobs(), pick_) else { return false };
        self.report_job(&host, &id, "Failed");
        true
    }

    /// A request asks for the next version, patch or minor, of what its cluster has.
    pub fn version_is_changed(&mut self, pick_: usize) -> bool {
        let Some(name) = self.pick_request(pick_).filter(|name| self.frozen(name)) else { return false };
        let uid = self.requests[&name].uid().unwrap();
        let Some(control_plane) =
            self.control_planes.values().find(|object| object.labels().get(names::REQUEST_UID_LABEL) == Some(&uid))
        else {
            return false;
        };
        let strategies =
            self.templates.values().chain(self.stash.1.values()).map(|template| template.spec.upgrade.strategy);
        let is_rolling = strategies.into_iter().any(|strategy| strategy == UpgradeStrategy::Rolling);
        let masters = self.requests[&name].spec.template_parameters.hosts.as_ref().unwrap().masters.len();
        let is_possible = if is_rolling { masters >= 3 } else { self.agents_install() };
        if !is_possible || !control_plane.is_initialized() {
            return false;
        }
        let has = parse(&control_plane.spec.version).unwrap();
        let nodes =
            self.machines.values().filter_map(|machine| parse(&machine.record.status.node_info.kubelet_version));
        let newest = nodes.chain([has.clone()]).max().unwrap();
        let minor = newest.minor + u64::from(pick_ % 2 == 1 && newest.minor == has.minor);
        let version = format!("v1.{minor}.{}", newest.patch + 1);
        self.edit_request(&name, |request| request.spec.template_parameters.k8s_version = Some(version));
        true
    }

    fn edit_machine(&mut self, name: &str, change: impl FnOnce(&mut Machine)) {
        self.revision += 1;
        let machine = self.machines.get_mut(name).unwrap();
        change(&mut machine.record);
        machine.record.metadata.resource_version = Some(self.revision.to_string());
    }

    pub fn node_appears(&mut self, pick_: usize) -> bool {
        let mut ready = Vec::new();
        for (name, machine) in &self.machines {
            if machine.record.status.node_ref.is_none()
                && self.runs(&machine.cluster)
                && let Some(host) = self.host_of(name)
                && self.hosts[&host].bootstrapped()
            {
                ready.push((name.clone(), host, machine.version.clone(), machine.owner.clone()));
            }
        }
        let Some((name, host, version, owner)) = pick(ready, pick_) else { return false };
        self.edit_machine(&name, |machine| {
            machine.status.node_ref = Some(NameRef { name: host });
            machine.status.node_info.kubelet_version = version;
            condition(&mut machine.status.conditions, "NodeHealthy", "False", "Warning", "NodeNotReady");
        });
        if owner.0 == Kind::KubeadmControlPlane {
            edit(&mut self.revision, &mut self.control_planes, &owner.1, |object| {
                object.status.initialization.control_plane_initialized = true;
            });
        }
        true
    }

    pub fn node_becomes_ready(&mut self, pick_: usize) -> bool {
        let sleeping = self.machines.iter().filter(|(_, machine)| {
            machine.record.status.node_ref.as_ref().is_some_and(|node| !self.dead.contains(&node.name))
                && !Condition::is_true(&machine.record.status.conditions, "NodeHealthy")
                && machine.record.server().is_none_or(|host| !self.silent.contains(host))
        });
        let Some(name) = pick(sleeping.map(|(name, _)| name.clone()).collect(), pick_) else { return false };
        self.edit_machine(&name, |machine| condition(&mut machine.status.conditions, "NodeHealthy", "True", "", ""));
        true
    }

    pub fn counters_are_updated(&mut self, _: usize) -> bool {
        let mut changed = false;
        for (kind, name, _, template, version) in self.owners() {
            if !self.runs(&self.cluster_of(kind, &name)) {
                continue;
            }
            let machines = self.machines_of(kind, &name);
            let number = |count: usize| i32::try_from(count).unwrap();
            let healthy =
                |machine: &&&ModelMachine| Condition::is_true(&machine.record.status.conditions, "NodeHealthy");
            let current = |machine: &&&ModelMachine| {
                let has_version = machine.record.spec.version.as_deref() == Some(version.as_str());
                template["spec"]["infrastructureRef"]["name"] == json!(machine.template)
                    && (has_version || kind == Kind::MachineDeployment)
            };
            let counts = ReplicaStatus {
                observed_generation: self.meta(kind, &name).and_then(|meta| meta.generation),
                replicas: number(machines.len()),
                ready_replicas: number(machines.iter().filter(healthy).count()),
                up_to_date_replicas: number(machines.iter().filter(current).count()),
            };
            let differs = |old: &ReplicaStatus| format!("{old:?}") != format!("{counts:?}");
            let (second, all_ready) =
                (self.second, if counts.ready_replicas == counts.replicas { "True" } else { "False" });
            let count = |to: &mut ReplicaStatus, conditions: &mut Vec<Condition>| {
                condition_since(conditions, "MachinesReady", all_ready, second);
                *to = counts.clone();
            };
            if kind == Kind::KubeadmControlPlane && differs(&self.control_planes[&name].status.counts) {
                edit(&mut self.revision, &mut self.control_planes, &name, |object| {
                    count(&mut object.status.counts, &mut object.status.conditions);
                });
                changed = true;
            } else if kind == Kind::MachineDeployment && differs(&self.deployments[&name].status.counts) {
                edit(&mut self.revision, &mut self.deployments, &name, |object| {
                    count(&mut object.status.counts, &mut object.status.conditions);
                });
                changed = true;
            }
        }
        changed
    }

    pub fn owner_scales_down(&mut self, _: usize) -> bool {
        for (kind, name, wanted, ..) in self.owners() {
            let machines = self.machines_of(kind, &name);
            let (initial, leaving) = (
                machines.len(),
                machines.iter().filter(|machine| machine.record.metadata.deletion_timestamp.is_some()).count(),
            );
            let starting = kind == Kind::KubeadmControlPlane && !self.control_planes[&name].is_initialized();
            if starting || initial - leaving <= wanted || !self.runs(&self.cluster_of(kind, &name)) {
                continue;
            }
            // A machine that waits for a host goes first, and of masters one that is annotated, or else the oldest.
            let mut staying: Vec<_> = machines
                .iter()
                .filter(|machine| machine.record.metadata.deletion_timestamp.is_none())
                .map(|machine| machine.record.name_any())
                .collect();
            if kind == Kind::KubeadmControlPlane {
                let number = |machine: &str| machine.rsplit('-').next().unwrap().parse::<u32>().unwrap();
                staying.sort_by_key(|machine| (!self.is_annotated(machine), number(machine)));
                if !self.is_stable(&name, Some(&staying[0])) {
                    continue;
                }
                assert!(self.is_annotated(&staying[0]), "Cluster API chooses {} by itself", staying[0]);
            } else {
                staying.sort_by_key(|machine| self.host_of(machine).is_some());
            }
            let second = self.second;
            self.edit_machine(&staying[0], |machine| machine.metadata.deletion_timestamp = Some(at(second)));
            return true;
        }
        false
    }

    /// Cluster API replaces a master of another version; it deletes one before it makes its successor.
    pub fn master_is_replaced(&mut self, _: usize) -> bool {
        for (kind, name, wanted, _, version) in self.owners() {
            let is_paused = self
                .meta(kind, &name)
                .is_some_and(|meta| meta.annotations.as_ref().is_some_and(|all| all.contains_key(PAUSED_ANNOTATION)));
            let machines = self.machines_of(kind, &name);
            let is_due = kind == Kind::KubeadmControlPlane && self.rolling.contains(&name) && !is_paused;
            if !is_due || machines.len() != wanted || !self.runs(&self.cluster_of(kind, &name)) {
                continue;
            }
            let outdated = machines.iter().map(|machine| &machine.record);
            let outdated = outdated.filter(|machine| machine.spec.version.as_ref() != Some(&version));
            let is_healthy = |machine: &&Machine| Condition::is_true(&machine.status.conditions, "NodeHealthy");
            let number = |machine: &Machine| machine.name_any().rsplit('-').next().unwrap().parse::<u32>().unwrap();
            let chosen = outdated.min_by_key(|machine| (is_healthy(machine), number(machine)));
            let Some(chosen) = chosen.map(kube::ResourceExt::name_any) else { continue };
            if !self.is_stable(&name, Some(&chosen)) {
                continue;
            }
            let second = self.second;
            self.edit_machine(&chosen, |machine| machine.metadata.deletion_timestamp = Some(at(second)));
            return true;
        }
        false
    }

    /// A master has the annotation by which Cluster API chooses.
    pub fn is_annotated(&self, machine: &str) -> bool {
        self.machines[machine].record.annotations().contains_key(DELETE_MACHINE_ANNOTATION)
    }

    /// One stage of Cluster API's deletion: workers, control plane, infrastructure, the Cluster.
    pub fn cluster_is_taken_down(&mut self, _: usize) -> bool {
        let leaving: Vec<_> = self
            .clusters
            .values()
            .filter(|cluster| cluster.metadata.deletion_timestamp.is_some())
            .map(kube::ResourceExt::name_any)
            .collect();
        for cluster in leaving {
            if !self.runs(&cluster) {
                continue;
            }
            let owned: Vec<_> = self
                .parts(&cluster)
                .into_iter()
                // What its cache does not show is gone for Cluster API.
                .filter(|(kind, name)| self.meta(*kind, name).is_some_and(|meta| meta.owner_references.is_some()))
                .collect();
            let stage = [Kind::MachineDeployment, Kind::KubeadmControlPlane, Kind::ByoCluster]
                .into_iter()
                .map(|stage| owned.iter().filter(|(kind, _)| *kind == stage).collect::<Vec<_>>())
                .find(|parts| !parts.is_empty());
            let before = self.revision;
            match stage {
                None => self.remove(Kind::Cluster, &cluster),
                Some(parts) => {
                    for (kind, name) in parts {
                        self.delete(*kind, name);
                        if *kind == Kind::ByoCluster {
                            self.remove(*kind, name);
                        }
                    }
                }
            }
            if self.revision != before {
                return true;
            }
        }
        false
    }

    /// Owners that are deleted delete their Machines, and go when those are gone.
    pub fn machine_is_taken_down(&mut self, _: usize) -> bool {
        let second = self.second;
        let owners: Vec<_> = self
            .applied
            .keys()
            .filter(|(kind, name)| {
                matches!(kind, Kind::KubeadmControlPlane | Kind::MachineDeployment | Kind::ByoCluster)
                    && self.meta(*kind, name).is_some_and(|meta| meta.deletion_timestamp.is_some())
            })
            .cloned()
            .collect();
        for (kind, name) in owners {
            let cluster = self.cluster_of(kind, &name);
            let adopted = self.meta(kind, &name).is_some_and(|meta| meta.owner_references.is_some());
            // Without its Cluster it never goes.
            if !self.runs(&cluster) || !adopted {
                continue;
            }
            if self.machines_of(kind, &name).is_empty() {
                self.remove(kind, &name);
                return true;
            }
            let staying = self
                .machines_of(kind, &name)
                .into_iter()
                .find(|machine| machine.record.metadata.deletion_timestamp.is_none());
            if let Some(machine) = staying.map(|machine| machine.record.name_any()) {
                self.edit_machine(&machine, |machine| machine.metadata.deletion_timestamp = Some(at(second)));
                return true;
            }
        }
        // Harder than Cluster API: the drain of a node that does not answer never ends.
        let is_drained = |machine: &ModelMachine| {
            let is_dead = machine.record.server().is_some_and(|server| self.dead.contains(server));
            !is_dead
                || machine.record.annotations().contains_key(EXCLUDE_DRAINING_ANNOTATION)
                || self.clusters[&machine.cluster].metadata.deletion_timestamp.is_some()
        };
        let leaving = self.machines.values().find(|machine| {
            machine.record.metadata.deletion_timestamp.is_some()
                && self.runs(&machine.cluster)
                && is_drained(machine)
                && self.keeps_quorum_without(&machine.record.name_any())
        });
        let Some(name) = leaving.map(|machine| machine.record.name_any()) else { return false };
        if let Some(host) = self.host_of(&name) {
            self.edit_host(&host, |host| {
                host.annotations_mut().insert(UNREGISTERING_ANNOTATION.to_owned(), String::new());
            });
        }
        self.revision += 1;
        self.machines.remove(&name);
        true
    }

    pub fn agent_starts_cleaning(&mut self, pick_: usize) -> bool {
        let told =
            self.hosts.values().filter(|host| host.is_unregistering() && host.bootstrapped() && self.agent_works(host));
        let Some(name) = pick(told.map(kube::ResourceExt::name_any).collect(), pick_) else { return false };
        self.edit_host(&name, |host| {
            condition(&mut host.status.conditions, BOOTSTRAP, "False", "Info", "K8sNodeAbsent");
        });
        true
    }

    pub fn agent_lets_go(&mut self, pick_: usize) -> bool {
        let told = self
            .hosts
            .values()
            .filter(|host| host.is_unregistering() && !host.bootstrapped() && self.agent_works(host));
        let Some(name) = pick(told.map(kube::ResourceExt::name_any).collect(), pick_) else { return false };
        self.edit_host(&name, |host| {
            host.annotations_mut().remove(UNREGISTERING_ANNOTATION);
            host.labels_mut().remove(CLUSTER_NAME_LABEL);
            host.labels_mut().remove(MACHINE_NAME_LABEL);
            host.annotations_mut().remove(MACHINE_VERSION_ANNOTATION);
            host.spec.bootstrap_secret = None;
            host.spec.installation_secret = None;
        });
        self.cleaning.insert(name);
        true
    }

    /// The agent's last write does not look at whether BYOH has given the host away meanwhile.
    pub fn agent_ends_cleaning(&mut self, pick_: usize) -> bool {
        if let Some(name) = pick(self.cleaning.iter().cloned().collect(), pick_) {
            self.cleaning.remove(&name);
            self.edit_host(&name, |host| host.status.machine_ref = None);
            return true;
        }
        let done = self.hosts.values().find(|host| {
            host.spec.uninstallation_secret.is_some() && host.status.machine_ref.is_none() && !host.is_unregistering()
        });
        let Some(name) = done.map(kube::ResourceExt::name_any) else { return false };
        self.install_secrets.remove(&name);
        self.edit_host(&name, |host| host.spec.uninstallation_secret = None);
        true
    }

    /// The garbage collector.
    pub fn leftovers_are_collected(&mut self, _: usize) -> bool {
        let alive: BTreeSet<_> = self.clusters.values().filter_map(kube::ResourceExt::uid).collect();
        let orphan = self.applied.keys().find(|(kind, name)| {
            let meta = self.meta(*kind, name);
            let owners = meta.and_then(|meta| meta.owner_references.clone()).unwrap_or_default();
            !owners.is_empty()
                && !owners.iter().any(|owner| alive.contains(&owner.uid))
                && meta.is_some_and(|meta| meta.deletion_timestamp.is_none())
        });
        let Some((kind, name)) = orphan.cloned() else { return false };
        self.delete(kind, &name);
        true
    }

    /// Lets everything that goes on by itself go on, up to where it rests. True if anything did.
    pub fn run(&mut self) -> bool {
        let before = self.revision;
        for _ in 0..10_000 {
            if !PROGRESS.iter().any(|progress| progress(self, 0)) {
                return self.revision != before;
            }
        }
        panic!("the environment does not come to rest");
    }

    /// Reconciles and lets the environment go on, a few moves at a time and in no particular order, until both rest.
    pub fn settle(&mut self) {
        for _ in 0..400 {
            let before = self.revision;
            for name in self.requests.keys().cloned().collect::<Vec<_>>() {
                self.reconcile(&name);
                crate::rules::check_world(self);
            }
            for _ in 0..4 {
                // The revision is as good as a random number, and the same in every run.
                let chance = usize::try_from(self.revision).unwrap();
                (0..PROGRESS.len()).any(|offset| PROGRESS[(chance * 7 + offset) % PROGRESS.len()](self, chance));
                crate::rules::check_world(self);
            }
            self.second += 1;
            if self.revision == before {
                return;
            }
        }
        panic!("does not settle: {:#?}", self.requests.values().map(|request| &request.status).collect::<Vec<_>>());
    }

    // What people and failures do.

    fn pick_request(&self, pick_: usize) -> Option<String> {
        pick(
            self.requests
                .values()
                .filter(|request| request.metadata.deletion_timestamp.is_none())
                .map(kube::ResourceExt::name_any)
                .collect(),
            pick_,
        )
    }

    /// The rule of the CRD that freezes masters.
    fn frozen(&self, request: &str) -> bool {
        self.requests[request].status.as_ref().is_some_and(|status| status.provisioned_resource_set.is_some())
    }

    fn free_number(&self, request: &str, pick_: usize) -> Option<u32> {
        let asked = asked(&self.requests[request]);
        pick((1..=6).filter(|number| !asked.contains_key(&host_name(*number))).collect(), pick_)
    }

    /// The owner of a request orders a support bundle, or a snapshot.
    pub fn files_are_ordered(&mut self, pick_: usize) -> bool {
        let Some(name) = self.pick_request(pick_) else { return false };
        let annotation = [names::SUPPORT_BUNDLE_ANNOTATION, names::SNAPSHOT_ANNOTATION][pick_ % 2];
        let word = format!("word-{}", pick_ / 2);
        self.edit_request(&name, |request| {
            request.annotations_mut().insert(annotation.to_owned(), word);
        });
        true
    }

    pub fn worker_is_added(&mut self, pick_: usize) -> bool {
        let Some(name) = self.pick_request(pick_) else { return false };
        let Some(number) = self.free_number(&name, pick_ / 2) else { return false };
        self.edit_request(&name, |request| {
            request
                .spec
                .template_parameters
                .hosts
                .as_mut()
                .unwrap()
                .workers
                .push(from(host_refs(&[number])[0].clone()));
        });
        true
    }

    pub fn worker_is_removed(&mut self, pick_: usize) -> bool {
        let Some(name) = self.pick_request(pick_) else { return false };
        let workers = self.requests[&name].spec.template_parameters.hosts.as_ref().unwrap().workers.len();
        let Some(index) = pick((0..workers).collect(), pick_ / 2) else { return false };
        self.edit_request(&name, |request| {
            request.spec.template_parameters.hosts.as_mut().unwrap().workers.remove(index);
        });
        true
    }

    pub fn master_is_exchanged(&mut self, pick_: usize) -> bool {
        let Some(name) = self.pick_request(pick_).filter(|name| !self.frozen(name)) else { return false };
        let Some(number) = self.free_number(&name, pick_ / 2) else { return false };
        self.edit_request(&name, |request| {
            request.spec.template_parameters.hosts.as_mut().unwrap().masters[0] = from(host_refs(&[number])[0].clone());
        });
        true
    }

    /// One to five masters, some of them others than before, as the shipped policy allows it.
    pub fn masters_are_changed(&mut self, pick_: usize) -> bool {
        let Some(name) = self.pick_request(pick_) else { return false };
        let parameters = &self.requests[&name].spec.template_parameters;
        let planes = self.control_planes.values();
        let is_upgraded = planes
            .filter(|object| {
                object.labels().get(names::REQUEST_UID_LABEL) == self.requests[&name].metadata.uid.as_ref()
            })
            .any(|object| parameters.k8s_version.as_ref().is_some_and(|version| *version != object.spec.version));
        let is_left = self.machines.values().map(|machine| &machine.record).any(|machine| {
            machine.labels().get(names::REQUEST_UID_LABEL) == self.requests[&name].metadata.uid.as_ref()
                && parameters.k8s_version.is_some()
                && machine.spec.version != parameters.k8s_version
        });
        if parameters.control_plane_endpoint.is_none() || is_upgraded || is_left {
            return false;
        }
        let workers = &parameters.hosts.as_ref().unwrap().workers;
        let is_worker = |number: &u32| workers.iter().any(|worker| worker.name() == host_name(*number));
        // Any hosts, beginning with one or another.
        let numbers: Vec<u32> = (0..6).map(|at| (at * 5 + u32::try_from(pick_ / 2).unwrap()) % 6 + 1).collect();
        let numbers: Vec<u32> = numbers.into_iter().filter(|number| !is_worker(number)).collect();
        let count = [1, 3, 3, 5][pick_ / 12 % 4].min((numbers.len() - 1) / 2 * 2 + 1);
        self.edit_request(&name, |request| {
            request.spec.template_parameters.hosts.as_mut().unwrap().masters = from(host_refs(&numbers[..count]));
        });
        true
    }

    /// A node does not answer for a while.
    pub fn node_fails(&mut self, pick_: usize) -> bool {
        let nodes = self.machines.iter().filter(|(_, machine)| machine.record.was_a_node());
        let Some(name) = pick(nodes.map(|(name, _)| name.clone()).collect(), pick_) else { return false };
        self.edit_machine(&name, |machine| {
            condition(&mut machine.status.conditions, "NodeHealthy", "Unknown", "", "NodeConditionsFailed");
        });
        true
    }

    pub fn request_is_deleted(&mut self, pick_: usize) -> bool {
        let Some(name) = self.pick_request(pick_) else { return false };
        self.delete_request(&name);
        true
    }

    pub fn labels_are_changed(&mut self, pick_: usize) -> bool {
        let Some(name) = self.pick_request(pick_) else { return false };
        self.edit_request(&name, |request| {
            request.spec.template_parameters.labels = Some(BTreeMap::from([("rack".to_owned(), pick_.to_string())]));
        });
        true
    }

    pub fn script_fails(&mut self, pick_: usize) -> bool {
        let given = self
            .hosts
            .values()
            .filter(|host| host.status.machine_ref.is_some() && !host.bootstrapped() && !host.is_unregistering());
        let Some(name) = pick(given.map(kube::ResourceExt::name_any).collect(), pick_) else { return false };
        self.sick.insert(name.clone());
        self.edit_host(&name, |host| {
            condition(&mut host.status.conditions, BOOTSTRAP, "False", "Error", "CloudInitExecutionFailed");
        });
        true
    }

    /// Upstream's agents have no heartbeat: nothing is seen of it.
    pub fn agent_falls_silent(&mut self, pick_: usize) -> bool {
        let Some(name) = pick(self.hosts.keys().cloned().collect(), pick_) else { return false };
        self.silent.insert(name.clone());
        if self.dialect == ByohVariant::Platform9 {
            self.edit_host(&name, |host| {
                condition(&mut host.status.conditions, "AgentConnected", "False", "Warning", "HeartbeatTimeout");
            });
        }
        true
    }

    /// The power of a server fails: agent and node do not answer any more.
    pub fn server_dies(&mut self, pick_: usize) -> bool {
        let before = self.silent.clone();
        if !self.agent_falls_silent(pick_) {
            return false;
        }
        let Some(name) = self.silent.difference(&before).next().cloned() else { return false };
        self.dead.insert(name.clone());
        self.node_is_lost(&name);
        true
    }

    /// The cluster notices that the node of a dead server does not answer.
    fn node_is_lost(&mut self, host: &str) {
        let nodes = self.machines.values().map(|machine| &machine.record);
        let node =
            nodes.filter(|machine| machine.status.node_ref.is_some()).find(|machine| machine.server() == Some(host));
        let (second, Some(machine)) = (self.second, node.map(kube::ResourceExt::name_any)) else { return };
        self.edit_machine(&machine, |machine| {
            condition_since(&mut machine.status.conditions, "NodeHealthy", "Unknown", second);
        });
    }

    /// The owner of a request says that a host is lost, rightly or not.
    pub fn host_is_called_lost(&mut self, pick_: usize) -> bool {
        let Some(name) = pick(self.requests.keys().cloned().collect(), pick_) else { return false };
        let Some(host) = pick(self.hosts.keys().cloned().collect(), pick_ / 2) else { return false };
        self.call_lost(&name, &host);
        true
    }

    /// The owner of a request names these hosts as lost.
    pub fn call_lost(&mut self, request: &str, hosts: &str) {
        edit(&mut self.revision, &mut self.requests, request, |request| {
            request.annotations_mut().insert(names::LOST_HOSTS_ANNOTATION.to_owned(), hosts.to_owned());
        });
    }

    /// The operator's controller of hosts.
    pub fn given_up_host_is_taken_back(&mut self, _: usize) -> bool {
        let Some(Step::PatchHost(marks)) = self.hosts.values().find_map(take_back) else { return false };
        if marks.install_secret.is_some() {
            self.install_secrets.remove(&marks.host);
        }
        self.edit_host(&marks.host, |host| {
            patch(host.labels_mut(), &marks.labels);
            patch(host.annotations_mut(), &marks.annotations);
        });
        true
    }

    pub fn agent_recovers(&mut self, pick_: usize) -> bool {
        let Some(name) = pick(self.sick.union(&self.silent).cloned().collect(), pick_) else { return false };
        self.sick.remove(&name);
        self.dead.remove(&name);
        if self.silent.remove(&name) && self.dialect == ByohVariant::Platform9 {
            self.edit_host(&name, |host| condition(&mut host.status.conditions, "AgentConnected", "True", "", ""));
        }
        true
    }

    pub fn host_reports_other_addresses(&mut self, pick_: usize) -> bool {
        let Some(name) = pick(self.hosts.keys().cloned().collect(), pick_) else { return false };
        self.serial += 1;
        let address = format!("10.9.{}.{}/24", self.serial / 250, self.serial % 250);
        self.edit_host(&name, |host| host.status.network[0].ip_addrs.insert(0, address));
        true
    }

    pub fn host_is_unregistered(&mut self, pick_: usize) -> bool {
        let free = self
            .hosts
            .values()
            .filter(|host| host.in_use_reason().is_none() && !self.cleaning.contains(&host.name_any()));
        let Some(name) = pick(free.map(kube::ResourceExt::name_any).collect(), pick_) else { return false };
        self.revision += 1;
        let host = self.hosts.remove(&name).unwrap();
        self.stash.0.insert(name, host);
        true
    }

    pub fn host_comes_back(&mut self, pick_: usize) -> bool {
        if !self.byoh_installed {
            return false;
        }
        let Some(name) = pick(self.stash.0.keys().cloned().collect(), pick_) else { return false };
        let old = self.stash.0.remove(&name).unwrap();
        let number: u32 = name.trim_start_matches("target-").parse().unwrap();
        let with_id = old.host_id().is_some() && !old.annotations().contains_key(names::HOST_ID_SET_ANNOTATION);
        self.register(number, with_id);
        true
    }

    pub fn stranger_claims_a_host(&mut self, pick_: usize) -> bool {
        let free = self.hosts.values().filter(|host| host.holder().is_none());
        let Some(name) = pick(free.map(kube::ResourceExt::name_any).collect(), pick_) else { return false };
        self.edit_host(&name, |host| {
            host.labels_mut().insert(names::REQUEST_UID_LABEL.to_owned(), STRANGER.to_owned());
        });
        true
    }

    pub fn stranger_lets_go(&mut self, pick_: usize) -> bool {
        let theirs = self.hosts.values().filter(|host| host.holder() == Some(STRANGER));
        let Some(name) = pick(theirs.map(kube::ResourceExt::name_any).collect(), pick_) else { return false };
        self.edit_host(&name, |host| {
            host.labels_mut().remove(names::REQUEST_UID_LABEL);
        });
        true
    }

    /// A Cluster of the name that a request wants; or it goes again.
    pub fn stranger_makes_the_cluster(&mut self, pick_: usize) -> bool {
        let theirs = self.clusters.values().find(|cluster| cluster.labels().get(names::REQUEST_UID_LABEL).is_none());
        if let Some(name) = theirs.map(kube::ResourceExt::name_any) {
            self.remove(Kind::Cluster, &name);
            return true;
        }
        let Some(request) = self.pick_request(pick_) else { return false };
        let name = self.requests[&request].spec.template_parameters.cluster_name.clone().unwrap();
        if self.clusters.contains_key(&name) {
            return false;
        }
        self.revision += 1;
        let uid = self.uid("theirs");
        let cluster = from(
            json!({"metadata": {"name": name, "namespace": NAMESPACE, "uid": uid, "resourceVersion": self.revision.to_string(), "finalizers": [FINALIZER]}}),
        );
        self.clusters.insert(name, cluster);
        true
    }

    /// Other settings, and another default version.
    pub fn template_is_edited(&mut self, pick_: usize) -> bool {
        let Some(template) = self.templates.get_mut("base-v1") else { return false };
        let settings = json!({"preKubeadmCommands": [pick_.to_string()]});
        template.spec.kubeadm.workers = Some(settings.clone());
        template.spec.kubeadm.control_plane = Some(settings);
        template.spec.defaults.as_mut().unwrap()["k8sVersion"] = json!(format!("v1.33.{pick_}"));
        self.revision += 1;
        true
    }

    pub fn template_goes_or_comes(&mut self, _: usize) -> bool {
        self.revision += 1;
        std::mem::swap(&mut self.templates, &mut self.stash.1);
        true
    }

    pub fn resource_set_goes_or_comes(&mut self, _: usize) -> bool {
        self.revision += 1;
        std::mem::swap(&mut self.resource_sets, &mut self.stash.2);
        true
    }

    fn pick_cluster(&self, pick_: usize) -> Option<String> {
        let made = self.clusters.keys().filter(|name| self.applied.contains_key(&(Kind::Cluster, (*name).clone())));
        pick(made.cloned().collect(), pick_)
    }

    pub fn cluster_is_paused_or_resumed(&mut self, pick_: usize) -> bool {
        let Some(name) = self.pick_cluster(pick_).filter(|name| !self.clusters[name].is_creating()) else {
            return false;
        };
        self.edit_cluster(&name, |cluster| cluster.spec.paused = !cluster.spec.paused);
        true
    }

    pub fn cluster_is_deleted_by_hand(&mut self, pick_: usize) -> bool {
        let Some(name) = self.pick_cluster(pick_) else { return false };
        // Sooner than this it wedges, as somebody's own hand can.
        let is_adopted =
            |(kind, part): &(Kind, String)| self.meta(*kind, part).is_some_and(|meta| meta.owner_references.is_some());
        if !self.parts(&name).iter().all(is_adopted) {
            return false;
        }
        self.delete(Kind::Cluster, &name);
        true
    }

    /// As a move to another management cluster leaves it, or a hand that takes finalizers off: nothing under it is deleted.
    pub fn cluster_vanishes(&mut self, pick_: usize) -> bool {
        let Some(name) = self.pick_cluster(pick_).filter(|name| !self.clusters[name].is_creating()) else {
            return false;
        };
        let uid = self.clusters[&name].uid();
        if self.clusters[&name].metadata.deletion_timestamp.is_some() {
            return false;
        }
        self.remove(Kind::Cluster, &name);
        for (kind, part) in self.applied.keys().cloned().collect::<Vec<_>>() {
            let owners = self.meta(kind, &part).and_then(|meta| meta.owner_references.clone()).unwrap_or_default();
            if owners.iter().any(|owner| Some(&owner.uid) == uid.as_ref()) {
                with_kind!(self, kind, map => edit(&mut self.revision, map, &part, |object| {
                    object.meta_mut().owner_references = None;
                }));
            }
        }
        true
    }

    pub fn cluster_is_paused_by_annotation(&mut self, pick_: usize) -> bool {
        let parts: Vec<_> = self
            .applied
            .keys()
            .filter(|(kind, _)| {
                matches!(kind, Kind::Cluster | Kind::KubeadmControlPlane | Kind::ByoCluster | Kind::MachineDeployment)
            })
            .cloned()
            .collect();
        let Some((kind, name)) = pick(parts, pick_) else { return false };
        with_kind!(self, kind, map => edit(&mut self.revision, map, &name, |object| {
            object.annotations_mut().entry(PAUSED_ANNOTATION.to_owned()).or_default();
        }));
        true
    }

    /// The runbook for dead hosts, used on one that is not.
    pub fn host_is_registered_anew_in_use(&mut self, pick_: usize) -> bool {
        let nodes = self.machines.values().filter(|machine| machine.record.metadata.deletion_timestamp.is_none());
        let nodes = nodes.filter_map(|machine| Some(machine.record.status.node_ref.as_ref()?.name.clone()));
        let in_use = nodes.filter(|name| self.hosts.contains_key(name) && !self.cleaning.contains(name)).collect();
        let Some(name) = pick(in_use, pick_) else { return false };
        if self.hosts[&name].is_unregistering() {
            return false;
        }
        let old = self.hosts.remove(&name).unwrap();
        let number: u32 = name.trim_start_matches("target-").parse().unwrap();
        let with_id = old.host_id().is_some() && !old.annotations().contains_key(names::HOST_ID_SET_ANNOTATION);
        self.register(number, with_id);
        true
    }

    pub fn control_plane_is_rolled_by_hand(&mut self, pick_: usize) -> bool {
        let Some(name) = pick(self.control_planes.keys().cloned().collect(), pick_) else { return false };
        let second = self.second;
        edit(&mut self.revision, &mut self.control_planes, &name, |object| {
            object.spec.rollout.after = Some(at(second));
            object.spec.replicas = object.spec.replicas.map(|replicas| replicas + 2);
            object.metadata.generation = object.metadata.generation.map(|generation| generation + 1);
        });
        true
    }

    pub fn deployment_is_deleted_by_hand(&mut self, pick_: usize) -> bool {
        let Some(name) = pick(self.deployments.keys().cloned().collect(), pick_) else { return false };
        self.delete(Kind::MachineDeployment, &name);
        true
    }

    pub fn worker_machine_is_deleted_by_hand(&mut self, pick_: usize) -> bool {
        let machines = self.machines.values().filter(|machine| machine.owner.0 == Kind::MachineDeployment);
        let second = self.second;
        let Some(name) = pick(machines.map(|machine| machine.record.name_any()).collect(), pick_) else { return false };
        self.edit_machine(&name, |machine| {
            machine.metadata.deletion_timestamp.get_or_insert(at(second));
        });
        true
    }

    pub fn replicas_are_changed_by_hand(&mut self, pick_: usize) -> bool {
        let Some(name) = pick(self.deployments.keys().cloned().collect(), pick_) else { return false };
        edit(&mut self.revision, &mut self.deployments, &name, |object| {
            object.spec.replicas = Some(2);
            object.metadata.generation = object.metadata.generation.map(|generation| generation + 1);
        });
        true
    }

    /// Only before anything was made: with its kinds go all objects of them.
    pub fn byoh_goes_or_comes(&mut self, _: usize) -> bool {
        if self.byoh_installed {
            if !self.applied.is_empty()
                || !self.machines.is_empty()
                || !self.cleaning.is_empty()
                || self.hosts.values().any(|host| host.in_use_reason().is_some())
            {
                return false;
            }
            self.stash.0.append(&mut self.hosts);
        }
        self.byoh_installed = !self.byoh_installed;
        self.revision += 1;
        if self.byoh_installed {
            while self.host_comes_back(0) {}
        }
        true
    }

    /// What the status says about something that went is followed: it is taken back, or, where that is not possible, cleaned.
    pub fn speak_the_words(&mut self) {
        for name in self.requests.keys().cloned().collect::<Vec<_>>() {
            let message = self.assess(&name).status.provisioning_status.provisioning_message;
            for word in [names::RESTORE_ANNOTATION, names::CLEAN_ANNOTATION, names::RETRY_ANNOTATION] {
                let Some((_, rest)) = message.split_once(&format!("{word}=")) else { continue };
                let id: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-.,".contains(*c)).collect();
                edit(&mut self.revision, &mut self.requests, &name, |request| {
                    request.annotations_mut().insert(word.to_owned(), id);
                });
                break;
            }
        }
    }

    /// Undoes what keeps requests from being carried out, except for what other requests have.
    pub fn heal(&mut self) {
        if !self.byoh_installed {
            self.byoh_goes_or_comes(0);
        }
        while self.host_comes_back(0) || self.agent_recovers(0) || self.stranger_lets_go(0) {}
        if self.templates.is_empty() {
            self.template_goes_or_comes(0);
        }
        if self.resource_sets.is_empty() {
            self.resource_set_goes_or_comes(0);
        }
        let theirs: Vec<_> = self
            .clusters
            .values()
            .filter(|cluster| cluster.labels().get(names::REQUEST_UID_LABEL).is_none())
            .map(kube::ResourceExt::name_any)
            .collect();
        for name in theirs {
            self.remove(Kind::Cluster, &name);
        }
        for name in self.clusters.keys().cloned().collect::<Vec<_>>() {
            if !self.clusters[&name].is_creating() && self.clusters[&name].spec.paused {
                self.edit_cluster(&name, |cluster| cluster.spec.paused = false);
            }
        }
        for (kind, name) in self.applied.keys().cloned().collect::<Vec<_>>() {
            let meta = self.meta(kind, &name).cloned().unwrap_or_default();
            // The operator's own pause has a value.
            if meta.annotations.is_some_and(|all| all.get(PAUSED_ANNOTATION).is_some_and(String::is_empty)) {
                with_kind!(self, kind, map => edit(&mut self.revision, map, &name, |object| {
                    object.annotations_mut().remove(PAUSED_ANNOTATION);
                }));
            }
        }
        self.speak_the_words();
    }
}
