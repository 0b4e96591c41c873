//! What `mgmt.sh` needs to talk to a running sandbox.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Context as _;
use sandbox::{Stack, focom};

use crate::apart::{Apart, WITH_HOSTS, WITHOUT_HOSTS};

const KUBECONFIGS: [&str; 3] = ["admin.kubeconfig", "site-a.kubeconfig", "site-b.kubeconfig"];
const KUBECTL: &str = "kubectl";
const OPERATOR_LOG: &str = "operator.log";
const FOCOM_LOG: &str = "focom-operator.log";

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
    for name in KUBECONFIGS.into_iter().chain([KUBECTL, OPERATOR_LOG, FOCOM_LOG]) {
        // It may never have been there.
        let _ = fs::remove_file(folder.join(name));
    }
}
