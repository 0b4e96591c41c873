//! The container images of a node, made from the built programs. Names and tags are those that kubeadm pulls.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use super::programs::NodePrograms;
use crate::build::Cache;
use crate::command::run;
use crate::image::{Content, Image};
use crate::versions;

/// The image of the pod network; `manifests/pod-network.yaml` of the sandbox names it.
const POD_NETWORK: &str = "localhost/pod-network:1";
/// The image of a pod that resolves a host name.
const PROBE: &str = "localhost/probe:1";
/// kube-vip's image without its tag, as ClusterTemplates name it by default.
const KUBE_VIP: &str = "ghcr.io/kube-vip/kube-vip";
/// The programs that kube-proxy calls.
const PROXY_TOOLS: [&str; 3] = ["usr/sbin/xtables-nft-multi", "usr/sbin/nft", "usr/sbin/conntrack"];
/// Links to `xtables-nft-multi`.
const PROXY_LINKS: [&str; 6] =
    ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];

/// Archives of a node's images.
pub(crate) struct Images {
    /// The folder of the archives.
    pub(crate) folder: PathBuf,
    /// Name of the image of pod sandboxes.
    pub(crate) pause: String,
}

impl Images {
    /// Makes the archives that are not in the cache yet. `system` is the root of the servers' distribution.
    ///
    /// # Errors
    /// When an image cannot be made.
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

/// The names of the images that kubeadm of this version pulls.
async fn names(programs: &NodePrograms) -> Result<Vec<String>> {
    let mut list = Command::new(&programs.kubeadm.program);
    list.args(["config", "images", "list", "--kubernetes-version", programs.version]);
    let names = run(&mut list).await?;
    let names: Vec<_> = names.lines().map(str::trim).filter(|line| line.contains('/')).map(ToOwned::to_owned).collect();
    let etcd = format!("etcd:{}.", versions::minor(programs.etcd_version));
    // For another Kubernetes, too, there is the CoreDNS of the default one, under the tag that its kubeadm names.
    let coredns = (programs.version == versions::KUBERNETES).then(|| format!("coredns:{}", versions::COREDNS));
    for wanted in [Some(etcd), coredns].into_iter().flatten() {
        if !names.iter().any(|name| name.contains(&wanted)) {
            bail!("kubeadm {} takes another version than {wanted}: {}", programs.version, names.join(", "));
        }
    }
    Ok(names)
}

/// The full name of an image, from the names that kubeadm lists.
fn find(names: &[String], image: &str) -> Result<String> {
    let found = names.iter().find(|name| name.rsplit('/').next().unwrap_or_default().split(':').next() == Some(image));
    match found {
        Some(name) => Ok(name.clone()),
        None => bail!("kubeadm names no image {image}"),
    }
}

/// All images of a node.
async fn all(programs: &NodePrograms, names: &[String], system: &Path) -> Result<Vec<Image>> {
    // Static pods name their command, so these images have no entrypoint.
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
    for (name, tool) in &programs.etcd_tools {
        images[0].content.push(Content::File(format!("usr/local/bin/{name}"), tool.program.clone()));
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
        ("kube-vip", format!("{KUBE_VIP}:{}", versions::KUBE_VIP), &programs.kube_vip, None),
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

/// iptables, nft and conntrack with their extensions and libraries, from the servers' distribution.
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
