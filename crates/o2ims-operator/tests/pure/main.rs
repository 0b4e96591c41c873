//! The pure steps without a cluster: what holds in every world that can be reached, what users are told, and the exact
//! objects that are made. Runs in seconds.

#![allow(clippy::unwrap_used, clippy::panic, reason = "everything here is a test")]
#![allow(clippy::too_many_lines, reason = "a scenario is one story, a table one list")]

mod certificates;
mod consent;
mod contention;
mod dead_servers;
mod errors;
mod golden;
mod host_scripts;
mod lookups;
mod maintenance;
mod masters;
mod messages;
mod metrics;
mod model;
mod orphans;
mod properties;
mod provisioners;
mod refusals;
mod revisions;
mod rolling;
mod rules;
mod status;
mod support;
mod templates;
mod traces;
mod troubles;
mod upgrades;
