//! What the servers of a rack share.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

use super::cgroups::Hierarchies;
use super::layers::Layers;
use crate::folder::{is_old, write_private};
use crate::ports::random;

/// Prefix of the names of racks, which their folders and control groups have too.
const NAME_PREFIX: &str = "o2ims-rack-";
const LOCK: &str = "lock";
const ON: &str = include_str!("on.sh");
const INIT: &str = include_str!("init.sh");

/// What the servers of a rack share.
pub(crate) struct RackState {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) layers: Layers,
    /// containerd's data with all images; `None` while they are being made.
    pub(crate) image_store: Option<PathBuf>,
    _lock: File,
}

impl RackState {
    /// A new rack with a folder of its own below `racks`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub(crate) fn new(racks: &Path, hierarchies: Hierarchies, layers: Layers) -> Result<Self> {
        let name = format!("{NAME_PREFIX}{:08x}", random() >> 32);
        let folder = racks.join(&name);
        // Renamed when it is locked: without its lock it would look abandoned.
        let unnamed = racks.join(format!("new-{name}"));
        fs::create_dir(&unnamed).with_context(|| format!("cannot make {}", unnamed.display()))?;
        let lock = File::create(unnamed.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        write_private(&unnamed.join("on.sh"), ON.as_bytes())?;
        write_private(&unnamed.join("init.sh"), INIT.as_bytes())?;
        fs::rename(&unnamed, &folder)?;
        Ok(Self { name, folder, hierarchies, layers, image_store: None, _lock: lock })
    }
}

/// Removes folders and control groups of racks whose process was killed. A rack in use holds the lock of its folder.
pub(crate) async fn sweep(racks: &Path, hierarchies: &Hierarchies) {
    let Ok(entries) = fs::read_dir(racks) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        let is_whole = name.starts_with(NAME_PREFIX) || is_old(&lock);
        let is_abandoned = is_whole && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_abandoned && hierarchies.remove(&name, None).await.is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
