//! What becomes a span of a status: stages that have ended, by the transition times of their conditions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{
    traces::span::{Span, Whole},
    write::status::find,
};

/// Condition by which kstatus says that action is required.
const STALLED: &str = "Stalled";

/// A stage that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct EndedStage<'a> {
    /// Type of its condition.
    pub name: &'static str,
    /// When it began: its condition became False. Of a stage that was never in progress, when it was first reported or, of
    /// the first ones, when the object was created.
    pub start: Time,
    /// When its condition became True, or when it failed.
    pub end: Time,
    /// Its condition, if it is the reason why the object is stalled.
    pub failure: Option<&'a Condition>,
}

impl EndedStage<'_> {
    /// Its span, within `parent`. The outcome is `succeeded`, or the reason of the failure.
    pub fn span(&self, parent: &Whole) -> Span {
        let span = parent.part(self.name, &self.start, &self.end);
        match self.failure {
            Some(failure) => span.outcome(failure.reason.clone()).failed(&failure.message),
            None => span.outcome("succeeded"),
        }
    }
}

/// The stages that have ended with this change of the conditions: those of these types that became True, and one that made
/// the object stalled. `created` is the creation of the object.
pub fn ended_stages<'a>(
    old: &[Condition],
    new: &'a [Condition],
    types: &[&'static str],
    created: &Time,
) -> Vec<EndedStage<'a>> {
    let stalled = newly_stalled(old, new);
    let mut ended = Vec::new();
    for name in types {
        let (before, Some(now)) = (find(old, name), find(new, name)) else { continue };
        let start = match before {
            None => created,
            Some(before) if before.status == "False" => &before.last_transition_time,
            // It waited for an earlier stage, or was paused.
            Some(_) => &now.last_transition_time,
        };
        let (end, failure) = match stalled.filter(|stalled| now.status == "False" && now.reason == stalled.reason) {
            Some(stalled) => ((&stalled.last_transition_time).max(&now.last_transition_time), Some(now)),
            None if now.status == "True" && before.is_none_or(|before| before.status != "True") => {
                (&now.last_transition_time, None)
            }
            None => continue,
        };
        ended.push(EndedStage { name, start: start.clone(), end: end.clone(), failure });
    }
    ended
}

/// The condition Stalled, if it became True, or has another reason than before.
fn newly_stalled<'a>(old: &[Condition], new: &'a [Condition]) -> Option<&'a Condition> {
    let stalled = find(new, STALLED).filter(|stalled| stalled.status == "True")?;
    let is_known = find(old, STALLED).is_some_and(|old| old.status == "True" && old.reason == stalled.reason);
    (!is_known).then_some(stalled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    const TYPES: [&str; 2] = ["HostsReserved", "NodesReady"];

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).expect("in range"))
    }

    fn condition(type_: &str, status: &str, reason: &str, second: i64) -> Condition {
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: format!("message of {type_}"),
            last_transition_time: at(second),
            observed_generation: None,
        }
    }

    /// Name, start and end in seconds, and the message of a failure.
    fn told(old: &[Condition], new: &[Condition]) -> Vec<(&'static str, i64, i64, Option<String>)> {
        let ended = ended_stages(old, new, &TYPES, &at(1));
        let told = ended.into_iter().map(|stage| {
            let message = stage.failure.map(|condition| condition.message.clone());
            (stage.name, stage.start.0.as_second(), stage.end.0.as_second(), message)
        });
        told.collect()
    }

    #[test]
    fn a_stage_lasts_while_its_condition_is_false() {
        let begun =
            [condition("HostsReserved", "False", "InProgress", 10), condition("NodesReady", "Unknown", "Waiting", 10)];
        let reserved =
            [condition("HostsReserved", "True", "Succeeded", 30), condition("NodesReady", "False", "InProgress", 30)];
        assert_eq!(told(&begun, &reserved), [("HostsReserved", 10, 30, None)]);
        assert_eq!(told(&reserved, &reserved), [], "it is told once");
        assert_eq!(told(&[], &begun), [], "nothing has ended");
    }

    #[test]
    fn a_stage_with_nothing_to_do_takes_no_time() {
        let waiting = [condition("NodesReady", "Unknown", "Waiting", 10)];
        assert_eq!(told(&waiting, &[condition("NodesReady", "True", "Succeeded", 30)]), [("NodesReady", 30, 30, None)]);
        let first = [condition("HostsReserved", "True", "Succeeded", 5)];
        assert_eq!(told(&[], &first), [("HostsReserved", 1, 5, None)], "since the creation of the object");
    }

    #[test]
    fn a_stage_that_fails_is_told_once_for_each_reason() {
        let begun = [condition("NodesReady", "False", "InProgress", 10), condition("Stalled", "False", "Idle", 2)];
        let late = [
            condition("NodesReady", "False", "DeadlineExceeded", 10),
            condition("Stalled", "True", "DeadlineExceeded", 70),
        ];
        let message = Some("message of NodesReady".to_owned());
        assert_eq!(told(&begun, &late), [("NodesReady", 10, 70, message.clone())]);
        assert_eq!(told(&late, &late), []);
        let lost = [condition("NodesReady", "False", "Lost", 10), condition("Stalled", "True", "Lost", 70)];
        assert_eq!(told(&late, &lost), [("NodesReady", 10, 70, message.clone())]);
        let wrong = [condition("HostsReserved", "False", "Invalid", 3), condition("Stalled", "True", "Invalid", 3)];
        assert_eq!(told(&[], &wrong), [("HostsReserved", 1, 3, Some("message of HostsReserved".to_owned()))]);
        let recovered = [condition("NodesReady", "True", "Succeeded", 90), condition("Stalled", "False", "Idle", 90)];
        assert_eq!(told(&late, &recovered), [("NodesReady", 10, 90, None)]);
    }
}
