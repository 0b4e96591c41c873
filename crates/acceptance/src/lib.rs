//! What the tests of the way in share: documents whose commands are run.
//!
//! In a document a fenced block `sh` is commands, run by bash in the order of the page, in one environment. A block `text`
//! right after it is what they print: each of its lines must be among the printed ones, in this order, where `...` stands for
//! anything and any space for any other. A comment `<!-- not run: REASON -->` before a block leaves it out.

pub mod ansible;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// Commands of a document, and what they print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where it begins, from 1.
    pub line: usize,
    /// What is run.
    pub commands: String,
    /// Lines of the output.
    pub output: Vec<String>,
    /// Why it is not run.
    pub not_run: Option<String>,
}

/// The folder of the repository.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap_or_default()
}

/// The blocks of a document of the repository, in their order.
///
/// # Errors
/// When it cannot be read, or a block has no end.
pub fn blocks(document: &str) -> Result<Vec<Block>> {
    let text = fs::read_to_string(top().join(document)).with_context(|| format!("cannot read {document}"))?;
    read_blocks(&text).with_context(|| document.to_owned())
}

fn read_blocks(text: &str) -> Result<Vec<Block>> {
    const REASON: &str = "<!-- not run: ";
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = text.lines().enumerate();
    let (mut reason, mut after_commands) = (None, false);
    while let Some((number, line)) = lines.next() {
        if let Some(rest) = line.trim().strip_prefix(REASON) {
            reason = Some(rest.trim_end_matches("-->").trim().to_owned());
        } else if let Some(language) = line.trim_start().strip_prefix("```") {
            let indent = line.len() - line.trim_start().len();
            let mut content = Vec::new();
            loop {
                let Some((_, line)) = lines.next() else { bail!("the block of line {} has no end", number + 1) };
                if line.trim() == "```" {
                    break;
                }
                content.push(line.get(indent..).unwrap_or_default().to_owned());
            }
            match language.trim() {
                "sh" => blocks.push(Block {
                    line: number + 1,
                    commands: content.join("\n"),
                    output: Vec::new(),
                    not_run: reason.take(),
                }),
                "text" if after_commands => {
                    if let Some(block) = blocks.last_mut() {
                        block.output = content;
                    }
                }
                _ => {}
            }
            after_commands = language.trim() == "sh";
        } else if !line.trim().is_empty() {
            (reason, after_commands) = (None, false);
        }
    }
    Ok(blocks)
}

/// An environment in which the blocks of a document are run one after the other: what one exports, the next has.
pub struct Shell {
    folder: PathBuf,
    state: PathBuf,
    environment: Vec<(String, String)>,
}

impl Shell {
    /// A shell in this folder; `state` is a file for what is exported.
    pub fn new(folder: PathBuf, state: PathBuf) -> Self {
        Self { folder, state, environment: Vec::new() }
    }

    /// Sets a variable of the environment.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Runs commands and returns what they printed, errors included.
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

    /// Runs commands and returns their exit code and what they printed, errors included.
    ///
    /// # Errors
    /// When bash cannot be started or was killed.
    pub fn attempt(&self, commands: &str) -> Result<(i32, String)> {
        let output = self.command(commands).output().context("cannot start bash")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.code().context("bash was killed")?, text))
    }

    /// Commands in this environment, to be started.
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

    /// Runs a block, unless it says why not, compares what it prints, and returns that.
    ///
    /// # Errors
    /// When it fails or prints something else.
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

/// The first of these lines that does not follow the ones before it in the text.
fn first_missing<'a>(expected: &'a [String], text: &str) -> Option<&'a str> {
    let mut lines = text.lines();
    expected
        .iter()
        .filter(|line| !matches!(line.trim(), "" | "..."))
        .find(|wanted| !lines.any(|line| fits(wanted, line)))
        .map(String::as_str)
}

/// Whether a line is this one, where `...` stands for anything.
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
    fn blocks_are_read_with_their_output_and_reasons() {
        let text = "# A\n```sh\na\nb\n```\n\n```text\nout\n```\nWords.\n```text\nnot the output\n```\n<!-- not run: no Docker -->\n```sh\nc\n```\n```yaml\nd: e\n```\n";
        let blocks = read_blocks(text).unwrap();
        assert_eq!(blocks.len(), 2);
        assert_eq!((blocks[0].line, blocks[0].commands.as_str()), (2, "a\nb"));
        assert_eq!((&blocks[0].output, &blocks[0].not_run), (&vec!["out".to_owned()], &None));
        assert_eq!(blocks[1].not_run.as_deref(), Some("no Docker"));
        assert!(read_blocks("```sh\na\n").is_err());
    }

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
