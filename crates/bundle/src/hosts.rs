//! The files that hosts of workload clusters need: programs, packages, images, and the container runtime.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use testenv::{Progress, servers};

/// Builds the container runtime, and returns its folder.
///
/// # Errors
/// When a program cannot be built.
pub(crate) async fn runtime(progress: &Progress) -> Result<PathBuf> {
    let line = progress.clone();
    let hint = "making the container runtime for hosts (with --without-hosts it is left out)";
    servers::runtime(move |text| line.line(text)).await.context(hint)
}

/// Copies the files into `hosts` of the bundle, with the container runtime of a folder.
///
/// # Errors
/// When the files cannot be made or copied.
pub(crate) async fn write(progress: &Progress, runtime: &Path, bundle: &Path) -> Result<()> {
    let line = progress.clone();
    let hint = "making the hosts' files (as root; with --without-hosts they are left out)";
    let files = servers::host_files(move |text| line.line(text)).await.context(hint)?;
    let of_files = ["bin", "packages", "images"].map(|folder| (files.join(folder), folder.to_owned()));
    let of_runtime = ["bin", "cni"].map(|folder| (runtime.join(folder), format!("runtime/{folder}")));
    for (from, folder) in of_files.into_iter().chain(of_runtime) {
        let to = bundle.join("hosts").join(folder);
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(&from).with_context(|| format!("cannot read {}", from.display()))? {
            let entry = entry?;
            // A copy and not a link: a change of the bundle must not change the cache.
            fs::copy(entry.path(), to.join(entry.file_name()))
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    let versions = "versions";
    fs::copy(runtime.join(versions), bundle.join("hosts/runtime").join(versions))
        .context("the runtime has no versions")?;
    Ok(())
}
