//! Writes container images without a registry or a container runtime.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const MANIFEST: &str = "manifest.json";
const LAYER: &str = "layer.tar.gz";
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
        let manifest = json!([{"Config": "config.json", "RepoTags": [self.name], "Layers": [LAYER]}]);
        let mut archive = tar::Builder::new(File::create(folder.join(format!("{file}.tar")))?);
        for (name, value) in [(MANIFEST, manifest), ("config.json", configuration)] {
            let text = serde_json::to_vec(&value)?;
            append(&mut archive, name, text.len() as u64, text.as_slice())?;
        }
        let content = File::open(&layer)?;
        append(&mut archive, LAYER, content.metadata()?.len(), content)?;
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

/// What an archive has that [`Image::write`] has written: the image's name with its tag, and the content of each file.
///
/// # Errors
/// When the archive cannot be read, or names no image.
pub fn read(archive: &Path) -> Result<(String, Vec<Vec<u8>>)> {
    let (mut name, mut files) = (None, Vec::new());
    for entry in tar::Archive::new(File::open(archive)?).entries()? {
        let entry = entry?;
        if entry.path_bytes() == MANIFEST.as_bytes() {
            let manifest: Value = serde_json::from_reader(entry)?;
            name = manifest[0]["RepoTags"][0].as_str().map(ToOwned::to_owned);
        } else if entry.path_bytes() == LAYER.as_bytes() {
            for file in tar::Archive::new(GzDecoder::new(entry)).entries()? {
                let mut file = file?;
                if file.header().entry_type().is_file() {
                    let mut content = Vec::new();
                    file.read_to_end(&mut content)?;
                    files.push(content);
                }
            }
        }
    }
    Ok((name.context("it names no image")?, files))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, "the program").unwrap();
        let mut image = Image::of("localhost/o2ims/a:1", Content::File("usr/bin/a".to_owned(), program));
        image.content.push(Content::Link("a".to_owned(), "usr/bin/a".to_owned()));
        image.write(folder.path()).unwrap();
        let (name, files) = read(&folder.path().join("localhost_o2ims_a_1.tar")).unwrap();
        assert_eq!((name.as_str(), files), ("localhost/o2ims/a:1", vec![b"the program".to_vec()]));
    }
}
