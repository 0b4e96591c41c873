//! A checkout of BYOH's sources that is used instead of the released module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// A folder with BYOH's Go sources.
pub(crate) struct Checkout {
    path: PathBuf,
}

impl Checkout {
    /// The checkout in the folder that a variable of the environment names; `None` if the variable is empty or not set.
    ///
    /// # Errors
    /// When the folder is not a checkout of BYOH.
    pub(crate) fn from_environment(variable: &str) -> Result<Option<Self>> {
        let Some(path) = std::env::var_os(variable).filter(|value| !value.is_empty()) else { return Ok(None) };
        let path = PathBuf::from(path);
        let path = path.canonicalize().with_context(|| format!("{variable}={} cannot be read", path.display()))?;
        if !path.join("go.mod").is_file() || !path.join("config/crd/bases").is_dir() {
            bail!("{variable}={} is no checkout of BYOH: it has no go.mod or no config/crd/bases", path.display());
        }
        Ok(Some(Self { path }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A text that changes whenever the sources change: git's commit if the working tree is clean, and else a hash of
    /// all files.
    pub(crate) fn version(&self) -> Result<String> {
        if let Some(commit) = self.clean_commit() {
            return Ok(commit);
        }
        let mut hash = Sha256::new();
        add_folder(&mut hash, &self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(format!("{:x}", hash.finalize()))
    }

    fn clean_commit(&self) -> Option<String> {
        let git = |arguments: &[&str]| {
            let output = Command::new("git").arg("-C").arg(&self.path).args(arguments).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        // In a folder within another project's checkout git names that project's commit.
        let own = Path::new(&git(&["rev-parse", "--show-toplevel"])?) == self.path;
        let clean = git(&["status", "--porcelain"])?.is_empty();
        if own && clean { git(&["rev-parse", "HEAD"]) } else { None }
    }
}

/// Adds names and contents of all files to a hash, in a fixed order.
fn add_folder(hash: &mut Sha256, folder: &Path) -> std::io::Result<()> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let kind = path.symlink_metadata()?;
        if kind.is_dir() {
            if path.file_name().is_none_or(|name| name != ".git") {
                add_folder(hash, &path)?;
            }
        } else if kind.is_file() {
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update(kind.len().to_be_bytes());
            hash.update(fs::read(&path)?);
        }
    }
    Ok(())
}
