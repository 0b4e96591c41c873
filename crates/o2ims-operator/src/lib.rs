//! The O2IMS operator: creates Cluster API clusters with the Bring-Your-Own-Host provider from ProvisioningRequests, on exactly the requested
//! hosts, and tears them down until every host is free.
//!
//! [`operator`] wires the process; [`watches`] fill the [`caches`] and trigger; [`provisioning_request`] is the reconcile of a request,
//! whichever [`provisioner`] carries it out, and [`cluster_template`] that of a template; [`apply`] writes.

pub mod apply;
pub mod caches;
pub mod cluster_template;
pub mod context;
pub mod expectations;
pub mod mappers;
pub mod metrics;
pub mod operator;
pub mod provisioner;
pub mod provisioning_request;
pub mod request;
pub mod traces;
pub mod watches;
