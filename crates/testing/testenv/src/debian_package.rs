//! Packages of this machine's Debian that are unpacked, not installed.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::command::{is_installed, run};

/// Downloads a package and unpacks it in a folder, which is made.
///
/// # Errors
/// When this machine has no apt, or the package cannot be downloaded.
pub(crate) async fn unpack(package: &str, folder: &Path) -> Result<()> {
    if !is_installed("apt-get") || !is_installed("dpkg-deb") {
        bail!("{package} is not installed, and this machine has no apt to fetch it with");
    }
    fs::create_dir_all(folder)?;
    let script = "apt-get download -q \"$1\" || { apt-get update -q && apt-get download -q \"$1\"; }; dpkg-deb -x \"$1\"_*.deb .";
    let mut fetch = Command::new("bash");
    fetch.args(["-euc", script, "unpack", package]).current_dir(folder);
    run(&mut fetch).await.map(drop).with_context(|| format!("cannot download the package {package}; install it"))
}
