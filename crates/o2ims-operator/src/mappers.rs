//! Which requests, hosts and Clusters a change of an object concerns.

use cluster_api::byoh::ByoHost;
use cluster_api::cluster::{Cluster, ClusterResourceSet, ClusterResourceSetBinding};
use cluster_api::labels::CLUSTER_NAME_LABEL;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt as _};
use o2ims_types::{ClusterTemplate, ProvisioningRequest, names};
use operator_kit::controller::references;

use crate::caches::{Hosts, Requests, Templates};
use crate::provisioner::byoh::contention::{contenders, wants_endpoint_of};
use crate::provisioner::byoh::marks::{MarkedCluster as _, MarkedHost as _};
use crate::request::key;

type RequestRefs = Vec<ObjectRef<ProvisioningRequest>>;

/// The request that a part of a cluster was created for, and those that would create one of its name.
pub fn requests_for_part<K: Resource>(requests: &Requests, object: &K) -> RequestRefs {
    let mut concerned = owner_of(requests, object);
    concerned.extend(references(&requests.for_part(&object.namespace().unwrap_or_default(), &object.name_any())));
    concerned
}

/// The request whose UID is on the object. Every object has the label, also what Cluster API creates from the operator's templates. Where the
/// label was removed, or the request was restored from a backup with another UID, the request is the
/// one that asks for the cluster by its name.
pub fn owner_of<K: Resource>(requests: &Requests, object: &K) -> RequestRefs {
    let uid = object.labels().get(names::REQUEST_UID_LABEL);
    if let Some(request) = uid.and_then(|uid| requests.with_uid(uid)) {
        return vec![ObjectRef::from_obj(request.as_ref())];
    }
    let Some(cluster) = object.labels().get(CLUSTER_NAME_LABEL) else { return Vec::new() };
    references(&requests.for_cluster(&object.namespace().unwrap_or_default(), cluster))
}

/// Requests that name the template.
pub fn requests_for_template(requests: &Requests, template: &ClusterTemplate) -> RequestRefs {
    references(&requests.for_template(&template.spec.name, &template.spec.version))
}

/// Requests whose template names the ClusterResourceSet.
pub fn requests_for_resource_set(requests: &Requests, templates: &Templates, set: &ClusterResourceSet) -> RequestRefs {
    let namespace = set.namespace();
    let templates = templates.with_resource_set(&set.name_any());
    let all = templates.iter().flat_map(|template| requests.for_template(&template.spec.name, &template.spec.version));
    let near: Vec<_> = all.filter(|request| request.namespace() == namespace).collect();
    references(&near)
}

/// Requests that ask for the cluster to which something was applied; the binding has its name.
pub fn requests_for_binding(requests: &Requests, binding: &ClusterResourceSetBinding) -> RequestRefs {
    references(&requests.for_cluster(&binding.namespace().unwrap_or_default(), &binding.name_any()))
}

/// Requests that want the cluster name or the endpoint that the Cluster has.
pub fn requests_for_cluster(requests: &Requests, hosts: &Hosts, cluster: &Cluster) -> RequestRefs {
    let mut concerned =
        references(&requests.for_cluster(&cluster.namespace().unwrap_or_default(), &cluster.name_any()));
    let Some(endpoint) = &cluster.spec.control_plane_endpoint else { return concerned };
    let mut near = requests.for_endpoint(&endpoint.host);
    // A request that asks for no endpoint gets the address of its one master.
    for host in hosts.with_address(&endpoint.host) {
        near.extend(requests.for_host(&host.namespace().unwrap_or_default(), &host.name_any()));
    }
    concerned.extend(references(near.iter().filter(|request| wants_endpoint_of(request, cluster, hosts))));
    concerned
}

/// The request that holds the host, and those that ask for it or for its id.
pub fn requests_for_host(requests: &Requests, host: &ByoHost) -> RequestRefs {
    let namespace = host.namespace().unwrap_or_default();
    let mut concerned = references(&requests.for_host(&namespace, &host.name_any()));
    if let Some(id) = host.host_id() {
        concerned.extend(references(&requests.for_host_id(&namespace, id)));
    }
    concerned.extend(owner_of(requests, host));
    concerned
}

/// The hosts that a deleted request holds. A request that was restored from a backup holds them by its name, as its mark is another UID.
pub fn hosts_of_request(hosts: &Hosts, request: &ProvisioningRequest) -> Vec<ObjectRef<ByoHost>> {
    let mut held = references(&hosts.naming_request(&key(request)));
    if let Some(uid) = &request.metadata.uid {
        held.extend(references(&hosts.with_mark(&request.namespace().unwrap_or_default(), uid)));
    }
    held
}

/// The Cluster that a request asks for, for when the request is deleted.
pub fn cluster_of_request(request: &ProvisioningRequest) -> Vec<ObjectRef<Cluster>> {
    let name = request.spec.template_parameters.cluster_name.as_deref();
    name.map(|name| ObjectRef::new(name).within(&request.namespace().unwrap_or_default())).into_iter().collect()
}

/// The hosts that are held for a Cluster that is being deleted, or whose creation has not ended.
pub fn hosts_of_cluster(hosts: Hosts) -> impl Fn(&Cluster) -> Vec<ObjectRef<ByoHost>> + Send + Sync + 'static {
    move |cluster| {
        let ends = cluster.metadata.deletion_timestamp.is_some() || cluster.is_creating();
        let holder = cluster.labels().get(names::REQUEST_UID_LABEL).filter(|_| ends);
        let Some(holder) = holder else { return Vec::new() };
        references(&hosts.with_mark(&cluster.namespace().unwrap_or_default(), holder))
    }
}

/// Requests that want the same cluster name or endpoint.
pub fn requests_for_request(requests: &Requests, changed: &ProvisioningRequest) -> RequestRefs {
    references(&contenders(requests, changed, true))
}
