//! `KubeadmControlPlane`.

use cluster_api::Kind;
use cluster_api::labels::CLUSTER_NAME_LABEL;
use o2ims_types::names;
use serde_json::{Value, json};

use super::kube_vip::add_kube_vip;
use crate::provisioner::byoh::desired::DesiredCluster;
use crate::provisioner::byoh::kubeadm::{in_current_form, without_empty_fields};

/// containerd's socket, as kubeadm wants it.
pub const CRI_SOCKET: &str = "unix:///var/run/containerd/containerd.sock";

/// How long Cluster API tries to delete the Node of a master, in seconds. By default it gives up after 10, when the address of the API may still be with the
/// master that goes; its Node would stay for ever.
pub const NODE_DELETION_SECONDS: i32 = 300;

/// The control plane, on Machines from the ByoMachineTemplate `machine_template`.
pub fn control_plane(desired: &DesiredCluster, uid: &str, machine_template: &str) -> Value {
    let namespace = &desired.namespace;
    let kubeadm = &desired.template.spec.kubeadm;
    let node = json!({"nodeRegistration": {"criSocket": CRI_SOCKET}});
    let mut config = json!({
        "format": "cloud-config",
        "initConfiguration": node,
        "joinConfiguration": node,
    });
    if let Some(over) = &kubeadm.control_plane {
        template_schema::overlay(&mut config, in_current_form(over));
    }
    if desired.endpoint.virtual_ip {
        add_kube_vip(&mut config, desired);
    }
    let mut deletion = json!({"nodeDeletionTimeoutSeconds": NODE_DELETION_SECONDS});
    if let Some(limit) = desired.template.spec.timeouts.drain_seconds() {
        deletion["nodeDrainTimeoutSeconds"] = json!(limit);
    }
    let mut metadata = json!({"labels": {CLUSTER_NAME_LABEL: desired.cluster, names::REQUEST_UID_LABEL: uid}});
    if !kubeadm.control_plane_machine_annotations.is_empty() {
        metadata["annotations"] = json!(kubeadm.control_plane_machine_annotations);
    }
    json!({
        "apiVersion": Kind::KubeadmControlPlane.api_version(),
        "kind": Kind::KubeadmControlPlane.name(),
        "metadata": {"name": names::control_plane(namespace, &desired.cluster), "namespace": namespace},
        "spec": {
            "replicas": desired.masters.len(),
            "version": desired.version,
            // With three hosts and no spare the old machine is deleted first; with one host Cluster API refuses that.
            "rollout": {"strategy": {
                "type": "RollingUpdate", "rollingUpdate": {"maxSurge": i32::from(desired.masters.len() < 3)},
            }},
            "machineTemplate": {
                "metadata": metadata,
                "spec": {
                    "infrastructureRef": Kind::ByoMachineTemplate.reference(machine_template),
                    "deletion": deletion,
                },
            },
            "kubeadmConfigSpec": without_empty_fields(config),
        }
    })
}
