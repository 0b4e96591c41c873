//! Why a write of a plan failed.

use o2ims_types::conditions::focom::reason;
use operator_kit::controller::Error;

use super::validate::Rejection;

/// Why a write failed, and what that means for the request.
#[derive(Debug)]
pub struct WriteError {
    /// Decides about the next try; its message is for the user.
    pub error: Error,
    /// Reason of the condition.
    pub reason: &'static str,
    /// Whether the write fails until a user changes something.
    pub requires_action: bool,
    /// Whether it is certain that nothing was written.
    pub nothing_written: bool,
}

impl WriteError {
    /// An error that lasts until a user changes something.
    pub fn permanent(reason: &'static str, message: impl Into<String>) -> Self {
        Self { error: Error::terminal(message), reason, requires_action: true, nothing_written: true }
    }

    /// An error that may pass by itself.
    pub fn transient(reason: &'static str, message: impl Into<String>) -> Self {
        Self { error: Error::transient(message), reason, requires_action: false, nothing_written: false }
    }
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self { error, reason: reason::IN_PROGRESS, requires_action: false, nothing_written: false }
    }
}

impl From<Rejection> for WriteError {
    fn from(rejection: Rejection) -> Self {
        Self::permanent(rejection.reason, rejection.message)
    }
}
