//! The operators of this repository, as static programs.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use testenv::Progress;
use testenv::command::run;
use tokio::process::Command;

use crate::repository::repository;

pub(crate) const OPERATORS: [&str; 2] = ["o2ims-operator", "focom-operator"];

/// The programs in the folder `given`, or else those that `scripts/build-release` builds from this checkout.
///
/// # Errors
/// When a program is missing, or cannot be built.
pub(crate) async fn programs(progress: &Progress, given: Option<&Path>) -> Result<Vec<(&'static str, PathBuf)>> {
    let folder = match given {
        Some(folder) => folder.to_path_buf(),
        None => build(progress).await?,
    };
    let mut programs = Vec::new();
    for name in OPERATORS {
        let program = folder.join(name);
        if !program.is_file() {
            bail!("{} is not there", program.display());
        }
        programs.push((name, program));
    }
    Ok(programs)
}

async fn build(progress: &Progress) -> Result<PathBuf> {
    progress.line("building o2ims-operator and focom-operator for release (some 10 minutes the first time) ...");
    let repository = repository();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), PathBuf::from);
    let folder = target.join("release-programs");
    run(Command::new(repository.join("scripts/build-release")).arg(&folder)).await?;
    Ok(folder)
}
