//! Lookups in indexes find what a scan of everything finds: the same requests and hosts are triggered, in every small world.

use std::collections::BTreeSet;
use std::fmt::Debug;

use cluster_api::byoh::ByoHost;
use cluster_api::cluster::{Cluster, ClusterResourceSet};
use cluster_api::machine::MachineDeployment;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt as _};
use o2ims_operator::caches::{Hosts, Requests, Templates};
use o2ims_operator::mappers::{
    hosts_of_cluster, hosts_of_request, owner_of, requests_for_cluster, requests_for_host, requests_for_part,
    requests_for_request, requests_for_resource_set, requests_for_template,
};
use o2ims_operator::provisioner::byoh::contention::wants_endpoint_of;
use o2ims_types::{ClusterTemplate, ProvisioningRequest, names};
use operator_kit::cache::CachedObjects;
use serde_json::{Value, json};

use crate::model::from;

/// Random numbers from a seed (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn of<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[usize::try_from(self.below(items.len() as u64)).unwrap()]
    }
}

const NAMESPACES: [&str; 2] = ["a", "b"];
const CLUSTERS: [&str; 3] = ["core", "edge", "far"];
const HOSTS: [&str; 4] = ["h1", "h2", "h3", "h4"];
const IDS: [&str; 4] = ["1", "2", "3", "4"];
const UIDS: [&str; 4] = ["uid-1", "uid-2", "uid-3", "uid-4"];
const ADDRESSES: [&str; 4] = ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00:0::1"];
const VERSIONS: [&str; 2] = ["v1", "v2"];

/// Everything, as lists and as caches.
struct World {
    requests: Vec<ProvisioningRequest>,
    hosts: Vec<ByoHost>,
    templates: Vec<ClusterTemplate>,
    caches: (Requests, Hosts, Templates),
}

fn a_request(chance: &mut Chance, number: usize) -> ProvisioningRequest {
    let host = |chance: &mut Chance| json!({"hostId": chance.of(&IDS), "hostName": chance.of(&HOSTS)});
    let mut parameters = json!({"hosts": {"masters": [host(chance)], "workers": []}});
    if chance.below(3) > 0 {
        parameters["clusterName"] = json!(chance.of(&CLUSTERS));
    }
    if chance.below(2) > 0 {
        parameters["hosts"]["workers"] = json!([host(chance), host(chance)]);
    }
    if chance.below(2) > 0 {
        parameters["controlPlaneEndpoint"] = json!({"host": chance.of(&ADDRESSES), "port": 6443 + chance.below(2)});
    }
    from(json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest",
        "metadata": {"name": format!("r{number}"), "namespace": chance.of(&NAMESPACES), "uid": UIDS[number % 4]},
        "spec": {"templateName": "base", "templateVersion": chance.of(&VERSIONS), "templateParameters": parameters},
    }))
}

/// Labels and annotations of an object that may have been created for a request.
fn marks(chance: &mut Chance) -> (Value, Value) {
    let (mut labels, mut annotations) = (json!({}), json!({}));
    if chance.below(3) > 0 {
        labels[names::REQUEST_UID_LABEL] = json!(chance.of(&UIDS));
    }
    if chance.below(2) > 0 {
        labels["cluster.x-k8s.io/cluster-name"] = json!(chance.of(&CLUSTERS));
    }
    if chance.below(2) > 0 {
        annotations[names::REQUEST_ANNOTATION] = json!(format!("a/r{}", chance.below(4)));
    }
    (labels, annotations)
}

fn a_host(chance: &mut Chance, namespace: &str, name: &str) -> ByoHost {
    let (mut labels, annotations) = marks(chance);
    if chance.below(3) > 0 {
        labels[names::HOST_ID_LABEL] = json!(chance.of(&IDS));
    }
    from(json!({
        "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "ByoHost",
        "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations},
        "spec": {}, "status": {"network": [{"ipAddrs": [format!("{}/24", chance.of(&ADDRESSES))], "isDefault": true}]},
    }))
}

fn a_cluster(chance: &mut Chance) -> Cluster {
    let (labels, mut annotations) = marks(chance);
    if chance.below(2) > 0 {
        annotations[names::CREATING_ANNOTATION] = json!("true");
    }
    from(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
        "metadata": {"name": chance.of(&CLUSTERS), "namespace": chance.of(&NAMESPACES), "labels": labels, "annotations": annotations},
        "spec": {"controlPlaneEndpoint": {"host": chance.of(&ADDRESSES), "port": 6443}},
    }))
}

fn a_template(chance: &mut Chance, namespace: &str, version: &str) -> ClusterTemplate {
    let mut spec = json!({"name": "base", "version": version});
    if chance.below(3) > 0 {
        spec["cni"] = json!({"clusterResourceSet": chance.of(&["cni", "other"])});
    }
    from(json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ClusterTemplate",
        "metadata": {"name": format!("base-{version}"), "namespace": namespace}, "spec": spec,
    }))
}

/// Fills a cache, with a detour: each object has been another one before.
fn filled<K, C>(objects: &[K], former: impl Fn(&K) -> K, cache: impl FnOnce(&mut CachedObjects<K>) -> C) -> C
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let mut all = CachedObjects::default();
    let cache = cache(&mut all);
    for object in objects {
        all.apply(former(object));
    }
    for object in objects {
        all.apply(object.clone());
    }
    cache
}

impl World {
    fn new(chance: &mut Chance) -> Self {
        let requests: Vec<_> = (0..4).map(|number| a_request(chance, number)).collect();
        let mut hosts = Vec::new();
        for namespace in NAMESPACES {
            hosts.extend(HOSTS.map(|name| a_host(chance, namespace, name)));
        }
        let mut templates = Vec::new();
        for namespace in ["a", names::OPERATOR_NAMESPACE] {
            templates.extend(VERSIONS.map(|version| a_template(chance, namespace, version)));
        }
        let other = a_request(chance, 0);
        let former_request =
            |request: &ProvisioningRequest| ProvisioningRequest { metadata: request.metadata.clone(), ..other.clone() };
        let plain = |host: &ByoHost| {
            from(json!({"metadata": {"name": host.name_any(), "namespace": host.namespace()}, "spec": {}}))
        };
        let caches = (
            filled(&requests, former_request, Requests::new),
            filled(&hosts, plain, Hosts::new),
            filled(&templates, Clone::clone, Templates::new),
        );
        Self { requests, hosts, templates, caches }
    }

    /// The requests that `concerned` selects, by a scan.
    fn scan(&self, concerned: impl Fn(&ProvisioningRequest) -> bool) -> Vec<ObjectRef<ProvisioningRequest>> {
        self.requests.iter().filter(|request| concerned(request)).map(ObjectRef::from_obj).collect()
    }

    fn scan_hosts(&self, concerned: impl Fn(&ByoHost) -> bool) -> Vec<ObjectRef<ByoHost>> {
        self.hosts.iter().filter(|host| concerned(host)).map(ObjectRef::from_obj).collect()
    }

    fn owner(&self, object: &impl Resource) -> Vec<ObjectRef<ProvisioningRequest>> {
        let uid = object.labels().get(names::REQUEST_UID_LABEL);
        let marked = self.scan(|request| uid.is_some() && request.metadata.uid.as_ref() == uid);
        if !marked.is_empty() {
            return marked;
        }
        let cluster = object.labels().get("cluster.x-k8s.io/cluster-name");
        self.scan(|request| cluster.is_some() && asks_for(request, object.namespace().as_deref(), cluster.unwrap()))
    }
}

fn asks_for(request: &ProvisioningRequest, namespace: Option<&str>, cluster: &str) -> bool {
    request.namespace().as_deref() == namespace
        && request.spec.template_parameters.cluster_name.as_deref() == Some(cluster)
}

fn same<K>(what: &str, found: Vec<ObjectRef<K>>, scanned: Vec<ObjectRef<K>>)
where
    K: Resource<DynamicType = ()> + Debug + 'static,
{
    let names =
        |all: Vec<ObjectRef<K>>| -> BTreeSet<_> { all.into_iter().map(|one| (one.namespace, one.name)).collect() };
    assert_eq!(names(found), names(scanned), "{what}");
}

#[test]
fn lookups_find_what_a_scan_finds() {
    for seed in 1..=400 {
        let chance = &mut Chance(seed * 0x9e37_79b9);
        let world = World::new(chance);
        let (requests, hosts, templates) = &world.caches;
        for host in &world.hosts {
            let mut scanned = world.scan(|request| {
                let all = request.spec.template_parameters.hosts.as_ref().unwrap();
                let id = host.labels().get(names::HOST_ID_LABEL);
                request.namespace() == host.namespace()
                    && all.all().any(|asked| asked.name() == host.name_any() || Some(&asked.id()) == id)
            });
            scanned.extend(world.owner(host));
            same("requests for a host", requests_for_host(requests, host), scanned);
        }
        for template in &world.templates {
            let scanned = world.scan(|request| {
                request.spec.template_name == template.spec.name
                    && request.spec.template_version == template.spec.version
            });
            same("requests for a template", requests_for_template(requests, template), scanned);
        }
        for namespace in NAMESPACES {
            let set: ClusterResourceSet =
                from(json!({"metadata": {"name": "cni", "namespace": namespace}, "spec": {}}));
            let is_named = |request: &ProvisioningRequest| {
                world.templates.iter().any(|template| {
                    template.spec.cni.as_ref().is_some_and(|cni| cni.cluster_resource_set == "cni")
                        && template.spec.version == request.spec.template_version
                })
            };
            let scanned = world.scan(|request| request.namespace().as_deref() == Some(namespace) && is_named(request));
            same("requests for a resource set", requests_for_resource_set(requests, templates, &set), scanned);
        }
        for _ in 0..4 {
            let (labels, _) = marks(chance);
            let cluster = chance.of(&CLUSTERS);
            let name = [
                cluster.to_owned(),
                format!("{cluster}-control-plane"),
                format!("{cluster}-worker-{}", chance.of(&HOSTS)),
            ];
            let name = name[usize::try_from(chance.below(3)).unwrap()].clone();
            let part: MachineDeployment =
                from(json!({"metadata": {"name": name, "namespace": chance.of(&NAMESPACES), "labels": labels}}));
            let mut scanned = world.scan(|request| {
                let wanted = &request.spec.template_parameters;
                let workers = &wanted.hosts.as_ref().unwrap().workers;
                let is_part = |cluster: &String| {
                    name == *cluster
                        || name == format!("{cluster}-control-plane")
                        || workers.iter().any(|host| name == format!("{cluster}-worker-{}", host.name()))
                };
                request.namespace() == part.namespace() && wanted.cluster_name.as_ref().is_some_and(is_part)
            });
            scanned.extend(world.owner(&part));
            same("requests for a part", requests_for_part(requests, &part), scanned);
        }
        for _ in 0..4 {
            let cluster = a_cluster(chance);
            let scanned = world.scan(|request| {
                wants_endpoint_of(request, &cluster, hosts)
                    || asks_for(request, cluster.namespace().as_deref(), &cluster.name_any())
            });
            same("requests for a Cluster", requests_for_cluster(requests, hosts, &cluster), scanned);
            same("owner of a Cluster", owner_of(requests, &cluster), world.owner(&cluster));
            let holder = cluster.labels().get(names::REQUEST_UID_LABEL).cloned();
            let creating = cluster.annotations().contains_key(names::CREATING_ANNOTATION);
            let scanned = world.scan_hosts(|host| {
                creating
                    && holder.is_some()
                    && host.namespace() == cluster.namespace()
                    && host.labels().get(names::REQUEST_UID_LABEL) == holder.as_ref()
            });
            same("hosts of a Cluster", hosts_of_cluster(hosts.clone())(&cluster), scanned);
        }
        for request in &world.requests {
            let scanned = world.scan(|other| {
                let (one, two) = (&request.spec.template_parameters, &other.spec.template_parameters);
                let endpoints = one.control_plane_endpoint.as_ref().zip(two.control_plane_endpoint.as_ref());
                let address = |host: &str| host.parse::<std::net::IpAddr>().unwrap();
                other.uid() != request.uid()
                    && (one.cluster_name.is_some()
                        && one.cluster_name == two.cluster_name
                        && other.namespace() == request.namespace()
                        || endpoints.is_some_and(|(one, two)| address(&one.host) == address(&two.host)))
            });
            same("contenders of a request", requests_for_request(requests, request), scanned);
            let key = format!("{}/{}", request.namespace().unwrap(), request.name_any());
            let scanned = world.scan_hosts(|host| {
                host.annotations().get(names::REQUEST_ANNOTATION) == Some(&key)
                    || host.namespace() == request.namespace()
                        && host.labels().get(names::REQUEST_UID_LABEL) == request.metadata.uid.as_ref()
            });
            same("hosts of a request", hosts_of_request(hosts, request), scanned);
        }
    }
}
