//! The loop of a controller: what triggers a reconcile, how it ends, and when the object is tried again.

pub(crate) mod backoff;
#[allow(clippy::module_inception)]
pub(crate) mod controller;
pub(crate) mod error;
pub(crate) mod outcome;
pub(crate) mod trigger;

pub use backoff::Backoff;
pub use controller::Controller;
pub use error::{BoxError, Cause, Class, Error};
pub use outcome::{Disposition, Outcome, disposition};
pub use trigger::Trigger;
