//! What turns a request into a cluster. A request selects a provisioner by `clusterProvisioner`; everything that is the same for each of
//! them is in [`crate::provisioning_request`].

pub mod byoh;
pub mod interface;
pub mod registry;
pub mod report;
pub mod step;
