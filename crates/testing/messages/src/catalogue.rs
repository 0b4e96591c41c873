//! The list, and what a pattern is.

use std::collections::BTreeSet;

/// What stands in a pattern for what varies.
pub const VARIES: char = '…';

/// The messages about one kind of object.
pub struct Group {
    /// Heading of the group.
    pub title: &'static str,
    /// Its messages.
    pub entries: &'static [Entry],
}

/// A message to users.
pub struct Entry {
    /// The message, or a part of one that is told with others, with `…` for what varies.
    pub pattern: &'static str,
    /// What it means, if it does not say so itself, and what to do.
    pub remedy: &'static str,
}

/// An entry of the list.
pub const fn entry(pattern: &'static str, remedy: &'static str) -> Entry {
    Entry { pattern, remedy }
}

/// Whether the text has a part that is like the pattern.
pub fn has(text: &str, pattern: &str) -> bool {
    let mut rest = Some(text);
    for part in pattern.split(VARIES) {
        rest = rest.and_then(|rest| rest.split_once(part)).map(|(_, after)| after);
    }
    rest.is_some()
}

/// Asserts that each entry of the list is made by a test, has its remedy, and stands there once.
pub fn assert_made(groups: &[Group], made: &BTreeSet<String>) {
    let mut wrong = Vec::new();
    for group in groups {
        let mut known = BTreeSet::new();
        for Entry { pattern, remedy } in group.entries {
            if !made.iter().any(|message| has(message, pattern)) {
                wrong.push(format!("no test makes it: {pattern}"));
            }
            if !known.insert(pattern) {
                wrong.push(format!("it stands there twice: {pattern}"));
            }
            if remedy.is_empty() {
                wrong.push(format!("it has no remedy: {pattern}"));
            }
        }
    }
    assert!(wrong.is_empty(), "in the list of messages:\n{}", wrong.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_part_with_gaps() {
        for (text, pattern) in [("a: host 1 is gone; b", "host … is gone"), ("a", "a"), ("a b c d", "a…c…"), ("a", "…")]
        {
            assert!(has(text, pattern), "{text:?} has {pattern:?}");
        }
        for (text, pattern) in [("host 1 goes", "host … is gone"), ("a d b", "a…b…d"), ("ab", "ab…b")] {
            assert!(!has(text, pattern), "{text:?} has no {pattern:?}");
        }
    }
}
