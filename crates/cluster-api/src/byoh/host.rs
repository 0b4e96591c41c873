//! `ByoHost`: what is read of it, and when it is free.

use std::net::IpAddr;

use ipnet::IpNet;
use kube::ResourceExt as _;
use serde::Deserialize;

use crate::conditions::Condition;
use crate::labels::{CLUSTER_NAME_LABEL, PAUSED_ANNOTATION};
use crate::partial::{NameRef, partial_resource};

/// Label that BYOH puts on an attached host: `<namespace>.<ByoMachine>`.
pub const MACHINE_NAME_LABEL: &str = "byoh.infrastructure.cluster.x-k8s.io/byomachine-name";
/// Annotation that BYOH puts on an attached host: the Kubernetes version of its machine.
pub const MACHINE_VERSION_ANNOTATION: &str = "byoh.infrastructure.cluster.x-k8s.io/k8sversion";
/// Annotation that asks the agent to clean the host.
pub const UNREGISTERING_ANNOTATION: &str = "byoh.infrastructure.cluster.x-k8s.io/unregistering";
/// BYOH's admission webhook for ByoHosts.
pub const HOST_WEBHOOK: &str = "vbyohost.kb.io";
/// The agent ran the bootstrap script.
pub const BOOTSTRAP_SUCCEEDED: &str = "K8sNodeBootstrapSucceeded";
/// The agent ran the install script.
pub const INSTALLATION_SUCCEEDED: &str = "K8sComponentsInstallationSucceeded";
/// The agent's heartbeat arrives (platform9's BYOH only).
const AGENT_CONNECTED: &str = "AgentConnected";

partial_resource!(
    /// A registered server.
    ByoHost, ByoHostSpec, ByoHostStatus
);

/// Of a ByoHost's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ByoHostSpec {
    /// The script that makes it a node.
    pub bootstrap_secret: Option<NameRef>,
    /// The script that installs Kubernetes.
    pub installation_secret: Option<NameRef>,
    /// The script that removes Kubernetes (platform9's BYOH only).
    pub uninstallation_secret: Option<NameRef>,
}

/// Of a ByoHost's status.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ByoHostStatus {
    /// The ByoMachine that it is attached to.
    pub machine_ref: Option<NameRef>,
    /// What the agent reports about the server.
    #[serde(rename = "hostinfo")]
    pub host_info: Option<HostInfo>,
    /// Network cards.
    #[serde(default)]
    pub network: Vec<Network>,
    /// Conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// What the agent reports about the server. Without it the agent has reported nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct HostInfo {
    /// The operating system, for people.
    #[serde(default, rename = "osimage")]
    pub os_image: String,
}

/// A network card.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Addresses in CIDR form.
    #[serde(default)]
    pub ip_addrs: Vec<String>,
    /// Carries the default route.
    #[serde(default)]
    pub is_default: bool,
}

impl ByoHost {
    /// Every address that the agent reports, cards with the default route first, IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut found: Vec<(bool, IpAddr)> = self
            .status
            .network
            .iter()
            .flat_map(|card| card.ip_addrs.iter().map(move |address| (card.is_default, address)))
            .filter_map(|(default, address)| {
                Some((default, address.split('/').next().unwrap_or_default().parse::<IpAddr>().ok()?))
            })
            .collect();
        found.sort_by_key(|(default, address)| (!default, address.is_ipv6()));
        found.into_iter().map(|(_, address)| address).collect()
    }

    /// The address at which the API server of a cluster with this one master answers: `wanted` if the host has it, else its first one.
    pub fn endpoint_address(&self, wanted: Option<IpAddr>) -> Option<IpAddr> {
        let addresses = self.addresses();
        wanted.filter(|wanted| addresses.contains(wanted)).or_else(|| addresses.first().copied())
    }

    /// The addresses of the card with the default route and of the card with the address `also`, each with the network that it is in. The
    /// agent reports cards at its start only: others may be those of a cluster that the host was in then.
    pub fn networks(&self, also: Option<IpAddr>) -> Vec<IpNet> {
        let parsed = |card: &Network| card.ip_addrs.iter().filter_map(|text| text.parse::<IpNet>().ok()).collect();
        let cards = self.status.network.iter().map(|card| (card.is_default, parsed(card)));
        let is_wanted = |(is_default, nets): &(bool, Vec<IpNet>)| {
            *is_default || also.is_some_and(|also| nets.iter().any(|net| net.addr() == also))
        };
        cards.filter(is_wanted).flat_map(|(_, nets)| nets).filter(|net| is_routed(&net.addr())).collect()
    }

    /// Why the host cannot be attached to a machine, as BYOH and its agent see it; `None` when it is free. BYOH itself checks
    /// only the first of these.
    pub fn in_use_reason(&self) -> Option<String> {
        let labels = self.labels();
        if self.is_unregistering() {
            return Some("is being cleaned by its agent".to_owned());
        }
        if let Some(cluster) = labels.get(CLUSTER_NAME_LABEL) {
            return Some(format!("is in use by cluster {cluster}"));
        }
        if labels.contains_key(MACHINE_NAME_LABEL) || self.status.machine_ref.is_some() {
            return Some("is attached to a machine".to_owned());
        }
        if self.spec.bootstrap_secret.is_some()
            || self.spec.installation_secret.is_some()
            || self.spec.uninstallation_secret.is_some()
        {
            return Some("has not been cleaned to the end by its agent".to_owned());
        }
        if Condition::is_true(&self.status.conditions, BOOTSTRAP_SUCCEEDED) {
            return Some("still runs a node".to_owned());
        }
        if self.is_paused() {
            return Some(format!("is paused (annotation {PAUSED_ANNOTATION})"));
        }
        None
    }

    /// Why the host's agent is known not to work; `None` if it is not known. Upstream's agent has no heartbeat.
    pub fn not_alive_reason(&self) -> Option<String> {
        if self.metadata.deletion_timestamp.is_some() {
            return Some("is being deleted".to_owned());
        }
        if self.status.host_info.is_none() {
            return Some("is not alive: its agent has reported nothing".to_owned());
        }
        let connected = Condition::find(&self.status.conditions, AGENT_CONNECTED)?;
        (connected.status == "False").then(|| format!("is not alive: {}", connected.explain()))
    }

    /// `<namespace>.<ByoMachine>` of the ByoMachine that the host is attached to.
    pub fn machine_name(&self) -> Option<&str> {
        self.labels().get(MACHINE_NAME_LABEL).map(String::as_str)
    }

    /// Name of the ByoMachine that the host is attached to, from the status or from the label.
    pub fn attached_machine(&self) -> Option<&str> {
        let labelled = || self.machine_name()?.split_once('.').map(|(_, machine)| machine);
        self.status.machine_ref.as_ref().map(|attached| attached.name.as_str()).or_else(labelled)
    }

    /// BYOH and its agent skip the host.
    pub fn is_paused(&self) -> bool {
        self.annotations().contains_key(PAUSED_ANNOTATION)
    }

    /// Kubernetes version of the Machine that the host is attached to.
    pub fn machine_version(&self) -> Option<&str> {
        self.annotations().get(MACHINE_VERSION_ANNOTATION).map(String::as_str)
    }

    /// The condition of this type, if it is False.
    pub fn failed(&self, type_: &str) -> Option<&Condition> {
        Condition::find(&self.status.conditions, type_).filter(|condition| condition.status == "False")
    }

    /// The install script ended well.
    pub fn installed(&self) -> bool {
        Condition::is_true(&self.status.conditions, INSTALLATION_SUCCEEDED)
    }

    /// The agent was started without `--skip-installation`, and nothing installs Kubernetes.
    pub fn waits_for_installer(&self) -> bool {
        self.failed(INSTALLATION_SUCCEEDED)
            .is_some_and(|condition| condition.reason == "K8sInstallationSecretUnavailable")
    }

    /// The host is attached to a Machine of this cluster.
    pub fn is_attached_to(&self, cluster: &str) -> bool {
        self.labels().get(CLUSTER_NAME_LABEL).is_some_and(|label| label == cluster)
    }

    /// The host is attached to a Machine of this cluster, in its own namespace, and its agent has not been asked to clean it.
    pub fn is_in_service_of(&self, cluster: &str) -> bool {
        let of_namespace =
            |machine: &String| machine.starts_with(&format!("{}.", self.namespace().unwrap_or_default()));
        self.is_attached_to(cluster)
            && !self.is_unregistering()
            && self.labels().get(MACHINE_NAME_LABEL).is_some_and(of_namespace)
    }

    /// The host is attached to a Machine of another cluster.
    pub fn is_attached_to_other(&self, cluster: &str) -> bool {
        self.labels().get(CLUSTER_NAME_LABEL).is_some_and(|label| label != cluster)
    }

    /// BYOH has asked the agent to clean the host.
    pub fn is_unregistering(&self) -> bool {
        self.annotations().contains_key(UNREGISTERING_ANNOTATION)
    }

    /// The bootstrap script ended well.
    pub fn bootstrapped(&self) -> bool {
        Condition::is_true(&self.status.conditions, BOOTSTRAP_SUCCEEDED)
    }
}

/// Whether other servers can reach the address: not loopback, nor link-local.
fn is_routed(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A free host, with one value changed in the object that `parent` points to.
    fn host(parent: &str, key: &str, value: Value) -> ByoHost {
        let mut host = json!({
            "metadata": {"name": "target-1", "labels": {"host-id": "1"}, "annotations": {}},
            "spec": {},
            "status": {
                "hostinfo": {"osimage": "Ubuntu 22.04"},
                "network": [
                    {"ipAddrs": ["fe80::1/64", "172.17.0.1/16"], "isDefault": false},
                    {"ipAddrs": ["fd00::2/64", "10.0.0.2/24"], "isDefault": true}
                ],
                "conditions": [{"type": "K8sNodeBootstrapSucceeded", "status": "False", "severity": "Info", "reason": "K8sNodeAbsent"}]
            }
        });
        host.pointer_mut(parent).unwrap()[key] = value;
        serde_json::from_value(host).unwrap()
    }

    fn free() -> ByoHost {
        host("/metadata/labels", "host-id", json!("1"))
    }

    #[test]
    fn each_sign_of_use_makes_a_host_busy() {
        assert_eq!(free().in_use_reason(), None);
        let signs = [
            ("/metadata/labels", "cluster.x-k8s.io/cluster-name", json!("core")),
            ("/metadata/labels", "byoh.infrastructure.cluster.x-k8s.io/byomachine-name", json!("a.b")),
            ("/metadata/annotations", "byoh.infrastructure.cluster.x-k8s.io/unregistering", json!("")),
            ("/metadata/annotations", "cluster.x-k8s.io/paused", json!("")),
            ("/spec", "bootstrapSecret", json!({"name": "x"})),
            ("/spec", "installationSecret", json!({"name": "x"})),
            ("/spec", "uninstallationSecret", json!({"name": "x"})),
            ("/status", "machineRef", json!({"name": "x"})),
            ("/status", "conditions", json!([{"type": "K8sNodeBootstrapSucceeded", "status": "True"}])),
        ];
        for (parent, key, value) in signs {
            assert!(host(parent, key, value).in_use_reason().is_some(), "{parent} {key}");
        }
    }

    #[test]
    fn the_default_card_comes_first() {
        assert_eq!(free().addresses()[0].to_string(), "10.0.0.2");
        let endpoint = |wanted: Option<&str>| {
            free().endpoint_address(wanted.map(|text| text.parse().unwrap())).unwrap().to_string()
        };
        assert_eq!(endpoint(None), "10.0.0.2");
        assert_eq!(endpoint(Some("172.17.0.1")), "172.17.0.1", "an address of another card");
        assert_eq!(endpoint(Some("10.0.0.3")), "10.0.0.2", "not an address of the host");
        let networks = |also: Option<&str>| {
            free().networks(also.map(|text| text.parse().unwrap())).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(networks(None), ["fd00::2/64", "10.0.0.2/24"], "those of the card with the default route");
        assert_eq!(networks(Some("172.17.0.1")), ["172.17.0.1/16", "fd00::2/64", "10.0.0.2/24"]);
    }

    #[test]
    fn a_dead_agent_is_noticed_where_byoh_notices_it() {
        assert_eq!(free().not_alive_reason(), None);
        let silent = json!([{"type": "AgentConnected", "status": "False", "reason": "HeartbeatTimeout"}]);
        let silent = host("/status", "conditions", silent);
        assert_eq!(silent.not_alive_reason().unwrap(), "is not alive: HeartbeatTimeout");
    }
}
