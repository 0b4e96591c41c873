//! What `mgmt.sh` needs to talk to a running sandbox.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sandbox::{Stack, focom};
use testenv::Part;

use crate::apart::{Apart, WITH_HOSTS, WITHOUT_HOSTS};

const KUBECONFIGS: [&str; 3] = ["admin.kubeconfig", "site-a.kubeconfig", "site-b.kubeconfig"];
const KUBECTL: &str = "kubectl";
const OPERATOR_LOG: &str = "operator.log";
const FOCOM_LOG: &str = "focom-operator.log";
/// How the sandbox's processes are, a line for each.
const PARTS: &str = "parts";

/// Writes the administrators' kubeconfigs and links to kubectl and the operators' logs.
pub fn write(folder: &Path, stack: &Stack, apart: Option<&Apart>) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    clear(folder);
    let smo = apart.map_or(&stack.bed, |apart| &apart.smo);
    let o_clouds = apart.map(|apart| [(WITH_HOSTS, &stack.bed), (WITHOUT_HOSTS, &apart.site_b.bed)]);
    for (name, bed) in [("admin", smo)].into_iter().chain(o_clouds.into_iter().flatten()) {
        bed.kubeconfig_as("admin", &["system:masters"], &folder.join(format!("{name}.kubeconfig")))?;
    }
    for (name, target) in
        [(KUBECTL, stack.bed.kubectl()), (OPERATOR_LOG, &stack.operator_log()), (FOCOM_LOG, &focom::operator_log(smo))]
    {
        symlink(target, folder.join(name)).with_context(|| format!("cannot write {name} in {}", folder.display()))?;
    }
    Ok(())
}

/// Removes what [`write`] wrote.
pub fn clear(folder: &Path) {
    for name in KUBECONFIGS.into_iter().chain([KUBECTL, OPERATOR_LOG, FOCOM_LOG, PARTS]) {
        // It may never have been there.
        let _ = fs::remove_file(folder.join(name));
    }
}

/// Where the logs of a failed run are kept.
pub fn failed(folder: &Path) -> PathBuf {
    folder.join("failed")
}

/// Writes how the parts are, for `mgmt.sh sandbox status`.
pub fn write_parts(folder: &Path, parts: &[Part]) -> anyhow::Result<()> {
    let width = parts.iter().map(|part| part.name.len()).max().unwrap_or_default();
    let lines = parts.iter().map(|Part { name, state, has_ended, log }| {
        let log = if *has_ended { format!("; log {}", log.display()) } else { String::new() };
        format!("{name:width$}  {state}{log}\n")
    });
    // Whoever reads it sees all of it.
    let new = folder.join("parts.new");
    fs::write(&new, lines.collect::<String>())?;
    Ok(fs::rename(&new, folder.join(PARTS))?)
}
