//! Writes to the request itself.

use cluster_api::Kind;
use kube::api::{DeleteParams, ListParams, Patch};
use kube::{Api, ResourceExt as _};
use o2ims_types::{ProvisioningRequest, names};
use operator_kit::controller::Error;
use operator_kit::write::apply::{self, MetadataPatch, dynamic_api};
use operator_kit::write::finalizer;
use serde_json::json;

use super::error::left;
use super::object::{patch_params, secret_resource};
use super::target::Target;
use crate::caches::OWNED_KINDS;
use crate::expectations::Write;

fn api(target: &Target<'_>) -> Api<ProvisioningRequest> {
    Api::namespaced(target.client.clone(), target.namespace)
}

/// Protects the request from deletion.
pub async fn protect(target: &Target<'_>) -> Result<Option<Write>, Error> {
    let annotations = json!({names::DELETION_PROTECTION_ANNOTATION: "true"});
    let patch = Patch::Merge(json!({"metadata": {"uid": target.request.uid(), "annotations": annotations}}));
    let (api, name, params) = (api(target), target.request.name_any(), patch_params());
    apply::with_timeout("protect from deletion", api.patch(&name, &params, &patch)).await?;
    Ok(None)
}

/// Adds the finalizer.
pub async fn add_finalizer(target: &Target<'_>) -> Result<Option<Write>, Error> {
    let is_added =
        finalizer::add_finalizer(&api(target), target.request, names::FINALIZER, names::FIELD_MANAGER).await?;
    Ok(is_added.then_some(Write::Finalizer))
}

/// Removes annotations, if the request is still as it was observed.
pub async fn remove_annotations(target: &Target<'_>, annotations: &[&'static str]) -> Result<Option<Write>, Error> {
    let removed = annotations.iter().map(|annotation| ((*annotation).to_owned(), None)).collect();
    let patch = MetadataPatch { annotations: removed, ..MetadataPatch::default() };
    let (name, revision) = (target.request.name_any(), target.request.resource_version().unwrap_or_default());
    apply::patch_metadata(&api(target), &name, &revision, &patch, names::FIELD_MANAGER).await?;
    Ok(None)
}

/// Removes the finalizer and leaves everything else as it is.
pub async fn orphan(target: &Target<'_>) -> Result<Option<Write>, Error> {
    let is_removed =
        finalizer::remove_finalizer(&api(target), target.request, names::FINALIZER, names::FIELD_MANAGER).await?;
    Ok(is_removed.then_some(Write::FinalizerRemoval))
}

/// Removes the finalizer. The request is the last object that names what was created for it, so the API server itself is asked once more
/// whether any of that is left; the caches may lag behind a write of a former leader.
pub async fn remove_finalizer(target: &Target<'_>) -> Result<Option<Write>, Error> {
    let Target { client, namespace, owner_uid, .. } = target;
    let owned = format!("{}={owner_uid}", names::REQUEST_UID_LABEL);
    for kind in OWNED_KINDS.into_iter().chain([Kind::ByoHost]) {
        let api = dynamic_api(client, &kind.api_resource(), Some(namespace));
        let params = ListParams::default().labels(&owned).limit(1);
        match apply::with_timeout("look for leftovers", async { Ok(api.list_metadata(&params).await) }).await? {
            Ok(list) if list.items.is_empty() => {}
            Ok(list) => {
                let name = list.items.first().map(kube::ResourceExt::name_any).unwrap_or_default();
                // Mostly the caches do not show it yet. What they never show, such as an object that cannot be decoded, has to be reported.
                return Err(left(kind, namespace, &name));
            }
            // The provider is not installed any more. kube does not call this answer "not found".
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(Error::from(error).context(format!("list {}", kind.plural()))),
        }
    }
    delete_install_secrets(target).await?;
    orphan(target).await
}

/// Deletes the install Secrets of hosts that lack the annotation that names them.
async fn delete_install_secrets(target: &Target<'_>) -> Result<(), Error> {
    let Target { client, namespace, owner_uid, .. } = target;
    let secrets = dynamic_api(client, &secret_resource(), Some(namespace));
    let owned = ListParams::default().labels(&format!("{}={owner_uid}", names::REQUEST_UID_LABEL));
    let deletion = async { Ok(secrets.delete_collection(&DeleteParams::default(), &owned).await) };
    match apply::with_timeout("delete install scripts", deletion).await? {
        Ok(_) => Ok(()),
        // The policy of the operator's Secrets: a Secret that is not the operator's has the label.
        Err(kube::Error::Api(status)) if status.code == 403 => {
            tracing::warn!(namespace, message = %status.message, "a Secret with a request's label stays");
            Ok(())
        }
        Err(error) => Err(Error::from(error).context("delete install scripts")),
    }
}
