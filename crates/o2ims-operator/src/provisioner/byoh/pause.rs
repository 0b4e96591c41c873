//! Pauses: an object that is paused by the field or the annotation of Cluster API is not changed, nor is anything of a request that is paused by
//! its owner.

use std::sync::Arc;

use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use cluster_api::labels::{PAUSED_ANNOTATION, has_pause_annotation};
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::{ProvisioningRequest, names};

use super::marks::MarkedCluster as _;
use super::observed::Observed;
use super::upgrade::adoption::own_pause;
use crate::provisioner::step::{HostPatch, InstallScripts, JobOrder, Reattachment, Step};

/// A paused object of the request's cluster. The operator's own pauses, while it creates a cluster and in an upgrade, do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Paused {
    kind: Kind,
    name: String,
    /// `spec.paused`, or the annotation.
    by: String,
}

fn paused(observed: &Observed) -> Vec<Paused> {
    fn annotated<K: kube::Resource>(kind: Kind, object: &K) -> Option<Paused> {
        let by = format!("annotation {PAUSED_ANNOTATION}");
        (has_pause_annotation(object) && own_pause(object).is_none()).then(|| Paused {
            kind,
            name: object.name_any(),
            by,
        })
    }
    let spec = observed.own_cluster().filter(|cluster| cluster.spec.paused && !cluster.is_creating());
    let by_field =
        spec.map(|object| Paused { kind: Kind::Cluster, name: object.name_any(), by: "spec.paused".to_owned() });
    let mut all: Vec<_> = by_field.into_iter().collect();
    all.extend(observed.own_cluster().and_then(|object| annotated(Kind::Cluster, object.as_ref())));
    let control_plane = observed.control_plane.iter();
    all.extend(control_plane.filter_map(|object| annotated(Kind::KubeadmControlPlane, object.as_ref())));
    all.extend(observed.byo_cluster.iter().filter_map(|object| annotated(Kind::ByoCluster, object.as_ref())));
    let deployments = observed.deployments.values();
    all.extend(deployments.filter_map(|object| annotated(Kind::MachineDeployment, object.as_ref())));
    all.extend(observed.machines.iter().filter_map(|object| annotated(Kind::Machine, object.as_ref())));
    all.extend(observed.held().filter_map(|object| annotated(Kind::ByoHost, object.as_ref())));
    all
}

/// The annotation by which the owner of the request has paused it.
pub fn of_request(request: &ProvisioningRequest) -> Option<&'static str> {
    let is_set = |name: &&str| request.annotations().get(*name).is_some_and(|value| value != "false");
    [names::PLAN_ANNOTATION, names::PAUSED_ANNOTATION].into_iter().find(is_set)
}

/// The paused objects, as `Cluster core (spec.paused)`.
pub fn pauses(observed: &Observed) -> Vec<String> {
    let all = paused(observed);
    // BYOH pauses the hosts of a paused cluster by itself.
    let only_hosts = all.iter().all(|paused| paused.kind == Kind::ByoHost);
    let told = all.into_iter().filter(|paused| only_hosts || paused.kind != Kind::ByoHost);
    told.map(|Paused { kind, name, by }| format!("{} {name} ({by})", kind.name())).collect()
}

/// The steps that are allowed: a paused object is not changed; where Cluster, KubeadmControlPlane or ByoCluster is paused, no object of the
/// cluster is. A deletion of machines waits until neither they nor their hosts are paused: an agent does not clean a paused host, and BYOH,
/// which pauses the hosts of a paused cluster, removes its pause only from hosts whose Machine exists.
pub fn allowed(steps: Vec<Step>, observed: &Observed) -> Vec<Step> {
    let all = paused(observed);
    let is_paused = |kind: Kind, name: &str| all.iter().any(|paused| paused.kind == kind && paused.name == name);
    let halves = [Kind::Cluster, Kind::KubeadmControlPlane, Kind::ByoCluster];
    let pauses_all = all.iter().any(|paused| halves.contains(&paused.kind));
    let waits = |step: &Step| match step {
        Step::Protect | Step::AddFinalizer | Step::RemoveFinalizer | Step::Orphan | Step::RemoveAnnotations(_) => false,
        _ if pauses_all => true,
        Step::PatchHost(marks) if marks.annotations.contains_key(PAUSED_ANNOTATION) => false,
        Step::Delete { kind: Kind::Cluster | Kind::Machine, .. } => !all.is_empty(),
        Step::Delete { kind: Kind::MachineDeployment, name, .. } => {
            let of_worker = |machine: &Arc<Machine>| machine.deployment() == Some(name);
            is_paused(Kind::MachineDeployment, name)
                || observed.held().any(|host| host.is_paused() && is_worker_on(name, host, observed))
                || observed
                    .machines
                    .iter()
                    .any(|machine| of_worker(machine) && is_paused(Kind::Machine, &machine.name_any()))
        }
        Step::PatchSpec { kind, name, .. }
        | Step::Annotate { kind, name, .. }
        | Step::Adopt { kind, name, .. }
        | Step::Delete { kind, name, .. } => is_paused(*kind, name),
        Step::GiveJob(JobOrder { host, .. }) => {
            let node = observed.node(host);
            let deployment = node.and_then(Machine::deployment);
            observed.host(host).is_some_and(ByoHost::is_paused)
                || node.is_some_and(|machine| is_paused(Kind::Machine, &machine.name_any()))
                || deployment.is_some_and(|name| is_paused(Kind::MachineDeployment, name))
        }
        Step::PatchHost(HostPatch { host, .. })
        | Step::GiveInstallScripts(InstallScripts { host, .. })
        | Step::Reattach(Reattachment { host, .. }) => observed.host(host).is_some_and(ByoHost::is_paused),
        _ => false,
    };
    let allowed: Vec<_> = steps.into_iter().filter(|step| !waits(step)).collect();
    // What is checked is checked for the steps after it.
    if allowed.iter().all(|step| matches!(step, Step::DryRun(_))) { Vec::new() } else { allowed }
}

/// The MachineDeployment of this name is the one of this host.
fn is_worker_on(name: &str, host: &ByoHost, observed: &Observed) -> bool {
    let namespace = host.namespace().unwrap_or_default();
    name == names::worker(&namespace, &observed.cluster_name, &host.name_any())
}
