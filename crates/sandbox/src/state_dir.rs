//! What `mgmt.sh` needs to talk to a running sandbox.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Context as _;
use sandbox::{Stack, focom};

const KUBECONFIG: &str = "admin.kubeconfig";
const KUBECTL: &str = "kubectl";
const OPERATOR_LOG: &str = "operator.log";
const FOCOM_LOG: &str = "focom-operator.log";

/// Writes the administrator's kubeconfig and links to kubectl and the operators' logs.
pub fn write(folder: &Path, stack: &Stack) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    clear(folder);
    stack.bed.kubeconfig_as("admin", &["system:masters"], &folder.join(KUBECONFIG))?;
    for (name, target) in [
        (KUBECTL, stack.bed.kubectl()),
        (OPERATOR_LOG, &stack.operator_log()),
        (FOCOM_LOG, &focom::operator_log(&stack.bed)),
    ] {
        symlink(target, folder.join(name)).with_context(|| format!("cannot write {name} in {}", folder.display()))?;
    }
    Ok(())
}

/// Removes what [`write`] wrote.
pub fn clear(folder: &Path) {
    for name in [KUBECONFIG, KUBECTL, OPERATOR_LOG, FOCOM_LOG] {
        // It may never have been there.
        let _ = fs::remove_file(folder.join(name));
    }
}
