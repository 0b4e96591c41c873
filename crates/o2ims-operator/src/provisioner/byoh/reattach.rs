//! Reattachment of a ByoHost that was deleted and registered again while its node runs: BYOH regards it as not in use. This writes what BYOH
//! and its agent had written on the deleted ByoHost, so that nothing is bootstrapped or reset. It is done as the owner instructs.

use std::collections::BTreeMap;

use cluster_api::Kind;
use cluster_api::byoh::{
    BOOTSTRAP_SUCCEEDED, ByoHost, ByohVariant, INSTALLATION_SUCCEEDED, MACHINE_NAME_LABEL, MACHINE_VERSION_ANNOTATION,
};
use cluster_api::labels::CLUSTER_NAME_LABEL;
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::InstallMethod;
use o2ims_types::{ProvisioningRequest, names};

use super::consent::may_remove_hosts;
use super::installer;
use super::instructions::{Instruction, instruction_for};
use super::marks::MarkedHost as _;
use super::observed::Observed;
use crate::provisioner::step::{Reattachment, Step};
use crate::request::{is_being_deleted, key, requested_hosts};

/// Attaches hosts to their Machines again, where the owner instructs so, or deletes the request, or has removed the host from it: an agent
/// cleans only a host that BYOH has attached.
pub fn reattach(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    observed.hosts.values().filter_map(|host| reattach_host(request, host, observed)).collect()
}

fn reattach_host(request: &ProvisioningRequest, host: &ByoHost, observed: &Observed) -> Option<Step> {
    let reregistered = observed.reregistered_machine(host).filter(|_| host.holder().is_none());
    let machine = reregistered.or_else(|| observed.detached_machine(host))?;
    let requested = requested_hosts(request).find(|(requested, _)| requested.name() == host.name_any());
    let id = requested.map(|(requested, _)| requested.id()).or_else(|| host.host_id().map(ToOwned::to_owned))?;
    let is_instructed = instruction_for(request, &host.uid().unwrap_or_default()) == Some(Instruction::Restore);
    let is_removed = reregistered.is_some()
        && (is_being_deleted(request) || requested.is_none() && may_remove_hosts(request, observed));
    if !is_instructed && !is_removed {
        return None;
    }
    let version = observed.control_plane.as_ref()?.spec.version.as_str();
    let owner = Owner {
        uid: &observed.uid,
        request: &key(request),
        role: if machine.is_master() { names::ROLE_CONTROL_PLANE } else { names::ROLE_WORKER },
        host_id: &id,
        cluster: &observed.cluster_name,
        version,
    };
    let scripts = scripts(host, machine, version, observed);
    Some(Step::Reattach(reattachment(host, machine, &owner, scripts)))
}

fn scripts(host: &ByoHost, machine: &Machine, version: &str, observed: &Observed) -> AgentScripts {
    let install = observed.install();
    if install.method == InstallMethod::None {
        return AgentScripts::None;
    }
    let installer = install.installer.unwrap_or_default();
    let pod_cidrs = observed.cluster.as_ref().map(|cluster| cluster.spec.cluster_network.pods.cidr_blocks.clone());
    let pod_cidrs = pod_cidrs.unwrap_or_default();
    let machine = &machine.spec.infrastructure_ref.name;
    let script = installer::uninstall_script(host, machine, version, &installer, &pod_cidrs);
    AgentScripts::Installed { uninstall: script.filter(|_| observed.variant == Some(ByohVariant::Upstream)) }
}

/// Whose host it is.
struct Owner<'a> {
    /// The request's mark.
    uid: &'a str,
    /// `namespace/name` of the request.
    request: &'a str,
    /// What the host is for.
    role: &'a str,
    /// The host's id.
    host_id: &'a str,
    /// Name of the cluster.
    cluster: &'a str,
    /// Kubernetes version of the node.
    version: &'a str,
}

/// The scripts that the agent of a host has run or keeps.
enum AgentScripts {
    /// Kubernetes was there before the agent.
    None,
    /// The agent has installed Kubernetes.
    Installed {
        /// The script that it cleans the host with, if it keeps one.
        uninstall: Option<String>,
    },
}

/// Attaches `host` to `machine` again.
fn reattachment(host: &ByoHost, machine: &Machine, owner: &Owner<'_>, scripts: AgentScripts) -> Reattachment {
    let namespace = host.namespace().unwrap_or_default();
    let reference = &machine.spec.infrastructure_ref;
    let mut labels = BTreeMap::from([
        (CLUSTER_NAME_LABEL.to_owned(), owner.cluster.to_owned()),
        (MACHINE_NAME_LABEL.to_owned(), format!("{namespace}.{}", reference.name)),
        (names::REQUEST_UID_LABEL.to_owned(), owner.uid.to_owned()),
        (names::ROLE_LABEL.to_owned(), owner.role.to_owned()),
    ]);
    let mut annotations = BTreeMap::from([
        (MACHINE_VERSION_ANNOTATION.to_owned(), owner.version.to_owned()),
        (names::REQUEST_ANNOTATION.to_owned(), owner.request.to_owned()),
    ]);
    if host.host_id().is_none() {
        labels.insert(names::HOST_ID_LABEL.to_owned(), owner.host_id.to_owned());
        annotations.insert(names::HOST_ID_SET_ANNOTATION.to_owned(), "true".to_owned());
    }
    let mut conditions = vec![BOOTSTRAP_SUCCEEDED];
    let uninstall_script = match scripts {
        AgentScripts::None => None,
        AgentScripts::Installed { uninstall } => {
            conditions.push(INSTALLATION_SUCCEEDED);
            uninstall
        }
    };
    Reattachment {
        host: host.name_any(),
        resource_version: host.metadata.resource_version.clone().unwrap_or_default(),
        machine: Kind::ByoMachine.object_reference(&namespace, &reference.name),
        conditions,
        labels,
        annotations,
        uninstall_script,
    }
}
