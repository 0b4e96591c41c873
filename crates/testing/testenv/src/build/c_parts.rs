//! What a program's parts in C are compiled with: gcc, and the library libseccomp.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::command::{is_installed, run};
use crate::debian_package::unpack;

pub(super) const NEEDED: &str = "runc has parts in C, which are compiled on this machine: install gcc, pkg-config, and the headers \
     and static libraries of the C library and of libseccomp \
     (on Debian and Ubuntu: apt-get install gcc libc6-dev pkg-config libseccomp-dev)";

/// Variables of the environment with which Go compiles them. If libseccomp's development files are not installed,
/// Debian's package is unpacked in `folder`, and nothing is installed.
///
/// # Errors
/// When something is not installed, and the package cannot be downloaded.
pub(super) async fn variables(folder: &Path) -> Result<Vec<(&'static str, String)>> {
    if !is_installed("gcc") || !is_installed("pkg-config") {
        bail!(NEEDED);
    }
    let mut variables = vec![("CGO_ENABLED", "1".to_owned())];
    if run(Command::new("pkg-config").args(["--exists", "libseccomp"])).await.is_err() {
        let unpacked = folder.join("libseccomp");
        unpack("libseccomp-dev", &unpacked).await.context(NEEDED)?;
        let find = "find . -name libseccomp.pc -printf '%h'";
        let found = run(Command::new("sh").args(["-c", find]).current_dir(&unpacked)).await?;
        variables.push(("PKG_CONFIG_PATH", unpacked.join(found).display().to_string()));
        variables.push(("PKG_CONFIG_SYSROOT_DIR", unpacked.display().to_string()));
    }
    Ok(variables)
}
