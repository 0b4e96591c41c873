//! What a user is told, as a function of what was observed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use o2ims_types::conditions::{self, focom as stage, focom::reason};
use o2ims_types::focom_provisioning_request::{FocomProvisioningRequestStatus, Phase, RemoteProvisioningStatus};
use o2ims_types::names::focom;
use o2ims_types::{FocomProvisioningRequest, ProvisioningState};
use operator_kit::controller::Outcome;
use operator_kit::write::status::{self, ConditionStatus, ConditionUpdate};

use super::adopt;
use super::observe::{Observed, Relation, Remote};
use super::plan;
use super::validate::Refusal;
use crate::ocloud::connection::{RemoteRequest, RemoteStatus, View};
use crate::ocloud::fault::Fault;

/// Longest message of an O-Cloud that is brought back, in characters.
const MESSAGE_MAX: usize = 2_000;
/// How long the words of a refusal stay: what is refused is tried again every five minutes.
const REFUSAL_SECONDS: i64 = 200;
/// What keeps a request from what another operator has sent for it.
pub const OF_ADOPTION: [&str; 3] = [reason::ADOPTION_DRY_RUN, reason::ADOPTION_REQUIRED, reason::NAME_TAKEN];
/// Longest word for a state.
const STATE_MAX: usize = 63;
/// Most resources of one cluster.
const RESOURCES_MAX: usize = 1_000;

fn cut(text: &str, max: usize) -> String {
    text.chars().take(max).collect()
}

/// Which O-Cloud was looked at.
fn observed_mark(remote: Option<&Remote>) -> Option<String> {
    remote.and_then(|remote| Some(remote.found.connection.as_deref()?.mark().to_owned()))
}

/// What kept a write from being done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What happened, and what to do about it.
    pub message: String,
    /// Whether only a change by somebody helps.
    pub lasting: bool,
}

/// A finding: where the request is, and why.
struct Finding {
    phase: Phase,
    reason: &'static str,
    message: String,
    /// Whether somebody has to act.
    stalled: bool,
    /// Whether the O-Cloud's word is from now.
    current: bool,
    ready: bool,
}

impl Finding {
    fn waiting(phase: Phase, reason: &'static str, message: impl Into<String>) -> Self {
        Self { phase, reason, message: message.into(), stalled: false, current: true, ready: false }
    }

    fn stalled(reason: &'static str, message: impl Into<String>) -> Self {
        Self { stalled: true, ..Self::waiting(Phase::Failed, reason, message) }
    }
}

/// The status to write, and how the reconcile ends.
pub fn assess(
    request: &FocomProvisioningRequest,
    observed: &Observed,
    verdict: &Result<(), Refusal>,
    remote: Option<&Remote>,
    obstacle: Option<&Obstacle>,
    now: Timestamp,
) -> (FocomProvisioningRequestStatus, Outcome) {
    let own = remote.and_then(Remote::own);
    let mut finding = find(request, observed, verdict, remote, own, obstacle);
    let old = request.status.clone().unwrap_or_default();
    if finding.reason == reason::REFUSED && was_just_told(&old, request, now) {
        // A refusal may be worded anew each time; written, it would be seen as a change, and tried again at once.
        finding.message.clone_from(&old.message);
    }
    finding.message = cut(&finding.message, 2 * MESSAGE_MAX);
    let mut new = old.clone();
    finding.phase.name().clone_into(&mut new.phase);
    new.message.clone_from(&finding.message);
    if own.is_some() || finding.phase == Phase::Creating && observed_mark(remote).is_some() {
        new.sent_to = observed_mark(remote);
        let (namespace, id) = request.o_cloud();
        new.sent_to_o_cloud = Some(format!("{namespace}/{id}"));
    }
    if let Some(own) = own {
        new.remote_name = Some(own.name_any());
        let RemoteStatus { provisioning_status, provisioned_resource_set, .. } = own.status.clone();
        new.provisioning_status = provisioning_status.map(|said| RemoteProvisioningStatus {
            provisioning_state: cut(&said.provisioning_state, STATE_MAX),
            provisioning_message: cut(&said.provisioning_message, MESSAGE_MAX),
            ..said
        });
        new.provisioned_resource_set = provisioned_resource_set.map(|mut set| {
            set.o_cloud_infrastructure_resource_ids.truncate(RESOURCES_MAX);
            set
        });
    } else if finding.phase == Phase::Creating {
        new.remote_name = Some(focom::remote_request(&request.name_any()));
    }
    let leaving = ProvisioningState::Deleting.to_string();
    if is_going(request, own, &finding)
        && new.provisioning_status.as_ref().is_none_or(|said| said.provisioning_state != leaving)
    {
        new.provisioning_status =
            Some(RemoteProvisioningStatus { provisioning_state: leaving, ..RemoteProvisioningStatus::default() });
    }
    new.observed_generation = request.metadata.generation;
    set_conditions(&mut new, request, verdict, remote, &finding, now);
    if new != old {
        new.last_updated = Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
    }
    let outcome = match (finding.ready, finding.stalled) {
        (true, _) => Outcome::Done,
        (false, true) => Outcome::blocked(finding.message),
        // One that comes back without the mark by which the cache knows it is not told of.
        (false, false) if finding.reason == reason::REMOTE_GONE => Outcome::progressing_for(super::LOOK_AGAIN),
        (false, false) => Outcome::progressing(),
    };
    (new, outcome)
}

/// Whether the O-Cloud has taken a deletion of the ProvisioningRequest. Its operator may not get to say so before that is gone, and
/// only what was not seen being deleted counts as gone.
fn is_going(request: &FocomProvisioningRequest, own: Option<&RemoteRequest>, finding: &Finding) -> bool {
    let is_taken_back = finding.reason == reason::DELETING && !plan::is_orphaned(request);
    is_taken_back || own.is_some_and(|own| own.metadata.deletion_timestamp.is_some())
}

/// Whether a refusal of the request as it stands has been told since the last try that was due.
fn was_just_told(old: &FocomProvisioningRequestStatus, request: &FocomProvisioningRequest, now: Timestamp) -> bool {
    let told = status::find(&old.conditions, conditions::READY);
    let age = old.last_updated.as_ref().map(|Time(at)| now.as_second() - at.as_second());
    old.observed_generation == request.metadata.generation
        && told.is_some_and(|told| told.reason == reason::REFUSED)
        && age.is_some_and(|age| age < REFUSAL_SECONDS)
}

fn find(
    request: &FocomProvisioningRequest,
    observed: &Observed,
    verdict: &Result<(), Refusal>,
    remote: Option<&Remote>,
    own: Option<&RemoteRequest>,
    obstacle: Option<&Obstacle>,
) -> Finding {
    if request.metadata.deletion_timestamp.is_some() {
        return deleting(request, observed, verdict, remote, obstacle);
    }
    let was_sent = request.was_sent();
    if let Err(refusal) = verdict {
        let rest = if was_sent { "; the O-Cloud has the request as it was sent before" } else { "" };
        return Finding::stalled(refusal.reason, format!("{}{rest}", refusal.message));
    }
    match remote.map(|remote| &remote.found.view) {
        Some(View::Broken(fault)) => {
            let message = format!("waiting for O-Cloud {}: {}", o_cloud(request), words(request, fault));
            let phase = if was_sent { last_phase(request) } else { Phase::Pending };
            return Finding { current: false, ..Finding::waiting(phase, fault.reason, message) };
        }
        Some(View::Open(_)) => {}
        Some(View::Connecting) | None => {
            let message = format!("connecting to O-Cloud {}", o_cloud(request));
            return Finding::waiting(Phase::Pending, reason::CONNECTING, message);
        }
    }
    if let Some(obstacle) = obstacle {
        if obstacle.reason == reason::ADOPTION_DRY_RUN {
            return Finding::waiting(Phase::Pending, obstacle.reason, &obstacle.message);
        }
        if obstacle.lasting {
            return Finding::stalled(obstacle.reason, &obstacle.message);
        }
        let phase = if was_sent { last_phase(request) } else { Phase::Pending };
        return Finding::waiting(phase, obstacle.reason, &obstacle.message);
    }
    if remote.is_some_and(|remote| remote.has_moved(request)) && !plan::leaves(request) {
        return Finding::stalled(reason::O_CLOUD_CHANGED, moved(request));
    }
    if let Some(finding) = not_own(request, observed, remote) {
        return finding;
    }
    match own {
        None if request.status.is_none() => {
            let message = format!("O-Cloud {} answers; the request is about to be sent", o_cloud(request));
            Finding::waiting(Phase::Pending, reason::IN_PROGRESS, message)
        }
        None if plan::gone(request).is_some() && !plan::leaves(request) => {
            Finding::stalled(reason::REMOTE_GONE, gone(request))
        }
        None => {
            Finding::waiting(Phase::Creating, reason::IN_PROGRESS, "the ProvisioningRequest is sent to the O-Cloud")
        }
        Some(own) if own.metadata.deletion_timestamp.is_some() => Finding::waiting(
            Phase::Creating,
            reason::IN_PROGRESS,
            "the ProvisioningRequest was deleted on the O-Cloud; it is made anew when it is gone",
        ),
        Some(own) => synced(own),
    }
}

/// The ProvisioningRequest went, and nobody was seen to delete it.
fn gone(request: &FocomProvisioningRequest) -> String {
    let id = plan::gone(request).unwrap_or_default();
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
    let other = plan::sends_again(request).filter(|said| !deleted && *said != id).map(|said| {
        format!(
            ". The annotation {} of this request names {:?}, which is not the id of what is gone",
            focom::SEND_AGAIN_ANNOTATION,
            cut(said, STATE_MAX)
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

/// What has the request's name on the O-Cloud and is not its own, or not of its state.
fn not_own(request: &FocomProvisioningRequest, observed: &Observed, remote: Option<&Remote>) -> Option<Finding> {
    let remote = remote?;
    let (found, relation, open) = (remote.request.as_deref()?, remote.relation.as_ref()?, remote.open()?);
    let wanted = plan::manifest(request, observed, open, &found.name_any());
    if *relation == Relation::Own {
        let outdated = adopt::outdated(request, &wanted, found).and_then(Result::err);
        return outdated.map(|refusal| Finding::stalled(refusal.reason, refusal.message));
    }
    Some(match adopt::judge(request, &wanted, found, relation) {
        Ok(()) => {
            let message = format!(
                "ProvisioningRequest {} on O-Cloud {} was made for an earlier object of this name, and becomes this request's",
                found.name_any(),
                o_cloud(request)
            );
            let phase = if request.was_sent() { last_phase(request) } else { Phase::Pending };
            Finding::waiting(phase, reason::IN_PROGRESS, message)
        }
        Err(refusal) if refusal.reason == reason::ADOPTION_DRY_RUN => {
            Finding::waiting(Phase::Pending, refusal.reason, refusal.message)
        }
        Err(refusal) => Finding::stalled(refusal.reason, refusal.message),
    })
}

/// The ProvisioningRequest is there.
fn synced(own: &RemoteRequest) -> Finding {
    let status = own.status.clone();
    let RemoteProvisioningStatus { provisioning_state: state, provisioning_message: message, .. } =
        status.provisioning_status.unwrap_or_default();
    let message = match (state.is_empty(), message.is_empty()) {
        (true, _) => "the O-Cloud has the request and has not looked at it yet".to_owned(),
        (false, true) => format!("the O-Cloud says: {}", cut(&state, STATE_MAX)),
        (false, false) => cut(&message, MESSAGE_MAX),
    };
    // Without the word of what it speaks of, a status is taken for one of now.
    let is_of_now =
        status.observed_generation.is_none_or(|seen| own.metadata.generation.is_none_or(|asked| seen >= asked));
    if is_of_now && state == ProvisioningState::Failed.to_string() {
        return Finding::stalled(reason::REMOTE_FAILED, message);
    }
    let ready = is_of_now && state == ProvisioningState::Fulfilled.to_string();
    let reason = if ready { reason::SUCCEEDED } else { reason::IN_PROGRESS };
    Finding { ready, ..Finding::waiting(Phase::Synced, reason, message) }
}

fn deleting(
    request: &FocomProvisioningRequest,
    observed: &Observed,
    verdict: &Result<(), Refusal>,
    remote: Option<&Remote>,
    obstacle: Option<&Obstacle>,
) -> Finding {
    let give_up = format!(
        "; to let the request go and leave on the O-Cloud what is there, annotate it with {}=true",
        focom::ABANDON_ANNOTATION
    );
    let wait = |reason, message: String| Finding::waiting(Phase::Deleting, reason, message);
    let mine = remote.and_then(|remote| plan::taken_back(request, observed, remote));
    let kept = mine.filter(|mine| plan::is_kept(request, mine) && mine.metadata.deletion_timestamp.is_none());
    match (verdict, remote.map(|remote| &remote.found.view)) {
        _ if plan::is_orphaned(request) => {
            let message = "the request is let go (--cascade=orphan), and its ProvisioningRequest stays on the O-Cloud";
            wait(reason::DELETING, message.to_owned())
        }
        (Err(_), None) if observed.namespace_ends && request.o_cloud().0 == observed.namespace => {
            let (name, o_cloud) = (focom::remote_request(&request.name_any()), o_cloud(request));
            let message = format!(
                "namespace {} is being deleted, and OCloud {o_cloud} is gone with it: ProvisioningRequest {name} stays on that O-Cloud \
                 until it is deleted there{give_up}",
                observed.namespace
            );
            wait(reason::O_CLOUD_UNKNOWN, message)
        }
        (Err(refusal), None) => wait(refusal.reason, format!("{}{give_up}", refusal.message)),
        (_, Some(View::Broken(fault))) => Finding {
            current: false,
            ..wait(
                fault.reason,
                format!("waiting for O-Cloud {}: {}{give_up}", o_cloud(request), words(request, fault)),
            )
        },
        (_, Some(View::Connecting) | None) => {
            wait(reason::CONNECTING, format!("connecting to O-Cloud {}", o_cloud(request)))
        }
        (_, Some(View::Open(_))) if remote.is_some_and(|remote| remote.has_moved(request)) => {
            wait(reason::O_CLOUD_CHANGED, moved(request))
        }
        (_, Some(View::Open(_))) if obstacle.is_none() && kept.is_some() => {
            let message = format!(
                "ProvisioningRequest {} on O-Cloud {} is protected from deletion; set {}=false on this request to have it deleted",
                kept.map(ResourceExt::name_any).unwrap_or_default(),
                o_cloud(request),
                focom::DELETION_PROTECTION_ANNOTATION
            );
            wait(reason::DELETION_PROTECTED, message)
        }
        (_, Some(View::Open(_)))
            if obstacle.is_none() && remote.is_some_and(|remote| plan::waits_for_gone(request, remote)) =>
        {
            wait(reason::REMOTE_GONE, gone(request))
        }
        (_, Some(View::Open(_))) => {
            // Its former message speaks of a cluster that is to stay.
            let said = mine.and_then(|mine| mine.status.provisioning_status.as_ref()).filter(|said| {
                said.provisioning_state == ProvisioningState::Deleting.to_string()
                    && !said.provisioning_message.is_empty()
            });
            let said = said.map_or("the O-Cloud takes the request back", |said| &said.provisioning_message).to_owned();
            match obstacle {
                Some(obstacle) if OF_ADOPTION.contains(&obstacle.reason) => {
                    wait(obstacle.reason, format!("{}{give_up}", obstacle.message))
                }
                Some(obstacle) => wait(obstacle.reason, obstacle.message.clone()),
                None => wait(reason::DELETING, said),
            }
        }
    }
}

/// What is wrong with the O-Cloud, for who sees the OCloud's own condition; a guest of another namespace is told no details.
fn words(request: &FocomProvisioningRequest, fault: &Fault) -> String {
    if request.namespace().as_deref() == Some(request.o_cloud().0) {
        fault.message.clone()
    } else {
        format!("it cannot be used now ({}); its OCloud says why", fault.reason)
    }
}

fn moved(request: &FocomProvisioningRequest) -> String {
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

fn o_cloud(request: &FocomProvisioningRequest) -> String {
    let (namespace, id) = request.o_cloud();
    format!("{namespace}/{id}")
}

/// The phase that was last written: what an O-Cloud does while it cannot be asked is not known.
fn last_phase(request: &FocomProvisioningRequest) -> Phase {
    let last = request.status.as_ref().map(|status| status.phase.as_str()).unwrap_or_default();
    [Phase::Creating, Phase::Synced, Phase::Failed]
        .into_iter()
        .find(|phase| phase.name() == last)
        .unwrap_or(Phase::Creating)
}

fn set_conditions(
    new: &mut FocomProvisioningRequestStatus,
    request: &FocomProvisioningRequest,
    verdict: &Result<(), Refusal>,
    remote: Option<&Remote>,
    finding: &Finding,
    now: Timestamp,
) {
    let deleting = request.metadata.deletion_timestamp.is_some();
    let observed_generation = request.metadata.generation;
    let mut set = |type_, status, reason, message: String| {
        let observation = ConditionUpdate { type_, status, reason, message, observed_generation };
        status::set(&mut new.conditions, observation, now);
    };
    let ready = match (finding.ready, finding.current) {
        (true, _) => ConditionStatus::True,
        (false, true) => ConditionStatus::False,
        (false, false) => ConditionStatus::Unknown,
    };
    set(conditions::READY, ready, finding.reason, finding.message.clone());
    let working = !finding.ready && !finding.stalled;
    let idle = |active: bool| if active { finding.reason } else { reason::IDLE };
    let text = |active: bool| if active { finding.message.clone() } else { String::new() };
    set(conditions::RECONCILING, working.into(), idle(working), text(working));
    set(conditions::STALLED, finding.stalled.into(), idle(finding.stalled), text(finding.stalled));
    if deleting {
        // What was said before the deletion is over.
        set(stage::SYNCED, ConditionStatus::Unknown, finding.reason, String::new());
        return;
    }
    match verdict {
        Ok(()) => set(stage::VALIDATED, ConditionStatus::True, reason::SUCCEEDED, String::new()),
        Err(refusal) => set(stage::VALIDATED, ConditionStatus::False, refusal.reason, refusal.message.clone()),
    }
    let waiting = || (ConditionStatus::Unknown, reason::WAITING, String::new());
    let (status, why, message) = match remote.map(|remote| &remote.found.view) {
        Some(View::Open(_)) => (ConditionStatus::True, reason::SUCCEEDED, String::new()),
        Some(View::Broken(fault)) => (ConditionStatus::False, fault.reason, words(request, fault)),
        Some(View::Connecting) => (ConditionStatus::Unknown, reason::CONNECTING, String::new()),
        None => waiting(),
    };
    set(stage::O_CLOUD_AVAILABLE, status, why, message);
    let (status, why, message) = match (finding.phase, finding.reason) {
        _ if !finding.current => (ConditionStatus::Unknown, finding.reason, finding.message.clone()),
        (Phase::Synced, _) | (_, reason::REMOTE_FAILED) => (ConditionStatus::True, reason::SUCCEEDED, String::new()),
        (Phase::Creating, _) => (ConditionStatus::False, reason::IN_PROGRESS, finding.message.clone()),
        _ if verdict.is_err() => waiting(),
        (_, why) => (ConditionStatus::False, why, finding.message.clone()),
    };
    set(stage::SYNCED, status, why, message);
}

/// Reason of the condition `Ready`.
pub fn reason(status: &FocomProvisioningRequestStatus) -> &str {
    status::find(&status.conditions, conditions::READY).map_or("", |ready| ready.reason.as_str())
}
