//! Makes the Secrets of an external etcd for each cluster.
//!
//! Simulated hosts have no etcd, so their control planes declare an external one. Cluster API then requires two Secrets
//! with its certificates for each cluster. Nothing ever uses these certificates.

use std::collections::HashSet;

use cluster_api::{Kind, labels::CLUSTER_NAME_LABEL};
use futures::StreamExt;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, PartialObjectMeta},
    runtime::watcher::{self, Event},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;

use crate::backoff;

/// Annotation of the Secrets that are made here. Other Secrets are not changed.
const SIMULATED: &str = "hostsim/simulated";

/// The certificates of the external etcd, the same for all clusters.
pub(crate) struct ExternalEtcd {
    client: Client,
    ca_cert: String,
    client_cert: String,
    client_key: String,
}

/// Parameters of a certificate with this common name.
fn certificate_params(name: &str) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

fn cluster_resource() -> ApiResource {
    Kind::Cluster.api_resource()
}

impl ExternalEtcd {
    /// Makes the certificates.
    pub(crate) fn new(client: Client) -> anyhow::Result<Self> {
        let mut ca = certificate_params("simulated-external-etcd-ca")?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate()?;
        let ca_cert = ca.self_signed(&ca_key)?.pem();
        let client_key = KeyPair::generate()?;
        let issuer = Issuer::new(ca, ca_key);
        let client_cert = certificate_params("simulated-apiserver-etcd-client")?.signed_by(&client_key, &issuer)?.pem();
        Ok(Self { client, ca_cert, client_cert, client_key: client_key.serialize_pem() })
    }

    /// Makes the Secrets for each Cluster that appears. Never returns. Cluster API may be installed later.
    pub(crate) async fn run(&self) {
        let clusters: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), &cluster_resource());
        let mut events = std::pin::pin!(backoff::watch(clusters, watcher::Config::default()));
        let mut served = HashSet::new();
        while let Some(event) = events.next().await {
            let cluster = match event {
                Event::Apply(cluster) | Event::InitApply(cluster) => cluster,
                Event::Delete(cluster) => {
                    served.remove(&cluster.metadata.uid);
                    continue;
                }
                Event::Init | Event::InitDone => continue,
            };
            if cluster.metadata.deletion_timestamp.is_some() || served.contains(&cluster.metadata.uid) {
                continue;
            }
            let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
            let mut delay = backoff::ExponentialBackoff::new();
            // Only a few attempts: a namespace that is being deleted must not delay the clusters of other namespaces.
            for _ in 0..4 {
                match self.ensure(&namespace, &name, owner(&cluster)).await {
                    Ok(()) => {
                        served.insert(cluster.metadata.uid.clone());
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(%namespace, cluster = %name, error = format!("{error:#}"), "no external etcd");
                        delay.wait().await;
                    }
                }
            }
        }
    }

    /// Makes the Secrets of a cluster if they do not exist, with `owner` as owner. Sets the owner of Secrets that were
    /// made here before.
    pub(crate) async fn ensure(
        &self,
        namespace: &str,
        cluster: &str,
        owner: Option<OwnerReference>,
    ) -> anyhow::Result<()> {
        let ca = vec![("tls.crt", &self.ca_cert)];
        let client = vec![("tls.crt", &self.client_cert), ("tls.key", &self.client_key)];
        for (suffix, data) in [("etcd", ca), ("apiserver-etcd-client", client)] {
            let name = format!("{cluster}-{suffix}");
            self.ensure_secret(namespace, cluster, &name, &data, owner.as_ref()).await?;
        }
        Ok(())
    }

    async fn ensure_secret(
        &self,
        namespace: &str,
        cluster: &str,
        name: &str,
        data: &[(&str, &String)],
        owner: Option<&OwnerReference>,
    ) -> anyhow::Result<()> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), namespace);
        if let Some(secret) = secrets.get_metadata_opt(name).await? {
            let own = secret.annotations().contains_key(SIMULATED);
            let Some(owner) = owner.filter(|owner| own && secret.owner_references().iter().all(|o| o.uid != owner.uid))
            else {
                return Ok(());
            };
            let mut owners = secret.owner_references().to_vec();
            // An earlier Cluster of the same name, which left the Secret behind.
            owners.retain(|o| o.kind != owner.kind);
            owners.push(owner.clone());
            // The resource version is a precondition, because Cluster API may adopt the Secret at the same time.
            let patch = json!({"metadata": {
                "ownerReferences": owners, "resourceVersion": secret.metadata.resource_version,
            }});
            secrets.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            return Ok(());
        }
        let mut secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": {SIMULATED: "external-etcd"}, "labels": {CLUSTER_NAME_LABEL: cluster}},
            "type": "cluster.x-k8s.io/secret",
        }))?;
        secret.metadata.owner_references = owner.map(|owner| vec![owner.clone()]);
        let bytes = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        secret.data = Some(bytes.collect());
        match secrets.create(&PostParams::default(), &secret).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            created => created.map(drop).map_err(Into::into),
        }
    }
}

/// An owner reference to a Cluster. It is not a controller reference, because the control plane becomes the controller
/// when it adopts the Secrets.
fn owner(cluster: &PartialObjectMeta<DynamicObject>) -> Option<OwnerReference> {
    let mut owner = cluster.owner_ref(&cluster_resource())?;
    owner.controller = None;
    owner.block_owner_deletion = None;
    Some(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_owns_without_controlling() {
        let cluster = json!({"metadata": {"name": "c1", "uid": "u"}});
        let cluster: PartialObjectMeta<DynamicObject> = serde_json::from_value(cluster).unwrap();
        let owner = owner(&cluster).unwrap();
        assert_eq!((owner.api_version.as_str(), owner.kind.as_str()), ("cluster.x-k8s.io/v1beta2", "Cluster"));
        assert_eq!((owner.name.as_str(), owner.uid.as_str(), owner.controller), ("c1", "u", None));
    }
}
