//! Conditions of Cluster API's and BYOH's objects.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

/// A condition.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: String,
    /// Reason, CamelCase.
    #[serde(default)]
    pub reason: String,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// `Error`, `Warning` or `Info`; BYOH's objects only.
    #[serde(default)]
    pub severity: String,
    /// When its status changed last.
    pub last_transition_time: Option<Time>,
}

impl Condition {
    /// The condition of this type, if there is one.
    pub fn find<'a>(conditions: &'a [Self], type_: &str) -> Option<&'a Self> {
        conditions.iter().find(|condition| condition.type_ == type_)
    }

    /// Whether the condition of this type is there and True.
    pub fn is_true(conditions: &[Self], type_: &str) -> bool {
        Self::find(conditions, type_).is_some_and(|condition| condition.status == "True")
    }

    /// Since when it has its status, if it says so.
    pub fn since(&self) -> Option<Timestamp> {
        self.last_transition_time.as_ref().map(|time| time.0)
    }

    /// `Reason: message`, or what there is of it.
    pub fn explain(&self) -> String {
        match (self.reason.is_empty(), self.message.is_empty()) {
            (false, false) => format!("{}: {}", self.reason, one_line(&self.message)),
            (false, true) => self.reason.clone(),
            (true, _) => one_line(&self.message),
        }
    }
}

/// A message of Cluster API, which is a list of lines, as one line.
pub fn one_line(message: &str) -> String {
    let lines: Vec<_> =
        message.lines().map(|line| line.trim().trim_start_matches("* ")).filter(|line| !line.is_empty()).collect();
    lines.join("; ").replace(":; ", ": ")
}
