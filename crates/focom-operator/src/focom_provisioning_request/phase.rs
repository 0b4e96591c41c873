//! The phase of a request, with reason and message, as a function of what was observed and of how the writes ended.

use kube::ResourceExt as _;
use o2ims_types::conditions::focom::reason;
use o2ims_types::focom::v1alpha1::focom_provisioning_request::{Phase, RemoteProvisioningStatus};
use o2ims_types::names::{self, focom};
use o2ims_types::{FocomProvisioningRequest, ProvisioningState};

use super::adopt::{self, SourceGeneration};
use super::manifest::manifest;
use super::observe::{Observed, Relation, RemoteState};
use super::validate::Rejection;
use super::write_error::WriteError;
use super::{annotations, plan};
use crate::o_cloud::connection::ConnectionState;
use crate::o_cloud::error::ConnectionError;
use crate::o_cloud::remote_request::{RemoteRequest, STATE_MAX, truncate};

/// Reasons of a request that must not, or not yet, adopt a ProvisioningRequest that exists.
pub const ADOPTION_REASONS: [&str; 3] = [reason::ADOPTION_DRY_RUN, reason::ADOPTION_REQUIRED, reason::NAME_TAKEN];

/// The phase of a request, and why.
pub struct PhaseAssessment {
    /// The phase.
    pub phase: Phase,
    /// Reason of the conditions.
    pub reason: &'static str,
    /// What the operator does, what it waits for, or what is wrong and what to do about it.
    pub message: String,
    /// Whether a user has to act.
    pub stalled: bool,
    /// Whether the state on the O-Cloud is known now.
    pub is_remote_state_known: bool,
    /// Whether the O-Cloud has fulfilled the request.
    pub ready: bool,
}

impl PhaseAssessment {
    fn new(phase: Phase, reason: &'static str, message: impl Into<String>) -> Self {
        Self { phase, reason, message: message.into(), stalled: false, is_remote_state_known: true, ready: false }
    }

    fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        Self { stalled: true, ..Self::new(Phase::Failed, reason, message) }
    }

    /// An assessment while the O-Cloud does not answer, so that its state is not known.
    fn unknown(phase: Phase, reason: &'static str, message: impl Into<String>) -> Self {
        Self { is_remote_state_known: false, ..Self::new(phase, reason, message) }
    }
}

/// The phase of the request. `write_error`: why a write failed, if one did.
pub fn assess_phase(
    request: &FocomProvisioningRequest,
    observed: &Observed,
    verdict: &Result<(), Rejection>,
    write_error: Option<&WriteError>,
) -> PhaseAssessment {
    if request.metadata.deletion_timestamp.is_some() {
        return assess_deletion(request, observed, verdict, write_error);
    }
    if let Err(rejection) = verdict {
        let rest = if request.was_sent() { "; the ProvisioningRequest on the O-Cloud is not changed" } else { "" };
        return PhaseAssessment::stalled(rejection.reason, format!("{}{rest}", rejection.message));
    }
    let remote = match &observed.remote {
        Some(remote) if remote.ready().is_some() => remote,
        remote => return assess_connection(request, remote.as_ref()),
    };
    if let Some(error) = write_error {
        return assess_write_error(request, error);
    }
    if remote.target_changed(request) && !annotations::abandons_previous_target(request) {
        return PhaseAssessment::stalled(reason::O_CLOUD_CHANGED, target_changed_message(request));
    }
    if let Some(assessment) = assess_adoption(request, remote) {
        return assessment;
    }
    match remote.own() {
        Some(own) if own.metadata.deletion_timestamp.is_some() => PhaseAssessment::new(
            Phase::Creating,
            reason::IN_PROGRESS,
            format!(
                "ProvisioningRequest {} is being deleted on O-Cloud {}, although this request is not; it is created again when its deletion \
                 is finished",
                own.name_any(),
                o_cloud(request)
            ),
        ),
        Some(own) => assess_synced(request, own),
        None => assess_absent(request, plan::awaits_target(request, observed, verdict)),
    }
}

/// The O-Cloud does not answer, or has not answered yet.
fn assess_connection(request: &FocomProvisioningRequest, remote: Option<&RemoteState>) -> PhaseAssessment {
    if let Some(ConnectionState::Failed(error)) = remote.map(|remote| &remote.connection.state) {
        let message = format!("waiting for O-Cloud {}: {}", o_cloud(request), redacted_reason(request, error));
        return PhaseAssessment::unknown(last_phase_or_pending(request), error.reason, message);
    }
    let message = format!("connecting to O-Cloud {}", o_cloud(request));
    PhaseAssessment::new(Phase::Pending, reason::CONNECTING, message)
}

/// A write failed.
fn assess_write_error(request: &FocomProvisioningRequest, error: &WriteError) -> PhaseAssessment {
    let message = error.error.message();
    if error.reason == reason::ADOPTION_DRY_RUN {
        PhaseAssessment::new(Phase::Pending, error.reason, message)
    } else if error.requires_action {
        PhaseAssessment::stalled(error.reason, message)
    } else {
        PhaseAssessment::new(last_phase_or_pending(request), error.reason, message)
    }
}

/// The ProvisioningRequest with a name that this request uses on the O-Cloud was created for another request, or sent
/// from a later generation of this one.
fn assess_adoption(request: &FocomProvisioningRequest, remote: &RemoteState) -> Option<PhaseAssessment> {
    let (found, relation, ready) = (remote.request.as_deref()?, remote.relation.as_ref()?, remote.ready()?);
    let wanted = manifest(request, ready, &found.name_any());
    if *relation == Relation::Own {
        return match adopt::source_generation(request, &wanted, found) {
            SourceGeneration::NotNewer | SourceGeneration::NewerButEqual => None,
            SourceGeneration::NewerAndDifferent(rejection) => {
                Some(PhaseAssessment::stalled(rejection.reason, rejection.message))
            }
        };
    }
    Some(match adopt::check_adoption(request, &wanted, found, relation) {
        Ok(()) => {
            let message = format!(
                "ProvisioningRequest {} on O-Cloud {} was created for an earlier FocomProvisioningRequest of this name and namespace; this \
                 request adopts it",
                found.name_any(),
                o_cloud(request)
            );
            PhaseAssessment::new(last_phase_or_pending(request), reason::IN_PROGRESS, message)
        }
        Err(rejection) if rejection.reason == reason::ADOPTION_DRY_RUN => {
            PhaseAssessment::new(Phase::Pending, rejection.reason, rejection.message)
        }
        Err(rejection) => PhaseAssessment::stalled(rejection.reason, rejection.message),
    })
}

/// The O-Cloud has no ProvisioningRequest with a name that this request uses there. `awaits_target`: the request is about to be sent.
fn assess_absent(request: &FocomProvisioningRequest, awaits_target: bool) -> PhaseAssessment {
    if request.is_new() || awaits_target {
        let message = format!("O-Cloud {} answers; this request has not been sent to it yet", o_cloud(request));
        return PhaseAssessment::new(Phase::Pending, reason::IN_PROGRESS, message);
    }
    match plan::gone_resource_id(request) {
        Some(id) if !annotations::abandons_previous_target(request) => {
            PhaseAssessment::stalled(reason::REMOTE_GONE, gone_message(request, id))
        }
        _ => PhaseAssessment::new(
            Phase::Creating,
            reason::IN_PROGRESS,
            format!(
                "ProvisioningRequest {} was sent to O-Cloud {}",
                focom::remote_request(&request.name_any()),
                o_cloud(request)
            ),
        ),
    }
}

/// The O-Cloud has the ProvisioningRequest of the request.
fn assess_synced(request: &FocomProvisioningRequest, own: &RemoteRequest) -> PhaseAssessment {
    let RemoteProvisioningStatus { provisioning_state: state, provisioning_message: message, .. } =
        own.status.provisioning_status.clone().unwrap_or_default();
    let message = match (state.is_empty(), message.is_empty()) {
        (true, _) => format!(
            "ProvisioningRequest {} exists on O-Cloud {}; the operator there has not reported a state yet",
            own.name_any(),
            o_cloud(request)
        ),
        (false, true) => {
            format!("O-Cloud {} reports state {state}, without a message", o_cloud(request))
        }
        (false, false) => message,
    };
    let current = own.current_state();
    if current == Some(ProvisioningState::Failed.name()) {
        return PhaseAssessment::stalled(reason::REMOTE_FAILED, message);
    }
    let ready = current == Some(ProvisioningState::Fulfilled.name());
    let reason = if ready { reason::SUCCEEDED } else { reason::IN_PROGRESS };
    PhaseAssessment { ready, ..PhaseAssessment::new(Phase::Synced, reason, message) }
}

fn assess_deletion(
    request: &FocomProvisioningRequest,
    observed: &Observed,
    verdict: &Result<(), Rejection>,
    write_error: Option<&WriteError>,
) -> PhaseAssessment {
    let wait = |reason, message: String| PhaseAssessment::new(Phase::Deleting, reason, message);
    let o_cloud = o_cloud(request);
    let hint = abandon_hint();
    if annotations::orphans_remote(request) {
        let message = format!(
            "this request is deleted with --cascade=orphan: its ProvisioningRequest stays on O-Cloud {o_cloud}"
        );
        return wait(reason::DELETING, message);
    }
    let Some(remote) = &observed.remote else {
        return match verdict {
            Err(_) if observed.namespace_terminating && request.o_cloud().0 == observed.namespace => {
                let message = format!(
                    "namespace {} is being deleted, and OCloud {o_cloud} is already deleted, so this operator cannot delete \
                     ProvisioningRequest {} on that O-Cloud: delete it there{hint}",
                    observed.namespace,
                    sent_name(request)
                );
                wait(reason::O_CLOUD_UNKNOWN, message)
            }
            Err(rejection) => wait(rejection.reason, format!("{}{hint}", rejection.message)),
            Ok(()) => wait(reason::CONNECTING, format!("connecting to O-Cloud {o_cloud}")),
        };
    };
    match &remote.connection.state {
        ConnectionState::Failed(error) => {
            let why = redacted_reason(request, error);
            let message = format!("waiting for O-Cloud {o_cloud}: {why}{hint}");
            PhaseAssessment::unknown(Phase::Deleting, error.reason, message)
        }
        ConnectionState::Connecting => wait(reason::CONNECTING, format!("connecting to O-Cloud {o_cloud}")),
        ConnectionState::Ready(_) => {
            let (reason, message) = remote_deletion(request, remote, write_error);
            wait(reason, message)
        }
    }
}

/// Reason and message of a deletion whose O-Cloud answers.
fn remote_deletion(
    request: &FocomProvisioningRequest,
    remote: &RemoteState,
    write_error: Option<&WriteError>,
) -> (&'static str, String) {
    if remote.target_changed(request) {
        return (reason::O_CLOUD_CHANGED, target_changed_message(request));
    }
    if let Some(error) = write_error {
        let hint = if ADOPTION_REASONS.contains(&error.reason) { abandon_hint() } else { String::new() };
        return (error.reason, format!("{}{hint}", error.error.message()));
    }
    let target = plan::deletion_target(request, remote);
    let is_blocked = |found: &RemoteRequest| {
        plan::is_deletion_blocked(request, found) && found.metadata.deletion_timestamp.is_none()
    };
    if let Some(found) = target.filter(|found| is_blocked(found)) {
        return (reason::DELETION_PROTECTED, protected_message(request, found));
    }
    if plan::awaits_gone_request(request, remote) {
        let id = plan::gone_resource_id(request).unwrap_or_default();
        return (reason::REMOTE_GONE, gone_message(request, id));
    }
    let Some(found) = target else {
        return (reason::DELETING, format!("O-Cloud {} has no ProvisioningRequest of this request", o_cloud(request)));
    };
    // Only a message that the O-Cloud wrote after the deletion began is shown.
    let status = found.status.provisioning_status.as_ref().filter(|status| {
        status.provisioning_state == ProvisioningState::Deleting.to_string() && !status.provisioning_message.is_empty()
    });
    let message = match status {
        Some(status) => status.provisioning_message.clone(),
        None => format!("ProvisioningRequest {} is being deleted on O-Cloud {}", found.name_any(), o_cloud(request)),
    };
    (reason::DELETING, message)
}

/// Why `found` is not deleted with the request, and how to have it deleted.
fn protected_message(request: &FocomProvisioningRequest, found: &RemoteRequest) -> String {
    let (name, o_cloud, annotation) = (found.name_any(), o_cloud(request), focom::DELETION_PROTECTION_ANNOTATION);
    if annotations::deletion_protection(request) == Some("true") {
        format!(
            "this request has the annotation {annotation}=true, which forbids the deletion of ProvisioningRequest {name} on O-Cloud \
             {o_cloud}: annotate this request with {annotation}=false to have both deleted"
        )
    } else {
        format!(
            "ProvisioningRequest {name} on O-Cloud {o_cloud} is protected from deletion by its annotation {}=true: annotate this request \
             with {annotation}=false to have it deleted",
            names::DELETION_PROTECTION_ANNOTATION
        )
    }
}

/// How to delete a request that waits for the deletion of its ProvisioningRequest.
fn abandon_hint() -> String {
    format!(
        "; to delete this request without waiting for the ProvisioningRequest, which may then stay on the O-Cloud, annotate this request \
         with {}=true",
        focom::ABANDON_ANNOTATION
    )
}

/// The ProvisioningRequest is gone, and its deletion was not seen. `id` is the UID of its Cluster, or, where it had none
/// yet, of its first ByoHost.
fn gone_message(request: &FocomProvisioningRequest, id: &str) -> String {
    let gone = format!(
        "ProvisioningRequest {} is gone from O-Cloud {}, and was not seen being deleted. Possible causes: it was deleted while the O-Cloud \
         did not answer, its finalizer was removed by hand, or the O-Cloud was restored from a backup. Its hosts may still run the \
         cluster.",
        sent_name(request),
        o_cloud(request)
    );
    let annotate =
        format!("kubectl annotate fpr {} -n {}", request.name_any(), request.namespace().unwrap_or_default());
    if request.metadata.deletion_timestamp.is_some() {
        return format!(
            "{gone} The deletion of this request waits: if the ProvisioningRequest reappears on the O-Cloud, it is deleted, and then this \
             request. If it does not, make sure first that no node of the cluster runs on its hosts. Then delete this request without the \
             ProvisioningRequest: {annotate} {}=true --overwrite",
            focom::ABANDON_ANNOTATION
        );
    }
    let send_again = focom::SEND_AGAIN_ANNOTATION;
    let other = annotations::send_again(request).filter(|value| *value != id).map(|value| {
        let value = truncate(value, STATE_MAX);
        format!(". The annotation {send_again} of this request names {value:?}, but the id is {id}")
    });
    format!(
        "{gone} This request is not sent again by itself. If the ProvisioningRequest reappears on the O-Cloud, this request continues with \
         it. If it does not, make sure first that the O-Cloud still has the Cluster, which then stays as it runs, or that no node of the \
         cluster runs on its hosts. Then have this request sent again: {annotate} {send_again}={id} --overwrite{}",
        other.unwrap_or_default()
    )
}

fn target_changed_message(request: &FocomProvisioningRequest) -> String {
    let (value, effect) = if request.metadata.deletion_timestamp.is_some() {
        ("true", "delete this request")
    } else {
        let sent_to = request.status.as_ref().and_then(|status| status.sent_to.as_deref());
        (sent_to.unwrap_or_default(), "send this request to the present one")
    };
    let (o_cloud, annotation) = (o_cloud(request), focom::ABANDON_ANNOTATION);
    if !request.was_sent() {
        return format!(
            "OCloud {o_cloud} leads to another O-Cloud than the one that this request was being sent to, and it is not known whether that \
             one has its ProvisioningRequest: put the former kubeconfig back; or annotate this request with {annotation}={value} to leave \
             on the former O-Cloud what may be there, and {effect}"
        );
    }
    format!(
        "OCloud {o_cloud} leads to another O-Cloud than the one that this request was sent to, and that other O-Cloud has no \
         ProvisioningRequest of this request: put the former kubeconfig back; or annotate this request with {annotation}={value} to leave \
         its ProvisioningRequest on the former O-Cloud and {effect}"
    )
}

/// Why the O-Cloud cannot be used. For a request in another namespace than the OCloud: only the reason, not the message.
pub fn redacted_reason(request: &FocomProvisioningRequest, error: &ConnectionError) -> String {
    if request.namespace().as_deref() == Some(request.o_cloud().0) {
        error.message.clone()
    } else {
        format!("it cannot be used now ({}); the status of OCloud {} says why", error.reason, o_cloud(request))
    }
}

fn o_cloud(request: &FocomProvisioningRequest) -> String {
    let (namespace, id) = request.o_cloud();
    format!("{namespace}/{id}")
}

/// The name of the ProvisioningRequest that the request was sent as.
fn sent_name(request: &FocomProvisioningRequest) -> String {
    let name = request.status.as_ref().and_then(|status| status.remote_name.clone());
    name.unwrap_or_else(|| focom::remote_request(&request.name_any()))
}

/// The phase that was last written, or `Creating` if that is none of the three below; `Pending` for a request that was
/// not sent.
fn last_phase_or_pending(request: &FocomProvisioningRequest) -> Phase {
    if !request.was_sent() {
        return Phase::Pending;
    }
    let last = request.status.as_ref().map(|status| status.phase.as_str()).unwrap_or_default();
    [Phase::Creating, Phase::Synced, Phase::Failed]
        .into_iter()
        .find(|phase| phase.name() == last)
        .unwrap_or(Phase::Creating)
}
