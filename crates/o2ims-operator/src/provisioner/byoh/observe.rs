//! Collects from the caches what concerns one request. Nothing is read over the network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use cluster_api::cluster::{ByoCluster, Cluster, ResourceRef};
use cluster_api::control_plane::KubeadmControlPlane;
use cluster_api::machine::{Machine, MachineDeployment};
use cluster_api::templates::ByoMachineTemplate;
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt as _, runtime::reflector::ObjectRef};
use o2ims_types::o2ims::v1alpha1::provisioning_request::Hosts;
use o2ims_types::{ClusterTemplate, ProvisioningRequest, names};

use super::identity::{identity, is_own_cluster, owner_exists};
use super::instructions::misses_cluster;
use super::marks::MarkedHost as _;
use super::observed::{ForeignPart, Observed, OwnedObject, Phase, ResourceSetLookup};
use crate::caches::{Caches, is_marked_by, part_names};

/// Collects what concerns `request`; the time is not among it.
pub fn observe(caches: &Caches, request: &ProvisioningRequest) -> Observed {
    let namespace = request.namespace().unwrap_or_default();
    let uid = identity(caches, request);
    let cluster_name = request.spec.template_parameters.cluster_name.clone().unwrap_or_default();
    let template = find_template(caches, request, &namespace);
    let machines = caches.machines.marked(&namespace, &uid);
    let (hosts, hosts_by_id) = find_hosts(caches, request, &namespace, &uid, &machines);
    let cluster = caches.clusters.get(&namespace, &cluster_name);
    let cluster_is_own = cluster.as_ref().is_some_and(|cluster| is_own_cluster(cluster, request, &uid));
    let own = cluster.as_deref().filter(|_| cluster_is_own);
    let owned = find_owned(caches, &namespace, &uid, own);
    let mut observed = Observed {
        now: Timestamp::default(),
        missing_providers: caches.missing_providers(),
        variant: caches.byoh_variant(),
        resource_set: find_resource_set(caches, template.as_deref(), &namespace),
        unapplied: find_unapplied(caches, template.as_deref(), &namespace, &cluster_name),
        template,
        contention: None,
        cluster_name,
        cluster_is_own,
        phase: Phase::default(),
        is_created: false,
        misses_cluster: false,
        orphans: find_orphans(caches, &hosts),
        foreign_nodes: find_foreign_nodes(caches, &namespace, &uid, &hosts),
        hosts,
        hosts_by_id,
        cluster,
        control_plane: owned.control_planes.into_iter().next(),
        byo_cluster: owned.byo_clusters.into_iter().next(),
        deployments: owned.deployments.into_iter().map(|object| (object.name_any(), object)).collect(),
        machines,
        owned: owned.objects,
        referenced: owned.referenced,
        foreign_part: None,
        uid,
    };
    observed.misses_cluster = misses_cluster(request, &observed);
    observed.derive_phase();
    if observed.phase == Phase::Absent {
        observed.foreign_part = find_foreign_part(caches, request, &namespace, &observed.uid, &observed.owned);
    }
    observed
}

/// What the operator has created for one request.
struct Owned {
    objects: BTreeMap<(Kind, String), OwnedObject>,
    control_planes: Vec<Arc<KubeadmControlPlane>>,
    byo_clusters: Vec<Arc<ByoCluster>>,
    deployments: Vec<Arc<MachineDeployment>>,
    referenced: BTreeSet<(Kind, String)>,
}

fn find_owned(caches: &Caches, namespace: &str, uid: &str, own_cluster: Option<&Cluster>) -> Owned {
    let control_planes = find_control_planes(caches, namespace, uid, own_cluster);
    let deployments = caches.machine_deployments.marked(namespace, uid);
    let machine_templates = caches.machine_templates.marked(namespace, uid);
    let mut objects = BTreeMap::new();
    if let Some(cluster) = own_cluster {
        objects.insert((Kind::Cluster, cluster.name_any()), OwnedObject::of(cluster));
    }
    insert_all(&mut objects, Kind::MachineDeployment, &deployments);
    insert_all(&mut objects, Kind::KubeadmControlPlane, &control_planes);
    let byo_clusters = caches.byo_clusters.marked(namespace, uid);
    insert_all(&mut objects, Kind::ByoCluster, &byo_clusters);
    insert_all(&mut objects, Kind::ByoMachineTemplate, &machine_templates);
    insert_all(&mut objects, Kind::KubeadmConfigTemplate, &caches.config_templates.marked(namespace, uid));
    insert_all(&mut objects, Kind::K8sInstallerConfigTemplate, &caches.installer_templates.marked(namespace, uid));
    let referenced = find_referenced(&control_planes, &deployments, &machine_templates);
    Owned { objects, control_planes, byo_clusters, deployments, referenced }
}

fn insert_all<K: Resource>(into: &mut BTreeMap<(Kind, String), OwnedObject>, kind: Kind, objects: &[Arc<K>]) {
    into.extend(objects.iter().map(|object| ((kind, object.name_any()), OwnedObject::of(object.as_ref()))));
}

/// The templates that one of these objects refers to.
fn find_referenced(
    control_planes: &[Arc<KubeadmControlPlane>],
    deployments: &[Arc<MachineDeployment>],
    machine_templates: &[Arc<ByoMachineTemplate>],
) -> BTreeSet<(Kind, String)> {
    let of_control_planes = control_planes.iter().map(|object| &object.spec.machine_template.spec);
    let of_deployments = deployments.iter().map(|object| &object.spec.template.spec);
    let mut referenced = BTreeSet::new();
    for refs in of_control_planes.chain(of_deployments) {
        referenced.insert((Kind::ByoMachineTemplate, refs.infrastructure_ref.name.clone()));
        referenced.insert((Kind::KubeadmConfigTemplate, refs.bootstrap.config_ref.name.clone()));
    }
    for object in machine_templates {
        let installer = &object.spec.template.spec.installer_ref.name;
        referenced.insert((Kind::K8sInstallerConfigTemplate, installer.clone()));
    }
    referenced
}

/// The ClusterResourceSet that the template names.
fn find_resource_set(caches: &Caches, template: Option<&ClusterTemplate>, namespace: &str) -> ResourceSetLookup {
    let Some(cni) = template.and_then(|template| template.spec.cni.as_ref()) else { return ResourceSetLookup::Missing };
    let set = caches.resource_sets.get(&ObjectRef::new(&cni.cluster_resource_set).within(namespace));
    set.map_or(ResourceSetLookup::Missing, |set| {
        ResourceSetLookup::Labels(set.spec.cluster_selector.match_labels.clone())
    })
}

/// What of the template's ClusterResourceSet Cluster API has not applied to the cluster, as the binding of the cluster says. The condition
/// ResourcesApplied does not say it: it is one for all clusters, and Cluster API sets it to True although a resource does not exist
/// (`ApplyClusterResourceSet` of the ClusterResourceSet controller).
fn find_unapplied(
    caches: &Caches,
    template: Option<&ClusterTemplate>,
    namespace: &str,
    cluster: &str,
) -> Option<String> {
    let name = &template?.spec.cni.as_ref()?.cluster_resource_set;
    let set = caches.resource_sets.get(&ObjectRef::new(name).within(namespace))?;
    let binding = caches.resource_set_bindings.get(&ObjectRef::new(cluster).within(namespace))?;
    let found = binding.spec.bindings.iter().find(|binding| binding.cluster_resource_set_name == *name)?;
    let is_applied =
        |wanted: &ResourceRef| found.resources.iter().any(|resource| resource.applied && resource.resource == *wanted);
    let unapplied: Vec<_> = set
        .spec
        .resources
        .iter()
        .filter(|wanted| !is_applied(wanted))
        .map(|wanted| format!("{} {}", wanted.kind, wanted.name))
        .collect();
    let them = if unapplied.len() == 1 { "it" } else { "them" };
    (!unapplied.is_empty()).then(|| {
        format!(
            "ClusterResourceSet {namespace}/{name} has not applied {} to the cluster yet; if this does not change, create {them} in namespace \
             {namespace}",
            unapplied.join(" and ")
        )
    })
}

/// The KubeadmControlPlanes that have the request's mark; where that was removed, the one that belongs to its Cluster.
fn find_control_planes(
    caches: &Caches,
    namespace: &str,
    uid: &str,
    own: Option<&Cluster>,
) -> Vec<Arc<KubeadmControlPlane>> {
    let mut found = caches.control_planes.marked(namespace, uid);
    if let Some(cluster) = own.filter(|_| found.is_empty()) {
        let name = names::control_plane(namespace, &cluster.name_any());
        let named = caches.control_planes.get(namespace, &name);
        found.extend(named.filter(|object| {
            let is_marked = object.labels().contains_key(names::REQUEST_UID_LABEL);
            !is_marked && OwnedObject::of(object.as_ref()).adopted_by == cluster.uid()
        }));
    }
    found
}

/// The request's namespace comes first, then the operator's, which serves all namespaces.
fn find_template(caches: &Caches, request: &ProvisioningRequest, namespace: &str) -> Option<Arc<ClusterTemplate>> {
    let (name, version) = (&request.spec.template_name, &request.spec.template_version);
    [namespace, names::OPERATOR_NAMESPACE].into_iter().find_map(|namespace| {
        let template = caches.templates.get(namespace, &format!("{name}-{version}"));
        template.filter(|template| template.spec.name == *name && template.spec.version == *version)
    })
}

type FoundHosts = (BTreeMap<String, Arc<ByoHost>>, BTreeMap<String, String>);

fn find_hosts(
    caches: &Caches,
    request: &ProvisioningRequest,
    namespace: &str,
    uid: &str,
    machines: &[Arc<Machine>],
) -> FoundHosts {
    let requested: Vec<_> = request.spec.template_parameters.hosts.iter().flat_map(Hosts::all).collect();
    let bearers = requested.iter().filter_map(|host| {
        let id = host.id();
        let bearer = caches.hosts.with_id(namespace, &id).first()?.name_any();
        Some((id, bearer))
    });
    let names = requested.iter().map(|host| host.name()).chain(machines.iter().filter_map(|machine| machine.server()));
    let of_name = names.filter_map(|name| caches.hosts.get(namespace, name));
    // The store is newer than its indexes for a moment: its object comes last, and is kept.
    let hosts = caches.hosts.with_mark(namespace, uid).into_iter().chain(of_name);
    (hosts.map(|host| (host.name_any(), host)).collect(), bearers.collect())
}

/// The first object that has the name of a part of the request's cluster and does not belong to the request.
fn find_foreign_part(
    caches: &Caches,
    request: &ProvisioningRequest,
    namespace: &str,
    uid: &str,
    owned: &BTreeMap<(Kind, String), OwnedObject>,
) -> Option<ForeignPart> {
    part_names(request).into_iter().filter(|part| !owned.contains_key(part)).find_map(|(kind, name)| {
        let metadata = match kind {
            Kind::ByoCluster => caches.byo_clusters.get(namespace, &name)?.metadata.clone(),
            Kind::KubeadmControlPlane => caches.control_planes.get(namespace, &name)?.metadata.clone(),
            _ => caches.machine_deployments.get(namespace, &name)?.metadata.clone(),
        };
        let mark = metadata.labels.unwrap_or_default().remove(names::REQUEST_UID_LABEL);
        // The store is newer than its index for a moment.
        if mark.as_deref() == Some(uid) {
            return None;
        }
        let request = metadata.annotations.and_then(|mut annotations| annotations.remove(names::REQUEST_ANNOTATION));
        let owner_exists = mark.is_some_and(|mark| caches.requests.exists(&mark));
        Some(ForeignPart { kind, name, request, owner_exists })
    })
}

/// Hosts whose holder does not exist any more.
fn find_orphans(caches: &Caches, hosts: &BTreeMap<String, Arc<ByoHost>>) -> BTreeSet<String> {
    let orphaned = |host: &ByoHost| host.holder().is_some() && !owner_exists(caches, host);
    hosts.values().filter(|host| orphaned(host)).map(|host| host.name_any()).collect()
}

/// Machines of other requests on hosts that look free.
fn find_foreign_nodes(
    caches: &Caches,
    namespace: &str,
    uid: &str,
    hosts: &BTreeMap<String, Arc<ByoHost>>,
) -> BTreeMap<String, Arc<Machine>> {
    let free = hosts.iter().filter(|(_, host)| host.holder().is_none() && host.in_use_reason().is_none());
    free.filter_map(|(name, _)| {
        let mut machines = caches.machines.on_server(namespace, name).into_iter();
        let runs = |machine: &Machine| machine.metadata.deletion_timestamp.is_none();
        let machine = machines.find(|machine| runs(machine) && !is_marked_by(machine.as_ref(), uid))?;
        Some((name.clone(), machine))
    })
    .collect()
}
