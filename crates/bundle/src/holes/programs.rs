//! The Go programs that are checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use testenv::build::{Cache, Recipe};
use testenv::image;

use super::sections;
use crate::{cert_manager, index};

/// Programs by name.
pub(super) struct Programs {
    pub(super) paths: BTreeMap<String, PathBuf>,
    /// Those that this repository builds, and that are not here.
    pub(super) missing: BTreeSet<String>,
    /// Where those are that were in images.
    _unpacked: Option<TempDir>,
}

impl Programs {
    fn new(paths: BTreeMap<String, PathBuf>, unpacked: Option<TempDir>) -> Result<Self> {
        let missing =
            recipes()?.into_iter().map(|recipe| recipe.name.to_owned()).filter(|name| !paths.contains_key(name));
        Ok(Self { missing: missing.collect(), paths, _unpacked: unpacked })
    }

    /// Those that are in the cache: of a bundle, and those that only tests run.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn in_cache(cache: &Cache) -> Result<Self> {
        let mut paths = BTreeMap::new();
        for recipe in recipes()? {
            if let Some(built) = cache.lookup(&recipe) {
                paths.insert(recipe.name.to_owned(), built.program);
            }
        }
        if paths.is_empty() {
            bail!(
                "no program is built yet: ./mgmt.sh test builds those of the tests, ./mgmt.sh bundle FOLDER those of a bundle"
            );
        }
        Self::new(paths, None)
    }

    /// Those of a bundle: in its images, each by its image's name, and in folders of `hosts`.
    ///
    /// # Errors
    /// When the folder is no bundle, or a file cannot be read.
    pub(super) fn in_bundle(bundle: &Path) -> Result<Self> {
        if !bundle.join(index::FILE).is_file() {
            bail!("{} is no bundle: it has no {}", bundle.display(), index::FILE);
        }
        let unpacked = tempfile::tempdir()?;
        let mut paths = BTreeMap::new();
        for folder in ["images", "hosts/images"] {
            for archive in files(&bundle.join(folder))? {
                let read = image::read(&archive).with_context(|| format!("cannot read {}", archive.display()))?;
                let (name, contents) = (program_of(&read.0), read.1);
                for content in contents.into_iter().filter(|content| sections::is_go(content)) {
                    let path = unpacked.path().join(name);
                    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
                    if paths.insert(name.to_owned(), path).is_some() {
                        bail!("{} has a second program {name}", archive.display());
                    }
                }
            }
        }
        for folder in ["hosts/bin", "hosts/runtime/bin", "hosts/runtime/cni"] {
            for path in files(&bundle.join(folder))? {
                paths.insert(file_name(&path)?, path);
            }
        }
        if paths.is_empty() {
            bail!("{} has no program that Go has made", bundle.display());
        }
        Self::new(paths, Some(unpacked))
    }

    /// Whether all is known of a program. Of one that nobody builds it is known that it has no hole.
    pub(super) fn checked(&self, name: &str) -> bool {
        !self.missing.contains(name)
    }
}

/// How the programs of this repository are built.
fn recipes() -> Result<Vec<Recipe>> {
    Ok([testenv::recipes::all()?, cert_manager::PROGRAMS.to_vec()].concat())
}

/// Paths of the files in a folder; none if it is missing, as `hosts` of a bundle may be.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    Ok(name.with_context(|| format!("the name of {} is not UTF-8", path.display()))?.to_owned())
}

/// The program of an image: `kube-proxy` of `registry.example.org/kube-proxy:v1.2.3`.
fn program_of(image: &str) -> &str {
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split(':').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_the_name_of_its_program() {
        for (image, program) in [
            ("localhost/o2ims/capi-core:v1.2.3-2cbffcef5398", "capi-core"),
            ("registry.example.org:5000/coredns/coredns:v1.2.3", "coredns"),
            ("pause", "pause"),
        ] {
            assert_eq!(program_of(image), program);
        }
    }
}
