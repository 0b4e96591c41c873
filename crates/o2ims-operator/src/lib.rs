//! The O2IMS operator: turns ProvisioningRequests into Cluster API clusters for the Bring-Your-Own-Host provider, on
//! exactly the hosts that were asked for, and takes them down until every host is free.
//!
//! The path of a request stands in [`provisioning_request`]; [`capi`] and [`byoh`] are the contracts with what it
//! drives; [`watches`] is what it sees; [`operator`] ties them to the runtime.

pub mod byoh;
pub mod capi;
pub mod operator;
pub mod provisioning_request;
pub mod watches;
