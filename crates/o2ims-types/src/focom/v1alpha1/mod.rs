//! Version v1alpha1.

pub mod focom_provisioning_request;
pub mod o_cloud;
