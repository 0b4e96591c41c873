//! A site: the simulated hosts of one management cluster, and the simulated clusters that they form.

use cluster_api::byoh::BYOHOST_CRD;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use futures::StreamExt;
use k8s_openapi::{
    api::core::v1::ConfigMap, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    runtime::watcher::{Config, Event},
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use testenv::{Access, ByohDialect, ManagementCluster};

use crate::{
    agent::{Agent, Durations},
    backoff, byohost,
    external_etcd::ExternalEtcd,
    failure::{self, Failure},
    node::HostInfo,
    workload::Clusters,
};

/// Number of the next host, which its address is made of. One counter for all sites of the process, because they share
/// its network.
static NEXT_HOST: AtomicU32 = AtomicU32::new(1);

/// How the hosts of a site behave.
#[derive(Clone, Debug)]
pub struct SiteOptions {
    /// Default namespace of hosts.
    pub namespace: String,
    /// How long an installation script takes.
    pub install_time: Duration,
    /// How long a bootstrap script takes, without the start of a workload API server.
    pub bootstrap_time: Duration,
    /// How long release takes.
    pub cleanup_time: Duration,
    /// How often an agent of the Platform9 fork writes its heartbeat. Upstream has none.
    pub heartbeat_interval: Duration,
    /// Name of the pod network's DaemonSet. Nodes are ready when it is in the namespace `kube-system` of their cluster.
    pub cni_daemon_set: String,
    /// Whether the Secrets of an external etcd are made for each Cluster. Must be false if some hosts are real, because
    /// these Secrets replace those that Cluster API makes for a stacked etcd.
    pub external_etcd: bool,
}

impl Default for SiteOptions {
    fn default() -> Self {
        Self {
            namespace: "default".to_owned(),
            install_time: Duration::from_millis(300),
            bootstrap_time: Duration::from_millis(500),
            cleanup_time: Duration::from_millis(500),
            heartbeat_interval: Duration::from_secs(10),
            cni_daemon_set: "simulated-cni".to_owned(),
            external_etcd: true,
        }
    }
}

/// A host to be registered.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// Host name; also the name of its `ByoHost` and of its Node.
    pub name: String,
    /// Namespace of the `ByoHost`; that of the site if `None`.
    pub namespace: Option<String>,
    /// Value of the label `host-id`, by which templates select hosts.
    pub host_id: Option<String>,
    /// Further labels. As with the real agent, they are set only when the `ByoHost` is created.
    pub labels: BTreeMap<String, String>,
    /// Whether the agent runs with `--skip-installation`.
    pub skip_installation: bool,
    /// The operating system as the host reports it; one that BYOH supports if `None`.
    pub os_image: Option<String>,
}

impl HostSpec {
    /// A host with the label `host-id`, whose agent skips the installation.
    pub fn new(name: impl Into<String>, host_id: impl Into<String>) -> Self {
        Self { host_id: Some(host_id.into()), ..Self::named(name) }
    }

    /// A host without labels, whose agent skips the installation.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            namespace: None,
            host_id: None,
            labels: BTreeMap::new(),
            skip_installation: true,
            os_image: None,
        }
    }
}

/// The simulated hosts of one management cluster, and the clusters that they form. Dropping a site cancels its tasks
/// and does not wait for them.
pub struct Site {
    inner: Arc<Inner>,
}

struct Inner {
    access: Access,
    admin: Client,
    dialect: Option<ByohDialect>,
    options: SiteOptions,
    clusters: Clusters,
    external_etcd: Arc<ExternalEtcd>,
    hosts: Mutex<HashMap<String, Host>>,
    /// The failures in the ConfigMap, by host name; also of hosts that are registered later.
    requested_failures: Mutex<BTreeMap<String, Failure>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Site {
    /// A site without hosts. Must be called within a Tokio runtime.
    pub fn new(management: &ManagementCluster, options: SiteOptions) -> anyhow::Result<Self> {
        let external_etcd = Arc::new(ExternalEtcd::new(management.admin())?);
        let inner = Inner {
            access: management.access(),
            admin: management.admin(),
            dialect: management.byoh_dialect(),
            clusters: Clusters::new(management.workload_servers(), &options.cni_daemon_set),
            external_etcd: external_etcd.clone(),
            hosts: Mutex::default(),
            requested_failures: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            options,
        };
        if inner.options.external_etcd {
            let stop = inner.stop.clone();
            inner.tasks.spawn(stop.run_until_cancelled_owned(async move { external_etcd.run().await }));
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts the agent of a new host, and waits until it has registered the host. BYOH must be installed.
    pub async fn register(&self, spec: HostSpec) -> anyhow::Result<Host> {
        let inner = &self.inner;
        let name = spec.name.clone();
        if lock(&inner.hosts).contains_key(&name) {
            bail!("there is a host {name} at this site");
        }
        let dialect = inner.dialect().await?;
        let requested = lock(&inner.requested_failures).get(&name).cloned();
        let starts_stopped = requested.as_ref().is_some_and(Failure::stops_agent);
        let (failure, current) = watch::channel(requested);
        let agent = Arc::new(inner.agent(spec, dialect, current)?);
        if !starts_stopped {
            agent.register().await.with_context(|| format!("registering host {name}"))?;
        }
        let stop = inner.stop.child_token();
        let host = Host {
            inner: Arc::new(HostInner {
                failure,
                agent: agent.clone(),
                stop: stop.clone(),
                site: Arc::downgrade(inner),
            }),
        };
        lock(&inner.hosts).insert(name, host.clone());
        inner.tasks.spawn(stop.run_until_cancelled_owned(async move { Box::pin(agent.run(!starts_stopped)).await }));
        Ok(host)
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> Option<Host> {
        lock(&self.inner.hosts).get(name).cloned()
    }

    /// All hosts, by name.
    pub fn hosts(&self) -> Vec<Host> {
        let mut hosts: Vec<_> = lock(&self.inner.hosts).values().cloned().collect();
        hosts.sort_by(|a, b| a.name().cmp(b.name()));
        hosts
    }

    /// An administrator's client of the workload API of a simulated cluster, by the cluster's name.
    pub async fn workload_client(&self, cluster: &str) -> Option<Client> {
        self.inner.clusters.client(cluster).await
    }

    /// An administrator's client of the workload API at an endpoint. Unlike a name, an endpoint is unique.
    pub async fn workload_client_at(&self, endpoint: SocketAddr) -> Option<Client> {
        self.inner.clusters.client_at(endpoint).await
    }

    /// Makes the Secrets of a cluster's external etcd now, before its Cluster exists.
    pub async fn ensure_external_etcd(&self, namespace: &str, cluster: &str) -> anyhow::Result<()> {
        self.inner.external_etcd.ensure(namespace, cluster, None).await
    }

    /// Makes hosts fail as a ConfigMap says: keys are host names, values one of `silent`, `off`, `install`, `bootstrap`,
    /// `node-not-ready`, `slow-cleanup=180s`, `hanging-cleanup` and `unregistered`. A host whose key is removed is
    /// healed.
    pub fn watch_failures(&self, namespace: &str, config_map: &str) {
        let api = Api::<ConfigMap>::namespaced(self.inner.admin.clone(), namespace);
        let config = Config::default().fields(&format!("metadata.name={config_map}"));
        // Weak, so that the task does not keep the site alive.
        let site = Arc::downgrade(&self.inner);
        let follow = async move {
            let mut events = std::pin::pin!(backoff::watch(api, config));
            let mut listed = BTreeMap::new();
            while let Some(event) = events.next().await {
                let data = match event {
                    Event::Init => {
                        listed.clear();
                        continue;
                    }
                    Event::InitApply(map) => {
                        listed = map.data.unwrap_or_default();
                        continue;
                    }
                    Event::InitDone => std::mem::take(&mut listed),
                    Event::Apply(map) => map.data.unwrap_or_default(),
                    Event::Delete(_) => BTreeMap::new(),
                };
                let Some(site) = site.upgrade() else { return };
                site.apply_failures(&failure::read_config_map(&data));
            }
        };
        let stop = self.inner.stop.clone();
        self.inner.tasks.spawn(stop.run_until_cancelled_owned(follow));
    }

    /// Stops all agents, kubelets and workload API servers. Objects in the management cluster stay.
    pub async fn shut_down(self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.clusters.stop().await;
        let hosts: Vec<_> = lock(&self.inner.hosts).drain().map(|(_, host)| host).collect();
        for host in hosts {
            host.inner.agent.leave_cluster().await;
        }
    }
}

impl Inner {
    /// The agent of a new host.
    fn agent(
        &self,
        spec: HostSpec,
        dialect: ByohDialect,
        failure: watch::Receiver<Option<Failure>>,
    ) -> anyhow::Result<Agent> {
        let number = NEXT_HOST.fetch_add(1, Ordering::Relaxed);
        let [_, _, high, low] = number.to_be_bytes();
        if number > u32::from(u16::MAX) {
            bail!("no address is left for host {}", spec.name);
        }
        let client = self.access.client_as(&format!("byoh:host:{}", spec.name), &["byoh:hosts"])?;
        let namespace = spec.namespace.unwrap_or_else(|| self.options.namespace.clone());
        let mut labels = spec.labels;
        if let Some(host_id) = spec.host_id {
            labels.insert("host-id".to_owned(), host_id);
        }
        Ok(Agent {
            hosts: byohost::api(client.clone(), &namespace),
            namespace,
            labels,
            info: HostInfo {
                host_name: spec.name,
                address: IpAddr::from(Ipv4Addr::new(127, 77, high, low)),
                os_image: spec.os_image.unwrap_or_else(|| supported_os(dialect).to_owned()),
                id: format!("51a00000000000000000{number:012x}"),
            },
            number,
            skip_installation: spec.skip_installation,
            dialect,
            client,
            failure,
            durations: Durations {
                install: self.options.install_time,
                bootstrap: self.options.bootstrap_time,
                cleanup: self.options.cleanup_time,
                heartbeat: self.options.heartbeat_interval,
            },
            clusters: self.clusters.clone(),
            kubelet: Mutex::default(),
        })
    }

    /// The variant of BYOH. If BYOH was installed after the site was made, it is read from the installed CRD.
    async fn dialect(&self) -> anyhow::Result<ByohDialect> {
        if let Some(dialect) = self.dialect {
            return Ok(dialect);
        }
        let definitions = Api::<CustomResourceDefinition>::all(self.admin.clone());
        let definition = definitions.get_opt(BYOHOST_CRD).await?;
        let definition = serde_json::to_value(definition.context("BYOH is not installed")?)?;
        Ok(ByohDialect::of_definition(&definition))
    }

    /// Makes hosts fail, or heals them, as the ConfigMap says. Failures of hosts that it has not named stay.
    fn apply_failures(&self, requested: &BTreeMap<String, Failure>) {
        let before = std::mem::replace(&mut *lock(&self.requested_failures), requested.clone());
        let names: HashSet<_> = before.keys().chain(requested.keys()).collect();
        for name in names {
            let (old, new) = (before.get(name), requested.get(name));
            let Some(host) = lock(&self.hosts).get(name).cloned() else { continue };
            match new {
                _ if old == new => {}
                Some(failure) => host.fail(failure.clone()),
                None => host.heal(),
            }
        }
    }
}

/// An operating system that BYOH supports.
fn supported_os(dialect: ByohDialect) -> &'static str {
    match dialect {
        ByohDialect::Upstream => "Ubuntu 20.04.6 LTS",
        ByohDialect::Platform9 => "Ubuntu 22.04.4 LTS",
    }
}

/// A simulated host.
#[derive(Clone)]
pub struct Host {
    inner: Arc<HostInner>,
}

struct HostInner {
    failure: watch::Sender<Option<Failure>>,
    agent: Arc<Agent>,
    stop: CancellationToken,
    site: Weak<Inner>,
}

impl Host {
    /// The host's name.
    pub fn name(&self) -> &str {
        self.inner.agent.name()
    }

    /// Namespace of the host's `ByoHost`.
    pub fn namespace(&self) -> &str {
        &self.inner.agent.namespace
    }

    /// The host's own address.
    pub fn address(&self) -> IpAddr {
        self.inner.agent.info.address
    }

    /// Makes the host fail, also in its current work. Replaces an earlier failure.
    pub fn fail(&self, failure: Failure) {
        tracing::info!(host = self.name(), %failure, "simulated failure");
        self.inner.failure.send_replace(Some(failure));
    }

    /// Ends the failure.
    pub fn heal(&self) {
        tracing::info!(host = self.name(), "simulated failure healed");
        self.inner.failure.send_replace(None);
    }

    /// The current failure.
    pub fn failure(&self) -> Option<Failure> {
        self.inner.failure.borrow().clone()
    }

    /// Removes the host: deletes its `ByoHost` and stops its agent. BYOH refuses this for a host in use.
    pub async fn unregister(&self) -> anyhow::Result<()> {
        self.inner.agent.delete().await.with_context(|| format!("deleting host {}", self.name()))?;
        self.inner.stop.cancel();
        self.inner.agent.leave_cluster().await;
        if let Some(site) = self.inner.site.upgrade() {
            lock(&site.hosts).remove(self.name());
        }
        Ok(())
    }
}
