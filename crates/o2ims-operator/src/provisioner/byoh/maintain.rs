//! Maintenance of a running cluster: missing objects are created, changes by other clients that the cluster cannot have are reverted, objects
//! that nothing refers to are deleted. An existing object is never changed to what it would be created as today.

use cluster_api::Kind;
use kube::ResourceExt as _;
use kube::core::ObjectMeta;
use o2ims_types::names;
use serde_json::{Map, Value, json};

use super::consent::unmanaged_workers;
use super::desired::DesiredCluster;
use super::manifests::cluster;
use super::marks::Marks;
use super::observed::Observed;
use super::rollout;
use super::scale::{self, is_needed, unclean_workers};
use crate::provisioner::step::{Manifest, Step};

/// Restores the marks of a Cluster or of a control plane that lacks them.
pub fn restore_marks(
    desired: &DesiredCluster,
    observed: &Observed,
    marks: &Marks<'_>,
    manifests: &[Manifest],
) -> Option<Step> {
    let lacks = |meta: &ObjectMeta| {
        meta.labels.as_ref().is_none_or(|labels| !labels.contains_key(names::REQUEST_UID_LABEL))
            && meta.deletion_timestamp.is_none()
    };
    if let Some(cluster) = observed.own_cluster().filter(|cluster| lacks(&cluster.metadata)) {
        let manifest = marks.manifest(Kind::Cluster, cluster::cluster(desired));
        return Some(Step::RestoreMarks(manifest, cluster.uid().unwrap_or_default()));
    }
    let control_plane = observed.control_plane.as_ref().filter(|object| lacks(&object.metadata))?;
    let manifest = manifests.iter().find(|manifest| manifest.kind == Kind::KubeadmControlPlane)?;
    Some(Step::RestoreMarks(manifest.clone(), control_plane.uid().unwrap_or_default()))
}

/// Creates what is missing, and reverts changes by other clients that the cluster cannot have. A change of the template or of the operator
/// never rolls a running cluster: it would roll every site at once.
pub fn maintain(desired: &DesiredCluster, observed: &Observed, manifests: &[Manifest]) -> Vec<Step> {
    let mut not_yet = unclean_workers(desired, observed);
    not_yet.extend(unmanaged_workers(observed).filter_map(|machine| machine.deployment().map(ToOwned::to_owned)));
    manifests
        .iter()
        .filter(|manifest| manifest.kind != Kind::MachineDeployment || !not_yet.contains(&manifest.name))
        .filter_map(|manifest| match observed.owned.get(&(manifest.kind, manifest.name.clone())) {
            // A second control plane cannot be created for a cluster that is initialized: kubeadm would only join.
            None if manifest.kind == Kind::KubeadmControlPlane => None,
            None => Some(Step::Create(manifest.clone())),
            Some(existing) => {
                let spec = reverted(manifest, observed)?;
                (!existing.deleting).then(|| Step::PatchSpec {
                    kind: manifest.kind,
                    name: manifest.name.clone(),
                    uid: existing.uid.clone(),
                    spec,
                })
            }
        })
        .collect()
}

/// The fields that revert a change by another client that the cluster cannot have: another number of machines, or a rollout.
fn reverted(manifest: &Manifest, observed: &Observed) -> Option<Value> {
    let mut fields = Map::new();
    if scale::is_resized(manifest, observed) {
        fields.insert("replicas".to_owned(), manifest.object["spec"]["replicas"].clone());
    }
    if rollout::is_requested(manifest, observed) {
        fields.insert("rollout".to_owned(), json!({"after": null}));
    }
    (!fields.is_empty()).then_some(Value::Object(fields))
}

/// Of what would be created today, what the running cluster needs: objects by name, and the templates that an object refers to which
/// exists or is to be created.
pub fn still_needed(manifests: &[Manifest], observed: &Observed) -> Vec<Manifest> {
    let exists = |manifest: &Manifest| observed.owned.contains_key(&(manifest.kind, manifest.name.clone()));
    let mut referenced = observed.referenced.clone();
    // A template for machines comes after the installer's template that it refers to, so the last one is looked at first.
    let mut needed = Vec::new();
    for pass in [false, true] {
        for manifest in manifests.iter().filter(|manifest| manifest.kind.is_template() == pass).rev() {
            let needs = !pass || referenced.contains(&(manifest.kind, manifest.name.clone()));
            if needs && !exists(manifest) {
                referenced.extend(references(&manifest.object));
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
        (Kind::ByoMachineTemplate, &spec["machineTemplate"]["spec"]["infrastructureRef"]),
        (Kind::ByoMachineTemplate, &machine["infrastructureRef"]),
        (Kind::KubeadmConfigTemplate, &machine["bootstrap"]["configRef"]),
        (Kind::K8sInstallerConfigTemplate, &machine["installerRef"]),
    ]
    .into_iter()
    .filter_map(|(kind, reference)| Some((kind, reference["name"].as_str()?.to_owned())))
    .collect()
}

/// Deletes templates that were created for an earlier form of the request, when nothing refers to them and no rollout is in progress.
pub fn prune(desired: &DesiredCluster, observed: &Observed, needed: &[Manifest]) -> Vec<Step> {
    let is_settled = observed
        .control_plane
        .as_ref()
        .is_some_and(|object| object.status.counts.complete(desired.masters.len(), object.metadata.generation))
        && observed.deployments.values().all(|object| object.status.counts.complete(1, object.metadata.generation))
        // A worker that is being removed may still need its template.
        && observed.deployments.keys().all(|name| is_needed(Kind::MachineDeployment, name, needed));
    if !is_settled {
        return Vec::new();
    }
    let is_kept = |kind: Kind, name: &str| {
        matches!(kind, Kind::Cluster | Kind::MachineDeployment)
            || is_needed(kind, name, needed)
            || observed.referenced.contains(&(kind, name.to_owned()))
    };
    let unused = observed.owned.iter().filter(|((kind, name), object)| !object.deleting && !is_kept(*kind, name));
    unused.map(|((kind, name), object)| object.delete(*kind, name)).collect()
}
