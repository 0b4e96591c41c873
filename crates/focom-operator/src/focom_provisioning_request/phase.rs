//! The phase of a request, with reason and message, as a function of what was observed and of how the writes ended.

use kube::ResourceExt as _;
use o2ims_types::conditions::focom::reason;
use o2ims_types::focom::v1alpha1::focom_provisioning_request::{Phase, RemoteProvisioningStatus};
use o2ims_types::names::focom;
use o2ims_types::{FocomProvisioningRequest, ProvisioningState};

use super::adopt::{self, SourceGeneration};
use super::manifest::manifest;
use super::observe::{Observed, Relation, RemoteState};
use super::validate::Refusal;
use super::write_error::WriteError;
use super::{annotations, plan};
use crate::o_cloud::connection::ConnectionState;
use crate::o_cloud::error::ConnectionError;
use crate::o_cloud::remote_request::RemoteRequest;

/// Longest message of an O-Cloud that is copied to the SMO, in characters.
pub const MESSAGE_MAX: usize = 2_000;
/// Longest name of a state that is copied, in characters.
pub const STATE_MAX: usize = 63;
/// Reasons that a request cannot have an existing ProvisioningRequest.
pub const ADOPTION_REASONS: [&str; 3] = [reason::ADOPTION_DRY_RUN, reason::ADOPTION_REQUIRED, reason::NAME_TAKEN];

/// The phase of a request, and why.
pub struct PhaseAssessment {
    /// The phase.
    pub phase: Phase,
    /// Reason of the conditions.
    pub reason: &'static str,
    /// What happens, what is waited for, or what is wrong and what to do about it.
    pub message: String,
    /// Whether somebody has to act.
    pub stalled: bool,
    /// Whether the O-Cloud's state is known now.
    pub current: bool,
    /// Whether the O-Cloud has fulfilled the request.
    pub ready: bool,
}

impl PhaseAssessment {
    fn waiting(phase: Phase, reason: &'static str, message: impl Into<String>) -> Self {
        Self { phase, reason, message: message.into(), stalled: false, current: true, ready: false }
    }

    fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        Self { stalled: true, ..Self::waiting(Phase::Failed, reason, message) }
    }

    /// While the O-Cloud cannot be asked.
    fn unknown(phase: Phase, reason: &'static str, message: impl Into<String>) -> Self {
        Self { current: false, ..Self::waiting(phase, reason, message) }
    }
}

/// The phase of the request. `write_error` is the write that was not done, if there was one.
pub fn assess_phase(
    request: &FocomProvisioningRequest,
    observed: &Observed,
    verdict: &Result<(), Refusal>,
    write_error: Option<&WriteError>,
) -> PhaseAssessment {
    if request.metadata.deletion_timestamp.is_some() {
        return assess_deletion(request, observed, verdict, write_error);
    }
    if let Err(refusal) = verdict {
        let rest = if request.was_sent() { "; the O-Cloud has the request as it was sent before" } else { "" };
        return PhaseAssessment::stalled(refusal.reason, format!("{}{rest}", refusal.message));
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
        Some(own) if own.metadata.deletion_timestamp.is_some() => PhaseAssessment::waiting(
            Phase::Creating,
            reason::IN_PROGRESS,
            "the ProvisioningRequest was deleted on the O-Cloud; it is made anew when it is gone",
        ),
        Some(own) => assess_synced(own),
        None => assess_absent(request),
    }
}

/// The O-Cloud does not answer, or has not answered yet.
fn assess_connection(request: &FocomProvisioningRequest, remote: Option<&RemoteState>) -> PhaseAssessment {
    if let Some(ConnectionState::Failed(error)) = remote.map(|remote| &remote.connection.state) {
        let message = format!("waiting for O-Cloud {}: {}", o_cloud(request), redacted_reason(request, error));
        return PhaseAssessment::unknown(last_phase_or_pending(request), error.reason, message);
    }
    let message = format!("connecting to O-Cloud {}", o_cloud(request));
    PhaseAssessment::waiting(Phase::Pending, reason::CONNECTING, message)
}

/// A write was not done.
fn assess_write_error(request: &FocomProvisioningRequest, error: &WriteError) -> PhaseAssessment {
    let message = error.error.message();
    if error.reason == reason::ADOPTION_DRY_RUN {
        PhaseAssessment::waiting(Phase::Pending, error.reason, message)
    } else if error.requires_action {
        PhaseAssessment::stalled(error.reason, message)
    } else {
        PhaseAssessment::waiting(last_phase_or_pending(request), error.reason, message)
    }
}

/// The ProvisioningRequest of the request's name was made for another request, or for a later generation of this one.
fn assess_adoption(request: &FocomProvisioningRequest, remote: &RemoteState) -> Option<PhaseAssessment> {
    let (found, relation, ready) = (remote.request.as_deref()?, remote.relation.as_ref()?, remote.ready()?);
    let wanted = manifest(request, ready, &found.name_any());
    if *relation == Relation::Own {
        return match adopt::source_generation(request, &wanted, found) {
            SourceGeneration::NotNewer | SourceGeneration::NewerButEqual => None,
            SourceGeneration::NewerAndDifferent(refusal) => {
                Some(PhaseAssessment::stalled(refusal.reason, refusal.message))
            }
        };
    }
    Some(match adopt::check_adoption(request, &wanted, found, relation) {
        Ok(()) => {
            let message = format!(
                "ProvisioningRequest {} on O-Cloud {} was made for an earlier object of this name, and becomes this request's",
                found.name_any(),
                o_cloud(request)
            );
            PhaseAssessment::waiting(last_phase_or_pending(request), reason::IN_PROGRESS, message)
        }
        Err(refusal) if refusal.reason == reason::ADOPTION_DRY_RUN => {
            PhaseAssessment::waiting(Phase::Pending, refusal.reason, refusal.message)
        }
        Err(refusal) => PhaseAssessment::stalled(refusal.reason, refusal.message),
    })
}

/// The O-Cloud has no ProvisioningRequest of the request's name.
fn assess_absent(request: &FocomProvisioningRequest) -> PhaseAssessment {
    if request.status.is_none() {
        let message = format!("O-Cloud {} answers; the request is about to be sent", o_cloud(request));
        return PhaseAssessment::waiting(Phase::Pending, reason::IN_PROGRESS, message);
    }
    match plan::gone_cluster_id(request) {
        Some(id) if !annotations::abandons_previous_target(request) => {
            PhaseAssessment::stalled(reason::REMOTE_GONE, gone_message(request, id))
        }
        _ => PhaseAssessment::waiting(
            Phase::Creating,
            reason::IN_PROGRESS,
            "the ProvisioningRequest is sent to the O-Cloud",
        ),
    }
}

/// The O-Cloud has the ProvisioningRequest of the request.
fn assess_synced(own: &RemoteRequest) -> PhaseAssessment {
    let status = own.status.clone();
    let RemoteProvisioningStatus { provisioning_state: state, provisioning_message: message, .. } =
        status.provisioning_status.unwrap_or_default();
    let message = match (state.is_empty(), message.is_empty()) {
        (true, _) => "the O-Cloud has the request and has not looked at it yet".to_owned(),
        (false, true) => format!("the O-Cloud says: {}", truncate(&state, STATE_MAX)),
        (false, false) => truncate(&message, MESSAGE_MAX),
    };
    // A status without observedGeneration is assumed to be of now.
    let is_current =
        status.observed_generation.is_none_or(|seen| own.metadata.generation.is_none_or(|present| seen >= present));
    if is_current && state == ProvisioningState::Failed.to_string() {
        return PhaseAssessment::stalled(reason::REMOTE_FAILED, message);
    }
    let ready = is_current && state == ProvisioningState::Fulfilled.to_string();
    let reason = if ready { reason::SUCCEEDED } else { reason::IN_PROGRESS };
    PhaseAssessment { ready, ..PhaseAssessment::waiting(Phase::Synced, reason, message) }
}

fn assess_deletion(
    request: &FocomProvisioningRequest,
    observed: &Observed,
    verdict: &Result<(), Refusal>,
    write_error: Option<&WriteError>,
) -> PhaseAssessment {
    let wait = |reason, message: String| PhaseAssessment::waiting(Phase::Deleting, reason, message);
    let o_cloud = o_cloud(request);
    let give_up = give_up();
    if annotations::orphans_remote(request) {
        let message = "the request is let go (--cascade=orphan), and its ProvisioningRequest stays on the O-Cloud";
        return wait(reason::DELETING, message.to_owned());
    }
    let Some(remote) = &observed.remote else {
        return match verdict {
            Err(_) if observed.namespace_terminating && request.o_cloud().0 == observed.namespace => {
                let message = format!(
                    "namespace {} is being deleted, and OCloud {o_cloud} is gone with it: ProvisioningRequest {} stays on that O-Cloud \
                     until it is deleted there{give_up}",
                    observed.namespace,
                    focom::remote_request(&request.name_any())
                );
                wait(reason::O_CLOUD_UNKNOWN, message)
            }
            Err(refusal) => wait(refusal.reason, format!("{}{give_up}", refusal.message)),
            Ok(()) => wait(reason::CONNECTING, format!("connecting to O-Cloud {o_cloud}")),
        };
    };
    match &remote.connection.state {
        ConnectionState::Failed(error) => {
            let why = redacted_reason(request, error);
            let message = format!("waiting for O-Cloud {o_cloud}: {why}{give_up}");
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
        let give_up = if ADOPTION_REASONS.contains(&error.reason) { give_up() } else { String::new() };
        return (error.reason, format!("{}{give_up}", error.error.message()));
    }
    let target = plan::deletion_target(request, remote);
    let is_blocked = |found: &RemoteRequest| {
        plan::is_deletion_blocked(request, found) && found.metadata.deletion_timestamp.is_none()
    };
    if let Some(found) = target.filter(|found| is_blocked(found)) {
        let message = format!(
            "ProvisioningRequest {} on O-Cloud {} is protected from deletion; set {}=false on this request to have it deleted",
            found.name_any(),
            o_cloud(request),
            focom::DELETION_PROTECTION_ANNOTATION
        );
        return (reason::DELETION_PROTECTED, message);
    }
    if plan::awaits_gone_request(request, remote) {
        let id = plan::gone_cluster_id(request).unwrap_or_default();
        return (reason::REMOTE_GONE, gone_message(request, id));
    }
    // A message from before the deletion is about a cluster that is to stay, so it is not repeated.
    let said = target.and_then(|found| found.status.provisioning_status.as_ref()).filter(|said| {
        said.provisioning_state == ProvisioningState::Deleting.to_string() && !said.provisioning_message.is_empty()
    });
    let said = said.map_or("the O-Cloud takes the request back", |said| &said.provisioning_message);
    (reason::DELETING, said.to_owned())
}

/// How to let a request go that waits for its deletion on the O-Cloud.
fn give_up() -> String {
    format!(
        "; to let the request go and leave on the O-Cloud what is there, annotate it with {}=true",
        focom::ABANDON_ANNOTATION
    )
}

/// The ProvisioningRequest is gone, and its deletion was not seen. `id` is that of its cluster.
fn gone_message(request: &FocomProvisioningRequest, id: &str) -> String {
    let deleted = request.metadata.deletion_timestamp.is_some();
    let (meanwhile, for_good, annotation, value) = if deleted {
        (
            "This request waits for it: if it comes back there, it is deleted, and this request goes",
            "If it is gone for good, see that nothing runs on its hosts, and let this request go",
            focom::ABANDON_ANNOTATION,
            "true",
        )
    } else {
        (
            "Nothing is sent. If it comes back there, it is this request's again",
            "If it is gone for good, have it sent again; where that O-Cloud still has its Cluster, it is taken back as it runs, and where not, \
             see first that nothing runs on its hosts",
            focom::SEND_AGAIN_ANNOTATION,
            id,
        )
    };
    let other = annotations::send_again(request).filter(|said| !deleted && *said != id).map(|said| {
        format!(
            ". The annotation {} of this request names {:?}, which is not the id of what is gone",
            focom::SEND_AGAIN_ANNOTATION,
            truncate(said, STATE_MAX)
        )
    });
    format!(
        "ProvisioningRequest {} is gone from O-Cloud {}, and was not seen being deleted: that happens while an O-Cloud does not answer, when \
         somebody takes a finalizer off, and when an O-Cloud is restored; its hosts may run the cluster all the same. {meanwhile}. \
         {for_good}: \
         kubectl annotate fpr {} -n {} {annotation}={value} --overwrite{}",
        request.status.as_ref().and_then(|status| status.remote_name.as_deref()).unwrap_or_default(),
        o_cloud(request),
        request.name_any(),
        request.namespace().unwrap_or_default(),
        other.unwrap_or_default()
    )
}

fn target_changed_message(request: &FocomProvisioningRequest) -> String {
    format!(
        "OCloud {} leads to another O-Cloud than the one that the request was sent to, and its ProvisioningRequest is not there: put \
         the former kubeconfig back, or annotate the request with {}={} to leave there what is there",
        o_cloud(request),
        focom::ABANDON_ANNOTATION,
        if request.metadata.deletion_timestamp.is_some() {
            "true"
        } else {
            request.status.as_ref().and_then(|status| status.sent_to.as_deref()).unwrap_or_default()
        }
    )
}

/// Why the O-Cloud cannot be used. A request of another namespace than the OCloud's is told the reason only.
pub fn redacted_reason(request: &FocomProvisioningRequest, error: &ConnectionError) -> String {
    if request.namespace().as_deref() == Some(request.o_cloud().0) {
        error.message.clone()
    } else {
        format!("it cannot be used now ({}); its OCloud says why", error.reason)
    }
}

/// At most `max` characters of a text.
pub fn truncate(text: &str, max: usize) -> String {
    text.chars().take(max).collect()
}

fn o_cloud(request: &FocomProvisioningRequest) -> String {
    let (namespace, id) = request.o_cloud();
    format!("{namespace}/{id}")
}

/// The phase that was last written, or `Pending` for a request that was not sent.
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
