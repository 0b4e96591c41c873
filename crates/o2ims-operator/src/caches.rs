//! The caches, and lookups in them that are the same for every reader.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use cluster_api::cluster::{ByoCluster, Cluster, ClusterResourceSet};
use cluster_api::control_plane::KubeadmControlPlane;
use cluster_api::machine::{Machine, MachineDeployment};
use cluster_api::templates::{ByoMachineTemplate, K8sInstallerConfigTemplate, KubeadmConfigTemplate};
use kube::core::DynamicObject;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt as _};
use o2ims_types::{ClusterTemplate, ProvisioningRequest, names};
use operator_kit::cache::SyncState;
use tokio::sync::watch;

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
    pub requests: Store<ProvisioningRequest>,
    /// Templates, whole.
    pub templates: Store<ClusterTemplate>,
    /// Hosts.
    pub hosts: Store<ByoHost>,
    /// Clusters, also those of others.
    pub clusters: Store<Cluster>,
    /// Control planes, also those of others: one that lost its mark is still found.
    pub control_planes: Store<KubeadmControlPlane>,
    /// MachineDeployments that the operator made.
    pub machine_deployments: Store<MachineDeployment>,
    /// Machines of clusters that the operator made.
    pub machines: Store<Machine>,
    /// ByoClusters that the operator made.
    pub byo_clusters: Store<ByoCluster>,
    /// ByoMachineTemplates that the operator made.
    pub machine_templates: Store<ByoMachineTemplate>,
    /// KubeadmConfigTemplates that the operator made.
    pub config_templates: Store<KubeadmConfigTemplate>,
    /// K8sInstallerConfigTemplates that the operator made.
    pub installer_templates: Store<K8sInstallerConfigTemplate>,
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

    /// Whether a request with this UID exists.
    pub fn request_exists(&self, uid: &str) -> bool {
        self.requests.find(|request| request.metadata.uid.as_deref() == Some(uid)).is_some()
    }
}

/// The resource version of an object as a number, to tell whether a cache shows a write; 0 if there is none.
pub fn version_of<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// Whether the object has the mark of the request with this UID.
pub fn is_owned_by<K: Resource>(object: &K, uid: &str) -> bool {
    object.labels().get(names::REQUEST_UID_LABEL).is_some_and(|value| value == uid)
}

/// The objects of one kind that have the mark of the request with this UID.
pub fn owned_by<K>(store: &Store<K>, namespace: &str, uid: &str) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store
        .state()
        .into_iter()
        .filter(|object| object.meta().namespace.as_deref() == Some(namespace) && is_owned_by(object.as_ref(), uid))
        .collect()
}
