//! Claims. A claim puts the mark of the request on a ByoHost. It is written with the observed resource version, so only one of two requests
//! gets a host. A request claims all of its hosts or none: validation accepts it only if every host is free or already held by it; hosts
//! are claimed in the order of their names; if another request takes one meanwhile, the others are released. Where the API server refuses a single
//! claim, such as by a policy of the site, the others stay held until it takes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_api::byoh::{ByoHost, UNREGISTERING_ANNOTATION};
use cluster_api::cluster::Cluster;
use cluster_api::labels::PAUSED_ANNOTATION;
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::InstallMethod;
use o2ims_types::{ProvisioningRequest, names};

use super::desired::DesiredCluster;
use super::give_up;
use super::installer;
use super::instructions::{Instruction, instruction_for, left_paused};
use super::marks::MarkedHost as _;
use super::observed::Observed;
use super::upgrade::{hop, strategy};
use crate::provisioner::step::{HostPatch, InstallSecret, Step};
use crate::request::key;

/// The annotations by which the operator and the unit on a host speak of what is on it. A reset removes that, and the next unit would carry out old words.
const OF_UNIT: [&str; 7] = [
    names::JOB_ANNOTATION,
    names::JOB_STATUS_ANNOTATION,
    names::HOST_UNIT_ANNOTATION,
    names::CERTIFICATES_ANNOTATION,
    names::SNAPSHOT_ANNOTATION,
    names::SUPPORT_BUNDLE_ANNOTATION,
    names::SUPPORT_BUNDLE_STATUS_ANNOTATION,
];

/// The claims that are still to be made.
pub fn claims(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Vec<Step> {
    marked(request, desired, observed, |host| !observed.holds(host))
}

/// The marks that hosts lack which the request holds, or which run nodes of its cluster.
pub fn restore_host_marks(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Vec<Step> {
    marked(request, desired, observed, |host| observed.holds(host))
}

fn marked(
    request: &ProvisioningRequest,
    desired: &DesiredCluster,
    observed: &Observed,
    is_meant: impl Fn(&ByoHost) -> bool,
) -> Vec<Step> {
    let mut claims: Vec<HostPatch> = desired
        .hosts()
        .filter_map(|(requested, role)| {
            // BYOH attaches hosts by this mark. On a host that runs a node but that BYOH regards as not in use, the mark would make BYOH
            // attach it to another machine, and its agent would bootstrap it again.
            let host = observed.host(&requested.name).filter(|host| observed.reregistered_machine(host).is_none())?;
            if !is_meant(host) {
                return None;
            }
            let is_replaced = |machine: &Machine| hop::is_replaced(machine, desired, observed);
            let leaves = observed.machine_of(host).is_some_and(is_replaced);
            let role = Some(role).filter(|role| !leaves && may_have_role(host, role, observed));
            claim(host, &requested.id, role, observed, &key(request))
        })
        .collect();
    claims.sort_by(|a, b| a.host.cmp(&b.host));
    claims.into_iter().map(Step::PatchHost).collect()
}

/// Whether a host may have the label of its role: it is free, or a machine of that role runs on it. BYOH attaches a host with the label while its agent
/// still has one write of the cleanup to make; that write then detaches the new machine for ever.
fn may_have_role(host: &ByoHost, role: &str, observed: &Observed) -> bool {
    let machine = observed.machine_of(host).filter(|machine| machine.metadata.deletion_timestamp.is_none());
    machine.map_or_else(
        || host.in_use_reason().is_none(),
        |machine| !host.is_unregistering() && machine.is_master() == (role == names::ROLE_CONTROL_PLANE),
    )
}

/// Removes the label of its role from a host, so that BYOH attaches it to no machine.
pub fn remove_role(host: &ByoHost) -> Step {
    Step::PatchHost(patch(host, BTreeMap::from([(names::ROLE_LABEL.to_owned(), None)]), BTreeMap::new()))
}

fn claim(host: &ByoHost, id: &str, role: Option<&str>, observed: &Observed, request: &str) -> Option<HostPatch> {
    let mut labels = BTreeMap::new();
    let mut annotations = BTreeMap::new();
    let mut want = |key: &str, value: &str| {
        if host.labels().get(key).is_none_or(|current| current != value) {
            labels.insert(key.to_owned(), Some(value.to_owned()));
        }
    };
    want(names::REQUEST_UID_LABEL, &observed.uid);
    if let Some(role) = role {
        want(names::ROLE_LABEL, role);
    }
    if host.host_id().is_none() {
        want(names::HOST_ID_LABEL, id);
        annotations.insert(names::HOST_ID_SET_ANNOTATION.to_owned(), Some("true".to_owned()));
    }
    if host.was_given_up() {
        labels.insert(names::LOST_LABEL.to_owned(), None);
    }
    if host.annotations().get(names::REQUEST_ANNOTATION).is_none_or(|current| current != request) {
        annotations.insert(names::REQUEST_ANNOTATION.to_owned(), Some(request.to_owned()));
    }
    if host.in_use_reason().is_none() && observed.machine_of(host).is_none() {
        let leftovers = OF_UNIT.into_iter().filter(|key| host.annotations().contains_key(*key));
        annotations.extend(leftovers.map(|key| (key.to_owned(), None)));
    }
    (!labels.is_empty() || !annotations.is_empty()).then(|| patch(host, labels, annotations))
}

/// The install scripts that held hosts wait for. A running cluster's machines get them also while the request is rejected.
pub fn install_scripts(observed: &Observed) -> Vec<Step> {
    let install = observed.install();
    let (InstallMethod::Installer, Some(variant)) = (install.method, observed.variant) else { return Vec::new() };
    let is_not_being_deleted = |cluster: &&Arc<Cluster>| cluster.metadata.deletion_timestamp.is_none();
    let Some(cluster) = observed.own_cluster().filter(is_not_being_deleted) else { return Vec::new() };
    let installer = install.installer.unwrap_or_default();
    let (name, pod_cidrs) = (&observed.cluster_name, &cluster.spec.cluster_network.pods.cidr_blocks);
    observed
        .held()
        .filter_map(|host| installer::install_scripts(host, name, &installer, pod_cidrs, variant, &observed.uid))
        .map(Step::GiveInstallScripts)
        .collect()
}

/// Releases every held host that is not in use, or that is given up. For a request without a Cluster of its own.
pub fn release_all(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    observed.held().filter_map(|host| release(request, host, observed)).collect()
}

/// Asks the agents to clean every held host that is still attached to a machine of the cluster, when there is no Cluster. Only for a request
/// whose owner has consented: see [`super::consent`].
///
/// When a ByoMachine is deleted, BYOH looks up its host in a cache. If the cache does not show the attachment yet, BYOH finds no host, deletes
/// the ByoMachine, and the agent is never asked to clean the host. Once the Cluster is gone there is no machine whose deletion would ask for
/// it, so this step sets the annotation that asks the agent.
pub fn clean_attached_hosts(observed: &Observed) -> Vec<Step> {
    observed.held().filter_map(|host| clean_host(host, observed)).collect()
}

fn clean_host(host: &ByoHost, observed: &Observed) -> Option<Step> {
    (observed.cluster.is_none() && host.is_in_service_of(&observed.cluster_name)).then(|| {
        let annotations = BTreeMap::from([(UNREGISTERING_ANNOTATION.to_owned(), Some(String::new()))]);
        Step::PatchHost(patch(host, BTreeMap::new(), annotations))
    })
}

/// Removes the pause from hosts whose Machine is gone, where the owner instructs that they are cleaned.
pub fn unpause_hosts(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    let is_instructed =
        |host: &&ByoHost| instruction_for(request, &host.uid().unwrap_or_default()) == Some(Instruction::Clean);
    left_paused(observed).filter(is_instructed).map(remove_pause).collect()
}

/// The step that removes the pause annotation from a host.
fn remove_pause(host: &ByoHost) -> Step {
    Step::PatchHost(patch(host, BTreeMap::new(), BTreeMap::from([(PAUSED_ANNOTATION.to_owned(), None)])))
}

/// Releases held workers that have no MachineDeployment yet: a request that cannot get all workers that it adds holds none of them. During an upgrade that
/// may be one that is reset, which becomes a node again.
pub fn release_workers_without_deployment(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    let namespace = &request.namespace().unwrap_or_default();
    observed
        .held()
        .filter(|host| host.labels().get(names::ROLE_LABEL).is_some_and(|role| role == names::ROLE_WORKER))
        .filter(|host| !strategy::is_recorded(observed) || !give_up::is_requested(request, &host.name_any()))
        .filter(|host| {
            let deployment = names::worker(namespace, &observed.cluster_name, &host.name_any());
            !observed.deployments.contains_key(&deployment)
        })
        .filter_map(|host| release(request, host, observed))
        .collect()
}

/// Whether a host is held as a master that the request does not name any more.
pub fn holds_removed_master(desired: &DesiredCluster, observed: &Observed) -> bool {
    removed(desired, observed).any(|host| host.is_held_as_master())
}

fn removed<'a>(desired: &'a DesiredCluster, observed: &'a Observed) -> impl Iterator<Item = &'a Arc<ByoHost>> {
    observed.held().filter(|host| !desired.hosts().any(|(requested, _)| requested.name == host.name_any()))
}

/// Releases held hosts that the request does not name any more, once they are not in use, or if they are given up.
pub fn release_removed(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Vec<Step> {
    removed(desired, observed)
        .filter(|host| {
            let deployment = names::worker(&desired.namespace, &desired.cluster, &host.name_any());
            !observed.deployments.contains_key(&deployment)
        })
        .filter_map(|host| release(request, host, observed))
        .collect()
}

/// The step that releases a host; `None` while it is in use, unless it is given up. Templates of other clusters need not select hosts by the mark, so
/// BYOH may have attached the host to another cluster. Such a host is released at once.
pub fn release(request: &ProvisioningRequest, host: &ByoHost, observed: &Observed) -> Option<Step> {
    if host.in_use_reason().is_some() && !host.is_attached_to_other(&observed.cluster_name) {
        return give_up::can_be_let_go(request, host, observed).then(|| give_up(host, observed));
    }
    Some(remove_marks(host))
}

/// The step that lets a host go which its agent has not cleaned. A job that it has not begun is taken back; everything else on it stays for the
/// cleaning.
fn give_up(host: &ByoHost, observed: &Observed) -> Step {
    let job = host.annotations().contains_key(names::JOB_ANNOTATION).then(|| (names::JOB_ANNOTATION.to_owned(), None));
    let secret = host.annotations().get(names::INSTALL_SECRET_ANNOTATION).cloned();
    let patch = patch(host, give_up::labels(&observed.uid), job.into_iter().collect());
    Step::PatchHost(HostPatch { install_secret: secret.map(InstallSecret::Keep), ..patch })
}

/// The step that removes what is left of a request on a host that was given up, once its agent has cleaned it.
pub fn take_back(host: &ByoHost) -> Option<Step> {
    let is_free = host.was_given_up() && host.holder().is_none() && host.in_use_reason().is_none();
    is_free.then(|| remove_marks(host))
}

fn remove_marks(host: &ByoHost) -> Step {
    let mut labels =
        BTreeMap::from([(names::REQUEST_UID_LABEL.to_owned(), None), (names::ROLE_LABEL.to_owned(), None)]);
    if host.was_given_up() {
        labels.insert(names::LOST_LABEL.to_owned(), None);
    }
    let mut annotations = BTreeMap::from([(names::REQUEST_ANNOTATION.to_owned(), None)]);
    if host.annotations().contains_key(names::HOST_ID_SET_ANNOTATION) {
        labels.insert(names::HOST_ID_LABEL.to_owned(), None);
        annotations.insert(names::HOST_ID_SET_ANNOTATION.to_owned(), None);
    }
    let secret = host.annotations().get(names::INSTALL_SECRET_ANNOTATION).cloned();
    let leftovers = [names::INSTALL_SECRET_ANNOTATION, names::FAILURE_ANNOTATION].into_iter().chain(OF_UNIT);
    let leftovers = leftovers.filter(|key| host.annotations().contains_key(*key));
    annotations.extend(leftovers.map(|key| (key.to_owned(), None)));
    Step::PatchHost(HostPatch { install_secret: secret.map(InstallSecret::Delete), ..patch(host, labels, annotations) })
}

/// A patch of a host, if it is still as it was observed.
pub fn patch(
    host: &ByoHost,
    labels: BTreeMap<String, Option<String>>,
    annotations: BTreeMap<String, Option<String>>,
) -> HostPatch {
    HostPatch {
        host: host.name_any(),
        resource_version: host.metadata.resource_version.clone().unwrap_or_default(),
        labels,
        annotations,
        install_secret: None,
    }
}
