//! Warnings about a running cluster, which do not make the operator change anything.

use cluster_api::byoh::ByoHost;
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::{ProvisioningRequest, names};

use super::consent::{held_but_not_requested, may_remove_hosts};
use super::instructions::{command, ineffective};
use super::marks::MarkedHost as _;
use super::observed::Observed;

/// The hosts that a restored request holds but does not name: they stay, since a restore removes no host.
pub fn unnamed_hosts(request: &ProvisioningRequest, observed: &Observed) -> Option<String> {
    if may_remove_hosts(request, observed) {
        return None;
    }
    let hosts = held_but_not_requested(request, observed);
    (!hosts.is_empty()).then(|| {
        format!(
            "this request was restored and does not name {}, which its cluster uses; no host is removed until it names them once",
            hosts.join(", ")
        )
    })
}

/// The warning about a worker whose MachineDeployment is gone.
pub fn unmanaged_worker(machine: &Machine) -> String {
    format!(
        "MachineDeployment {} is gone, but its Machine {} still runs on {}; this operator does not change the Machine. Apply the \
         MachineDeployment again as it was, or remove the host from the request and delete the Machine",
        machine.deployment().unwrap_or_default(),
        machine.name_any(),
        machine.server().unwrap_or_default()
    )
}

/// Warnings about hosts that BYOH does not know as attached any more, and about instructions without effect.
pub fn lost_sight(request: &ProvisioningRequest, observed: &Observed) -> Vec<String> {
    let detached = observed.held().filter_map(|host| detached_host(request, host, observed));
    detached.chain(ineffective(request, observed)).collect()
}

/// The warning about a host whose status does not name the machine that runs on it any more.
fn detached_host(request: &ProvisioningRequest, host: &ByoHost, observed: &Observed) -> Option<String> {
    let machine = observed.detached_machine(host)?;
    Some(format!(
        "{}: status.machineRef was removed from its ByoHost, although its Machine {} runs; nothing protects that ByoHost from deletion \
         now. To set it again: {}",
        host.display(),
        machine.name_any(),
        command(request, observed, names::RESTORE_ANNOTATION, &host.uid().unwrap_or_default())
    ))
}
