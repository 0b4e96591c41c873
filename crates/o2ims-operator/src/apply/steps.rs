//! The steps of a plan, in order.

use kube::{Client, ResourceExt as _};
use o2ims_types::ProvisioningRequest;
use operator_kit::controller::Error;
use serde_json::json;

use super::target::Target;
use super::{host, object, request};
use crate::expectations::Write;
use crate::provisioner::step::Step;

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
        written.extend(apply_step(&target, step).await?);
    }
    Ok(())
}

async fn apply_step(target: &Target<'_>, step: &Step) -> Result<Option<Write>, Error> {
    match step {
        Step::Protect => request::protect(target).await,
        Step::AddFinalizer => request::add_finalizer(target).await,
        Step::RemoveFinalizer => request::remove_finalizer(target).await,
        Step::Orphan => request::orphan(target).await,
        Step::RemoveAnnotations(annotations) => request::remove_annotations(target, annotations).await,
        Step::PatchHost(patch) => host::patch(target, patch).await.map(Some),
        Step::GiveInstallScripts(scripts) => host::give_install_scripts(target, scripts).await.map(Some),
        Step::GiveJob(order) => host::give_job(target, order).await.map(Some),
        Step::Adopt { kind, name, fields } => object::adopt(target, *kind, name, fields).await.map(|()| None),
        Step::Reattach(reattachment) => host::reattach(target, reattachment).await.map(Some),
        Step::DryRun(dry_run) => object::dry_run(target, dry_run).await.map(|()| None),
        Step::Create(manifest) => object::create(target, manifest).await.map(Some),
        Step::RecreateCluster { manifest, part } => {
            object::must_exist(target, part).await?;
            object::create(target, manifest).await.map(Some)
        }
        Step::Update(manifest, uid) => object::update(target, manifest, uid).await.map(Some),
        Step::RestoreMarks(manifest, uid) => {
            let metadata = &manifest.object["metadata"];
            let marks = json!({"labels": metadata["labels"], "annotations": metadata["annotations"]});
            object::patch(target, manifest.kind, &manifest.name, uid, json!({"metadata": marks})).await.map(Some)
        }
        Step::Annotate { kind, name, uid, resource_version, annotations } => {
            let mut fields = json!({"metadata": {"annotations": annotations}});
            if let Some(version) = resource_version {
                fields["metadata"]["resourceVersion"] = json!(version);
            }
            object::patch(target, *kind, name, uid, fields).await.map(Some)
        }
        Step::PatchSpec { kind, name, uid, spec } => {
            object::patch(target, *kind, name, uid, json!({"spec": spec})).await.map(Some)
        }
        Step::Delete { kind, name, uid, resource_version } => {
            object::delete(target, *kind, name, uid, resource_version.clone()).await.map(Some)
        }
    }
}
