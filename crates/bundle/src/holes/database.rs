//! The Go vulnerability database, and govulncheck, which compares programs with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use testenv::build::{Cache, Module, Recipe};
use testenv::command::run;
use testenv::versions;
use tokio::process::Command;

use super::list::{Found, GO, Hole};
use super::sections;

static MODULE: Module = testenv::module!("govulncheck");
const GOVULNCHECK: &Recipe =
    &Recipe::new("govulncheck", versions::GOVULNCHECK, &MODULE, "golang.org/x/vuln/cmd/govulncheck", 20);

/// Not pinned: what matters is what is known today.
const DATABASE: &str = "golang.org/x/vulndb@latest";
/// What closes a hole for which the database names no version.
const NO_VERSION: &str = "no version yet";

/// The database, downloaded, and govulncheck.
pub(super) struct Database {
    govulncheck: PathBuf,
    entries: PathBuf,
    /// The date of its newest change, such as `2026-11-05`.
    pub(super) date: String,
}

impl Database {
    /// Downloads the newest database as a Go module: nothing about the programs leaves this machine.
    ///
    /// # Errors
    /// When it cannot be downloaded, or govulncheck cannot be built.
    pub(super) async fn newest(cache: &Cache) -> Result<Self> {
        let govulncheck = cache.program(GOVULNCHECK).await?.program;
        let database = cache.unpinned(DATABASE).await.context("the Go vulnerability database cannot be downloaded")?;
        let date = date(&database.version).with_context(|| format!("version {} has no date", database.version))?;
        Ok(Self { govulncheck, entries: database.folder.join("data/osv"), date })
    }

    /// The known holes in a program.
    ///
    /// # Errors
    /// When the program does not name its functions, or govulncheck cannot read it.
    pub(super) async fn holes(&self, name: &str, program: &Path) -> Result<Found> {
        let content = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
        // govulncheck would take it to have every function of its modules.
        if !sections::has_symbols(&content) {
            bail!(
                "{name} has no symbols, so it is not known which functions it has: build it, or make the bundle, again, and \
                 without O2IMS_DOWNLOAD (published programs have none)"
            );
        }
        let mut command = Command::new(&self.govulncheck);
        command.args(["-mode=binary", "-scan=symbol", "-format=json"]);
        command.arg(format!("-db=file://{}", self.entries.display())).arg(program);
        let told = run(&mut command).await.with_context(|| format!("checking {name}"))?;
        read(&told, name).with_context(|| format!("govulncheck on {name}"))
    }
}

/// The day in a version that Go has made of a commit's time: `v0.0.0-20261105234957-e22db6528018`.
fn date(version: &str) -> Option<String> {
    let time = version.split('-').nth(1)?;
    Some(format!("{}-{}-{}", time.get(..4)?, time.get(4..6)?, time.get(6..8)?))
}

/// A message of govulncheck; those of other kinds are not needed.
#[derive(Deserialize)]
struct Message {
    finding: Option<Finding>,
}

#[derive(Deserialize)]
struct Finding {
    osv: String,
    #[serde(default)]
    fixed_version: String,
    trace: Vec<Frame>,
}

#[derive(Deserialize)]
struct Frame {
    module: String,
    /// Missing if it is only known that the program has the module at a version with the hole.
    package: Option<String>,
    /// Missing if it is only known that the program has the package.
    function: Option<String>,
}

/// Reads what govulncheck has printed about a program: messages, one after the other.
///
/// That a function is in the program is one message; the module, and what closes the hole, are taken from another, about the module. Where
/// modules are nested, as `otel` and `otel/sdk`, the first one names any of them, another one each time.
fn read(told: &str, program: &str) -> Result<Found> {
    let (mut modules, mut packages) = (BTreeMap::<_, BTreeMap<_, _>>::new(), BTreeSet::new());
    for message in serde_json::Deserializer::from_str(told).into_iter::<Message>() {
        let Some(Finding { osv, fixed_version, trace }) = message?.finding else { continue };
        match trace.into_iter().next() {
            Some(Frame { package: Some(package), function: Some(_), .. }) => {
                packages.insert((osv, package));
            }
            Some(Frame { module, package: None, .. }) => {
                modules.entry(osv).or_default().insert(module, fixed_version);
            }
            _ => {}
        }
    }
    let mut found = Found::new();
    for (id, package) in packages {
        let of_package = modules.get(&id).into_iter().flatten();
        let of_package = of_package.filter(|(module, _)| *module == GO || is_in(&package, module));
        let (module, fixed) = of_package
            .max_by_key(|(module, _)| module.len())
            .with_context(|| format!("{id} in {package}: no module"))?;
        let closed_by = if fixed.is_empty() { NO_VERSION } else { fixed.as_str() };
        found.insert(Hole { module: module.clone(), id, program: program.to_owned() }, closed_by.to_owned());
    }
    Ok(found)
}

/// Whether a package may be in a module, by their names.
fn is_in(package: &str, module: &str) -> bool {
    package.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_in_a_module_of_its_name() {
        assert!(is_in("otel/sdk", "otel") && is_in("otel", "otel"));
        assert!(!is_in("otelx/sdk", "otel"));
    }

    #[test]
    fn a_hole_is_one_whose_function_is_in_the_program() {
        let told = r#"
{"config": {"protocol_version": "v1.0.0", "scan_level": "symbol"}}
{"osv": {"id": "GO-1", "summary": "a hole"}}
{"finding": {"osv": "GO-1", "fixed_version": "v1.2.3", "trace": [{"module": "net", "version": "v1.0.0"}]}}
{"finding": {"osv": "GO-1", "fixed_version": "v1.2.3", "trace": [{"module": "net", "package": "net/a"}]}}
{"finding": {"osv": "GO-1", "fixed_version": "v1.2.3", "trace": [{"module": "net", "package": "net/a", "function": "F"}]}}
{"finding": {"osv": "GO-1", "fixed_version": "v1.2.3", "trace": [{"module": "net", "package": "net/a", "function": "G"}]}}
{"finding": {"osv": "GO-2", "fixed_version": "v1.1.0", "trace": [{"module": "net", "version": "v1.0.0"}]}}
{"finding": {"osv": "GO-2", "fixed_version": "v1.1.0", "trace": [{"module": "net", "package": "net/b"}]}}
{"finding": {"osv": "GO-3", "trace": [{"module": "text", "version": "v1.0.0"}]}}
{"finding": {"osv": "GO-3", "trace": [{"module": "text", "package": "text", "function": "F"}]}}
{"finding": {"osv": "GO-4", "fixed_version": "v1.2.4", "trace": [{"module": "stdlib", "version": "v1.2.3"}]}}
{"finding": {"osv": "GO-4", "fixed_version": "v1.2.4", "trace": [{"module": "stdlib", "package": "net/http", "function": "F"}]}}
"#;
        let expected = [("net", "GO-1", "v1.2.3"), ("text", "GO-3", "no version yet"), ("stdlib", "GO-4", "v1.2.4")];
        assert_eq!(read(told, "etcd").unwrap(), found(&expected));
        assert!(read("{\"finding\": ", "etcd").is_err(), "half of a message");
    }

    #[test]
    fn of_nested_modules_the_hole_is_in_that_of_the_package() {
        // Of these the last message is the one about the function: it may name either module.
        for named in ["otel", "otel/sdk"] {
            let told = format!(
                r#"
{{"finding": {{"osv": "GO-1", "fixed_version": "v1.1.0", "trace": [{{"module": "otel", "version": "v1.0.0"}}]}}}}
{{"finding": {{"osv": "GO-1", "fixed_version": "v1.2.0", "trace": [{{"module": "otel/sdk", "version": "v1.0.0"}}]}}}}
{{"finding": {{"osv": "GO-1", "trace": [{{"module": "{named}", "package": "otel/sdk/trace", "function": "F"}}]}}}}
"#
            );
            assert_eq!(read(&told, "etcd").unwrap(), found(&[("otel/sdk", "GO-1", "v1.2.0")]), "{named}");
        }
    }

    /// Module, id and what closes it, in etcd.
    fn found(holes: &[(&str, &str, &str)]) -> Found {
        let hole =
            |module: &str, id: &str| Hole { module: module.to_owned(), id: id.to_owned(), program: "etcd".to_owned() };
        holes.iter().map(|(module, id, closed_by)| (hole(module, id), (*closed_by).to_owned())).collect()
    }

    #[test]
    fn a_version_has_the_date_of_the_database() {
        assert_eq!(date("v0.0.0-20261105234957-e22db6528018").as_deref(), Some("2026-11-05"));
        assert_eq!(date("v1.0.0"), None);
    }
}
