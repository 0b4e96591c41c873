//! Shared runtime of the operators: what a reconcile returns, how objects are watched, written and reported,
//! and how the process starts, elects a leader and stops. It knows no domain word.

pub mod admin;
pub mod apply;
pub mod client;
pub mod events;
pub mod lease;
pub mod metrics;
pub mod outcome;
pub mod reflect;
pub mod run;
pub mod status;
pub mod telemetry;
#[cfg(test)]
mod testing;

pub use lease::Leadership;
pub use metrics::Metrics;
pub use outcome::{Error, Outcome};
pub use reflect::{Reflection, SyncState, Trigger};
pub use run::{Controller, Process, Tasks};
