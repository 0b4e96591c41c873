//! The operator as a real process, with the rights that it ships, between real API servers: one SMO and two O-Clouds with the
//! O2IMS operator. Hosts are simulated.
//!
//! Scenarios run side by side, each in a namespace of its own, or alone where they disturb or count what others do. What is
//! marked slow runs with `--include-ignored`.

// Test code: a broken assumption may end the scenario.
#![allow(clippy::expect_used, clippy::similar_names)]

mod harness;
mod lifecycle;
mod o_clouds;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::run([lifecycle::scenarios(), o_clouds::scenarios()].into_iter().flatten().collect())
}
