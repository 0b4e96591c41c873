//! ansible, in the version that this repository pins.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::repository::top;

/// The variable that `mgmt.sh` sets to the reason why there is no ansible.
const NO_ANSIBLE: &str = "O2IMS_NO_ANSIBLE";
/// Variables of the playbook for test servers. They share the machine's disk, so its fill level must not evict pods;
/// and they cannot set the score of the out-of-memory killer.
pub const SHARED_KERNEL_VARIABLES: &str = r#"{
    "containerd_cri_settings": {"restrict_oom_score_adj": true},
    "kubernetes_kubelet_extra_args":
        "--eviction-hard=memory.available<100Mi,nodefs.available<200Mi,imagefs.available<200Mi --image-gc-high-threshold=100 --image-gc-low-threshold=99"
}"#;

/// The Python environment with ansible; made if it does not exist.
///
/// # Errors
/// When there is none; the error says why.
pub fn venv() -> Result<PathBuf> {
    if let Some(why) = std::env::var(NO_ANSIBLE).ok().filter(|why| !why.is_empty()) {
        bail!(why);
    }
    let output =
        Command::new(top().join("scripts/ansible-venv")).output().context("cannot start scripts/ansible-venv")?;
    if !output.status.success() {
        bail!("{} {}", String::from_utf8_lossy(&output.stderr).trim(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}
