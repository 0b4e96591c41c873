//! Adoption: Cluster API's objects are changed to the version that their nodes run already, so that Cluster API finds nothing to replace.
//!
//! A KubeadmControlPlane or MachineDeployment compares its Machines with itself. It is paused until all of them have the new version:
//! in between, one side differs, and Cluster API would create or delete Machines. The annotation of the pause names the version, so that an operator
//! that starts again finishes what was begun, whatever the request says by then.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_api::Kind;
use cluster_api::conditions::Condition;
use cluster_api::control_plane::KubeadmControlPlane;
use cluster_api::labels::{CERTIFICATES_EXPIRY_ANNOTATION, PAUSED_ANNOTATION};
use cluster_api::machine::{Machine, MachineDeployment};
use kube::{Resource, ResourceExt as _};
use serde_json::{Value, json};

use super::version::parse;
use crate::provisioner::byoh::observed::Observed;
use crate::provisioner::step::Step;

/// What the annotation of the operator's own pause begins with; the version follows.
const OWN_PAUSE: &str = "o2ims-operator adopts ";
/// The feature gate of kubeadm that Kubernetes has no more.
const LOCAL_MODE: &str = "ControlPlaneKubeletLocalMode";
/// The first minor version without the feature gate, which Cluster API sets in the KubeadmConfigs of older ones (`DefaultFeatureGates` of its
/// `desired_state.go`).
const WITHOUT_LOCAL_MODE: u64 = 36;

/// The version that the operator's own pause of an object names; `None` if it has none.
pub fn own_pause<K: Resource>(object: &K) -> Option<&str> {
    object.meta().annotations.as_ref()?.get(PAUSED_ANNOTATION)?.strip_prefix(OWN_PAUSE)
}

/// Pauses the control plane, whose masters all run this version.
pub fn begin_control_plane(control_plane: &KubeadmControlPlane, to: &str) -> Step {
    pause(Kind::KubeadmControlPlane, control_plane, Some(to))
}

/// Pauses the MachineDeployment of a worker, which runs this version.
pub fn begin_worker(deployment: &MachineDeployment, to: &str) -> Step {
    pause(Kind::MachineDeployment, deployment, Some(to))
}

/// The objects whose adoption has begun, as `KubeadmControlPlane core-control-plane`.
pub fn begun(observed: &Observed) -> Vec<String> {
    let control_plane = observed.control_plane.iter().filter(|object| own_pause(object.as_ref()).is_some());
    let control_plane =
        control_plane.map(|object| format!("{} {}", Kind::KubeadmControlPlane.name(), object.name_any()));
    let deployments = observed.deployments.values().filter(|object| own_pause(object.as_ref()).is_some());
    let deployments = deployments.map(|object| format!("{} {}", Kind::MachineDeployment.name(), object.name_any()));
    control_plane.chain(deployments).collect()
}

/// Removes the operator's own pauses, for a cluster that is deleted: Cluster API deletes no paused object.
pub fn give_up(observed: &Observed) -> Vec<Step> {
    let control_plane = observed.control_plane.iter().filter(|object| own_pause(object.as_ref()).is_some());
    let control_plane = control_plane.map(|object| pause(Kind::KubeadmControlPlane, object.as_ref(), None));
    let deployments = observed.deployments.values().filter(|object| own_pause(object.as_ref()).is_some());
    control_plane.chain(deployments.map(|object| pause(Kind::MachineDeployment, object.as_ref(), None))).collect()
}

/// The steps that finish the adoptions that have begun. None are due until Cluster API has seen the pause.
pub fn finish(observed: &Observed) -> Vec<Step> {
    let control_plane = observed.control_plane.iter().filter_map(|object| finish_control_plane(object, observed));
    let deployments = observed.deployments.values().filter_map(|object| finish_worker(object, observed));
    control_plane.chain(deployments).flatten().collect()
}

fn finish_control_plane(object: &KubeadmControlPlane, observed: &Observed) -> Option<Vec<Step>> {
    let to = own_pause(object)?;
    if !Condition::is_true(&object.status.conditions, "Paused") {
        return None;
    }
    let masters: Vec<_> = observed.machines.iter().filter(|machine| machine.is_master()).collect();
    let has_version = |machine: &&Arc<Machine>| machine.spec.version.as_deref() == Some(to);
    if object.spec.version == to && masters.iter().all(has_version) {
        return Some(vec![pause(Kind::KubeadmControlPlane, object, None)]);
    }
    let drops_gate = has_no_gate(to);
    let mut steps: Vec<_> = masters.iter().filter_map(|machine| adopt_config(machine, drops_gate)).collect();
    steps.extend(masters.iter().map(|machine| adopt_machine(machine, to)));
    // With a surge, Cluster API deletes no master before another one is there, should it find a difference after all.
    let rollout = json!({"strategy": {"rollingUpdate": {"maxSurge": 1}}});
    let mut spec = json!({"version": to, "rollout": rollout});
    if let Some(settings) = without_gate(object, to) {
        spec["kubeadmConfigSpec"] = settings;
    }
    let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
    steps.push(Step::PatchSpec { kind: Kind::KubeadmControlPlane, name, uid, spec });
    Some(steps)
}

fn has_no_gate(version: &str) -> bool {
    parse(version).is_some_and(|version| version.minor >= WITHOUT_LOCAL_MODE)
}

/// What takes the feature gate off the settings of a control plane that gets this version; `None` where it can stay, or is not there.
pub fn without_gate(object: &KubeadmControlPlane, to: &str) -> Option<Value> {
    let gates = &object.spec.kubeadm_config_spec.cluster_configuration.feature_gates;
    (has_no_gate(to) && gates.contains_key(LOCAL_MODE))
        .then(|| json!({"clusterConfiguration": {"featureGates": {LOCAL_MODE: null}}}))
}

fn finish_worker(object: &MachineDeployment, observed: &Observed) -> Option<Vec<Step>> {
    let to = own_pause(object)?;
    if !Condition::is_true(&object.status.conditions, "Paused") {
        return None;
    }
    let name = object.name_any();
    let machines: Vec<_> =
        observed.machines.iter().filter(|machine| machine.deployment() == Some(name.as_str())).collect();
    let has_version = |machine: &&Arc<Machine>| machine.spec.version.as_deref() == Some(to);
    if object.spec.template.spec.version.as_deref() == Some(to) && machines.iter().all(has_version) {
        return Some(vec![pause(Kind::MachineDeployment, object, None)]);
    }
    let template = json!({"template": {"spec": {"version": to}}});
    // The MachineSet comes first: it is not observed, and must have the version when the other two have it.
    let sets = machines.iter().filter_map(|machine| machine.set());
    let mut steps: Vec<_> = sets
        .map(|set| Step::Adopt { kind: Kind::MachineSet, name: set.to_owned(), fields: json!({"spec": template}) })
        .collect();
    steps.extend(machines.iter().map(|machine| adopt_machine(machine, to)));
    steps.push(Step::PatchSpec {
        kind: Kind::MachineDeployment,
        name,
        uid: object.uid().unwrap_or_default(),
        spec: template,
    });
    Some(steps)
}

/// The settings of a master for kubeadm: without the gate, and without the end of its certificates, which kubeadm has renewed. Cluster API reads that
/// again where it is missing, unless a user has set it on the Machine.
pub fn adopt_config(machine: &Machine, drops_gate: bool) -> Option<Step> {
    let name = machine.spec.bootstrap.config_ref.name.clone();
    let mut fields = json!({});
    if !machine.annotations().contains_key(CERTIFICATES_EXPIRY_ANNOTATION) {
        fields["metadata"] = json!({"annotations": {CERTIFICATES_EXPIRY_ANNOTATION: null}});
    }
    if drops_gate {
        fields["spec"] = json!({"clusterConfiguration": {"featureGates": {LOCAL_MODE: null}}});
    }
    (!name.is_empty() && fields != json!({})).then_some(Step::Adopt { kind: Kind::KubeadmConfig, name, fields })
}

fn adopt_machine(machine: &Machine, to: &str) -> Step {
    Step::Adopt { kind: Kind::Machine, name: machine.name_any(), fields: json!({"spec": {"version": to}}) }
}

fn pause<K: Resource>(kind: Kind, object: &K, to: Option<&str>) -> Step {
    Step::Annotate {
        kind,
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        resource_version: object.resource_version(),
        annotations: BTreeMap::from([(PAUSED_ANNOTATION.to_owned(), to.map(|to| format!("{OWN_PAUSE}{to}")))]),
    }
}
