//! The bed itself.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kube::{Client, Config};

use crate::access::Access;
use crate::audit::AuditLog;
use crate::binaries::Cache;
use crate::byoh::{self, ByohDialect};
use crate::cluster_api;
use crate::control_plane::{ControlPlane, ETCD_DATA, Programs};
use crate::folder::Folder;
use crate::objects;
use crate::ports::Ports;
use crate::process::{Part, Process};
use crate::progress::Progress;
use crate::provider;
use crate::workload::{WorkloadApi, WorkloadServer, WorkloadServers};

/// What a bed is started with. The API server and Kubernetes' own controllers are always there.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Cluster API's three managers.
    pub cluster_api: bool,
    /// BYOH's manager; it cannot be without Cluster API.
    pub byoh: bool,
    /// Where the API server listens, which others than this machine may have to reach.
    pub address: Ipv4Addr,
}

impl Default for Options {
    fn default() -> Self {
        Self { cluster_api: true, byoh: true, address: Ipv4Addr::LOCALHOST }
    }
}

/// A running management cluster. [`Bed::stop`] ends it in order; dropping it kills its processes.
pub struct Bed {
    // Dropped, and thereby killed, in this order: newest first, and the folder when nobody writes to it anymore.
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

impl Bed {
    /// Starts a bed and waits until all of it is ready. Programs that were never built are built first, which takes
    /// minutes; `progress` is told what is going on, a line at a time.
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
        // Everything is built before anything runs: a build would starve the servers of a small machine.
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
        let mut bed = Self {
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
        bed.install_providers(options.cluster_api, options.byoh).await?;
        bed.progress.line("the management cluster is ready");
        Ok(bed)
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

    /// Stops the management cluster as a loss of power does; its data stay in [`Bed::etcd_data`].
    pub async fn shut_down(&self) -> Result<()> {
        self.stop_managers().await?;
        self.control_plane.stop().await
    }

    /// Starts a management cluster again that was shut down, with the data that are in [`Bed::etcd_data`] then.
    pub async fn start_again(&self) -> Result<()> {
        self.control_plane.start_again().await?;
        for manager in self.byoh_manager.iter().chain(&self.cluster_api_managers) {
            manager.start_again()?;
        }
        self.wait_for_webhooks().await
    }

    /// Starts a management cluster that was shut down without its data, and with its addresses and keys: what an administrator
    /// has who makes one anew. Cluster API and BYOH are installed if they were.
    pub async fn start_empty(&mut self) -> Result<()> {
        std::fs::remove_dir_all(self.etcd_data()).context("the data of etcd cannot be removed")?;
        self.control_plane.start_again().await?;
        let (cluster_api, byoh) = (!self.cluster_api_managers.is_empty(), !self.byoh_manager.is_empty());
        self.cluster_api_managers.clear();
        self.byoh_manager.clear();
        self.install_providers(cluster_api, byoh).await
    }

    /// The folder in which etcd has its data.
    pub fn etcd_data(&self) -> PathBuf {
        self.folder.path().join(ETCD_DATA)
    }

    /// Where etcd answers.
    pub fn etcd_address(&self) -> String {
        format!("http://127.0.0.1:{}", self.control_plane.storage.port)
    }

    /// Installs Cluster API later than the start; nothing happens if it is there already.
    pub async fn install_cluster_api(&mut self) -> Result<()> {
        if !self.cluster_api_managers.is_empty() {
            return Ok(());
        }
        let providers = cluster_api::providers(&self.cache).await?;
        self.progress.line("installing Cluster API ...");
        self.cluster_api_managers = self.install(&providers).await?;
        cluster_api::wait_for_webhooks(&self.admin()).await
    }

    /// Installs BYOH later than the start, after Cluster API; nothing happens if it is there already.
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

    /// Installs BYOH's kinds without its manager, which has the network's only port: what a second management cluster can
    /// have in the same network. Its objects are read and written there, and nobody acts on them.
    pub async fn install_byoh_kinds(&self) -> Result<()> {
        let provider = byoh::provider(&self.cache).await?;
        let inventory = cluster_api::inventory_definition(&self.cache).await?;
        provider::install_kinds(&self.admin(), &[provider], &inventory).await
    }

    /// A client with all rights (user `admin`, group `system:masters`). BYOH's webhook refuses hosts from it all the
    /// same: what changes a host must act as the host's agent.
    pub fn admin(&self) -> Client {
        self.control_plane.admin.clone()
    }

    /// Configurations, clients and kubeconfigs for any user, to be handed to tasks.
    pub fn access(&self) -> Access {
        self.control_plane.access.clone()
    }

    /// A client configuration for this user, with a client certificate of its own; at most two groups.
    pub fn config_as(&self, user: &str, groups: &[&str]) -> Result<Config> {
        self.control_plane.access.config_as(user, groups)
    }

    /// A client that acts as this user.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> Result<Client> {
        self.control_plane.access.client_as(user, groups)
    }

    /// Writes a kubeconfig with everything inline, for a program that acts as this user.
    pub fn kubeconfig_as(&self, user: &str, groups: &[&str], path: &Path) -> Result<()> {
        self.control_plane.access.kubeconfig_as(user, groups, path)
    }

    /// Writes a kubeconfig with a token of an existing service account, good for a day: what an operator in the cluster
    /// would have, with no more rights than its roles give.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str, path: &Path) -> Result<()> {
        self.control_plane.access.service_account_kubeconfig(namespace, name, path).await
    }

    /// Applies all objects of a YAML text as admin, in their order, with any kind that the API server serves. Returns when
    /// the CRDs among them are served.
    pub async fn apply_yaml(&self, text: &str) -> Result<()> {
        objects::apply(&self.control_plane.admin, objects::read_yaml(text)?).await
    }

    /// A kubeconfig with which host agents may ask for a certificate, as BYOH issues it; good for half an hour.
    pub async fn bootstrap_kubeconfig(&self, namespace: &str, name: &str) -> Result<String> {
        byoh::bootstrap_kubeconfig(&self.control_plane.admin, &self.control_plane.access, namespace, name).await
    }

    /// What the API server was asked.
    pub fn audit_log(&self) -> AuditLog {
        AuditLog::new(self.control_plane.audit_log.clone())
    }

    /// Stops the API server's clock: connections stay open and nothing is answered, as if the network had gone. When
    /// this returns, the server stands still.
    pub fn pause_api_server(&self) -> Result<()> {
        self.control_plane.api_server.pause()
    }

    /// Lets a paused API server go on.
    pub fn resume_api_server(&self) -> Result<()> {
        self.control_plane.api_server.resume()
    }

    /// Starts the API server of a provisioned cluster and waits until it is ready.
    pub async fn start_workload_api_server(&self, api: WorkloadApi) -> Result<WorkloadServer> {
        self.workload.start(api).await
    }

    /// The starter of API servers of provisioned clusters, to be handed to tasks.
    pub fn workload_servers(&self) -> WorkloadServers {
        self.workload.clone()
    }

    /// A `kubectl` of the API server's version.
    pub fn kubectl(&self) -> &Path {
        self.programs.kubectl()
    }

    /// The bed's folder, with the logs; gone when the bed stops.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Which BYOH is installed, if it is.
    pub fn byoh_dialect(&self) -> Option<ByohDialect> {
        self.dialect
    }

    /// What to say if one of the processes ended although nobody stopped it, with the end of its log.
    pub fn failed(&self) -> Option<String> {
        self.processes().find_map(Process::failed).or_else(|| self.workload.failed())
    }

    /// Starts those processes again that have ended and whose pause is over, as a Deployment would. Returns what has
    /// happened, for people. Whoever calls it does so about once in a second, and does not ask [`Bed::failed`].
    pub fn keep(&self) -> Vec<String> {
        self.processes().filter_map(Process::keep).chain(self.workload.keep()).collect()
    }

    /// How each process is.
    pub fn parts(&self) -> Vec<Part> {
        self.processes().map(Process::part).chain(self.workload.parts()).collect()
    }

    /// Copies all logs, also of those who log to the bed's folder, to this folder.
    pub fn keep_logs(&self, to: &Path) -> Result<()> {
        self.folder.keep_logs(to)
    }

    /// The ids of all processes of the management cluster, newest first.
    pub fn process_ids(&self) -> Vec<i32> {
        self.processes().map(Process::id).collect()
    }

    /// Stops all processes, newest first, and removes the folder. Workload API servers end too.
    pub async fn stop(self) -> Result<()> {
        self.workload.stop().await?;
        self.stop_managers().await?;
        self.control_plane.stop().await?;
        let folder = self.folder.path();
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
    }

    async fn stop_managers(&self) -> Result<()> {
        let managers = || self.byoh_manager.iter().chain(&self.cluster_api_managers);
        // Managers do not need each other to leave.
        managers().for_each(Process::ask_to_leave);
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
