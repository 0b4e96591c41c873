//! The programs that a bundle has images of.

use std::path::Path;

use anyhow::Result;
use testenv::Progress;
use testenv::build::Cache;
use testenv::recipes;

use crate::program::Program;
use crate::{cert_manager, operators};

/// Builds all programs. `operators` is the folder with the operators' programs; without it they are built too.
///
/// # Errors
/// When a program cannot be built.
pub(crate) async fn build(cache: &Cache, progress: &Progress, operators: Option<&Path>) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for (name, built) in cert_manager::programs(cache).await? {
        programs.push(Program::built(name, &built, name)?);
    }
    let mut managers = recipes::cluster_api(cache).await?;
    managers.push(recipes::byoh(cache).await?);
    for manager in managers {
        let name = manager.built.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The command in their Deployments.
        let program = Program::built(&name, &manager.built, "manager")?;
        programs.push(Program { provider: Some(manager), ..program });
    }
    for (name, path) in operators::programs(progress, operators).await? {
        programs.push(Program::operator(name, path)?);
    }
    Ok(programs)
}
