//! Per worker host a `MachineDeployment` of one Machine, so that exactly the requested host is added or removed.

use cluster_api::Kind;
use cluster_api::labels::{CLUSTER_NAME_LABEL, DEPLOYMENT_NAME_LABEL};
use o2ims_types::names;
use serde_json::{Value, json};

use super::control_plane::CRI_SOCKET;
use crate::provisioner::byoh::desired::DesiredCluster;
use crate::provisioner::byoh::kubeadm::{in_current_form, without_empty_fields};

/// The spec of the KubeadmConfigTemplate that all workers share.
pub fn config_template_spec(desired: &DesiredCluster) -> Value {
    let mut config = json!({
        "format": "cloud-config",
        "joinConfiguration": {"nodeRegistration": {"criSocket": CRI_SOCKET}},
    });
    if let Some(over) = &desired.template.spec.kubeadm.workers {
        template_schema::overlay(&mut config, in_current_form(over));
    }
    json!({"template": {"spec": without_empty_fields(config)}})
}

/// The MachineDeployment `name` of one worker.
pub fn machine_deployment(
    desired: &DesiredCluster,
    uid: &str,
    name: &str,
    config_template: &str,
    machine_template: &str,
) -> Value {
    let namespace = &desired.namespace;
    let selector = json!({CLUSTER_NAME_LABEL: desired.cluster, DEPLOYMENT_NAME_LABEL: name});
    let mut labels = selector.clone();
    labels[names::REQUEST_UID_LABEL] = json!(uid);
    let mut machine = json!({
        "clusterName": desired.cluster,
        "version": desired.version,
        "bootstrap": {"configRef": Kind::KubeadmConfigTemplate.reference(config_template)},
        "infrastructureRef": Kind::ByoMachineTemplate.reference(machine_template),
    });
    if let Some(limit) = desired.template.spec.timeouts.drain_seconds() {
        machine["deletion"] = json!({"nodeDrainTimeoutSeconds": limit});
    }
    json!({
        "apiVersion": Kind::MachineDeployment.api_version(),
        "kind": Kind::MachineDeployment.name(),
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "clusterName": desired.cluster,
            "replicas": 1,
            "selector": {"matchLabels": selector},
            // There is no spare host: the old Machine is deleted before the new one is created.
            "rollout": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}},
            "template": {"metadata": {"labels": labels}, "spec": machine}
        }
    })
}
