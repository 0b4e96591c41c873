//! Conditions of Cluster API's and BYOH's objects, in the style of v1beta1 and in that of v1beta2.

use serde::Deserialize;

/// A condition of either style.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
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
    /// `Error`, `Warning` or `Info`, older style only.
    #[serde(default)]
    pub severity: String,
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

    /// `Reason: message`, or what there is of it.
    pub fn explain(&self) -> String {
        match (self.reason.is_empty(), self.message.is_empty()) {
            (false, false) => format!("{}: {}", self.reason, one_line(&self.message)),
            (false, true) => self.reason.clone(),
            (true, _) => one_line(&self.message),
        }
    }
}

/// The v1beta2 conditions of an object of API version v1beta1.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct V1Beta2Status {
    /// The conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// A message of Cluster API, which is a list of lines, as one line.
pub fn one_line(message: &str) -> String {
    message
        .lines()
        .map(|line| line.trim().trim_start_matches("* "))
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}
