//! The status of a request, as a function of what was observed and of how the writes ended.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_types::conditions::{self, focom as stage, focom::reason};
use o2ims_types::focom::v1alpha1::focom_provisioning_request::{
    FocomProvisioningRequestStatus, Phase, RemoteProvisioningStatus,
};
use o2ims_types::names::focom;
use o2ims_types::{FocomProvisioningRequest, ProvisioningState};
use operator_kit::controller::Outcome;
use operator_kit::write::status::{self, ConditionStatus, ConditionUpdate};

use super::observe::{Observed, RemoteState};
use super::phase::{PhaseAssessment, assess_phase, redacted_reason};
use super::validate::Rejection;
use super::write_error::WriteError;
use super::{annotations, plan};
use crate::o_cloud::connection::ConnectionState;
use crate::o_cloud::remote_request::{MESSAGE_MAX, RemoteRequest, truncate};

/// After this time a ProvisioningRequest that no watch shows is looked for again.
pub const RECHECK_INTERVAL: Duration = Duration::from_secs(300);
/// How long the message of a refusal by the O-Cloud is kept, in seconds. A refused write is tried again every five
/// minutes.
const REFUSAL_SECONDS: i64 = 200;

/// The status to write, and how the reconcile ends. `write_error`: why a write failed, if one did.
pub fn assess(
    request: &FocomProvisioningRequest,
    observed: &Observed,
    verdict: &Result<(), Rejection>,
    write_error: Option<&WriteError>,
    now: Timestamp,
) -> (FocomProvisioningRequestStatus, Outcome) {
    let remote = observed.remote.as_ref();
    let mut assessment = assess_phase(request, observed, verdict, write_error);
    let old = request.status.clone().unwrap_or_default();
    if assessment.reason == reason::REFUSED && was_just_refused(&old, request, now) {
        // Each refusal may have another text. A new text in the status would trigger a reconcile, and so the next try,
        // at once.
        assessment.message.clone_from(&old.message);
    }
    assessment.message = truncate(&assessment.message, 2 * MESSAGE_MAX);
    let mut new = old.clone();
    assessment.phase.name().clone_into(&mut new.phase);
    new.message.clone_from(&assessment.message);
    if plan::awaits_target(request, observed, verdict) {
        set_next_target(&mut new, remote);
    }
    set_target(&mut new, request, remote, &assessment);
    set_remote_state(&mut new, request, remote, &assessment);
    new.observed_generation = request.metadata.generation;
    set_conditions(&mut new, request, verdict, remote, &assessment, now);
    if new != old {
        new.last_updated = Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
    }
    (new, outcome(assessment))
}

fn outcome(assessment: PhaseAssessment) -> Outcome {
    match (assessment.ready, assessment.stalled) {
        (true, _) => Outcome::Done,
        (false, true) => Outcome::blocked(assessment.message),
        // No watch shows a ProvisioningRequest that reappears without its labels.
        (false, false) if assessment.reason == reason::REMOTE_GONE => Outcome::progressing_for(RECHECK_INTERVAL),
        (false, false) => Outcome::progressing(),
    }
}

/// Sets the O-Cloud that the request is about to be sent to.
fn set_next_target(new: &mut FocomProvisioningRequestStatus, remote: Option<&RemoteState>) {
    if new.sent_to.is_some() {
        // What is known is of the former O-Cloud.
        (new.remote_name, new.provisioning_status, new.provisioned_resource_set) = (None, None, None);
    }
    new.sent_to = remote.and_then(|remote| remote.connection.fingerprint.clone());
}

/// Sets the O-Cloud that the request was sent to, and the name on it.
fn set_target(
    new: &mut FocomProvisioningRequestStatus,
    request: &FocomProvisioningRequest,
    remote: Option<&RemoteState>,
    assessment: &PhaseAssessment,
) {
    let fingerprint = remote.and_then(|remote| remote.connection.fingerprint.clone());
    let own = remote.and_then(RemoteState::own);
    // While the O-Cloud does not answer, the phase is the last one: nothing is sent, and the OCloud may lead to another
    // O-Cloud now.
    let is_creating = assessment.phase == Phase::Creating && remote.is_some_and(|remote| remote.ready().is_some());
    if own.is_some() || is_creating && fingerprint.is_some() {
        new.sent_to = fingerprint;
        let (namespace, id) = request.o_cloud();
        new.sent_to_o_cloud = Some(format!("{namespace}/{id}"));
    }
    if let Some(own) = own {
        new.remote_name = Some(own.name_any());
    } else if is_creating {
        new.remote_name = Some(focom::remote_request(&request.name_any()));
    }
}

/// Copies the state of the ProvisioningRequest. The last known state is kept while the O-Cloud does not answer.
fn set_remote_state(
    new: &mut FocomProvisioningRequestStatus,
    request: &FocomProvisioningRequest,
    remote: Option<&RemoteState>,
    assessment: &PhaseAssessment,
) {
    let own = remote.and_then(RemoteState::own);
    if let Some(own) = own {
        let status = own.status.clone();
        new.provisioning_status = status.provisioning_status;
        new.provisioned_resource_set = status.provisioned_resource_set;
    }
    let deleting = ProvisioningState::Deleting.to_string();
    let is_reported = new.provisioning_status.as_ref().is_some_and(|status| status.provisioning_state == deleting);
    if is_being_deleted(request, own, assessment) && !is_reported {
        new.provisioning_status =
            Some(RemoteProvisioningStatus { provisioning_state: deleting, ..RemoteProvisioningStatus::default() });
    }
}

/// Whether the O-Cloud has accepted a deletion of the ProvisioningRequest. The operator there may not report it before
/// the object is deleted, and an object whose deletion was not seen counts as gone.
fn is_being_deleted(
    request: &FocomProvisioningRequest,
    own: Option<&RemoteRequest>,
    assessment: &PhaseAssessment,
) -> bool {
    let by_request = assessment.reason == reason::DELETING && !annotations::orphans_remote(request);
    by_request || own.is_some_and(|own| own.metadata.deletion_timestamp.is_some())
}

/// Whether the status has a refusal of the present generation that is younger than [`REFUSAL_SECONDS`].
fn was_just_refused(old: &FocomProvisioningRequestStatus, request: &FocomProvisioningRequest, now: Timestamp) -> bool {
    let ready = status::find(&old.conditions, conditions::READY);
    let age = old.last_updated.as_ref().map(|Time(at)| now.as_second() - at.as_second());
    old.observed_generation == request.metadata.generation
        && ready.is_some_and(|ready| ready.reason == reason::REFUSED)
        && age.is_some_and(|age| age < REFUSAL_SECONDS)
}

fn set_conditions(
    new: &mut FocomProvisioningRequestStatus,
    request: &FocomProvisioningRequest,
    verdict: &Result<(), Rejection>,
    remote: Option<&RemoteState>,
    assessment: &PhaseAssessment,
    now: Timestamp,
) {
    let observed_generation = request.metadata.generation;
    let mut set = |type_, (status, reason, message): (ConditionStatus, &'static str, String)| {
        let observation = ConditionUpdate { type_, status, reason, message, observed_generation };
        status::set(&mut new.conditions, observation, now);
    };
    let ready = match (assessment.ready, assessment.is_remote_state_known) {
        (true, _) => ConditionStatus::True,
        (false, true) => ConditionStatus::False,
        (false, false) => ConditionStatus::Unknown,
    };
    set(conditions::READY, (ready, assessment.reason, assessment.message.clone()));
    let active = |is_active: bool| {
        if is_active {
            (ConditionStatus::True, assessment.reason, assessment.message.clone())
        } else {
            (ConditionStatus::False, reason::IDLE, String::new())
        }
    };
    set(conditions::RECONCILING, active(!assessment.ready && !assessment.stalled));
    set(conditions::STALLED, active(assessment.stalled));
    if request.metadata.deletion_timestamp.is_some() {
        // The other stages stay as they were before the deletion.
        set(stage::SYNCED, (ConditionStatus::Unknown, assessment.reason, String::new()));
        return;
    }
    set(stage::VALIDATED, validated(verdict));
    set(stage::O_CLOUD_AVAILABLE, available(request, remote));
    set(stage::SYNCED, synced(verdict, assessment));
}

fn validated(verdict: &Result<(), Rejection>) -> (ConditionStatus, &'static str, String) {
    match verdict {
        Ok(()) => (ConditionStatus::True, reason::SUCCEEDED, String::new()),
        Err(rejection) => (ConditionStatus::False, rejection.reason, rejection.message.clone()),
    }
}

fn available(
    request: &FocomProvisioningRequest,
    remote: Option<&RemoteState>,
) -> (ConditionStatus, &'static str, String) {
    match remote.map(|remote| &remote.connection.state) {
        Some(ConnectionState::Ready(_)) => (ConditionStatus::True, reason::SUCCEEDED, String::new()),
        Some(ConnectionState::Failed(error)) => (ConditionStatus::False, error.reason, redacted_reason(request, error)),
        Some(ConnectionState::Connecting) => (ConditionStatus::Unknown, reason::CONNECTING, String::new()),
        None => (ConditionStatus::Unknown, reason::WAITING, String::new()),
    }
}

fn synced(verdict: &Result<(), Rejection>, assessment: &PhaseAssessment) -> (ConditionStatus, &'static str, String) {
    match (assessment.phase, assessment.reason) {
        _ if !assessment.is_remote_state_known => {
            (ConditionStatus::Unknown, assessment.reason, assessment.message.clone())
        }
        (Phase::Synced, _) | (_, reason::REMOTE_FAILED) => (ConditionStatus::True, reason::SUCCEEDED, String::new()),
        (Phase::Creating, _) => (ConditionStatus::False, reason::IN_PROGRESS, assessment.message.clone()),
        _ if verdict.is_err() => (ConditionStatus::Unknown, reason::WAITING, String::new()),
        (_, why) => (ConditionStatus::False, why, assessment.message.clone()),
    }
}

/// Reason of the condition `Ready`.
pub fn ready_reason(status: &FocomProvisioningRequestStatus) -> &str {
    status::find(&status.conditions, conditions::READY).map_or("", |ready| ready.reason.as_str())
}
