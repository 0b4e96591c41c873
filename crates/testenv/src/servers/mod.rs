//! Servers for tests and the sandbox, made of Linux namespaces: each with its own root file system, systemd as process 1,
//! containerd, the kubelet, kubeadm and BYOH's agent, on a LAN of their own, without any other network. Everything that runs
//! on them is real; only the machine is shared, with its kernel, memory and processors.
//!
//! What is made once (distribution, programs, images) is kept in the cache; a server has a folder of its own above it.

mod cgroups;
mod debian;
pub(crate) mod images;
mod layers;
mod programs;
mod rack;
mod server;
mod support;

pub use layers::Unfetched;
pub use rack::{GATEWAY, Login, Rack};
pub use server::{AgentSetup, Server};

use std::path::PathBuf;

use anyhow::Result;

use crate::binaries::Cache;
use crate::progress::Progress;

/// Why this machine cannot have servers, for people; `None` when it can.
///
/// # Errors
/// When there is no place for the cache.
pub fn obstacle() -> Result<Option<String>> {
    Ok(support::obstacle(Cache::new(Progress::new(|_| ()))?.root()))
}

/// Set by `mgmt.sh` to the reason why there are no servers, where they could not be made.
const NO_SERVERS: &str = "O2IMS_NO_SERVERS";

/// Why tests that need servers are left out; `None` when they are not.
///
/// # Errors
/// As [`obstacle`].
pub fn left_out() -> Result<Option<String>> {
    match std::env::var(NO_SERVERS).ok().filter(|why| !why.is_empty()) {
        Some(told) => Ok(Some(told)),
        None if !support::has_own_network() => Ok(Some("this network is the machine's own".to_owned())),
        None => obstacle(),
    }
}

/// Where racks keep the servers' disks, a folder for each rack.
///
/// # Errors
/// When there is no place for the cache.
pub fn racks() -> Result<PathBuf> {
    Ok(Cache::new(Progress::new(|_| ()))?.root().join(rack::FOLDER))
}

/// Makes everything that needs a network and is not in the cache yet.
///
/// # Errors
/// When something cannot be fetched or built; the error says what.
pub async fn build(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<()> {
    host_files(progress).await.map(drop)
}

/// A folder with everything that makes a host of a server with the distribution only, as the bundle's `hosts` has it:
/// `bin`, `packages` and `images`. What is not in the cache yet is made, with a network.
///
/// # Errors
/// When something cannot be fetched or built; the error says what.
pub async fn host_files(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<PathBuf> {
    let cache = Cache::new(Progress::new(progress))?;
    let layers = layers::Layers::get(&cache).await?;
    debian::host_files(&cache, &layers).await
}
