//! Labels, annotations, conditions and kinds, as Cluster API and BYOH write them: their sources are the only other place
//! where these texts stand.

use cluster_api::Kind;
use cluster_api::byoh::{
    BOOTSTRAP_SUCCEEDED, BYOHOST_CRD, INSTALLATION_SUCCEEDED, MACHINE_NAME_LABEL, MACHINE_VERSION_ANNOTATION,
    UNREGISTERING_ANNOTATION,
};
use cluster_api::labels::{CLUSTER_NAME_LABEL, CONTROL_PLANE_LABEL, DEPLOYMENT_NAME_LABEL, PAUSED_ANNOTATION};

#[test]
fn names_are_those_of_cluster_api() {
    assert_eq!(CLUSTER_NAME_LABEL, "cluster.x-k8s.io/cluster-name");
    assert_eq!(DEPLOYMENT_NAME_LABEL, "cluster.x-k8s.io/deployment-name");
    assert_eq!(CONTROL_PLANE_LABEL, "cluster.x-k8s.io/control-plane");
    assert_eq!(PAUSED_ANNOTATION, "cluster.x-k8s.io/paused");
    assert_eq!(Kind::KubeadmControlPlane.api_version(), "controlplane.cluster.x-k8s.io/v1beta2");
    assert_eq!(Kind::Machine.api_version(), "cluster.x-k8s.io/v1beta2");
}

#[test]
fn names_are_those_of_byoh() {
    assert_eq!(MACHINE_NAME_LABEL, "byoh.infrastructure.cluster.x-k8s.io/byomachine-name");
    assert_eq!(MACHINE_VERSION_ANNOTATION, "byoh.infrastructure.cluster.x-k8s.io/k8sversion");
    assert_eq!(UNREGISTERING_ANNOTATION, "byoh.infrastructure.cluster.x-k8s.io/unregistering");
    assert_eq!(BOOTSTRAP_SUCCEEDED, "K8sNodeBootstrapSucceeded");
    assert_eq!(INSTALLATION_SUCCEEDED, "K8sComponentsInstallationSucceeded");
    assert_eq!(BYOHOST_CRD, "byohosts.infrastructure.cluster.x-k8s.io");
    assert_eq!(Kind::ByoHost.api_version(), "infrastructure.cluster.x-k8s.io/v1beta1");
    assert_eq!(Kind::ByoHost.plural(), "byohosts");
}
