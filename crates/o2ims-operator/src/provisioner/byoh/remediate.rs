//! Hosts that BYOH does not know as hosts of their Machines any more: they are attached again, as the owner instructs.

use cluster_api::byoh::{ByoHost, ByohVariant};
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::InstallMethod;
use o2ims_types::{ProvisioningRequest, names};

use super::consent::may_remove_hosts;
use super::instructions::{Instruction, instruction_for, left_paused};
use super::marks::MarkedHost as _;
use super::observed::Observed;
use super::reattachment::{AgentScripts, Owner, reattachment};
use super::{claim, installer};
use crate::provisioner::step::Step;
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

/// Removes the pause from hosts whose Machine is gone, where the owner instructs that they are cleaned.
pub fn unpause_hosts(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    let named = |host: &&ByoHost| instruction_for(request, &host.uid().unwrap_or_default()) == Some(Instruction::Clean);
    left_paused(observed).filter(named).map(claim::remove_pause).collect()
}
