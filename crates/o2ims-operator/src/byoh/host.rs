//! ByoHosts: what is read of them, and when one is free.

use std::net::IpAddr;

use kube::ResourceExt as _;
use o2ims_types::names;
use serde::Deserialize;

use crate::capi::contract::{CLUSTER_NAME_LABEL, PAUSED_ANNOTATION};
use crate::capi::read::{Condition, NameRef, slim};

/// Label that BYOH puts on an attached host: `<namespace>.<ByoMachine>`.
pub const MACHINE_NAME_LABEL: &str = "byoh.infrastructure.cluster.x-k8s.io/byomachine-name";
/// Annotation that BYOH puts on an attached host: the Kubernetes version of its machine.
pub const MACHINE_VERSION_ANNOTATION: &str = "byoh.infrastructure.cluster.x-k8s.io/k8sversion";
/// Longest text that is taken from a host into a message.
const REPORT_MAX: usize = 400;
/// Annotation that asks the agent to clean the host.
pub const UNREGISTERING_ANNOTATION: &str = "byoh.infrastructure.cluster.x-k8s.io/unregistering";
/// The agent ran the bootstrap script.
pub const BOOTSTRAP_SUCCEEDED: &str = "K8sNodeBootstrapSucceeded";
/// The agent ran the install script.
pub const INSTALLATION_SUCCEEDED: &str = "K8sComponentsInstallationSucceeded";
/// The agent's heartbeat arrives (platform9's BYOH only).
const AGENT_CONNECTED: &str = "AgentConnected";

slim!(
    /// A registered server.
    ByoHost, "ByoHost", "infrastructure.cluster.x-k8s.io", "byohosts", ByoHostSpec, ByoHostStatus
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
    /// What the agent found out about the server.
    #[serde(rename = "hostinfo")]
    pub host_info: Option<HostInfo>,
    /// Network cards.
    #[serde(default)]
    pub network: Vec<Network>,
    /// Conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// What the agent found out about the server. A host without it was never heard of.
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
    /// UID of the request that holds the host.
    pub fn holder(&self) -> Option<&str> {
        self.labels().get(names::REQUEST_UID_LABEL).map(String::as_str)
    }

    /// `namespace/name` of the request that holds the host, for messages.
    pub fn holder_name(&self) -> String {
        self.annotations().get(names::REQUEST_ANNOTATION).cloned().unwrap_or_else(|| "another request".to_owned())
    }

    /// It is held as a master.
    pub fn is_held_as_master(&self) -> bool {
        self.labels().get(names::ROLE_LABEL).is_some_and(|role| role == names::ROLE_CONTROL_PLANE)
    }

    /// `host 1 (target-1)`, as requests name it.
    pub fn display(&self) -> String {
        format!("host {} ({})", self.host_id().unwrap_or("without id"), self.name_any())
    }

    /// The server's id.
    pub fn host_id(&self) -> Option<&str> {
        self.labels().get(names::HOST_ID_LABEL).map(String::as_str)
    }

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

    /// Why the host cannot be given to a cluster, as BYOH and its agent see it; `None` when it is free. BYOH itself only
    /// looks at the first of these.
    pub fn busy(&self) -> Option<String> {
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

    /// Why the host's agent cannot be relied on; `None` as far as is known. Upstream's agent has no heartbeat.
    pub fn dead(&self) -> Option<String> {
        if self.metadata.deletion_timestamp.is_some() {
            return Some("is being deleted".to_owned());
        }
        if self.status.host_info.is_none() {
            return Some("is not alive: its agent has reported nothing".to_owned());
        }
        let connected = Condition::find(&self.status.conditions, AGENT_CONNECTED)?;
        (connected.status == "False").then(|| format!("is not alive: {}", connected.explain()))
    }

    /// The last failure that the agent reported and has not recovered from.
    pub fn failure(&self) -> Option<String> {
        if let Some(condition) = self.failed(INSTALLATION_SUCCEEDED)
            && condition.reason == "K8sComponentsInstallationFailed"
        {
            return Some(format!("installation of Kubernetes failed: {}", self.why(condition)));
        }
        let bootstrap = self.failed(BOOTSTRAP_SUCCEEDED)?;
        (bootstrap.severity == "Error").then(|| format!("bootstrap failed: {}", self.why(bootstrap)))
    }

    /// What the host itself says, if it does: BYOH's agent tells that something failed, but not what.
    fn why(&self, condition: &Condition) -> String {
        match self.annotations().get(names::FAILURE_ANNOTATION) {
            Some(text) => text.chars().filter(|character| !character.is_control()).take(REPORT_MAX).collect(),
            None => condition.explain(),
        }
    }

    /// `<namespace>.<ByoMachine>` of the machine that the host was given to.
    pub fn machine_name(&self) -> Option<&str> {
        self.labels().get(MACHINE_NAME_LABEL).map(String::as_str)
    }

    /// The ByoMachine that the host was given to, as the status or the label says.
    pub fn attached_machine(&self) -> Option<&str> {
        let labelled = || self.machine_name()?.split_once('.').map(|(_, machine)| machine);
        self.status.machine_ref.as_ref().map(|attached| attached.name.as_str()).or_else(labelled)
    }

    /// Somebody wants BYOH and its agent to leave the host alone.
    pub fn is_paused(&self) -> bool {
        self.annotations().contains_key(PAUSED_ANNOTATION)
    }

    /// Kubernetes version of the machine that the host was given to.
    pub fn machine_version(&self) -> Option<&str> {
        self.annotations().get(MACHINE_VERSION_ANNOTATION).map(String::as_str)
    }

    fn failed(&self, type_: &str) -> Option<&Condition> {
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

    /// The host has been given to a machine of this cluster.
    pub fn is_given_to(&self, cluster: &str) -> bool {
        self.labels().get(CLUSTER_NAME_LABEL).is_some_and(|label| label == cluster)
    }

    /// BYOH gave the host to a machine of this cluster, in the host's own namespace, and has not asked the agent to clean it.
    pub fn is_kept_by(&self, cluster: &str) -> bool {
        let of_namespace =
            |machine: &String| machine.starts_with(&format!("{}.", self.namespace().unwrap_or_default()));
        self.is_given_to(cluster)
            && !self.is_unregistering()
            && self.labels().get(MACHINE_NAME_LABEL).is_some_and(of_namespace)
    }

    /// The host has been given to a machine of another cluster.
    pub fn is_given_to_other(&self, cluster: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn host(change: Value) -> ByoHost {
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
        o2ims_types::schema::overlay(&mut host, change);
        serde_json::from_value(host).unwrap()
    }

    #[test]
    fn each_sign_of_use_makes_a_host_busy() {
        assert_eq!(host(json!({})).busy(), None);
        let signs = [
            json!({"metadata": {"labels": {"cluster.x-k8s.io/cluster-name": "core"}}}),
            json!({"metadata": {"labels": {"byoh.infrastructure.cluster.x-k8s.io/byomachine-name": "a.b"}}}),
            json!({"metadata": {"annotations": {"byoh.infrastructure.cluster.x-k8s.io/unregistering": ""}}}),
            json!({"metadata": {"annotations": {"cluster.x-k8s.io/paused": ""}}}),
            json!({"spec": {"bootstrapSecret": {"name": "x"}}}),
            json!({"spec": {"installationSecret": {"name": "x"}}}),
            json!({"spec": {"uninstallationSecret": {"name": "x"}}}),
            json!({"status": {"machineRef": {"name": "x"}}}),
            json!({"status": {"conditions": [{"type": "K8sNodeBootstrapSucceeded", "status": "True"}]}}),
        ];
        for sign in signs {
            assert!(host(sign.clone()).busy().is_some(), "{sign}");
        }
    }

    #[test]
    fn the_default_card_comes_first() {
        assert_eq!(host(json!({})).addresses()[0].to_string(), "10.0.0.2");
    }

    #[test]
    fn a_dead_agent_is_noticed_where_byoh_notices_it() {
        assert_eq!(host(json!({})).dead(), None);
        let silent = json!({"status": {"conditions": [{"type": "AgentConnected", "status": "False", "reason": "HeartbeatTimeout"}]}});
        assert_eq!(host(silent).dead().unwrap(), "is not alive: HeartbeatTimeout");
    }
}
