//! The control loop: what triggers a reconcile, what it returns, and when the object is reconciled again.

pub(crate) mod backoff;
pub(crate) mod conflicts;
#[allow(clippy::module_inception, reason = "the folder is named after its main type")]
pub(crate) mod controller;
pub(crate) mod error;
pub(crate) mod outcome;
pub(crate) mod trigger;

pub use backoff::Backoff;
pub use conflicts::{Conflicts, LASTING_CONFLICT, LASTING_CONFLICT_ADVICE};
pub use controller::Controller;
pub use error::{BoxError, Cause, Class, Error, is_denied_by_policy, lacks_rights, stable};
pub use outcome::{Disposition, Outcome, disposition};
pub use trigger::{Trigger, references};
