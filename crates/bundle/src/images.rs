//! The container images of the management cluster: one program each, in an archive that container runtimes import.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use testenv::recipes::{self, Built, Cache, Content, Image, Manager, Progress};

use crate::{cert_manager, operators};

/// What images are named below. The name says that they come from the nodes themselves; a site with a registry replaces it.
pub(crate) const REGISTRY: &str = "localhost/o2ims";
/// As the operators' Deployments have it, and distroless images.
const USER: &str = "65532:65532";
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// Named in programs that need shared libraries.
const LOADER: &[u8] = b"/ld-linux";

/// A program with an image of its own.
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Version and content, so that a changed program is a changed image.
    pub(crate) tag: String,
    path: PathBuf,
    /// Its path in the image.
    inside: String,
    /// Whether it may call servers with certificates of public authorities.
    certificates: bool,
    /// The provider whose manager it is; its manifests come from there.
    pub(crate) provider: Option<Manager>,
}

impl Program {
    pub(crate) fn image(&self) -> String {
        format!("{REGISTRY}/{}:{}", self.name, self.tag)
    }

    /// Name of its archive.
    pub(crate) fn file(&self) -> String {
        format!("{}-{}.tar", self.name, self.tag)
    }

    /// A program whose cache entry is named `<program>-<version>-<hash>`.
    fn built(name: &str, built: &Built, inside: &str) -> Result<Self> {
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
}

/// All programs, built.
pub(crate) async fn programs(cache: &Cache, progress: &Progress, operators: Option<&Path>) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for (name, built) in cert_manager::programs(cache).await? {
        programs.push(Program::built(name, &built, name)?);
    }
    let mut managers = recipes::cluster_api(cache).await?;
    managers.push(recipes::byoh(cache).await?);
    for manager in managers {
        let name = manager.built.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Their Deployments call it so.
        let program = Program::built(&name, &manager.built, "manager")?;
        programs.push(Program { provider: Some(manager), ..program });
    }
    for (name, path) in operators::programs(progress, operators).await? {
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // The image has nothing else, so a loader would not be found there.
        if content.windows(LOADER.len()).any(|bytes| bytes == LOADER) {
            bail!("{} is not a static program: scripts/build-release makes one", path.display());
        }
        let mut hash = format!("{:x}", Sha256::digest(&content));
        hash.truncate(12);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let tag = format!("{version}-{hash}");
        let inside = format!("usr/local/bin/{name}");
        programs.push(Program {
            name: name.to_owned(),
            version,
            tag,
            path,
            inside,
            certificates: true,
            provider: None,
        });
    }
    Ok(programs)
}

/// Writes the archives into `images` of the bundle.
pub(crate) async fn write(cache: &Cache, programs: &[Program], bundle: &Path) -> Result<()> {
    let to = bundle.join("images");
    fs::create_dir(&to)?;
    for program in programs {
        let mut image = Image::of(&program.image(), Content::File(program.inside.clone(), program.path.clone()));
        image.entrypoint = Some(format!("/{}", program.inside));
        image.user = Some(USER);
        let mut authorities = String::new();
        if program.certificates {
            let file = authorities_file();
            authorities = fs::read_to_string(&file).with_context(|| {
                format!("cannot read {}: install the package ca-certificates, or set SSL_CERT_FILE", file.display())
            })?;
            image.content.push(Content::File(CERTIFICATES.to_owned(), file));
        }
        let archive = format!("{}.tar", image.file());
        // The tag stands for the program.
        let parts = [program.image(), program.inside.clone(), authorities, "1".to_owned()];
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        let folder = cache
            .folder(&format!("bundle-image-{}", program.name), &parts, 3, async |folder: PathBuf| {
                tokio::task::spawn_blocking(move || image.write(&folder)).await?
            })
            .await?;
        fs::copy(folder.join(&archive), to.join(program.file()))
            .with_context(|| format!("cannot copy {archive} into the bundle"))?;
    }
    Ok(())
}

/// The authorities that this machine trusts, where distributions have them.
fn authorities_file() -> PathBuf {
    let given = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty());
    given.map_or_else(|| Path::new("/").join(CERTIFICATES), PathBuf::from)
}
