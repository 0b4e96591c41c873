//! The folder of a management cluster: keys, logs and etcd's data. It is removed with the management cluster.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use crate::ports::random;

/// Name of the API server's audit log.
pub(crate) const AUDIT_LOG: &str = "audit.log";
const PREFIX: &str = "o2ims-management-";
const LOCK: &str = "lock";
/// The variable that names a folder for the logs of management clusters that end without having been stopped.
const LOGS: &str = "O2IMS_TESTENV_LOGS";

/// A private folder, removed on drop. The lock in it shows other processes that its owner is alive.
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder, in memory if the machine has `/dev/shm`, because etcd writes a lot. Also removes the folders
    /// of owners that were killed.
    pub(crate) fn create() -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        sweep(&parent);
        let path = parent.join(format!("{PREFIX}{:016x}", random()));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot create the management cluster's folder {}", path.display()))?;
        let lock = File::create(path.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that only this user can read. `name` may have subfolders.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path.join(name);
        write_private(&path, content.as_ref())?;
        Ok(path)
    }

    /// Copies all logs to a folder.
    pub(crate) fn keep_logs(&self, to: &Path) -> Result<()> {
        copy_logs(&self.path, to).with_context(|| format!("cannot copy the logs to {}", to.display()))
    }
}

/// Copies files named `log` or `*.log`, with their folders, but not the audit log.
fn copy_logs(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)?.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let is_log = name == "log" || path.extension().is_some_and(|extension| extension == "log");
        if entry.file_type()?.is_dir() {
            copy_logs(&path, &to.join(name))?;
        } else if is_log && name != AUDIT_LOG {
            fs::create_dir_all(to)?;
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(logs) = std::env::var_os(LOGS).filter(|logs| !logs.is_empty() && self.path.exists()) {
            // The error that ended the owner matters more than a failure to copy logs.
            let _ = self.keep_logs(&Path::new(&logs).join(self.path.file_name().unwrap_or_default()));
        }
        // A process that was just killed may still write here; what is left then is removed by the next `create`.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Writes a file with mode 0600, and the folders above it.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let write = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, content)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Removes the folders whose lock is free. A folder without a lock file is just being made, and stays.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let abandoned = match File::open(entry.path().join(LOCK)) {
            Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && is_old(&lock),
            Err(_) => false,
        };
        if abandoned {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a lock file is so old that its owner must have locked it: more than 5 s.
pub(crate) fn is_old(lock: &File) -> bool {
    let age = lock.metadata().and_then(|metadata| metadata.modified()).map(|time| time.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age > Duration::from_secs(5))
}
