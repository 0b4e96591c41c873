//! Whether a request may go where it wants, and is right as far as the SMO can know.

use o2ims_types::FocomProvisioningRequest;
use o2ims_types::conditions::focom::reason;
use o2ims_types::names::focom;

use super::observe::{Observed, Target};
use super::plan;
use crate::ocloud::connection::RemoteRequest;
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
    let (from, (to, id)) = (&observed.namespace, request.o_cloud());
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
        // The namespace is deleted as a whole, and so are its requests.
        Target::Kept if to == from && request.metadata.deletion_timestamp.is_some() => Ok(()),
        Target::OCloud(_) | Target::Kept if to == from => Err(Refusal::new(
            reason::O_CLOUD_UNKNOWN,
            format!(
                "oCloudId {id}: there is no OCloud {to}/{id}: make one, or delete this request and make a new one with another oCloudId"
            ),
        )),
        // The same words whether that OCloud exists or not.
        Target::OCloud(_) | Target::Kept => Err(Refusal::new(
            reason::O_CLOUD_UNKNOWN,
            format!(
                "oCloudId {id}: namespace {from} may use no OCloud {to}/{id}: it does not exist, or its spec.allowedNamespaces does \
                 not name {from}"
            ),
        )),
    }
}

/// Checks what may not change once the request was sent, and what its annotations say.
///
/// # Errors
/// The first field that is wrong, with its values.
pub fn transitions(request: &FocomProvisioningRequest, own: Option<&RemoteRequest>) -> Result<(), Refusal> {
    let spec = &request.spec;
    let invalid = |message: String| Err(Refusal::new(reason::INVALID, message));
    if let Some(value) = plan::protection(request).filter(|value| !["true", "false"].contains(value)) {
        return invalid(format!(
            "metadata.annotations[{}] is {value:?}: it must be \"true\" or \"false\"",
            focom::DELETION_PROTECTION_ANNOTATION
        ));
    }
    let (namespace, id) = request.o_cloud();
    let there = |field: &str| own.and_then(|own| own.spec[field].as_str()).unwrap_or_default();
    // What was sent as it stands and differs there was changed there, and is put back.
    let is_sent = own.is_none_or(|own| plan::is_sent(request, own));
    let fields = [
        ("oCloudId", id, spec.o_cloud_id.as_str(), false),
        ("oCloudNamespace", namespace, spec.o_cloud_namespace.as_str(), false),
        ("templateName", there("templateName"), spec.template_name.as_str(), is_sent),
        ("templateVersion", there("templateVersion"), spec.template_version.as_str(), is_sent),
    ];
    match fields.into_iter().find(|(_, sent, now, is_fine)| sent != now && !is_fine) {
        None => Ok(()),
        Some((field, sent, now, _)) => invalid(format!(
            "spec.{field} cannot change from {sent} to {now}, because the request was sent to OCloud {namespace}/{id}: set it back to \
             {sent}, or make a new request of another name"
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
