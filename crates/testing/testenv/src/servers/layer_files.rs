//! Writes files into a layer of a server's root file system.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::distribution::MASKED;
use crate::folder::write_private;

/// Writes a file below `root`, and the folders above it.
pub(crate) fn write(root: &Path, path: &str, content: &str) -> Result<()> {
    write_private(&root.join(path), content.as_bytes())
}

/// Makes a symbolic link below `root`, and the folders above it.
fn link(root: &Path, path: &str, target: &str) -> Result<()> {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap_or(root))?;
    symlink(target, &path).with_context(|| format!("cannot link {}", path.display()))
}

/// Enables a unit that is in `/etc/systemd/system` below `root`.
pub(crate) fn enable(root: &Path, unit: &str) -> Result<()> {
    let path = format!("etc/systemd/system/multi-user.target.wants/{unit}");
    link(root, &path, &format!("/etc/systemd/system/{unit}"))
}

/// Masks the units that servers must not run.
pub(crate) fn mask_units(root: &Path) -> Result<()> {
    for unit in MASKED {
        link(root, &format!("etc/systemd/system/{unit}"), "/dev/null")?;
    }
    Ok(())
}

/// Links a file to another place, or copies it where a link is not possible.
pub(crate) fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    fs::hard_link(from, to)
        .or_else(|_| fs::copy(from, to).map(drop))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}
