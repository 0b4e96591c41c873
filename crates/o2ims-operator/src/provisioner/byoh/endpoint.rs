//! Where the API of a cluster answers: at the endpoint that the request names, or at its one master.

use std::net::IpAddr;

use cluster_api::byoh::ByoHost;
use ipnet::IpNet;
use o2ims_types::o2ims::v1alpha1::cluster_template::{Kubeadm, VirtualIpProvider};
use o2ims_types::o2ims::v1alpha1::provisioning_request::{API_PORT, Endpoint as RequestedEndpoint, Hosts};
use o2ims_types::{ClusterTemplate, HostRef, TemplateParameters};

use super::desired::{Endpoint, RequestedHost};
use super::observed::Observed;
use crate::provisioner::report::Rejection;

/// The endpoint of the cluster. Of a new one, an endpoint that cannot work is rejected.
pub fn select_endpoint(
    parameters: &TemplateParameters,
    template: &ClusterTemplate,
    observed: &Observed,
    is_new: bool,
) -> Result<Endpoint, Rejection> {
    // The address is in every node's kubeconfig: a host that reports its addresses in another order, or others, does not change the endpoint
    // of an existing cluster. Nor is it checked again: the master that has the virtual IP reports it as its own address.
    let existing = observed.own_cluster().and_then(|cluster| cluster.spec.control_plane_endpoint.as_ref());
    if let Some(existing) = existing.filter(|_| observed.is_created || parameters.control_plane_endpoint.is_none()) {
        return Ok(Endpoint { host: existing.host.clone(), port: existing.port, virtual_ip: false });
    }
    let none = Hosts::default();
    let hosts = parameters.hosts.as_ref().unwrap_or(&none);
    let endpoint = match &parameters.control_plane_endpoint {
        Some(requested) => requested_endpoint(requested, &hosts.masters, template, observed)?,
        None => default_endpoint(&hosts.masters, template, observed),
    };
    let violation = if is_new { violation(&endpoint, hosts, template, observed) } else { None };
    violation.map_or(Ok(endpoint), |message| Err(Rejection::invalid(message)))
}

fn requested_endpoint(
    requested: &RequestedEndpoint,
    masters: &[HostRef],
    template: &ClusterTemplate,
    observed: &Observed,
) -> Result<Endpoint, Rejection> {
    let address = requested.host.parse::<IpAddr>().ok();
    let own = address.is_some_and(|address| with_address(masters, address, observed).is_some());
    if own && masters.len() > 1 {
        return Err(Rejection::invalid(format!(
            "controlPlaneEndpoint.host {} is the address of one of {} masters; it must be a virtual IP or a load balancer",
            requested.host,
            masters.len()
        )));
    }
    let by_kube_vip = template.spec.virtual_ip.provider == VirtualIpProvider::KubeVip;
    Ok(Endpoint {
        host: requested.host.clone(),
        port: requested.port,
        virtual_ip: by_kube_vip && address.is_some() && !own,
    })
}

/// Why the masters of a running cluster cannot be others, or more: its endpoint is the address of one of them. `masters` are those that it has.
pub fn ties_masters(masters: &[String], observed: &Observed) -> Option<String> {
    let endpoint = observed.own_cluster()?.spec.control_plane_endpoint.as_ref()?;
    let address = endpoint.host.parse::<IpAddr>().ok()?;
    let owner = masters.iter().find(|name| observed.host(name).is_some_and(|host| is_own(host, address)))?;
    Some(format!(
        "the cluster's endpoint {address} is the address of {owner}. Set hosts.masters back to {}. A cluster that is to get other masters \
         needs a controlPlaneEndpoint that is a virtual IP, a load balancer or a DNS name when it is created, also with one master",
        masters.join(", ")
    ))
}

/// Why kube-vip could not advertise the endpoint of a running cluster from a master that is added.
pub fn unreachable_from(master: &HostRef, template: &ClusterTemplate, observed: &Observed) -> Option<String> {
    let endpoint = observed.own_cluster()?.spec.control_plane_endpoint.as_ref()?;
    let address = endpoint.host.parse::<IpAddr>().ok()?;
    if observed.template.is_none() || template.spec.virtual_ip.provider != VirtualIpProvider::KubeVip {
        return None;
    }
    outside(&RequestedHost::of(master), &observed.host(master.name())?.networks(master.ip()), address)
}

/// The address of the one master: its `hostIp`, or its first one. If it has no ByoHost or no address, the endpoint is empty, and the check of the
/// hosts rejects the request.
fn default_endpoint(masters: &[HostRef], template: &ClusterTemplate, observed: &Observed) -> Endpoint {
    let address = masters.first().and_then(|master| observed.host(master.name())?.endpoint_address(master.ip()));
    Endpoint {
        host: address.map(|address| address.to_string()).unwrap_or_default(),
        port: api_server_port(&template.spec.kubeadm),
        virtual_ip: false,
    }
}

/// The port on which the API servers of the masters listen.
fn api_server_port(kubeadm: &Kubeadm) -> i32 {
    let port = kubeadm
        .control_plane
        .as_ref()
        .and_then(|config| config["initConfiguration"]["localAPIEndpoint"]["bindPort"].as_i64());
    port.and_then(|port| i32::try_from(port).ok()).unwrap_or(API_PORT)
}

/// Why no API server would answer at the endpoint of a new cluster, as far as that is known. Nothing is known of a DNS name.
fn violation(endpoint: &Endpoint, hosts: &Hosts, template: &ClusterTemplate, observed: &Observed) -> Option<String> {
    let address = endpoint.host.parse::<IpAddr>().ok()?;
    if let Some((worker, _)) = with_address(&hosts.workers, address, observed) {
        return Some(format!(
            "controlPlaneEndpoint.host {address} is the address of {worker}, which is a worker; set an address that no \
             worker has"
        ));
    }
    let master = with_address(&hosts.masters, address, observed);
    let (port, listens) = (endpoint.port, api_server_port(&template.spec.kubeadm));
    // A load balancer may run on the master itself.
    let is_balanced = template.spec.virtual_ip.provider == VirtualIpProvider::External;
    if port != listens && (master.is_some() || endpoint.virtual_ip) && !is_balanced {
        return Some(format!(
            "controlPlaneEndpoint.port {port}: the API servers of the masters listen on port {listens}; use that one, or the address of a load \
             balancer, with virtualIp.provider external in the ClusterTemplate"
        ));
    }
    if let Some((master, host)) = master {
        return host_route(&master, host, address);
    }
    let mut masters = hosts.masters.iter().filter(|_| endpoint.virtual_ip);
    masters.find_map(|master| {
        let nets = observed.host(master.name())?.networks(master.ip());
        outside(&RequestedHost::of(master), &nets, address)
    })
}

/// The first of the hosts whose own address this is.
fn with_address<'a>(
    hosts: &[HostRef],
    address: IpAddr,
    observed: &'a Observed,
) -> Option<(RequestedHost, &'a ByoHost)> {
    hosts.iter().find_map(|reference| {
        let host = observed.host(reference.name())?;
        is_own(host, address).then(|| (RequestedHost::of(reference), host))
    })
}

/// Whether the address is the host's own. A virtual IP that the host had in a former cluster is not: the agent may have reported it, as a host
/// route beside the card's own address.
fn is_own(host: &ByoHost, address: IpAddr) -> bool {
    let nets = host.networks(Some(address));
    let is_left = nets.iter().any(|net| net.addr() == address && is_host_route(net))
        && nets.iter().any(|net| net.addr().is_ipv4() == address.is_ipv4() && !is_host_route(net));
    host.addresses().contains(&address) && !is_left
}

fn is_host_route(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// BYOH's agent takes the endpoint off the cards when it cleans a host, in the form of a host route, which a virtual IP has.
fn host_route(master: &RequestedHost, host: &ByoHost, address: IpAddr) -> Option<String> {
    let route = host.networks(Some(address)).into_iter().find(|net| net.addr() == address && is_host_route(net))?;
    Some(format!(
        "controlPlaneEndpoint: the card of {master} has {route}, and BYOH's agent would remove exactly that when it cleans the host; set \
         controlPlaneEndpoint.host to another address or to a DNS name"
    ))
}

/// Whether kube-vip cannot advertise the address from the master: other servers ask for it in their own network only.
fn outside(master: &RequestedHost, nets: &[IpNet], address: IpAddr) -> Option<String> {
    let near: Vec<_> =
        nets.iter().filter(|net| net.addr().is_ipv4() == address.is_ipv4() && !is_host_route(net)).collect();
    let (first, net) = (near.first()?, near.iter().find(|net| net.contains(&address)));
    let Some(net) = net else {
        return Some(format!(
            "controlPlaneEndpoint.host {address} is not in the network of {master}, which has {first}, so kube-vip cannot advertise it; choose \
             an address of that network, or for a load balancer a ClusterTemplate with virtualIp.provider external"
        ));
    };
    let has_no_server =
        address.is_ipv4() && net.prefix_len() < 31 && [net.network(), net.broadcast()].contains(&address);
    has_no_server.then(|| {
        format!(
            "controlPlaneEndpoint.host {address} is the network or broadcast address of {}, and of no server",
            net.trunc()
        )
    })
}
