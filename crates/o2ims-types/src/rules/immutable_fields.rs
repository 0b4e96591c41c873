//! Which fields of a request may not change, from when on, and why. [`super::admission_policies`] makes the policies of it that refuse such a
//! change.

/// What may not change on a request that is there. It is no rule of the CRD: the API server answers those with 422, which tools
/// with a `--force` take for leave to delete the object and make it anew. [`super::admission_policies`] makes refusals with 403 of it.
#[derive(Clone, Copy, Debug)]
pub struct Transition {
    /// Path of the field, from the root of the object.
    pub path: &'static str,
    /// How its value is compared and told.
    pub form: Form,
    /// From when on.
    pub frozen: Frozen,
    /// Why; a clause.
    pub why: &'static str,
    /// Path of the status field that tells what the cluster has where the field is absent: to write that out changes nothing.
    pub stands_in: Option<&'static str>,
}

/// Kinds of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A string.
    Text,
    /// Host and port.
    Endpoint,
    /// Hosts, by id and name as texts, in whatever order and spelling.
    Hosts,
    /// A map of strings.
    Labels,
}

/// When a field becomes unchangeable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// With the object.
    Always,
    /// When hosts are held; until then a mistake can be mended.
    OnceHostsAreHeld,
}

/// What a user can do whose change was refused.
pub const WAY_OUT: &str =
    "Put the old value back; for another one delete this request, which deletes its cluster, and make a new one";

const fn always(path: &'static str, why: &'static str) -> Transition {
    Transition { path, form: Form::Text, frozen: Frozen::Always, why, stands_in: None }
}

const fn once_held(path: &'static str, form: Form, why: &'static str) -> Transition {
    Transition { path, form, frozen: Frozen::OnceHostsAreHeld, why, stands_in: None }
}

const fn told_by(status: &'static str, transition: Transition) -> Transition {
    Transition { stands_in: Some(status), ..transition }
}

/// What may not change on a ProvisioningRequest.
pub const TRANSITIONS: &[Transition] = &[
    always("spec.templateParameters.clusterName", "the cluster's objects carry it"),
    always("spec.templateParameters.clusterProvisioner", "the provisioner's objects exist"),
    always("spec.templateName", "a cluster keeps the template that it was made from"),
    always("spec.templateVersion", "a cluster keeps the template that it was made from"),
    told_by(
        "status.extensions.k8sVersion",
        once_held("spec.templateParameters.k8sVersion", Form::Text, "this release does not upgrade clusters"),
    ),
    once_held(
        "spec.templateParameters.hosts.masters",
        Form::Hosts,
        "this release does not exchange masters; hosts.workers can change",
    ),
    told_by(
        "status.extensions.controlPlaneEndpoint",
        once_held("spec.templateParameters.controlPlaneEndpoint", Form::Endpoint, "the nodes' certificates are for it"),
    ),
    once_held("spec.templateParameters.podCidr", Form::Text, "the nodes have their parts of it"),
    once_held("spec.templateParameters.serviceCidr", Form::Text, "the Services have their addresses of it"),
    once_held("spec.templateParameters.labels", Form::Labels, "what selects the cluster goes by them"),
];

/// What may not change on a FocomProvisioningRequest. Its O-Cloud judges `templateParameters`.
pub const SMO_TRANSITIONS: &[Transition] = &[
    always("spec.oCloudId", "the cluster is on that O-Cloud"),
    always("spec.oCloudNamespace", "the cluster is in that namespace of the O-Cloud"),
    always("spec.templateName", "a cluster keeps the template that it was made from"),
    always("spec.templateVersion", "a cluster keeps the template that it was made from"),
];
