//! `Cluster`, BYOH's half of it, and what is installed on clusters.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use crate::conditions::Condition;
use crate::partial::{Empty, partial_resource};

partial_resource!(
    /// A cluster.
    Cluster, ClusterSpec, ClusterStatus
);

partial_resource!(
    /// BYOH's half of a cluster.
    ByoCluster, ByoClusterSpec, Empty
);

partial_resource!(
    /// Manifests for the clusters that it selects by label.
    ClusterResourceSet, ClusterResourceSetSpec, Empty
);

partial_resource!(
    /// What ClusterResourceSets have applied to the cluster of the same name.
    ClusterResourceSetBinding, ClusterResourceSetBindingSpec, Empty
);

/// Of a Cluster's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// Controllers skip the cluster.
    #[serde(default)]
    pub paused: bool,
    /// Where its API answers.
    pub control_plane_endpoint: Option<ControlPlaneEndpoint>,
    /// Its networks.
    #[serde(default)]
    pub cluster_network: ClusterNetwork,
}

/// Where a cluster's API answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ControlPlaneEndpoint {
    /// Address or name.
    #[serde(default)]
    pub host: String,
    /// TCP port.
    #[serde(default)]
    pub port: i32,
}

/// The host of an endpoint in one form: an address as it is usually written, a name as it is. Two hosts are the same if
/// this is.
pub fn canonical_host(host: &str) -> String {
    host.parse::<IpAddr>().map_or_else(|_| host.to_owned(), |address| address.to_string())
}

/// Of a Cluster's networks.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ClusterNetwork {
    /// Where its pods are.
    #[serde(default)]
    pub pods: NetworkRanges,
    /// Where the cluster IPs of its Services are.
    #[serde(default)]
    pub services: NetworkRanges,
}

/// Networks in CIDR form.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRanges {
    /// The networks.
    #[serde(default)]
    pub cidr_blocks: Vec<String>,
}

/// Of a Cluster's status.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Of a ByoCluster's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ByoClusterSpec {
    /// Where the cluster's API answers.
    pub control_plane_endpoint: Option<ControlPlaneEndpoint>,
}

/// Of a ClusterResourceSet's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterResourceSetSpec {
    /// The clusters that it applies to.
    #[serde(default)]
    pub cluster_selector: LabelSelector,
    /// What it applies to them.
    #[serde(default)]
    pub resources: Vec<ResourceRef>,
}

/// A ConfigMap or Secret with manifests, in the namespace of its ClusterResourceSet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ResourceRef {
    /// Kind.
    #[serde(default)]
    pub kind: String,
    /// Name.
    #[serde(default)]
    pub name: String,
}

/// Of a ClusterResourceSetBinding's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ClusterResourceSetBindingSpec {
    /// What each ClusterResourceSet that selects the cluster has applied.
    #[serde(default)]
    pub bindings: Vec<ResourceSetBinding>,
}

/// What one ClusterResourceSet has applied.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceSetBinding {
    /// Name of the ClusterResourceSet.
    #[serde(default)]
    pub cluster_resource_set_name: String,
    /// The resources that were found.
    #[serde(default)]
    pub resources: Vec<ResourceBinding>,
}

/// A resource that was found.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ResourceBinding {
    /// The resource.
    #[serde(flatten)]
    pub resource: ResourceRef,
    /// It was applied.
    #[serde(default)]
    pub applied: bool,
}

/// The part of a label selector that can be turned into labels.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels and values.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
}
