//! The variant of BYOH that is installed, from its ByoHost CustomResourceDefinition.

use kube::core::{ApiResource, DynamicObject, GroupVersionKind};

/// Name of the CustomResourceDefinition that tells the variants apart.
pub const BYOHOST_CRD: &str = "byohosts.infrastructure.cluster.x-k8s.io";

/// A variant of BYOH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByohVariant {
    /// vmware-tanzu's last release.
    Upstream,
    /// platform9's fork of it.
    Platform9,
}

impl ByohVariant {
    /// The variant that this CustomResourceDefinition belongs to: only the fork keeps the uninstall script in a Secret of its own.
    pub fn of(crd: &DynamicObject) -> Self {
        let uninstallation = crd.data["spec"]["versions"].as_array().into_iter().flatten().any(|version| {
            version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["uninstallationSecret"].is_object()
        });
        if uninstallation { Self::Platform9 } else { Self::Upstream }
    }
}

/// The kind CustomResourceDefinition.
pub fn crd_resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition"))
}
