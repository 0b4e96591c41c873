//! Runs programs as a user does, in the repository's folder.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

pub use acceptance::top;
use anyhow::{Context as _, ensure};

/// Result of a test.
pub type Outcome = anyhow::Result<()>;

/// The output of a program.
pub struct Written {
    pub well: bool,
    pub out: String,
    pub errors: String,
}

/// Runs a program with this input.
pub fn run<S: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = S>,
    input: &str,
) -> anyhow::Result<Written> {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(top())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let output = std::thread::scope(|scope| {
        // An error means that the program does not read its input; its own message is then the one to report.
        scope.spawn(move || drop(stdin.write_all(input.as_bytes())));
        child.wait_with_output()
    })?;
    Ok(Written {
        well: output.status.success(),
        out: String::from_utf8(output.stdout)?,
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a program that must succeed, and returns its output.
pub fn must<S: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = S>,
    input: &str,
) -> anyhow::Result<Written> {
    let written = run(program, arguments, input)?;
    ensure!(written.well, "{} failed:\n{}{}", program.display(), written.errors, written.out);
    Ok(written)
}
