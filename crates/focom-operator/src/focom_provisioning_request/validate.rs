//! Whether a request may use its O-Cloud, and is valid as far as the SMO can know.

use o2ims_types::conditions::focom::reason;
use o2ims_types::names::focom;
use o2ims_types::{FocomProvisioningRequest, TemplateInfo};

use super::observe::{Observed, RemoteState, Target};
use super::{annotations, manifest};
use crate::o_cloud::remote_request::RemoteRequest;
use crate::template_info::parameters;

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl Rejection {
    /// A rejection with its reason and message.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Checks everything that can be known at the SMO. A deletion is only checked for access.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate(request: &FocomProvisioningRequest, observed: &Observed) -> Result<(), Rejection> {
    authorize(request, &observed.target)?;
    match &observed.remote {
        Some(remote) if request.metadata.deletion_timestamp.is_none() => {
            check_transitions(request, remote.own())?;
            if needs_parameter_validation(request, remote) {
                check_parameters(request, observed.template.as_deref())?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Checks whether the request may use its O-Cloud.
///
/// # Errors
/// What is missing, in the same words whether or not an object of another namespace exists.
pub fn authorize(request: &FocomProvisioningRequest, target: &Target) -> Result<(), Rejection> {
    if target.is_allowed(request) {
        return Ok(());
    }
    let (to, id) = request.o_cloud();
    let from = request.metadata.namespace.as_deref().unwrap_or_default();
    Err(match target {
        Target::Local(_) => Rejection::new(
            reason::NOT_ALLOWED,
            format!(
                "oCloudNamespace {to} is not for requests of namespace {from}: create Namespace {to} if it does not exist and annotate it with \
                 {}={from}, or use oCloudNamespace {from}",
                focom::REQUESTS_FROM_ANNOTATION
            ),
        ),
        Target::OCloud(_) | Target::ConnectionOnly if to == from => Rejection::new(
            reason::O_CLOUD_UNKNOWN,
            if request.metadata.deletion_timestamp.is_some() {
                format!("oCloudId {id}: there is no OCloud {to}/{id}: create it again, then the deletion continues")
            } else if request.status.as_ref().is_some_and(|status| status.remote_name.is_some()) {
                format!(
                    "oCloudId {id}: there is no OCloud {to}/{id}: create it again, as it was when this request was sent"
                )
            } else {
                format!(
                    "oCloudId {id}: there is no OCloud {to}/{id}: create it, or delete this request and create one with another oCloudId"
                )
            },
        ),
        Target::OCloud(_) | Target::ConnectionOnly => Rejection::new(
            reason::O_CLOUD_UNKNOWN,
            format!(
                "oCloudId {id}: namespace {from} may use no OCloud {to}/{id}: it does not exist, or its spec.allowedNamespaces does \
                 not name {from}"
            ),
        ),
    })
}

/// Checks the fields that must not change once the request was sent, and the values of its annotations. `own` is its
/// ProvisioningRequest.
///
/// # Errors
/// The first field that is wrong, with its values.
pub fn check_transitions(request: &FocomProvisioningRequest, own: Option<&RemoteRequest>) -> Result<(), Rejection> {
    let spec = &request.spec;
    let protection = annotations::deletion_protection(request);
    if let Some(value) = protection.filter(|value| !["true", "false"].contains(value)) {
        return Err(Rejection::new(
            reason::INVALID,
            format!(
                "metadata.annotations[{}] is {value:?}: it must be \"true\" or \"false\"",
                focom::DELETION_PROTECTION_ANNOTATION
            ),
        ));
    }
    let (namespace, id) = request.o_cloud();
    let remote = |field: &str| own.and_then(|own| own.spec[field].as_str()).unwrap_or_default();
    // If the present spec was sent already, the difference was written on the O-Cloud, and is reverted.
    let is_sent = own.is_none_or(|own| manifest::is_current_spec(request, own));
    let fields = [
        ("oCloudId", id, spec.o_cloud_id.as_str(), false),
        ("oCloudNamespace", namespace, spec.o_cloud_namespace.as_str(), false),
        ("templateName", remote("templateName"), spec.template_name.as_str(), is_sent),
        ("templateVersion", remote("templateVersion"), spec.template_version.as_str(), is_sent),
    ];
    match fields.into_iter().find(|(_, sent, now, may_differ)| sent != now && !may_differ) {
        None => Ok(()),
        Some((field, sent, now, _)) => Err(Rejection::new(
            reason::INVALID,
            format!(
                "spec.{field} cannot change from {sent} to {now}, because the request was sent to O-Cloud {namespace}/{id}: set it back to \
                 {sent}, or create a request with another name"
            ),
        )),
    }
}

/// Whether the parameters have to be checked. A spec that was sent is not checked again: its template may have changed
/// since.
fn needs_parameter_validation(request: &FocomProvisioningRequest, remote: &RemoteState) -> bool {
    match remote.own().or_else(|| remote.predecessor()) {
        Some(sent) => !manifest::is_current_spec(request, sent),
        None => remote.ready().is_some() || !request.was_sent(),
    }
}

/// Checks the parameters against the schema of the TemplateInfo, if there is one.
fn check_parameters(request: &FocomProvisioningRequest, template: Option<&TemplateInfo>) -> Result<(), Rejection> {
    let Some(template) = template else { return Ok(()) };
    let name = || {
        let name = template.metadata.name.as_deref().unwrap_or_default();
        format!("{}/{name}", request.metadata.namespace.as_deref().unwrap_or_default())
    };
    match parameters::violations(&template.spec, &request.spec.template_parameters) {
        Ok(violations) if violations.is_empty() => Ok(()),
        Ok(violations) => Err(Rejection::new(
            reason::INVALID,
            format!("{} (templateParameterSchema of TemplateInfo {})", violations.join("; "), name()),
        )),
        Err(error) => Err(Rejection::new(
            reason::TEMPLATE_INVALID,
            format!("TemplateInfo {}: templateParameterSchema {error}", name()),
        )),
    }
}
