//! `bundle.json`: what is in a bundle, with sums.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use testenv::recipes;

use crate::images::Program;

pub(crate) const FILE: &str = "bundle.json";

/// What a bundle has.
#[derive(Serialize)]
pub struct Index {
    /// Of the programs, by name, and of Kubernetes on hosts.
    pub versions: BTreeMap<String, String>,
    /// Processors that it is for, as images have it.
    pub architecture: String,
    /// Archives of images.
    pub images: Vec<Image>,
    /// All other files.
    pub files: Vec<Content>,
}

/// An image, and its archive.
#[derive(Serialize)]
pub struct Image {
    /// As manifests name it.
    pub name: String,
    /// The archive.
    #[serde(flatten)]
    pub content: Content,
}

/// A file.
#[derive(Serialize)]
pub struct Content {
    /// Path in the bundle.
    pub file: String,
    /// In bytes.
    pub size: u64,
    /// In hexadecimal digits.
    pub sha256: String,
}

/// Of a folder with everything but the index.
pub(crate) fn of(bundle: &Path, programs: &[Program]) -> Result<Index> {
    let mut versions: BTreeMap<_, _> =
        programs.iter().map(|program| (program.name.clone(), program.version.clone())).collect();
    versions.insert("bundle".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    if bundle.join("hosts").is_dir() {
        versions.insert("kubernetes".to_owned(), recipes::KUBERNETES_VERSION.to_owned());
    }
    let mut images = Vec::new();
    let mut contents = Vec::new();
    for file in files(bundle)? {
        let content = Content::of(bundle, file)?;
        match programs.iter().find(|program| content.file == format!("images/{}", program.file())) {
            Some(program) => images.push(Image { name: program.image(), content }),
            None => contents.push(content),
        }
    }
    Ok(Index { versions, architecture: recipes::architecture().to_owned(), images, files: contents })
}

impl Index {
    pub(crate) fn write(&self, bundle: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(bundle.join(FILE), text).with_context(|| format!("cannot write {FILE}"))
    }

    /// What there is, and how to go on, for people.
    pub fn summary(&self, bundle: &Path) -> String {
        let all = || self.files.iter().chain(self.images.iter().map(|image| &image.content));
        let mut lines = vec![format!("{}:", bundle.display())];
        for (folder, what) in [
            ("manifests/", "manifests, for kubectl apply"),
            ("images/", "images for the nodes of the management cluster"),
            ("hosts/", "what hosts of workload clusters need"),
        ] {
            let size: u64 = all().filter(|content| content.file.starts_with(folder)).map(|content| content.size).sum();
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
