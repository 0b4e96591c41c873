//! ProvisioningRequests, and what befalls them in tests.

use anyhow::{Context as _, bail};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt as _};
use o2ims_types::ProvisioningRequest;
use serde_json::json;

/// Takes a request away as a restore of its cluster does, and returns what a backup has of it. Its operator, which puts its finalizer
/// back as soon as it sees it missing, does not see it.
///
/// # Errors
/// When there is no such request, the API server refuses, or the operator is always faster.
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
