//! Holding hosts. A claim is a label on the ByoHost, written only if the host is still as it was observed, so that of two
//! requests for one host exactly one gets it. All hosts or none: validation has seen every one free or held before the
//! first claim, hosts are claimed in the order of their names, and what is held is let go when the rest cannot be had.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_api::byoh::{ByoHost, UNREGISTERING_ANNOTATION};
use cluster_api::cluster::Cluster;
use cluster_api::labels::PAUSED_ANNOTATION;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::InstallMethod;
use o2ims_types::{ProvisioningRequest, names};

use super::desired::DesiredCluster;
use super::installer;
use super::marks::MarkedHost as _;
use super::observed::Observed;
use crate::provisioner::step::{HostPatch, Step};
use crate::request::key;

/// The claims that are still to be made.
pub fn claims(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Vec<Step> {
    let mut claims: Vec<HostPatch> = desired
        .hosts()
        .filter_map(|(asked, role)| {
            // A mark on a host that BYOH takes for free makes BYOH give it away: its node would be bootstrapped again.
            let host = observed.host(&asked.name).filter(|host| observed.reregistered_machine(host).is_none())?;
            claim(host, &asked.id, role, &observed.uid, &key(request))
        })
        .collect();
    claims.sort_by(|a, b| a.host.cmp(&b.host));
    claims.into_iter().map(Step::PatchHost).collect()
}

fn claim(host: &ByoHost, id: &str, role: &str, uid: &str, request: &str) -> Option<HostPatch> {
    let mut labels = BTreeMap::new();
    let mut annotations = BTreeMap::new();
    let mut want = |key: &str, value: &str| {
        if host.labels().get(key).is_none_or(|current| current != value) {
            labels.insert(key.to_owned(), Some(value.to_owned()));
        }
    };
    want(names::REQUEST_UID_LABEL, uid);
    want(names::ROLE_LABEL, role);
    if host.host_id().is_none() {
        want(names::HOST_ID_LABEL, id);
        annotations.insert(names::HOST_ID_SET_ANNOTATION.to_owned(), Some("true".to_owned()));
    }
    if host.annotations().get(names::REQUEST_ANNOTATION).is_none_or(|current| current != request) {
        annotations.insert(names::REQUEST_ANNOTATION.to_owned(), Some(request.to_owned()));
    }
    (!labels.is_empty() || !annotations.is_empty()).then(|| patch(host, labels, annotations))
}

/// The install scripts that held hosts wait for. A machine of a cluster that runs gets them whatever is wrong with the
/// request today.
pub fn install_scripts(observed: &Observed) -> Vec<Step> {
    let install = observed.install();
    let (InstallMethod::Installer, Some(variant)) = (install.method, observed.variant) else { return Vec::new() };
    let stays = |cluster: &&Arc<Cluster>| cluster.metadata.deletion_timestamp.is_none();
    let Some(cluster) = observed.own_cluster().filter(stays) else { return Vec::new() };
    let installer = install.installer.unwrap_or_default();
    let (name, pods) = (&observed.cluster_name, &cluster.spec.cluster_network.pods.cidr_blocks);
    observed
        .held()
        .filter_map(|host| installer::install_scripts(host, name, &installer, pods, variant, &observed.uid))
        .map(Step::GiveInstallScripts)
        .collect()
}

/// Lets go of every held host that is free, when there is no Cluster.
pub fn release_all(observed: &Observed) -> Vec<Step> {
    observed.held().filter_map(|host| release(host, observed)).collect()
}

/// Has every held host cleaned that BYOH has given away, when there is no Cluster. Only for a request whose owner has
/// consented: see [`super::consent`].
///
/// BYOH finds the host of a machine that is deleted in its cache. Where that lags behind the attachment, it finds none, the
/// machine goes, and nobody asks the agent to clean the host: it would be lost. With the Cluster gone every machine is,
/// so this asks.
pub fn request_cleanup(observed: &Observed) -> Vec<Step> {
    observed.held().filter_map(|host| ask_for_cleanup(host, observed)).collect()
}

fn ask_for_cleanup(host: &ByoHost, observed: &Observed) -> Option<Step> {
    (observed.cluster.is_none() && host.is_in_service_of(&observed.cluster_name)).then(|| {
        let annotations = BTreeMap::from([(UNREGISTERING_ANNOTATION.to_owned(), Some(String::new()))]);
        Step::PatchHost(patch(host, BTreeMap::new(), annotations))
    })
}

/// Takes the pause off a host.
pub fn unpause(host: &ByoHost) -> Step {
    Step::PatchHost(patch(host, BTreeMap::new(), BTreeMap::from([(PAUSED_ANNOTATION.to_owned(), None)])))
}

/// Lets go of workers that nothing was made for yet: a request that cannot have all the workers that it wants to add holds
/// none of them.
pub fn release_unassigned(namespace: &str, observed: &Observed) -> Vec<Step> {
    observed
        .held()
        .filter(|host| host.labels().get(names::ROLE_LABEL).is_some_and(|role| role == names::ROLE_WORKER))
        .filter(|host| {
            let deployment = names::worker(namespace, &observed.cluster_name, &host.name_any());
            !observed.deployments.contains_key(&deployment)
        })
        .filter_map(|host| release(host, observed))
        .collect()
}

/// Whether a host is held as a master that the request does not name any more.
pub fn holds_removed_master(desired: &DesiredCluster, observed: &Observed) -> bool {
    removed(desired, observed).any(|host| host.is_held_as_master())
}

fn removed<'a>(desired: &'a DesiredCluster, observed: &'a Observed) -> impl Iterator<Item = &'a Arc<ByoHost>> {
    observed.held().filter(|host| !desired.hosts().any(|(asked, _)| asked.name == host.name_any()))
}

/// Lets go of held hosts that the request does not name any more, once they are free.
pub fn release_removed(desired: &DesiredCluster, observed: &Observed) -> Vec<Step> {
    removed(desired, observed)
        .filter(|host| {
            let deployment = names::worker(&desired.namespace, &desired.cluster, &host.name_any());
            !observed.deployments.contains_key(&deployment)
        })
        .filter_map(|host| release(host, observed))
        .collect()
}

/// Takes the marks off a host; `None` while it is not free. BYOH honours no reservation: a host that it gave to another
/// cluster is that cluster's, and not waited for.
pub fn release(host: &ByoHost, observed: &Observed) -> Option<Step> {
    if host.in_use_reason().is_some() && !host.is_attached_to_other(&observed.cluster_name) {
        return None;
    }
    let mut labels =
        BTreeMap::from([(names::REQUEST_UID_LABEL.to_owned(), None), (names::ROLE_LABEL.to_owned(), None)]);
    let mut annotations = BTreeMap::from([(names::REQUEST_ANNOTATION.to_owned(), None)]);
    if host.annotations().contains_key(names::HOST_ID_SET_ANNOTATION) {
        labels.insert(names::HOST_ID_LABEL.to_owned(), None);
        annotations.insert(names::HOST_ID_SET_ANNOTATION.to_owned(), None);
    }
    let secret = host.annotations().get(names::INSTALL_SECRET_ANNOTATION).cloned();
    let leftovers = [names::INSTALL_SECRET_ANNOTATION, names::FAILURE_ANNOTATION];
    let leftovers = leftovers.into_iter().filter(|key| host.annotations().contains_key(*key));
    annotations.extend(leftovers.map(|key| (key.to_owned(), None)));
    let released = HostPatch { drops_install_secret: secret, ..patch(host, labels, annotations) };
    Some(Step::PatchHost(released))
}

fn patch(
    host: &ByoHost,
    labels: BTreeMap<String, Option<String>>,
    annotations: BTreeMap<String, Option<String>>,
) -> HostPatch {
    HostPatch {
        host: host.name_any(),
        resource_version: host.metadata.resource_version.clone().unwrap_or_default(),
        labels,
        annotations,
        drops_install_secret: None,
    }
}
