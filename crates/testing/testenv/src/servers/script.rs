//! Runs scripts in a mount namespace of their own.

use std::path::Path;

use tokio::process::Command;

/// A bash script in a mount namespace of its own, with the arguments `folder` and `lower`; the caller may add more.
pub(crate) fn in_mount_namespace(text: &str, folder: &Path, lower: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", text, "script"]).arg(folder).arg(lower);
    command
}
