//! The operator as a real process, with the rights that it ships, on a real control plane; hosts are simulated.
//!
//! All scenarios share one bed and run side by side, each in a namespace of its own. What is marked slow runs with
//! `--include-ignored`.

// Test code: a broken assumption may end the scenario.
#![allow(clippy::expect_used, clippy::similar_names)]

mod bad_requests;
mod competition;
mod crash;
mod failures;
#[path = "../harness/mod.rs"]
mod harness;
mod idle;
mod lifecycle;
mod outages;

use std::process::ExitCode;

use harness::{Scenario, World};

fn scenarios() -> Vec<Scenario> {
    [
        lifecycle::scenarios(),
        competition::scenarios(),
        bad_requests::scenarios(),
        failures::scenarios(),
        crash::scenarios(),
        idle::scenarios(),
        outages::scenarios(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn main() -> ExitCode {
    harness::run(scenarios(), World::default())
}
