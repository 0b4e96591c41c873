//! Installs the product from the files that users get.

use anyhow::Context as _;
use testenv::{ManagementCluster, kubernetes_version, versions};

/// The CustomResourceDefinitions.
pub const CRDS: [&str; 2] = [
    include_str!("../../../../crds/provisioningrequests.o2ims.provisioning.oran.org.yaml"),
    include_str!("../../../../crds/clustertemplates.o2ims.provisioning.oran.org.yaml"),
];
/// Namespace, ServiceAccount and rights of the operator, and the policies that guard requests and clusters.
pub const RIGHTS: [&str; 6] = [
    include_str!("../../../../deploy/o2ims-operator/namespace.yaml"),
    include_str!("../../../../deploy/o2ims-operator/rbac.yaml"),
    include_str!("../../../../deploy/o2ims-operator/secrets-policy.yaml"),
    include_str!("../../../../deploy/o2ims-operator/request-policy.yaml"),
    include_str!("../../../../deploy/o2ims-operator/cluster-guard.yaml"),
    include_str!("../../../../deploy/o2ims-operator/revisions-policy.yaml"),
];
/// Lets the operator claim hosts in spite of BYOH's webhook.
pub const WEBHOOK_EXEMPTION: &str = include_str!("../../../../deploy/byoh/webhook-exemption.yaml");
/// The example request.
pub const EXAMPLE: &str = include_str!("../../../../examples/o2ims-provisioning-request.yaml");
/// The template for simulated hosts.
pub const TEMPLATE: &str = include_str!("../manifests/simulated-hosts.yaml");
/// The CNI for simulated hosts, in the namespace `default`.
pub const CNI: &str = include_str!("../manifests/simulated-cni.yaml");
/// The template for servers.
pub const SERVER_TEMPLATE: &str = include_str!("../manifests/server-hosts.yaml");
/// The CNI for servers, in the namespace `default`.
pub const SERVER_CNI: &str = include_str!("../manifests/pod-network.yaml");

/// What the hosts are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hosts {
    /// Programs that write what BYOH's agent would write.
    #[default]
    Simulated,
    /// Servers with systemd, containerd, kubelet, kubeadm and BYOH's agent.
    Servers,
}

impl Hosts {
    /// Says what is real and what is simulated; to be printed with every result.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Simulated => {
                "Hosts are SIMULATED: no kubelet runs. The control plane, Cluster API, BYOH and the operator are real."
            }
            Self::Servers => {
                "Everything is real but the machines: servers are namespaces with systemd, containerd and kubelet of their \
                 own."
            }
        }
    }

    /// Name for lists.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Simulated => "SIMULATED",
            Self::Servers => "server of namespaces",
        }
    }

    /// The ClusterTemplate for these hosts, YAML.
    pub fn template(self) -> String {
        as_built(match self {
            Self::Simulated => TEMPLATE,
            Self::Servers => SERVER_TEMPLATE,
        })
    }

    /// The CNI for these hosts, in the namespace `default`, YAML.
    pub const fn cni(self) -> &'static str {
        match self {
            Self::Simulated => CNI,
            Self::Servers => SERVER_CNI,
        }
    }
}

/// A template or request that names the Kubernetes that is built. The files name the default one.
pub fn as_built(text: &str) -> String {
    text.replace(versions::KUBERNETES, kubernetes_version())
}

/// Installs CRDs, rights and the template. Needs no providers.
///
/// # Errors
/// When the API server refuses a file.
pub async fn install_product(management: &ManagementCluster, hosts: Hosts) -> anyhow::Result<()> {
    for (what, files) in [("crds/", &CRDS[..]), ("deploy/o2ims-operator/", &RIGHTS[..])] {
        for file in files {
            management.apply_yaml(file).await.with_context(|| format!("applying {what}"))?;
        }
    }
    management.apply_yaml(&hosts.template()).await.context("applying the ClusterTemplate")
}

/// Installs the parts that need Cluster API and BYOH: the CNI and the exemption from BYOH's webhook.
///
/// # Errors
/// When the API server refuses a file.
pub async fn install_provider_parts(management: &ManagementCluster, hosts: Hosts) -> anyhow::Result<()> {
    management.apply_yaml(WEBHOOK_EXEMPTION).await.context("applying deploy/byoh/webhook-exemption.yaml")?;
    management.apply_yaml(hosts.cni()).await.context("applying the CNI")
}
