//! The error of a reconcile. Its class alone decides when the object is tried again.

use std::{fmt::Display, sync::LazyLock};

use kube::core::Status;
use regex::Regex;

/// A source of an error, for the log.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Message and source of an [`Error`].
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
    /// A later try may succeed without a change of the object: time limits, lost connections, overload, missing kinds
    /// or rights.
    #[error("{0}")]
    Transient(#[source] Cause),
    /// The observed state is outdated: observe and plan again at once.
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

    /// Adds the source, for the log. The message stays as it is.
    #[must_use]
    pub fn with_source(self, source: impl Into<BoxError>) -> Self {
        let (class, mut cause) = self.into_parts();
        cause.source = Some(source.into());
        Self::from_parts(class, cause)
    }

    /// Adds what was attempted: `context: message`.
    #[must_use]
    pub fn context(self, context: impl Display) -> Self {
        let (class, mut cause) = self.into_parts();
        cause.message = format!("{context}: {}", cause.message);
        Self::from_parts(class, cause)
    }

    /// Adds what to do about the error: `message; advice`.
    #[must_use]
    pub fn advice(self, advice: impl Display) -> Self {
        let (class, mut cause) = self.into_parts();
        cause.message = format!("{}; {advice}", cause.message);
        Self::from_parts(class, cause)
    }

    /// Whether the admission webhook of this name denied the write.
    pub fn is_refused_by_webhook(&self, name: &str) -> bool {
        self.message().contains(&format!("{ADMISSION_WEBHOOK} \"{name}\" denied"))
    }

    /// The code that the API server answered with, if it has answered.
    pub fn code(&self) -> Option<u16> {
        let (Self::Terminal(cause) | Self::Transient(cause) | Self::Conflict(cause)) = self;
        match cause.source.as_deref()?.downcast_ref::<kube::Error>()? {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        }
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
            // serde quotes the offending value, which may be a secret: only the position is kept.
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
            | kube::Error::ProxyProtocolDisabled { .. }) => Self::terminal(error_chain(&error)).with_source(error),
            error => Self::transient(stable(&error_chain(&error))).with_source(error),
        }
    }
}

impl From<serde_json::Error> for Error {
    /// Terminal: an object that cannot be encoded or decoded stays so until it changes. The message does not quote the
    /// offending value.
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

/// A field of an applied object that the schema of its kind does not have is answered with 500
/// (`apimachinery/pkg/util/managedfields/internal/structuredmerge.go`, `Apply`).
const NOT_IN_SCHEMA: &str = "failed to create typed patch object";

/// The message of a denial by a webhook begins so (`apiserver/pkg/admission/plugin/webhook/errors`).
const ADMISSION_WEBHOOK: &str = "admission webhook";

fn classify(status: &Status) -> Class {
    match status.code {
        409 => Class::Conflict,
        422 if is_lost_race(status) => Class::Conflict,
        // Its owner can change the policy without a change of the object.
        _ if is_denied_by_policy(&status.message) => Class::Transient,
        500 if status.message.contains(NOT_IN_SCHEMA) => Class::Terminal,
        // Not found: the kind is not (yet) installed, or the object was deleted between two calls. Forbidden and
        // unauthorized: an administrator can grant rights without a change of the object.
        401 | 403 | 404 | 408 | 410 | 429 => Class::Transient,
        400..=499 => Class::Terminal,
        _ if status.is_conflict() || status.is_already_exists() => Class::Conflict,
        _ if status.is_invalid() => Class::Terminal,
        _ => Class::Transient,
    }
}

/// Whether the object or its kind does not exist. The answer for a group that is not served is plain text without a
/// reason, and `is_not_found` of kube 5.0 compares the reason only, so the code is compared too.
pub(crate) fn is_not_found(status: &Status) -> bool {
    status.code == 404 || status.is_not_found()
}

/// Whether a 422 means that the observed state is outdated, and not that the request is invalid.
fn is_lost_race(status: &Status) -> bool {
    status.message.contains(FAILED_PATCH_TEST)
        || status.details.as_ref().is_some_and(|details| {
            // The API server answers an update with the UID of a former object with "invalid", not with a conflict.
            let mut fields = details.causes.iter().map(|cause| cause.field.as_str());
            fields.any(|field| matches!(field, "metadata.resourceVersion" | "metadata.uid"))
        })
}

/// Whether a ValidatingAdmissionPolicy has denied a write (`apiserver/pkg/admission/plugin/policy/validating`); the policy chooses the code.
pub fn is_denied_by_policy(message: &str) -> bool {
    message.contains("ValidatingAdmissionPolicy") && message.contains("denied request")
}

/// Whether a 403 means that the client lacks the right (`apiserver/pkg/endpoints/handlers/responsewriters`, `forbiddenMessage`). A quota,
/// an admission policy and a namespace that is being terminated are answered with 403 too.
pub fn lacks_rights(status: &Status) -> bool {
    let user = status.message.find("User \"");
    status.code == 403 && user.is_some_and(|at| status.message[at..].contains("\" cannot "))
}

fn describe(status: &Status) -> String {
    if let Some((_, at)) = status.message.split_once(NOT_IN_SCHEMA).and_then(|(_, text)| text.split_once("): ")) {
        return format!("the API server does not know a field, or has another type for it: {at}");
    }
    let message = if status.message.is_empty() { "no message" } else { &status.message };
    let message = stable(message);
    if lacks_rights(status) {
        return format!("forbidden, check the operator's RBAC rules: {message}");
    }
    format!("API server answered {}: {message}", status.code)
}

/// The text without what differs from one try to the next: the client's port, durations, ids of requests. A text that differs each time is
/// a new status each time, whose event would bring on the next try before the back-off ends.
pub fn stable(text: &str) -> String {
    static VARYING: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let replaced = [
            (r":[0-9]+->", "->"),
            (r"\b(after|in) ([0-9]+([.][0-9]+)?(h|µs|ms|s|m))+\b", "$1 some time"),
            (r"\b(precondition|object meta): [0-9]+", "$1: …"),
            (r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})", "…"),
            (r"(?i)\b((request|trace|correlation)[-_ ]?id)([=:] ?|\s)[\w-]+", "$1 …"),
            (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "…"),
        ];
        replaced.into_iter().filter_map(|(pattern, with)| Some((Regex::new(pattern).ok()?, with))).collect()
    });
    VARYING.iter().fold(text.to_owned(), |text, (pattern, with)| pattern.replace_all(&text, *with).into_owned())
}

/// The error and its sources on one line, without repetitions.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
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
        let policy = "clusters \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no";
        assert_eq!(class(api(422, "Invalid", policy)), Class::Transient);
        assert_eq!(class(api(500, "", &format!("{NOT_IN_SCHEMA} (a): .spec.b: not declared"))), Class::Terminal);
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
    fn rbac_is_blamed_for_missing_rights_only() {
        let error = |message| Error::from(kube::Error::Api(api(403, "Forbidden", message).boxed()));
        for rights in [
            "byohosts is forbidden: User \"x\" cannot patch resource \"byohosts\" in API group \"y\" in the namespace \"z\"",
            "clusters.cluster.x-k8s.io \"core\" is forbidden: User \"x\" cannot create resource \"clusters\" in API group \"y\" at the cluster scope",
        ] {
            assert!(error(rights).message().starts_with("forbidden, check the operator's RBAC rules: "), "{rights}");
        }
        for other in [
            "secrets \"a\" is forbidden: exceeded quota: q, requested: count/secrets=1, used: count/secrets=0, limited: count/secrets=0",
            "secrets \"a\" is forbidden: unable to create new content in namespace b because it is being terminated",
            "clusters.cluster.x-k8s.io \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
            "admission webhook \"vbyohost.kb.io\" denied the request: no",
            "",
        ] {
            let message = error(other).message().to_owned();
            assert!(message.starts_with("API server answered 403: ") && message.contains(other), "{message}");
        }
        let webhook = error("admission webhook \"vbyohost.kb.io\" denied the request: no").advice("do this");
        assert!(webhook.is_refused_by_webhook("vbyohost.kb.io") && !webhook.is_refused_by_webhook("other"));
        assert!(webhook.message().ends_with("no; do this"));
    }

    #[test]
    fn what_differs_from_try_to_try_is_not_in_a_message() {
        let tries = [
            (
                "failed calling webhook \"a\": read tcp 10.0.0.5:41234->10.96.0.7:443: connection reset by peer",
                "failed calling webhook \"a\": read tcp 10.0.0.5:50001->10.96.0.7:443: connection reset by peer",
            ),
            ("gave up after 1.203s, request ID: 7f3a-1", "gave up after 12s, request ID: 9b01-2"),
            ("denied, retry in 17s", "denied, retry in 1m16s"),
            (
                "the ResourceVersion in the precondition: 17, the ResourceVersion in the object meta: 19",
                "the ResourceVersion in the precondition: 20, the ResourceVersion in the object meta: 31",
            ),
            ("quota was exceeded at 2026-11-28T23:17:15Z", "quota was exceeded at 2026-11-28T23:18:15.25+01:00"),
            (
                "trace 0f8fad5b-d9cb-469f-a165-70867728950e: no leader",
                "trace 7c9e6679-7425-40de-944b-e07fc1f90ae7: no leader",
            ),
        ];
        for (one, other) in tries {
            assert_eq!(stable(one), stable(other));
        }
        let kept = "no answer from the API server within 15 s: 10.96.0.7:443 is down, in 2 namespaces, after 3 tries";
        assert_eq!(stable(kept), kept);
    }

    #[test]
    fn context_keeps_class_and_source() {
        let error = Error::from(kube::Error::Api(api(409, "Conflict", "changed").boxed())).context("claiming x");
        assert_eq!(error.class(), Class::Conflict);
        assert!(error.message().starts_with("claiming x: "));
        let cause = std::error::Error::source(&error).expect("cause");
        assert!(std::error::Error::source(cause).is_some());
    }
}
