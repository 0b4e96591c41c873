//! What a provisioner reports of a request, for its status. Plain data: the conditions, the state and the deadlines are derived from it in
//! one place for all provisioners.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use o2ims_types::conditions::reason;
use o2ims_types::o2ims::v1alpha1::provisioning_request::{ProvisionedResourceSet, StatusExtensions};
use operator_kit::text;

/// State of a host (`status.extensions.hosts[].state`) that has failed.
pub const HOST_FAILED: &str = "Failed";

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What is wrong, with the field or the object, and what helps.
    pub message: String,
    /// Only a change of the request itself helps: `failed`. Otherwise a change of something else can help: `pending`.
    pub terminal: bool,
    /// It is about hosts; everything that is checked before them is correct.
    pub is_about_hosts: bool,
}

impl Rejection {
    /// The request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { reason: reason::INVALID, message: message.into(), terminal: true, is_about_hosts: false }
    }

    /// The request names a provisioner that is not among those that are known.
    pub fn unknown_provisioner<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<_> = known.into_iter().map(|known| format!("{known:?}")).collect();
        Self::invalid(format!("clusterProvisioner {name:?} is not supported: this O-Cloud has {}", known.join(", ")))
    }

    /// Something that the request needs is missing.
    pub fn waiting(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), terminal: false, is_about_hosts: false }
    }

    /// Hosts are not available.
    pub fn hosts(messages: &[String]) -> Self {
        let message = text::list(messages, "; ");
        Self { reason: reason::HOSTS_UNAVAILABLE, message, terminal: false, is_about_hosts: true }
    }
}

/// The report of a request.
#[derive(Clone, Debug)]
pub struct Report {
    /// How far it is.
    pub progress: Progress,
    /// `status.provisionedResourceSet`.
    pub resources: Option<ProvisionedResourceSet>,
    /// `status.extensions`.
    pub extensions: StatusExtensions,
}

impl Report {
    /// Whether something is done for the request now: nothing is while it is paused, or before it holds hosts.
    pub fn is_carried_out(&self) -> bool {
        matches!(&self.progress, Progress::Provisioning(progress) if progress.has_begun && progress.paused.is_none())
    }
}

/// How far a request is.
#[derive(Clone, Debug)]
pub enum Progress {
    /// It is carried out.
    Provisioning(Provisioning),
    /// It is being deleted.
    Deleting(Deleting),
}

/// How far a request is that is carried out.
#[derive(Clone, Debug)]
pub struct Provisioning {
    /// The stages, in order. Each is judged once the ones before it are done.
    pub stages: Vec<Stage>,
    /// Hosts are held, or the cluster exists: the request is `progressing` and not `pending`.
    pub has_begun: bool,
    /// The cluster exists.
    pub exists: bool,
    /// Message of a request whose stages are all done.
    pub ready: String,
    /// What is wrong with a running cluster, whatever the stages say.
    pub degraded: Vec<String>,
    /// What is wrong with a running cluster from some time on.
    pub upcoming: Vec<Upcoming>,
    /// What is known of the certificates of a running cluster.
    pub certificates: Option<Certificates>,
    /// The cluster is paused, not by the operator.
    pub paused: Option<Pause>,
}

/// What is known of the certificates of a running cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// When the first one ends.
    pub end: Timestamp,
    /// Which one that is, and what else there is to say.
    pub message: String,
    /// Why some were not renewed, and what to do.
    pub failures: Vec<String>,
    /// That the first one was not renewed in time; nothing if a failure says it.
    pub upcoming: Option<Upcoming>,
}

/// What is wrong with a running cluster from some time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upcoming {
    /// From when on it is told.
    pub from: Timestamp,
    /// What is told. It is the same at every time.
    pub message: String,
}

/// A pause of a cluster.
#[derive(Clone, Debug)]
pub struct Pause {
    /// What is paused, and what ends it.
    pub message: String,
    /// What the pause delays, to be appended to the message; empty if that is nothing.
    pub delays: String,
}

/// How far a request is that is being deleted.
#[derive(Clone, Debug)]
pub struct Deleting {
    /// What the deletion waits for.
    pub message: String,
    /// The cluster is paused, not by the operator.
    pub paused: Option<Pause>,
    /// How long it may take.
    pub limit: Duration,
    /// What to do when it has taken longer; empty if there is nothing to say.
    pub overdue: String,
}

/// One stage of provisioning.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Type of its condition.
    pub type_: &'static str,
    /// How long it may take once the stages before it are done; `None` where it waits for other objects.
    pub limit: Option<Limit>,
    /// How long it counts as done all the same, if it was done before.
    pub tolerance: Option<Tolerance>,
    /// How far it is.
    pub state: StageState,
}

/// Until when a stage that was done counts as done, although nodes are not Ready any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// Until then.
    pub until: Timestamp,
    /// What is told meanwhile.
    pub messages: Vec<String>,
}

/// The time limit of a stage.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The field of the ClusterTemplate that sets it, for messages: `spec.timeouts.workers`.
    pub setting: &'static str,
    /// The time.
    pub duration: Duration,
    /// From when on it counts; `None`: since the stage is not done.
    pub since: Option<Timestamp>,
}

/// How far a stage is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageState {
    /// It is done.
    Done,
    /// It cannot continue.
    Blocked {
        /// Reason of the condition.
        reason: &'static str,
        /// Why, and what helps.
        message: String,
        /// Only a change of the request helps, or nothing does.
        terminal: bool,
    },
    /// It is in progress.
    InProgress {
        /// What it waits for.
        message: String,
    },
    /// It goes on by itself at a time.
    Scheduled {
        /// Reason of the condition.
        reason: &'static str,
        /// What it waits for.
        message: String,
        /// When it goes on.
        at: Timestamp,
    },
    /// It is paused, not by the operator.
    Paused {
        /// What is paused.
        message: String,
    },
    /// A stage before it is not done.
    Waiting,
}

impl Stage {
    /// A stage without time limit.
    pub const fn new(type_: &'static str, state: StageState) -> Self {
        Self { type_, limit: None, tolerance: None, state }
    }

    /// The stage with a time limit.
    #[must_use]
    pub fn within(self, setting: &'static str, duration: Duration) -> Self {
        Self { limit: Some(Limit { setting, duration, since: None }), ..self }
    }

    /// The stage with a time limit that counts from this time on.
    #[must_use]
    pub fn within_since(self, setting: &'static str, duration: Duration, since: Timestamp) -> Self {
        Self { limit: Some(Limit { setting, duration, since: Some(since) }), ..self }
    }

    /// The stage with what is tolerated.
    #[must_use]
    pub fn tolerating(self, tolerance: Option<Tolerance>) -> Self {
        Self { tolerance, ..self }
    }
}

impl StageState {
    /// The stage that a rejected request is at.
    pub fn blocked(rejection: &Rejection) -> Self {
        Self::Blocked { reason: rejection.reason, message: rejection.message.clone(), terminal: rejection.terminal }
    }
}
