//! A rack: a LAN, and the servers on it.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};
use tokio::process::Command;

use super::cgroups::Hierarchies;
use super::layers::{CONTAINERD, Layers, run, write};
use super::server::{Server, System};
use super::support;
use crate::binaries::Cache;
use crate::folder::{is_old, write_private};
use crate::ports::random;
use crate::progress::Progress;

/// The rack's own address on the LAN: the servers' gateway, and where the management cluster listens for them.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Of the LAN.
pub(crate) const PREFIX: u8 = 24;
/// Of the racks, in the cache.
pub(crate) const FOLDER: &str = "racks";
const BRIDGE: &str = "lan0";
/// Begins the names of racks' folders and control groups.
const NAME: &str = "o2ims-rack-";
const LOCK: &str = "lock";
const ON: &str = include_str!("on.sh");
const INIT: &str = include_str!("init.sh");

/// What a rack's servers have in common.
pub(crate) struct Common {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) layers: Layers,
    /// containerd's data with all images; `None` while these are being made.
    pub(crate) store: Option<PathBuf>,
    _lock: File,
}

/// How to get into a server by ssh, as root.
#[derive(Clone, Debug)]
pub struct Login {
    /// The private key's file.
    pub key: PathBuf,
    /// The file with the servers' own keys.
    pub known_hosts: PathBuf,
}

/// A LAN, and the servers on it. Its process needs a network of its own (`scripts/in-own-namespace`); with that go the
/// servers, whatever happens. [`Rack::stop`] also removes their folders and control groups.
pub struct Rack {
    common: Arc<Common>,
}

impl Rack {
    /// Makes the LAN, and the layers that are not in the cache yet.
    ///
    /// # Errors
    /// When the machine cannot have servers, or something cannot be made.
    pub async fn start(progress: impl Fn(&str) + Send + Sync + 'static) -> Result<Self> {
        if !support::has_own_network() {
            bail!("servers get a bridge, which the machine's own network must not have: use scripts/in-own-namespace");
        }
        let cache = Cache::new(Progress::new(progress))?;
        if let Some(obstacle) = support::obstacle(cache.root()) {
            bail!("this machine cannot have servers: {obstacle}");
        }
        let hierarchies = Hierarchies::of_machine()?;
        let racks = cache.root().join(FOLDER);
        fs::create_dir_all(&racks)?;
        sweep(&racks, &hierarchies).await;
        let layers = Layers::get(&cache).await?;
        make_lan().await?;
        let images = layers.images.folder.display().to_string();
        let mut common = Common::new(&racks, hierarchies.clone(), layers)?;
        let importing = Arc::new(common);
        let store = cache
            .folder("server-store", &[&images, &importing.layers.lower(), "1"], 30, |folder| {
                import(importing.clone(), folder)
            })
            .await?;
        common = Arc::into_inner(importing).context("the importing server is still in use")?;
        common.store = Some(store.join("containerd"));
        Ok(Self { common: Arc::new(common) })
    }

    /// Its name, which its folder and control groups have too.
    pub fn name(&self) -> &str {
        &self.common.name
    }

    /// A new server, switched off. Numbers are from 1 to 200, and each is given once: the address is made of it.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn server(&self, name: &str, number: u8) -> Result<Server> {
        Server::new(self.common.clone(), name, number, System::Node)
    }

    /// A new server as it comes out of the box, switched off: Debian with sshd, which takes the rack's key for root, and
    /// python3. Numbers are as in [`Rack::server`].
    ///
    /// # Errors
    /// When its folder or the key cannot be made.
    pub fn debian(&self, name: &str, number: u8) -> Result<Server> {
        let server = Server::new(self.common.clone(), name, number, System::Debian)?;
        self.let_in(&server)?;
        Ok(server)
    }

    /// Has a server that is off take the rack's key for root.
    ///
    /// # Errors
    /// When the key cannot be made or written.
    pub fn let_in(&self, server: &Server) -> Result<()> {
        let public = self.login()?.key.with_extension("pub");
        let public = fs::read_to_string(public).context("cannot read the rack's key")?;
        write(&server.folder().join("upper"), "root/.ssh/authorized_keys", &public)
    }

    /// How to get into servers of [`Rack::debian`], and others that were let know of it.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn login(&self) -> Result<Login> {
        let folder = &self.common.folder;
        let login = Login { key: folder.join("key"), known_hosts: folder.join("known_hosts") };
        if !login.known_hosts.is_file() {
            let output = std::process::Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", &self.common.name, "-f"])
                .arg(&login.key)
                .output()
                .context("cannot start ssh-keygen (package openssh-client)")?;
            if !output.status.success() {
                bail!("ssh-keygen failed: {}", String::from_utf8_lossy(&output.stderr));
            }
            // The servers have it from their common layer.
            let host_key = self.common.layers.system.join("etc/ssh/ssh_host_ed25519_key.pub");
            let host_key = fs::read_to_string(&host_key).context("cannot read the servers' host key")?;
            let [a, b, c, _] = GATEWAY.octets();
            write_private(&login.known_hosts, format!("{a}.{b}.{c}.* {host_key}").as_bytes())?;
        }
        Ok(login)
    }

    /// Removes what is left of the servers, which must be off or removed.
    ///
    /// # Errors
    /// When something does not go.
    pub async fn stop(self) -> Result<()> {
        let groups = self.common.hierarchies.remove(&self.common.name, None).await;
        let lan = ip(&["link", "delete", BRIDGE]).await;
        let folder = &self.common.folder;
        let removed = fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()));
        groups.and(lan).and(removed)
    }
}

impl Common {
    fn new(racks: &Path, hierarchies: Hierarchies, layers: Layers) -> Result<Self> {
        let name = format!("{NAME}{:08x}", random() >> 32);
        let folder = racks.join(&name);
        // It gets its name when it has its lock, or others would take it for abandoned.
        let unnamed = racks.join(format!("new-{name}"));
        fs::create_dir(&unnamed).with_context(|| format!("cannot make {}", unnamed.display()))?;
        let lock = File::create(unnamed.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        write_private(&unnamed.join("on.sh"), ON.as_bytes())?;
        write_private(&unnamed.join("init.sh"), INIT.as_bytes())?;
        fs::rename(&unnamed, &folder)?;
        Ok(Self { name, folder, hierarchies, layers, store: None, _lock: lock })
    }
}

/// Reads all images into the data folder of a containerd, on a server that is there for that only.
async fn import(common: Arc<Common>, folder: PathBuf) -> Result<()> {
    let server = Server::new(common.clone(), "import", 250, System::Node)?;
    let images = server.folder().join("upper/images");
    fs::create_dir_all(&images)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(&common.layers.images.folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().extension().is_some_and(|extension| extension == "tar") {
            fs::hard_link(entry.path(), images.join(&name))
                .or_else(|_| fs::copy(entry.path(), images.join(&name)).map(|_| ()))?;
            names.push(name);
        }
    }
    server.power_on().await?;
    for name in names {
        server.run(&["ctr", "--namespace", "k8s.io", "images", "import", &format!("/images/{name}")]).await?;
    }
    server.run(&["systemctl", "stop", "containerd"]).await?;
    server.power_off().await?;
    fs::rename(server.folder().join("data").join(CONTAINERD.trim_start_matches("var/")), folder.join("containerd"))?;
    server.remove().await
}

async fn make_lan() -> Result<()> {
    // One that was started here before and failed has left it.
    let _ = ip(&["link", "delete", BRIDGE]).await;
    ip(&["link", "add", BRIDGE, "type", "bridge"]).await?;
    ip(&["address", "add", &format!("{GATEWAY}/{PREFIX}"), "dev", BRIDGE]).await?;
    ip(&["link", "set", BRIDGE, "up"]).await
}

/// Plugs a server's card into the LAN; `process` is its first.
pub(crate) async fn plug(number: u8, process: i32) -> Result<()> {
    let (card, address) = (card(number), format!("02:00:0a:4d:00:{number:02x}"));
    let process = process.to_string();
    ip(&["link", "add", &card, "type", "veth", "peer", "name", "eth0", "address", &address, "netns", &process]).await?;
    ip(&["link", "set", &card, "master", BRIDGE, "up"]).await
}

/// Takes the plug out, so that nothing more is heard of the server.
pub(crate) async fn unplug(number: u8) {
    // It goes by itself with the server's namespace, sooner or later.
    let _ = ip(&["link", "set", &card(number), "down"]).await;
    let _ = ip(&["link", "delete", &card(number)]).await;
}

fn card(number: u8) -> String {
    format!("server{number}")
}

async fn ip(arguments: &[&str]) -> Result<()> {
    run(Command::new("ip").args(arguments)).await.map(drop).with_context(|| format!("ip {}", arguments.join(" ")))
}

/// Removes what racks have left that were killed; a living one holds its folder's lock.
async fn sweep(racks: &Path, hierarchies: &Hierarchies) {
    let Ok(entries) = fs::read_dir(racks) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        let is_whole = name.starts_with(NAME) || is_old(&lock);
        let is_abandoned = is_whole && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_abandoned && hierarchies.remove(&name, None).await.is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
