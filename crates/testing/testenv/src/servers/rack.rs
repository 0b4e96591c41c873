//! A rack: a LAN, and the servers on it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};

use super::cgroups::Hierarchies;
use super::kernel::Kernel;
use super::lan;
use super::layer_files::write;
use super::layers::{Layers, OtherSystem};
use super::login::Login;
use super::rack_state::{RackState, sweep};
use super::server::{Server, System};
use super::virtual_machine::{VirtualMachine, no_virtual_machines};
use super::{image_store, support};
use crate::build::Cache;
use crate::progress::Progress;

/// The racks' folder, below the cache.
const FOLDER: &str = "racks";

/// A LAN, and the servers on it. The process needs a network namespace of its own (`scripts/in-own-namespace`); when
/// the namespace goes, the servers end. [`Rack::stop`] also removes their folders and control groups.
pub struct Rack {
    state: Arc<RackState>,
}

/// Where racks keep the servers' disks, a folder for each rack.
///
/// # Errors
/// When there is no place for the cache.
pub fn racks() -> Result<PathBuf> {
    Ok(Cache::new(Progress::new(|_| ()))?.root().join(FOLDER))
}

impl Rack {
    /// Makes the LAN, and the layers that are not in the cache yet. With `before` servers also have the minor version of Kubernetes before.
    ///
    /// # Errors
    /// When the machine cannot have servers, or something cannot be made.
    pub async fn start(before: bool, progress: impl Fn(&str) + Send + Sync + 'static) -> Result<Self> {
        if !support::has_own_network() {
            bail!("servers get a bridge, which the machine's own network must not have: use scripts/in-own-namespace");
        }
        let cache = Cache::new(Progress::new(progress))?;
        if let Some(reason) = support::unsupported(cache.root()) {
            bail!("this machine cannot have servers: {reason}");
        }
        let hierarchies = Hierarchies::of_machine()?;
        let racks = cache.root().join(FOLDER);
        fs::create_dir_all(&racks)?;
        sweep(&racks, &hierarchies).await;
        let layers = Layers::get(&cache, before).await?;
        lan::make().await?;
        let images: Vec<_> = layers.image_folders().map(|folder| folder.display().to_string()).collect();
        let images = images.join(" ");
        let importing = Arc::new(RackState::new(&racks, hierarchies, layers)?);
        let store = cache
            .folder("server-store", &[&images, &importing.layers.lowerdir(), "1"], 30, |folder| {
                image_store::import(importing.clone(), folder)
            })
            .await?;
        let mut state = Arc::into_inner(importing).context("the importing server is still in use")?;
        state.image_store = Some(store.join("containerd"));
        Ok(Self { state: Arc::new(state) })
    }

    /// Name of the rack, and of its folder and control groups.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// A new server with everything that a node needs, switched off. `number` is the last part of its address, from 1
    /// to 200; each may be used once.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn server(&self, name: &str, number: u8) -> Result<Server> {
        Server::new(self.state.clone(), name, number, System::Node)
    }

    /// A new server with a freshly installed system, switched off: Debian with python3, and sshd, which accepts the
    /// rack's key for root. `number` is as in [`Rack::server`].
    ///
    /// # Errors
    /// When its folder or the key cannot be made.
    pub fn debian_server(&self, name: &str, number: u8) -> Result<Server> {
        let server = Server::new(self.state.clone(), name, number, System::Debian)?;
        self.authorize(&server)?;
        Ok(server)
    }

    /// As [`Rack::debian_server`], but with Debian 13, which the packages of [`super::host_files`] are not for, and with the packages that
    /// kubeadm needs.
    ///
    /// # Errors
    /// As [`Rack::debian_server`], and when the system is not in the cache and cannot be made, for which there is no network here.
    pub async fn debian_13_server(&self, name: &str, number: u8) -> Result<Server> {
        let other = OtherSystem::get(&Cache::new(Progress::new(|_| ()))?).await?;
        let server = Server::new(self.state.clone(), name, number, System::Debian)?.with_lowerdir(other.lowerdir());
        self.authorize(&server)?;
        self.login()?.know_host_key(&other.system)?;
        Ok(server)
    }

    /// A new virtual machine with the same system as [`Rack::debian_server`] and a kernel of its own, switched off.
    /// `number` is as in [`Rack::server`].
    ///
    /// # Errors
    /// When this machine cannot have virtual machines, or the kernel, the key or the disk cannot be made.
    pub async fn virtual_machine(&self, name: &str, number: u8) -> Result<VirtualMachine> {
        if let Some(reason) = no_virtual_machines() {
            bail!("there are no virtual machines: {reason}");
        }
        let cache = Cache::new(Progress::new(|_| ()))?;
        let kernel = Kernel::get(&cache, &self.state.layers).await?;
        VirtualMachine::new(self.state.clone(), name, number, kernel).await
    }

    /// Makes a server that is off accept the rack's key for root.
    ///
    /// # Errors
    /// When the key cannot be made or written.
    pub fn authorize(&self, server: &Server) -> Result<()> {
        write(&server.folder().join("upper"), "root/.ssh/authorized_keys", &self.login()?.public_key()?)
    }

    /// How to log in to servers of [`Rack::debian_server`], and to those that [`Rack::authorize`] was called for.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn login(&self) -> Result<Login> {
        Login::get(&self.state)
    }

    /// Removes the LAN, and folders and control groups of the servers, which must be off or removed.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub async fn stop(self) -> Result<()> {
        let groups = self.state.hierarchies.remove(&self.state.name, None).await;
        let lan = lan::delete().await;
        let folder = &self.state.folder;
        let removed = fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()));
        groups.and(lan).and(removed)
    }
}
