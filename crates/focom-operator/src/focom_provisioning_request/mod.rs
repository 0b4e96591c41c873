//! A FocomProvisioningRequest: `observe → validate → plan → apply → status`. Only `apply` and the write of the status
//! call API servers; the other steps are functions.

pub mod adopt;
pub mod annotations;
pub mod apply;
pub mod decision;
pub mod events;
pub mod expectations;
pub mod manifest;
pub mod observe;
pub mod phase;
pub mod plan;
pub mod reconcile;
pub mod remote_api;
pub mod revisions;
pub mod status;
pub mod validate;
pub mod write_error;
