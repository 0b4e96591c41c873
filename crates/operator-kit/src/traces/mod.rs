//! Traces by OpenTelemetry: spans that are sent when they have ended, to an OTLP endpoint. Without an endpoint nothing is
//! built and nothing runs.
//!
//! No context is passed on between processes. Ids are functions of UIDs, names and times, so all processes agree on them,
//! and a process that starts again does not name a span otherwise.

mod collector;
mod exporter;
mod queue;
mod settings;
mod span;
mod stages;

pub use exporter::TraceExporter;
pub use opentelemetry::KeyValue;
pub use queue::Traces;
pub use settings::TraceSettings;
pub use span::{Span, Whole};
pub use stages::{EndedStage, ended_stages};
