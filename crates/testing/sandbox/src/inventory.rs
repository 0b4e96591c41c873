//! The objects of a cluster.

use std::collections::BTreeSet;

use anyhow::Context as _;
use cluster_api::Kind;
use cluster_api::kinds::version_of;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::discovery::{Discovery, verbs};
use kube::{Api, Client, ResourceExt as _, api::ListParams};

/// Kinds whose objects come and go by themselves.
const IGNORED_KINDS: [&str; 4] = ["Event", "Lease", "ConfigMapLock", "ComponentStatus"];

/// The API of a namespace's ByoHosts.
pub fn hosts(client: Client, namespace: &str) -> Api<DynamicObject> {
    of_kind(client, namespace, Kind::ByoHost)
}

/// The API of a namespace's objects of a kind that the operator knows.
pub fn of_kind(client: Client, namespace: &str, kind: Kind) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &kind.api_resource())
}

/// The API of a namespace's objects of a kind of Cluster API or of a provider.
pub fn api(client: Client, namespace: &str, group: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version_of(group), kind));
    Api::namespaced_with(client, namespace, &resource)
}

/// All objects of all kinds, as `Kind namespace/name`, to compare before and after.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn objects(client: &Client) -> anyhow::Result<BTreeSet<String>> {
    let discovery = Discovery::new(client.clone()).run().await.context("asking for the kinds of the API server")?;
    let mut all = BTreeSet::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if !capabilities.supports_operation(verbs::LIST) || IGNORED_KINDS.contains(&resource.kind.as_str()) {
                continue;
            }
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let list = api
                .list_metadata(&ListParams::default())
                .await
                .with_context(|| format!("listing {}", resource.plural))?;
            for object in list.items {
                let namespace = object.namespace().map(|namespace| format!("{namespace}/")).unwrap_or_default();
                all.insert(format!("{} {namespace}{}", resource.kind, object.name_any()));
            }
        }
    }
    Ok(all)
}
