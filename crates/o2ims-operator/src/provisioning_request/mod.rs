//! A ProvisioningRequest, whichever provisioner carries it out: finalizer, deadlines, conditions, state and events are the same for all.
//!
//! The path of a request is [`reconcile`]: its provisioner observes, validates and plans; the plan is carried out by [`crate::apply`];
//! [`status`] derives the status, [`revisions`] keeps the specs that were accepted, and [`events`] reports what has changed.

pub mod events;
pub mod reconcile;
pub mod revisions;
pub mod status;
