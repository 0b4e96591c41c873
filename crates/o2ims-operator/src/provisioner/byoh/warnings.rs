//! What is told about a cluster that runs and is no reason to do anything.

use cluster_api::byoh::ByoHost;
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::{ProvisioningRequest, names};

use super::consent::{may_take_out, unnamed};
use super::instructions::{command, ineffective};
use super::marks::MarkedHost as _;
use super::observed::Observed;

/// What a request that was restored from a backup holds and does not name: it stays, since a restore takes nothing out.
pub fn unnamed_hosts(request: &ProvisioningRequest, observed: &Observed) -> Option<String> {
    if may_take_out(request, observed) {
        return None;
    }
    let hosts = unnamed(request, observed);
    (!hosts.is_empty()).then(|| {
        format!(
            "this request was restored and does not name {}, which its cluster uses; nothing is taken out until it names them once",
            hosts.join(", ")
        )
    })
}

/// What is to be said of a worker whose MachineDeployment is gone.
pub fn unmanaged_worker(machine: &Machine) -> String {
    format!(
        "MachineDeployment {} is gone, and its Machine {} runs on {}; nothing is done to it: apply the MachineDeployment again as it was, \
         or take the host out of the request and delete the Machine",
        machine.deployment().unwrap_or_default(),
        machine.name_any(),
        machine.server().unwrap_or_default()
    )
}

/// What is to be said of hosts that BYOH has lost sight of, and of what the owner has said about them.
pub fn lost_sight(request: &ProvisioningRequest, observed: &Observed) -> Vec<String> {
    let detached = observed.held().filter_map(|host| detached_host(request, host, observed));
    detached.chain(ineffective(request, observed)).collect()
}

/// What is to be said of a host from whose status somebody has taken the machine that runs on it.
fn detached_host(request: &ProvisioningRequest, host: &ByoHost, observed: &Observed) -> Option<String> {
    let machine = observed.detached_machine(host)?;
    Some(format!(
        "{}: somebody has taken status.machineRef off its ByoHost, though its Machine {} runs; nothing keeps that ByoHost from being \
         deleted now. To put it back: {}",
        host.display(),
        machine.name_any(),
        command(request, observed, names::RESTORE_ANNOTATION, &host.uid().unwrap_or_default())
    ))
}
