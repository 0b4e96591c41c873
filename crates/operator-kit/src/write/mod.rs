//! Writes to the API server: objects, finalizers, revisions and status, each with a precondition and a time limit.

pub mod apply;
pub mod finalizer;
pub mod revisions;
pub mod status;
