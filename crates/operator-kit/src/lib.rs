//! Shared runtime of the operators: what a reconcile returns, how objects are watched, written and reported,
//! and how the process starts, elects a leader and stops. It knows no domain word.

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
pub mod write;
