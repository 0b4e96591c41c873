//! Whether a request may go where it wants, and is right as far as the SMO can know.

use o2ims_types::FocomProvisioningRequest;
use o2ims_types::conditions::focom::reason;
use o2ims_types::names::focom;

use super::observe::{Observed, Target};
use crate::{grant, template_info};

/// Why a request does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl Refusal {
    fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }
}

/// Checks the way, which also holds for taking a request back.
///
/// # Errors
/// The first obstacle on the way.
pub fn way(request: &FocomProvisioningRequest, observed: &Observed) -> Result<(), Refusal> {
    let (spec, from) = (&request.spec, &observed.namespace);
    let to = &spec.o_cloud_namespace;
    match &observed.target {
        Target::Local(namespace) if grant::may_request(to, namespace.as_deref(), from) => Ok(()),
        // The same words whether that namespace exists or not.
        Target::Local(_) => Err(Refusal::new(
            reason::NOT_ALLOWED,
            format!(
                "oCloudNamespace {to} is not for requests of namespace {from}: annotate Namespace {to} with {}={from}, or use \
                 oCloudNamespace {from}",
                focom::REQUESTS_FROM_ANNOTATION
            ),
        )),
        Target::OCloud(Some(o_cloud)) if grant::may_use(o_cloud, from) => Ok(()),
        Target::OCloud(_) if to == from => Err(Refusal::new(
            reason::O_CLOUD_UNKNOWN,
            format!(
                "oCloudId {}: there is no OCloud {to}/{}: make one, or delete this request and make a new one with another oCloudId",
                spec.o_cloud_id, spec.o_cloud_id
            ),
        )),
        // The same words whether that OCloud exists or not.
        Target::OCloud(_) => Err(Refusal::new(
            reason::O_CLOUD_UNKNOWN,
            format!(
                "oCloudId {}: namespace {from} may use no OCloud {to}/{}: it does not exist, or its spec.allowedNamespaces does \
                 not name {from}",
                spec.o_cloud_id, spec.o_cloud_id
            ),
        )),
    }
}

/// Checks the parameters, where a TemplateInfo says what they should be.
///
/// # Errors
/// Every violation, by path.
pub fn parameters(request: &FocomProvisioningRequest, observed: &Observed) -> Result<(), Refusal> {
    let Some(template) = &observed.template else { return Ok(()) };
    match template_info::violations(&template.spec, &request.spec.template_parameters) {
        Ok(violations) if violations.is_empty() => Ok(()),
        Ok(violations) => Err(Refusal::new(reason::INVALID, violations.join("; "))),
        Err(error) => Err(Refusal::new(
            reason::TEMPLATE_INVALID,
            format!(
                "TemplateInfo {}/{}: templateParameterSchema {error}",
                observed.namespace,
                template.metadata.name.as_deref().unwrap_or_default()
            ),
        )),
    }
}
