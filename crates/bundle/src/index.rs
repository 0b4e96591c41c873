//! `bundle.json`: what is in a bundle, with sums.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::images::Program;

pub(crate) const FILE: &str = "bundle.json";

#[derive(Serialize, Deserialize)]
pub(crate) struct Index {
    /// Of the programs, by name.
    versions: BTreeMap<String, String>,
    /// Processors that it is for, as images have it.
    architecture: String,
    images: Vec<Image>,
    /// All other files.
    files: Vec<Content>,
}

#[derive(Serialize, Deserialize)]
struct Image {
    name: String,
    #[serde(flatten)]
    content: Content,
}

#[derive(Serialize, Deserialize)]
struct Content {
    /// Path in the bundle.
    file: String,
    size: u64,
    sha256: String,
}

impl Index {
    /// Of a folder with everything but the index.
    pub(crate) fn of(bundle: &Path, programs: &[Program]) -> Result<Self> {
        let mut versions: BTreeMap<_, _> =
            programs.iter().map(|program| (program.name.clone(), program.version.clone())).collect();
        versions.insert("bundle".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let mut images = Vec::new();
        let mut contents = Vec::new();
        for file in files(bundle)? {
            let content = Content::of(bundle, file)?;
            match programs.iter().find(|program| content.file == format!("images/{}", program.file())) {
                Some(program) => images.push(Image { name: program.image(), content }),
                None => contents.push(content),
            }
        }
        Ok(Self { versions, architecture: testenv::recipes::architecture().to_owned(), images, files: contents })
    }

    pub(crate) fn write(&self, bundle: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(bundle.join(FILE), text).with_context(|| format!("cannot write {FILE}"))
    }

    /// Says what there is, and how to go on.
    pub(crate) fn describe(&self, bundle: &Path, time: Duration) {
        let size_below = |folder: &str| {
            let all = self.files.iter().chain(self.images.iter().map(|image| &image.content));
            all.filter(|content| content.file.starts_with(folder)).map(|content| content.size).sum::<u64>()
        };
        println!("{} is complete ({} s):", bundle.display(), time.as_secs());
        for (folder, what) in [
            ("manifests/", "manifests, for kubectl apply"),
            ("images/", "images for the nodes of the management cluster"),
            ("hosts/", "what hosts of workload clusters need"),
        ] {
            match size_below(folder) {
                0 => println!("  {folder:<11} left out"),
                size => println!("  {folder:<11} {:>5} MiB  {what}", size.div_ceil(1 << 20)),
            }
        }
        println!(
            "  {FILE:<11}            versions and sums; ./mgmt.sh bundle --check {} compares them",
            bundle.display()
        );
        println!("Next: ./mgmt.sh up --kubeconfig FILE --bundle {}", bundle.display());
    }
}

impl Content {
    fn of(bundle: &Path, file: String) -> Result<Self> {
        let path = bundle.join(&file);
        let read = || {
            let mut hash = Sha256::new();
            let size = io::copy(&mut File::open(&path)?, &mut hash)?;
            io::Result::Ok((size, format!("{:x}", hash.finalize())))
        };
        let (size, sha256) = read().with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { file, size, sha256 })
    }
}

/// Compares a bundle with its index.
pub(crate) fn check(bundle: &Path) -> Result<()> {
    let path = bundle.join(FILE);
    let text = fs::read(&path)
        .with_context(|| format!("{} is no complete bundle: {FILE} cannot be read", bundle.display()))?;
    let index: Index = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let mut wanted: BTreeMap<_, _> = index
        .files
        .into_iter()
        .chain(index.images.into_iter().map(|image| image.content))
        .map(|content| (content.file.clone(), content))
        .collect();
    let number = wanted.len();
    let mut problems = Vec::new();
    for file in files(bundle)?.into_iter().filter(|file| file != FILE) {
        let Some(wanted) = wanted.remove(&file) else {
            problems.push(format!("{file} is not part of the bundle"));
            continue;
        };
        let is = Content::of(bundle, file)?;
        if is.size != wanted.size {
            problems.push(format!("{} has {} bytes instead of {}", is.file, is.size, wanted.size));
        } else if is.sha256 != wanted.sha256 {
            problems.push(format!("{} was changed: its SHA-256 is not that of {FILE}", is.file));
        }
    }
    problems.extend(wanted.into_keys().map(|file| format!("{file} is missing")));
    if !problems.is_empty() {
        bail!("{} is damaged; copy it again, or make it anew:\n  {}", bundle.display(), problems.join("\n  "));
    }
    println!("{}: all {number} files are as they were made", bundle.display());
    Ok(())
}

/// Paths of all files, sorted.
fn files(bundle: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![bundle.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(bundle)?.to_str().context("a file's name is not UTF-8")?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}
