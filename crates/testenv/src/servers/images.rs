//! Container images of a node, made from the built programs: one layer each, as archives that `ctr images import` reads.
//! Names and tags are those that kubeadm asks for.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use super::layers::run;
use super::programs::NodePrograms;
use crate::binaries::Cache;

/// The image of the pod network; `manifests/pod-network.yaml` of the sandbox names it.
const POD_NETWORK: &str = "localhost/pod-network:1";
/// The image of a pod that looks a name up.
const PROBE: &str = "localhost/probe:1";
/// The image that ClusterTemplates have by default.
const KUBE_VIP: &str = "ghcr.io/kube-vip/kube-vip:v0.9.1";
/// What kube-proxy calls.
const PROXY_TOOLS: [&str; 3] = ["usr/sbin/xtables-nft-multi", "usr/sbin/nft", "usr/sbin/conntrack"];
const PROXY_LINKS: [&str; 6] =
    ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Archives of images, ready to be imported.
pub(crate) struct Images {
    /// The folder of the archives.
    pub(crate) folder: PathBuf,
    /// Name of the image that holds pods.
    pub(crate) pause: String,
}

impl Images {
    pub(crate) async fn get(cache: &Cache, programs: &NodePrograms, system: &Path) -> Result<Self> {
        let names = names(programs).await?;
        let list = names.join(" ");
        let parts = [programs.key(), system.display().to_string(), list, "2".to_owned()];
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        let pause = find(&names, "pause")?;
        let folder = cache
            .folder("server-images", &parts, 20, |folder| async move {
                for image in all(programs, &names, system).await? {
                    let folder = folder.clone();
                    tokio::task::spawn_blocking(move || image.write(&folder)).await??;
                }
                Ok(())
            })
            .await?;
        Ok(Self { folder, pause })
    }
}

/// What kubeadm of this version pulls.
async fn names(programs: &NodePrograms) -> Result<Vec<String>> {
    let mut list = Command::new(&programs.kubeadm.program);
    list.args(["config", "images", "list", "--kubernetes-version", programs.version]);
    let names = run(&mut list).await?;
    Ok(names.lines().map(str::trim).filter(|line| line.contains('/')).map(ToOwned::to_owned).collect())
}

fn find(names: &[String], image: &str) -> Result<String> {
    let found = names.iter().find(|name| name.rsplit('/').next().unwrap_or_default().split(':').next() == Some(image));
    match found {
        Some(name) => Ok(name.clone()),
        None => bail!("kubeadm names no image {image}"),
    }
}

async fn all(programs: &NodePrograms, names: &[String], system: &Path) -> Result<Vec<Image>> {
    // Static pods name their command, so these have no entrypoint.
    let static_pods = [
        ("etcd", &programs.etcd),
        ("kube-apiserver", &programs.kube_apiserver),
        ("kube-controller-manager", &programs.kube_controller_manager),
        ("kube-scheduler", &programs.kube_scheduler),
    ];
    let mut images = Vec::new();
    for (name, program) in static_pods {
        let path = format!("usr/local/bin/{name}");
        images.push(Image::of(&find(names, name)?, Content::File(path, program.program.clone())));
    }
    let mut proxy = Image::of(
        &find(names, "kube-proxy")?,
        Content::File("usr/local/bin/kube-proxy".to_owned(), programs.kube_proxy.program.clone()),
    );
    proxy.content.extend(proxy_tools(system).await?);
    images.push(proxy);
    let entered = [
        ("coredns", find(names, "coredns")?, &programs.coredns, None),
        ("pause", find(names, "pause")?, &programs.pause, Some("65535:65535")),
        ("kube-vip", KUBE_VIP.to_owned(), &programs.kube_vip, None),
        ("pod-network", POD_NETWORK.to_owned(), &programs.pod_network, None),
        ("probe", PROBE.to_owned(), &programs.probe, None),
    ];
    for (program, name, built, user) in entered {
        let mut image = Image::of(&name, Content::File(program.to_owned(), built.program.clone()));
        image.entrypoint = Some(format!("/{program}"));
        image.user = user;
        images.push(image);
    }
    Ok(images)
}

/// iptables, nft and conntrack with their extensions and libraries, from the servers' own file system.
async fn proxy_tools(system: &Path) -> Result<Vec<Content>> {
    let listing = "extensions=$(find -L /usr/lib/*/xtables -name '*.so'); echo \"$extensions\"; \
         ldd \"$@\" $extensions | sed -n 's/.*=> \\(\\/[^ ]*\\) .*/\\1/p; s/^[[:space:]]*\\(\\/lib64[^ ]*\\) .*/\\1/p'";
    let mut list = Command::new("chroot");
    list.arg(system).args(["/bin/sh", "-euc", listing, "list"]);
    list.args(PROXY_TOOLS.map(|tool| format!("/{tool}")));
    let listed = run(&mut list).await.context("finding the libraries of iptables")?;
    let mut files: BTreeSet<String> = PROXY_TOOLS.map(ToOwned::to_owned).into();
    // /lib and /lib64 are links into /usr.
    files.extend(
        listed
            .lines()
            .map(|line| line.trim_start_matches('/'))
            .map(|path| if path.starts_with("usr/") { path.to_owned() } else { format!("usr/{path}") }),
    );
    let mut content: Vec<_> = files
        .into_iter()
        .map(|path| {
            let from = system.join(&path);
            Content::File(path, from)
        })
        .collect();
    for (name, target) in [("lib", "usr/lib"), ("lib64", "usr/lib64"), ("sbin", "usr/sbin")] {
        content.push(Content::Link(name.to_owned(), target.to_owned()));
    }
    content.extend(PROXY_LINKS.map(|name| Content::Link(format!("usr/sbin/{name}"), "xtables-nft-multi".to_owned())));
    Ok(content)
}

/// Something in an image.
pub enum Content {
    /// Path in the image, and where the content is.
    File(String, PathBuf),
    /// Path in the image, and the target.
    Link(String, String),
}

/// An image of one layer.
pub struct Image {
    /// Name and tag.
    pub name: String,
    /// What is in it.
    pub content: Vec<Content>,
    /// The program that containers run if they name none.
    pub entrypoint: Option<String>,
    /// User and group, by number.
    pub user: Option<&'static str>,
}

impl Image {
    /// An image with one piece of content, run as root and without an entrypoint.
    pub fn of(name: &str, content: Content) -> Self {
        Self { name: name.to_owned(), content: vec![content], entrypoint: None, user: None }
    }

    /// Name of the archive, without `.tar`.
    pub fn file(&self) -> String {
        self.name.replace(['/', ':'], "_")
    }

    /// Writes the archive: a manifest, a configuration and the layer.
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

    /// Writes the compressed layer and returns the hash of it uncompressed.
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

/// As container images have it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

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
