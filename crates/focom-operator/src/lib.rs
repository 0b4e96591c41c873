//! The FOCOM operator: turns FocomProvisioningRequests into ProvisioningRequests on O-Clouds and brings their state back.

pub mod grant;
pub mod ocloud;
pub mod operator;
pub mod request;
pub mod template_info;
pub mod watches;
