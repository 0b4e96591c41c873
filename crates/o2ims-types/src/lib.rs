//! Kubernetes resources of the O-Cloud side: [`ProvisioningRequest`] and [`ClusterTemplate`], the rules that their
//! values obey, and the names and condition types that all parts agree on.
//!
//! Every rule stands once, in [`rules`]: the CRD carries it as a CEL rule, the operator checks the same rule after it
//! has merged the template's defaults, and both use the same words. What may not change is refused by the policies of
//! [`policy`].

// The derive macros copy the struct without its lint attributes; the field names are the API's.
#![allow(clippy::struct_field_names)]
// Columns have a type and a path each, which the lint takes for one attribute given twice.
#![allow(clippy::duplicated_attributes)]

pub mod cluster_template;
pub mod conditions;
pub mod crd;
pub mod focom_provisioning_request;
pub mod names;
pub mod o_cloud;
pub mod policy;
pub mod provisioning_request;
pub mod rules;
pub mod schema;
pub mod template_info;
pub mod validation;

pub use cluster_template::{ClusterTemplate, ClusterTemplateSpec};
pub use focom_provisioning_request::{
    FocomProvisioningRequest, FocomProvisioningRequestSpec, FocomProvisioningRequestStatus, Phase,
};
pub use o_cloud::{OCloud, OCloudSpec, OCloudStatus};
pub use provisioning_request::{
    HostRef, ProvisioningRequest, ProvisioningRequestSpec, ProvisioningRequestStatus, ProvisioningState,
    TemplateParameters,
};
pub use template_info::{TemplateInfo, TemplateInfoSpec, TemplateInfoStatus};
