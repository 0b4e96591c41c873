//! The list in the documents.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::catalogue::Group;

const PAGE: &str = "docs/messages.md";

/// Asserts that the part of `docs/messages.md` with this heading is the list. With the variable `UPDATE_DOCS` it is written. `command` is the
/// one that does so.
pub fn assert_page(heading: &str, command: &str, groups: &[Group]) {
    let mut list = format!("## {heading}\n\n");
    for Group { title, entries } in groups {
        write!(list, "### {title}\n\n| message | what it means, and what to do |\n|---|---|\n").unwrap();
        for entry in *entries {
            writeln!(list, "| `{}` | {} |", entry.pattern.replace('|', "\\|"), entry.remedy.replace('|', "\\|"))
                .unwrap();
        }
        list.push('\n');
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..").join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    let (before, after) = part(&page, heading);
    let separator = if after.is_empty() { "" } else { "\n" };
    let expected = format!("{before}{}\n{separator}{after}", list.trim_end());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
    } else {
        assert!(page == expected, "{PAGE} differs: UPDATE_DOCS=1 {command}");
    }
}

/// What is before the part with this heading, and what is after it.
fn part<'a>(page: &'a str, heading: &str) -> (&'a str, &'a str) {
    let begin = page.find(&format!("## {heading}\n")).unwrap_or_else(|| panic!("{PAGE} has no heading {heading:?}"));
    let rest = &page[begin..];
    let end = rest.find("\n## ").map_or(page.len(), |end| begin + end + 1);
    (&page[..begin], &page[end..])
}
