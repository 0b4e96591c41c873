//! Whether the hosts that a request names can be had.

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

/// Every host exists, is the one that was meant, is alive, and is free or already held by this request. What is not so of a host
/// that is a node of the running cluster is returned: it is no reason to do anything.
pub fn available(
    request: &ProvisioningRequest,
    desired: &DesiredCluster,
    parameters: &TemplateParameters,
    observed: &Observed,
) -> Result<Vec<String>, Rejection> {
    let refs = parameters.hosts.iter().flat_map(Hosts::all);
    let (mut wrong, mut warnings) = (Vec::new(), Vec::new());
    for ((asked, _), reference) in desired.hosts().zip(refs) {
        let host = observed.host(&asked.name);
        let problem = match host {
            None => Some(format!("is not registered in namespace {}", desired.namespace)),
            Some(host) => unavailable(request, asked, reference, host, observed),
        };
        let Some(problem) = problem.map(|problem| format!("{asked} {problem}")) else { continue };
        let is_node = observed.is_complete && observed.node(&asked.name).is_some();
        if is_node { warnings.push(problem) } else { wrong.push(problem) }
    }
    if wrong.is_empty() && desired.endpoint.host.is_empty() {
        wrong.push(format!("{} reports no address that could be the control plane's endpoint", desired.masters[0]));
    }
    if wrong.is_empty() { Ok(warnings) } else { Err(Rejection::hosts(&wrong)) }
}

fn unavailable(
    request: &ProvisioningRequest,
    asked: &RequestedHost,
    reference: &HostRef,
    host: &ByoHost,
    observed: &Observed,
) -> Option<String> {
    let namespace = &request.namespace().unwrap_or_default();
    if let Some(id) = host.host_id().filter(|id| *id != asked.id) {
        return Some(format!("is not that host: ByoHost {namespace}/{} has the label host-id={id}", asked.name));
    }
    if host.host_id().is_none()
        && let Some(other) = observed.host_with_id(&asked.id)
    {
        return Some(format!("is not that host: host-id={} is the label of ByoHost {other}", asked.id));
    }
    if let Some(ip) = &reference.host_ip
        && !ip.parse::<IpAddr>().is_ok_and(|ip| host.addresses().contains(&ip))
    {
        return Some(format!("does not have the address {ip} (hostIp)"));
    }
    if let Some(machine) = observed.reregistered_machine(host).filter(|_| !observed.holds(host)) {
        return Some(format!(
            "runs the node of Machine {}, but its ByoHost was registered anew, so BYOH takes it for free; nothing is done to it. To \
             give it back to its Machine: {}",
            machine.name_any(),
            command(request, observed, names::RESTORE_ANNOTATION, &host.uid().unwrap_or_default())
        ));
    }
    if observed.holds(host) {
        return None;
    }
    if let Some(machine) = observed.foreign_nodes.get(&asked.name) {
        return Some(format!(
            "runs the node of Machine {}, but its ByoHost was registered anew, so BYOH takes it for free; the request of that cluster \
             says how to give it back, or to clean it",
            machine.name_any()
        ));
    }
    if observed.orphans.contains(&asked.name) {
        return Some(orphaned(host, namespace));
    }
    if host.holder().is_some() {
        return Some(host.held_reason());
    }
    host.in_use_reason().or_else(|| host.not_alive_reason())
}

/// Why a host whose holder is gone cannot be had, and what makes it free.
fn orphaned(host: &ByoHost, namespace: &str) -> String {
    let Some(holder) = host.annotations().get(names::REQUEST_ANNOTATION) else {
        return format!(
            "is held by nobody that is known; take the label {} off ByoHost {namespace}/{}",
            names::REQUEST_UID_LABEL,
            host.name_any()
        );
    };
    let held = format!("is held by an earlier ProvisioningRequest {holder} that does not exist any more");
    match host.in_use_reason() {
        Some(busy) if host.is_unregistering() => format!("{held}, and {busy}"),
        Some(busy) => format!(
            "{held}, and {busy}; apply that request again, as it was, to have its cluster looked after, and delete it if the cluster is to go"
        ),
        None => format!("{held}; it comes free when its Cluster is deleted"),
    }
}
