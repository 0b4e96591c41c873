//! Conditions as `metav1.Condition` defines them, and the status write.

use std::fmt::Debug;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    controller::error::{Error, is_not_found},
    write::apply::with_timeout,
};

/// Longest message that `metav1.Condition` allows, in bytes (the API counts characters; bytes are the safe side).
const MESSAGE_MAX: usize = 32_768;

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// `True`
    True,
    /// `False`
    False,
    /// `Unknown`: not (yet) observed.
    Unknown,
}

impl ConditionStatus {
    /// As `metav1.Condition` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// A condition as it is seen now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionUpdate<'a> {
    /// Type, an adjective or participle.
    pub type_: &'a str,
    /// Status.
    pub status: ConditionStatus,
    /// CamelCase constant, never empty.
    pub reason: &'a str,
    /// For people; truncated to what the API takes.
    pub message: String,
    /// `metadata.generation` that this was observed at.
    pub observed_generation: Option<i64>,
}

/// What [`set`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The condition was there like this.
    Unchanged,
    /// Reason, message or generation changed.
    Updated,
    /// The status changed, or the condition is new.
    Transitioned,
}

/// Puts the condition into the list. `lastTransitionTime` becomes `now` (in whole seconds, as the API stores it) only
/// if the status changes. The place of a known type stays, a new type is appended: the order is stable.
pub fn set(conditions: &mut Vec<Condition>, new: ConditionUpdate<'_>, now: Timestamp) -> Change {
    let mut wanted = Condition {
        type_: new.type_.to_owned(),
        status: new.status.as_str().to_owned(),
        reason: new.reason.to_owned(),
        message: truncated(new.message, MESSAGE_MAX),
        observed_generation: new.observed_generation,
        last_transition_time: Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
    };
    let Some(current) = conditions.iter_mut().find(|condition| condition.type_ == wanted.type_) else {
        conditions.push(wanted);
        return Change::Transitioned;
    };
    let change = if current.status == wanted.status {
        wanted.last_transition_time = current.last_transition_time.clone();
        if *current == wanted { Change::Unchanged } else { Change::Updated }
    } else {
        Change::Transitioned
    };
    *current = wanted;
    change
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Cuts the text to at most `max` bytes, between characters.
pub(crate) fn truncated(mut text: String, max: usize) -> String {
    if text.len() > max {
        let mut end = max.saturating_sub('…'.len_utf8());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Writes the status if it differs from the one that was read. The object as it was written, or `None` if nothing was.
///
/// A server-side apply by the field manager `<manager>/status`, bound to the UID: it does not depend on how fresh
/// `old` is (a merge patch would), takes away what the new status leaves out, and never lands on a later object of
/// the same name.
///
/// An object that is gone has nobody to be told: that is `None` too.
///
/// Errors: [`Error::Conflict`] if the object was replaced.
pub async fn patch_status_if_changed<K, S>(
    api: &Api<K>,
    object: &K,
    old: Option<&S>,
    new: &S,
    manager: &str,
) -> Result<Option<K>, Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
    K::DynamicType: Default,
    S: Serialize,
{
    let new = serde_json::to_value(new)?;
    if let Some(old) = old
        && serde_json::to_value(old)? == new
    {
        return Ok(None);
    }
    let dyntype = K::DynamicType::default();
    let name = object.name_any();
    let patch = json!({
        "apiVersion": K::api_version(&dyntype),
        "kind": K::kind(&dyntype),
        "metadata": { "name": name, "uid": object.uid() },
        "status": new,
    });
    let params = PatchParams::apply(&format!("{manager}/status")).force();
    let call = async {
        match api.patch_status(&name, &params, &Patch::Apply(&patch)).await {
            Ok(written) => Ok(Some(written)),
            Err(kube::Error::Api(status)) if is_not_found(&status) => Ok(None),
            Err(error) => Err(error),
        }
    };
    with_timeout(&format!("writing status of {name}"), call).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 5).expect("in range")
    }

    fn ready(status: ConditionStatus, message: &str) -> ConditionUpdate<'_> {
        ConditionUpdate {
            type_: "Ready",
            status,
            reason: "Because",
            message: message.into(),
            observed_generation: Some(1),
        }
    }

    #[test]
    fn transition_time_moves_with_the_status_alone() {
        let mut list = Vec::new();
        assert_eq!(set(&mut list, ready(ConditionStatus::False, "a"), at(10)), Change::Transitioned);
        assert_eq!(set(&mut list, ready(ConditionStatus::False, "a"), at(20)), Change::Unchanged);
        assert_eq!(set(&mut list, ready(ConditionStatus::False, "b"), at(30)), Change::Updated);
        assert_eq!(list[0].last_transition_time.0, Timestamp::from_second(10).expect("in range"));
        assert_eq!(set(&mut list, ready(ConditionStatus::True, "b"), at(40)), Change::Transitioned);
        assert_eq!(list[0].last_transition_time.0, Timestamp::from_second(40).expect("in range"));
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn a_condition_survives_the_round_trip_unchanged() {
        let mut list = Vec::new();
        set(&mut list, ready(ConditionStatus::True, "a"), at(10));
        let stored = serde_json::to_string(&list).expect("encodes");
        let read: Vec<Condition> = serde_json::from_str(&stored).expect("decodes");
        assert_eq!(read, list);
    }

    #[test]
    fn order_is_stable() {
        let mut list = Vec::new();
        for type_ in ["Stalled", "Ready", "Reconciling", "Ready", "Stalled"] {
            set(&mut list, ConditionUpdate { type_, ..ready(ConditionStatus::True, "") }, at(1));
        }
        let types: Vec<&str> = list.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(types, ["Stalled", "Ready", "Reconciling"]);
        assert!(find(&list, "Ready").is_some());
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let mut list = Vec::new();
        set(&mut list, ready(ConditionStatus::True, &"ä".repeat(MESSAGE_MAX)), at(1));
        assert!(list[0].message.len() <= MESSAGE_MAX);
        assert!(list[0].message.ends_with("ä…"));
        assert_eq!(truncated("short".into(), 5), "short");
    }
}
