//! The O2IMS operator: turns ProvisioningRequests into Cluster API clusters for the Bring-Your-Own-Host provider, on exactly the hosts
//! that were asked for, and takes them down until every host is free.
//!
//! [`operator`] wires the process; [`watches`] fill the [`caches`] and trigger; [`provisioning_request`] is the reconcile of a request,
//! whichever [`provisioner`] carries it out; [`apply`] writes.

pub mod apply;
pub mod caches;
pub mod context;
pub mod expectations;
pub mod mappers;
pub mod operator;
pub mod provisioner;
pub mod provisioning_request;
pub mod request;
pub mod watches;
