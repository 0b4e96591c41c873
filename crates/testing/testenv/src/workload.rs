//! API servers of provisioned clusters.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kube::Client;
use tokio::sync::Semaphore;

use crate::access::Access;
use crate::api_server::{ApiServer, RunningApiServer, Storage, TokenKeys};
use crate::certificates::Authority;
use crate::control_plane::ControlPlane;
use crate::http_probe;
use crate::process::{Process, ProcessStatus};

/// How many servers start at the same time. A start takes seconds of processor time, so more at once would delay all of
/// them.
const STARTING_AT_ONCE: usize = 2;
const SERVICE_CIDR: &str = "10.128.0.0/12";

/// How an API server of a provisioned cluster is started.
#[derive(Clone)]
pub struct WorkloadApi {
    /// Name, unique among running servers. A server that is started again under the same name has its old data.
    pub name: String,
    /// The address on which it listens; any of 127.0.0.0/8.
    pub address: IpAddr,
    /// The port on which it listens.
    pub port: u16,
    /// The cluster's authority (`tls.crt` of the Secret `<cluster>-ca`), PEM.
    pub ca_cert_pem: String,
    /// The authority's key: EC or RSA, in PKCS#8 or as Go programs write it, PEM.
    pub ca_key_pem: String,
    /// The key for service account tokens (`tls.key` of the Secret `<cluster>-sa`), PEM; the management cluster's if
    /// `None`.
    pub sa_key_pem: Option<String>,
    /// The CIDR of Services; 10.128.0.0/12 if `None`.
    pub service_cidr: Option<String>,
}

/// Starts API servers of provisioned clusters. Cheap to clone.
#[derive(Clone)]
pub struct WorkloadServers {
    shared: Arc<Shared>,
}

struct Shared {
    program: PathBuf,
    folder: PathBuf,
    storage: Storage,
    token_keys: TokenKeys,
    starting: Semaphore,
    running: Mutex<Vec<(String, Weak<Process>)>>,
}

/// A running API server of a provisioned cluster; killed on drop.
pub struct WorkloadServer {
    name: String,
    process: Arc<Process>,
    access: Access,
    admin: Client,
    shared: Arc<Shared>,
}

impl WorkloadServers {
    pub(crate) fn new(control_plane: &ControlPlane, folder: PathBuf) -> Self {
        let shared = Shared {
            program: control_plane.api_server_program.clone(),
            folder,
            storage: control_plane.storage.clone(),
            token_keys: control_plane.token_keys.clone(),
            starting: Semaphore::new(STARTING_AT_ONCE),
            running: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// When a server of that name runs, the authority cannot be used, or the server does not become ready (the error
    /// quotes its log).
    pub async fn start(&self, api: WorkloadApi) -> Result<WorkloadServer> {
        let shared = &self.shared;
        let plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        if api.name.is_empty() || !api.name.chars().all(plain) {
            bail!("{:?} cannot be a workload API server's name: letters, digits, `-`, `_`, `.`", api.name);
        }
        let _permit = shared.starting.acquire().await?;
        if shared.running().iter().any(|(name, process)| *name == api.name && process.strong_count() > 0) {
            bail!("a workload API server named {} runs already", api.name);
        }
        let authority = Authority::from_pem(&api.ca_cert_pem, &api.ca_key_pem)?;
        let folder = shared.folder.join(&api.name);
        let token_keys = match &api.sa_key_pem {
            Some(key) => TokenKeys::write(&folder, key, None)?,
            None => shared.token_keys.clone(),
        };
        let server = ApiServer {
            name: &format!("the workload API server {}", api.name),
            program: &shared.program,
            folder,
            storage: &shared.storage,
            prefix: &prefix(&api.name),
            address: api.address,
            port: api.port,
            authority: Arc::new(authority),
            token_keys: &token_keys,
            service_cidr: api.service_cidr.as_deref().unwrap_or(SERVICE_CIDR),
            // No controller makes ServiceAccounts for pods, or removes the taint from new nodes.
            more: vec!["--disable-admission-plugins=ServiceAccount,TaintNodesByCondition".to_owned()],
            nice: true,
        };
        let RunningApiServer { process, access, admin } = server.start().await?;
        let process = Arc::new(process);
        let mut running = shared.running();
        running.retain(|(_, process)| process.strong_count() > 0);
        running.push((api.name.clone(), Arc::downgrade(&process)));
        drop(running);
        Ok(WorkloadServer { name: api.name, process, access, admin, shared: shared.clone() })
    }

    /// A message if one of the servers has ended although nobody stopped it.
    pub(crate) fn failed(&self) -> Option<String> {
        self.processes().iter().find_map(|process| process.failed())
    }

    /// As [`crate::ManagementCluster::restart_ended`].
    pub(crate) fn restart_ended(&self) -> Vec<String> {
        self.processes().iter().filter_map(|process| process.restart_if_ended()).collect()
    }

    /// The state of each server's process.
    pub(crate) fn process_statuses(&self) -> Vec<ProcessStatus> {
        self.processes().iter().map(|process| process.status()).collect()
    }

    /// Stops all running servers, also those that are in use elsewhere.
    pub(crate) async fn stop(&self) -> Result<()> {
        let processes = self.processes();
        self.shared.running().clear();
        for process in &processes {
            process.terminate();
        }
        for process in processes {
            process.stop().await?;
        }
        Ok(())
    }

    fn processes(&self) -> Vec<Arc<Process>> {
        self.shared.running().iter().filter_map(|(_, process)| process.upgrade()).collect()
    }
}

impl Shared {
    fn running(&self) -> std::sync::MutexGuard<'_, Vec<(String, Weak<Process>)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, gone: &Arc<Process>) {
        self.running().retain(|(_, process)| !std::ptr::eq(process.as_ptr(), Arc::as_ptr(gone)));
    }
}

impl WorkloadServer {
    /// A client with all rights in the cluster (`system:masters`, signed by the cluster's authority).
    pub fn client(&self) -> Client {
        self.admin.clone()
    }

    /// Makes clients and kubeconfigs for any user of the cluster.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The name that it was started with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address, such as `https://127.0.1.1:6443`.
    pub fn server(&self) -> &str {
        self.access.server()
    }

    /// A message if the server has ended although nobody stopped it.
    pub fn failed(&self) -> Option<String> {
        self.process.failed()
    }

    /// The server's process id.
    pub fn process_id(&self) -> i32 {
        self.process.id()
    }

    /// Stops the server and keeps its data, as when the hosts of the control plane reboot.
    pub async fn stop(self) -> Result<()> {
        // First, so that its end is not taken for a failure.
        self.shared.forget(&self.process);
        self.process.stop().await
    }

    /// Stops the server and removes its data, as when the cluster is deleted.
    pub async fn remove(self) -> Result<()> {
        let (storage, prefix) = (self.shared.storage.clone(), prefix(&self.name));
        // Killed, because an orderly end takes 10 s and the data are removed anyway.
        self.shared.forget(&self.process);
        self.process.kill().await?;
        // etcd's JSON API. The end of the range is the first key after those that start with "<prefix>/".
        let (from, to) = (BASE64_STANDARD.encode(format!("{prefix}/")), BASE64_STANDARD.encode(format!("{prefix}0")));
        let range = format!(r#"{{"key": "{from}", "range_end": "{to}"}}"#);
        http_probe::post(storage.port, "/v3/kv/deleterange", &range)
            .await
            .context("the workload API server's data could not be removed from etcd")
    }
}

/// The prefix of a server's data in etcd.
fn prefix(name: &str) -> String {
    format!("/workload/{name}")
}
