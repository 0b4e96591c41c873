//! How servers are logged in to.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::lan::GATEWAY;
use super::rack_state::RackState;
use crate::folder::write_private;

/// How to log in to a server by ssh, as root.
#[derive(Clone, Debug)]
pub struct Login {
    /// The private key's file.
    pub key: PathBuf,
    /// The file with the servers' host keys.
    pub known_hosts: PathBuf,
}

impl Login {
    /// The login to servers of a rack; its key is made if there is none.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub(crate) fn get(rack: &RackState) -> Result<Self> {
        let login = Self { key: rack.folder.join("key"), known_hosts: rack.folder.join("known_hosts") };
        if !login.known_hosts.is_file() {
            let output = std::process::Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", &rack.name, "-f"])
                .arg(&login.key)
                .output()
                .context("cannot start ssh-keygen (package openssh-client)")?;
            if !output.status.success() {
                bail!("ssh-keygen failed: {}", String::from_utf8_lossy(&output.stderr));
            }
            write_private(&login.known_hosts, b"")?;
            login.know_host_key(&rack.layers.system)?;
        }
        Ok(login)
    }

    /// Adds the host key of a system to the known ones. All servers with the system have it.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(crate) fn know_host_key(&self, system: &Path) -> Result<()> {
        let host_key = system.join("etc/ssh/ssh_host_ed25519_key.pub");
        let host_key = fs::read_to_string(&host_key).context("cannot read the servers' host key")?;
        let [a, b, c, _] = GATEWAY.octets();
        let line = format!("{a}.{b}.{c}.* {host_key}");
        let known = fs::read_to_string(&self.known_hosts).context("cannot read the known host keys")?;
        if !known.contains(&line) {
            write_private(&self.known_hosts, (known + &line).as_bytes())?;
        }
        Ok(())
    }

    /// The public key, as a line of `authorized_keys`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn public_key(&self) -> Result<String> {
        fs::read_to_string(self.key.with_extension("pub")).context("cannot read the rack's key")
    }
}
