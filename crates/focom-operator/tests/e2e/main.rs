//! The operator as a real process, with the rights that it ships, between real API servers: one SMO and two O-Clouds with the
//! O2IMS operator. Hosts are simulated.
//!
//! Scenarios run side by side, each in a namespace of its own, or alone where they disturb or count what others do. What is
//! marked slow runs with `--include-ignored`.

// Test code: a broken assumption may end the scenario.
#![allow(clippy::expect_used, clippy::similar_names)]
#![allow(clippy::too_many_lines, reason = "a scenario is one story, a table one list")]

mod attacks;
mod coming_back;
mod crash;
mod day_two;
mod deletion;
mod harness;
mod hostile;
mod idle;
mod lifecycle;
mod nephio;
mod o_clouds;
mod protection;
mod revisions;
mod secrecy;
mod templates;

use std::process::ExitCode;

fn main() -> ExitCode {
    let scenarios = [
        lifecycle::scenarios(),
        attacks::scenarios(),
        o_clouds::scenarios(),
        day_two::scenarios(),
        revisions::scenarios(),
        deletion::scenarios(),
        templates::scenarios(),
        hostile::scenarios(),
        crash::scenarios(),
        secrecy::scenarios(),
        nephio::scenarios(),
        coming_back::scenarios(),
        protection::scenarios(),
        idle::scenarios(),
    ];
    harness::run(scenarios.into_iter().flatten().collect())
}
