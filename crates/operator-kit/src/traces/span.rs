//! Spans, and the ids by which processes agree on them.

use std::time::SystemTime;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use sha2::{Digest as _, Sha256};

use crate::text::cut;

/// Longest message of a failure, in bytes.
const MESSAGE_MAX: usize = 4_096;

/// A span of which an object has only one. Its id does not depend on its times, so that its parts can name it as their
/// parent before it has ended, in any process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    trace: TraceId,
    id: SpanId,
    parent: SpanId,
    name: &'static str,
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The trace that it belongs to.
    pub trace: TraceId,
    /// Its own id.
    pub id: SpanId,
    /// The span that it is within; zero for a root.
    pub parent: SpanId,
    /// What took place.
    pub name: &'static str,
    /// When that began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// What it was about.
    pub attributes: Vec<KeyValue>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

impl Whole {
    /// The root of the trace of the object that has this UID. The UID is the id of the trace, as both have 128 bits.
    pub fn root(uid: &str, name: &'static str) -> Self {
        Self { trace: trace_id(uid), id: span_id(&[uid.as_bytes(), name.as_bytes()]), parent: SpanId::INVALID, name }
    }

    /// A span within this one, of the object that has this UID.
    #[must_use]
    pub fn child(&self, uid: &str, name: &'static str) -> Self {
        let id = span_id(&[&self.trace.to_bytes(), uid.as_bytes(), name.as_bytes()]);
        Self { trace: self.trace, id, parent: self.id, name }
    }

    /// The span itself, when it has ended.
    pub fn ended(&self, start: &Time, end: &Time) -> Span {
        Span {
            trace: self.trace,
            id: self.id,
            parent: self.parent,
            name: self.name,
            start: start.0,
            // Times are of several clocks: one may be ahead.
            end: end.0.max(start.0),
            attributes: Vec::new(),
            failure: None,
        }
    }

    /// A span within this one that has ended. There may be several of one name, at other times.
    pub fn part(&self, name: &'static str, start: &Time, end: &Time) -> Span {
        let times = [start, end].map(|time| time.0.as_nanosecond().to_be_bytes());
        let id = span_id(&[&self.trace.to_bytes(), &self.id.to_bytes(), name.as_bytes(), &times[0], &times[1]]);
        Self { trace: self.trace, id, parent: self.id, name }.ended(start, end)
    }
}

impl Span {
    /// Adds attributes.
    #[must_use]
    pub fn with(mut self, attributes: impl IntoIterator<Item = KeyValue>) -> Self {
        self.attributes.extend(attributes);
        self
    }

    /// Adds how it ended: one word, such as `succeeded`.
    #[must_use]
    pub fn outcome(self, outcome: impl Into<String>) -> Self {
        self.with([KeyValue::new("outcome", outcome.into())])
    }

    /// Marks it as failed, for the reason in this message.
    #[must_use]
    pub fn failed(self, message: &str) -> Self {
        Self { failure: Some(cut(message.to_owned(), MESSAGE_MAX)), ..self }
    }

    /// As OpenTelemetry's exporters take it.
    pub(super) fn into_data(self, scope: InstrumentationScope) -> SpanData {
        SpanData {
            span_context: SpanContext::new(self.trace, self.id, TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: self.parent,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: self.name.into(),
            start_time: SystemTime::from(self.start),
            end_time: SystemTime::from(self.end),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: self.failure.map_or(Status::Unset, Status::error),
            instrumentation_scope: scope,
        }
    }
}

/// The UID, or a hash of it if it is none.
fn trace_id(uid: &str) -> TraceId {
    let digits: String = uid.chars().filter(|character| *character != '-').collect();
    let parsed = if digits.len() == 32 { TraceId::from_hex(&digits).ok() } else { None };
    parsed.filter(|id| *id != TraceId::INVALID).unwrap_or_else(|| TraceId::from_bytes(hash(&[uid.as_bytes()])))
}

fn span_id(parts: &[&[u8]]) -> SpanId {
    SpanId::from_bytes(hash(parts))
}

/// The first bytes of the parts' SHA-256. Each part goes with its length, so that no two lists of parts read the same.
fn hash<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    std::array::from_fn(|byte| digest[byte])
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "6f9619ff-8b86-4011-b42d-00cf4fc964ff";

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).expect("in range"))
    }

    #[test]
    fn a_uid_is_the_id_of_its_trace() {
        assert_eq!(trace_id(UID).to_string(), "6f9619ff8b864011b42d00cf4fc964ff");
        for uid in ["", "00000000-0000-0000-0000-000000000000", "no uid", "+f9619ff-8b86-4011-b42d-00cf4fc964ff"] {
            assert_ne!(trace_id(uid), TraceId::INVALID, "{uid:?}");
            assert_eq!(trace_id(uid), trace_id(uid), "{uid:?}");
        }
    }

    #[test]
    fn ids_are_the_same_in_every_process() {
        let root = Whole::root(UID, "Request");
        let child = root.child("other", "Cluster");
        // These values must not change: operators of two releases share a trace.
        assert_eq!(root.id.to_string(), "54264189cad8b282");
        assert_eq!(child.id.to_string(), "af09304017a0ae5c");
        assert_eq!(child.part("Stage", &at(1), &at(2)).id.to_string(), "ef0369bbe644ffc6");
    }

    #[test]
    fn another_object_name_or_time_has_another_id() {
        let root = Whole::root(UID, "Request");
        let mut ids = vec![root.id, root.child("a", "bc").id, root.child("ab", "c").id, root.child("ab", "d").id];
        for (name, start, end) in [("Stage", 1, 2), ("Stage", 1, 3), ("Stage", 2, 3), ("Other", 1, 2)] {
            ids.push(root.part(name, &at(start), &at(end)).id);
        }
        let different: std::collections::BTreeSet<_> = ids.iter().map(ToString::to_string).collect();
        assert_eq!(different.len(), ids.len(), "{ids:?}");
    }

    #[test]
    fn a_span_is_exported_with_its_parent_times_and_failure() {
        let root = Whole::root(UID, "Request");
        let attributes = [KeyValue::new("hosts", 3)];
        let span = root.part("Stage", &at(5), &at(4)).with(attributes.clone()).failed(&"x".repeat(5_000));
        let data = span.into_data(InstrumentationScope::default());
        assert_eq!(data.span_context.trace_id(), root.trace);
        assert!(data.span_context.is_valid() && data.span_context.is_sampled());
        assert_eq!(data.parent_span_id, root.id);
        assert_eq!(
            (data.start_time, data.end_time),
            (at(5).0.into(), at(5).0.into()),
            "it does not end before it starts"
        );
        assert_eq!(data.attributes, attributes);
        assert!(matches!(&data.status, Status::Error { description } if description.len() == MESSAGE_MAX), "{data:?}");
        let data = root.ended(&at(1), &at(2)).into_data(InstrumentationScope::default());
        assert_eq!((data.parent_span_id, data.status), (SpanId::INVALID, Status::Unset));
    }
}
