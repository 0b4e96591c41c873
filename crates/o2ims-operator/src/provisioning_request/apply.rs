//! Carries a plan out, one write after the other, and remembers what the caches have yet to show.

use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};
use o2ims_types::{ProvisioningRequest, names};
use operator_kit::controller::{Class, Error};
use operator_kit::write::apply::{self, MetadataPatch, Precondition, dynamic_api};
use operator_kit::write::finalizer;
use serde_json::{Value, json};

use super::expect::Write;
use super::observe::version_of;
use super::plan::{HostMarks, Manifest, Step};
use crate::byoh::installer::{self, Equipment};
use crate::byoh::reattachment::Reattachment;
use crate::capi::contract::Kind;

/// Carries out `steps` in order, up to the first that fails. What was written is added to `written`. `uid` is the request's mark.
///
/// # Errors
/// The first failure; its message names the object.
pub async fn apply(
    client: &Client,
    request: &ProvisioningRequest,
    uid: &str,
    steps: &[Step],
    written: &mut Vec<Write>,
) -> Result<(), Error> {
    let namespace = request.namespace().unwrap_or_default();
    for step in steps {
        match step {
            Step::Protect => {
                let annotations = json!({names::DELETION_PROTECTION_ANNOTATION: "true"});
                let patch = Patch::Merge(json!({"metadata": {"uid": request.uid(), "annotations": annotations}}));
                let params = as_operator();
                let api = Api::<ProvisioningRequest>::namespaced(client.clone(), &namespace);
                apply::with_timeout("protect from deletion", api.patch(&request.name_any(), &params, &patch)).await?;
            }
            Step::AddFinalizer => {
                let api = Api::<ProvisioningRequest>::namespaced(client.clone(), &namespace);
                if finalizer::add_finalizer(&api, request, names::FINALIZER, names::FIELD_MANAGER).await? {
                    written.push(Write::Finalizer);
                }
            }
            Step::RemoveFinalizer => remove_finalizer(client, request, uid, &namespace).await?,
            Step::LetGo => {
                let api = Api::<ProvisioningRequest>::namespaced(client.clone(), &namespace);
                finalizer::remove_finalizer(&api, request, names::FINALIZER, names::FIELD_MANAGER).await?;
            }
            Step::DropWords(annotations) => {
                let api = Api::<ProvisioningRequest>::namespaced(client.clone(), &namespace);
                let off = annotations.iter().map(|annotation| ((*annotation).to_owned(), None)).collect();
                let patch = MetadataPatch { annotations: off, ..MetadataPatch::default() };
                let revision = request.resource_version().unwrap_or_default();
                apply::patch_metadata(&api, &request.name_any(), &revision, &patch, names::FIELD_MANAGER).await?;
            }
            Step::MarkHost(marks) => written.push(mark(client, &namespace, marks).await?),
            Step::EquipHost(equipment) => written.push(equip(client, &namespace, equipment).await?),
            Step::Create(manifest) => {
                written.push(create(client, uid, &namespace, manifest).await?);
            }
            Step::Restore { manifest, part } => {
                is_there(client, &namespace, part).await?;
                written.push(create(client, uid, &namespace, manifest).await?);
            }
            Step::Reattach(reattachment) => written.push(reattach(client, &namespace, reattachment).await?),
            Step::Annotate { kind, name, uid, annotations } => {
                let fields = json!({"metadata": {"annotations": annotations}});
                written.push(set(client, &namespace, *kind, name, uid, fields).await?);
            }
            Step::Change(manifest, uid) => {
                written.push(write(client, &namespace, manifest, Precondition::Uid(uid)).await?);
            }
            Step::Mark(manifest, uid) => {
                let metadata = &manifest.object["metadata"];
                let fields =
                    json!({"metadata": {"labels": metadata["labels"], "annotations": metadata["annotations"]}});
                written.push(set(client, &namespace, manifest.kind, &manifest.name, uid, fields).await?);
            }
            Step::Delete { kind, name, uid, resource_version } => {
                let api = dynamic_api(client, &kind.api_resource(), Some(&namespace));
                let preconditions =
                    Preconditions { uid: Some(uid.clone()), resource_version: resource_version.clone() };
                apply::delete(&api, name, preconditions)
                    .await
                    .map_err(|error| naming(error, *kind, &namespace, name))?;
                written.push(Write::Deletion { kind: *kind, name: name.clone(), uid: uid.clone() });
            }
            Step::Set { kind, name, uid, spec } => {
                written.push(set(client, &namespace, *kind, name, uid, json!({"spec": spec})).await?);
            }
        }
    }
    Ok(())
}

fn naming(error: Error, kind: Kind, namespace: &str, name: &str) -> Error {
    error.context(format!("{} {namespace}/{name}", kind.name()))
}

async fn create(client: &Client, uid: &str, namespace: &str, manifest: &Manifest) -> Result<Write, Error> {
    match write(client, namespace, manifest, Precondition::MustNotExist).await {
        // A Cluster is watched whoever made it, so the next look finds it.
        Err(error) if error.class() == Class::Conflict && manifest.kind != Kind::Cluster => {
            Err(explained(client, uid, namespace, manifest, error).await)
        }
        result => result,
    }
}

/// An object of somebody else is in no cache, since these hold the operator's own: the conflict would last, and nobody
/// would be told.
async fn explained(client: &Client, uid: &str, namespace: &str, manifest: &Manifest, conflict: Error) -> Error {
    let (kind, name) = (manifest.kind, &manifest.name);
    let api = dynamic_api(client, &kind.api_resource(), Some(namespace));
    match apply::with_timeout("look at what exists", api.get_metadata_opt(name)).await {
        Ok(Some(found)) if found.labels().get(names::REQUEST_UID_LABEL).is_none_or(|mark| mark != uid) => {
            Error::transient(format!(
                "{} {namespace}/{name} exists already and is not this request's; remove it, or use another clusterName",
                kind.name()
            ))
        }
        Ok(_) => conflict,
        Err(error) => naming(error, kind, namespace, name),
    }
}

async fn write(
    client: &Client,
    namespace: &str,
    manifest: &Manifest,
    precondition: Precondition<'_>,
) -> Result<Write, Error> {
    let api = dynamic_api(client, &manifest.kind.api_resource(), Some(namespace));
    let object = apply::apply(&api, &manifest.object, names::FIELD_MANAGER, precondition)
        .await
        .map_err(|error| naming(error, manifest.kind, namespace, &manifest.name))?;
    Ok(Write::Object { kind: manifest.kind, name: manifest.name.clone(), version: version_of_dynamic(&object) })
}

fn version_of_dynamic(object: &DynamicObject) -> u64 {
    object.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// The Secret comes before its name on the host, so that the agent finds it.
async fn equip(client: &Client, namespace: &str, equipment: &Equipment) -> Result<Write, Error> {
    let name = &equipment.name;
    if let Some(former) = &equipment.replaces {
        delete_install_secret(client, namespace, &equipment.host, former).await?;
    }
    // The host tells of the Secret before there is one, so that none is forgotten.
    let hosts = dynamic_api(client, &Kind::ByoHost.api_resource(), Some(namespace));
    let patch = MetadataPatch {
        annotations: [(names::INSTALL_SECRET_ANNOTATION.to_owned(), Some(name.clone()))].into(),
        ..MetadataPatch::default()
    };
    let marked =
        apply::patch_metadata(&hosts, &equipment.host, &equipment.resource_version, &patch, names::FIELD_MANAGER)
            .await
            .map_err(|error| of_host(error, namespace, &equipment.host))?;
    let secrets = dynamic_api(client, &secret_resource(), Some(namespace));
    apply::apply(&secrets, &equipment.secret, names::FIELD_MANAGER, Precondition::None)
        .await
        .map_err(|error| error.context(format!("Secret {namespace}/{name}")))?;
    let fields = installer::references(equipment, marked.metadata.resource_version.as_deref().unwrap_or_default());
    let params = as_operator();
    let host =
        apply::with_timeout("name the install scripts", hosts.patch(&equipment.host, &params, &Patch::Merge(fields)))
            .await
            .map_err(|error| of_host(error, namespace, &equipment.host))?;
    Ok(Write::Host { name: equipment.host.clone(), version: version_of_dynamic(&host) })
}

/// A Cluster is made again only for parts that the API server has, and not for what a cache still shows.
async fn is_there(client: &Client, namespace: &str, (kind, name, uid): &(Kind, String, String)) -> Result<(), Error> {
    let api = dynamic_api(client, &kind.api_resource(), Some(namespace));
    let found = apply::with_timeout("look for a part of the cluster", api.get_metadata_opt(name)).await;
    match found.map_err(|error| naming(error, *kind, namespace, name))? {
        Some(found) if found.metadata.uid.as_ref() == Some(uid) => Ok(()),
        _ => Err(Error::conflict(format!("{} {namespace}/{name} is gone", kind.name()))),
    }
}

/// The status comes first: an agent that saw a machine without it would bootstrap.
async fn reattach(client: &Client, namespace: &str, reattachment: &Reattachment) -> Result<Write, Error> {
    let name = &reattachment.host;
    let api = dynamic_api(client, &Kind::ByoHost.api_resource(), Some(namespace));
    let params = as_operator();
    let status = Patch::Merge(reattachment.status(&Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
    let known = apply::with_timeout("name the host's machine", api.patch_status(name, &params, &status))
        .await
        .map_err(|error| of_host(error, namespace, name))?;
    let fields = Patch::Merge(reattachment.fields(known.metadata.resource_version.as_deref().unwrap_or_default()));
    let host = apply::with_timeout("give the host back to its machine", api.patch(name, &params, &fields))
        .await
        .map_err(|error| of_host(error, namespace, name))?;
    Ok(Write::Host { name: name.clone(), version: version_of_dynamic(&host) })
}

/// Of a merge patch.
fn as_operator() -> PatchParams {
    PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

fn secret_resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Secret"))
}

fn of_host(error: Error, namespace: &str, name: &str) -> Error {
    let error = naming(error, Kind::ByoHost, namespace, name);
    if error.is_refused_by_webhook() { error.advice("apply deploy/byoh/webhook-exemption.yaml") } else { error }
}

/// By its name alone: the operator reads no Secrets, so it knows no UID, and nobody else gives such names. An agent may write the
/// annotation with the name, and not only on its own host: a name that is not one of this host's is ignored.
async fn delete_install_secret(client: &Client, namespace: &str, host: &str, name: &str) -> Result<(), Error> {
    if !names::is_install_secret_of(name, host) {
        return Ok(());
    }
    let secrets = dynamic_api(client, &secret_resource(), Some(namespace));
    match apply::with_timeout("delete", async { Ok(secrets.delete(name, &DeleteParams::default()).await) }).await? {
        Ok(_) => Ok(()),
        // platform9's BYOH deletes it by itself.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::from(error).context(format!("Secret {namespace}/{name}"))),
    }
}

async fn mark(client: &Client, namespace: &str, marks: &HostMarks) -> Result<Write, Error> {
    if let Some(name) = &marks.drops_install_secret {
        delete_install_secret(client, namespace, &marks.host, name).await?;
    }
    let api = dynamic_api(client, &Kind::ByoHost.api_resource(), Some(namespace));
    let patch = MetadataPatch { labels: marks.labels.clone(), annotations: marks.annotations.clone() };
    let host = apply::patch_metadata(&api, &marks.host, &marks.resource_version, &patch, names::FIELD_MANAGER)
        .await
        .map_err(|error| of_host(error, namespace, &marks.host))?;
    Ok(Write::Host { name: marks.host.clone(), version: version_of(&host) })
}

async fn set(
    client: &Client,
    namespace: &str,
    kind: Kind,
    name: &str,
    uid: &str,
    mut fields: Value,
) -> Result<Write, Error> {
    let api = dynamic_api(client, &kind.api_resource(), Some(namespace));
    fields["metadata"]["uid"] = json!(uid);
    let patch = Patch::Merge(fields);
    let params = as_operator();
    let object = apply::with_timeout("set fields", api.patch(name, &params, &patch))
        .await
        .map_err(|error| naming(error, kind, namespace, name))?;
    Ok(Write::Object { kind, name: name.to_owned(), version: version_of_dynamic(&object) })
}

/// Of hosts that somebody took the annotation off which names them.
async fn delete_install_secrets(client: &Client, uid: &str, namespace: &str) -> Result<(), Error> {
    let secrets = dynamic_api(client, &secret_resource(), Some(namespace));
    let mine = ListParams::default().labels(&format!("{}={uid}", names::REQUEST_UID_LABEL));
    let deletion = async { Ok(secrets.delete_collection(&DeleteParams::default(), &mine).await) };
    match apply::with_timeout("delete install scripts", deletion).await? {
        Ok(_) => Ok(()),
        // The policy of the operator's Secrets: somebody has put the label on another one, which is not ours.
        Err(kube::Error::Api(status)) if status.code == 403 => {
            tracing::warn!(namespace, message = %status.message, "a Secret with a request's label stays");
            Ok(())
        }
        Err(error) => Err(Error::from(error).context("delete install scripts")),
    }
}

/// The request is the last thing that knows of its objects, so the API server itself is asked once more whether any is
/// left; the caches may lag behind a write of a former leader.
async fn remove_finalizer(
    client: &Client,
    request: &ProvisioningRequest,
    uid: &str,
    namespace: &str,
) -> Result<(), Error> {
    let mine = format!("{}={uid}", names::REQUEST_UID_LABEL);
    for kind in Kind::MADE.into_iter().chain([Kind::ByoHost]) {
        let api = dynamic_api(client, &kind.api_resource(), Some(namespace));
        let params = ListParams::default().labels(&mine).limit(1);
        match apply::with_timeout("look for leftovers", async { Ok(api.list_metadata(&params).await) }).await? {
            Ok(list) if list.items.is_empty() => {}
            Ok(list) => {
                let name = list.items.first().map(kube::ResourceExt::name_any).unwrap_or_default();
                return Err(Error::transient(format!("{} {namespace}/{name} is still there", kind.name())));
            }
            // The provider is not installed any more. kube does not call this answer "not found".
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(Error::from(error).context(format!("list {}", kind.plural()))),
        }
    }
    delete_install_secrets(client, uid, namespace).await?;
    let api = Api::<ProvisioningRequest>::namespaced(client.clone(), namespace);
    finalizer::remove_finalizer(&api, request, names::FINALIZER, names::FIELD_MANAGER).await?;
    Ok(())
}
