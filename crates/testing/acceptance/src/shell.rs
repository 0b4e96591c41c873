//! Runs the blocks of a document.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::document::Block;

/// An environment in which the blocks of a document are run, one after the other. Exported variables are kept for the
/// next block.
pub struct Shell {
    folder: PathBuf,
    state: PathBuf,
    environment: Vec<(String, String)>,
}

impl Shell {
    /// A shell in a folder; `state` is a file for the exported variables.
    pub fn new(folder: PathBuf, state: PathBuf) -> Self {
        Self { folder, state, environment: Vec::new() }
    }

    /// Sets a variable of the environment.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Runs commands, and returns what they printed to standard output and standard error.
    ///
    /// # Errors
    /// When they fail; the error has the last lines of what they printed.
    pub fn run(&self, commands: &str) -> Result<String> {
        let (code, text) = self.attempt(commands)?;
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(40)..].join("\n");
        ensure!(code == 0, "exit code {code}\n$ {commands}\n{last}");
        Ok(text)
    }

    /// Runs commands, and returns their exit code and what they printed to standard output and standard error.
    ///
    /// # Errors
    /// When bash cannot be started or was killed.
    pub fn attempt(&self, commands: &str) -> Result<(i32, String)> {
        let output = self.command(commands).output().context("cannot start bash")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.code().context("bash was killed")?, text))
    }

    /// A process that runs commands in this environment; the caller starts it.
    pub fn command(&self, commands: &str) -> Command {
        let state = self.state.display();
        let script =
            format!("exec 2>&1\nif [ -e '{state}' ]; then . '{state}'; fi\n{commands}\nexport -p >'{state}'\n");
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(&self.folder)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs a block, compares what it prints with the document, and returns it. Does nothing for a block that is not to
    /// be run.
    ///
    /// # Errors
    /// When the block fails, or prints something else.
    pub fn run_block(&self, document: &str, block: &Block) -> Result<String> {
        let place = format!("{document}:{}", block.line);
        if let Some(reason) = &block.not_run {
            eprintln!("{place}: NOT RUN: {reason}");
            return Ok(String::new());
        }
        eprintln!("{place}: {}", block.commands.lines().next().unwrap_or_default());
        let text = self.run(&block.commands).with_context(|| place.clone())?;
        if let Some(missing) = first_missing(&block.output, &text) {
            bail!("{place}: the document says that this is printed:\n{missing}\nbut it was:\n{text}");
        }
        Ok(text)
    }
}

/// The first of these lines that is not in the text after the lines before it.
fn first_missing<'a>(expected: &'a [String], text: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    expected
        .iter()
        .filter(|line| !matches!(line.trim(), "" | "..."))
        .find(|wanted| !lines.any(|line| fits(wanted, line)))
        .map(String::as_str)
}

/// Whether a line matches the wanted one, in which `...` stands for any text.
fn fits(wanted: &str, line: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (wanted, line) = (words(wanted), words(line));
    let mut parts = wanted.split("...").map(str::trim);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    rest.is_empty() || last == Some("")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "in a test it is the message")]

    use super::*;

    #[test]
    fn output_is_compared_in_order_with_gaps() {
        let missing = |expected: &[&str], text: &str| {
            let expected: Vec<_> = expected.iter().map(|line| (*line).to_owned()).collect();
            first_missing(&expected, text).map(ToOwned::to_owned)
        };
        let text = "NAME   AGE\ncore   12s\nedge   Ready   3s\n";
        assert_eq!(missing(&["NAME AGE", "core ...", "edge ... 3s"], text), None);
        assert_eq!(missing(&["core ...", "NAME AGE"], text).as_deref(), Some("NAME AGE"));
        assert_eq!(missing(&["edge ... 4s"], text).as_deref(), Some("edge ... 4s"));
        assert_eq!(missing(&["cor"], text).as_deref(), Some("cor"));
        assert_eq!(missing(&["...", "core 1..."], text), None);
    }

    #[test]
    fn a_shell_keeps_what_is_exported_and_tells_what_failed() {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Shell::new(folder.path().into(), folder.path().join("state"));
        shell.set("GIVEN", "given");
        shell.run("export KEPT=kept").unwrap();
        assert_eq!(shell.run("echo $GIVEN $KEPT").unwrap(), "given kept\n");
        let error = shell.run("echo before; false").unwrap_err().to_string();
        assert!(error.contains("exit code 1") && error.contains("before"), "{error}");
    }
}
