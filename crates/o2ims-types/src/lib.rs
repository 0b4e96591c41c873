//! The Kubernetes resources of the O-Cloud ([`ProvisioningRequest`], [`ClusterTemplate`]) and of the SMO
//! ([`FocomProvisioningRequest`], [`OCloud`], [`TemplateInfo`]), the rules on their values, and the names and condition types that
//! all crates use.
//!
//! A directory stands for an API group, and a directory in it for a version. A rule on a value exists twice, with the same words: as the CRD's
//! CEL, and in Rust for values after a template's defaults. A change that is not allowed is refused by admission policies. Module
//! [`rules`] has all of these.

// The derive macros copy the struct without its lint attributes; the field names are the API's.
#![allow(clippy::struct_field_names)]
// Columns have a type and a path each, which the lint regards as one attribute given twice.
#![allow(clippy::duplicated_attributes)]

pub mod conditions;
pub mod crd;
pub mod focom;
pub mod names;
pub mod o2ims;
pub mod provisioning;
pub mod revisions;
pub mod rules;

pub use focom::v1alpha1::focom_provisioning_request::{
    FocomProvisioningRequest, FocomProvisioningRequestSpec, FocomProvisioningRequestStatus, Phase,
};
pub use focom::v1alpha1::o_cloud::{OCloud, OCloudSpec, OCloudStatus, OrphanedRequests};
pub use o2ims::v1alpha1::cluster_template::{ClusterTemplate, ClusterTemplateSpec, ClusterTemplateStatus};
pub use o2ims::v1alpha1::provisioning_request::{
    HostRef, ProvisioningRequest, ProvisioningRequestSpec, ProvisioningRequestStatus, ProvisioningState,
    TemplateParameters,
};
pub use provisioning::v1alpha1::template_info::{TemplateInfo, TemplateInfoSpec, TemplateInfoStatus};
pub use revisions::{Revision, Revisions};
