//! The status of a request, derived each time from the provisioner's report. `now` is a parameter. Of the old status only the conditions are
//! read, for their transition times, and state, message and time of the last update, to keep that time.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use o2ims_types::conditions::{self, reason};
use o2ims_types::o2ims::v1alpha1::provisioning_request::ProvisioningStatus;
use o2ims_types::{ProvisioningRequest, ProvisioningRequestStatus, ProvisioningState};
use operator_kit::controller::Outcome;
use operator_kit::text;
use operator_kit::write::status::{self, ConditionStatus, ConditionUpdate, MESSAGE_MAX};

use crate::provisioner::report::{
    Certificates, Deleting, Limit, Progress, Provisioning, Report, Stage, StageState, Tolerance,
};

/// Longest timer: 30 days.
const LONGEST_TIMER: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Longest message of one host, in bytes. A status of 407 hosts stays far from the 1.5 MiB that etcd takes, whatever Cluster API, BYOH and
/// kubeadm say.
const HOST_MESSAGE_MAX: usize = 768;

/// The status to be written, and when to look again without a change.
#[derive(Clone, Debug)]
pub struct Assessment {
    /// The status.
    pub status: ProvisioningRequestStatus,
    /// Time until the next deadline, if one is running.
    pub recheck: Option<Duration>,
}

impl Assessment {
    /// The outcome of the reconcile.
    pub fn outcome(&self) -> Outcome {
        let message = || self.status.provisioning_status.provisioning_message.clone();
        match self.status.provisioning_status.provisioning_state {
            ProvisioningState::Fulfilled if self.recheck.is_none() => Outcome::Done,
            ProvisioningState::Fulfilled | ProvisioningState::Progressing | ProvisioningState::Deleting => {
                Outcome::Progressing { recheck: self.recheck }
            }
            ProvisioningState::Pending | ProvisioningState::Failed => match self.recheck {
                Some(recheck) => Outcome::Progressing { recheck: Some(recheck) },
                None => Outcome::Blocked { reason: message() },
            },
        }
    }
}

/// Derives the status. `write_error` is the error of the last write.
pub fn assess(request: &ProvisioningRequest, report: &Report, write_error: Option<&str>, now: Timestamp) -> Assessment {
    let old = request.status.clone().unwrap_or_default();
    let mut conditions =
        Conditions { list: old.conditions, generation: request.metadata.generation, now: whole_seconds(now) };
    let Summary { state, message, recheck } = match &report.progress {
        Progress::Provisioning(progress) => provisioning(progress, write_error, &mut conditions),
        Progress::Deleting(progress) => deleting(request, progress, write_error, &mut conditions),
    };
    let message = text::cut(message, MESSAGE_MAX);
    let mut extensions = report.extensions.clone();
    extensions.revisions.clone_from(&old.extensions.revisions);
    for host in &mut extensions.hosts {
        host.message = text::cut(std::mem::take(&mut host.message), HOST_MESSAGE_MAX);
    }
    let before = &old.provisioning_status;
    let same = before.provisioning_state == state && before.provisioning_message == message && !request.is_new();
    let update_time = if same { before.provisioning_update_time.clone() } else { Some(Time(whole_seconds(now))) };
    let status = ProvisioningRequestStatus {
        provisioning_status: ProvisioningStatus {
            provisioning_state: state,
            provisioning_message: message,
            provisioning_update_time: update_time,
        },
        provisioned_resource_set: report.resources.clone(),
        conditions: conditions.list,
        observed_generation: request.metadata.generation,
        extensions,
    };
    Assessment { status, recheck }
}

fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// State and message, and the time until the next deadline.
struct Summary {
    state: ProvisioningState,
    message: String,
    recheck: Option<Duration>,
}

/// The first stage that is not done.
struct Unfinished {
    state: StageState,
    type_: &'static str,
    limit: Option<Limit>,
}

fn provisioning(progress: &Provisioning, write_error: Option<&str>, conditions: &mut Conditions) -> Summary {
    let (unfinished_stage, tolerated) = set_stages(progress, conditions);
    let degraded = degraded(progress, &tolerated, conditions.now);
    let (mut summary, reason) = match unfinished_stage {
        None => (fulfilled(progress, &degraded, write_error, conditions.now), reason::SUCCEEDED),
        Some(stage) => unfinished(progress, &stage, write_error, conditions),
    };
    let ends = tolerated.iter().filter_map(|tolerance| time_until(tolerance.until, conditions.now));
    summary.recheck = summary.recheck.into_iter().chain(ends).min();
    let stalled = summary.state == ProvisioningState::Failed;
    conditions.summarize(summary.state, reason, stalled.then_some(reason), &summary.message);
    // provisioningMessage is also the message of Ready. Unless the request is fulfilled, Degraded leaves out texts that this message contains.
    let ready_message = if summary.state == ProvisioningState::Fulfilled { "" } else { summary.message.as_str() };
    let is_new = |text: &String| !ready_message.contains(text.as_str());
    let degraded: Vec<_> = degraded.into_iter().filter(is_new).collect();
    conditions.flag(conditions::DEGRADED, reason::MISMATCH, text::list(&degraded, "; "));
    conditions.set_certificates(progress.certificates.as_ref());
    let paused = progress.paused.as_ref().map(|pause| pause.message.clone()).unwrap_or_default();
    conditions.flag(conditions::PAUSED, reason::PAUSED, paused);
    summary
}

/// Sets the condition of each stage; returns the first one that is not done, and what is tolerated of those before it. The stages after it wait.
fn set_stages<'a>(progress: &'a Provisioning, conditions: &mut Conditions) -> (Option<Unfinished>, Vec<&'a Tolerance>) {
    let (mut first, mut tolerated) = (None, Vec::new());
    for stage in &progress.stages {
        if first.is_none()
            && let Some(tolerance) = conditions.tolerance(stage)
        {
            tolerated.push(tolerance);
            conditions.set_stage(stage.type_, &StageState::Done);
            continue;
        }
        let state = match (&first, &stage.state) {
            (Some(_), state) if *state != StageState::Done => StageState::Waiting,
            // The time limit of a stage is suspended during a pause. After the pause the full limit applies again, from zero.
            (None, state @ (StageState::InProgress { .. } | StageState::Scheduled { .. })) => match &progress.paused {
                Some(pause) => StageState::Paused { message: format!("{}{}", pause.message, pause.delays) },
                None => state.clone(),
            },
            (_, state) => state.clone(),
        };
        conditions.set_stage(stage.type_, &state);
        if first.is_none() && state != StageState::Done {
            first = Some(Unfinished { state, type_: stage.type_, limit: stage.limit });
        }
    }
    (first, tolerated)
}

/// What is wrong with a running cluster now.
fn degraded(progress: &Provisioning, tolerated: &[&Tolerance], now: Timestamp) -> Vec<String> {
    let due = progress.upcoming.iter().filter(|upcoming| upcoming.from <= now);
    let tolerated = tolerated.iter().flat_map(|tolerance| &tolerance.messages);
    progress.degraded.iter().chain(tolerated).chain(due.map(|upcoming| &upcoming.message)).cloned().collect()
}

/// Time until the next of what is upcoming, the end of a certificate too. What is farther away than a timer can be is looked at again before.
fn next_upcoming(progress: &Provisioning, now: Timestamp) -> Option<Duration> {
    let ends = progress.certificates.iter().map(|known| known.end);
    let times = progress.upcoming.iter().map(|upcoming| upcoming.from).chain(ends);
    times.filter_map(|time| time_until(time, now)).min()
}

/// Time until `then`; `None` if that has passed.
fn time_until(then: Timestamp, now: Timestamp) -> Option<Duration> {
    let seconds = u64::try_from(then.as_second() - now.as_second()).ok().filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds).min(LONGEST_TIMER))
}

fn fulfilled(progress: &Provisioning, degraded: &[String], write_error: Option<&str>, now: Timestamp) -> Summary {
    let mut message = progress.ready.clone();
    let degraded = (!degraded.is_empty()).then(|| text::list(degraded, "; "));
    let paused = progress.paused.as_ref().map(|pause| pause.message.clone());
    for more in [degraded, paused, write_error.map(ToOwned::to_owned)].into_iter().flatten() {
        message = format!("{message}; {more}");
    }
    Summary { state: ProvisioningState::Fulfilled, message, recheck: next_upcoming(progress, now) }
}

/// State and message of a request whose first unfinished stage this is, and the reason of its Ready condition.
fn unfinished(
    progress: &Provisioning,
    first: &Unfinished,
    write_error: Option<&str>,
    conditions: &mut Conditions,
) -> (Summary, &'static str) {
    let Unfinished { state, type_, limit } = first;
    let progressing_if =
        |has_begun: bool| if has_begun { ProvisioningState::Progressing } else { ProvisioningState::Pending };
    let summary = |state, message| Summary { state, message, recheck: None };
    match state {
        StageState::Paused { message } => {
            (summary(progressing_if(progress.exists), message.clone()), reason::IN_PROGRESS)
        }
        StageState::Blocked { reason, message, terminal } => {
            // A request whose Cluster exists is `progressing`, not `pending`.
            let state = if *terminal { ProvisioningState::Failed } else { progressing_if(progress.exists) };
            let write_error = write_error.map(|error| format!("; {error}")).unwrap_or_default();
            (summary(state, format!("{message}{write_error}")), *reason)
        }
        StageState::Scheduled { reason, message, at } => {
            let message = write_error.unwrap_or(message).to_owned();
            // It may have passed since the request was looked at.
            let recheck = Some(time_until(*at, conditions.now).unwrap_or(Duration::from_secs(1)));
            (Summary { state: progressing_if(progress.has_begun), message, recheck }, *reason)
        }
        StageState::InProgress { .. } | StageState::Done | StageState::Waiting => {
            let message = match (write_error, state) {
                (Some(error), _) => error.to_owned(),
                (None, StageState::InProgress { message }) => message.clone(),
                (None, _) => String::new(),
            };
            let remaining = limit.map(|limit| conditions.remaining_time(type_, limit));
            if let (Some(limit), Some(Duration::ZERO)) = (limit, remaining) {
                let message = limit_exceeded(limit.duration, limit.setting, &message);
                conditions.set(type_, ConditionStatus::False, reason::DEADLINE_EXCEEDED, message.clone());
                return (summary(ProvisioningState::Failed, message), reason::DEADLINE_EXCEEDED);
            }
            let state = progressing_if(progress.has_begun);
            (Summary { state, message, recheck: remaining }, reason::IN_PROGRESS)
        }
    }
}

/// The message when a time limit is exceeded; `cause` is what the request waits for.
fn limit_exceeded(limit: Duration, setting: &str, cause: &str) -> String {
    let seconds = limit.as_secs();
    format!("time limit of {seconds} s exceeded ({setting} of the ClusterTemplate): {cause}; this operator continues")
}

fn deleting(
    request: &ProvisioningRequest,
    progress: &Deleting,
    write_error: Option<&str>,
    conditions: &mut Conditions,
) -> Summary {
    let message = write_error.unwrap_or(&progress.message);
    let since = request.metadata.deletion_timestamp.as_ref().map_or(conditions.now, |time| time.0);
    let is_paused = progress.paused.is_some();
    let remaining = remaining_time(since, progress.limit, conditions.now);
    let in_time = is_paused || !remaining.is_zero();
    let message = if in_time {
        message.to_owned()
    } else {
        format!("{}{}", limit_exceeded(progress.limit, "spec.timeouts.deletion", message), progress.overdue)
    };
    let stalled = (!in_time).then_some(reason::DEADLINE_EXCEEDED);
    conditions.summarize(ProvisioningState::Deleting, reason::DELETING, stalled, &message);
    let paused = progress.paused.as_ref().map(|pause| pause.message.clone()).unwrap_or_default();
    conditions.flag(conditions::PAUSED, reason::PAUSED, paused);
    let recheck = (in_time && !is_paused).then_some(remaining);
    Summary { state: ProvisioningState::Deleting, message, recheck }
}

fn remaining_time(since: Timestamp, limit: Duration, now: Timestamp) -> Duration {
    let spent = Duration::from_secs(u64::try_from(now.as_second() - since.as_second()).unwrap_or_default());
    limit.saturating_sub(spent)
}

/// The conditions of a request, while they are derived. Each is given one `status` per reconcile: if that changed and changed back,
/// lastTransitionTime would be new, and the request's status would be written, at every reconcile.
struct Conditions {
    list: Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl Conditions {
    fn set(&mut self, type_: &str, status: ConditionStatus, reason: &str, message: String) {
        let new = ConditionUpdate { type_, status, reason, message, observed_generation: self.generation };
        status::set(&mut self.list, new, self.now);
    }

    fn set_stage(&mut self, type_: &str, state: &StageState) {
        let (status, reason, message) = match state {
            StageState::Done => (ConditionStatus::True, reason::SUCCEEDED, String::new()),
            StageState::Blocked { reason, message, .. } | StageState::Scheduled { reason, message, .. } => {
                (ConditionStatus::False, *reason, message.clone())
            }
            StageState::InProgress { message } => (ConditionStatus::False, reason::IN_PROGRESS, message.clone()),
            StageState::Paused { message } => (ConditionStatus::Unknown, reason::PAUSED, message.clone()),
            StageState::Waiting => (ConditionStatus::Unknown, reason::WAITING, String::new()),
        };
        self.set(type_, status, reason, message);
    }

    /// A condition that is True while there is a message.
    fn flag(&mut self, type_: &str, reason: &str, message: String) {
        if message.is_empty() {
            self.set(type_, ConditionStatus::False, reason::IDLE, message);
        } else {
            self.set(type_, ConditionStatus::True, reason, message);
        }
    }

    /// A cluster of which nothing is known does not have the condition.
    fn set_certificates(&mut self, known: Option<&Certificates>) {
        let type_ = conditions::CERTIFICATES_VALID;
        match known {
            None => self.list.retain(|condition| condition.type_ != type_),
            Some(known) if !known.failures.is_empty() => {
                self.set(type_, ConditionStatus::False, reason::HALTED, text::list(&known.failures, "; "));
            }
            Some(known) if known.end <= self.now => {
                self.set(type_, ConditionStatus::False, reason::EXPIRED, known.message.clone());
            }
            Some(known) => self.set(type_, ConditionStatus::True, reason::SUCCEEDED, known.message.clone()),
        }
    }

    /// `Ready`, `Reconciling` and `Stalled`, as kstatus defines them.
    fn summarize(&mut self, state: ProvisioningState, reason: &str, stalled: Option<&str>, message: &str) {
        let is_ready = state == ProvisioningState::Fulfilled;
        let is_reconciling = stalled.is_none() && !is_ready;
        let truth = |holds: bool| if holds { ConditionStatus::True } else { ConditionStatus::False };
        let message_if = |holds: bool| if holds { message.to_owned() } else { String::new() };
        self.set(conditions::READY, truth(is_ready), reason, message.to_owned());
        let reconciling = if is_reconciling { reason } else { reason::IDLE };
        self.set(conditions::RECONCILING, truth(is_reconciling), reconciling, message_if(is_reconciling));
        self.set(
            conditions::STALLED,
            truth(stalled.is_some()),
            stalled.unwrap_or(reason::IDLE),
            message_if(stalled.is_some()),
        );
    }

    /// What is tolerated of a stage: its condition is still True, and the time is not over.
    fn tolerance<'a>(&self, stage: &'a Stage) -> Option<&'a Tolerance> {
        let was_done = status::find(&self.list, stage.type_).is_some_and(|condition| condition.status == "True");
        stage.tolerance.as_ref().filter(|tolerance| was_done && self.now < tolerance.until)
    }

    /// Time that remains of `limit`; if it does not say from when on it counts, from when the condition last changed its status.
    fn remaining_time(&self, type_: &str, limit: Limit) -> Duration {
        let changed = || status::find(&self.list, type_).map_or(self.now, |condition| condition.last_transition_time.0);
        remaining_time(limit.since.unwrap_or_else(changed), limit.duration, self.now)
    }
}
