//! The caches of every kind that concerns a request.

use std::collections::BTreeSet;

use cluster_api::Kind;
use cluster_api::byoh::ByohVariant;
use cluster_api::cluster::{ByoCluster, ClusterResourceSet, ClusterResourceSetBinding};
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

/// The Cluster API kinds that the operator creates.
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
    /// ProvisioningRequests, with all fields.
    pub requests: Requests,
    /// ClusterTemplates, with all fields.
    pub templates: Templates,
    /// All ByoHosts.
    pub hosts: Hosts,
    /// All Clusters of the management cluster.
    pub clusters: Clusters,
    /// All KubeadmControlPlanes, so that one whose mark was removed is still found, and one of another owner before hosts are claimed.
    pub control_planes: MarkedObjects<KubeadmControlPlane>,
    /// All MachineDeployments, so that one of another owner is found before hosts are claimed.
    pub machine_deployments: MarkedObjects<MachineDeployment>,
    /// Machines with a mark.
    pub machines: Machines,
    /// All ByoClusters, for the same reason.
    pub byo_clusters: MarkedObjects<ByoCluster>,
    /// ByoMachineTemplates with a mark.
    pub machine_templates: MarkedObjects<ByoMachineTemplate>,
    /// KubeadmConfigTemplates with a mark.
    pub config_templates: MarkedObjects<KubeadmConfigTemplate>,
    /// K8sInstallerConfigTemplates with a mark.
    pub installer_templates: MarkedObjects<K8sInstallerConfigTemplate>,
    /// ClusterResourceSets, which templates name as their CNI.
    pub resource_sets: Store<ClusterResourceSet>,
    /// What ClusterResourceSets have applied to each cluster.
    pub resource_set_bindings: Store<ClusterResourceSetBinding>,
    /// BYOH's CustomResourceDefinition of ByoHost, which tells the variants of BYOH apart.
    pub byohost_crd: Store<DynamicObject>,
    /// Kinds that show whether their providers are installed.
    pub providers: Vec<ProvidedKind>,
}

/// A kind that a provider brings.
#[derive(Clone)]
pub struct ProvidedKind {
    /// The provider, by the name that a user would search for.
    pub provider: &'static str,
    /// The kind.
    pub kind: Kind,
    /// The state of its watch.
    pub state: watch::Receiver<SyncState>,
}

/// A provider that is missing, by the name that a user would search for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MissingProvider {
    /// It is not installed.
    NotInstalled(&'static str),
    /// The API server serves the kind in these other versions only.
    OtherVersions(&'static str, Kind, Vec<String>),
}

impl Caches {
    /// Providers of which a kind is not installed, or not served in the version that is used here.
    pub fn missing_providers(&self) -> BTreeSet<MissingProvider> {
        let missing = |kind: &ProvidedKind| match &*kind.state.borrow() {
            SyncState::NotInstalled => Some(MissingProvider::NotInstalled(kind.provider)),
            SyncState::OtherVersions(versions) => {
                Some(MissingProvider::OtherVersions(kind.provider, kind.kind, versions.clone()))
            }
            SyncState::Syncing | SyncState::Synced => None,
        };
        let mut all: BTreeSet<_> = self.providers.iter().filter_map(missing).collect();
        let of_other_version: Vec<_> = all
            .iter()
            .filter_map(|missing| match missing {
                MissingProvider::OtherVersions(provider, ..) => Some(*provider),
                MissingProvider::NotInstalled(_) => None,
            })
            .collect();
        // A provider of another version may lack a kind too: it is installed all the same.
        all.retain(
            |missing| !matches!(missing, MissingProvider::NotInstalled(name) if of_other_version.contains(name)),
        );
        all
    }

    /// Which BYOH is installed, if one is.
    pub fn byoh_variant(&self) -> Option<ByohVariant> {
        self.byohost_crd.state().first().map(|crd| ByohVariant::of(crd))
    }
}
