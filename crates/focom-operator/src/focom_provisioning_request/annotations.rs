//! What the owner of a request says by annotations, and by the way of its deletion.

use kube::ResourceExt as _;
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::names::{self, focom};

/// The annotation that allows an adoption: the UID of a ProvisioningRequest, or [`focom::ADOPT_DRY_RUN`].
pub fn adopt(request: &FocomProvisioningRequest) -> Option<&str> {
    annotation(request, focom::ADOPT_ANNOTATION)
}

/// The UID of the ProvisioningRequest that the request is to adopt; `None` for a dry run.
pub fn adopt_uid(request: &FocomProvisioningRequest) -> Option<&str> {
    adopt(request).filter(|value| *value != focom::ADOPT_DRY_RUN)
}

/// The annotation that has a request sent again whose ProvisioningRequest is gone: the id of the cluster that is gone.
pub fn send_again(request: &FocomProvisioningRequest) -> Option<&str> {
    annotation(request, focom::SEND_AGAIN_ANNOTATION)
}

/// The annotation that protects from deletion, `true` or `false` in a valid request.
pub fn deletion_protection(request: &FocomProvisioningRequest) -> Option<&str> {
    annotation(request, focom::DELETION_PROTECTION_ANNOTATION)
}

/// Whether the request is being deleted and does not wait until its ProvisioningRequest is gone.
pub fn skips_remote_deletion(request: &FocomProvisioningRequest) -> bool {
    request.metadata.deletion_timestamp.is_some() && abandon(request) == Some("true")
}

/// Whether the request gives up the O-Cloud that it was sent to. The annotation has the fingerprint of that O-Cloud, so
/// it has no effect any more once the request is sent to another one.
pub fn abandons_previous_target(request: &FocomProvisioningRequest) -> bool {
    let sent_to = request.status.as_ref().and_then(|status| status.sent_to.as_deref());
    sent_to.is_some() && abandon(request) == sent_to
}

/// Whether the request is being deleted without its ProvisioningRequest: `kubectl delete --cascade=orphan`.
pub fn orphans_remote(request: &FocomProvisioningRequest) -> bool {
    request.metadata.deletion_timestamp.is_some()
        && request.finalizers().iter().any(|finalizer| finalizer == names::ORPHAN_FINALIZER)
}

fn abandon(request: &FocomProvisioningRequest) -> Option<&str> {
    annotation(request, focom::ABANDON_ANNOTATION)
}

fn annotation<'a>(request: &'a FocomProvisioningRequest, key: &str) -> Option<&'a str> {
    request.annotations().get(key).map(String::as_str)
}
