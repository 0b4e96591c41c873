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
    text::cut,
    write::apply::with_timeout,
};

/// Longest message that `metav1.Condition` allows, in bytes. (The API counts characters, of which there are no more.)
pub const MESSAGE_MAX: usize = 32_768;

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// `True`
    True,
    /// `False`
    False,
    /// `Unknown`: not observed (yet).
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

/// A condition as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionUpdate<'a> {
    /// Type, an adjective or participle.
    pub type_: &'a str,
    /// Status.
    pub status: ConditionStatus,
    /// CamelCase constant, never empty.
    pub reason: &'a str,
    /// For people; cut to the length that the API allows.
    pub message: String,
    /// `metadata.generation` that this was observed at.
    pub observed_generation: Option<i64>,
}

/// Puts the condition into the list. `lastTransitionTime` becomes `now` (in whole seconds, as the API stores it) only
/// if the status changes. A known type keeps its position and a new type is appended, so the order is stable.
pub fn set(conditions: &mut Vec<Condition>, new: ConditionUpdate<'_>, now: Timestamp) {
    let mut wanted = Condition {
        type_: new.type_.to_owned(),
        status: new.status.as_str().to_owned(),
        reason: new.reason.to_owned(),
        message: cut(new.message, MESSAGE_MAX),
        observed_generation: new.observed_generation,
        last_transition_time: Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
    };
    let Some(current) = conditions.iter_mut().find(|condition| condition.type_ == wanted.type_) else {
        conditions.push(wanted);
        return;
    };
    if current.status == wanted.status {
        wanted.last_transition_time = current.last_transition_time.clone();
    }
    *current = wanted;
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Writes the status if it differs from the one that was read. Returns the object as stored, or `None` if nothing was
/// written; that includes an object that does not exist any more.
///
/// The write is a server-side apply by the field manager `<manager>/status`, bound to the UID: it does not depend on
/// how fresh `old` is (a merge patch would), removes fields that the new status leaves out, and never changes a later
/// object of the same name.
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
        set(&mut list, ready(ConditionStatus::False, "a"), at(10));
        let first = list.clone();
        set(&mut list, ready(ConditionStatus::False, "a"), at(20));
        assert_eq!(list, first, "unchanged");
        set(&mut list, ready(ConditionStatus::False, "b"), at(30));
        assert_eq!(list[0].message, "b");
        assert_eq!(list[0].last_transition_time.0, Timestamp::from_second(10).expect("in range"));
        set(&mut list, ready(ConditionStatus::True, "b"), at(40));
        assert_eq!(list[0].status, "True");
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
    }
}
