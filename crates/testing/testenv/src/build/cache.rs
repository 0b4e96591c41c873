//! The cache: a folder with an entry for each program, and for each other thing that takes long to make.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use super::c_parts;
use super::checkout::Checkout;
use super::go::{self, Download, download, go, go_with};
use super::published::Publisher;
use super::recipe::{Module, Recipe};
use crate::assets;
use crate::image::architecture;
use crate::progress::Progress;

/// How often a running build reports that it is still running.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_secs(20);
/// How often a lock that another process holds is tried.
const LOCK_POLL: Duration = Duration::from_millis(250);
/// Part of every key. To be raised when the layout of an entry changes, so that older entries are not used.
const LAYOUT: &str = "1";
/// How programs are linked: without debug information, but with the symbols. By these it is known which functions a program has, and so
/// which known holes.
const LINKED: &str = "-w";
/// How one with parts in C is linked beside that.
const LINKED_WITH_C: &str = "-linkmode external -extldflags -static";

/// A program that is built.
#[derive(Clone)]
pub struct Built {
    /// Path of the program.
    pub program: PathBuf,
}

impl Built {
    /// The program's cache entry, which is the folder that it is in.
    pub fn folder(&self) -> &Path {
        self.program.parent().unwrap_or(Path::new("."))
    }
}

/// The cache's folder.
pub struct Cache {
    root: PathBuf,
    /// The folder that `KUBEBUILDER_ASSETS` names.
    assets: Option<PathBuf>,
    /// Where programs are downloaded from, if the environment asks for that.
    publisher: Option<Publisher>,
    progress: Progress,
    /// Whether [`Cache::report`] reports.
    reports: bool,
}

impl Cache {
    /// Opens the cache in the folder that `O2IMS_TESTENV_CACHE` names, or else in the user's cache folder.
    ///
    /// # Errors
    /// When no folder is named, or the folder cannot be made.
    pub fn new(progress: Progress) -> Result<Self> {
        let root = if let Some(path) = folder_from("O2IMS_TESTENV_CACHE") {
            path
        } else if let Some(path) = folder_from("XDG_CACHE_HOME") {
            path.join("o2ims-testenv")
        } else {
            let home = folder_from("HOME").context("set HOME or O2IMS_TESTENV_CACHE: built programs must be kept")?;
            home.join(".cache/o2ims-testenv")
        };
        fs::create_dir_all(&root).with_context(|| format!("cannot make the cache folder {}", root.display()))?;
        let (assets, publisher) = (folder_from("KUBEBUILDER_ASSETS"), Publisher::from_environment());
        Ok(Self { root, assets, publisher, progress, reports: true })
    }

    /// Returns the program from `KUBEBUILDER_ASSETS` or the cache. If it is in neither, it is built, or downloaded where the environment
    /// asks for that.
    ///
    /// # Errors
    /// When the program cannot be built or downloaded.
    pub async fn program(&self, recipe: &Recipe) -> Result<Built> {
        if let Some(built) = self.existing(recipe) {
            return Ok(built);
        }
        if let Some(other) = self.assets_program(recipe) {
            self.progress.line(format!(
                "{} is not {}, so it is not used (KUBEBUILDER_ASSETS)",
                other.display(),
                recipe.version
            ));
        }
        if let Some(publisher) = self.publisher.as_ref().filter(|_| recipe.published) {
            let title = format!("{} {} (downloaded)", recipe.name, recipe.version);
            let fetch = async |folder: PathBuf| publisher.fetch(recipe, &folder).await;
            return self.entry(&published_key(recipe), recipe.name, &title, 10, fetch).await;
        }
        let (key, flags) = (key(recipe), &flags(recipe));
        let title = format!("{} {}", recipe.name, recipe.version);
        self.entry(&key, recipe.name, &title, recipe.seconds, |folder| async move {
            let source = folder.join("source");
            fs::create_dir_all(&source)?;
            fs::write(source.join("go.mod"), recipe.module.go_mod)?;
            fs::write(source.join("go.sum"), recipe.module.go_sum)?;
            for (path, content) in recipe.sources() {
                let path = source.join(path);
                fs::create_dir_all(path.parent().unwrap_or(&source))?;
                fs::write(path, content)?;
            }
            let output = folder.join(recipe.name);
            let output = output.to_str().context("the cache folder's path is not UTF-8")?;
            let variables = if recipe.has_c { c_parts::variables(&source).await? } else { Vec::new() };
            let tags = format!("-tags={}", recipe.tags);
            let arguments = ["build", "-trimpath", &tags, "-ldflags", flags, "-o", output, recipe.package];
            let built = go_with(&source, &arguments, &variables).await;
            if recipe.has_c {
                built.context(c_parts::NEEDED)?
            } else {
                built?
            };
            if let Some((module, path)) = recipe.manifests {
                let root = go(&source, &["list", "-m", "-f", "{{.Dir}}", module]).await?;
                assets::store(&Path::new(root.trim()).join(path), &folder)?;
            }
            Ok(fs::remove_dir_all(source)?)
        })
        .await
    }

    /// The program if it is in `KUBEBUILDER_ASSETS` or the cache.
    pub(super) fn existing(&self, recipe: &Recipe) -> Option<Built> {
        let program = self.assets_program(recipe).filter(|program| says_version(program, recipe.version));
        program.map(|program| Built { program }).or_else(|| self.lookup(recipe)).or_else(|| {
            self.publisher.as_ref().filter(|_| recipe.published)?;
            self.in_entry(&published_key(recipe), recipe)
        })
    }

    /// The program in the folder that `KUBEBUILDER_ASSETS` names, of whatever version.
    fn assets_program(&self, recipe: &Recipe) -> Option<PathBuf> {
        let assets = self.assets.as_ref().filter(|_| recipe.in_assets_folder);
        assets.map(|folder| folder.join(recipe.name)).filter(|program| program.is_file())
    }

    /// The same cache, which does not report that a build is running.
    pub(super) fn without_reports(&self) -> Self {
        let (root, assets, publisher) = (self.root.clone(), self.assets.clone(), self.publisher.clone());
        Self { root, assets, publisher, progress: self.progress.clone(), reports: false }
    }

    /// Reports a line.
    pub(super) fn line(&self, text: String) {
        self.progress.line(text);
    }

    /// The program if it is built and in the cache.
    pub fn lookup(&self, recipe: &Recipe) -> Option<Built> {
        let key = key(recipe);
        match go::version() {
            Some(_) => self.in_entry(&key, recipe),
            // The cache was filled on a machine with Go, or while there was one here.
            None => self.by_any_go(&key).into_iter().find_map(|entry| self.in_entry(&entry, recipe)),
        }
    }

    /// The entries of a program that some version of Go has built, by name, the last first.
    fn by_any_go(&self, key: &str) -> Vec<String> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.filter(|name| name.starts_with(key)).collect();
        names.sort_unstable_by(|a, b| b.cmp(a));
        names
    }

    fn in_entry(&self, key: &str, recipe: &Recipe) -> Option<Built> {
        let program = self.root.join(key).join(recipe.name);
        program.is_file().then_some(Built { program })
    }

    /// Returns a program of a checkout, with the manifests of the checkout's `config` folder.
    pub(crate) async fn checkout(&self, name: &str, package: &str, checkout: &Checkout) -> Result<Built> {
        let key = format!("{name}-checkout-{}", short_hash(&[LAYOUT, LINKED, &checkout.version()?]));
        let path = checkout.path();
        let title = format!("{name} of {}", path.display());
        self.entry(&key, name, &title, 90, |folder| async move {
            let output = folder.join(name);
            let output = output.to_str().context("the cache folder's path is not UTF-8")?;
            go(path, &["build", "-trimpath", "-ldflags", LINKED, "-o", output, package]).await?;
            assets::store(&path.join("config"), &folder)
        })
        .await
    }

    /// Returns a folder that `make` has filled, once. `parts` must be everything that the content depends on; `seconds`
    /// is roughly how long `make` takes.
    ///
    /// # Errors
    /// When `make` fails, or the folder cannot be written.
    pub async fn folder<F>(
        &self,
        name: &str,
        parts: &[&str],
        seconds: u32,
        make: impl FnOnce(PathBuf) -> F,
    ) -> Result<PathBuf>
    where
        F: Future<Output = Result<()>>,
    {
        const COMPLETE: &str = "complete";
        let key = format!("{name}-{}", short_hash(&[&[LAYOUT], parts].concat()));
        let built = self
            .entry(&key, COMPLETE, name, seconds, |folder| async move {
                make(folder.clone()).await?;
                Ok(fs::write(folder.join(COMPLETE), "")?)
            })
            .await?;
        Ok(built.folder().to_path_buf())
    }

    /// Returns the folder with the sources of the Go module `path`, which `module` pins. Downloads them if they are not
    /// there; `go.sum` verifies them.
    ///
    /// # Errors
    /// When the sources cannot be downloaded.
    pub async fn sources(&self, module: &Module, path: &str) -> Result<PathBuf> {
        let parts = [LAYOUT, module.go_mod, module.go_sum];
        let pins = self
            .folder("pins", &parts, 1, async |folder| {
                fs::write(folder.join("go.mod"), module.go_mod)?;
                Ok(fs::write(folder.join("go.sum"), module.go_sum)?)
            })
            .await?;
        Ok(download(&pins, path).await?.folder)
    }

    /// Returns the sources of a Go module that nothing here pins, such as `example.org/module@v1.2.3` or `@latest`. Downloads them if
    /// they are not there; Go's checksum database verifies them.
    ///
    /// # Errors
    /// When the sources cannot be downloaded.
    pub async fn unpinned(&self, module: &str) -> Result<Download> {
        // The cache's folder is in no module, so only this module is fetched.
        download(&self.root, module).await
    }

    /// The folder with all entries.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns an entry. `make` fills a folder beside the entry, which is renamed when it is complete, so an entry is
    /// never half made. A lock keeps two processes from making the same one.
    async fn entry<F>(
        &self,
        key: &str,
        name: &str,
        title: &str,
        seconds: u32,
        make: impl FnOnce(PathBuf) -> F,
    ) -> Result<Built>
    where
        F: Future<Output = Result<()>>,
    {
        let entry = self.root.join(key);
        let built = Built { program: entry.join(name) };
        if built.program.is_file() {
            return Ok(built);
        }
        let _lock = self.lock(key, title).await?;
        // Another process may have made the entry while this one waited for the lock.
        if built.program.is_file() {
            return Ok(built);
        }

        let partial = self.root.join(format!("{key}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
        }
        fs::create_dir_all(&partial)?;
        let started = Instant::now();
        tokio::select! {
            // In this order, so that the beginning is reported before `make` reports anything.
            biased;
            () = self.report(title, seconds, started) => {}
            result = make(partial.clone()) => result.with_context(|| format!("cannot build {title}"))?,
        }
        fs::rename(&partial, &entry)?;
        self.progress.line(format!("built {title} in {} s", started.elapsed().as_secs()));
        Ok(built)
    }

    /// Waits for the lock of an entry. The lock is held until the file is dropped.
    async fn lock(&self, key: &str, title: &str) -> Result<File> {
        let lock = File::create(self.root.join(format!("{key}.lock")))?;
        let mut waiting = false;
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if !waiting {
                self.progress.line(format!("waiting for another process that builds {title} ..."));
                waiting = true;
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
        Ok(lock)
    }

    /// Reports that a build has begun, and then again and again that it is still running. Never returns.
    async fn report(&self, title: &str, seconds: u32, started: Instant) {
        if !self.reports {
            return std::future::pending().await;
        }
        let opening = format!("building {title} (about {} on 2 cores the first time) ...", about(seconds));
        self.progress.line(&opening);
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            self.progress.line(format!("{opening} {} s", started.elapsed().as_secs()));
        }
    }
}

/// A time for people.
pub(super) fn about(seconds: u32) -> String {
    if seconds < 90 { format!("{seconds} seconds") } else { format!("{} minutes", (seconds + 30) / 60) }
}

/// The name of a program's entry: its name and version, what it is built from as a hash, and the version of Go if Go is installed.
fn key(recipe: &Recipe) -> String {
    let flags = flags(recipe);
    let mut parts = vec![LAYOUT, recipe.module.go_mod, recipe.module.go_sum, recipe.package, &flags];
    parts.extend(Some(recipe.tags).filter(|tags| !tags.is_empty()));
    parts.extend(recipe.sources().map(|(_, content)| *content));
    // Go's own packages are in every program, with their holes. A dot, because the version of the program ends at the last hyphen.
    format!("{}-{}-{}.{}", recipe.name, recipe.version, short_hash(&parts), go::version().unwrap_or_default())
}

/// The name of the entry of a program that was downloaded.
fn published_key(recipe: &Recipe) -> String {
    let hash = short_hash(&[LAYOUT, architecture()]);
    format!("{}-{}-published.{hash}", recipe.name, recipe.version)
}

/// What a program is linked with.
fn flags(recipe: &Recipe) -> String {
    let flags = format!("{LINKED} {}", recipe.stamps());
    if recipe.has_c { format!("{flags} {LINKED_WITH_C}") } else { flags }
}

/// The first 12 hexadecimal digits of the parts' SHA-256: enough to tell builds apart.
pub(crate) fn short_hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // The length keeps ["ab", "c"] and ["a", "bc"] apart.
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let mut text = format!("{:x}", hash.finalize());
    text.truncate(12);
    text
}

/// Whether a program of Kubernetes or etcd says that it has this version, such as `v1.2.3`.
fn says_version(program: &Path, version: &str) -> bool {
    // kubectl has no flag for it.
    [&["--version"][..], &["version", "--client"]].into_iter().any(|arguments| {
        let told = std::process::Command::new(program).args(arguments).output();
        told.is_ok_and(|told| has_version(&String::from_utf8_lossy(&told.stdout), version))
    })
}

/// Whether a word of the text is the version, with or without `v`.
fn has_version(text: &str, version: &str) -> bool {
    text.split_whitespace().any(|word| word.trim_start_matches('v') == version.trim_start_matches('v'))
}

/// The folder that a variable of the environment names; `None` if the variable is empty or not set.
fn folder_from(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_says_its_version() {
        for text in ["Kubernetes v1.2.3\n", "etcd Version: 1.2.3\nGit SHA: x", "Client Version: v1.2.3\n"] {
            assert!(has_version(text, "v1.2.3"), "{text}");
            assert!(!has_version(text, "v1.2.30"), "{text}");
        }
        assert!(!has_version("Kubernetes v1.2.30", "v1.2.3"));
    }
}
