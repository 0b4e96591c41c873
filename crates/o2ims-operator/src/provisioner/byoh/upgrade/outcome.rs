//! What is next for hosts that are given jobs: steps, a wait, or the word of the owner of the request.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_types::{ProvisioningRequest, names};

use crate::provisioner::step::Step;
use crate::request::annotation_command;

/// What is next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing is to be done.
    Nothing,
    /// These steps are due, or, if there are none, what the message says is waited for.
    Going {
        /// The steps.
        steps: Vec<Step>,
        /// What is going on.
        message: String,
    },
    /// It goes on by itself at a time.
    Scheduled {
        /// What is waited for.
        message: String,
        /// When it goes on.
        at: Timestamp,
    },
    /// It has stopped until somebody acts.
    Halted {
        /// Why, and what to do.
        message: String,
    },
}

impl Next {
    /// The steps that are due.
    pub fn into_steps(self) -> Vec<Step> {
        match self {
            Self::Going { steps, .. } => steps,
            Self::Nothing | Self::Scheduled { .. } | Self::Halted { .. } => Vec::new(),
        }
    }
}

/// That something has stopped, and the command that tries the jobs with these ids again.
pub fn halted(request: &ProvisioningRequest, what: &str, ids: &str) -> Next {
    let again = annotation_command(request, names::RETRY_ANNOTATION, &format!("={ids}"));
    Next::Halted { message: format!("{what}. Mend the cause, then try again: {again}") }
}

/// Whether the owner of the request has said that the job with this id is to be tried again.
pub fn is_retried(request: &ProvisioningRequest, id: &str) -> bool {
    let given = request.annotations().get(names::RETRY_ANNOTATION);
    given.is_some_and(|given| given.split(',').any(|given| given.trim() == id))
}
