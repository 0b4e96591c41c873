//! What there is that concerns one request, taken from the watched caches. Reads nothing over the network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::{
    Resource, ResourceExt as _,
    runtime::reflector::{ObjectRef, Store},
};
use o2ims_types::cluster_template::Install;
use o2ims_types::provisioning_request::Hosts;
use o2ims_types::{ClusterTemplate, ProvisioningRequest, names};
use operator_kit::cache::SyncState;

use super::consent;
use super::plan::key;
use super::rivals::Rival;
use crate::byoh::host::ByoHost;
use crate::byoh::installation::Dialect;
use crate::byoh::installer;
use crate::capi::contract::Kind;
use crate::capi::read::{ByoCluster, Cluster, KubeadmControlPlane, Machine, MachineDeployment};
use crate::watches::Watches;

/// Everything that the pure steps need to know.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The mark on everything that is the request's: its UID, or, where it was restored from a backup, the UID that it had
    /// when its cluster was made. See [`identity`].
    pub uid: String,
    /// Kinds that are not installed, as `kind (project)`.
    pub missing_providers: Vec<String>,
    /// Name of the cluster that the request asks for.
    pub cluster_name: String,
    /// Hosts that are held by a request that does not exist any more.
    pub orphans: BTreeSet<String>,
    /// Which BYOH is installed, if one is.
    pub dialect: Option<Dialect>,
    /// The template that the request names.
    pub template: Option<Arc<ClusterTemplate>>,
    /// The ClusterResourceSet that the template names.
    pub resource_set: ResourceSetLookup,
    /// Whoever has the cluster name or the endpoint, or goes first, once that is decided.
    pub rival: Option<Rival>,
    /// Every ByoHost that the request names or holds, or that is a node of its cluster, by name.
    pub hosts: BTreeMap<String, Arc<ByoHost>>,
    /// ByoHosts whose label `host-id` is one of the request's, by id.
    pub ids: BTreeMap<String, String>,
    /// The Cluster of the request's cluster name, whoever made it.
    pub cluster: Option<Arc<Cluster>>,
    /// This request made it.
    pub cluster_is_own: bool,
    /// The request had a Cluster, and what became of its nodes cannot be told.
    pub misses_cluster: bool,
    /// The request's KubeadmControlPlane.
    pub control_plane: Option<Arc<KubeadmControlPlane>>,
    /// The request's ByoCluster.
    pub byo_cluster: Option<Arc<ByoCluster>>,
    /// The request's MachineDeployments, by name.
    pub deployments: BTreeMap<String, Arc<MachineDeployment>>,
    /// The request's Machines.
    pub machines: Vec<Arc<Machine>>,
    /// Every object that the operator made for the request.
    pub made: BTreeMap<(Kind, String), Made>,
    /// Machines of others that are nodes on hosts which look free, by host: their ByoHosts were deleted and registered anew.
    pub foreign_nodes: BTreeMap<String, Arc<Machine>>,
    /// Templates that one of those refers to.
    pub referred: BTreeSet<(Kind, String)>,
}

/// The ClusterResourceSet that the template names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ResourceSetLookup {
    /// It does not exist.
    #[default]
    Missing,
    /// The labels that it selects clusters by.
    Labels(BTreeMap<String, String>),
}

/// An object that the operator made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its UID.
    pub uid: String,
    /// Its resource version.
    pub version: u64,
    /// Hash of what was applied.
    pub applied_hash: String,
    /// It is on its way out.
    pub deleting: bool,
    /// UID of the Cluster that it refers to as Cluster API makes it do, which shows that Cluster API has seen it.
    pub adopted_by: Option<String>,
}

impl Made {
    fn of<K: Resource>(object: &K) -> Self {
        Self {
            uid: object.uid().unwrap_or_default(),
            version: version_of(object),
            applied_hash: object.annotations().get(names::APPLIED_HASH_ANNOTATION).cloned().unwrap_or_default(),
            deleting: object.meta().deletion_timestamp.is_some(),
            adopted_by: object
                .owner_references()
                .iter()
                .find(|owner| owner.kind == Kind::Cluster.name())
                .map(|owner| owner.uid.clone()),
        }
    }
}

impl Observed {
    /// The ByoHost of this name in the request's namespace.
    pub fn host(&self, name: &str) -> Option<&ByoHost> {
        self.hosts.get(name).map(AsRef::as_ref)
    }

    /// Name of the ByoHost that carries the label `host-id` with this value.
    pub fn bearer_of_id(&self, id: &str) -> Option<&str> {
        self.ids.get(id).map(String::as_str)
    }

    /// Hosts that the request holds.
    pub fn held(&self) -> impl Iterator<Item = &Arc<ByoHost>> {
        self.hosts.values().filter(|host| self.holds(host))
    }

    /// Whether the request holds the host: by its mark, or, where somebody took that off, by a Machine that runs on it.
    pub fn holds(&self, host: &ByoHost) -> bool {
        match host.holder() {
            Some(holder) => holder == self.uid,
            None => self.cluster.is_some() && host.is_given_to(&self.cluster_name) && self.machine_of(host).is_some(),
        }
    }

    /// The request's Machine that the host was given to, as its ByoHost or its Node says: a ByoHost that was restored from a
    /// backup has no status.
    pub fn machine_of(&self, host: &ByoHost) -> Option<&Machine> {
        let given = host.attached_machine();
        let mut machines = self.machines.iter().map(AsRef::as_ref);
        machines
            .find(|machine| given == Some(&machine.spec.infrastructure_ref.name))
            .or_else(|| self.node(&host.name_any()))
    }

    /// The Machine whose node this is, unless it is on its way out.
    pub fn node(&self, name: &str) -> Option<&Machine> {
        self.machines
            .iter()
            .map(AsRef::as_ref)
            .find(|machine| machine.metadata.deletion_timestamp.is_none() && machine.server() == Some(name))
    }

    /// The Cluster, if this request made it.
    pub fn own_cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref().filter(|_| self.cluster_is_own)
    }

    /// How Kubernetes gets onto the hosts: a cluster that runs keeps what it was made with, whatever becomes of the template.
    pub fn install(&self) -> Install {
        let running = self.own_cluster().filter(|cluster| !cluster.is_being_made());
        let sound = |install: &Install| install.installer.as_ref().is_none_or(installer::is_sound);
        let kept = running.and_then(|cluster| cluster.install()).filter(sound);
        kept.or_else(|| Some(self.template.as_ref()?.spec.install.clone())).unwrap_or_default()
    }

    /// The request's cluster is past its creation: what it was made with stays.
    pub fn is_running(&self) -> bool {
        self.own_cluster().is_some_and(|cluster| !cluster.is_being_made())
    }
}

/// The UID by which a request is known to what was made for it. A request that was restored from a backup has a new one; its
/// cluster and hosts carry the old one, and name the request. If no other request has that UID, they are this request's.
pub fn identity(watches: &Watches, request: &ProvisioningRequest) -> String {
    let uid = request.uid().unwrap_or_default();
    let marks = marks(watches, request);
    if marks.contains(&uid) {
        return uid;
    }
    marks.into_iter().find(|mark| !request_exists(&watches.requests, mark)).unwrap_or(uid)
}

/// The UIDs in the marks that name the request: the Cluster's, or, where somebody took that off, the control plane's, or
/// else those of the hosts.
fn marks(watches: &Watches, request: &ProvisioningRequest) -> Vec<String> {
    let key = key(request);
    let namespace = request.namespace().unwrap_or_default();
    let parameters = &request.spec.template_parameters;
    let name = parameters.cluster_name.as_deref().unwrap_or_default();
    let control_plane = names::control_plane(&namespace, name);
    let cluster = watches.clusters.get(&ObjectRef::new(name).within(&namespace));
    let control_plane = watches.control_planes.get(&ObjectRef::new(&control_plane).within(&namespace));
    let marked = [cluster.as_deref().map(Resource::meta), control_plane.as_deref().map(Resource::meta)];
    let marked = marked.into_iter().flatten().find_map(|meta| {
        let mark = meta.labels.as_ref()?.get(names::REQUEST_UID_LABEL)?;
        Some((mark.clone(), meta.annotations.as_ref()?.get(names::REQUEST_ANNOTATION) == Some(&key)))
    });
    if let Some((mark, names_the_request)) = marked {
        return names_the_request.then_some(mark).into_iter().collect();
    }
    let hosts = parameters.hosts.iter().flat_map(Hosts::all);
    let hosts = hosts.filter_map(|host| watches.hosts.get(&ObjectRef::new(host.name()).within(&namespace)));
    hosts
        .filter(|host| host.annotations().get(names::REQUEST_ANNOTATION) == Some(&key))
        .filter(|host| !host.is_given_to_other(name))
        .filter_map(|host| host.holder().map(ToOwned::to_owned))
        .collect()
}

/// Whether a Cluster is the request's: by its mark, or, where somebody took that off, by the UID in the request's status.
fn is_own_cluster(cluster: &Cluster, request: &ProvisioningRequest, uid: &str) -> bool {
    let recorded = request.status.as_ref().and_then(|status| status.provisioned_resource_set.as_ref());
    match cluster.labels().get(names::REQUEST_UID_LABEL) {
        Some(mark) => mark == uid,
        None => recorded
            .is_some_and(|set| set.o_cloud_node_cluster_id.is_some() && set.o_cloud_node_cluster_id == cluster.uid()),
    }
}

/// The resource version as a number, to tell whether a cache has caught up with a write.
pub fn version_of<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// Whether the object carries the mark of the request with this UID.
pub fn is_of<K: Resource>(object: &K, uid: &str) -> bool {
    object.labels().get(names::REQUEST_UID_LABEL).is_some_and(|value| value == uid)
}

/// Takes from the caches what concerns `request`.
pub fn observe(watches: &Watches, request: &ProvisioningRequest) -> Observed {
    let namespace = request.namespace().unwrap_or_default();
    let uid = identity(watches, request);
    let template = find_template(watches, request, &namespace);
    let resource_set = template.as_ref().and_then(|template| template.spec.cni.as_ref()).map_or_else(
        ResourceSetLookup::default,
        |cni| {
            watches
                .resource_sets
                .get(&ObjectRef::new(&cni.cluster_resource_set).within(&namespace))
                .map_or(ResourceSetLookup::Missing, |set| {
                    ResourceSetLookup::Labels(set.spec.cluster_selector.match_labels.clone())
                })
        },
    );
    let cluster_name = request.spec.template_parameters.cluster_name.clone().unwrap_or_default();
    let machines: Vec<_> = of_request(&watches.machines, &namespace, &uid);
    let (hosts, ids) = find_hosts(watches, request, &namespace, &uid, &machines);
    let cluster = watches.clusters.get(&ObjectRef::new(&cluster_name).within(&namespace));
    let cluster_is_own = cluster.as_ref().is_some_and(|cluster| is_own_cluster(cluster, request, &uid));
    let orphans = find_orphans(watches, &hosts);
    let foreign_nodes = find_foreign_nodes(watches, &namespace, &uid, &hosts);
    let deployments: Vec<_> = of_request(&watches.machine_deployments, &namespace, &uid);
    let own = cluster.as_deref().filter(|_| cluster_is_own);
    let control_planes = find_control_planes(watches, &namespace, &uid, own);

    let mut made = BTreeMap::new();
    let mut note = |kind: Kind, name: String, object: Made| made.insert((kind, name), object);
    if let Some(cluster) = cluster.as_ref().filter(|_| cluster_is_own) {
        note(Kind::Cluster, cluster.name_any(), Made::of(cluster.as_ref()));
    }
    for object in &deployments {
        note(Kind::MachineDeployment, object.name_any(), Made::of(object.as_ref()));
    }
    for object in &control_planes {
        note(Kind::KubeadmControlPlane, object.name_any(), Made::of(object.as_ref()));
    }
    let byo_clusters = of_request(&watches.byo_clusters, &namespace, &uid);
    for object in &byo_clusters {
        note(Kind::ByoCluster, object.name_any(), Made::of(object.as_ref()));
    }
    let machine_templates = of_request(&watches.machine_templates, &namespace, &uid);
    for object in &machine_templates {
        note(Kind::ByoMachineTemplate, object.name_any(), Made::of(object.as_ref()));
    }
    for object in of_request(&watches.config_templates, &namespace, &uid) {
        note(Kind::KubeadmConfigTemplate, object.name_any(), Made::of(object.as_ref()));
    }
    for object in of_request(&watches.installer_templates, &namespace, &uid) {
        note(Kind::K8sInstallerConfigTemplate, object.name_any(), Made::of(object.as_ref()));
    }

    let parts = control_planes
        .iter()
        .map(|object| &object.spec.machine_template)
        .chain(deployments.iter().map(|object| &object.spec.template.spec));
    let mut referred: BTreeSet<_> = parts
        .flat_map(|parts| {
            [
                (Kind::ByoMachineTemplate, parts.infrastructure_ref.name.clone()),
                (Kind::KubeadmConfigTemplate, parts.bootstrap.config_ref.name.clone()),
            ]
        })
        .collect();
    referred.extend(
        machine_templates
            .iter()
            .map(|object| (Kind::K8sInstallerConfigTemplate, object.spec.template.spec.installer_ref.name.clone())),
    );

    let mut observed = Observed {
        missing_providers: watches.missing_providers(),
        dialect: watches.byohost_crd.state().first().map(|crd| Dialect::of(crd)),
        template,
        resource_set,
        rival: None,
        cluster_name,
        cluster_is_own,
        misses_cluster: false,
        orphans,
        foreign_nodes,
        hosts,
        ids,
        cluster,
        control_plane: control_planes.into_iter().next(),
        byo_cluster: byo_clusters.into_iter().next(),
        deployments: deployments.into_iter().map(|object| (object.name_any(), object)).collect(),
        machines,
        made,
        referred,
        uid,
    };
    observed.misses_cluster = consent::misses_cluster(request, &observed);
    observed
}

/// The KubeadmControlPlanes that have the request's mark; where somebody took that off, the one that belongs to its Cluster.
fn find_control_planes(
    watches: &Watches,
    namespace: &str,
    uid: &str,
    own: Option<&Cluster>,
) -> Vec<Arc<KubeadmControlPlane>> {
    let mut found = of_request(&watches.control_planes, namespace, uid);
    if let Some(cluster) = own.filter(|_| found.is_empty()) {
        let name = names::control_plane(namespace, &cluster.name_any());
        let named = watches.control_planes.get(&ObjectRef::new(&name).within(namespace));
        found.extend(named.filter(|object| {
            let is_marked = object.labels().contains_key(names::REQUEST_UID_LABEL);
            !is_marked && Made::of(object.as_ref()).adopted_by == cluster.uid()
        }));
    }
    found
}

fn of_request<K>(store: &Store<K>, namespace: &str, uid: &str) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store
        .state()
        .into_iter()
        .filter(|object| object.meta().namespace.as_deref() == Some(namespace) && is_of(object.as_ref(), uid))
        .collect()
}

/// The request's namespace comes first, then the operator's, which serves all namespaces.
fn find_template(watches: &Watches, request: &ProvisioningRequest, namespace: &str) -> Option<Arc<ClusterTemplate>> {
    let (name, version) = (&request.spec.template_name, &request.spec.template_version);
    [namespace, names::OPERATOR_NAMESPACE].into_iter().find_map(|namespace| {
        watches
            .templates
            .get(&ObjectRef::new(&format!("{name}-{version}")).within(namespace))
            .filter(|template| template.spec.name == *name && template.spec.version == *version)
    })
}

type FoundHosts = (BTreeMap<String, Arc<ByoHost>>, BTreeMap<String, String>);

fn find_hosts(
    watches: &Watches,
    request: &ProvisioningRequest,
    namespace: &str,
    uid: &str,
    machines: &[Arc<Machine>],
) -> FoundHosts {
    let asked = request.spec.template_parameters.hosts.iter().flat_map(Hosts::all);
    let (mut names, ids): (BTreeSet<_>, BTreeSet<_>) = asked.map(|host| (host.name().to_owned(), host.id())).unzip();
    names.extend(machines.iter().filter_map(|machine| machine.server().map(ToOwned::to_owned)));
    let mut hosts = BTreeMap::new();
    let mut bearers = BTreeMap::new();
    for host in watches.hosts.state() {
        if host.namespace().as_deref() != Some(namespace) {
            continue;
        }
        let name = host.name_any();
        if let Some(id) = host.host_id().filter(|id| ids.contains(*id)) {
            bearers.insert(id.to_owned(), name.clone());
        }
        if names.contains(&name) || host.holder() == Some(uid) {
            hosts.insert(name, host);
        }
    }
    (hosts, bearers)
}

/// Whether a request with this UID exists.
pub fn request_exists(requests: &Store<ProvisioningRequest>, uid: &str) -> bool {
    requests.find(|request| request.metadata.uid.as_deref() == Some(uid)).is_some()
}

/// Whether the request whose mark is on an object exists: with that UID, or restored, under its name and with another one.
pub fn maker_exists<K: Resource>(watches: &Watches, object: &K) -> bool {
    let Some(uid) = object.labels().get(names::REQUEST_UID_LABEL) else { return false };
    let name = object.annotations().get(names::REQUEST_ANNOTATION).and_then(|key| key.rsplit('/').next());
    let place = object.namespace().unwrap_or_default();
    let named = name.and_then(|name| watches.requests.get(&ObjectRef::new(name).within(&place)));
    request_exists(&watches.requests, uid) || named.is_some_and(|request| identity(watches, &request) == *uid)
}

/// Hosts whose holder is no request that exists.
fn find_orphans(watches: &Watches, hosts: &BTreeMap<String, Arc<ByoHost>>) -> BTreeSet<String> {
    let orphaned = |host: &ByoHost| host.holder().is_some() && !maker_exists(watches, host);
    hosts.values().filter(|host| orphaned(host)).map(|host| host.name_any()).collect()
}

/// Machines of others on hosts that look free.
fn find_foreign_nodes(
    watches: &Watches,
    namespace: &str,
    uid: &str,
    hosts: &BTreeMap<String, Arc<ByoHost>>,
) -> BTreeMap<String, Arc<Machine>> {
    let free: BTreeSet<_> = hosts
        .iter()
        .filter(|(_, host)| host.holder().is_none() && host.busy().is_none())
        .map(|(name, _)| name.as_str())
        .collect();
    if free.is_empty() {
        return BTreeMap::new();
    }
    let machines = watches.machines.state().into_iter();
    machines
        .filter(|machine| machine.metadata.namespace.as_deref() == Some(namespace))
        .filter(|machine| machine.metadata.deletion_timestamp.is_none() && !is_of(machine.as_ref(), uid))
        .filter_map(|machine| Some((machine.server().filter(|name| free.contains(name))?.to_owned(), machine)))
        .collect()
}

impl Watches {
    /// What a user has to install, by project.
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
