//! The operator as a real process, with the rights that it ships, on a real control plane; hosts are simulated.
//!
//! Scenarios run side by side: on one management cluster that they share, each in a namespace of its own, or on a management cluster of their own where they
//! disturb or count what others do. What is marked slow runs with `--include-ignored`.

// Test code: a broken assumption may end the scenario.
#![allow(clippy::expect_used, clippy::similar_names)]
#![allow(clippy::too_many_lines, reason = "a scenario is one story, a table one list")]

mod admission;
mod bad_requests;
mod certificates;
mod competition;
mod consent;
mod crash;
mod edits;
mod failures;
mod harness;
mod idle;
mod lifecycle;
mod maintenance;
mod masters;
mod moving;
mod outages;
mod providers;
mod requests;
mod revisions;
mod rolling;
mod servers;
mod silence;
mod support;
mod traces;
mod upgrade_faults;
mod upgrades;

use std::process::ExitCode;

use harness::Scenario;

fn scenarios() -> Vec<Scenario> {
    // What takes longest begins first.
    [
        servers::scenarios(),
        upgrade_faults::scenarios(),
        upgrades::scenarios(),
        rolling::scenarios(),
        certificates::scenarios(),
        maintenance::scenarios(),
        masters::scenarios(),
        edits::scenarios(),
        consent::scenarios(),
        moving::scenarios(),
        crash::scenarios(),
        outages::scenarios(),
        idle::scenarios(),
        traces::scenarios(),
        providers::scenarios(),
        failures::scenarios(),
        lifecycle::scenarios(),
        revisions::scenarios(),
        competition::scenarios(),
        admission::scenarios(),
        bad_requests::scenarios(),
        requests::scenarios(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn main() -> ExitCode {
    harness::run(scenarios())
}
