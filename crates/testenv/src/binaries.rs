//! The programs of a bed: built from pinned Go modules once, kept in a cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::checkout::Checkout;
use crate::progress::Progress;
use crate::{assets, byoh, cluster_api, control_plane};

/// How often a running build says that it is still there.
const TICK: Duration = Duration::from_secs(20);
/// Raised when the layout of a cache entry changes, so that older entries are not read.
const LAYOUT: &str = "1";

/// A Go module of this crate (`modules/`) that names programs of others, or has some of its own: what is built is exactly
/// what it pins.
pub struct Module {
    /// The module's `go.mod`.
    pub go_mod: &'static str,
    /// The module's `go.sum`.
    pub go_sum: &'static str,
    /// Files of its own: path and content.
    pub sources: &'static [(&'static str, &'static str)],
}

/// The module in the folder `modules/NAME` of the crate, with these files of its own.
#[macro_export]
macro_rules! module {
    ($name:literal $(, $source:literal)*) => {
        $crate::recipes::Module {
            go_mod: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/modules/", $name, "/go.mod")),
            go_sum: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/modules/", $name, "/go.sum")),
            sources: &[
                $(($source, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/modules/", $name, "/", $source)))),*
            ],
        }
    };
}
pub(crate) use module;

/// How a program is built.
pub struct Recipe {
    /// The program's file name.
    pub name: &'static str,
    /// Its version; cache entries are named by it.
    pub version: &'static str,
    /// What pins it.
    pub module: &'static Module,
    /// The Go package with the program's `main`.
    pub package: &'static str,
    /// Go's `-X` settings; versions are stamped, as programs check each other's.
    pub stamps: &'static str,
    /// Where the CRDs and webhooks that belong to the program are: a Go module and a folder in it.
    pub manifests: Option<(&'static str, &'static str)>,
    /// Roughly how long a first build takes on two cores.
    pub seconds: u32,
    /// Whether the program is taken from `KUBEBUILDER_ASSETS` if it is there.
    pub in_assets_folder: bool,
}

impl Recipe {
    /// A program without stamps and manifests.
    pub const fn new(
        name: &'static str,
        version: &'static str,
        module: &'static Module,
        package: &'static str,
        seconds: u32,
    ) -> Self {
        Self { name, version, module, package, stamps: "", manifests: None, seconds, in_assets_folder: false }
    }
}

/// A program that is ready to be started.
#[derive(Clone)]
pub struct Built {
    /// Its path.
    pub program: PathBuf,
}

impl Built {
    /// The cache entry: the program's folder.
    pub fn folder(&self) -> &Path {
        self.program.parent().unwrap_or(Path::new("."))
    }
}

/// Builds everything that a bed needs and that is not in the cache yet, and returns the programs' paths.
pub async fn build_all(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<Vec<PathBuf>> {
    let cache = Cache::new(Progress::new(progress))?;
    let mut programs = Vec::new();
    for recipe in control_plane::PROGRAMS.iter().chain(cluster_api::PROGRAMS) {
        programs.push(cache.program(recipe).await?.program);
    }
    programs.push(byoh::program(&cache).await?.program);
    cluster_api::inventory_definition(&cache).await?;
    Ok(programs)
}

/// The folder of built programs.
pub struct Cache {
    root: PathBuf,
    assets: Option<PathBuf>,
    progress: Progress,
}

impl Cache {
    /// The folder that the environment names, or the user's.
    ///
    /// # Errors
    /// When there is no place for it.
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
        Ok(Self { root, assets: folder_from("KUBEBUILDER_ASSETS"), progress })
    }

    /// The program from `KUBEBUILDER_ASSETS` or the cache; builds it if it is in neither.
    ///
    /// # Errors
    /// When it cannot be built.
    pub async fn program(&self, recipe: &Recipe) -> Result<Built> {
        if recipe.in_assets_folder
            && let Some(program) = self.assets.as_ref().map(|folder| folder.join(recipe.name))
            && program.is_file()
        {
            return Ok(Built { program });
        }
        let flags = &format!("-s -w {}", recipe.stamps);
        let mut parts = vec![LAYOUT, recipe.module.go_mod, recipe.module.go_sum, recipe.package, flags];
        parts.extend(recipe.module.sources.iter().map(|(_, content)| *content));
        let key = format!("{}-{}-{}", recipe.name, recipe.version, short_hash(&parts));
        let title = format!("{} {}", recipe.name, recipe.version);
        self.entry(&key, recipe.name, &title, recipe.seconds, |folder| async move {
            let source = folder.join("source");
            fs::create_dir_all(&source)?;
            fs::write(source.join("go.mod"), recipe.module.go_mod)?;
            fs::write(source.join("go.sum"), recipe.module.go_sum)?;
            for (path, content) in recipe.module.sources {
                let path = source.join(path);
                fs::create_dir_all(path.parent().unwrap_or(&source))?;
                fs::write(path, content)?;
            }
            let output = folder.join(recipe.name);
            let output = output.to_str().context("the cache folder's path is not UTF-8")?;
            go(&source, &["build", "-trimpath", "-ldflags", flags, "-o", output, recipe.package]).await?;
            if let Some((module, path)) = recipe.manifests {
                let root = go(&source, &["list", "-m", "-f", "{{.Dir}}", module]).await?;
                assets::store(&Path::new(root.trim()).join(path), &folder)?;
            }
            Ok(fs::remove_dir_all(source)?)
        })
        .await
    }

    /// A program from somebody's checkout, with the manifests of its `config` folder.
    pub(crate) async fn checkout(&self, name: &str, package: &str, checkout: &Checkout) -> Result<Built> {
        let key = format!("{name}-checkout-{}", short_hash(&[LAYOUT, &checkout.version()?]));
        let path = checkout.path();
        let title = format!("{name} of {}", path.display());
        self.entry(&key, name, &title, 90, |folder| async move {
            let output = folder.join(name);
            let output = output.to_str().context("the cache folder's path is not UTF-8")?;
            go(path, &["build", "-trimpath", "-ldflags", "-s -w", "-o", output, package]).await?;
            assets::store(&path.join("config"), &folder)
        })
        .await
    }

    /// A folder with what `make` puts into it, made once; `parts` are all that its content depends on.
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

    /// The folder of a pinned module's sources; downloaded, and verified by `go.sum`, if they are not there.
    ///
    /// # Errors
    /// When it cannot be downloaded.
    pub async fn sources(&self, module: &Module, path: &str) -> Result<PathBuf> {
        let parts = [LAYOUT, module.go_mod, module.go_sum];
        let pins = self
            .folder("pins", &parts, 1, async |folder| {
                fs::write(folder.join("go.mod"), module.go_mod)?;
                Ok(fs::write(folder.join("go.sum"), module.go_sum)?)
            })
            .await?;
        let about = go(&pins, &["mod", "download", "-json", path]).await?;
        let about: serde_json::Value = serde_json::from_str(&about)?;
        Ok(about["Dir"].as_str().with_context(|| format!("go names no folder of {path}"))?.into())
    }

    /// Where everything is kept.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A cache entry, made by `make` in a folder beside it that only becomes the entry when it is complete. A lock
    /// keeps others from making the same one.
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
        let lock = File::create(self.root.join(format!("{key}.lock")))?;
        let mut waiting = false;
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if !waiting {
                self.progress.line(format!("waiting for another process that builds {title} ..."));
                waiting = true;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        if built.program.is_file() {
            return Ok(built);
        }

        let partial = self.root.join(format!("{key}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
        }
        fs::create_dir_all(&partial)?;
        let started = Instant::now();
        let about =
            if seconds < 90 { format!("{seconds} seconds") } else { format!("{} minutes", (seconds + 30) / 60) };
        let opening = format!("building {title} (about {about} on 2 cores the first time) ...");
        self.progress.line(&opening);
        let tick = async {
            loop {
                tokio::time::sleep(TICK).await;
                self.progress.line(format!("{opening} {} s", started.elapsed().as_secs()));
            }
        };
        tokio::select! {
            result = make(partial.clone()) => result.with_context(|| format!("cannot build {title}"))?,
            () = tick => {}
        }
        fs::rename(&partial, &entry)?;
        self.progress.line(format!("built {title} in {} s", started.elapsed().as_secs()));
        Ok(built)
    }
}

/// Runs `go` and returns what it printed.
pub(crate) async fn go(folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("go")
        .args(arguments)
        .current_dir(folder)
        .env("CGO_ENABLED", "0")
        // Exactly what the modules pin, with the Go that is here, whatever the user's settings are.
        .env("GOFLAGS", "-mod=readonly -buildvcs=false")
        .env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context(
            "`go` cannot be started: install Go 1.25 or newer (https://go.dev/doc/install) and have it in PATH, or bring \
             a cache that was filled elsewhere (O2IMS_TESTENV_CACHE); etcd, kube-apiserver and kubectl may also come from \
             KUBEBUILDER_ASSETS",
        )?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = errors.lines().collect();
    let last = errors.get(errors.len().saturating_sub(15)..).unwrap_or_default().join("\n");
    let offline = std::env::var_os("O2IMS_OWN_NAMESPACE").is_some();
    let hint = if offline && last.contains("dial tcp") {
        "\nThere is no network in here (scripts/in-own-namespace); run crates/testenv/modules/fetch outside first, or \
         `target/debug/testenv build --tools --gitops` or `target/debug/bundle --prepare` for what only some tests need"
    } else {
        ""
    };
    bail!("go {} failed:\n{last}{hint}", arguments.join(" "))
}

/// Enough of a hash to tell builds apart.
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

/// A folder from the environment; an empty variable is as good as none.
fn folder_from(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}
