//! The Bring-Your-Own-Host provider: hosts, and which variant of it is installed.

mod host;
mod variant;

pub use host::{
    BOOTSTRAP_SUCCEEDED, ByoHost, ByoHostSpec, ByoHostStatus, HOST_WEBHOOK, HostInfo, INSTALLATION_SUCCEEDED,
    MACHINE_NAME_LABEL, MACHINE_VERSION_ANNOTATION, Network, UNREGISTERING_ANNOTATION,
};
pub use variant::{BYOHOST_CRD, ByohVariant, crd_resource};
