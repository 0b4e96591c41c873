//! Makes a bundle.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use testenv::Progress;
use testenv::build::Cache;
use testenv::recipes;
use testenv::tools::{Tool, tool};

use crate::index::{self, Index};
use crate::{cert_manager, components, hosts, images, manifests};

/// What a bundle is made from.
#[derive(Default)]
pub struct Options {
    /// A folder with o2ims-operator and focom-operator as static programs; if `None`, `scripts/build-release` builds
    /// them.
    pub operators: Option<PathBuf>,
    /// Whether `hosts/` is left out.
    pub without_hosts: bool,
}

/// Builds everything that needs a network, except the operators and the hosts' files. [`make()`] then needs no network
/// for it.
///
/// # Errors
/// When something cannot be built.
pub async fn prepare(progress: Progress) -> Result<()> {
    let cache = Cache::new(progress.clone())?;
    cert_manager::programs(&cache).await?;
    cert_manager::sources(&cache).await?;
    for manager in recipes::cluster_api(&cache).await? {
        manager.config(&cache).await?;
    }
    recipes::byoh(&cache).await?.config(&cache).await?;
    recipes::inventory_definition(&cache).await?;
    recipes::kubectl(&cache).await?;
    tool(Tool::Helm, move |line| progress.line(line)).await.map(drop)
}

/// Makes a bundle in the folder `to`. A bundle that is there is replaced when the new one is complete.
///
/// # Errors
/// When something cannot be built or written; `to` is unchanged then.
pub async fn make(to: &Path, options: &Options, progress: Progress) -> Result<Index> {
    let begun = Instant::now();
    check_replaceable(to)?;
    let partial = beside(to)?;
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let index = match fill(&partial, options, &progress).await {
        Ok(index) => index,
        Err(error) => {
            // The first error is the one to report. What stays is removed by the next call.
            let _ = fs::remove_dir_all(&partial);
            return Err(error);
        }
    };
    // Last, so that the folder is always complete.
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("cannot remove the older bundle {}", to.display()))?;
    }
    fs::rename(&partial, to).with_context(|| format!("cannot rename {} to {}", partial.display(), to.display()))?;
    progress.line(format!("made in {} s", begun.elapsed().as_secs()));
    Ok(index)
}

/// Writes everything into the folder of a new bundle.
async fn fill(bundle: &Path, options: &Options, progress: &Progress) -> Result<Index> {
    let cache = Cache::new(progress.clone())?;
    // First, so that a compiler that is missing is told at once.
    let runtime = if options.without_hosts { None } else { Some(hosts::runtime(progress).await?) };
    let programs = components::build(&cache, progress, options.operators.as_deref()).await?;
    images::write(&cache, &programs, bundle).await?;
    progress.line("rendering manifests ...");
    manifests::write(&cache, &programs, bundle).await?;
    if let Some(runtime) = runtime {
        hosts::write(progress, &runtime, bundle).await?;
    }
    progress.line("computing sums ...");
    let index = index::of(bundle, &programs)?;
    index.write(bundle)?;
    Ok(index)
}

/// Checks that the folder is a bundle, empty or missing: a mistyped folder must not be removed.
fn check_replaceable(folder: &Path) -> Result<()> {
    let empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if !folder.exists() || folder.join(index::FILE).is_file() || empty() {
        return Ok(());
    }
    bail!("{} is there and is no bundle: name another folder, or remove it", folder.display())
}

/// The folder in which the bundle is made, beside its final folder.
fn beside(folder: &Path) -> Result<PathBuf> {
    let name = folder.file_name().with_context(|| format!("{} is no name of a folder", folder.display()))?;
    let mut partial = name.to_os_string();
    partial.push(".partial");
    Ok(folder.with_file_name(partial))
}
