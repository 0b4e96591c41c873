//! Whether the hosts that a request names are available to it.

use std::net::IpAddr;

use cluster_api::byoh::ByoHost;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::provisioning_request::Hosts;
use o2ims_types::{HostRef, ProvisioningRequest, TemplateParameters, names};

use super::desired::{DesiredCluster, RequestedHost};
use super::instructions::command;
use super::marks::MarkedHost as _;
use super::observed::Observed;
use crate::provisioner::report::Rejection;

/// Why a host reports no address, and what to do. BYOH's agent looks for the card of the default route in `/proc/net/route` when it starts, and
/// reports no card at all where it finds none (`agent/registration`, `GetNetworkStatus`).
const NO_ADDRESS: &str = "BYOH's agent reports addresses only if the server had an IPv4 default route when the agent started. Add one, which may lead \
    to a gateway that does not answer, then restart the agent on the server: systemctl restart byoh-hostagent";

/// Checks that every host exists, has the id and address that the request names, is alive, and is free or already held by this request. What is
/// wrong with a node of the running cluster is returned as a warning: it does not reject the request.
pub fn available(
    request: &ProvisioningRequest,
    desired: &DesiredCluster,
    parameters: &TemplateParameters,
    observed: &Observed,
) -> Result<Vec<String>, Rejection> {
    let refs = parameters.hosts.iter().flat_map(Hosts::all);
    let (mut wrong, mut warnings) = (Vec::new(), Vec::new());
    for ((requested, _), reference) in desired.hosts().zip(refs) {
        let host = observed.host(&requested.name);
        let problem = match host {
            None => Some(format!("is not registered in namespace {}", desired.namespace)),
            Some(host) => unavailable(request, requested, reference, host, observed),
        };
        let Some(problem) = problem.map(|problem| format!("{requested} {problem}")) else { continue };
        let is_node = observed.is_created && observed.node(&requested.name).is_some();
        if is_node { warnings.push(problem) } else { wrong.push(problem) }
    }
    if wrong.is_empty() && desired.endpoint.host.is_empty() {
        let master = &desired.masters[0];
        wrong.push(format!("{master} reports no address that could be the control plane's endpoint: {NO_ADDRESS}"));
    }
    if wrong.is_empty() { Ok(warnings) } else { Err(Rejection::hosts(&wrong)) }
}

fn unavailable(
    request: &ProvisioningRequest,
    requested: &RequestedHost,
    reference: &HostRef,
    host: &ByoHost,
    observed: &Observed,
) -> Option<String> {
    let namespace = &request.namespace().unwrap_or_default();
    if let Some(id) = host.host_id().filter(|id| *id != requested.id) {
        return Some(format!("is not that host: ByoHost {namespace}/{} has the label host-id={id}", requested.name));
    }
    if host.host_id().is_none()
        && let Some(other) = observed.host_with_id(&requested.id)
    {
        return Some(format!("is not that host: host-id={} is the label of ByoHost {other}", requested.id));
    }
    if let Some(ip) = &reference.host_ip
        && !ip.parse::<IpAddr>().is_ok_and(|ip| host.addresses().contains(&ip))
    {
        let why = if host.status.network.is_empty() { format!(": {NO_ADDRESS}") } else { String::new() };
        return Some(format!("does not have the address {ip} (hostIp){why}"));
    }
    if let Some(machine) = observed.reregistered_machine(host).filter(|_| !observed.holds(host)) {
        return Some(format!(
            "runs the node of Machine {}, but its ByoHost was registered again, so BYOH regards it as not in use; this operator does not \
             change it. To attach it to its Machine again: {}",
            machine.name_any(),
            command(request, observed, names::RESTORE_ANNOTATION, &host.uid().unwrap_or_default())
        ));
    }
    if observed.holds(host) {
        return None;
    }
    if let Some(machine) = observed.foreign_nodes.get(&requested.name) {
        return Some(format!(
            "runs the node of Machine {}, but its ByoHost was registered again, so BYOH regards it as not in use; the status of that \
             cluster's request says how to attach it again, or to clean it",
            machine.name_any()
        ));
    }
    if observed.orphans.contains(&requested.name) {
        return Some(orphaned(host, namespace));
    }
    if host.holder().is_some() {
        return Some(host.held_reason());
    }
    host.busy_reason().or_else(|| host.not_alive_reason())
}

/// Why a host whose holder is gone is not available, and how it is released.
fn orphaned(host: &ByoHost, namespace: &str) -> String {
    let Some(holder) = host.annotations().get(names::REQUEST_ANNOTATION) else {
        return format!(
            "has the label {} of a request that does not exist; to release the host, remove that label from ByoHost {namespace}/{}",
            names::REQUEST_UID_LABEL,
            host.name_any()
        );
    };
    let held = format!("is held by an earlier ProvisioningRequest {holder} that does not exist any more");
    match host.in_use_reason() {
        Some(busy) if host.is_unregistering() => format!("{held}, and {busy}"),
        Some(busy) => format!(
            "{held}, and {busy}. To manage that cluster, apply ProvisioningRequest {holder} again, unchanged. To delete that cluster, do the \
             same, then delete ProvisioningRequest {holder}"
        ),
        None => format!("{held}; the host is released when its Cluster is deleted"),
    }
}
