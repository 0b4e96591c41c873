//! The steps of a plan, in order.

use kube::{Client, ResourceExt as _};
use o2ims_types::ProvisioningRequest;
use operator_kit::apply::Precondition;
use operator_kit::outcome::Error;
use serde_json::json;

use super::{host, object, request};
use crate::expectations::Write;
use crate::provisioner::step::Step;

/// Where a plan is carried out.
pub(super) struct Target<'a> {
    /// To write with.
    pub client: &'a Client,
    /// The request.
    pub request: &'a ProvisioningRequest,
    /// The request's namespace.
    pub namespace: &'a str,
    /// The UID by which the request is known to what was made for it.
    pub owner_uid: &'a str,
}

/// Carries out `steps` in order, up to the first that fails. Each write is added to `written`.
///
/// # Errors
/// The first failure; its message names the object.
pub async fn apply(
    client: &Client,
    request: &ProvisioningRequest,
    owner_uid: &str,
    steps: &[Step],
    written: &mut Vec<Write>,
) -> Result<(), Error> {
    let namespace = request.namespace().unwrap_or_default();
    let target = Target { client, request, namespace: &namespace, owner_uid };
    for step in steps {
        written.extend(target.apply(step).await?);
    }
    Ok(())
}

impl Target<'_> {
    async fn apply(&self, step: &Step) -> Result<Option<Write>, Error> {
        match step {
            Step::Protect => request::protect(self).await,
            Step::AddFinalizer => request::add_finalizer(self).await,
            Step::RemoveFinalizer => request::remove_finalizer(self).await,
            Step::Orphan => request::orphan(self).await,
            Step::RemoveAnnotations(annotations) => request::remove_annotations(self, annotations).await,
            Step::PatchHost(patch) => host::patch(self, patch).await.map(Some),
            Step::GiveInstallScripts(scripts) => host::give_install_scripts(self, scripts).await.map(Some),
            Step::Reattach(reattachment) => host::reattach(self, reattachment).await.map(Some),
            Step::Create(manifest) => object::create(self, manifest).await.map(Some),
            Step::RecreateCluster { manifest, part } => {
                object::must_exist(self, part).await?;
                object::create(self, manifest).await.map(Some)
            }
            Step::Update(manifest, uid) => object::write(self, manifest, Precondition::Uid(uid)).await.map(Some),
            Step::RestoreMarks(manifest, uid) => {
                let metadata = &manifest.object["metadata"];
                let marks = json!({"labels": metadata["labels"], "annotations": metadata["annotations"]});
                object::patch(self, manifest.kind, &manifest.name, uid, json!({"metadata": marks})).await.map(Some)
            }
            Step::Annotate { kind, name, uid, annotations } => {
                let fields = json!({"metadata": {"annotations": annotations}});
                object::patch(self, *kind, name, uid, fields).await.map(Some)
            }
            Step::PatchSpec { kind, name, uid, spec } => {
                object::patch(self, *kind, name, uid, json!({"spec": spec})).await.map(Some)
            }
            Step::Delete { kind, name, uid, resource_version } => {
                object::delete(self, *kind, name, uid, resource_version.clone()).await.map(Some)
            }
        }
    }
}
