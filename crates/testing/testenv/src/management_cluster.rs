//! The management cluster as a whole.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kube::{Client, Config};

use crate::access::Access;
use crate::audit::AuditLog;
use crate::build::Cache;
use crate::byoh::{self, ByohDialect};
use crate::cluster_api;
use crate::control_plane::{ControlPlane, ETCD_DATA, Programs};
use crate::folder::Folder;
use crate::objects;
use crate::ports::Ports;
use crate::process::{Process, ProcessStatus};
use crate::progress::Progress;
use crate::provider;
use crate::workload::{WorkloadApi, WorkloadServer, WorkloadServers};

/// What a management cluster consists of. etcd, the API server and Kubernetes' own controllers always run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether Cluster API is installed, with its three managers.
    pub cluster_api: bool,
    /// Whether BYOH is installed, with its manager. BYOH needs Cluster API.
    pub byoh: bool,
    /// The address on which the API server listens. Servers must be able to reach it.
    pub address: Ipv4Addr,
}

impl Default for Options {
    fn default() -> Self {
        Self { cluster_api: true, byoh: true, address: Ipv4Addr::LOCALHOST }
    }
}

/// A running management cluster. [`ManagementCluster::stop`] ends it in order; dropping it kills its processes.
pub struct ManagementCluster {
    // Fields are dropped in this order, which kills the newest processes first. The folder is removed when no process
    // writes to it.
    byoh_manager: Vec<Process>,
    cluster_api_managers: Vec<Process>,
    workload: WorkloadServers,
    control_plane: ControlPlane,
    programs: Programs,
    folder: Folder,
    ports: Ports,
    cache: Cache,
    dialect: Option<ByohDialect>,
    progress: Progress,
}

impl ManagementCluster {
    /// Starts a management cluster and waits until it is ready. Programs that are not in the cache are built first,
    /// which takes minutes. `progress` gets lines of progress.
    ///
    /// # Errors
    /// When something cannot be built or does not start; the error says what to do, or quotes the program's log.
    pub async fn start(options: Options, progress: impl Fn(&str) + Send + Sync + 'static) -> Result<Self> {
        if options.byoh && !options.cluster_api {
            bail!("BYOH needs the CRDs of Cluster API: ask for both");
        }
        let progress = Progress::new(progress);
        let cache = Cache::new(progress.clone())?;
        let programs = Programs::get(&cache).await?;
        // Everything is built before anything runs: on a small machine a build would starve the servers.
        if options.cluster_api {
            cluster_api::providers(&cache).await?;
        }
        if options.byoh {
            byoh::provider(&cache).await?;
        }

        let folder = Folder::create()?;
        let mut ports = Ports::default();
        progress.line("starting etcd, kube-apiserver and kube-controller-manager ...");
        let control_plane = ControlPlane::start(&programs, &folder, &mut ports, options.address).await?;
        let workload = WorkloadServers::new(&control_plane, folder.path().join("workload"));
        let mut management = Self {
            byoh_manager: Vec::new(),
            cluster_api_managers: Vec::new(),
            workload,
            control_plane,
            programs,
            folder,
            ports,
            cache,
            dialect: None,
            progress,
        };
        management.install_providers(options.cluster_api, options.byoh).await?;
        management.progress.line("the management cluster is ready");
        Ok(management)
    }

    async fn install_providers(&mut self, cluster_api: bool, byoh: bool) -> Result<()> {
        if !byoh {
            return if cluster_api { self.install_cluster_api().await } else { Ok(()) };
        }
        let mut providers = cluster_api::providers(&self.cache).await?;
        let byoh = byoh::provider(&self.cache).await?;
        self.progress.line("installing Cluster API and BYOH ...");
        self.dialect = Some(byoh::dialect(&byoh)?);
        providers.push(byoh);
        let mut managers = self.install(&providers).await?;
        self.byoh_manager = managers.pop().into_iter().collect();
        self.cluster_api_managers = managers;
        byoh::grant_agents(&self.admin()).await?;
        self.wait_for_webhooks().await
    }

    async fn wait_for_webhooks(&self) -> Result<()> {
        if !self.cluster_api_managers.is_empty() {
            cluster_api::wait_for_webhooks(&self.admin()).await?;
        }
        if self.byoh_manager.is_empty() { Ok(()) } else { byoh::wait_for_webhooks(&self.admin()).await }
    }

    /// Stops all processes and keeps the data, which are in [`ManagementCluster::etcd_data`]: a loss of power.
    pub async fn shut_down(&self) -> Result<()> {
        self.stop_managers().await?;
        self.control_plane.stop().await
    }

    /// Starts a management cluster that was shut down, with the data that are in [`ManagementCluster::etcd_data`].
    pub async fn start_again(&self) -> Result<()> {
        self.control_plane.start_again().await?;
        for manager in self.byoh_manager.iter().chain(&self.cluster_api_managers) {
            manager.start_again()?;
        }
        self.wait_for_webhooks().await
    }

    /// Starts a management cluster that was shut down, without its data but with its addresses and keys, as an
    /// administrator would set it up anew. Cluster API and BYOH are installed if they were before.
    pub async fn start_empty(&mut self) -> Result<()> {
        std::fs::remove_dir_all(self.etcd_data()).context("the data of etcd cannot be removed")?;
        self.control_plane.start_again().await?;
        let (cluster_api, byoh) = (!self.cluster_api_managers.is_empty(), !self.byoh_manager.is_empty());
        self.cluster_api_managers.clear();
        self.byoh_manager.clear();
        self.install_providers(cluster_api, byoh).await
    }

    /// The folder with etcd's data.
    pub fn etcd_data(&self) -> PathBuf {
        self.folder.path().join(ETCD_DATA)
    }

    /// The address of etcd, such as `http://127.0.0.1:20000`.
    pub fn etcd_address(&self) -> String {
        format!("http://127.0.0.1:{}", self.control_plane.storage.port)
    }

    /// Installs Cluster API after the start. Does nothing if it is installed.
    pub async fn install_cluster_api(&mut self) -> Result<()> {
        if !self.cluster_api_managers.is_empty() {
            return Ok(());
        }
        let providers = cluster_api::providers(&self.cache).await?;
        self.progress.line("installing Cluster API ...");
        self.cluster_api_managers = self.install(&providers).await?;
        cluster_api::wait_for_webhooks(&self.admin()).await
    }

    /// Installs BYOH after the start; Cluster API must be installed. Does nothing if BYOH is installed.
    pub async fn install_byoh(&mut self) -> Result<()> {
        if !self.byoh_manager.is_empty() {
            return Ok(());
        }
        if self.cluster_api_managers.is_empty() {
            bail!("BYOH needs the CRDs of Cluster API: install that first");
        }
        let provider = byoh::provider(&self.cache).await?;
        self.progress.line("installing BYOH ...");
        self.dialect = Some(byoh::dialect(&provider)?);
        self.byoh_manager = self.install(&[provider]).await?;
        byoh::grant_agents(&self.admin()).await?;
        byoh::wait_for_webhooks(&self.admin()).await
    }

    async fn install(&mut self, providers: &[provider::Provider]) -> Result<Vec<Process>> {
        let inventory = cluster_api::inventory_definition(&self.cache).await?;
        provider::install(providers, &inventory, &self.control_plane, &self.folder, &mut self.ports).await
    }

    /// Installs BYOH's CRDs without its manager, for a second management cluster in the same network: only one manager
    /// can listen on its fixed port. BYOH's objects can be read and written, and nothing acts on them.
    pub async fn install_byoh_kinds(&self) -> Result<()> {
        self.install_kinds(&[byoh::provider(&self.cache).await?]).await
    }

    /// Installs the CRDs of Cluster API and BYOH without their managers. Their objects can be read and written, and
    /// nothing acts on them.
    pub async fn install_all_kinds(&self) -> Result<()> {
        let mut providers = cluster_api::providers(&self.cache).await?;
        providers.push(byoh::provider(&self.cache).await?);
        self.install_kinds(&providers).await
    }

    async fn install_kinds(&self, providers: &[provider::Provider]) -> Result<()> {
        let inventory = cluster_api::inventory_definition(&self.cache).await?;
        provider::install_kinds(&self.admin(), providers, &inventory).await
    }

    /// A client with all rights (user `admin`, group `system:masters`). It still cannot change hosts: BYOH's webhook
    /// admits only the host's agent.
    pub fn admin(&self) -> Client {
        self.control_plane.admin.clone()
    }

    /// Makes configurations, clients and kubeconfigs for any user. Can be moved to other tasks.
    pub fn access(&self) -> Access {
        self.control_plane.access.clone()
    }

    /// A client configuration for this user, with a new client certificate; at most two groups.
    pub fn config_as(&self, user: &str, groups: &[&str]) -> Result<Config> {
        self.control_plane.access.config_as(user, groups)
    }

    /// A client that acts as this user.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> Result<Client> {
        self.control_plane.access.client_as(user, groups)
    }

    /// Writes a kubeconfig for this user, with all credentials inline.
    pub fn kubeconfig_as(&self, user: &str, groups: &[&str], path: &Path) -> Result<()> {
        self.control_plane.access.kubeconfig_as(user, groups, path)
    }

    /// Writes a kubeconfig with a token of an existing service account, valid for a day. A program that uses it has the
    /// rights that it would have in the cluster.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str, path: &Path) -> Result<()> {
        self.control_plane.access.service_account_kubeconfig(namespace, name, path).await
    }

    /// Applies all objects of a YAML text as admin, in their order. They may be of any kind that the API server serves,
    /// and of kinds whose CRD comes before them. Waits until the CRDs among them are established.
    pub async fn apply_yaml(&self, text: &str) -> Result<()> {
        objects::apply(&self.control_plane.admin, objects::read_yaml(text)?).await
    }

    /// A kubeconfig issued by BYOH, with which host agents request their certificates; valid for half an hour.
    pub async fn bootstrap_kubeconfig(&self, namespace: &str, name: &str) -> Result<String> {
        byoh::bootstrap_kubeconfig(&self.control_plane.admin, &self.control_plane.access, namespace, name).await
    }

    /// The log of all requests to the API server.
    pub fn audit_log(&self) -> AuditLog {
        AuditLog::new(self.control_plane.audit_log.clone())
    }

    /// Suspends the API server: connections stay open and nothing is answered, as when the network fails. The server is
    /// suspended when this returns.
    pub fn pause_api_server(&self) -> Result<()> {
        self.control_plane.api_server.pause()
    }

    /// Resumes a suspended API server.
    pub fn resume_api_server(&self) -> Result<()> {
        self.control_plane.api_server.resume()
    }

    /// Starts the API server of a provisioned cluster and waits until it is ready.
    pub async fn start_workload_api_server(&self, api: WorkloadApi) -> Result<WorkloadServer> {
        self.workload.start(api).await
    }

    /// Starts API servers of provisioned clusters. Can be moved to other tasks.
    pub fn workload_servers(&self) -> WorkloadServers {
        self.workload.clone()
    }

    /// A `kubectl` of the API server's version.
    pub fn kubectl(&self) -> &Path {
        self.programs.kubectl()
    }

    /// The folder with logs and credentials; removed when the management cluster stops.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// The variant of BYOH that is installed, if it is installed.
    pub fn byoh_dialect(&self) -> Option<ByohDialect> {
        self.dialect
    }

    /// A message if one of the processes has ended although nobody stopped it, with the last lines of its log.
    pub fn failed(&self) -> Option<String> {
        self.processes().find_map(Process::failed).or_else(|| self.workload.failed())
    }

    /// Starts those processes again that have ended and whose pause is over, as a kubelet would. Returns a message for
    /// each new end. To be called about once a second, and instead of [`ManagementCluster::failed`].
    pub fn restart_ended(&self) -> Vec<String> {
        self.processes().filter_map(Process::restart_if_ended).chain(self.workload.restart_ended()).collect()
    }

    /// The state of each process.
    pub fn process_statuses(&self) -> Vec<ProcessStatus> {
        self.processes().map(Process::status).chain(self.workload.process_statuses()).collect()
    }

    /// Copies all logs to this folder, including those of other programs that log to [`ManagementCluster::dir`].
    pub fn keep_logs(&self, to: &Path) -> Result<()> {
        self.folder.keep_logs(to)
    }

    /// The ids of all processes of the management cluster, newest first.
    pub fn process_ids(&self) -> Vec<i32> {
        self.processes().map(Process::id).collect()
    }

    /// Stops all processes, including workload API servers, newest first, and removes the folder.
    pub async fn stop(self) -> Result<()> {
        self.workload.stop().await?;
        self.stop_managers().await?;
        self.control_plane.stop().await?;
        let folder = self.folder.path();
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
    }

    async fn stop_managers(&self) -> Result<()> {
        let managers = || self.byoh_manager.iter().chain(&self.cluster_api_managers);
        // All at once: no manager needs another one to end in order.
        managers().for_each(Process::terminate);
        for process in managers() {
            process.stop().await?;
        }
        Ok(())
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        let ControlPlane { controllers, api_server, etcd, .. } = &self.control_plane;
        self.byoh_manager.iter().chain(&self.cluster_api_managers).chain([controllers, api_server, etcd])
    }
}
