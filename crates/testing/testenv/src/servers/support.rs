//! Checks whether this machine can have servers.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::cgroups::Hierarchies;
use crate::build::Cache;
use crate::command::is_installed;
use crate::ports::random;
use crate::progress::Progress;

/// The variable that `scripts/in-own-namespace` sets: the process has a network of its own.
const OWN_NAMESPACE: &str = "O2IMS_OWN_NAMESPACE";

/// The variable that `mgmt.sh` sets to the reason why servers could not be made.
const NO_SERVERS: &str = "O2IMS_NO_SERVERS";

/// Why this machine cannot have servers, for people; `None` if it can.
///
/// # Errors
/// When there is no place for the cache.
pub fn unsupported_reason() -> Result<Option<String>> {
    Ok(unsupported(Cache::new(Progress::new(|_| ()))?.root()))
}

/// Why tests that need servers are skipped; `None` if they are not.
///
/// # Errors
/// As [`unsupported_reason`].
pub fn left_out() -> Result<Option<String>> {
    match std::env::var(NO_SERVERS).ok().filter(|why| !why.is_empty()) {
        Some(told) => Ok(Some(told)),
        None if !has_own_network() => Ok(Some("this network is the machine's own".to_owned())),
        None => unsupported_reason(),
    }
}

/// As [`unsupported_reason`]; `cache` is the folder for the servers' file systems.
pub(crate) fn unsupported(cache: &Path) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("servers need root: namespaces, mounts and control groups of the machine".to_owned());
    }
    for tool in
        ["bash", "unshare", "setpriv", "setsid", "nsenter", "flock", "ip", "mount", "pivot_root", "cp", "md5sum"]
    {
        if !is_installed(tool) {
            return Some(format!("{tool} is not installed (packages util-linux, iproute2 and coreutils have them)"));
        }
    }
    if let Err(error) = Hierarchies::of_machine().and_then(|hierarchies| hierarchies.check()) {
        return Some(format!("{error:#}"));
    }
    overlay(cache).or_else(network).or_else(inotify)
}

/// How many inotify instances are needed: four servers with two clusters use 27 per master and 14 per worker, and the
/// management cluster some more.
const INOTIFY_INSTANCES: usize = 100;

/// Checks whether enough inotify instances are free; without them kubelets end with "too many open files". The limit
/// counts all instances of root, so it cannot be checked from within a process namespace.
fn inotify() -> Option<String> {
    const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";
    if has_own_network() {
        return None;
    }
    let limit: usize = fs::read_to_string(LIMIT).ok()?.trim().parse().ok()?;
    let is_inotify =
        |file: &fs::DirEntry| fs::read_link(file.path()).is_ok_and(|to| to == Path::new("anon_inode:inotify"));
    let of_root = |process: &fs::DirEntry| process.metadata().is_ok_and(|of| of.uid() == 0);
    let processes = fs::read_dir("/proc").ok()?.flatten().filter(of_root);
    let files = processes.filter_map(|process| fs::read_dir(process.path().join("fd")).ok()).flatten().flatten();
    let free = limit.saturating_sub(files.filter(is_inotify).count());
    (free < INOTIFY_INSTANCES).then(|| {
        format!("of {limit} inotify instances {free} are free, and servers need {INOTIFY_INSTANCES}: sysctl -w fs.inotify.max_user_instances=1024")
    })
}

/// Whether this process has a network namespace of its own, in which it may make a bridge.
pub(crate) fn has_own_network() -> bool {
    std::env::var_os(OWN_NAMESPACE).is_some()
}

/// Checks whether overlay file systems can be mounted in the cache.
fn overlay(cache: &Path) -> Option<String> {
    let folder = cache.join(format!("overlay-probe-{:016x}", random()));
    let parts = ["lower", "upper", "work", "merged"].map(|name| folder.join(name));
    let made = parts.iter().try_for_each(fs::create_dir_all);
    let options =
        format!("lowerdir={},upperdir={},workdir={}", parts[0].display(), parts[1].display(), parts[2].display());
    let mounted = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "mount", "-t", "overlay", "overlay", "-o", &options])
        .arg(&parts[3])
        .output();
    let _ = fs::remove_dir_all(&folder);
    let refused = match (made, mounted) {
        (Err(error), _) | (Ok(()), Err(error)) => error.to_string(),
        (Ok(()), Ok(output)) if output.status.success() => return None,
        (Ok(()), Ok(output)) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    };
    Some(format!("overlay file systems cannot be mounted on {}: {refused}", cache.display()))
}

/// Checks whether namespaces with a bridge can be made.
fn network() -> Option<String> {
    let script = "ip link add probe0 type bridge && ip link add probe1 type veth peer name probe2";
    let probe = Command::new("unshare")
        .args(["--net", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--mount-proc", "sh", "-c", script])
        .output();
    let refused = match probe {
        Ok(output) if output.status.success() => return None,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Some(format!("namespaces with a bridge cannot be made: {refused}"))
}
