//! Runs scripts in a mount namespace of their own.

use std::path::Path;

use tokio::process::Command;

/// A bash script that begins with `layer.sh`, in a mount namespace of its own. The caller adds the arguments after `folder`
/// and `lower`.
pub(crate) fn in_mount_namespace(text: &str, folder: &Path, lower: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", text, "script"]).arg(folder).arg(lower);
    command
}
