//! The tutorial, on this machine: each of its commands is run, and its output compared.

use std::process::ExitCode;

use acceptance::{Shell, blocks, top};
use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use testenv::servers::unsupported_reason;

const TUTORIAL: &str = "docs/tutorial.md";

fn main() -> ExitCode {
    let mut trials = vec![
        Trial::test("the_tutorial_works_as_it_is_written", || {
            tutorial().map_err(|error| Failed::from(format!("{error:#}")))
        })
        // `.ci/run` runs the sandbox by a step of its own.
        .with_ignored_flag(true),
    ];
    match testenv::servers::left_out().or_else(|_| unsupported_reason()) {
        Ok(None) => {}
        Ok(Some(why)) => {
            eprintln!("LEFT OUT: the tutorial, which is written for servers ({why})");
            trials.clear();
        }
        Err(error) => eprintln!("{error:#}"),
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn tutorial() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut shell = Shell::new(top(), folder.path().join("environment"));
    // Not in the way of a sandbox that the user has started.
    shell.set("O2IMS_SANDBOX_STATE", folder.path().join("sandbox").display().to_string());
    // The sandbox makes namespaces of its own, which outlive the command that starts it.
    shell.set("O2IMS_OWN_NAMESPACE", "");
    let run = || blocks(TUTORIAL)?.iter().try_for_each(|block| shell.run_block(TUTORIAL, block).map(drop));
    let result = run();
    // Also after a failed block nothing may stay.
    let stopped = shell.run("./mgmt.sh sandbox down");
    result.and(stopped.map(drop))
}
