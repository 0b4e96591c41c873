//! The reconcile of a ClusterTemplate: its status, and nothing else.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt as _};
use o2ims_types::{ClusterTemplate, names};
use operator_kit::controller::{Error, Outcome};
use operator_kit::write::status::patch_status_if_changed;

use super::status::assess;
use crate::context::Context;

/// Writes whether requests can use the template.
///
/// # Errors
/// What the API server refused or did not answer.
pub async fn reconcile(template: Arc<ClusterTemplate>, context: Arc<Context>) -> Result<Outcome, Error> {
    let new = assess(&template, context.caches.byoh_variant(), Timestamp::now());
    let api = Api::<ClusterTemplate>::namespaced(context.client.clone(), &template.namespace().unwrap_or_default());
    patch_status_if_changed(&api, template.as_ref(), template.status.as_ref(), &new, names::FIELD_MANAGER).await?;
    Ok(Outcome::Done)
}
