//! What an edit will do, host by host: for the owner of a request who wants to know before it is done.

use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::{Drain, InstallMethod};
use o2ims_types::o2ims::v1alpha1::provisioning_request::PlannedChange;
use o2ims_types::{ProvisioningRequest, names};

use super::desired::DesiredCluster;
use super::give_up;
use super::observed::Observed;
use super::upgrade::hop::stops;
use super::upgrade::version::is_same;
use crate::request::is_being_deleted;

/// The server becomes a node.
const JOIN: &str = "Join";
/// Kubernetes is upgraded on the server.
const UPGRADE: &str = "Upgrade";
/// The server is reset, and becomes a node again with another version.
const REINSTALL: &str = "Reinstall";
/// The server is given back.
const REMOVE: &str = "Remove";
/// The server becomes a node in another role.
const CHANGE_ROLE: &str = "ChangeRole";

/// The changes that the request asks for and that are not made yet: masters first, then workers, then the hosts that leave.
pub fn changes(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Vec<PlannedChange> {
    let named = desired.hosts().filter(|_| !is_being_deleted(request)).filter_map(|(requested, role)| {
        let (action, message) = match observed.node(&requested.name) {
            None => (JOIN, join(desired, role)),
            Some(machine) if machine.is_master() != (role == names::ROLE_CONTROL_PLANE) => {
                (CHANGE_ROLE, format!("{}; after that it {}", remove(true, desired), join(desired, role)))
            }
            Some(machine) => {
                let to = request.spec.template_parameters.k8s_version.as_deref()?;
                let from = machine.spec.version.as_deref().filter(|from| !is_same(from, to))?;
                if desired.is_rolling {
                    (REINSTALL, reinstall(request, desired, observed, from, to, role))
                } else {
                    (UPGRADE, upgrade(desired, from, to, role))
                }
            }
        };
        Some(PlannedChange { host_name: requested.name.clone(), action: action.to_owned(), message })
    });
    let leaving = observed.held().filter(|host| give_up::leaves(request, &host.name_any(), observed));
    let leaving = leaving.map(|host| PlannedChange {
        host_name: host.name_any(),
        action: REMOVE.to_owned(),
        message: remove(observed.node(&host.name_any()).is_some(), desired),
    });
    named.chain(leaving).collect()
}

fn join(desired: &DesiredCluster, role: &str) -> String {
    let what = if role == names::ROLE_CONTROL_PLANE { "master" } else { "worker" };
    format!("becomes a {what} of cluster {} with Kubernetes {}", desired.cluster, desired.version)
}

fn upgrade(desired: &DesiredCluster, from: &str, to: &str, role: &str) -> String {
    let evicts = desired.template.spec.upgrade.drain == Drain::WhenPossible && desired.workers.len() > 1;
    if role == names::ROLE_WORKER && evicts {
        return format!(
            "is upgraded in place from {from} to {to}: its pods are evicted if another worker is Ready, and the kubelet is restarted"
        );
    }
    let stops = if role == names::ROLE_CONTROL_PLANE && desired.masters.len() == 1 {
        "the cluster's API does not answer for a minute or two"
    } else {
        "the kubelet is restarted"
    };
    format!("is upgraded in place from {from} to {to}: {stops}; its pods run on")
}

fn reinstall(
    request: &ProvisioningRequest,
    desired: &DesiredCluster,
    observed: &Observed,
    from: &str,
    to: &str,
    role: &str,
) -> String {
    let what = if role == names::ROLE_CONTROL_PLANE { "master" } else { "worker" };
    let stops = stops(request, &desired.template, observed);
    let each = if stops.is_empty() { String::new() } else { format!("; the same before, for {}", stops.join(", ")) };
    format!(
        "its node is drained and removed from the cluster, the server is reset, and becomes a {what} again with Kubernetes {to} instead of {from}; local data of \
         its pods is lost{each}"
    )
}

fn remove(is_node: bool, desired: &DesiredCluster) -> String {
    if !is_node {
        return "is given back".to_owned();
    }
    let server = match desired.install.method {
        InstallMethod::None => "the server is not reset (install.method none)",
        InstallMethod::Installer | InstallMethod::Bundle => "then the server is reset",
    };
    format!("its node is drained and removed from the cluster; {server}")
}
