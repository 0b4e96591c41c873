//! The provisioner, as the path of a request drives it.

use std::sync::Arc;

use cluster_api::Kind;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_types::{ProvisioningRequest, rules};
use operator_kit::controller::Outcome;
use tokio::time::Instant;

use super::contention::Locks;
use super::desired::DesiredCluster;
use super::observe::observe;
use super::observed::Observed;
use super::plan::plan;
use super::report::report;
use super::validate::validate;
use crate::caches::{Caches, version_of};
use crate::expectations::Write;
use crate::provisioner::interface::{Admission, Provisioner};
use crate::provisioner::report::{Rejection, Report};
use crate::provisioner::step::Step;
use crate::request::has_finalizer;

/// Cluster API with BYOH.
pub struct Byoh {
    /// The caches.
    pub caches: Caches,
    /// The locks on cluster names and endpoints.
    pub locks: Arc<Locks>,
}

impl Provisioner for Byoh {
    type Observed = Observed;
    type Desired = DesiredCluster;

    fn name(&self) -> &'static str {
        rules::BYOH
    }

    fn observe(&self, request: &ProvisioningRequest) -> Observed {
        Observed { now: Timestamp::now(), ..observe(&self.caches, request) }
    }

    fn owner_uid<'a>(&self, observed: &'a Observed) -> &'a str {
        &observed.uid
    }

    fn shows(&self, write: &Write, request: &ProvisioningRequest, observed: &Observed) -> bool {
        match write {
            Write::Finalizer => has_finalizer(request),
            Write::FinalizerRemoval => !has_finalizer(request),
            Write::Status(version) => version_of(request) >= *version,
            Write::Object { kind: Kind::Machine, name, version } => {
                let mut machines = observed.machines.iter();
                machines
                    .find(|machine| machine.name_any() == *name)
                    .is_none_or(|machine| version_of(machine.as_ref()) >= *version)
            }
            Write::Object { kind, name, version } => {
                observed.owned.get(&(*kind, name.clone())).is_some_and(|object| object.version >= *version)
            }
            Write::Host { name, version } => {
                let host = self.caches.hosts.get(&request.namespace().unwrap_or_default(), name);
                // A host that is gone will not show anything.
                host.is_none_or(|host| version_of(host.as_ref()) >= *version)
            }
            Write::Deletion { kind, name, uid } => {
                observed.owned.get(&(*kind, name.clone())).is_none_or(|object| object.deleting || object.uid != *uid)
            }
        }
    }

    fn admit(
        &self,
        request: &ProvisioningRequest,
        observed: &mut Observed,
        now: Instant,
    ) -> Result<Admission<DesiredCluster>, Outcome> {
        let mut verdict = validate(request, observed);
        let can_be_carried_out = verdict.is_ok() && observed.missing_providers.is_empty();
        let standing =
            self.locks.acquire(request, observed, can_be_carried_out, &self.caches, now).ok_or(Outcome::Done)?;
        if standing.contention.is_some() {
            observed.contention.clone_from(&standing.contention);
            verdict = validate(request, observed);
        }
        Ok(Admission { verdict, recheck: standing.recheck, guard: Box::new(standing) })
    }

    fn plan(
        &self,
        request: &ProvisioningRequest,
        verdict: &Result<DesiredCluster, Rejection>,
        observed: &Observed,
    ) -> Vec<Step> {
        plan(request, verdict, observed)
    }

    fn report(
        &self,
        request: &ProvisioningRequest,
        verdict: &Result<DesiredCluster, Rejection>,
        observed: &Observed,
    ) -> Report {
        report(request, verdict, observed)
    }

    fn is_engaged(&self, observed: &Observed) -> bool {
        !observed.owned.is_empty() || !observed.machines.is_empty() || observed.held().next().is_some()
    }

    fn forget(&self, uid: &str, now: Instant) {
        self.locks.forget(uid, now);
    }
}
