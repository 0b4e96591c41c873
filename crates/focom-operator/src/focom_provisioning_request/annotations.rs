//! The annotations that the owner of a request sets, and whether it is deleted with `--cascade=orphan`.

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

/// The annotation that has a request sent again whose ProvisioningRequest is gone: the UID of its Cluster, or, where it
/// had none yet, of its first ByoHost.
pub fn send_again(request: &FocomProvisioningRequest) -> Option<&str> {
    annotation(request, focom::SEND_AGAIN_ANNOTATION)
}

/// The annotation that protects from deletion, `true` or `false` in a valid request.
pub fn deletion_protection(request: &FocomProvisioningRequest) -> Option<&str> {
    annotation(request, focom::DELETION_PROTECTION_ANNOTATION)
}

/// The annotations that are passed on as they are, under their names on the O-Cloud.
pub fn passed_on(request: &FocomProvisioningRequest) -> impl Iterator<Item = (&'static str, &str)> {
    focom::PASSED_ON.into_iter().filter_map(|name| Some((name, annotation(request, &focom::at_smo(name))?)))
}

/// Whether the O-Cloud is to change nothing for the request, or only to say what it would do.
pub fn pauses(request: &FocomProvisioningRequest) -> bool {
    let pause = [names::PAUSED_ANNOTATION, names::PLAN_ANNOTATION];
    passed_on(request).any(|(name, value)| pause.contains(&name) && value != "false")
}

/// The annotation that names hosts whose servers do not come back.
pub fn lost_hosts(request: &FocomProvisioningRequest) -> Option<&str> {
    annotation(request, focom::LOST_HOSTS_ANNOTATION)
}

/// Whether the request is being deleted and does not wait for the deletion of its ProvisioningRequest.
pub fn skips_remote_deletion(request: &FocomProvisioningRequest) -> bool {
    request.metadata.deletion_timestamp.is_some() && abandon(request) == Some("true")
}

/// Whether the request leaves its ProvisioningRequest on the O-Cloud that it was sent to. The value of the annotation is
/// the fingerprint of that O-Cloud, so it has no effect once the request is sent to another one.
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
