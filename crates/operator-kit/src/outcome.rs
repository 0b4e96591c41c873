//! What a reconcile returns, and the one place that decides what follows from it.
//!
//! Waiting is never an error: a reconcile that cannot go on returns [`Outcome::Progressing`] or
//! [`Outcome::Blocked`]. An [`Error`] carries a class, and the class alone decides when the object is tried again.

use std::{
    fmt::Display,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use kube::{core::Status, runtime::controller::Action};

/// An error of any origin, as kept for the log.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a reconcile ended without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was asked for is there; the next change starts the next reconcile.
    Done,
    /// On the way. The watches start the next reconcile, and the timer `recheck` (a deadline, not a poll) if given.
    Progressing {
        /// Reconcile again after this time even if nothing changes; `None` waits for the watches alone.
        recheck: Option<Duration>,
    },
    /// Nothing can be done until somebody else changes something that is watched.
    Blocked {
        /// What is missing, for people.
        reason: String,
    },
}

impl Outcome {
    /// Progressing, with the watches alone to continue.
    pub fn progressing() -> Self {
        Self::Progressing { recheck: None }
    }

    /// Progressing, reconciled again after `recheck` at the latest.
    pub fn progressing_for(recheck: Duration) -> Self {
        Self::Progressing { recheck: Some(recheck) }
    }

    /// Blocked for the reason given.
    pub fn blocked(reason: impl Into<String>) -> Self {
        Self::Blocked { reason: reason.into() }
    }
}

/// Message and origin of an [`Error`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Cause {
    message: String,
    #[source]
    source: Option<BoxError>,
}

/// A failed reconcile. The message is complete by itself: it may be shown in a condition or an event.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The same request will fail again (the API server finds it invalid); tried again rarely.
    #[error("{0}")]
    Terminal(#[source] Cause),
    /// May succeed later without anybody's help: time limits, lost connections, overload, missing kinds or rights.
    #[error("{0}")]
    Transient(#[source] Cause),
    /// What was observed is outdated; observe and plan again at once.
    #[error("{0}")]
    Conflict(#[source] Cause),
}

/// The class of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// See [`Error::Terminal`].
    Terminal,
    /// See [`Error::Transient`].
    Transient,
    /// See [`Error::Conflict`].
    Conflict,
}

impl Error {
    /// An error of the given class.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self::from_parts(class, Cause { message: message.into(), source: None })
    }

    /// An [`Error::Terminal`].
    pub fn terminal(message: impl Into<String>) -> Self {
        Self::new(Class::Terminal, message)
    }

    /// An [`Error::Transient`].
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(Class::Transient, message)
    }

    /// An [`Error::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Class::Conflict, message)
    }

    /// Keeps the origin for the log. The message stays as it is.
    #[must_use]
    pub fn with_source(self, source: impl Into<BoxError>) -> Self {
        let (class, mut cause) = self.into_parts();
        cause.source = Some(source.into());
        Self::from_parts(class, cause)
    }

    /// Puts what was being done before the message: `context: message`.
    #[must_use]
    pub fn context(self, context: impl Display) -> Self {
        let (class, mut cause) = self.into_parts();
        cause.message = format!("{context}: {}", cause.message);
        Self::from_parts(class, cause)
    }

    /// Puts what to do about it after the message: `message; advice`.
    #[must_use]
    pub fn advice(self, advice: impl Display) -> Self {
        let (class, mut cause) = self.into_parts();
        cause.message = format!("{}; {advice}", cause.message);
        Self::from_parts(class, cause)
    }

    /// Whether an admission webhook refused the write (and not the API server's own rules).
    pub fn is_refused_by_webhook(&self) -> bool {
        self.message().contains(ADMISSION_WEBHOOK)
    }

    /// The class, which decides when the object is tried again.
    pub fn class(&self) -> Class {
        match self {
            Self::Terminal(_) => Class::Terminal,
            Self::Transient(_) => Class::Transient,
            Self::Conflict(_) => Class::Conflict,
        }
    }

    /// The message, complete by itself.
    pub fn message(&self) -> &str {
        match self {
            Self::Terminal(cause) | Self::Transient(cause) | Self::Conflict(cause) => &cause.message,
        }
    }

    fn from_parts(class: Class, cause: Cause) -> Self {
        match class {
            Class::Terminal => Self::Terminal(cause),
            Class::Transient => Self::Transient(cause),
            Class::Conflict => Self::Conflict(cause),
        }
    }

    fn into_parts(self) -> (Class, Cause) {
        let class = self.class();
        match self {
            Self::Terminal(cause) | Self::Transient(cause) | Self::Conflict(cause) => (class, cause),
        }
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                Self::new(classify(&status), describe(&status)).with_source(kube::Error::Api(status))
            }
            // serde quotes the value it stumbled over, which may be a secret: only the place is kept.
            kube::Error::SerdeError(error) => Self::transient(format!(
                "cannot decode the answer of the API server ({:?} error at line {}, column {})",
                error.classify(),
                error.line(),
                error.column()
            )),
            error @ (kube::Error::BuildRequest(_)
            | kube::Error::HttpError(_)
            | kube::Error::InferConfig(_)
            | kube::Error::InferKubeconfig(_)
            | kube::Error::TlsRequired
            | kube::Error::ProxyProtocolUnsupported { .. }
            | kube::Error::ProxyProtocolDisabled { .. }) => Self::terminal(chain(&error)).with_source(error),
            error => Self::transient(chain(&error)).with_source(error),
        }
    }
}

impl From<serde_json::Error> for Error {
    /// An object that cannot be encoded or decoded stays so until it changes. The offending value is not repeated.
    fn from(error: serde_json::Error) -> Self {
        Self::terminal(format!(
            "cannot convert JSON ({:?} error at line {}, column {})",
            error.classify(),
            error.line(),
            error.column()
        ))
    }
}

/// The message of a failed JSON patch `test`, which the API server answers with 422
/// (`apimachinery/pkg/api/errors`, `NewGenericServerResponse`).
const FAILED_PATCH_TEST: &str = "the server rejected our request due to an error in our request";

/// How the API server begins to tell of a webhook's refusal (`apiserver/pkg/admission/plugin/webhook/errors`).
const ADMISSION_WEBHOOK: &str = "admission webhook";

fn classify(status: &Status) -> Class {
    match status.code {
        409 => Class::Conflict,
        422 if is_lost_race(status) => Class::Conflict,
        // Not found: the kind is not (yet) installed, or the object went between two calls. Forbidden and
        // unauthorized: rights can be repaired without touching the object.
        401 | 403 | 404 | 408 | 410 | 429 => Class::Transient,
        400..=499 => Class::Terminal,
        _ if status.is_conflict() || status.is_already_exists() => Class::Conflict,
        _ if status.is_invalid() => Class::Terminal,
        _ => Class::Transient,
    }
}

/// Whether the object or its kind is not there. A group that is not served is answered with plain text, without a
/// reason, and kube 5.0's own `is_not_found` in effect compares the reason alone; the code tells.
pub(crate) fn is_not_found(status: &Status) -> bool {
    status.code == 404 || status.is_not_found()
}

/// A 422 that stands for an outdated observation rather than for a bad request.
fn is_lost_race(status: &Status) -> bool {
    status.message.contains(FAILED_PATCH_TEST)
        || status.details.as_ref().is_some_and(|details| {
            // An update that carries the UID of a former object is "invalid", not a conflict.
            let mut fields = details.causes.iter().map(|cause| cause.field.as_str());
            fields.any(|field| matches!(field, "metadata.resourceVersion" | "metadata.uid"))
        })
}

fn describe(status: &Status) -> String {
    let message = if status.message.is_empty() { "no message" } else { &status.message };
    match status.code {
        403 if !message.contains(ADMISSION_WEBHOOK) => format!("forbidden, check the operator's RBAC rules: {message}"),
        code => format!("API server answered {code}: {message}"),
    }
}

/// The error and its origins on one line, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

/// What follows from the end of a reconcile.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// When the object is reconciled again.
    pub action: Action,
    /// Value of the metrics label `result`.
    pub result: &'static str,
    /// Whether a Warning event is due: once per row of failures, not once per failure.
    pub warn: bool,
}

/// A row of transient failures of this length is reported as an event; shorter ones are noise of the network.
const WARN_AFTER: u32 = 5;
const CONFLICT_MIN: Duration = Duration::from_millis(50);
const TRANSIENT_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
const TERMINAL_RETRY: Duration = Duration::from_secs(300);

/// Maps the end of a reconcile to what follows from it.
///
/// `attempt` counts the failures of this object in a row, from 1, conflicts apart from the others (it is ignored
/// after a success). `jitter` is a random number from 0 to 1; it moves a delay by up to a quarter either way, so
/// that objects that failed together do not come back together.
///
/// Conflicts start at 50 ms and transient errors at 0.5 s, both double up to 60 s; terminal errors wait 5 min.
pub fn verdict(result: &Result<Outcome, Error>, attempt: u32, jitter: f64) -> Verdict {
    match result {
        Ok(Outcome::Done) => Verdict { action: Action::await_change(), result: "done", warn: false },
        Ok(Outcome::Progressing { recheck }) => Verdict {
            action: recheck.map_or_else(Action::await_change, Action::requeue),
            result: "progressing",
            warn: false,
        },
        Ok(Outcome::Blocked { .. }) => Verdict { action: Action::await_change(), result: "blocked", warn: false },
        Err(Error::Conflict(_)) => Verdict {
            action: Action::requeue(backoff(CONFLICT_MIN, BACKOFF_MAX, attempt, jitter)),
            result: "conflict",
            warn: false,
        },
        Err(Error::Transient(_)) => Verdict {
            action: Action::requeue(backoff(TRANSIENT_MIN, BACKOFF_MAX, attempt, jitter)),
            result: "transient",
            warn: attempt == WARN_AFTER,
        },
        Err(Error::Terminal(_)) => {
            Verdict { action: Action::requeue(spread(TERMINAL_RETRY, jitter)), result: "terminal", warn: attempt <= 1 }
        }
    }
}

/// How long to wait before try number `attempt + 1`: `min` doubled with every try after the first, up to `max`, and moved
/// by up to a quarter so that many do not come back together.
pub fn delay(min: Duration, max: Duration, attempt: u32) -> Duration {
    backoff(min, max, attempt, random_unit())
}

/// `min` doubled with every attempt after the first, up to `max`, moved by the jitter and never above `max`.
pub(crate) fn backoff(min: Duration, max: Duration, attempt: u32, jitter: f64) -> Duration {
    let doubled = min.saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
    spread(doubled.min(max), jitter).min(max)
}

fn spread(delay: Duration, jitter: f64) -> Duration {
    delay.mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0))
}

/// A number from 0 to 1 for jitter; not for secrets.
pub(crate) fn random_unit() -> f64 {
    f64::from(random_u32()) / f64::from(u32::MAX)
}

/// Random bits from the seed that std draws for its hash maps; not for secrets.
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn random_u32() -> u32 {
    RandomState::new().hash_one(0_u8) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::response::{StatusCause, StatusDetails};

    fn api(code: u16, reason: &str, message: &str) -> Status {
        Status::failure(message, reason).with_code(code)
    }

    fn class(status: Status) -> Class {
        Error::from(kube::Error::Api(status.boxed())).class()
    }

    fn invalid_field(field: &str) -> Status {
        let cause = StatusCause { reason: "FieldValueInvalid".into(), message: String::new(), field: field.into() };
        api(422, "Invalid", "is invalid").with_details(StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: vec![cause],
            retry_after_seconds: 0,
        })
    }

    #[test]
    fn answers_of_the_api_server_have_a_class() {
        assert_eq!(class(api(409, "Conflict", "the object has been modified")), Class::Conflict);
        assert_eq!(class(api(409, "AlreadyExists", "exists")), Class::Conflict);
        assert_eq!(class(api(422, "", FAILED_PATCH_TEST)), Class::Conflict);
        assert_eq!(class(invalid_field("metadata.resourceVersion")), Class::Conflict);
        assert_eq!(class(invalid_field("metadata.uid")), Class::Conflict);
        assert_eq!(class(invalid_field("spec.replicas")), Class::Terminal);
        assert_eq!(class(api(400, "BadRequest", "unknown field")), Class::Terminal);
        assert_eq!(class(api(413, "RequestEntityTooLarge", "")), Class::Terminal);
        for code in [401, 403, 404, 408, 410, 429, 500, 502, 503, 504] {
            assert_eq!(class(api(code, "", "")), Class::Transient, "{code}");
        }
    }

    #[test]
    fn a_decode_error_does_not_repeat_the_value() {
        let error = serde_json::from_str::<Vec<u32>>(r#"["hunter2"]"#).expect_err("not a number");
        assert!(error.to_string().contains("hunter2"), "the premise: serde quotes the value");
        let error = Error::from(kube::Error::SerdeError(error));
        assert!(!format!("{error:?} {error}").contains("hunter2"));
        assert_eq!(error.class(), Class::Transient);
    }

    #[test]
    fn rbac_is_not_blamed_for_what_a_webhook_refuses() {
        let error = |message| Error::from(kube::Error::Api(api(403, "Forbidden", message).boxed()));
        let rights = error("byohosts is forbidden: User \"x\" cannot patch resource");
        assert!(rights.message().contains("RBAC") && !rights.is_refused_by_webhook());
        let webhook = error("admission webhook \"vbyohost.kb.io\" denied the request: no").advice("do this");
        assert!(!webhook.message().contains("RBAC") && webhook.is_refused_by_webhook(), "{webhook}");
        assert!(webhook.message().ends_with("no; do this"));
    }

    #[test]
    fn context_keeps_class_and_source() {
        let error = Error::from(kube::Error::Api(api(409, "Conflict", "changed").boxed())).context("claiming x");
        assert_eq!(error.class(), Class::Conflict);
        assert!(error.message().starts_with("claiming x: "));
        let cause = std::error::Error::source(&error).expect("cause");
        assert!(std::error::Error::source(cause).is_some());
    }

    #[test]
    fn waiting_is_no_error_and_polls_nothing() {
        let waits = [Ok(Outcome::Done), Ok(Outcome::progressing()), Ok(Outcome::blocked("host"))];
        for result in waits {
            let verdict = verdict(&result, 1, 0.5);
            assert_eq!(verdict.action, Action::await_change());
            assert!(!verdict.warn);
        }
        let timed = verdict(&Ok(Outcome::progressing_for(Duration::from_secs(7))), 1, 0.5);
        assert_eq!(timed.action, Action::requeue(Duration::from_secs(7)));
    }

    #[test]
    fn backoff_doubles_to_the_cap_and_never_overflows() {
        let delay = |attempt| backoff(TRANSIENT_MIN, BACKOFF_MAX, attempt, 0.5);
        assert_eq!(delay(1), Duration::from_millis(500));
        assert_eq!(delay(2), Duration::from_secs(1));
        assert_eq!(delay(7), Duration::from_secs(32));
        assert_eq!(delay(8), BACKOFF_MAX);
        assert_eq!(delay(u32::MAX), BACKOFF_MAX);
        assert!(backoff(TRANSIENT_MIN, BACKOFF_MAX, 1, 0.0) < backoff(TRANSIENT_MIN, BACKOFF_MAX, 1, 1.0));
    }

    #[test]
    fn conflicts_come_back_at_once_and_a_lasting_one_slows_down() {
        let requeue = |attempt| verdict(&Err(Error::conflict("x")), attempt, 0.5).action;
        assert_eq!(requeue(1), Action::requeue(Duration::from_millis(50)));
        assert_eq!(requeue(3), Action::requeue(Duration::from_millis(200)));
        assert_eq!(requeue(30), Action::requeue(BACKOFF_MAX));
    }

    #[test]
    fn a_row_of_failures_warns_once() {
        let warnings = |error: fn() -> Error| (1..100).filter(|n| verdict(&Err(error()), *n, 0.5).warn).count();
        assert_eq!(warnings(|| Error::terminal("x")), 1);
        assert_eq!(warnings(|| Error::transient("x")), 1);
        assert_eq!(warnings(|| Error::conflict("x")), 0);
    }
}
