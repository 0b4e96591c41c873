//! Documents whose commands are run.
//!
//! A fenced block `sh` has commands, which bash runs in the order of the document, all in one environment. A block
//! `text` right after it is their output: each of its lines must be among the printed lines, in this order. `...`
//! stands for any text, and any white space for any other. A comment `<!-- not run: REASON -->` before a block excludes
//! it.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::repository::top;

/// Commands of a document, and their output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Number of the block's first line, from 1.
    pub line: usize,
    /// The commands.
    pub commands: String,
    /// Lines of the output; empty if the document has none.
    pub output: Vec<String>,
    /// Why the block is not run.
    pub not_run: Option<String>,
}

/// The blocks of a document of this repository, in their order.
///
/// # Errors
/// When the document cannot be read, or a block has no end.
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
}
