//! `./mgmt.sh bundle --holes`: compares the Go programs with the Go vulnerability database, and the result with the list of known holes.

mod database;
mod list;
mod programs;
mod sections;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use testenv::Progress;
use testenv::build::Cache;

use crate::repository::repository;
use database::Database;
use list::{Difference, FILE, Found, Hole, List};
use programs::Programs;

/// What a check has found.
pub struct HoleReport {
    /// For people, lines.
    pub text: String,
    /// Whether every hole is known and explained, and every known one still there.
    pub as_listed: bool,
    /// Whether all programs were checked: of a bundle those that it has, and without one all that this repository builds.
    pub complete: bool,
}

/// Checks the programs of a bundle, or without one those in the cache of built programs, and compares the holes with
/// `deploy/known-holes.yaml`. `update` writes that file anew first.
///
/// # Errors
/// When there is no program, one cannot be checked, or something cannot be downloaded, read or written.
pub async fn check_holes(bundle: Option<&Path>, update: bool, progress: Progress) -> Result<HoleReport> {
    let cache = Cache::new(progress.clone())?;
    let programs = match bundle {
        Some(bundle) => Programs::in_bundle(bundle)?,
        None => Programs::in_cache(&cache)?,
    };
    let database = Database::newest(&cache).await?;
    progress.line(format!("checking {} programs ...", programs.paths.len()));
    let mut found = Found::new();
    for (name, path) in &programs.paths {
        found.extend(database.holes(name, path).await?);
    }
    let path = repository().join(FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
    let mut list = List::read(&text).with_context(|| format!("{FILE} is wrong"))?;
    if update {
        list = list.updated(&found, |name| programs.checked(name));
        fs::write(&path, list.write()?).with_context(|| format!("cannot write {FILE}"))?;
        progress.line(format!("{FILE} is written"));
    }
    let difference = list.compare(&found, |name| programs.checked(name));
    let text = describe(&database.date, &programs, &found, &difference)?;
    let complete = bundle.is_some() || programs.missing.is_empty();
    Ok(HoleReport { text, as_listed: difference.is_empty(), complete })
}

fn describe(date: &str, programs: &Programs, found: &Found, difference: &Difference) -> Result<String> {
    let mut text = String::new();
    for name in programs.paths.keys() {
        writeln!(text, "{:>5}  {name}", found.keys().filter(|hole| hole.program == *name).count())?;
    }
    let Difference { new, gone, unexplained, closed_otherwise } = difference;
    for (what, holes) in [
        (format!("new, not in {FILE}"), new),
        (format!("gone, but still in {FILE}"), gone),
        (format!("without a reason in {FILE}"), unexplained),
        (format!("closed by another version than {FILE} says"), closed_otherwise),
    ] {
        if !holes.is_empty() {
            writeln!(text, "{what}:")?;
        }
        for hole @ Hole { module, id, program } in holes {
            let closed_by = found.get(hole).map(|version| format!(", closed by {version}")).unwrap_or_default();
            writeln!(text, "  {id} in {program}: {module}{closed_by}")?;
        }
    }
    if !programs.missing.is_empty() {
        let missing: Vec<_> = programs.missing.iter().map(String::as_str).collect();
        writeln!(text, "NOT checked, because they are not here: {}", missing.join(", "))?;
    }
    let verdict = if difference.is_empty() { "as listed" } else { "NOT as listed" };
    writeln!(
        text,
        "{} holes in {} programs, {verdict} (Go vulnerability database of {date}; {FILE} has the reasons)",
        found.len(),
        programs.paths.len(),
    )?;
    if !difference.is_empty() {
        writeln!(
            text,
            "UPDATE_HOLES=1 ./mgmt.sh bundle --holes writes the list anew; each new entry then needs a reason, and each that can be closed another one"
        )?;
    }
    Ok(text)
}
