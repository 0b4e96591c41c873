//! Reads Kubernetes objects of any kind from YAML, and applies them.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use futures::{StreamExt, TryStreamExt, pin_mut, stream};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{DynamicObject, GroupVersionKind, NotUsed, Object};
use kube::discovery::{ApiCapabilities, ApiResource, Scope, pinned_kind};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::Value;

const FIELD_MANAGER: &str = "testenv";
/// How long CRDs may take to be served. A cold API server takes seconds for those of Cluster API.
const ESTABLISH_TIMEOUT: Duration = Duration::from_secs(60);
/// How many objects are sent at the same time.
const CONCURRENCY: usize = 8;

/// Reads all objects of a YAML text: the documents, and the items of a `List`. Empty documents are left out.
pub(crate) fn read_yaml(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("not valid YAML")?;
    let mut objects = Vec::new();
    for mut document in documents {
        match document.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) if document["kind"] == "List" => objects.extend(items),
            Some(items) => {
                document["items"] = items;
                objects.push(document);
            }
            None if document.is_null() => {}
            None => objects.push(document),
        }
    }
    Ok(objects)
}

/// Applies the objects in their order, by server-side apply that takes over fields of other managers. CRDs must be
/// established before an object of another kind is applied, and before this returns.
pub(crate) async fn apply(client: &Client, objects: Vec<Value>) -> Result<()> {
    let mut kinds = HashMap::new();
    let mut new_crds = HashSet::new();
    for value in objects {
        let object: DynamicObject = serde_json::from_value(value).context("not a Kubernetes object")?;
        let types = object.types.clone().context("an object has no apiVersion and kind")?;
        let name =
            object.metadata.name.clone().with_context(|| format!("an object of kind {} has no name", types.kind))?;
        let definition = types.kind == "CustomResourceDefinition";
        if definition {
            new_crds.insert(name.clone());
        } else if !new_crds.is_empty() {
            wait_established(client, std::mem::take(&mut new_crds)).await?;
        }
        let kind = GroupVersionKind::try_from(&types).context("a malformed apiVersion")?;
        if !kinds.contains_key(&kind) {
            kinds.insert(kind.clone(), discover(client, &kind).await?);
        }
        let Some((resource, capabilities)) = kinds.get(&kind) else { continue };
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Cluster => Api::all_with(client.clone(), resource),
            Scope::Namespaced => {
                let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
                Api::namespaced_with(client.clone(), namespace, resource)
            }
        };
        api.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&object))
            .await
            .with_context(|| format!("cannot apply {} {name}", types.kind))?;
    }
    wait_established(client, new_crds).await
}

/// The resource of a kind. After its CRD is established, it takes a moment until the API server lists the kind.
async fn discover(client: &Client, kind: &GroupVersionKind) -> Result<(ApiResource, ApiCapabilities)> {
    let started = Instant::now();
    loop {
        match pinned_kind(client, kind).await {
            Ok(found) => return Ok(found),
            Err(error) if started.elapsed() > Duration::from_secs(5) => {
                let name = format!("{}/{} {}", kind.group, kind.version, kind.kind);
                return Err(
                    anyhow!(error).context(format!("the API server does not serve {name}; is its CRD installed?"))
                );
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Creates those CRDs that the API server does not have yet, and waits until all of them are established.
pub(crate) async fn create_definitions(client: &Client, definitions: &[Value]) -> Result<()> {
    create(client, "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", definitions)
        .await?;
    let names = definitions.iter().filter_map(|definition| definition["metadata"]["name"].as_str());
    wait_established(client, names.map(str::to_owned).collect()).await
}

/// Creates cluster-wide objects of one kind, several at a time. Objects that exist stay as they are.
pub(crate) async fn create(
    client: &Client,
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
    objects: &[Value],
) -> Result<()> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    stream::iter(objects.to_vec())
        .map(|value| {
            let api = api.clone();
            async move {
                let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let object = serde_json::from_value(value).with_context(|| format!("{kind} {name}"))?;
                match api.create(&PostParams::default(), &object).await {
                    Ok(_) => Ok(()),
                    Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                    Err(error) => Err(anyhow!(error).context(format!("cannot create {kind} {name}"))),
                }
            }
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

/// The status of a CRD. The rest is not read, because the schemas are large.
#[derive(Clone, Debug, Default, Deserialize)]
struct Served {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// Waits until all these CRDs are `Established`.
async fn wait_established(client: &Client, mut names: HashSet<String>) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let resource = ApiResource::from_gvk_with_plural(&kind, "customresourcedefinitions");
    let api: Api<Object<NotUsed, Served>> = Api::all_with(client.clone(), &resource);
    let served = async {
        let definitions = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
        pin_mut!(definitions);
        while let Some(definition) = definitions.next().await {
            // The watch recovers after an error; the time limit below covers errors that stay.
            let Ok(definition) = definition else { continue };
            let conditions = definition.status.iter().flat_map(|status| &status.conditions);
            let established = conditions.into_iter().any(|one| one.kind == "Established" && one.status == "True");
            if established && let Some(name) = &definition.metadata.name {
                names.remove(name);
            }
            if names.is_empty() {
                return Ok(());
            }
        }
        bail!("the watch for CRDs ended")
    };
    let ended = tokio::time::timeout(ESTABLISH_TIMEOUT, served).await;
    match ended {
        Ok(result) => result,
        Err(_) => bail!("these CRDs are not served after {} s: {names:?}", ESTABLISH_TIMEOUT.as_secs()),
    }
}
