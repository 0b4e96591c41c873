//! Whether this machine can have servers.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use super::cgroups::Hierarchies;
use crate::ports::random;

/// Set by `scripts/in-own-namespace`: the network is not the machine's own.
const OWN_NAMESPACE: &str = "O2IMS_OWN_NAMESPACE";

/// Why this machine cannot have servers, for people; `None` when it can. `cache` is where their file systems are to be.
pub(crate) fn obstacle(cache: &Path) -> Option<String> {
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
    if let Err(error) = Hierarchies::of_machine().and_then(|hierarchies| hierarchies.try_out()) {
        return Some(format!("{error:#}"));
    }
    overlay(cache).or_else(network).or_else(inotify)
}

/// Instances of inotify that four servers with two clusters take, 27 on a master and 14 on a worker, and the control plane.
const INOTIFY: usize = 100;

/// Every systemd, kubelet and API server watches files; where instances run out, kubelets end with "too many open files".
/// All of root's count, so from within a namespace this cannot be told.
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
    (free < INOTIFY).then(|| {
        format!("of {limit} inotify instances {free} are free, and servers need {INOTIFY}: sysctl -w fs.inotify.max_user_instances=1024")
    })
}

/// Whether a program is in PATH.
pub(crate) fn is_installed(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Whether this process has a network that it may put a bridge into.
pub(crate) fn has_own_network() -> bool {
    std::env::var_os(OWN_NAMESPACE).is_some()
}

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
