//! What hosts of workload clusters need: programs, packages and images.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use testenv::recipes::Progress;
use testenv::servers;

/// Puts the files into `hosts` of the bundle.
pub(crate) async fn write(progress: &Progress, bundle: &Path) -> Result<()> {
    let line = progress.clone();
    let hint = "making the hosts' files (as root; with --without-hosts they are left out)";
    let files = servers::host_files(move |text| line.line(text)).await.context(hint)?;
    for folder in ["bin", "packages", "images"] {
        let (from, to) = (files.join(folder), bundle.join("hosts").join(folder));
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(&from).with_context(|| format!("cannot read {}", from.display()))? {
            let entry = entry?;
            // A copy: the cache must not change when somebody changes the bundle.
            fs::copy(entry.path(), to.join(entry.file_name()))
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}
