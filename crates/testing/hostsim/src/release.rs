//! Release: what the agent does when its host has the annotation `unregistering`.
//!
//! As with the real agent, kubeadm reset and the uninstall script run only if the agent has installed the host. A host
//! that skips the installation is released without a reset; on a real one the old kubelet and static pods then go on
//! running. A simulated host leaves its cluster in any case, because the next cluster at the same address would find
//! the port taken.

use anyhow::{Context, bail};
use cluster_api::byoh::{BOOTSTRAP_SUCCEEDED, INSTALLATION_SUCCEEDED};
use kube::api::DynamicObject;

use testenv::ByohDialect;

use crate::{
    agent::{Agent, Work},
    byohost::{ATTACHMENT_ANNOTATIONS, ATTACHMENT_LABELS, ByoHost, Severity},
    failure::Failure,
};

const ABSENT: &str = "K8sNodeAbsent";

impl Agent {
    /// Cleans the host, and removes everything from its `ByoHost` that attachment and bootstrap have set.
    pub(crate) async fn release(&self, host: &mut DynamicObject) -> anyhow::Result<()> {
        let time = self.durations.cleanup;
        self.work(|failure| Work {
            duration: match failure {
                Some(Failure::SlowCleanup(extra)) => Some(time + *extra),
                Some(Failure::HangingCleanup) => None,
                _ => Some(time),
            },
            fails: false,
        })
        .await?;
        let installed = host.is_true(INSTALLATION_SUCCEEDED);
        if installed {
            self.reset(host).await;
        } else {
            self.leave_cluster().await;
        }
        match self.dialect {
            ByohDialect::Upstream => {
                if installed {
                    if !self.skip_installation && host.spec("uninstallationScript").is_none() {
                        bail!("UninstallationScript not found in Byohost {}", self.name());
                    }
                    host.mark_false(INSTALLATION_SUCCEEDED, ABSENT, Severity::Info);
                }
                host.set("spec", "uninstallationScript", None);
            }
            ByohDialect::Platform9 => {
                if installed {
                    host.mark_false(INSTALLATION_SUCCEEDED, ABSENT, Severity::Info);
                }
                self.uninstall(host).await?;
            }
        }
        host.mark_false(BOOTSTRAP_SUCCEEDED, ABSENT, Severity::Info);
        host.set("spec", "installationSecret", None);
        host.set("spec", "bootstrapSecret", None);
        host.set("status", "machineRef", None);
        for label in ATTACHMENT_LABELS {
            host.metadata.labels.as_mut().and_then(|labels| labels.remove(label));
        }
        for annotation in ATTACHMENT_ANNOTATIONS {
            host.metadata.annotations.as_mut().and_then(|annotations| annotations.remove(annotation));
        }
        tracing::info!(host = self.name(), "simulated host released");
        Ok(())
    }

    /// Runs the fork's uninstall script, which is in a Secret. The manager sets the reference to the Secret, and
    /// removes it.
    async fn uninstall(&self, host: &DynamicObject) -> anyhow::Result<()> {
        if self.skip_installation {
            return Ok(());
        }
        let Some((name, namespace)) = host.secret("uninstallationSecret") else { return Ok(()) };
        match self.read_secret(&name, &namespace, "uninstall").await {
            Ok(script) => script.map(drop).with_context(|| format!("uninstall script not found in secret {name}")),
            Err(error) => {
                let message = format!("uninstallation secret {name} not found");
                self.event(host, "Warning", "ReadUninstallationSecretFailed", &message).await;
                Err(error)
            }
        }
    }
}
