//! The pure steps without an API server: plan, status, and what holds in every world that can be reached. Runs in
//! seconds.

#![allow(clippy::unwrap_used, clippy::panic, reason = "everything here is a test")]
#![allow(clippy::too_many_lines, reason = "a scenario is one story, a table one list")]

mod decisions;
mod events;
mod kubeconfigs;
mod messages;
mod metrics;
mod model;
mod o_clouds;
mod orphans;
mod properties;
mod requests;
mod traces;
mod writes;
