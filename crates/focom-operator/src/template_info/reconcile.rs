//! Reports in a TemplateInfo's status whether its schema can be used.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt as _};
use o2ims_types::conditions::{self, focom::reason};
use o2ims_types::names::focom;
use o2ims_types::{TemplateInfo, TemplateInfoStatus};
use operator_kit::controller::{Error, Outcome};
use operator_kit::write::status::{self, ConditionStatus, ConditionUpdate, patch_status_if_changed};
use serde_json::Map;

use super::parameters::violations;
use crate::context::Context;

/// Writes whether the schema can be used.
///
/// # Errors
/// What the SMO's API server refused or did not answer.
pub async fn reconcile(template: Arc<TemplateInfo>, context: Arc<Context>) -> Result<Outcome, Error> {
    let new = assess(&template, Timestamp::now());
    let api = Api::<TemplateInfo>::namespaced(context.client.clone(), &template.namespace().unwrap_or_default());
    patch_status_if_changed(&api, template.as_ref(), template.status.as_ref(), &new, focom::FIELD_MANAGER).await?;
    Ok(Outcome::Done)
}

/// Derives the status: whether requests can be checked against the schema.
pub fn assess(template: &TemplateInfo, now: Timestamp) -> TemplateInfoStatus {
    let mut new = template.status.clone().unwrap_or_default();
    let (status, reason, message) = match violations(&template.spec, &Map::new()) {
        Ok(_) => (ConditionStatus::True, reason::READY, "requests are checked against the schema".to_owned()),
        Err(error) => (ConditionStatus::False, reason::INVALID, format!("templateParameterSchema {error}")),
    };
    let observed_generation = template.metadata.generation;
    let ready = ConditionUpdate { type_: conditions::READY, status, reason, message, observed_generation };
    status::set(&mut new.conditions, ready, now);
    new.observed_generation = observed_generation;
    new
}
