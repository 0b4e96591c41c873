//! The pure steps without an API server: plan, status, and what holds in every world that can be reached. Runs in
//! seconds.

#![allow(clippy::unwrap_used, clippy::panic, reason = "everything here is a test")]

mod decisions;
mod events;
mod metrics;
mod model;
mod orphans;
mod properties;
mod traces;
