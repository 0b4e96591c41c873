//! Whether this machine can have servers.

use std::fs;
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
    overlay(cache).or_else(network)
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
