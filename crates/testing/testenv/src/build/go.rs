//! Runs the Go toolchain.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::process::Command;

use crate::command::last_lines;
use crate::versions;

/// `GOGC` of the toolchain, if the user sets none. Its programs are short-lived: a quarter of their time went into collecting garbage, and
/// they take hardly more memory without.
const GARBAGE: &str = "800";
/// How many lines of its output an error quotes.
const QUOTED_LINES: usize = 15;

/// The version of the installed Go, such as `go1.2.3`, in characters that the tag of an image may have; `None` if Go is not installed.
pub(super) fn version() -> Option<&'static str> {
    static VERSION: LazyLock<Option<String>> = LazyLock::new(|| {
        let told = std::process::Command::new("go").args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output();
        let told = told.ok().filter(|told| told.status.success())?;
        let may_be = |character: char| if character.is_ascii_alphanumeric() { character } else { '.' };
        Some(String::from_utf8_lossy(&told.stdout).trim().chars().map(may_be).collect())
    });
    VERSION.as_deref()
}

/// Runs `go` in a folder and returns what it printed.
///
/// # Errors
/// When `go` is not installed, or fails; the error has its last lines.
pub(crate) async fn go(folder: &Path, arguments: &[&str]) -> Result<String> {
    go_with(folder, arguments, &[]).await
}

/// As [`go`], with more variables of the environment.
///
/// # Errors
/// As [`go`].
pub(super) async fn go_with(folder: &Path, arguments: &[&str], variables: &[(&str, String)]) -> Result<String> {
    let garbage = std::env::var("GOGC").unwrap_or_else(|_| GARBAGE.to_owned());
    let output = Command::new("go")
        .args(arguments)
        .current_dir(folder)
        .env("CGO_ENABLED", "0")
        .env("GOGC", garbage)
        // The build must not depend on the user's settings: exactly what the modules pin, with the installed Go.
        .env("GOFLAGS", "-mod=readonly -buildvcs=false")
        .env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| {
            format!(
                "`go` cannot be started: install Go {} or newer (https://go.dev/doc/install) and have it in PATH, or bring a \
                 cache that was filled elsewhere (O2IMS_TESTENV_CACHE); etcd, kube-apiserver and kubectl may also come from \
                 KUBEBUILDER_ASSETS",
                versions::GO.trim_start_matches('v')
            )
        })?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let last = last_lines(&String::from_utf8_lossy(&output.stderr), QUOTED_LINES);
    let offline = std::env::var_os("O2IMS_OWN_NAMESPACE").is_some();
    let hint = if offline && last.contains("dial tcp") {
        "\nThere is no network in here (scripts/in-own-namespace); run crates/testing/testenv/modules/fetch outside first, or \
         `target/debug/testenv build --tools --slow --upgrades --other-hosts --virtual-machines` or `target/debug/bundle --prepare` for what only some tests need"
    } else {
        ""
    };
    bail!("go {} failed:\n{last}{hint}", arguments.join(" "))
}

/// A Go module that is downloaded.
#[derive(Deserialize)]
pub struct Download {
    /// The folder with its sources.
    #[serde(rename = "Dir")]
    pub folder: PathBuf,
    /// Its version.
    #[serde(rename = "Version")]
    pub version: String,
}

/// Downloads a Go module, if it is not there, as seen from a folder.
pub(super) async fn download(folder: &Path, module: &str) -> Result<Download> {
    let told = go(folder, &["mod", "download", "-json", module]).await?;
    serde_json::from_str(&told).with_context(|| format!("go does not say where {module} is"))
}
