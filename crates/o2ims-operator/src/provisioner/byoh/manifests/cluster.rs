//! `Cluster` and `ByoCluster`.

use cluster_api::Kind;
use kube::ResourceExt as _;
use o2ims_types::{ProvisioningRequest, names};
use serde_json::{Value, json};

use crate::provisioner::byoh::desired::{DesiredCluster, Endpoint};
use crate::provisioner::byoh::observed::Observed;

/// The DNS domain of Services.
pub const SERVICE_DOMAIN: &str = "cluster.local";

/// The Cluster. It comes first, because it is the lock on the cluster's name, and is created paused, so that no controller sees it without its
/// parts: Cluster API looks again for a missing part only after 30 s.
pub fn cluster(desired: &DesiredCluster) -> Value {
    let namespace = &desired.namespace;
    let control_plane = names::control_plane(namespace, &desired.cluster);
    let mut network = json!({"serviceDomain": SERVICE_DOMAIN});
    if let Some(cidr) = &desired.pod_cidr {
        network["pods"] = json!({"cidrBlocks": [cidr]});
    }
    if let Some(cidr) = &desired.service_cidr {
        network["services"] = json!({"cidrBlocks": [cidr]});
    }
    json!({
        "apiVersion": Kind::Cluster.api_version(),
        "kind": Kind::Cluster.name(),
        "metadata": {
            "name": desired.cluster, "namespace": namespace, "labels": desired.labels,
            "annotations": {names::INSTALL_ANNOTATION: json!(desired.install).to_string()},
        },
        "spec": {
            "clusterNetwork": network,
            "controlPlaneEndpoint": endpoint(&desired.endpoint),
            "controlPlaneRef": Kind::KubeadmControlPlane.reference(&control_plane),
            "infrastructureRef": Kind::ByoCluster.reference(&desired.cluster),
        }
    })
}

/// A lost Cluster whose nodes run, as far as its parts and the request tell what it was. Without the labels that a
/// ClusterResourceSet selects: what runs has its pod network.
pub fn restored(request: &ProvisioningRequest, observed: &Observed) -> Value {
    let namespace = request.namespace().unwrap_or_default();
    let parameters = &request.spec.template_parameters;
    let default = |field: &str| {
        let defaults = observed.template.as_ref()?.spec.defaults.as_ref()?;
        Some(defaults[field].as_str()?.to_owned())
    };
    let mut network = json!({"serviceDomain": SERVICE_DOMAIN});
    for (field, requested, name) in
        [("pods", &parameters.pod_cidr, "podCidr"), ("services", &parameters.service_cidr, "serviceCidr")]
    {
        if let Some(range) = requested.clone().or_else(|| default(name)) {
            network[field] = json!({"cidrBlocks": [range]});
        }
    }
    let mut spec = json!({"clusterNetwork": network});
    if let Some(object) = &observed.control_plane {
        spec["controlPlaneRef"] = Kind::KubeadmControlPlane.reference(&object.name_any());
    }
    if let Some(object) = &observed.byo_cluster {
        spec["infrastructureRef"] = Kind::ByoCluster.reference(&object.name_any());
        if let Some(at) = &object.spec.control_plane_endpoint {
            spec["controlPlaneEndpoint"] = json!({"host": at.host, "port": at.port});
        }
    }
    json!({
        "apiVersion": Kind::Cluster.api_version(),
        "kind": Kind::Cluster.name(),
        "metadata": {
            "name": observed.cluster_name, "namespace": namespace, "labels": parameters.labels.clone().unwrap_or_default(),
            "annotations": {names::INSTALL_ANNOTATION: json!(observed.install()).to_string()},
        },
        "spec": spec,
    })
}

/// The ByoCluster. It has the Cluster's name, because BYOH's deletion guard compares with that.
pub fn byo_cluster(desired: &DesiredCluster) -> Value {
    json!({
        "apiVersion": Kind::ByoCluster.api_version(),
        "kind": Kind::ByoCluster.name(),
        "metadata": {"name": desired.cluster, "namespace": desired.namespace},
        "spec": {"controlPlaneEndpoint": endpoint(&desired.endpoint)}
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    json!({"host": endpoint.host, "port": endpoint.port})
}
