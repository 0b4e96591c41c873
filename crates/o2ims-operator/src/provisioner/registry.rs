//! The provisioners that this operator has.

use std::time::Duration;

use tokio::time::Instant;

use kube::ResourceExt as _;
use o2ims_types::{ProvisioningRequest, conditions};
use operator_kit::controller::Outcome;

use super::interface::{AnyProvisioner, Decision};
use super::report::{Deleting, Progress, Provisioning, Rejection, Report, Stage, StageState};
use crate::expectations::Expectations;
use crate::request::is_deleted;

/// How long the deletion of a request may take whose provisioner is unknown, until its condition Stalled is True.
const DELETION_LIMIT: Duration = Duration::from_secs(20 * 60);

/// The provisioners, by `clusterProvisioner`.
pub struct Provisioners(Vec<Box<dyn AnyProvisioner>>);

impl Provisioners {
    /// These provisioners.
    pub fn new(all: Vec<Box<dyn AnyProvisioner>>) -> Self {
        Self(all)
    }

    /// Has the request's provisioner decide what is due.
    ///
    /// # Errors
    /// How the reconcile ends if nothing can be decided now.
    pub fn decide(
        &self,
        request: &ProvisioningRequest,
        expectations: &Expectations,
        now: Instant,
    ) -> Result<Decision, Outcome> {
        let name = &request.spec.template_parameters.cluster_provisioner;
        match self.0.iter().find(|provisioner| provisioner.name() == name) {
            Some(provisioner) => provisioner.decide(request, expectations, now),
            None => Ok(Decision::none(request.uid().unwrap_or_default(), self.unknown(request, name))),
        }
    }

    /// The request with this UID is gone.
    pub fn forget(&self, uid: &str, now: Instant) {
        for provisioner in &self.0 {
            provisioner.forget(uid, now);
        }
    }

    /// Nothing is done for a request of an unknown provisioner, and nothing that exists for it is touched.
    fn unknown(&self, request: &ProvisioningRequest, name: &str) -> Report {
        let known: Vec<_> = self.0.iter().map(|provisioner| format!("{:?}", provisioner.name())).collect();
        let known = known.join(", ");
        let message = format!("clusterProvisioner {name:?} is not supported: this O-Cloud has {known}");
        let old = request.status.clone().unwrap_or_default();
        let progress = if is_deleted(request) {
            Progress::Deleting(Deleting { message, paused: None, limit: DELETION_LIMIT })
        } else {
            let state = StageState::refused(&Rejection::invalid(message));
            Progress::Provisioning(Provisioning {
                stages: vec![Stage::new(conditions::VALIDATED, state)],
                has_begun: false,
                exists: false,
                ready: String::new(),
                degraded: Vec::new(),
                paused: None,
            })
        };
        Report { progress, resources: old.provisioned_resource_set, extensions: old.extensions }
    }
}
