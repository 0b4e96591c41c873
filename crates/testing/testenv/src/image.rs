//! Writes container images without a registry or a container runtime.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// The environment of every image's containers.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A file or a link in an image.
pub enum Content {
    /// Path in the image, and path of the file to be copied.
    File(String, PathBuf),
    /// Path of a symbolic link in the image, and its target.
    Link(String, String),
}

/// An image with one layer.
pub struct Image {
    /// Name and tag.
    pub name: String,
    /// The files and links in it.
    pub content: Vec<Content>,
    /// The entrypoint: the program that a container runs if its pod names none.
    pub entrypoint: Option<String>,
    /// Numeric user and group, such as `65532:65532`; root if `None`.
    pub user: Option<&'static str>,
}

impl Image {
    /// An image with one file or link, which runs as root and has no entrypoint.
    pub fn of(name: &str, content: Content) -> Self {
        Self { name: name.to_owned(), content: vec![content], entrypoint: None, user: None }
    }

    /// File name of the archive, without `.tar`.
    pub fn file(&self) -> String {
        self.name.replace(['/', ':'], "_")
    }

    /// Writes the archive into a folder: a manifest, a configuration and the layer, as `ctr images import` reads them.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let file = self.file();
        let layer = folder.join(format!("{file}.layer"));
        let digest = self.write_layer(&layer).with_context(|| format!("making the image {}", self.name))?;
        let mut settings = json!({"Env": [PATH]});
        if let Some(entrypoint) = &self.entrypoint {
            settings["Entrypoint"] = json!([entrypoint]);
        }
        if let Some(user) = self.user {
            settings["User"] = json!(user);
        }
        let configuration = json!({
            "architecture": architecture(), "os": "linux", "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        let manifest = json!([{"Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar.gz"]}]);
        let mut archive = tar::Builder::new(File::create(folder.join(format!("{file}.tar")))?);
        for (name, value) in [("manifest.json", manifest), ("config.json", configuration)] {
            let text = serde_json::to_vec(&value)?;
            append(&mut archive, name, text.len() as u64, text.as_slice())?;
        }
        let content = File::open(&layer)?;
        append(&mut archive, "layer.tar.gz", content.metadata()?.len(), content)?;
        archive.into_inner()?.sync_all()?;
        Ok(std::fs::remove_file(layer)?)
    }

    /// Writes the compressed layer, and returns the SHA-256 of the uncompressed one.
    fn write_layer(&self, path: &Path) -> Result<String> {
        let output = GzEncoder::new(File::create(path)?, Compression::fast());
        let mut layer = tar::Builder::new(Hashing { hash: Sha256::new(), output });
        for content in &self.content {
            match content {
                Content::File(path, from) => {
                    let file = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
                    append(&mut layer, path, file.metadata()?.len(), file)?;
                }
                Content::Link(path, target) => {
                    let mut header = tar::Header::new_gnu();
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    header.set_mode(0o777);
                    layer.append_link(&mut header, path, target)?;
                }
            }
        }
        let hashing = layer.into_inner()?;
        hashing.output.finish()?;
        Ok(format!("{:x}", hashing.hash.finalize()))
    }
}

fn append<W: Write>(archive: &mut tar::Builder<W>, path: &str, size: u64, content: impl io::Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o755);
    archive.append_data(&mut header, path, content)
}

/// This machine's architecture, as container images name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Passes on what is written, and computes its SHA-256.
struct Hashing<W> {
    hash: Sha256,
    output: W,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
