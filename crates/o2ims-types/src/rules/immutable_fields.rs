//! Which fields of a request may not change, from when on, and why. [`super::admission_policies`] derives from this the policies that
//! refuse such a change.

/// A field that may not change. This is no rule of the CRD: the API server answers such a rule with 422, and after that tools with a
/// `--force` delete the object and create it again. [`super::admission_policies`] refuses with 403.
#[derive(Clone, Copy, Debug)]
pub struct Transition {
    /// Path of the field, from the root of the object.
    pub path: &'static str,
    /// How its value is compared and printed.
    pub form: Form,
    /// From when on it may not change.
    pub frozen: Frozen,
    /// Why; a clause, without a full stop.
    pub why: &'static str,
    /// Path of the status field with the value that the cluster has if the field is absent: setting the field to that value is
    /// no change.
    pub stands_in: Option<&'static str>,
}

/// Kinds of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A string.
    Text,
    /// A version of Kubernetes. It may change to one of the same minor version or of a newer one.
    Version,
    /// Host and port.
    Endpoint,
    /// Hosts, by id and name as texts, in any order and spelling. They may change in a request with a `controlPlaneEndpoint`, but neither together
    /// with `k8sVersion` nor during an upgrade.
    Hosts,
    /// A map of strings.
    Labels,
    /// The parameters of a map that are none of [`PARAMETERS`], with values of any type.
    OtherParameters,
}

/// The fields of `templateParameters` that have a type.
pub const PARAMETERS: [&str; 8] = [
    "clusterName",
    "clusterProvisioner",
    "k8sVersion",
    "hosts",
    "controlPlaneEndpoint",
    "podCidr",
    "serviceCidr",
    "labels",
];

/// When a field becomes unchangeable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// From the creation of the object.
    Always,
    /// As soon as hosts are held; until then a mistake can be corrected.
    OnceHostsAreHeld,
}

/// What a user can do who changed a parameter that no part of the operator reads.
pub const TAKE_BACK: &str = "Take the change back";
/// What a user can do whose change was refused.
pub const WAY_OUT: &str =
    "Set the old value again; for another one delete this request, which deletes its cluster, and create a new request";

/// What a user can do whose change of the version was refused.
pub const NEXT_VERSION: &str = "Set a version of the same minor version or of a newer one";

/// What a user can do whose change of the masters was refused.
pub const MASTERS_ALONE: &str =
    "Set the old hosts again, or change them in an edit of their own, when no upgrade is going on";

const fn always(path: &'static str, why: &'static str) -> Transition {
    Transition { path, form: Form::Text, frozen: Frozen::Always, why, stands_in: None }
}

const fn once_held(path: &'static str, form: Form, why: &'static str) -> Transition {
    Transition { path, form, frozen: Frozen::OnceHostsAreHeld, why, stands_in: None }
}

const fn told_by(status: &'static str, transition: Transition) -> Transition {
    Transition { stands_in: Some(status), ..transition }
}

/// The fields of a ProvisioningRequest that may not change.
pub const TRANSITIONS: &[Transition] = &[
    always("spec.templateParameters.clusterName", "the cluster's objects are named after it"),
    always("spec.templateParameters.clusterProvisioner", "a cluster keeps the provisioner that created it"),
    always("spec.templateName", "a cluster keeps the template that it was created from"),
    always("spec.templateVersion", "a cluster keeps the template that it was created from"),
    told_by(
        "status.extensions.k8sVersion",
        once_held(
            "spec.templateParameters.k8sVersion",
            Form::Version,
            "Kubernetes has no way back to an older minor version",
        ),
    ),
    once_held(
        "spec.templateParameters.hosts.masters",
        Form::Hosts,
        "masters change only where controlPlaneEndpoint is set and not the address of a master, and neither together with k8sVersion nor while the \
         condition Upgraded is False",
    ),
    told_by(
        "status.extensions.controlPlaneEndpoint",
        once_held(
            "spec.templateParameters.controlPlaneEndpoint",
            Form::Endpoint,
            "the cluster's certificates and kubeconfigs contain it",
        ),
    ),
    told_by(
        "status.extensions.podCidr",
        once_held("spec.templateParameters.podCidr", Form::Text, "the nodes have pod CIDRs from it"),
    ),
    told_by(
        "status.extensions.serviceCidr",
        once_held("spec.templateParameters.serviceCidr", Form::Text, "the Services have cluster IPs from it"),
    ),
    once_held("spec.templateParameters.labels", Form::Labels, "other objects may select the Cluster by them"),
    once_held(
        "spec.templateParameters",
        Form::OtherParameters,
        "no part of the operator reads a parameter of this name, so the cluster would stay as it is; check the spelling",
    ),
];

/// The fields of a FocomProvisioningRequest that may not change. On `templateParameters` the policies of its O-Cloud decide.
pub const SMO_TRANSITIONS: &[Transition] = &[
    always("spec.oCloudId", "the cluster is on that O-Cloud"),
    always("spec.oCloudNamespace", "the cluster is in that namespace of the O-Cloud"),
    always("spec.templateName", "a cluster keeps the template that it was created from"),
    always("spec.templateVersion", "a cluster keeps the template that it was created from"),
];
