//! Installs the product as a user would, from the files that a user gets.

use anyhow::Context as _;
use testenv::Bed;

/// The CustomResourceDefinitions.
pub const CRDS: [&str; 2] = [
    include_str!("../../../crds/provisioningrequests.o2ims.provisioning.oran.org.yaml"),
    include_str!("../../../crds/clustertemplates.o2ims.provisioning.oran.org.yaml"),
];
/// Namespace, ServiceAccount and rights of the operator.
pub const RIGHTS: [&str; 2] = [
    include_str!("../../../deploy/o2ims-operator/namespace.yaml"),
    include_str!("../../../deploy/o2ims-operator/rbac.yaml"),
];
/// Lets the operator claim hosts in spite of BYOH's webhook.
pub const WEBHOOK_EXEMPTION: &str = include_str!("../../../deploy/byoh/webhook-exemption.yaml");
/// The example request.
pub const EXAMPLE: &str = include_str!("../../../examples/o2ims-provisioning-request.yaml");
/// The template for simulated hosts.
pub const TEMPLATE: &str = include_str!("../manifests/simulated-hosts.yaml");
/// The CNI for simulated hosts, in the namespace `default`.
pub const CNI: &str = include_str!("../manifests/simulated-cni.yaml");

/// Installs CRDs, rights and the template. Needs nothing but the management cluster.
///
/// # Errors
/// When the API server refuses a file.
pub async fn install_product(bed: &Bed) -> anyhow::Result<()> {
    for (what, files) in [("crds/", &CRDS[..]), ("deploy/o2ims-operator/", &RIGHTS[..])] {
        for file in files {
            bed.apply_yaml(file).await.with_context(|| format!("applying {what}"))?;
        }
    }
    bed.apply_yaml(TEMPLATE).await.context("applying the ClusterTemplate for simulated hosts")
}

/// Installs what needs Cluster API and BYOH: the CNI and the exemption from BYOH's webhook.
///
/// # Errors
/// When the API server refuses a file.
pub async fn install_provider_parts(bed: &Bed) -> anyhow::Result<()> {
    bed.apply_yaml(WEBHOOK_EXEMPTION).await.context("applying deploy/byoh/webhook-exemption.yaml")?;
    bed.apply_yaml(CNI).await.context("applying the simulated CNI")
}
