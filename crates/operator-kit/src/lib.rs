//! Shared runtime of the operators, independent of their domain: controllers, cached watches, writes to the API server,
//! and the process with its leader election, events, logs and metrics.

pub mod admin;
pub mod cache;
pub mod client;
pub mod controller;
pub mod events;
pub mod metrics;
pub mod process;
mod random;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod text;
pub mod traces;
pub mod write;
