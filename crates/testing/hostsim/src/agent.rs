//! The agent of one simulated host. It registers the host, watches its `ByoHost` and reconciles it.
//!
//! Reads, decisions and writes are those of the real agent, in its order; only the work between them is simulated. As
//! with the real agent, a failed attempt keeps the conditions that it has set and is repeated with exponential backoff,
//! and the pause annotation holds back events but not attempts that are due.

use cluster_api::byoh::{
    BOOTSTRAP_SUCCEEDED, INSTALLATION_SUCCEEDED, MACHINE_VERSION_ANNOTATION, UNREGISTERING_ANNOTATION,
};
use cluster_api::labels::PAUSED_ANNOTATION;
use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use futures::StreamExt;
use k8s_openapi::{
    api::core::v1::{Event, Secret},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use testenv::ByohDialect;

use crate::{
    backoff::{self, ExponentialBackoff},
    bootstrap::{self, Plan},
    byohost::{self, ByoHost, Severity, now},
    failure::Failure,
    node::{self, HostInfo, Kubelet, NodeSetup},
    workload::Clusters,
};

/// The network interface of a simulated host, besides the loopback interface.
const INTERFACE: &str = "eth0";
const LINUX: &str = "linux";
const ARCHITECTURE: &str = "amd64";
const AGENT_VERSION: &str = "simulated";

/// Durations of the simulated work, and the interval of heartbeats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Durations {
    pub(crate) install: Duration,
    pub(crate) bootstrap: Duration,
    pub(crate) cleanup: Duration,
    pub(crate) heartbeat: Duration,
}

/// The agent of a host.
pub(crate) struct Agent {
    pub(crate) namespace: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) info: HostInfo,
    pub(crate) number: u32,
    pub(crate) skip_installation: bool,
    pub(crate) dialect: ByohDialect,
    pub(crate) client: Client,
    pub(crate) hosts: Api<DynamicObject>,
    /// The current failure.
    pub(crate) failure: watch::Receiver<Option<Failure>>,
    pub(crate) durations: Durations,
    pub(crate) clusters: Clusters,
    /// Goes on when the agent process stops, as a real kubelet does.
    pub(crate) kubelet: Mutex<Option<Kubelet>>,
}

/// When to reconcile again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requeue {
    OnEvent,
    Now,
}

/// How simulated work proceeds under a failure.
pub(crate) struct Work {
    /// How long the work takes; `None` if it never ends.
    pub(crate) duration: Option<Duration>,
    /// Whether the work ends with an error.
    pub(crate) fails: bool,
}

impl Agent {
    /// Name of the host.
    pub(crate) fn name(&self) -> &str {
        &self.info.host_name
    }

    /// Runs the agent process and the unit until the host is removed.
    pub(crate) async fn run(&self, registered: bool) {
        tokio::select! {
            () = self.run_agent(registered) => {}
            () = self.run_unit() => {}
        }
    }

    /// Runs the agent process until the host is removed. A failure may stop the process; it is started again
    /// afterwards.
    async fn run_agent(&self, registered: bool) {
        let mut registered = registered;
        loop {
            tokio::select! {
                biased;
                closed = self.wait_for_stop(true) => if closed { return },
                () = self.run_process(registered) => {}
            }
            tracing::info!(host = self.name(), "simulated agent stopped");
            registered = false;
            tokio::select! {
                biased;
                closed = self.wait_for_stop(false) => if closed { return },
                () = self.delete_if_unregistered() => {}
            }
            tracing::info!(host = self.name(), "simulated agent started");
        }
    }

    /// Waits until the current failure stops the agent (`stopped`), or no longer does. Returns true if the host was
    /// removed.
    async fn wait_for_stop(&self, stopped: bool) -> bool {
        let mut failure = self.failure.clone();
        failure.wait_for(|f| f.as_ref().is_some_and(Failure::stops_agent) == stopped).await.is_err()
    }

    /// Deletes the `ByoHost` whenever the failure is [`Failure::Unregistered`]. Never returns.
    async fn delete_if_unregistered(&self) {
        let mut failure = self.failure.clone();
        loop {
            let unregistered = *failure.borrow_and_update() == Some(Failure::Unregistered);
            let mut delay = ExponentialBackoff::new();
            let deleted = async {
                while unregistered && let Err(error) = self.delete().await {
                    tracing::debug!(host = self.name(), %error, "ByoHost not deleted");
                    delay.wait().await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = deleted => {}
                changed = failure.changed() => if changed.is_err() { std::future::pending::<()>().await },
            }
        }
    }

    /// Deletes the `ByoHost` if it exists.
    pub(crate) async fn delete(&self) -> anyhow::Result<()> {
        match self.hosts.delete(self.name(), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            deleted => deleted.map(drop).map_err(Into::into),
        }
    }

    /// The agent process, from its start. Never returns.
    async fn run_process(&self, registered: bool) {
        let mut delay = ExponentialBackoff::new();
        let mut registered = registered;
        while !registered {
            match self.register().await {
                Ok(()) => registered = true,
                Err(error) => {
                    tracing::warn!(host = self.name(), error = format!("{error:#}"), "simulated host not registered");
                    delay.wait().await;
                }
            }
        }
        let (seen, follow) = watch::channel(None);
        tokio::select! {
            () = self.follow(seen) => {}
            () = self.act(follow) => {}
        }
    }

    /// Creates the `ByoHost` if it does not exist, and writes network and host information to its status.
    pub(crate) async fn register(&self) -> anyhow::Result<()> {
        let before = if let Some(host) = self.hosts.get_opt(self.name()).await? {
            host
        } else {
            let mut host = DynamicObject::new(self.name(), &byohost::resource()).within(&self.namespace);
            host.metadata.labels = (!self.labels.is_empty()).then(|| self.labels.clone());
            host.data = json!({"spec": {}});
            self.hosts.create(&PostParams::default(), &host).await?
        };
        let mut host = before.clone();
        let mac = format!("02:00:00:00:{:02x}:{:02x}", self.number / 256 % 256, self.number % 256);
        let network = json!([
            {"connected": true, "ipAddrs": ["127.0.0.1/8", "::1/128"], "macAddr": "", "networkInterfaceName": "lo"},
            {"connected": true, "ipAddrs": [format!("{}/16", self.info.address)], "isDefault": true, "macAddr": mac,
             "networkInterfaceName": INTERFACE},
        ]);
        host.set("status", "network", Some(network));
        let hostinfo = json!({"architecture": ARCHITECTURE, "osimage": self.info.os_image, "osname": LINUX});
        host.set("status", "hostinfo", Some(hostinfo));
        if self.dialect == ByohDialect::Platform9 {
            let labels = host.labels_mut();
            labels.insert("byoh.infrastructure.cluster.x-k8s.io/architecture".to_owned(), ARCHITECTURE.to_owned());
            labels.insert("byoh.infrastructure.cluster.x-k8s.io/os-family".to_owned(), "debian".to_owned());
        }
        byohost::write(&self.hosts, self.name(), &before, &host).await
    }

    /// Watches the own `ByoHost`.
    async fn follow(&self, seen: watch::Sender<Option<DynamicObject>>) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name()));
        let mut events = std::pin::pin!(backoff::watch(self.hosts.clone(), config));
        while let Some(event) = events.next().await {
            match event {
                watcher::Event::Apply(host) | watcher::Event::InitApply(host) => drop(seen.send_replace(Some(host))),
                watcher::Event::Delete(_) => drop(seen.send_replace(None)),
                watcher::Event::Init | watcher::Event::InitDone => {}
            }
        }
    }

    /// Reconciles whenever the `ByoHost` changes, and again after a failed attempt.
    async fn act(&self, mut seen: watch::Receiver<Option<DynamicObject>>) {
        let mut failure = self.failure.clone();
        let mut delay = ExponentialBackoff::new();
        let mut due: Option<Instant> = None;
        let mut failed = false;
        loop {
            let timer = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = seen.changed() => {
                    if changed.is_err() { return }
                    let is_active = |host: &DynamicObject| host.annotation(PAUSED_ANNOTATION).is_none();
                    if !seen.borrow_and_update().as_ref().is_some_and(is_active) { continue }
                }
                () = timer => {}
                // A change of the failure ends the delay.
                changed = failure.changed(), if failed => if changed.is_err() { return },
            }
            failure.borrow_and_update();
            let outcome = self.attempt().await;
            failed = outcome.is_err();
            due = match outcome {
                Ok(Requeue::Now) => Some(Instant::now()),
                Ok(Requeue::OnEvent) => {
                    delay = ExponentialBackoff::new();
                    (self.dialect == ByohDialect::Platform9).then(|| Instant::now() + self.durations.heartbeat)
                }
                Err(error) => {
                    tracing::info!(host = self.name(), error = format!("{error:#}"), "simulated host failed");
                    Some(Instant::now() + delay.step())
                }
            };
        }
    }

    /// Reads the host, reconciles it, and writes the changes, even if reconciling has failed half way.
    async fn attempt(&self) -> anyhow::Result<Requeue> {
        // An agent creates a deleted `ByoHost` again only at its start.
        let Some(before) = self.hosts.get_opt(self.name()).await? else { return Ok(Requeue::OnEvent) };
        let mut host = before.clone();
        let outcome = if host.annotation(UNREGISTERING_ANNOTATION).is_some() {
            self.release(&mut host).await.map(|()| Requeue::OnEvent)
        } else if host.metadata.deletion_timestamp.is_some() {
            Ok(Requeue::OnEvent)
        } else {
            self.reconcile_normal(&mut host).await
        };
        let written = byohost::write(&self.hosts, self.name(), &before, &host).await;
        let again = outcome?;
        written.map(|()| again)
    }

    /// Reconciles a host that is not being released: installs and bootstraps it.
    async fn reconcile_normal(&self, host: &mut DynamicObject) -> anyhow::Result<Requeue> {
        if self.dialect == ByohDialect::Platform9
            && let Err(error) = self.heartbeat().await
        {
            tracing::debug!(host = self.name(), %error, "heartbeat not written");
        }
        if host.status("machineRef").is_none() {
            host.mark_false(BOOTSTRAP_SUCCEEDED, "WaitingForMachineRefToBeAssigned", Severity::Info);
            return Ok(Requeue::OnEvent);
        }
        let Some((secret, namespace)) = host.secret("bootstrapSecret") else {
            host.mark_false(BOOTSTRAP_SUCCEEDED, "BootstrapDataSecretUnavailable", Severity::Info);
            return Ok(Requeue::OnEvent);
        };
        if host.is_true(BOOTSTRAP_SUCCEEDED) {
            return Ok(Requeue::OnEvent);
        }
        // Upstream reads the script, installs, and bootstraps in one attempt. The fork installs and writes the status;
        // it reads the script in a second attempt, so that the join token in it is fresh.
        let mut script = None;
        if self.dialect == ByohDialect::Upstream {
            script = Some(self.bootstrap_script(host, &secret, &namespace).await?);
        }
        if !self.skip_installation && !host.is_true(INSTALLATION_SUCCEEDED) {
            if host.spec("installationSecret").is_none() {
                host.mark_false(INSTALLATION_SUCCEEDED, "K8sInstallationSecretUnavailable", Severity::Info);
                return Ok(Requeue::OnEvent);
            }
            self.install(host).await?;
            self.event(host, "Normal", "InstallScriptExecutionSucceeded", "install script executed").await;
            host.mark_true(INSTALLATION_SUCCEEDED);
            if self.dialect == ByohDialect::Platform9 {
                return Ok(Requeue::Now);
            }
        }
        let script = match script {
            Some(script) => script,
            None => self.bootstrap_script(host, &secret, &namespace).await?,
        };
        if let Err(error) = self.with_heartbeat(Box::pin(self.bootstrap(host, &script))).await {
            self.event(host, "Warning", "BootstrapK8sNodeFailed", "k8s Node Bootstrap failed").await;
            self.reset(host).await;
            host.mark_false(BOOTSTRAP_SUCCEEDED, "CloudInitExecutionFailed", Severity::Error);
            return Err(error);
        }
        self.event(host, "Normal", "BootstrapK8sNodeSucceeded", "k8s Node Bootstraped").await;
        host.mark_true(BOOTSTRAP_SUCCEEDED);
        Ok(Requeue::OnEvent)
    }

    /// Reads the bootstrap script from its Secret.
    async fn bootstrap_script(&self, host: &DynamicObject, name: &str, namespace: &str) -> anyhow::Result<String> {
        match self.read_secret(name, namespace, "value").await {
            Ok(script) => Ok(script.unwrap_or_default()),
            Err(error) => {
                let message = format!("bootstrap secret {name} not found");
                self.event(host, "Warning", "ReadBootstrapSecretFailed", &message).await;
                Err(error)
            }
        }
    }

    /// A value of a Secret; `None` if the Secret has no such key.
    pub(crate) async fn read_secret(&self, name: &str, namespace: &str, key: &str) -> anyhow::Result<Option<String>> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let secret = secrets.get(name).await.with_context(|| format!("reading Secret {namespace}/{name}"))?;
        let value = secret.data.and_then(|mut data| data.remove(key));
        Ok(value.map(|value| String::from_utf8_lossy(&value.0).into_owned()))
    }

    /// Runs the installation script.
    async fn install(&self, host: &mut DynamicObject) -> anyhow::Result<()> {
        let Some((name, namespace)) = host.secret("installationSecret") else { bail!("no installation Secret") };
        let install = match self.read_secret(&name, &namespace, "install").await {
            Ok(install) => install,
            Err(error) => {
                let message = match self.dialect {
                    ByohDialect::Upstream => format!("install and uninstall script {name} not found"),
                    ByohDialect::Platform9 => format!("install script {name} not found"),
                };
                self.event(host, "Warning", "ReadInstallationSecretFailed", &message).await;
                return Err(error);
            }
        };
        match self.dialect {
            ByohDialect::Upstream => {
                let uninstall = self.read_secret(&name, &namespace, "uninstall").await?.unwrap_or_default();
                host.set("spec", "uninstallationScript", Some(Value::String(uninstall)));
            }
            ByohDialect::Platform9 if install.is_none() => bail!("install script not found in secret {name}"),
            ByohDialect::Platform9 => {}
        }
        let time = self.durations.install;
        let installing = self.work(|failure| Work { duration: Some(time), fails: failure == Some(&Failure::Install) });
        if let Err(error) = self.with_heartbeat(installing).await {
            self.event(host, "Warning", "InstallScriptExecutionFailed", "install script execution failed").await;
            host.mark_false(INSTALLATION_SUCCEEDED, "K8sComponentsInstallationFailed", Severity::Info);
            return Err(error.context("simulated installation script"));
        }
        Ok(())
    }

    /// Runs a bootstrap script.
    async fn bootstrap(&self, host: &DynamicObject, script: &str) -> anyhow::Result<()> {
        let plan = bootstrap::read(script, INTERFACE)?;
        let time = self.durations.bootstrap;
        self.work(|failure| Work { duration: Some(time), fails: failure == Some(&Failure::Bootstrap) })
            .await
            .context("simulated bootstrap script")?;
        let annotated = host.annotation(MACHINE_VERSION_ANNOTATION).filter(|version| !version.is_empty());
        let kubelet = match plan {
            Plan::Nothing => {
                tracing::warn!(host = self.name(), "bootstrap script without kubeadm: no Node will appear");
                return Ok(());
            }
            Plan::Init(init) => {
                self.leave_cluster().await;
                let membership = self.clusters.init(self.name(), self.info.address, &init).await?;
                let version = init.version.as_deref().or(annotated).context("no Kubernetes version")?.to_owned();
                let setup = NodeSetup {
                    control_plane: true,
                    version,
                    registration: &init.node,
                    cluster_configuration: Some(&init.cluster_configuration),
                };
                node::start(membership, &self.info, &setup, self.failure.clone()).await?
            }
            Plan::Join(join) => {
                self.leave_cluster().await;
                let membership = self.clusters.join(self.name(), &join).await?;
                let version = match annotated {
                    Some(version) => version.to_owned(),
                    None => node::cluster_version(&membership.client).await?,
                };
                let setup = NodeSetup {
                    control_plane: join.control_plane,
                    version,
                    registration: &join.node,
                    cluster_configuration: None,
                };
                node::start(membership, &self.info, &setup, self.failure.clone()).await?
            }
        };
        *self.kubelet() = Some(kubelet);
        Ok(())
    }

    fn kubelet(&self) -> std::sync::MutexGuard<'_, Option<Kubelet>> {
        self.kubelet.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether the host is a node.
    pub(crate) fn is_node(&self) -> bool {
        self.kubelet().is_some()
    }

    /// The kubelet starts again in another version.
    pub(crate) async fn set_version(&self, version: &str) -> anyhow::Result<()> {
        let nodes = self.kubelet().as_ref().map(Kubelet::node);
        let (client, name) = nodes.context("the host is no node any more")?;
        node::set_version(client, &name, version).await
    }

    /// `kubeadm reset`: stops the kubelet and removes the host from its cluster.
    pub(crate) async fn reset(&self, host: &DynamicObject) {
        self.leave_cluster().await;
        self.event(host, "Normal", "ResetK8sNodeSucceeded", "k8s Node Reset completed").await;
    }

    /// Stops the kubelet. The cluster ends with its last control-plane host.
    pub(crate) async fn leave_cluster(&self) {
        let kubelet = self.kubelet().take();
        if let Some(kubelet) = kubelet {
            let goes_on = self.clusters.leave(self.name(), self.info.address, kubelet.membership.endpoint).await;
            kubelet.end(goes_on).await;
        }
    }

    /// Simulates work. `judge` says how it proceeds under the current failure, and is called again when the failure
    /// changes.
    pub(crate) async fn work(&self, judge: impl Fn(Option<&Failure>) -> Work) -> anyhow::Result<()> {
        let mut failure = self.failure.clone();
        let start = Instant::now();
        loop {
            let Work { duration, fails } = judge(failure.borrow_and_update().as_ref());
            let end = async {
                match duration {
                    Some(time) => tokio::time::sleep_until(start + time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = end => {
                    if fails { bail!("simulated failure") }
                    return Ok(());
                }
                changed = failure.changed() => if changed.is_err() { bail!("the site is closed") },
            }
        }
    }

    /// Does `work`, which blocks the agent, and writes the fork's heartbeats meanwhile.
    async fn with_heartbeat<T>(&self, work: impl Future<Output = T>) -> T {
        let heartbeats = async {
            if self.dialect == ByohDialect::Upstream {
                std::future::pending::<()>().await;
            }
            loop {
                tokio::time::sleep(self.durations.heartbeat).await;
                if let Err(error) = self.heartbeat().await {
                    tracing::debug!(host = self.name(), %error, "heartbeat not written");
                }
            }
        };
        tokio::select! {
            done = work => done,
            () = heartbeats => std::future::pending().await,
        }
    }

    /// Writes the fork's heartbeat if it is due.
    async fn heartbeat(&self) -> anyhow::Result<()> {
        let host = self.hosts.get(self.name()).await?;
        if let Some(last) = host.status("lastHeartbeatTime") {
            let Time(last) = serde_json::from_value(last.clone())?;
            let age = Timestamp::now().duration_since(last);
            if age.as_millis() < i128::try_from(self.durations.heartbeat.as_millis())? {
                return Ok(());
            }
        }
        let patch = json!({"status": {
            "agentVersion": AGENT_VERSION,
            "lastHeartbeatTime": now(),
            "machineID": self.info.id,
        }});
        self.hosts.patch_status(self.name(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Writes an Event about the host. A failed write is only logged.
    pub(crate) async fn event(&self, host: &DynamicObject, kind: &str, reason: &str, message: &str) {
        let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let event = json!({
            "metadata": {"name": format!("{}.{nanoseconds:x}", self.name()), "namespace": self.namespace},
            "count": 1,
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "involvedObject": {
                "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "ByoHost", "name": self.name(),
                "namespace": self.namespace, "resourceVersion": host.metadata.resource_version,
                "uid": host.metadata.uid,
            },
            "message": message,
            "reason": reason,
            "reportingComponent": "hostagent-controller",
            "source": {"component": "hostagent-controller"},
            "type": kind,
        });
        let events = Api::<Event>::namespaced(self.client.clone(), &self.namespace);
        let written = async {
            let event: Event = serde_json::from_value(event)?;
            events.create(&PostParams::default(), &event).await?;
            anyhow::Ok(())
        };
        if let Err(error) = written.await {
            tracing::debug!(host = self.name(), reason, %error, "event not written");
        }
    }
}
