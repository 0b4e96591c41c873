//! Which request an object belongs to.

use cluster_api::cluster::Cluster;
use kube::{Resource, ResourceExt as _};
use o2ims_types::o2ims::v1alpha1::provisioning_request::Hosts;
use o2ims_types::{ProvisioningRequest, names};

use super::instructions::recorded_id;
use super::marks::MarkedHost as _;
use crate::caches::Caches;
use crate::request::key;

/// The owner UID of a request: the value of its mark. A request that was restored from a backup has a new UID; its cluster and hosts have the
/// earlier one in their mark, and name the request. If no other request has that UID, they belong to this request.
pub fn identity(caches: &Caches, request: &ProvisioningRequest) -> String {
    let uid = request.uid().unwrap_or_default();
    let marks = marks(caches, request);
    if marks.contains(&uid) {
        return uid;
    }
    marks.into_iter().find(|mark| !caches.requests.exists(mark)).unwrap_or(uid)
}

/// The UIDs in the marks that name the request: the Cluster's, or, where that was removed, the control plane's, or else those of the hosts.
fn marks(caches: &Caches, request: &ProvisioningRequest) -> Vec<String> {
    let key = key(request);
    let namespace = request.namespace().unwrap_or_default();
    let parameters = &request.spec.template_parameters;
    let name = parameters.cluster_name.as_deref().unwrap_or_default();
    let control_plane = names::control_plane(&namespace, name);
    let cluster = caches.clusters.get(&namespace, name);
    let control_plane = caches.control_planes.get(&namespace, &control_plane);
    let marked = [cluster.as_deref().map(Resource::meta), control_plane.as_deref().map(Resource::meta)];
    let marked = marked.into_iter().flatten().find_map(|meta| {
        let mark = meta.labels.as_ref()?.get(names::REQUEST_UID_LABEL)?;
        Some((mark.clone(), meta.annotations.as_ref()?.get(names::REQUEST_ANNOTATION) == Some(&key)))
    });
    if let Some((mark, names_the_request)) = marked {
        return names_the_request.then_some(mark).into_iter().collect();
    }
    let hosts = parameters.hosts.iter().flat_map(Hosts::all);
    let hosts = hosts.filter_map(|host| caches.hosts.get(&namespace, host.name()));
    hosts
        .filter(|host| host.annotations().get(names::REQUEST_ANNOTATION) == Some(&key))
        .filter(|host| !host.is_attached_to_other(name))
        .filter_map(|host| host.holder().map(ToOwned::to_owned))
        .collect()
}

/// Whether a Cluster is the request's: by its mark, or, where that was removed, by the UID in the request's status.
pub fn is_own_cluster(cluster: &Cluster, request: &ProvisioningRequest, uid: &str) -> bool {
    match cluster.labels().get(names::REQUEST_UID_LABEL) {
        Some(mark) => mark == uid,
        None => recorded_id(request).is_some_and(|id| cluster.metadata.uid.as_deref() == Some(id)),
    }
}

/// Whether the request whose mark is on an object exists: with that UID, or restored, under its name and with another one.
pub fn owner_exists<K: Resource>(caches: &Caches, object: &K) -> bool {
    let Some(uid) = object.labels().get(names::REQUEST_UID_LABEL) else { return false };
    let name = object.annotations().get(names::REQUEST_ANNOTATION).and_then(|key| key.rsplit('/').next());
    let place = object.namespace().unwrap_or_default();
    let named = name.and_then(|name| caches.requests.get(&place, name));
    caches.requests.exists(uid) || named.is_some_and(|request| identity(caches, &request) == *uid)
}
