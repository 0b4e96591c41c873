//! ansible, in the version that the repository pins.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::top;

/// Set by `mgmt.sh` to the reason why there is no ansible.
const NO_ANSIBLE: &str = "O2IMS_NO_ANSIBLE";
/// Variables that machines need that share a kernel: the disk is the machine's, and so is the score for the killer.
pub const OF_THE_TEST_BED: &str = r#"{
    "containerd_cri_settings": {"restrict_oom_score_adj": true},
    "kubernetes_kubelet_extra_args":
        "--eviction-hard=memory.available<100Mi,nodefs.available<200Mi,imagefs.available<200Mi --image-gc-high-threshold=100 --image-gc-low-threshold=99"
}"#;

/// The Python environment with ansible.
///
/// # Errors
/// When there is none, and why.
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
