//! What tests do to ProvisioningRequests.

use anyhow::{Context as _, bail};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt as _};
use o2ims_types::ProvisioningRequest;
use serde_json::json;

/// Removes a request without its teardown, as when its cluster is restored from a backup, and returns the request as it
/// was. The operator puts the finalizer back as soon as it sees it missing, so the removal is retried until it comes
/// first.
///
/// # Errors
/// When there is no such request, the API server refuses, or the operator always comes first.
pub async fn force_away(requests: &Api<ProvisioningRequest>, name: &str) -> anyhow::Result<ProvisioningRequest> {
    let backup = requests.get(name).await?;
    let bare = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    for _ in 0..100 {
        let bare = requests.patch(name, &PatchParams::default(), &bare).await?;
        let unseen = Preconditions { resource_version: bare.resource_version(), uid: None };
        let params = DeleteParams { preconditions: Some(unseen), ..DeleteParams::default() };
        match requests.delete(name, &params).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            result => return result.map(|_| backup).context("deleting the request"),
        }
    }
    bail!("the operator was always faster")
}
