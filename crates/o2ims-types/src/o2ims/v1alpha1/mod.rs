//! Version v1alpha1.

pub mod cluster_template;
pub mod provisioning_request;
pub mod timeouts;
