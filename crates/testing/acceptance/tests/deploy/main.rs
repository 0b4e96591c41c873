//! What is shipped for a management cluster: overlays, chart, examples, alerts, and the images' programs. They are
//! rendered by the programs that users have, and checked by a real API server with Cluster API and BYOH. Pods do not
//! run, because the cluster has no nodes.

// Test code may panic.
#![allow(clippy::expect_used)]

mod cluster;
mod helm;
mod images;
mod monitoring;
mod rendering;
mod run;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use run::Outcome;

/// A test: name, whether it is slow, and function.
type Test = (&'static str, bool, fn() -> Outcome);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let shared = Arc::new(cluster::Shared::new().expect("a runtime"));
    let mut trials = Vec::new();
    let alone = rendering::TESTS.iter().chain(monitoring::TESTS).chain(images::TESTS).chain(helm::TESTS);
    for (name, slow, test) in alone {
        trials.push(Trial::test(*name, move || report(test())).with_ignored_flag(*slow));
    }
    for (name, test) in cluster::TESTS {
        let shared = Arc::clone(&shared);
        trials.push(Trial::test(*name, move || report(shared.with_bed(*test))));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let stopped = shared.stop();
    if let Err(error) = &stopped {
        eprintln!("stopping the management: {error:#}");
    }
    if conclusion.has_failed() || stopped.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn report(outcome: Outcome) -> Result<(), Failed> {
    outcome.map_err(|error| format!("{error:#}").into())
}
