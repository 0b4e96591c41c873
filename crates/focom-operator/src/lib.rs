//! The FOCOM operator: turns FocomProvisioningRequests into ProvisioningRequests on O-Clouds and copies their state
//! to the SMO.

pub mod authorization;
pub mod caches;
pub mod context;
pub mod focom_provisioning_request;
pub mod metrics;
pub mod o_cloud;
pub mod operator;
pub mod template_info;
pub mod traces;
pub mod watches;
