//! The caches of every kind that concerns a request.

use std::collections::BTreeSet;

use cluster_api::Kind;
use cluster_api::cluster::{ByoCluster, ClusterResourceSet};
use cluster_api::control_plane::KubeadmControlPlane;
use cluster_api::machine::MachineDeployment;
use cluster_api::templates::{ByoMachineTemplate, K8sInstallerConfigTemplate, KubeadmConfigTemplate};
use kube::core::DynamicObject;
use kube::runtime::reflector::Store;
use operator_kit::cache::SyncState;
use tokio::sync::watch;

use super::clusters::Clusters;
use super::hosts::Hosts;
use super::machines::Machines;
use super::marked::MarkedObjects;
use super::requests::Requests;
use super::templates::Templates;

/// The kinds of which the operator makes objects.
pub const OWNED_KINDS: [Kind; 7] = [
    Kind::Cluster,
    Kind::MachineDeployment,
    Kind::KubeadmControlPlane,
    Kind::ByoCluster,
    Kind::ByoMachineTemplate,
    Kind::KubeadmConfigTemplate,
    Kind::K8sInstallerConfigTemplate,
];

/// The caches. A reconcile reads from them and from nothing else.
#[derive(Clone)]
pub struct Caches {
    /// Requests, whole.
    pub requests: Requests,
    /// Templates, whole.
    pub templates: Templates,
    /// Hosts.
    pub hosts: Hosts,
    /// Clusters, also those of others.
    pub clusters: Clusters,
    /// Control planes, also those of others: one that lost its mark is still found.
    pub control_planes: MarkedObjects<KubeadmControlPlane>,
    /// MachineDeployments that the operator made.
    pub machine_deployments: MarkedObjects<MachineDeployment>,
    /// Machines of clusters that the operator made.
    pub machines: Machines,
    /// ByoClusters that the operator made.
    pub byo_clusters: MarkedObjects<ByoCluster>,
    /// ByoMachineTemplates that the operator made.
    pub machine_templates: MarkedObjects<ByoMachineTemplate>,
    /// KubeadmConfigTemplates that the operator made.
    pub config_templates: MarkedObjects<KubeadmConfigTemplate>,
    /// K8sInstallerConfigTemplates that the operator made.
    pub installer_templates: MarkedObjects<K8sInstallerConfigTemplate>,
    /// CNIs that templates can name.
    pub resource_sets: Store<ClusterResourceSet>,
    /// BYOH's ByoHost definition, to tell the dialects apart.
    pub byohost_crd: Store<DynamicObject>,
    /// Whether each provider's kinds exist, by what a user has to install.
    pub providers: Vec<(&'static str, watch::Receiver<SyncState>)>,
}

impl Caches {
    /// Projects of which kinds are not installed, as a user would look for them.
    pub fn missing_providers(&self) -> Vec<String> {
        self.providers
            .iter()
            .filter(|(_, state)| *state.borrow() == SyncState::NotInstalled)
            .map(|(provider, _)| (*provider).to_owned())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }
}
