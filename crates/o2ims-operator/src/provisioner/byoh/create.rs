//! Creation: the Cluster first, paused; then everything that belongs to it; then the pause is removed, so that no controller sees a
//! cluster that is not complete.

use std::collections::BTreeMap;

use cluster_api::Kind;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::InstallMethod;
use o2ims_types::{ProvisioningRequest, names};
use serde_json::{Value, json};

use super::claim;
use super::desired::DesiredCluster;
use super::manifests::templates::{installer_template_spec, machine_template_spec};
use super::manifests::{cluster, control_plane, workers};
use super::marks::{MarkedCluster as _, Marks};
use super::observed::Observed;
use crate::provisioner::step::{Manifest, Step};

/// Creates the Cluster, once nothing can change any more what it is created with.
pub fn create_cluster(
    request: &ProvisioningRequest,
    desired: &DesiredCluster,
    observed: &Observed,
    marks: &Marks<'_>,
) -> Option<Step> {
    // A cluster that was deleted by another client is created again when the agents have cleaned the hosts of the old one.
    let is_clean = observed.held().all(|host| host.in_use_reason().is_none());
    // From the status on that names what is held, an edit of the request is refused.
    let is_recorded = request.status.as_ref().is_some_and(|status| status.provisioned_resource_set.is_some());
    (is_clean && is_recorded).then(|| Step::Create(new_cluster(desired, marks)))
}

/// While the operator has paused the Cluster, missing parts are created and others updated; then the pause is removed.
pub fn continue_creation(
    request: &ProvisioningRequest,
    desired: &DesiredCluster,
    observed: &Observed,
    marks: &Marks<'_>,
    wanted: &[Manifest],
) -> Vec<Step> {
    if let (Some(_), Some(cluster)) = (interrupted(observed), observed.own_cluster()) {
        return vec![Step::Annotate {
            kind: Kind::Cluster,
            name: cluster.name_any(),
            uid: cluster.uid().unwrap_or_default(),
            resource_version: None,
            annotations: BTreeMap::from([(names::CLEANING_ANNOTATION.to_owned(), Some("true".to_owned()))]),
        }];
    }
    let mut steps: Vec<Step> = wanted.iter().filter_map(|manifest| create_or_update(manifest, observed)).collect();
    // The control plane's template selects every host that is held as a master, so one that was removed from the request is released first.
    if steps.is_empty() && !claim::holds_removed_master(desired, observed) {
        steps.extend(create_or_update(&marks.manifest(Kind::Cluster, cluster::cluster(desired)), observed));
    }
    steps.extend(claim::release_removed(request, desired, observed));
    steps
}

/// The Cluster as it is first created: paused, and marked as such. The field is not applied again when everything exists, so that from
/// then on it belongs to users.
pub fn new_cluster(desired: &DesiredCluster, marks: &Marks<'_>) -> Manifest {
    let mut object = cluster::cluster(desired);
    object["spec"]["paused"] = json!(true);
    object["metadata"]["annotations"][names::CREATING_ANNOTATION] = json!("true");
    marks.manifest(Kind::Cluster, object)
}

/// Everything but the Cluster, in the order in which it is created. `uid` is the request's mark, `owner` the UID of the Cluster.
pub fn manifests(desired: &DesiredCluster, uid: &str, marks: &Marks<'_>, owner: &str) -> Vec<Manifest> {
    let namespace = &desired.namespace;
    let template = |kind: Kind, prefix: &str, spec: Value| marks.template(namespace, kind, prefix, &spec, owner);
    let installer = (desired.install.method == InstallMethod::Bundle)
        .then(|| installer_template_spec(&desired.install))
        .flatten()
        .map(|spec| template(Kind::K8sInstallerConfigTemplate, &desired.cluster, spec));
    let installer_name = installer.as_ref().map(|manifest| manifest.name.clone());
    let machines = |prefix: &str, role: &str, host_id: Option<&str>| {
        let spec = machine_template_spec(uid, namespace, role, host_id, installer_name.as_deref());
        template(Kind::ByoMachineTemplate, prefix, spec)
    };

    let byo_cluster = marks.manifest(Kind::ByoCluster, cluster::byo_cluster(desired));
    let masters = machines(&names::control_plane(namespace, &desired.cluster), names::ROLE_CONTROL_PLANE, None);
    let control_plane = control_plane::control_plane(desired, uid, &masters.name);
    let control_plane = marks.manifest(Kind::KubeadmControlPlane, control_plane);
    let mut all: Vec<_> = installer.iter().cloned().chain([byo_cluster, masters, control_plane]).collect();
    if desired.workers.is_empty() {
        return all;
    }
    let config = workers::config_template_spec(desired);
    let config = template(Kind::KubeadmConfigTemplate, &format!("{}-worker", desired.cluster), config);
    let config_name = config.name.clone();
    all.push(config);
    for host in &desired.workers {
        let name = names::worker(namespace, &desired.cluster, &host.name);
        let template = machines(&name, names::ROLE_WORKER, Some(&host.id));
        let deployment = workers::machine_deployment(desired, uid, &name, &config_name, &template.name);
        all.extend([template, marks.manifest(Kind::MachineDeployment, deployment)]);
    }
    all
}

/// The write that brings an object to what it should be, if it is not that yet.
fn create_or_update(manifest: &Manifest, observed: &Observed) -> Option<Step> {
    match observed.owned.get(&(manifest.kind, manifest.name.clone())) {
        None => Some(Step::Create(manifest.clone())),
        Some(existing) if existing.deleting => None,
        Some(existing) if existing.applied_hash != manifest.hash => {
            Some(Step::Update(manifest.clone(), existing.uid.clone()))
        }
        Some(_) => None,
    }
}

/// A part that is being deleted while its Cluster is being created and no node runs yet. With the pause removed the Cluster would lose it, and
/// a control plane cannot be created a second time.
pub fn interrupted(observed: &Observed) -> Option<&(Kind, String)> {
    let is_creating = observed.own_cluster().is_some_and(|cluster| cluster.is_creating()) && !observed.runs_nodes();
    observed.parts().find(|part| is_creating && observed.owned.get(part).is_some_and(|part| part.deleting))
}
