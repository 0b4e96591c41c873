//! The simulated clusters: a real kube-apiserver at the endpoint of each, and its control-plane hosts.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, bail};
use futures::StreamExt;
use k8s_openapi::{
    api::{apps::v1::DaemonSet, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    runtime::watcher::{Config, Event},
};
use testenv::{WorkloadApi, WorkloadServer, WorkloadServers};
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    backoff,
    bootstrap::{Init, Join},
};

/// Number of the next workload API server. It is part of the server's name, under which its data are in etcd, so that
/// each server starts without data.
static NEXT_SERVER: AtomicU32 = AtomicU32::new(1);

const DEFAULT_PORT: u16 = 6443;

/// All simulated clusters of a site, by endpoint.
#[derive(Clone)]
pub(crate) struct Clusters {
    servers: WorkloadServers,
    /// Name of the DaemonSet of the pod network.
    cni: Arc<str>,
    /// The clusters by endpoint. A slot is locked while its server starts or stops; the map only during a look-up.
    slots: Arc<Mutex<HashMap<SocketAddr, Slot>>>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Cluster>>>;

struct Cluster {
    name: String,
    server: WorkloadServer,
    client: Client,
    cni: watch::Receiver<bool>,
    /// Names of the control-plane hosts.
    control_plane: BTreeSet<String>,
    _watch: DropGuard,
}

/// The membership of a host in a cluster.
#[derive(Clone)]
pub(crate) struct Membership {
    pub(crate) endpoint: SocketAddr,
    pub(crate) client: Client,
    /// Whether the pod network exists. The channel is closed when the cluster is gone.
    pub(crate) cni: watch::Receiver<bool>,
}

impl Clusters {
    pub(crate) fn new(servers: WorkloadServers, cni_daemon_set: &str) -> Self {
        Self { servers, cni: cni_daemon_set.into(), slots: Arc::default() }
    }

    fn slot(&self, endpoint: SocketAddr) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(endpoint).or_default().clone()
    }

    fn all(&self) -> Vec<Slot> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Starts a cluster at its endpoint. A cluster that is there is stopped.
    pub(crate) async fn init(&self, host: &str, address: IpAddr, init: &Init) -> anyhow::Result<Membership> {
        let endpoint = match &init.endpoint {
            Some(endpoint) => resolve(endpoint).await?,
            None => SocketAddr::new(address, DEFAULT_PORT),
        };
        let slot = self.slot(endpoint);
        let mut slot = slot.lock().await;
        if let Some(old) = slot.take() {
            old.stop().await;
        }
        let name =
            format!("{}-{}", init.cluster_name.as_deref().unwrap_or(host), NEXT_SERVER.fetch_add(1, Ordering::Relaxed));
        let api = WorkloadApi {
            name,
            address: endpoint.ip(),
            port: endpoint.port(),
            ca_cert_pem: init.ca_cert.clone(),
            ca_key_pem: init.ca_key.clone(),
            sa_key_pem: init.sa_key.clone(),
            service_cidr: init.service_subnet.clone(),
        };
        let server = start_server(self.servers.clone(), api).await;
        let server = server.with_context(|| format!("the API server at {endpoint} did not start"))?;
        let client = server.client();
        let (cni, watch) = watch_cni(client.clone(), &self.cni);
        let membership = Membership { endpoint, client: client.clone(), cni: cni.clone() };
        let name = init.cluster_name.clone().unwrap_or_else(|| host.to_owned());
        tracing::info!(cluster = %name, %endpoint, "simulated cluster started");
        *slot = Some(Cluster {
            name,
            server,
            client,
            cni,
            control_plane: BTreeSet::from([host.to_owned()]),
            _watch: watch,
        });
        Ok(membership)
    }

    /// Joins the cluster at an endpoint. As with real kubeadm, the cluster must have the token.
    pub(crate) async fn join(&self, host: &str, join: &Join) -> anyhow::Result<Membership> {
        let endpoint = resolve(&join.endpoint).await?;
        let slot = self.slot(endpoint);
        let mut slot = slot.lock().await;
        let Some(cluster) = slot.as_mut() else { bail!("nothing answers at {endpoint}") };
        if let Some(failed) = cluster.server.failed() {
            bail!("nothing answers at {endpoint}: {failed}");
        }
        check_token(&cluster.client, join).await?;
        if join.control_plane {
            cluster.control_plane.insert(host.to_owned());
        }
        Ok(Membership { endpoint, client: cluster.client.clone(), cni: cluster.cni.clone() })
    }

    /// Removes a host from its cluster. Returns whether the cluster goes on: it ends with its last control-plane host,
    /// and with the control-plane host whose own address is the endpoint.
    pub(crate) async fn leave(&self, host: &str, address: IpAddr, endpoint: SocketAddr) -> bool {
        let slot = self.slot(endpoint);
        let mut slot = slot.lock().await;
        let Some(cluster) = slot.as_mut() else { return false };
        let was_control_plane = cluster.control_plane.remove(host);
        if was_control_plane
            && (cluster.control_plane.is_empty() || endpoint.ip() == address)
            && let Some(ended) = slot.take()
        {
            ended.stop().await;
        }
        slot.is_some()
    }

    /// A client of the API of the cluster with this name; of any of them, if there are several (in different
    /// namespaces).
    pub(crate) async fn client(&self, cluster: &str) -> Option<Client> {
        for slot in self.all() {
            if let Some(running) = slot.lock().await.as_ref()
                && running.name == cluster
            {
                return Some(running.client.clone());
            }
        }
        None
    }

    /// A client of the API at an endpoint.
    pub(crate) async fn client_at(&self, endpoint: SocketAddr) -> Option<Client> {
        let slot = self.slot(endpoint);
        let slot = slot.lock().await;
        slot.as_ref().map(|running| running.client.clone())
    }

    /// Stops all clusters.
    pub(crate) async fn stop(&self) {
        let stops = self.all().into_iter().map(|slot| async move {
            if let Some(cluster) = slot.lock().await.take() {
                cluster.stop().await;
            }
        });
        // At the same time, because a server with open watches takes long to stop.
        futures::future::join_all(stops).await;
    }
}

impl Cluster {
    async fn stop(self) {
        let Self { name, server, _watch: watch, .. } = self;
        drop(watch);
        match server.remove().await {
            Ok(()) => tracing::info!(cluster = %name, "simulated cluster stopped"),
            Err(error) => tracing::warn!(cluster = %name, %error, "simulated cluster did not stop cleanly"),
        }
    }
}

/// Starts a server on a thread of its own, because the future of the start is not `Send`. If the caller is cancelled,
/// the start is finished there, and the server is dropped, which kills it.
async fn start_server(servers: WorkloadServers, api: WorkloadApi) -> anyhow::Result<WorkloadServer> {
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(servers.start(api))).await?
}

/// The address of an endpoint. The default port is that of Kubernetes' API.
async fn resolve(endpoint: &str) -> anyhow::Result<SocketAddr> {
    let endpoint = endpoint.strip_prefix("https://").unwrap_or(endpoint);
    let with_port = if endpoint.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
        format!("[{endpoint}]:{DEFAULT_PORT}")
    } else if endpoint.rsplit(':').next().is_some_and(|port| endpoint.contains(':') && port.parse::<u16>().is_ok()) {
        endpoint.to_owned()
    } else {
        format!("{endpoint}:{DEFAULT_PORT}")
    };
    let mut found = tokio::net::lookup_host(&with_port).await.with_context(|| format!("no address of {endpoint}"))?;
    found.next().with_context(|| format!("no address of {endpoint}"))
}

/// Checks that the cluster has the join token, and that the token has not expired.
async fn check_token(client: &Client, join: &Join) -> anyhow::Result<()> {
    let secrets = Api::<Secret>::namespaced(client.clone(), "kube-system");
    let name = format!("bootstrap-token-{}", join.token_id);
    let secret = secrets.get_opt(&name).await?.with_context(|| format!("unknown bootstrap token {}", join.token_id))?;
    let data = secret.data.unwrap_or_default();
    let field =
        |key: &str| data.get(key).map(|value| String::from_utf8_lossy(&value.0).into_owned()).unwrap_or_default();
    if field("token-secret") != join.token_secret || field("usage-bootstrap-authentication") != "true" {
        bail!("bootstrap token {} is not valid", join.token_id);
    }
    let expiration = field("expiration");
    if !expiration.is_empty() {
        let Time(until) = serde_json::from_value(expiration.into()).context("expiration of the bootstrap token")?;
        if until < Timestamp::now() {
            bail!("bootstrap token {} has expired", join.token_id);
        }
    }
    Ok(())
}

/// Watches whether the DaemonSet of the pod network exists.
fn watch_cni(client: Client, name: &str) -> (watch::Receiver<bool>, DropGuard) {
    let (there, seen) = watch::channel(false);
    let stop = CancellationToken::new();
    let api = Api::<DaemonSet>::namespaced(client, "kube-system");
    let config = Config::default().fields(&format!("metadata.name={name}"));
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        let mut events = std::pin::pin!(backoff::watch(api, config));
        let mut listed = false;
        while let Some(event) = events.next().await {
            let now = match event {
                Event::Init => {
                    listed = false;
                    continue;
                }
                Event::InitApply(_) => {
                    listed = true;
                    continue;
                }
                Event::InitDone => listed,
                Event::Apply(_) => true,
                Event::Delete(_) => false,
            };
            there.send_if_modified(|before| std::mem::replace(before, now) != now);
        }
    }));
    (seen, stop.drop_guard())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn endpoints_have_a_port() {
        for (text, address) in [
            ("127.77.0.1:7443", "127.77.0.1:7443"),
            ("127.77.0.1", "127.77.0.1:6443"),
            ("https://127.77.0.1:6443", "127.77.0.1:6443"),
            ("::1", "[::1]:6443"),
            ("[::1]:7443", "[::1]:7443"),
        ] {
            assert_eq!(resolve(text).await.unwrap(), address.parse().unwrap(), "{text}");
        }
    }
}
