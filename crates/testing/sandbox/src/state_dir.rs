//! The state folder: the files by which `mgmt.sh` reaches a running sandbox.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sandbox::{Stack, focom};
use testenv::ProcessStatus;

use crate::remote_smo::{RemoteSmo, WITH_HOSTS, WITHOUT_HOSTS};

const KUBECONFIGS: [&str; 3] = ["admin.kubeconfig", "site-a.kubeconfig", "site-b.kubeconfig"];
const KUBECTL: &str = "kubectl";
const OPERATOR_LOG: &str = "operator.log";
const FOCOM_LOG: &str = "focom-operator.log";
/// The states of the sandbox's processes, a line for each.
const PARTS: &str = "parts";

/// Writes the administrators' kubeconfigs and links to kubectl and the operators' logs.
pub fn write(folder: &Path, stack: &Stack, remote_smo: Option<&RemoteSmo>) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    clear(folder);
    let smo = remote_smo.map_or(&stack.management, |remote| &remote.smo);
    let o_clouds =
        remote_smo.map(|remote| [(WITH_HOSTS, &stack.management), (WITHOUT_HOSTS, &remote.site_b.management)]);
    for (name, management) in [("admin", smo)].into_iter().chain(o_clouds.into_iter().flatten()) {
        management.kubeconfig_as("admin", &["system:masters"], &folder.join(format!("{name}.kubeconfig")))?;
    }
    for (name, target) in [
        (KUBECTL, stack.management.kubectl()),
        (OPERATOR_LOG, &stack.operator_log()),
        (FOCOM_LOG, &focom::operator_log(smo)),
    ] {
        symlink(target, folder.join(name)).with_context(|| format!("cannot write {name} in {}", folder.display()))?;
    }
    Ok(())
}

/// Removes the files that [`write`] and [`write_processes`] have written.
pub fn clear(folder: &Path) {
    for name in KUBECONFIGS.into_iter().chain([KUBECTL, OPERATOR_LOG, FOCOM_LOG, PARTS]) {
        // An error means that the file was never written.
        let _ = fs::remove_file(folder.join(name));
    }
}

/// The folder for the logs of a failed run.
pub fn failed(folder: &Path) -> PathBuf {
    folder.join("failed")
}

/// Writes the states of processes and servers, for `mgmt.sh sandbox status`.
pub fn write_parts(folder: &Path, parts: &[ProcessStatus]) -> anyhow::Result<()> {
    let width = parts.iter().map(|part| part.name.len()).max().unwrap_or_default();
    let lines = parts.iter().map(|ProcessStatus { name, state, has_ended, log }| {
        let log = if *has_ended { format!("; log {}", log.display()) } else { String::new() };
        format!("{name:width$}  {state}{log}\n")
    });
    // Renamed when it is complete, so that readers never see a part of it.
    let new = folder.join("parts.new");
    fs::write(&new, lines.collect::<String>())?;
    Ok(fs::rename(&new, folder.join(PARTS))?)
}
