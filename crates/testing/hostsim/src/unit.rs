//! The unit `o2ims-host` of the operator's install script, simulated: it runs the jobs that annotations of the `ByoHost` name. An upgrade sets the
//! version that the Node reports; a renewal of certificates sets the dates that the host reports, which a test may have set to earlier ones. A support
//! bundle is only reported. Nothing else of the cluster changes.

use std::time::Duration;

use anyhow::Context as _;
use cluster_api::byoh::INSTALLATION_SUCCEEDED;
use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use o2ims_types::names::{
    CERTIFICATES_ANNOTATION, HOST_UNIT_ANNOTATION, JOB_ANNOTATION, JOB_STATUS_ANNOTATION, ROLE_CONTROL_PLANE,
    ROLE_LABEL, SUPPORT_BUNDLE_ANNOTATION, SUPPORT_BUNDLE_STATUS_ANNOTATION, job_secret,
};
use serde_json::{Value, json};

use crate::agent::{Agent, Work};
use crate::backoff;
use crate::byohost::ByoHost as _;
use crate::failure::Failure;

/// How long a step of a job takes.
const STEP: Duration = Duration::from_millis(500);
/// How long certificates are good for.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Agent {
    /// Runs the unit. Never returns.
    pub(crate) async fn run_unit(&self) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name()));
        let mut events = std::pin::pin!(backoff::watch(self.hosts.clone(), config));
        while let Some(event) = events.next().await {
            if !matches!(event, watcher::Event::Apply(_) | watcher::Event::InitApply(_)) {
                continue;
            }
            // Not the event's object: events have piled up while a job ran.
            if let Err(error) = self.run_job().await {
                tracing::info!(host = self.name(), error = format!("{error:#}"), "simulated job not run");
            }
        }
        std::future::pending::<()>().await;
    }

    async fn run_job(&self) -> anyhow::Result<()> {
        let Some(host) = self.hosts.get_opt(self.name()).await? else { return Ok(()) };
        // The install script brings the unit, and the uninstall script removes it.
        if self.failure.borrow().as_ref() == Some(&Failure::Off) {
            return Ok(());
        }
        if self.skip_installation || !host.is_true(INSTALLATION_SUCCEEDED) || !self.is_node() {
            return Ok(());
        }
        if host.annotation(HOST_UNIT_ANNOTATION).is_none() {
            self.annotate(HOST_UNIT_ANNOTATION, "2").await?;
        }
        let is_master = host.labels().get(ROLE_LABEL).is_some_and(|role| role == ROLE_CONTROL_PLANE);
        if host.annotation(CERTIFICATES_ANNOTATION).is_none() {
            self.report_certificates(is_master).await?;
        }
        if let Some(name) = host.annotation(SUPPORT_BUNDLE_ANNOTATION) {
            let made = json!({"name": name, "state": "Done", "path": format!("/simulated/{name}.tar.gz"), "bytes": 1});
            let made = made.to_string();
            if host.annotation(SUPPORT_BUNDLE_STATUS_ANNOTATION) != Some(made.as_str()) {
                self.annotate(SUPPORT_BUNDLE_STATUS_ANNOTATION, &made).await?;
            }
        }
        let Some(id) = host.annotation(JOB_ANNOTATION).and_then(|job| job.split(' ').next()) else { return Ok(()) };
        let told = host.annotation(JOB_STATUS_ANNOTATION).and_then(|told| serde_json::from_str::<Value>(told).ok());
        let has_ended = told.is_some_and(|told| told["id"] == id && told["state"] != "Running");
        if has_ended {
            return Ok(());
        }
        let script = self.read_secret(&job_secret(self.name()), &self.namespace, "script").await?.unwrap_or_default();
        if !script.contains(&format!("id='{id}'")) {
            return Ok(());
        }
        self.report(id, "Running", "1 of 2: simulated").await?;
        let done = self.work(|failure| Work { duration: Some(STEP), fails: failure == Some(&Failure::Job) }).await;
        if done.is_err() {
            return self.report(id, "Failed", "simulated failure").await;
        }
        if id.starts_with("upgrade-") || id.starts_with("restore-") {
            let version = script.split_once("to='").and_then(|(_, rest)| rest.split('\'').next());
            self.set_version(version.context("the job names no version")?).await?;
        }
        self.report(id, "Done", "simulated").await?;
        if id.starts_with("certificates-") { self.report_certificates(is_master).await } else { Ok(()) }
    }

    async fn report_certificates(&self, is_master: bool) -> anyhow::Result<()> {
        let end = (Timestamp::now() + LIFETIME).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let dates = if is_master { json!({"agent": end, "controlPlane": end}) } else { json!({"agent": end}) };
        self.annotate(CERTIFICATES_ANNOTATION, &dates.to_string()).await
    }

    async fn report(&self, id: &str, state: &str, message: &str) -> anyhow::Result<()> {
        let told = json!({"id": id, "state": state, "snapshot": "simulated", "message": message}).to_string();
        self.annotate(JOB_STATUS_ANNOTATION, &told).await
    }

    async fn annotate(&self, annotation: &str, value: &str) -> anyhow::Result<()> {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        self.hosts.patch_metadata(self.name(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }
}
