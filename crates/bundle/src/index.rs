//! `bundle.json`: the versions and files of a bundle, with checksums.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use testenv::{image, kubernetes_version, versions as pinned};

use crate::program::Program;

pub(crate) const FILE: &str = "bundle.json";

/// The content of `bundle.json`.
#[derive(Serialize)]
pub struct Index {
    /// Versions: of the programs, by name; of the bundle; and of Kubernetes and containerd on hosts.
    pub versions: BTreeMap<String, String>,
    /// Architecture of the programs, such as `amd64`.
    pub architecture: String,
    /// Images.
    pub images: Vec<ImageEntry>,
    /// All files that are not archives of images.
    pub files: Vec<FileEntry>,
}

/// An image.
#[derive(Serialize)]
pub struct ImageEntry {
    /// Name and tag, as manifests name it.
    pub name: String,
    /// Its archive.
    #[serde(flatten)]
    pub archive: FileEntry,
}

/// A file.
#[derive(Serialize)]
pub struct FileEntry {
    /// Path in the bundle.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// The index of a folder that has everything but the index.
pub(crate) fn of(bundle: &Path, programs: &[Program]) -> Result<Index> {
    let mut versions: BTreeMap<_, _> =
        programs.iter().map(|program| (program.name.clone(), program.version.clone())).collect();
    versions.insert("bundle".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    if bundle.join("hosts").is_dir() {
        versions.insert("kubernetes".to_owned(), kubernetes_version().to_owned());
        versions.insert("containerd".to_owned(), pinned::CONTAINERD.to_owned());
    }
    let mut images = Vec::new();
    let mut others = Vec::new();
    for file in files(bundle)? {
        let entry = FileEntry::of(bundle, file)?;
        match programs.iter().find(|program| entry.file == format!("images/{}", program.file())) {
            Some(program) => images.push(ImageEntry { name: program.image(), archive: entry }),
            None => others.push(entry),
        }
    }
    Ok(Index { versions, architecture: image::architecture().to_owned(), images, files: others })
}

impl Index {
    /// Writes `bundle.json` into the bundle.
    pub(crate) fn write(&self, bundle: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(bundle.join(FILE), text).with_context(|| format!("cannot write {FILE}"))
    }

    /// A summary for people: the parts, their sizes, and the next command.
    pub fn summary(&self, bundle: &Path) -> String {
        let all = || self.files.iter().chain(self.images.iter().map(|image| &image.archive));
        let mut lines = vec![format!("{}:", bundle.display())];
        for (folder, what) in [
            ("manifests/", "manifests, for kubectl apply"),
            ("images/", "images for the nodes of the management cluster"),
            ("hosts/", "what hosts of workload clusters need"),
        ] {
            let size: u64 = all().filter(|entry| entry.file.starts_with(folder)).map(|entry| entry.size).sum();
            lines.push(match size.div_ceil(1 << 20) {
                0 => format!("  {folder:<11} left out"),
                size => format!("  {folder:<11} {size:>5} MiB  {what}"),
            });
        }
        lines.push(format!(
            "  {FILE:<11}            versions and sums, for ./mgmt.sh bundle --check {}",
            bundle.display()
        ));
        lines.push(format!(
            "next: ./mgmt.sh up --kubeconfig FILE --bundle {} --import 'ssh root@{{}}'",
            bundle.display()
        ));
        lines.join("\n") + "\n"
    }
}

impl FileEntry {
    /// Reads a file of the bundle.
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

/// Paths of all files in the bundle, sorted.
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
