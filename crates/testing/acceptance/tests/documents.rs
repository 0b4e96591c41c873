//! The documents are correct: each command is run by a test, each link has a target, and each message that they explain
//! is a message of the product.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test they are the message")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use acceptance::{blocks, top};

/// Documents whose commands are run, block by block.
const RUN: [&str; 3] = ["docs/tutorial.md", "docs/servers.md", "docs/backup.md"];

/// All documents, by path in the repository.
fn documents() -> Vec<String> {
    let mut all = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned(), "SECURITY.md".to_owned()];
    all.push("ansible/README.md".to_owned());
    let mut in_docs: Vec<_> = fs::read_dir(top().join("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_string_lossy()))
        .collect();
    in_docs.sort();
    all.extend(in_docs);
    all
}

/// A command without its comment, and with single spaces.
fn command(line: &str) -> String {
    let line = line.split(" #").next().unwrap_or_default();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_command_is_run_or_says_why_not() {
    let mut run = BTreeSet::new();
    for document in RUN {
        for block in blocks(document).unwrap().into_iter().filter(|block| block.not_run.is_none()) {
            run.extend(block.commands.lines().map(command));
        }
    }
    let mut unproven = Vec::new();
    for document in documents().iter().filter(|document| !RUN.contains(&document.as_str())) {
        for block in blocks(document).unwrap().iter().filter(|block| block.not_run.is_none()) {
            for line in block.commands.lines().map(command).filter(|line| !line.is_empty()) {
                if !run.contains(&line) {
                    unproven.push(format!("{document}:{}: {line}", block.line));
                }
            }
        }
    }
    assert!(unproven.is_empty(), "no test runs these, and no reason is given:\n{}", unproven.join("\n"));
}

#[test]
fn commands_are_marked_as_such() {
    // A block without a language would be overlooked: no test runs it.
    const PROGRAMS: [&str; 7] = ["./mgmt.sh", "kubectl", "ansible", "docker", "helm", "cargo", "sed"];
    let mut unmarked = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(top().join(&document)).unwrap();
        let mut language = None;
        for (number, line) in text.lines().enumerate() {
            if let Some(rest) = line.trim_start().strip_prefix("```") {
                language = if language.is_some() { None } else { Some(rest.trim().to_owned()) };
            } else if language.as_deref() == Some("")
                && PROGRAMS.iter().any(|program| line.trim_start().starts_with(program))
            {
                unmarked.push(format!("{document}:{}: {line}", number + 1));
            }
        }
    }
    assert!(unmarked.is_empty(), "commands in blocks that are not marked `sh`:\n{}", unmarked.join("\n"));
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let path = top().join(&document);
        let text = fs::read_to_string(&path).unwrap();
        // Code has no links.
        let text: String = text.split('`').step_by(2).collect();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") || link.starts_with("mailto") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            if !target.exists() {
                broken.push(format!("{document}: {link}: there is no such file"));
            } else if !anchor.is_empty() && !anchors(&target).contains(anchor) {
                broken.push(format!("{document}: {link}: there is no such heading"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The headings of a document, as anchors of links.
fn anchors(document: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(document).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.to_lowercase().replace(' ', "-");
            kept.chars().filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter)).collect()
        })
        .collect()
}

#[test]
fn the_messages_that_are_explained_are_the_products() {
    let mut sources = String::new();
    for folder in ["crates", "scripts", "ansible", "deploy"] {
        collect(&top().join(folder), &mut sources);
    }
    sources.push_str(&fs::read_to_string(top().join("mgmt.sh")).unwrap());
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    // Messages may be split over several lines of source.
    let sources = words(&sources.replace("\\\n", " "));
    let text = fs::read_to_string(top().join("docs/troubleshooting.md")).unwrap();
    let mut unknown = Vec::new();
    for row in text.lines().filter(|line| line.starts_with("| `") || line.starts_with("| reason `")) {
        let cell = row.trim_start_matches("| ").split(" | ").next().unwrap();
        for message in cell.split('`').skip(1).step_by(2) {
            for part in message.split('…').map(|part| part.trim_matches([' ', ':', ';', ',', '(', ')'])) {
                if part.len() > 3 && !sources.contains(&words(part)) {
                    unknown.push(part.to_owned());
                }
            }
        }
    }
    assert!(unknown.is_empty(), "nothing says this:\n{}", unknown.join("\n"));
}

fn collect(folder: &Path, out: &mut String) {
    const SKIPPED: [&str; 3] = ["tests", "target", "modules"];
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && (!SKIPPED.contains(&name.as_str()) || folder.ends_with("plugins")) {
            collect(&path, out);
        } else if path.is_file()
            && let Ok(text) = fs::read_to_string(&path)
        {
            out.push_str(&text);
            out.push('\n');
        }
    }
}
