//! What to do next, as a function of what was asked and what was observed. Pure: the same input gives the same plan, and
//! a plan that has been carried out leaves an empty one.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::{Resource, ResourceExt as _};
use o2ims_types::cluster_template::InstallMethod;
use o2ims_types::{ProvisioningRequest, names};
use operator_kit::write::apply::content_hash;
use serde_json::{Value, json};

use super::observe::{Made, Observed};
use super::validate::{Refusal, Valid};
use super::{consent, reserve, teardown};
use crate::byoh::installer::Equipment;
use crate::byoh::reattachment::Reattachment;
use crate::byoh::templates::{installer_template_spec, machine_template_spec};
use crate::capi::contract::{CLUSTER_NAME_LABEL, Kind};
use crate::capi::read::Machine;
use crate::capi::{cluster, control_plane, workers};

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Protects a new request from deletion, as its template wants it.
    Protect,
    /// Before the first effect outside of the request.
    AddFinalizer,
    /// After the last one is undone.
    RemoveFinalizer,
    /// Takes the finalizer off and leaves everything else as it is.
    LetGo,
    /// Takes annotations off the request, if it is still as it was observed.
    DropWords(Vec<&'static str>),
    /// Sets (`Some`) or takes off (`None`) labels and annotations of a host, if it is still as it was observed.
    MarkHost(HostMarks),
    /// Gives a host its install scripts, if it is still as it was observed.
    EquipHost(Equipment),
    /// Makes an object; it must not be there.
    Create(Manifest),
    /// Changes an object; it must be the one with this UID.
    Change(Manifest, String),
    /// Puts the marks of the manifest back on an object that somebody took them off; it must be the one with this UID.
    Mark(Manifest, String),
    /// Deletes an object; it must be the one with this UID.
    Delete {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// It must also be as it was observed: nodes go with it, and somebody may just have paused it.
        resource_version: Option<String>,
    },
    /// Makes the Cluster again that went from under its parts, if this one of them is there.
    Restore {
        /// The Cluster; it must not be there.
        manifest: Manifest,
        /// Kind, name and UID of the part.
        part: (Kind, String, String),
    },
    /// Gives a host that was registered anew back to its Machine, if it is still as it was observed.
    Reattach(Reattachment),
    /// Sets (`Some`) or takes off (`None`) annotations of an object; it must be the one with this UID.
    Annotate {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// The annotations.
        annotations: BTreeMap<String, Option<String>>,
    },
    /// Sets fields of an object's spec and leaves the rest as it is; it must be the one with this UID.
    Set {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// The fields.
        spec: Value,
    },
}

/// Labels and annotations of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMarks {
    /// Name of the host.
    pub host: String,
    /// The host as it was observed.
    pub resource_version: String,
    /// Labels to set or to take off.
    pub labels: BTreeMap<String, Option<String>>,
    /// Annotations to set or to take off.
    pub annotations: BTreeMap<String, Option<String>>,
    /// The Secret with its install scripts, which goes first.
    pub drops_install_secret: Option<String>,
}

/// An object as it is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The whole of it, marks included.
    pub object: Value,
    /// Hash of it without marks.
    pub hash: String,
}

/// The steps that are due now. An empty list means: nothing to do, or wait for what is watched.
pub fn plan(request: &ProvisioningRequest, verdict: &Result<Valid, Refusal>, observed: &Observed) -> Vec<Step> {
    consent::allowed(due_steps(request, verdict, observed), observed)
}

fn due_steps(request: &ProvisioningRequest, verdict: &Result<Valid, Refusal>, observed: &Observed) -> Vec<Step> {
    if request.meta().deletion_timestamp.is_some() {
        return teardown::plan(request, observed);
    }
    if !observed.missing_providers.is_empty() {
        return Vec::new();
    }
    // A request that was restored from a backup may lack it, whatever is wrong with the request.
    if !has_finalizer(request) && (verdict.is_ok() || observed.runs_nodes()) {
        let protects = observed.template.as_ref().is_some_and(|template| template.spec.deletion_protection);
        let is_said = request.annotations().contains_key(names::DELETION_PROTECTION_ANNOTATION);
        return vec![if protects && !is_said { Step::Protect } else { Step::AddFinalizer }];
    }
    let unpaused = consent::unpause(request, observed);
    if !unpaused.is_empty() {
        return unpaused;
    }
    if observed.has_lost_its_cluster() {
        return consent::recover(request, observed);
    }
    if let Some(steps) = consent::clean(observed) {
        return steps;
    }
    if let Some(step) = consent::spent(request, observed) {
        return vec![step];
    }
    match verdict {
        Ok(valid) => provision(request, valid, observed),
        // Nothing is held for a request that cannot go on; but a cluster that is there is not touched.
        Err(_) if observed.cluster.is_none() => teardown::without_cluster(observed),
        Err(_) if observed.own_cluster().is_none() && observed.made.is_empty() => reserve::release_all(observed),
        Err(_) if observed.is_running() => {
            let mut steps = consent::reattach(request, observed);
            steps.extend(reserve::equipment(observed));
            steps.extend(reserve::release_unused(&request.namespace().unwrap_or_default(), observed));
            steps
        }
        Err(_) => Vec::new(),
    }
}

/// Whether the operator's finalizer is on the request.
pub fn has_finalizer(request: &ProvisioningRequest) -> bool {
    request.finalizers().iter().any(|finalizer| finalizer == names::FINALIZER)
}

fn provision(request: &ProvisioningRequest, valid: &Valid, observed: &Observed) -> Vec<Step> {
    let reattached = consent::reattach(request, observed);
    if !reattached.is_empty() {
        return reattached;
    }
    let claims = reserve::claims(request, valid, observed);
    if !claims.is_empty() {
        return claims;
    }
    let marks = Marks::of(request, valid, observed);
    let Some(existing) = observed.own_cluster() else {
        // A cluster that was deleted by somebody is made again, when its agents have cleaned the hosts of the old one. And from the
        // status on that says what is held nothing may change that the Cluster is made with.
        let clean = observed.held().all(|host| host.busy().is_none());
        let is_recorded = request.status.as_ref().is_some_and(|status| status.provisioned_resource_set.is_some());
        return if clean && is_recorded { vec![Step::Create(marks.manifest(creating(valid)))] } else { Vec::new() };
    };
    if existing.metadata.deletion_timestamp.is_some() {
        // By somebody else: that is no consent of the request's owner to delete masters that Cluster API leaves.
        return teardown::unpause(existing).into_iter().collect();
    }
    let wanted = children(valid, observed, &marks, &existing.uid().unwrap_or_default());
    if existing.is_being_made() {
        return finish_creation(valid, observed, &marks, &wanted);
    }
    let equipment = reserve::equipment(observed);
    if !equipment.is_empty() {
        return equipment;
    }
    if existing.labels().get(names::REQUEST_UID_LABEL).is_none() {
        return vec![Step::Mark(marks.manifest(cluster::cluster(valid)), existing.uid().unwrap_or_default())];
    }
    if let Some(step) = mark_control_plane(&wanted, observed) {
        return vec![step];
    }
    let wanted = still_needed(&wanted, observed);
    let mut steps = maintain(valid, observed, &wanted);
    steps.extend(surplus_masters(valid, observed));
    steps.extend(consent::note_restored(request, observed));
    if !consent::may_take_out(request, observed) {
        return steps;
    }
    if steps.is_empty() {
        steps.extend(prune(valid, observed, &wanted));
    }
    steps.extend(reserve::release_unasked(valid, observed));
    steps
}

/// While the Cluster is paused by the operator, everything is brought to what it should be; then it is let go.
fn finish_creation(valid: &Valid, observed: &Observed, marks: &Marks<'_>, wanted: &[Manifest]) -> Vec<Step> {
    if let (Some(_), Some(cluster)) = (consent::cut(observed), observed.own_cluster()) {
        return vec![Step::Annotate {
            kind: Kind::Cluster,
            name: cluster.name_any(),
            uid: cluster.uid().unwrap_or_default(),
            annotations: BTreeMap::from([(names::CLEANING_ANNOTATION.to_owned(), Some("true".to_owned()))]),
        }];
    }
    let mut steps: Vec<Step> = wanted.iter().filter_map(|manifest| due(manifest, observed)).collect();
    // The control plane's template takes every host that is held as a master, so the last unasked one goes first.
    if steps.is_empty() && !reserve::holds_unasked_master(valid, observed) {
        steps.extend(due(&marks.manifest(cluster::cluster(valid)), observed));
    }
    steps.extend(reserve::release_unasked(valid, observed));
    steps
}

/// Puts the marks back on a control plane that somebody took them off.
fn mark_control_plane(wanted: &[Manifest], observed: &Observed) -> Option<Step> {
    let existing = observed.control_plane.as_ref()?;
    if existing.labels().contains_key(names::REQUEST_UID_LABEL) || existing.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let manifest = wanted.iter().find(|manifest| manifest.kind == Kind::KubeadmControlPlane)?;
    Some(Step::Mark(manifest.clone(), existing.uid().unwrap_or_default()))
}

/// A running cluster is not rolled because its template, or this operator, would make it differently today: that would be
/// ten thousand sites at once. Objects that exist stay as they were made; only what is missing is made, and numbers of
/// machines that somebody changed by hand are set back.
fn maintain(valid: &Valid, observed: &Observed, wanted: &[Manifest]) -> Vec<Step> {
    let mut not_yet = unclean_workers(valid, observed);
    not_yet
        .extend(consent::orphaned_workers(observed).filter_map(|machine| machine.deployment().map(ToOwned::to_owned)));
    wanted
        .iter()
        .filter(|manifest| manifest.kind != Kind::MachineDeployment || !not_yet.contains(&manifest.name))
        .filter_map(|manifest| match observed.made.get(&(manifest.kind, manifest.name.clone())) {
            // A second control plane cannot be made for a cluster that is initialised: kubeadm would only join.
            None if manifest.kind == Kind::KubeadmControlPlane => None,
            None => Some(Step::Create(manifest.clone())),
            Some(made) => {
                let spec = drift(manifest, observed)?;
                (!made.deleting).then(|| Step::Set {
                    kind: manifest.kind,
                    name: manifest.name.clone(),
                    uid: made.uid.clone(),
                    spec,
                })
            }
        })
        .collect()
}

/// Of what would be made today, what the running cluster needs: objects by name, and the templates that are referred to,
/// by an object that exists or by one that is to be made.
fn still_needed(wanted: &[Manifest], observed: &Observed) -> Vec<Manifest> {
    let exists = |manifest: &Manifest| observed.made.contains_key(&(manifest.kind, manifest.name.clone()));
    let mut referred = observed.referred.clone();
    // A template for machines comes after the installer's template that it refers to, so the last one is asked first.
    let mut needed = Vec::new();
    for pass in [false, true] {
        for manifest in wanted.iter().filter(|manifest| manifest.kind.is_template() == pass).rev() {
            let needs = !pass || referred.contains(&(manifest.kind, manifest.name.clone()));
            if needs && !exists(manifest) {
                referred.extend(references(&manifest.object));
            }
            if needs {
                needed.push(manifest.clone());
            }
        }
    }
    needed.reverse();
    needed
}

/// The templates that an object refers to.
fn references(object: &Value) -> Vec<(Kind, String)> {
    let spec = &object["spec"];
    let machine = &spec["template"]["spec"];
    [
        (Kind::ByoMachineTemplate, &spec["machineTemplate"]["infrastructureRef"]),
        (Kind::ByoMachineTemplate, &machine["infrastructureRef"]),
        (Kind::KubeadmConfigTemplate, &machine["bootstrap"]["configRef"]),
        (Kind::K8sInstallerConfigTemplate, &machine["installerRef"]),
    ]
    .into_iter()
    .filter_map(|(kind, reference)| Some((kind, reference["name"].as_str()?.to_owned())))
    .collect()
}

/// MachineDeployments that are not there and whose hosts are not clean yet. BYOH gives a host away again while its agent
/// still has one write of the cleaning to make; that write then tears the new machine off, for ever.
fn unclean_workers(valid: &Valid, observed: &Observed) -> Vec<String> {
    let unclean =
        valid.workers.iter().filter(|host| observed.host(&host.name).is_some_and(|host| host.busy().is_some()));
    unclean
        .map(|host| names::worker(&valid.namespace, &valid.cluster, &host.name))
        .filter(|name| !observed.deployments.contains_key(name))
        .collect()
}

/// The Cluster as it is first made: paused, and marked as such. The field is not sent again when all is there, so that
/// from then on it is the users' to pause a cluster.
fn creating(valid: &Valid) -> Value {
    let mut object = cluster::cluster(valid);
    object["spec"]["paused"] = json!(true);
    object["metadata"]["annotations"][names::CREATING_ANNOTATION] = json!("true");
    object
}

/// Everything but the Cluster, in the order in which it is applied.
fn children(valid: &Valid, observed: &Observed, marks: &Marks<'_>, owner: &str) -> Vec<Manifest> {
    let namespace = &valid.namespace;
    let stem = names::control_plane(namespace, &valid.cluster);
    let template = |kind: Kind, stem: &str, spec: Value| marks.template(namespace, kind, stem, &spec, owner);
    let mut all = Vec::new();

    let installer = (valid.install.method == InstallMethod::Bundle)
        .then(|| installer_template_spec(&valid.install))
        .flatten()
        .map(|spec| template(Kind::K8sInstallerConfigTemplate, &valid.cluster, spec));
    let installer_name = installer.as_ref().map(|manifest| manifest.name.clone());
    all.extend(installer);

    all.push(marks.manifest(cluster::byo_cluster(valid)));
    let spec =
        machine_template_spec(&observed.uid, namespace, names::ROLE_CONTROL_PLANE, None, installer_name.as_deref());
    let masters = template(Kind::ByoMachineTemplate, &stem, spec);
    let control_plane = marks.manifest(control_plane::control_plane(valid, &observed.uid, &masters.name));
    all.extend([masters, control_plane]);

    if !valid.workers.is_empty() {
        let config = template(
            Kind::KubeadmConfigTemplate,
            &format!("{}-worker", valid.cluster),
            workers::config_template_spec(valid),
        );
        let config_name = config.name.clone();
        all.push(config);
        for host in &valid.workers {
            let name = names::worker(namespace, &valid.cluster, &host.name);
            let spec = machine_template_spec(
                &observed.uid,
                namespace,
                names::ROLE_WORKER,
                Some(&host.id),
                installer_name.as_deref(),
            );
            let machines = template(Kind::ByoMachineTemplate, &name, spec);
            let deployment = workers::machine_deployment(valid, &observed.uid, &name, &config_name, &machines.name);
            all.extend([machines, marks.manifest(deployment)]);
        }
    }
    all
}

/// The write that brings an object to what it should be, if it is not that yet.
fn due(manifest: &Manifest, observed: &Observed) -> Option<Step> {
    match observed.made.get(&(manifest.kind, manifest.name.clone())) {
        None => Some(Step::Create(manifest.clone())),
        Some(made) if made.deleting => None,
        Some(made) if made.applied_hash != manifest.hash => Some(Step::Change(manifest.clone(), made.uid.clone())),
        Some(_) => None,
    }
}

/// What somebody has changed by hand and cannot have: another number of machines, and a rollout of masters, for which there is no
/// spare host.
fn drift(manifest: &Manifest, observed: &Observed) -> Option<Value> {
    let (replicas, rollout) = match manifest.kind {
        Kind::KubeadmControlPlane => {
            let spec = &observed.control_plane.as_ref()?.spec;
            (spec.replicas, spec.rollout_after.is_some())
        }
        Kind::MachineDeployment => (observed.deployments.get(&manifest.name)?.spec.replicas, false),
        _ => return None,
    };
    let wanted = &manifest.object["spec"]["replicas"];
    let mut fields = serde_json::Map::new();
    if replicas.map(i64::from) != wanted.as_i64() {
        fields.insert("replicas".to_owned(), wanted.clone());
    }
    if rollout {
        fields.insert("rolloutAfter".to_owned(), Value::Null);
    }
    (!fields.is_empty()).then_some(Value::Object(fields))
}

/// Machines that a control plane made beyond the masters that were asked for, while somebody had scaled it or rolled it out. They
/// never get a host, and Cluster API does not scale down over an unhealthy Machine.
fn surplus_masters(valid: &Valid, observed: &Observed) -> Vec<Step> {
    let wanted = i32::try_from(valid.masters.len()).unwrap_or(i32::MAX);
    let settled = observed.control_plane.as_ref().is_some_and(|object| {
        object.status.initialized && object.spec.replicas == Some(wanted) && object.spec.rollout_after.is_none()
    });
    let masters: Vec<_> = observed.machines.iter().filter(|machine| machine.is_master()).collect();
    let (with_host, without_host): (Vec<_>, Vec<_>) = masters.into_iter().partition(|machine| {
        let name = &machine.spec.infrastructure_ref.name;
        machine.was_a_node() || observed.hosts.values().any(|host| host.attached_machine() == Some(name))
    });
    if !settled || with_host.len() < valid.masters.len() {
        return Vec::new();
    }
    let stays = |machine: &&Arc<Machine>| machine.metadata.deletion_timestamp.is_none();
    without_host.into_iter().filter(stays).map(|machine| delete(Kind::Machine, machine.as_ref())).collect()
}

/// What was made for an earlier form of the request: MachineDeployments at once, templates when nothing refers to them and
/// nothing rolls any more.
fn prune(valid: &Valid, observed: &Observed, wanted: &[Manifest]) -> Vec<Step> {
    let is_wanted =
        |kind: &Kind, name: &String| wanted.iter().any(|manifest| manifest.kind == *kind && manifest.name == *name);
    let settled = observed
        .control_plane
        .as_ref()
        .is_some_and(|object| object.status.counts.complete(valid.masters.len(), object.metadata.generation))
        && observed.deployments.values().all(|object| object.status.complete(1, object.metadata.generation))
        // A worker that is going may still need its template.
        && observed.deployments.keys().all(|name| is_wanted(&Kind::MachineDeployment, name));
    observed
        .made
        .iter()
        .filter(|((kind, name), made)| {
            let kept =
                *kind == Kind::Cluster || is_wanted(kind, name) || observed.referred.contains(&(*kind, name.clone()));
            !kept && !made.deleting && (*kind == Kind::MachineDeployment || settled)
        })
        .map(|((kind, name), made)| made.delete(*kind, name))
        .collect()
}

/// Deletes an object with which nodes go.
pub fn delete<K: Resource<DynamicType = ()>>(kind: Kind, object: &K) -> Step {
    let meta = object.meta();
    Step::Delete {
        kind,
        name: object.name_any(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone(),
    }
}

impl Made {
    /// Deletes it.
    pub fn delete(&self, kind: Kind, name: &str) -> Step {
        let with_nodes = matches!(kind, Kind::Cluster | Kind::KubeadmControlPlane | Kind::MachineDeployment);
        let resource_version = with_nodes.then(|| self.version.to_string());
        Step::Delete { kind, name: name.to_owned(), uid: self.uid.clone(), resource_version }
    }
}

/// The marks on everything that is made for a request.
pub struct Marks<'a> {
    /// Name of the cluster.
    pub cluster: &'a str,
    /// The request's mark.
    pub uid: &'a str,
    /// `namespace/name` of the request.
    pub request: String,
}

impl<'a> Marks<'a> {
    fn of(request: &ProvisioningRequest, valid: &'a Valid, observed: &'a Observed) -> Self {
        Self { cluster: &valid.cluster, uid: &observed.uid, request: key(request) }
    }

    /// Puts the marks on an object.
    pub fn manifest(&self, mut object: Value) -> Manifest {
        let hash = content_hash(&object);
        let metadata = &mut object["metadata"];
        metadata["labels"][CLUSTER_NAME_LABEL] = json!(self.cluster);
        metadata["labels"][names::REQUEST_UID_LABEL] = json!(self.uid);
        metadata["annotations"][names::REQUEST_ANNOTATION] = json!(self.request);
        metadata["annotations"][names::APPLIED_HASH_ANNOTATION] = json!(hash);
        let kind = Kind::MADE.into_iter().find(|kind| object["kind"] == kind.name()).unwrap_or(Kind::Cluster);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Manifest { kind, name, object, hash }
    }

    /// An immutable template: named after its content, and collected with the Cluster.
    fn template(&self, namespace: &str, kind: Kind, stem: &str, spec: &Value, owner: &str) -> Manifest {
        self.manifest(json!({
            "apiVersion": kind.api_version(),
            "kind": kind.name(),
            "metadata": {
                "name": names::hashed(stem, &content_hash(spec)),
                "namespace": namespace,
                "ownerReferences": [{
                    "apiVersion": Kind::Cluster.api_version(),
                    "kind": Kind::Cluster.name(),
                    "name": self.cluster,
                    "uid": owner,
                }],
            },
            "spec": spec,
        }))
    }
}

/// `namespace/name` of a request.
pub fn key(request: &ProvisioningRequest) -> String {
    format!("{}/{}", request.namespace().unwrap_or_default(), request.name_any())
}
