//! The provisioners that this operator has.

use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::timeouts::Timeouts;
use o2ims_types::{ProvisioningRequest, conditions};
use operator_kit::controller::Outcome;
use tokio::time::Instant;

use super::interface::{AnyProvisioner, Decision};
use super::report::{Deleting, Progress, Provisioning, Rejection, Report, Stage, StageState};
use crate::caches::version_of;
use crate::expectations::{Expectations, Write};
use crate::request::{has_finalizer, is_being_deleted};

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
        if let Some(provisioner) = self.of(request) {
            return provisioner.decide(request, expectations, now);
        }
        let uid = request.uid().unwrap_or_default();
        let is_shown = |write: &Write| !matches!(write, Write::Status(version) if version_of(request) < *version);
        if let Some(patience) = expectations.pending(&uid, is_shown, now) {
            return Err(Outcome::Progressing { recheck: Some(patience) });
        }
        self.forget(&uid, now);
        Ok(Decision::none(uid, self.unknown(request)))
    }

    /// The provisioner that the request names. If that is unknown, and the request has the operator's finalizer: the one that has created
    /// something for it, or any one, which then finds nothing and removes the finalizer.
    fn of(&self, request: &ProvisioningRequest) -> Option<&dyn AnyProvisioner> {
        let name = &request.spec.template_parameters.cluster_provisioner;
        let mut all = self.0.iter().map(AsRef::as_ref);
        let named = all.clone().find(|provisioner| provisioner.name() == name);
        if named.is_some() || !has_finalizer(request) {
            return named;
        }
        all.clone().find(|provisioner| provisioner.is_engaged(request)).or_else(|| all.next())
    }

    /// The request with this UID is gone.
    pub fn forget(&self, uid: &str, now: Instant) {
        for provisioner in &self.0 {
            provisioner.forget(uid, now);
        }
    }

    /// The report of a request of an unknown provisioner, which is rejected before anything is created for it.
    fn unknown(&self, request: &ProvisioningRequest) -> Report {
        let name = &request.spec.template_parameters.cluster_provisioner;
        let rejection = Rejection::unknown_provisioner(name, self.0.iter().map(|provisioner| provisioner.name()));
        let old = request.status.clone().unwrap_or_default();
        let progress = if is_being_deleted(request) {
            Progress::Deleting(Deleting {
                message: rejection.message,
                paused: None,
                limit: Timeouts::default().deletion.into(),
                overdue: String::new(),
            })
        } else {
            let state = StageState::blocked(&rejection);
            Progress::Provisioning(Provisioning {
                stages: vec![Stage::new(conditions::VALIDATED, state)],
                has_begun: false,
                exists: false,
                ready: String::new(),
                degraded: Vec::new(),
                upcoming: Vec::new(),
                certificates: None,
                paused: None,
            })
        };
        Report { progress, resources: old.provisioned_resource_set, extensions: old.extensions }
    }
}
