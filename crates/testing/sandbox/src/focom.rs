//! The SMO: the FOCOM operator, installed from the files that users get, and its O-Clouds.

use std::path::PathBuf;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use o2ims_types::OCloud;
use serde_json::{Value, json};
use testenv::ManagementCluster;

use crate::operator::{Operator, OperatorOptions};

/// The CustomResourceDefinitions.
pub const CRDS: [&str; 3] = [
    include_str!("../../../../crds/focomprovisioningrequests.focom.nephio.org.yaml"),
    include_str!("../../../../crds/oclouds.focom.nephio.org.yaml"),
    include_str!("../../../../crds/templateinfoes.provisioning.oran.org.yaml"),
];
/// Namespace, ServiceAccount and rights of the operator, and the policies that guard requests.
pub const RIGHTS: [&str; 5] = [
    include_str!("../../../../deploy/focom-operator/namespace.yaml"),
    include_str!("../../../../deploy/focom-operator/rbac.yaml"),
    include_str!("../../../../deploy/focom-operator/request-policy.yaml"),
    include_str!("../../../../deploy/focom-operator/crd-guard.yaml"),
    include_str!("../../../../deploy/focom-operator/revisions-policy.yaml"),
];
/// The SMO's account on an O-Cloud.
pub const O_CLOUD_ACCOUNT: &str = include_str!("../../../../deploy/focom-operator/o-cloud-account.yaml");
/// The example request.
pub const EXAMPLE: &str = include_str!("../../../../examples/focom-provisioning-request.yaml");

/// Installs the CRDs, and the operator's account, rights and policies.
///
/// # Errors
/// When the API server refuses a file.
pub async fn install(management: &ManagementCluster) -> anyhow::Result<()> {
    for (what, files) in [("crds/", &CRDS[..]), ("deploy/focom-operator/", &RIGHTS[..])] {
        for file in files {
            management.apply_yaml(file).await.with_context(|| format!("applying {what}"))?;
        }
    }
    Ok(())
}

/// Starts the operator, with the ServiceAccount and the rights from `deploy/`.
///
/// # Errors
/// When the API server issues no token, or the program cannot be started.
pub async fn start_operator(management: &ManagementCluster, options: &OperatorOptions) -> anyhow::Result<Operator> {
    Operator::start(options, &operator_kubeconfig(management).await?, &operator_log(management))
}

/// Writes a kubeconfig with a new token of the operator's ServiceAccount, and returns its path, which is always the
/// same.
///
/// # Errors
/// When the API server issues no token.
pub async fn operator_kubeconfig(management: &ManagementCluster) -> anyhow::Result<PathBuf> {
    let kubeconfig = management.dir().join("focom-operator.kubeconfig");
    management.service_account_kubeconfig("focom-system", "focom-operator", &kubeconfig).await?;
    Ok(kubeconfig)
}

/// Path of the operator's log.
pub fn operator_log(management: &ManagementCluster) -> PathBuf {
    management.dir().join("focom-operator.log")
}

/// Makes the SMO's account on an O-Cloud, and returns a kubeconfig for it.
///
/// # Errors
/// When the O-Cloud's API server refuses the account.
pub async fn kubeconfig_for(o_cloud: &ManagementCluster) -> anyhow::Result<String> {
    o_cloud.apply_yaml(O_CLOUD_ACCOUNT).await.context("applying deploy/focom-operator/o-cloud-account.yaml")?;
    let path = o_cloud.dir().join("smo.kubeconfig");
    o_cloud.service_account_kubeconfig("o2ims-system", "smo", &path).await?;
    std::fs::read_to_string(&path).context("reading the SMO's kubeconfig")
}

/// Registers an O-Cloud at the SMO: a Secret with its kubeconfig and an OCloud, both of this name, and the operator's
/// right to read the Secret.
///
/// # Errors
/// When the SMO's API server refuses an object.
pub async fn introduce(smo: &ManagementCluster, namespace: &str, name: &str, kubeconfig: &str) -> anyhow::Result<()> {
    allow_secrets(smo, namespace).await?;
    let (client, params) = (smo.admin(), PatchParams::apply("user").force());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"kubeconfig": kubeconfig},
    });
    Api::<Secret>::namespaced(client.clone(), namespace).patch(name, &params, &Patch::Apply(&secret)).await?;
    let o_cloud = o_cloud(namespace, name);
    Api::<OCloud>::namespaced(client, namespace).patch(name, &params, &Patch::Apply(&o_cloud)).await?;
    Ok(())
}

/// An OCloud that refers to a Secret of the same name and namespace.
pub fn o_cloud(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "focom.nephio.org/v1alpha1",
        "kind": "OCloud",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"o2imsSecret": {"secretRef": {"name": name, "namespace": namespace}}},
    })
}

/// Lets the operator read the Secrets of a namespace, by the binding that the operator's own message asks for.
///
/// # Errors
/// When the API server refuses the binding.
pub async fn allow_secrets(smo: &ManagementCluster, namespace: &str) -> anyhow::Result<()> {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "focom-operator-secrets", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "focom-operator-secrets"},
        "subjects": [{"kind": "ServiceAccount", "name": "focom-operator", "namespace": "focom-system"}],
    });
    smo.apply_yaml(&binding.to_string()).await
}
