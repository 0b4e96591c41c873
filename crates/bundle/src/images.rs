//! Writes the container images of the management cluster: one program each, in an archive that container runtimes
//! import.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use testenv::build::Cache;
use testenv::image::{Content, Image};

use crate::program::Program;

/// User and group of distroless images, and of the operators' Deployments.
const USER: &str = "65532:65532";
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// Writes an archive for each program into `images` of the bundle.
///
/// # Errors
/// When an archive cannot be written.
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
        // The tag changes with the program, so the program itself need not be a part of the key.
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

/// The file with the authorities that this machine trusts: the one in `SSL_CERT_FILE`, or else that of most
/// distributions.
fn authorities_file() -> PathBuf {
    let given = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty());
    given.map_or_else(|| Path::new("/").join(CERTIFICATES), PathBuf::from)
}
