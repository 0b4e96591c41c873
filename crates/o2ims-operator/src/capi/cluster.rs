//! `Cluster` and `ByoCluster`.

use o2ims_types::names;
use serde_json::{Value, json};

use super::contract::Kind;
use crate::provisioning_request::validate::{Endpoint, Valid};

/// The Cluster. It comes first, because it is the lock on the cluster's name, and is made paused, so that no controller
/// sees it half made: Cluster API asks again for a missing part only after 30 s.
pub fn cluster(valid: &Valid) -> Value {
    let namespace = &valid.namespace;
    let control_plane = names::control_plane(namespace, &valid.cluster);
    let mut network = json!({"serviceDomain": "cluster.local"});
    if let Some(cidr) = &valid.pod_cidr {
        network["pods"] = json!({"cidrBlocks": [cidr]});
    }
    if let Some(cidr) = &valid.service_cidr {
        network["services"] = json!({"cidrBlocks": [cidr]});
    }
    json!({
        "apiVersion": Kind::Cluster.api_version(),
        "kind": Kind::Cluster.name(),
        "metadata": {
            "name": valid.cluster, "namespace": namespace, "labels": valid.labels,
            "annotations": {names::INSTALL_ANNOTATION: json!(valid.install).to_string()},
        },
        "spec": {
            "clusterNetwork": network,
            "controlPlaneEndpoint": endpoint(&valid.endpoint),
            "controlPlaneRef": Kind::KubeadmControlPlane.reference(namespace, &control_plane),
            "infrastructureRef": Kind::ByoCluster.reference(namespace, &valid.cluster),
        }
    })
}

/// The ByoCluster. It has the Cluster's name, because BYOH's deletion guard compares with that.
pub fn byo_cluster(valid: &Valid) -> Value {
    json!({
        "apiVersion": Kind::ByoCluster.api_version(),
        "kind": Kind::ByoCluster.name(),
        "metadata": {"name": valid.cluster, "namespace": valid.namespace},
        "spec": {"controlPlaneEndpoint": endpoint(&valid.endpoint)}
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    json!({"host": endpoint.host, "port": endpoint.port})
}
