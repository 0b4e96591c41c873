//! Runs other programs to their end.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// How many lines of its output the error of a failed program quotes.
const QUOTED_LINES: usize = 15;

/// Runs a program and returns its standard output.
///
/// # Errors
/// When the program cannot be started, or fails; the error has the last lines of its output.
pub async fn run(command: &mut Command) -> Result<String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot start {name}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    bail!("{name} failed ({}):\n{}", output.status, last_lines(&text, QUOTED_LINES))
}

/// The last lines of a text, at most `number`, joined by line breaks.
pub fn last_lines(text: &str, number: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(number)..].join("\n")
}

/// Whether a program is in PATH.
pub(crate) fn is_installed(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
