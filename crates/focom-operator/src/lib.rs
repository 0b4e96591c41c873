//! The FOCOM operator: turns FocomProvisioningRequests into ProvisioningRequests on O-Clouds and brings their state back.

pub mod ocloud;
