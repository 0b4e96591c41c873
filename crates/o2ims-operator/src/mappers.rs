//! Which requests, hosts and Clusters a change of an object concerns.

use cluster_api::byoh::ByoHost;
use cluster_api::cluster::Cluster;
use cluster_api::labels::CLUSTER_NAME_LABEL;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt as _};
use o2ims_types::{ClusterTemplate, ProvisioningRequest, names};

use crate::provisioner::byoh::contention::{contends, wants_endpoint_of};
use crate::provisioner::byoh::marks::{MarkedCluster as _, MarkedHost as _};
use crate::request::key;

/// The requests that `concerned` selects.
pub fn select(
    requests: &Store<ProvisioningRequest>,
    concerned: impl Fn(&ProvisioningRequest) -> bool,
) -> Vec<ObjectRef<ProvisioningRequest>> {
    requests
        .state()
        .iter()
        .filter(|request| concerned(request))
        .map(|request| ObjectRef::from_obj(request.as_ref()))
        .collect()
}

/// The request that an object was made for.
pub fn owner<K: Resource>(
    requests: &Store<ProvisioningRequest>,
) -> impl Fn(&K) -> Vec<ObjectRef<ProvisioningRequest>> + Send + Sync + 'static {
    let requests = requests.clone();
    move |object| owner_of(&requests, object)
}

/// The request whose UID is on the object. The label is what everything carries, also what Cluster API makes from the
/// operator's templates. Where somebody took it off, or the request was restored from a backup with another UID, the request is the
/// one that asks for the cluster by its name.
pub fn owner_of<K: Resource>(requests: &Store<ProvisioningRequest>, object: &K) -> Vec<ObjectRef<ProvisioningRequest>> {
    let uid = object.labels().get(names::REQUEST_UID_LABEL);
    let known = uid.and_then(|uid| requests.find(|request| request.metadata.uid.as_ref() == Some(uid)));
    if let Some(request) = known {
        return vec![ObjectRef::from_obj(request.as_ref())];
    }
    let Some(cluster) = object.labels().get(CLUSTER_NAME_LABEL) else { return Vec::new() };
    let namespace = object.namespace();
    select(requests, |request| {
        request.namespace() == namespace && request.spec.template_parameters.cluster_name.as_ref() == Some(cluster)
    })
}

/// Requests that name the template.
pub fn requests_for_template(
    requests: &Store<ProvisioningRequest>,
    template: &ClusterTemplate,
) -> Vec<ObjectRef<ProvisioningRequest>> {
    let (name, version) = (&template.spec.name, &template.spec.version);
    select(requests, |request| request.spec.template_name == *name && request.spec.template_version == *version)
}

/// Requests that want the cluster name or the endpoint that the Cluster has.
pub fn requests_for_cluster(
    requests: &Store<ProvisioningRequest>,
    hosts: &Store<ByoHost>,
    cluster: &Cluster,
) -> Vec<ObjectRef<ProvisioningRequest>> {
    let (namespace, name) = (cluster.namespace(), cluster.name_any());
    select(requests, |request| {
        wants_endpoint_of(request, cluster, hosts)
            || request.namespace() == namespace
                && request.spec.template_parameters.cluster_name.as_deref() == Some(&name)
    })
}

/// The request that holds the host, and those that ask for it or for its id.
pub fn requests_for_host(requests: &Store<ProvisioningRequest>, host: &ByoHost) -> Vec<ObjectRef<ProvisioningRequest>> {
    let (namespace, name, id) = (host.namespace(), host.name_any(), host.host_id());
    let mut concerned = select(requests, |request| {
        request.namespace() == namespace
            && request
                .spec
                .template_parameters
                .hosts
                .iter()
                .any(|hosts| hosts.all().any(|asked| asked.name() == name || Some(asked.id().as_str()) == id))
    });
    concerned.extend(owner_of(requests, host));
    concerned
}

/// The hosts that a request which goes away holds: one that was restored from a backup by its name, as its mark is another UID.
pub fn hosts_of_request(hosts: &Store<ByoHost>, request: &ProvisioningRequest) -> Vec<ObjectRef<ByoHost>> {
    let (uid, key) = (request.metadata.uid.as_deref(), key(request));
    let held = hosts.state().into_iter().filter(|host| {
        uid.is_some() && host.holder() == uid || host.annotations().get(names::REQUEST_ANNOTATION) == Some(&key)
    });
    held.map(|host| ObjectRef::from_obj(host.as_ref())).collect()
}

/// The Cluster that a request asks for, for when it goes away.
pub fn cluster_of_request(request: &ProvisioningRequest) -> Vec<ObjectRef<Cluster>> {
    let name = request.spec.template_parameters.cluster_name.as_deref();
    name.map(|name| ObjectRef::new(name).within(&request.namespace().unwrap_or_default())).into_iter().collect()
}

/// The hosts that were held for a Cluster that goes away or was never let go.
pub fn hosts_of_cluster(hosts: Store<ByoHost>) -> impl Fn(&Cluster) -> Vec<ObjectRef<ByoHost>> + Send + Sync + 'static {
    move |cluster| {
        let ends = cluster.metadata.deletion_timestamp.is_some() || cluster.is_creating();
        let holder = cluster.labels().get(names::REQUEST_UID_LABEL).filter(|_| ends);
        let Some(holder) = holder else { return Vec::new() };
        hosts
            .state()
            .iter()
            .filter(|host| host.holder() == Some(holder))
            .map(|host| ObjectRef::from_obj(host.as_ref()))
            .collect()
    }
}

/// Requests that want the same cluster name or endpoint.
pub fn requests_for_request(
    requests: &Store<ProvisioningRequest>,
    changed: &ProvisioningRequest,
) -> Vec<ObjectRef<ProvisioningRequest>> {
    select(requests, |other| contends(other, changed, true))
}
