//! A program with an image of its own.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use testenv::build::Built;
use testenv::recipes::Manager;

/// Prefix of the images' names. `localhost` shows that nobody can pull them; a site with a registry replaces it.
pub(crate) const REGISTRY: &str = "localhost/o2ims";
/// The dynamic loader, which programs name that need shared libraries.
const LOADER: &[u8] = b"/ld-linux";

/// A program with an image of its own.
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Tag of the image: version, and a hash of the content or of all that it is built from, so that a changed program is a changed image.
    pub(crate) tag: String,
    /// Path of the program.
    pub(crate) path: PathBuf,
    /// Path of the program in the image.
    pub(crate) inside: String,
    /// Whether the image has the certificates of public authorities.
    pub(crate) certificates: bool,
    /// The provider whose manager the program is.
    pub(crate) provider: Option<Manager>,
}

impl Program {
    /// A program from the cache, whose entry is named `<program>-<version>-<hash>.<version of Go>`.
    ///
    /// # Errors
    /// When the entry has another name.
    pub(crate) fn built(name: &str, built: &Built, inside: &str) -> Result<Self> {
        let entry = built.folder().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(tag) = entry.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')) else {
            bail!("{} is no entry of the cache for {name}", built.folder().display())
        };
        let version = tag.rsplit_once('-').map_or(tag, |(version, _)| version).to_owned();
        Ok(Self {
            name: name.to_owned(),
            version,
            tag: tag.to_owned(),
            path: built.program.clone(),
            inside: inside.to_owned(),
            certificates: false,
            provider: None,
        })
    }

    /// One of our operators.
    ///
    /// # Errors
    /// When the program cannot be read, or is not static.
    pub(crate) fn operator(name: &str, path: PathBuf) -> Result<Self> {
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // The image has no dynamic loader.
        if content.windows(LOADER.len()).any(|bytes| bytes == LOADER) {
            bail!("{} is not a static program: scripts/build-release makes one", path.display());
        }
        let mut hash = format!("{:x}", Sha256::digest(&content));
        hash.truncate(12);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Self {
            name: name.to_owned(),
            tag: format!("{version}-{hash}"),
            version,
            path,
            inside: format!("usr/local/bin/{name}"),
            certificates: true,
            provider: None,
        })
    }

    /// Name and tag of the image.
    pub(crate) fn image(&self) -> String {
        format!("{REGISTRY}/{}:{}", self.name, self.tag)
    }

    /// File name of the image's archive.
    pub(crate) fn file(&self) -> String {
        format!("{}-{}.tar", self.name, self.tag)
    }
}
