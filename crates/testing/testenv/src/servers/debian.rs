//! Servers with a freshly installed system: Debian with sshd and python3, without Kubernetes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::distribution::MASKED;
use super::layer_files::mask_units;
use super::script::in_mount_namespace;
use crate::build::Cache;
use crate::command::run;

/// Packages that hosts need, and that such a server does not have.
pub(crate) const HOST_PACKAGES: &str =
    "containerd runc containernetworking-plugins iptables nftables ebtables socat conntrack ethtool";
/// Those of them that such a server does not have where a site has installed the others.
pub(crate) const RUNTIME_PACKAGES: &str = "containerd runc containernetworking-plugins";
/// Libraries that only [`HOST_PACKAGES`] need. They are removed too.
const LIBRARIES: &str = "libip6tc2 libnetfilter-conntrack3 libnfnetlink0 libnftables1 libnftnl11";
const PURGE: &str = concat!(include_str!("layer.sh"), include_str!("purge.sh"));

/// Makes the layer above the distribution: it removes the packages, and masks units that must not run on a shared
/// kernel.
///
/// # Errors
/// When the layer cannot be made.
pub(crate) async fn layer(cache: &Cache, system: &Path, packages: &str) -> Result<PathBuf> {
    let masked = MASKED.join(" ");
    let key = system.display().to_string();
    let libraries = if packages == HOST_PACKAGES { LIBRARIES } else { "" };
    let folder = cache
        .folder("server-debian", &[&key, packages, libraries, PURGE, &masked, "1"], 15, async |folder| {
            let mut purge = in_mount_namespace(PURGE, &folder, system);
            purge.args(packages.split(' ').chain(libraries.split_whitespace()));
            run(&mut purge).await.context("purging packages from the servers' distribution")?;
            mask_units(&folder.join("root"))
        })
        .await?;
    Ok(folder.join("root"))
}
