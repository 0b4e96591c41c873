//! Makes the offline bundle: manifests, container images and hosts' files, all from pinned sources.

mod cert_manager;
mod hosts;
mod images;
mod index;
mod manifests;
mod operators;
mod render;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use testenv::recipes::{Cache, Progress};

use crate::index::Index;

#[derive(Parser)]
#[command(version, about = "Everything that a management cluster and its hosts need, as files")]
struct Arguments {
    /// The bundle's folder; an older bundle there is replaced.
    folder: PathBuf,
    /// Make nothing; compare the files with the sums in bundle.json.
    #[arg(long)]
    check: bool,
    /// A folder with o2ims-operator and focom-operator as static programs; without it scripts/build-release makes them.
    #[arg(long, value_name = "FOLDER", conflicts_with = "check")]
    operators: Option<PathBuf>,
    /// Leave hosts/ out: the servers come with containerd, kubelet and kubeadm.
    #[arg(long, conflicts_with = "check")]
    without_hosts: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.check { index::check(&arguments.folder) } else { make(&arguments).await };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn make(arguments: &Arguments) -> Result<()> {
    let begun = Instant::now();
    let to = &arguments.folder;
    may_be_replaced(to)?;
    let progress = Progress::new(|line| eprintln!("{line}"));
    let cache = Cache::new(progress.clone())?;
    let partial = beside(to)?;
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;

    let programs = images::programs(&cache, &progress, arguments.operators.as_deref()).await?;
    images::write(&cache, &programs, &partial).await?;
    progress.line("rendering manifests ...");
    manifests::write(&cache, &programs, &partial).await?;
    if !arguments.without_hosts {
        hosts::write(&progress, &partial).await?;
    }
    progress.line("computing sums ...");
    let index = Index::of(&partial, &programs)?;
    index.write(&partial)?;

    // Last, so that a folder of this name is always whole.
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("cannot remove the older bundle {}", to.display()))?;
    }
    fs::rename(&partial, to).with_context(|| format!("cannot rename {} to {}", partial.display(), to.display()))?;
    index.describe(to, begun.elapsed());
    Ok(())
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
