//! The offline bundle: manifests, container images and hosts' files of a management cluster, all from pinned sources. What is
//! made once is kept in testenv's cache; [`make`] puts it together.

mod cert_manager;
mod hosts;
mod images;
mod index;
mod manifests;
mod operators;
mod render;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use testenv::recipes::{self, Cache, Progress};
use testenv::tools::{Tool, tool};

pub use crate::index::{Content, Image, Index};

/// What is to be made.
#[derive(Default)]
pub struct Options {
    /// A folder with o2ims-operator and focom-operator as static programs; without it `scripts/build-release` makes them.
    pub operators: Option<PathBuf>,
    /// Leave `hosts/` out.
    pub without_hosts: bool,
}

/// Builds what needs a network, but for the operators and what hosts need, so that [`make`] does without.
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

/// Makes a bundle in the folder `to`; an older bundle there is replaced when the new one is complete.
///
/// # Errors
/// When something cannot be built or written; `to` is as it was then.
pub async fn make(to: &Path, options: &Options, progress: Progress) -> Result<Index> {
    let begun = Instant::now();
    may_be_replaced(to)?;
    let partial = beside(to)?;
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let index = match fill(&partial, options, &progress).await {
        Ok(index) => index,
        Err(error) => {
            // What made it fail is what counts; the next bundle removes the rest.
            let _ = fs::remove_dir_all(&partial);
            return Err(error);
        }
    };
    // Last, so that a folder of this name is always whole.
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("cannot remove the older bundle {}", to.display()))?;
    }
    fs::rename(&partial, to).with_context(|| format!("cannot rename {} to {}", partial.display(), to.display()))?;
    progress.line(format!("made in {} s", begun.elapsed().as_secs()));
    Ok(index)
}

async fn fill(bundle: &Path, options: &Options, progress: &Progress) -> Result<Index> {
    let cache = Cache::new(progress.clone())?;
    let programs = images::programs(&cache, progress, options.operators.as_deref()).await?;
    images::write(&cache, &programs, bundle).await?;
    progress.line("rendering manifests ...");
    manifests::write(&cache, &programs, bundle).await?;
    if !options.without_hosts {
        hosts::write(progress, bundle).await?;
    }
    progress.line("computing sums ...");
    let index = index::of(bundle, &programs)?;
    index.write(bundle)?;
    Ok(index)
}

/// Only a bundle is replaced: a mistyped folder must not be emptied.
fn may_be_replaced(folder: &Path) -> Result<()> {
    let empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if !folder.exists() || folder.join(index::FILE).is_file() || empty() {
        return Ok(());
    }
    bail!("{} is there and is no bundle: name another folder, or remove it", folder.display())
}

/// Where the bundle is made.
fn beside(folder: &Path) -> Result<PathBuf> {
    let name = folder.file_name().with_context(|| format!("{} is no name of a folder", folder.display()))?;
    let mut partial = name.to_os_string();
    partial.push(".partial");
    Ok(folder.with_file_name(partial))
}

/// This repository, for its manifests and scripts.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
