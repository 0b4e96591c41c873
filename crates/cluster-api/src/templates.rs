//! The templates that machines are made from.

use serde::Deserialize;

use crate::partial::{Empty, NameRef, partial_resource};

partial_resource!(
    /// Which hosts a machine may take.
    ByoMachineTemplate, MachineTemplateSpec, Empty
);

partial_resource!(
    /// Only whether it exists.
    KubeadmConfigTemplate, Empty, Empty
);

partial_resource!(
    /// Only whether it exists.
    K8sInstallerConfigTemplate, Empty, Empty
);

/// Of a ByoMachineTemplate's spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct MachineTemplateSpec {
    /// What is stamped out.
    #[serde(default)]
    pub template: Template<InstallerRef>,
}

/// The template of objects with this spec.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Template<T> {
    /// Its spec.
    #[serde(default)]
    pub spec: T,
}

/// How Kubernetes gets onto the host of a machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstallerRef {
    /// Its K8sInstallerConfigTemplate, if there is one.
    #[serde(default)]
    pub installer_ref: NameRef,
}
