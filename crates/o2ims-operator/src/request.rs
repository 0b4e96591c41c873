//! What is read of a request itself, without anything that exists for it.

use kube::{Resource as _, ResourceExt as _};
use o2ims_types::names::focom;
use o2ims_types::{HostRef, ProvisioningRequest, names};

/// `namespace/name` of a request.
pub fn key(request: &ProvisioningRequest) -> String {
    format!("{}/{}", request.namespace().unwrap_or_default(), request.name_any())
}

/// Whether the operator's finalizer is on the request.
pub fn has_finalizer(request: &ProvisioningRequest) -> bool {
    request.finalizers().iter().any(|finalizer| finalizer == names::FINALIZER)
}

/// Whether the request is being deleted.
pub fn is_being_deleted(request: &ProvisioningRequest) -> bool {
    request.meta().deletion_timestamp.is_some()
}

/// The command by which the owner of the request sets an annotation (`change` is `=<value>`) or removes it (`-`): at the SMO, where the request
/// comes from there and the annotation is passed on.
pub fn annotation_command(request: &ProvisioningRequest, annotation: &str, change: &str) -> String {
    let overwrite = if change == "-" { "" } else { " --overwrite" };
    // What was set here is removed here.
    let applied = request.annotations().get(focom::APPLIED_HASH_ANNOTATION).map(String::as_str).unwrap_or_default();
    let is_of_smo = change != "-" || applied.contains(&format!("{annotation}="));
    // It is passed on once.
    let is_passed_on = focom::PASSED_ON.contains(&annotation) || annotation == names::LOST_HOSTS_ANNOTATION;
    let label = |key: &str| request.labels().get(key).filter(|_| is_passed_on && is_of_smo);
    if let (Some(name), Some(namespace)) = (label(focom::SOURCE_LABEL), label(focom::SOURCE_NAMESPACE_LABEL)) {
        let annotation = focom::at_smo(annotation);
        return format!("at the SMO, kubectl annotate fpr {name} -n {namespace} {annotation}{change}{overwrite}");
    }
    let (name, namespace) = (request.name_any(), request.namespace().unwrap_or_default());
    format!("kubectl annotate pr {name} -n {namespace} {annotation}{change}{overwrite}")
}

/// The hosts that the request names, with their role, masters first.
pub fn requested_hosts(request: &ProvisioningRequest) -> impl Iterator<Item = (&HostRef, &'static str)> {
    request.spec.template_parameters.hosts.iter().flat_map(|hosts| {
        let masters = hosts.masters.iter().map(|host| (host, names::ROLE_CONTROL_PLANE));
        masters.chain(hosts.workers.iter().map(|host| (host, names::ROLE_WORKER)))
    })
}

/// The ids that an annotation of the request names.
pub fn ids_in<'a>(request: &'a ProvisioningRequest, annotation: &str) -> impl Iterator<Item = &'a str> {
    request.annotations().get(annotation).into_iter().flat_map(|all| all.split(',')).map(str::trim)
}
