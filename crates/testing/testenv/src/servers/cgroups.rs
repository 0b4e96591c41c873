//! Control groups of servers: a group for each rack, and below it one for each server, in every hierarchy of the
//! machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::ports::random;

const MOUNTED_AT: &str = "/sys/fs/cgroup";
/// The hierarchies of version 1 that containerd, the kubelet and systemd use.
const V1_CONTROLLERS: [&str; 9] =
    ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd"];
/// The controllers of version 2 that servers get.
const V2_CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];
/// The controllers that the machine must have.
const REQUIRED: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];
/// How long a group may stay busy after its last process was killed.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How the machine's control groups are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hierarchies {
    /// Version 1: the names of the hierarchies, some with several controllers (`cpu,cpuacct`).
    Separate(Vec<String>),
    /// Version 2.
    Unified,
}

impl Hierarchies {
    /// The hierarchies of this machine.
    ///
    /// # Errors
    /// When a controller is missing that servers need.
    pub(crate) fn of_machine() -> Result<Self> {
        let root = Path::new(MOUNTED_AT);
        let unified = fs::read_to_string(root.join("cgroup.controllers")).ok();
        let found: Vec<String> = match &unified {
            Some(_) => Vec::new(),
            None => fs::read_dir(root)
                .with_context(|| format!("{MOUNTED_AT} cannot be read"))?
                .flatten()
                // A controller that shares its hierarchy is a link to it.
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .filter(|entry| entry.path().join("cgroup.procs").is_file())
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| name.split(',').any(|name| V1_CONTROLLERS.contains(&name)))
                .collect(),
        };
        let given: Vec<&str> = match &unified {
            Some(text) => text.split_whitespace().collect(),
            None => found.iter().flat_map(|name| name.split(',')).collect(),
        };
        let needed = REQUIRED.into_iter().chain(unified.is_none().then_some("systemd"));
        for needed in needed {
            if !given.contains(&needed) {
                bail!("{MOUNTED_AT} has no controller {needed}: the kubelet and systemd need it");
            }
        }
        Ok(if unified.is_some() { Self::Unified } else { Self::Separate(found) })
    }

    /// Checks whether groups can be made.
    ///
    /// # Errors
    /// When they cannot.
    pub(crate) fn check(&self) -> Result<()> {
        // Random, because process ids are the same in each namespace.
        let name = format!("o2ims-probe-{:016x}", random());
        let made = self.make(&name, "server");
        for root in self.roots() {
            remove_tree(&root.join(&name)).with_context(|| format!("cannot remove {}", root.join(&name).display()))?;
        }
        made.map(drop)
    }

    /// The hierarchies as `init.sh` takes them: `unified`, or names.
    pub(crate) fn names(&self) -> String {
        match self {
            Self::Separate(names) => names.join(" "),
            Self::Unified => "unified".to_owned(),
        }
    }

    fn roots(&self) -> Vec<PathBuf> {
        let root = Path::new(MOUNTED_AT);
        match self {
            Self::Separate(names) => names.iter().map(|name| root.join(name)).collect(),
            Self::Unified => vec![root.to_path_buf()],
        }
    }

    /// Makes a server's groups, and returns their folders.
    ///
    /// # Errors
    /// When a group cannot be made.
    pub(crate) fn make(&self, rack: &str, server: &str) -> Result<Vec<PathBuf>> {
        let mut groups = Vec::new();
        for root in self.roots() {
            let (above, own) = (root.join(rack), root.join(rack).join(server));
            let make = || -> io::Result<()> {
                for (parent, folder) in [(&root, &above), (&above, &own)] {
                    if *self == Self::Unified {
                        delegate(parent)?;
                    }
                    fs::create_dir_all(folder)?;
                    for setting in ["cpuset.cpus", "cpuset.mems"] {
                        // In version 1 a new group has no processors, and takes no process.
                        if matches!(self, Self::Separate(_)) && folder.join(setting).is_file() {
                            fs::write(folder.join(setting), fs::read(parent.join(setting))?)?;
                        }
                    }
                }
                Ok(())
            };
            make().with_context(|| format!("cannot make the control group {}", own.display()))?;
            groups.push(own);
        }
        Ok(groups)
    }

    /// Removes the groups of a rack, or of one of its servers.
    ///
    /// # Errors
    /// When a group still has a process.
    pub(crate) async fn remove(&self, rack: &str, server: Option<&str>) -> Result<()> {
        let deadline = Instant::now() + BUSY_TIMEOUT;
        for root in self.roots() {
            let group = server.map_or_else(|| root.join(rack), |server| root.join(rack).join(server));
            while let Err(error) = remove_tree(&group) {
                if Instant::now() > deadline {
                    return Err(error).with_context(|| format!("cannot remove the control group {}", group.display()));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }
}

/// Enables the controllers of version 2 for the groups below a group, as far as the group itself has them.
fn delegate(group: &Path) -> io::Result<()> {
    let given = fs::read_to_string(group.join("cgroup.controllers"))?;
    let given: Vec<_> = given.split_whitespace().collect();
    let enabled = fs::read_to_string(group.join("cgroup.subtree_control"))?;
    let enabled: Vec<_> = enabled.split_whitespace().collect();
    let lacking = |controller: &&str| given.contains(controller) && !enabled.contains(controller);
    for controller in V2_CONTROLLERS.into_iter().filter(lacking) {
        fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"))?;
    }
    Ok(())
}

/// Removes a group and all groups below it, the lowest first: the kernel removes only groups without children.
fn remove_tree(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
