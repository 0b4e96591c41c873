//! Whether the networks of a new cluster can work: their sizes, and the addresses of its hosts.
//!
//! The limits are those of kubeadm (`ValidateNetworking`); with a network that breaks them, `kubeadm init` fails on a host that is taken.

use ipnet::IpNet;
use o2ims_types::HostRef;
use o2ims_types::o2ims::v1alpha1::cluster_template::Kubeadm;

use super::desired::{DesiredCluster, RequestedHost};
use super::kubeadm;
use super::observed::Observed;

/// kubeadm's default of `serviceCidr`.
const DEFAULT_SERVICE_CIDR: &str = "10.96.0.0/12";
/// How many bits longer the prefix of a node's CIDR may be than that of `podCidr`.
const NODE_BITS_MAX: u8 = 16;

/// What is wrong with the networks of a cluster that is not created yet, each with its field.
pub fn violations<'a>(
    desired: &DesiredCluster,
    hosts: impl Iterator<Item = &'a HostRef>,
    observed: &Observed,
) -> Vec<String> {
    let networks = Networks::of(desired);
    let (kubeadm, nodes) = (&desired.template.spec.kubeadm, desired.masters.len() + desired.workers.len());
    let wrong_size = networks.pods.and_then(|pods| pod_cidr_size(pods, kubeadm, nodes));
    let mut found: Vec<_> = wrong_size.into_iter().collect();
    for reference in hosts {
        if let Some(host) = observed.host(reference.name()) {
            let nets = host.networks(reference.ip());
            found.extend(host_violations(&RequestedHost::of(reference), &nets, &networks));
        }
    }
    found
}

struct Networks {
    pods: Option<IpNet>,
    services: Option<IpNet>,
    /// `services` is kubeadm's default.
    services_by_default: bool,
}

impl Networks {
    fn of(desired: &DesiredCluster) -> Self {
        let parse = |text: &str| text.parse::<IpNet>().ok();
        Self {
            pods: desired.pod_cidr.as_deref().and_then(parse),
            services: parse(desired.service_cidr.as_deref().unwrap_or(DEFAULT_SERVICE_CIDR)),
            services_by_default: desired.service_cidr.is_none(),
        }
    }

    /// The networks with the names of their fields.
    fn named(&self) -> impl Iterator<Item = (String, IpNet)> {
        let services = if self.services_by_default { "the default serviceCidr" } else { "serviceCidr" };
        [("podCidr", self.pods), (services, self.services)]
            .into_iter()
            .filter_map(|(name, network)| network.map(|network| (format!("{name} {network}"), network)))
    }
}

/// Why `podCidr` cannot be divided into a CIDR for each of the nodes, as the controller manager does.
pub fn pod_cidr_size(pods: IpNet, kubeadm: &Kubeadm, nodes: usize) -> Option<String> {
    let prefixes = node_prefixes(kubeadm, &pods)?;
    let node = prefixes.kubeadm;
    let Some(bits) = node.checked_sub(pods.prefix_len()) else {
        return Some(format!("podCidr {pods} is too small: each node gets a /{node} of it"));
    };
    if bits > NODE_BITS_MAX {
        return Some(format!(
            "podCidr {pods} is too large: each node gets a /{node} of it, so kubeadm accepts at most a /{}",
            node - NODE_BITS_MAX
        ));
    }
    let node = prefixes.controller_manager;
    let room = 1_usize << node.saturating_sub(pods.prefix_len()).min(NODE_BITS_MAX);
    (nodes > room).then(|| {
        format!(
            "podCidr {pods} is too small for {nodes} nodes: each node gets a /{node} of it, which is enough for {room}"
        )
    })
}

/// The prefix length of a node's CIDR.
struct NodePrefixes {
    /// That kubeadm goes by, which knows the arguments for a family only.
    kubeadm: u8,
    /// That the controller manager goes by.
    controller_manager: u8,
}

/// `None` if the template says that nodes get no CIDR.
fn node_prefixes(kubeadm: &Kubeadm, pods: &IpNet) -> Option<NodePrefixes> {
    let is_ipv4 = pods.addr().is_ipv4();
    let settings = kubeadm.control_plane.as_ref();
    let argument = |name: &str| kubeadm::argument(settings?, "controllerManager", name);
    if argument("allocate-node-cidrs").as_deref() == Some("false") {
        return None;
    }
    let given = |name: &str| argument(name).and_then(|text| text.parse().ok());
    let by_family = given(if is_ipv4 { "node-cidr-mask-size-ipv4" } else { "node-cidr-mask-size-ipv6" });
    let kubeadm = by_family.unwrap_or(if is_ipv4 { 24 } else { 64 });
    Some(NodePrefixes { kubeadm, controller_manager: given("node-cidr-mask-size").unwrap_or(kubeadm) })
}

/// Whether the host has an address of the cluster's family, and no network in common with pods or Services.
fn host_violations(requested: &RequestedHost, of_host: &[IpNet], networks: &Networks) -> Vec<String> {
    let mut found = Vec::new();
    for (name, network) in networks.named() {
        let is_common = |net: &&IpNet| net.contains(&network) || network.contains(*net);
        if let Some(common) = of_host.iter().find(is_common) {
            found.push(format!(
                "{name} overlaps with the network of {requested}, which has the address {common}: choose another one"
            ));
        }
    }
    if let Some(services) = networks.services
        && !of_host.is_empty()
        && !of_host.iter().any(|net| net.addr().is_ipv4() == services.addr().is_ipv4())
    {
        let (family, default) = if services.addr().is_ipv4() { ("IPv4", " (the default)") } else { ("IPv6", "") };
        let default = if networks.services_by_default { default } else { "" };
        found.push(format!("serviceCidr {services}{default} is {family}, but {requested} reports no {family} address"));
    }
    found
}
