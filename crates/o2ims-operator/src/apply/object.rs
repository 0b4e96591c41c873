//! Writes to objects of Cluster API and BYOH.

use cluster_api::Kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use o2ims_types::names;
use operator_kit::controller::{Class, Error};
use operator_kit::write::apply::{self, Precondition, dynamic_api};
use serde_json::{Value, json};

use super::error::{gone, naming, taken, would_be_refused};
use super::target::Target;
use crate::caches::version_of;
use crate::expectations::Write;
use crate::provisioner::step::{DryRun, Manifest};

/// Parameters of a merge patch.
pub fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

/// The kind Secret.
pub fn secret_resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Secret"))
}

/// Creates an object, which must not exist.
pub async fn create(target: &Target<'_>, manifest: &Manifest) -> Result<Write, Error> {
    match write(target, manifest, Precondition::MustNotExist).await {
        // Every Cluster is cached, so the next reconcile sees whose it is.
        Err(error) if error.class() == Class::Conflict && manifest.kind != Kind::Cluster => {
            Err(explained(target, &manifest.kind.api_resource(), &manifest.name, error).await)
        }
        result => result,
    }
}

/// Asks the API server whether it would create an object.
pub async fn dry_run(target: &Target<'_>, dry_run: &DryRun) -> Result<(), Error> {
    let DryRun { resource, object, may_exist, .. } = dry_run;
    let api = dynamic_api(target.client, resource, Some(target.namespace));
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let precondition = if *may_exist { Precondition::None } else { Precondition::MustNotExist };
    match apply::dry_run(&api, object, names::FIELD_MANAGER, precondition).await {
        Err(error) if error.class() == Class::Conflict && !may_exist => {
            Err(explained(target, resource, name, error).await)
        }
        result => result.map_err(|error| would_be_refused(error, target.namespace, dry_run)),
    }
}

/// Explains a conflict with an object that does not belong to the request. The caches are asked for such objects before hosts are claimed,
/// but not for templates: the conflict would last, and no user would learn of it.
async fn explained(target: &Target<'_>, resource: &ApiResource, name: &str, conflict: Error) -> Error {
    let Target { client, namespace, owner_uid, .. } = target;
    let api = dynamic_api(client, resource, Some(namespace));
    match apply::with_timeout("look at what exists", api.get_metadata_opt(name)).await {
        Ok(Some(found)) if found.labels().get(names::REQUEST_UID_LABEL).is_none_or(|mark| mark != owner_uid) => {
            taken(&resource.kind, namespace, name)
        }
        Ok(_) => conflict,
        Err(error) => error.context(format!("{} {namespace}/{name}", resource.kind)),
    }
}

/// Applies a manifest to the object with this UID. An object that this operator applied in another API version, as an earlier release did,
/// is not applied again: the API server does not reliably know which fields of the other version are the same ones. Its fields are
/// set instead.
pub async fn update(target: &Target<'_>, manifest: &Manifest, uid: &str) -> Result<Write, Error> {
    let Target { client, namespace, .. } = target;
    let (kind, name) = (manifest.kind, &manifest.name);
    let api = dynamic_api(client, &kind.api_resource(), Some(namespace));
    let found = apply::with_timeout("look at what exists", api.get_metadata_opt(name)).await;
    let found = found.map_err(|error| naming(error, kind, namespace, name))?;
    if found.is_some_and(|found| is_applied_in_another_version(found.metadata.managed_fields.as_deref(), kind)) {
        return patch(target, kind, name, uid, manifest.as_merge_patch()).await;
    }
    write(target, manifest, Precondition::Uid(uid)).await
}

fn is_applied_in_another_version(managed: Option<&[ManagedFieldsEntry]>, kind: Kind) -> bool {
    managed.into_iter().flatten().any(|entry| {
        entry.manager.as_deref() == Some(names::FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.api_version.as_ref().is_some_and(|version| *version != kind.api_version())
    })
}

/// Applies a manifest.
async fn write(target: &Target<'_>, manifest: &Manifest, precondition: Precondition<'_>) -> Result<Write, Error> {
    let Target { client, namespace, .. } = target;
    let api = dynamic_api(client, &manifest.kind.api_resource(), Some(namespace));
    let object = apply::apply(&api, &manifest.object, names::FIELD_MANAGER, precondition)
        .await
        .map_err(|error| naming(error, manifest.kind, namespace, &manifest.name))?;
    Ok(Write::Object { kind: manifest.kind, name: manifest.name.clone(), version: version_of(&object) })
}

/// Fails unless the API server has this object. A Cluster is created again only for parts that exist, and not for what a cache still
/// shows.
pub async fn must_exist(target: &Target<'_>, (kind, name, uid): &(Kind, String, String)) -> Result<(), Error> {
    let Target { client, namespace, .. } = target;
    let api = dynamic_api(client, &kind.api_resource(), Some(namespace));
    let found = apply::with_timeout("look for a part of the cluster", api.get_metadata_opt(name)).await;
    match found.map_err(|error| naming(error, *kind, namespace, name))? {
        Some(found) if found.metadata.uid.as_ref() == Some(uid) => Ok(()),
        _ => Err(gone(*kind, namespace, name)),
    }
}

/// Merges fields into the object with this UID.
pub async fn patch(target: &Target<'_>, kind: Kind, name: &str, uid: &str, mut fields: Value) -> Result<Write, Error> {
    let Target { client, namespace, .. } = target;
    let api = dynamic_api(client, &kind.api_resource(), Some(namespace));
    fields["metadata"]["uid"] = json!(uid);
    let (patch, params) = (Patch::Merge(fields), patch_params());
    let object = apply::with_timeout("set fields", api.patch(name, &params, &patch))
        .await
        .map_err(|error| naming(error, kind, namespace, name))?;
    Ok(Write::Object { kind, name: name.to_owned(), version: version_of(&object) })
}

/// Merges fields into an object that Cluster API has made for the cluster, if it is there; the operator does not observe its UID. One that is gone
/// cannot differ from anything.
pub async fn adopt(target: &Target<'_>, kind: Kind, name: &str, fields: &Value) -> Result<(), Error> {
    let Target { client, namespace, .. } = target;
    let api = dynamic_api(client, &kind.api_resource(), Some(namespace));
    let (patch, params) = (Patch::Merge(fields), patch_params());
    match apply::with_timeout("set fields", async { Ok(api.patch(name, &params, &patch).await) }).await? {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(naming(Error::from(error), kind, namespace, name)),
    }
}

/// Deletes the object with this UID and, if given, this resource version.
pub async fn delete(
    target: &Target<'_>,
    kind: Kind,
    name: &str,
    uid: &str,
    resource_version: Option<String>,
) -> Result<Write, Error> {
    let Target { client, namespace, .. } = target;
    let api = dynamic_api(client, &kind.api_resource(), Some(namespace));
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version };
    apply::delete(&api, name, preconditions).await.map_err(|error| naming(error, kind, namespace, name))?;
    Ok(Write::Deletion { kind, name: name.to_owned(), uid: uid.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_an_earlier_release_is_known_by_what_it_was_applied_in() {
        let managed = |manager: &str, operation: &str, version: &str| {
            vec![ManagedFieldsEntry {
                manager: Some(manager.to_owned()),
                operation: Some(operation.to_owned()),
                api_version: Some(version.to_owned()),
                ..ManagedFieldsEntry::default()
            }]
        };
        let is_other = |managed: &[ManagedFieldsEntry]| is_applied_in_another_version(Some(managed), Kind::Cluster);
        let (ours, older, newer) = (names::FIELD_MANAGER, "cluster.x-k8s.io/v1beta1", "cluster.x-k8s.io/v1beta2");
        assert!(is_other(&managed(ours, "Apply", older)));
        assert!(!is_other(&managed(ours, "Apply", newer)));
        assert!(!is_other(&managed(ours, "Update", older)), "a patch of single fields");
        assert!(!is_other(&managed("kubectl", "Apply", older)), "of somebody else");
        assert!(!is_applied_in_another_version(None, Kind::Cluster));
    }
}
