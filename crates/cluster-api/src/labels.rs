//! Labels and annotations of Cluster API. Those of BYOH stand in [`crate::byoh`].

/// Label that ties every object of a cluster to it.
pub const CLUSTER_NAME_LABEL: &str = "cluster.x-k8s.io/cluster-name";
/// Label that a MachineDeployment selects its Machines by.
pub const DEPLOYMENT_NAME_LABEL: &str = "cluster.x-k8s.io/deployment-name";
/// Label on a Machine: name of the MachineSet that it belongs to.
pub const SET_NAME_LABEL: &str = "cluster.x-k8s.io/set-name";
/// Label on the Machines of a control plane.
pub const CONTROL_PLANE_LABEL: &str = "cluster.x-k8s.io/control-plane";
/// Annotation by which a KubeadmControlPlane delays the deletion of its Machine until it has removed the member from etcd.
pub const CONTROL_PLANE_HOOK: &str = "pre-terminate.delete.hook.machine.cluster.x-k8s.io/kcp-cleanup";
/// Annotation on a Machine: its node is not drained when it is deleted.
pub const EXCLUDE_DRAINING_ANNOTATION: &str = "machine.cluster.x-k8s.io/exclude-node-draining";
/// Annotation on a Machine: its deletion does not wait until the volumes of its node are detached.
pub const EXCLUDE_DETACHMENT_ANNOTATION: &str = "machine.cluster.x-k8s.io/exclude-wait-for-node-volume-detach";
/// Annotation on a Machine: of the Machines of a control plane, Cluster API deletes one that has it first, when their number is lowered.
pub const DELETE_MACHINE_ANNOTATION: &str = "cluster.x-k8s.io/delete-machine";
/// Annotation on the KubeadmConfig of a master: when the certificate of its API server ends. While it is there, Cluster API does not read the
/// certificate again.
pub const CERTIFICATES_EXPIRY_ANNOTATION: &str = "machine.cluster.x-k8s.io/certificates-expiry";
/// Annotation that makes controllers skip an object.
pub const PAUSED_ANNOTATION: &str = "cluster.x-k8s.io/paused";

/// Whether [`PAUSED_ANNOTATION`] is on the object.
pub fn has_pause_annotation<K: kube::Resource>(object: &K) -> bool {
    object.meta().annotations.as_ref().is_some_and(|all| all.contains_key(PAUSED_ANNOTATION))
}
