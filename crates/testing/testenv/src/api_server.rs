//! One kube-apiserver process, of the management cluster or of a provisioned cluster.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use kube::Client;

use crate::access::Access;
use crate::certificates::Authority;
use crate::folder::write_private;
use crate::process::Process;

/// How long a server of the control plane may take to become ready. On a cold, busy machine with two cores the slowest
/// took 5 s.
pub(crate) const READY: Duration = Duration::from_secs(90);

/// The etcd in which API servers keep their data. One etcd serves all of them, each under a prefix of its own.
#[derive(Clone)]
pub(crate) struct Storage {
    pub(crate) port: u16,
}

/// The keys that an API server signs service account tokens with.
#[derive(Clone)]
pub(crate) struct TokenKeys {
    pub(crate) private: PathBuf,
    public: PathBuf,
}

impl TokenKeys {
    /// Writes the keys (PEM) into a folder. Without `public` the API server reads the public key from the private one.
    pub(crate) fn write(folder: &Path, private: &str, public: Option<&str>) -> Result<Self> {
        let keys = Self { private: folder.join("sa.key"), public: folder.join("sa.pub") };
        write_private(&keys.private, private.as_bytes())?;
        write_private(&keys.public, public.unwrap_or(private).as_bytes())?;
        Ok(keys)
    }
}

/// How an API server is started.
pub(crate) struct ApiServer<'a> {
    /// Name of the process in messages.
    pub(crate) name: &'a str,
    pub(crate) program: &'a Path,
    pub(crate) folder: PathBuf,
    pub(crate) storage: &'a Storage,
    /// Prefix of its keys in etcd.
    pub(crate) prefix: &'a str,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) authority: Arc<Authority>,
    pub(crate) token_keys: &'a TokenKeys,
    pub(crate) service_cidr: &'a str,
    /// Further arguments.
    pub(crate) more: Vec<String>,
    /// Whether it runs at low priority, so that it does not slow the management cluster down.
    pub(crate) nice: bool,
}

/// A running API server.
pub(crate) struct RunningApiServer {
    pub(crate) process: Process,
    pub(crate) access: Access,
    pub(crate) admin: Client,
}

impl ApiServer<'_> {
    /// Starts the server and waits until it is ready.
    ///
    /// # Errors
    /// When its files cannot be written, or it does not become ready; the error quotes its log.
    pub(crate) async fn start(self) -> Result<RunningApiServer> {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let serving = self.authority.server("kube-apiserver", &[self.address, local])?;
        let write = |name: &str, content: &str| -> Result<String> {
            let path = self.folder.join(name);
            write_private(&path, content.as_bytes())?;
            Ok(path.display().to_string())
        };
        let mut arguments = vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.storage.port),
            format!("--etcd-prefix={}", self.prefix),
            format!("--bind-address={}", self.address),
            format!("--advertise-address={}", self.address),
            format!("--secure-port={}", self.port),
            format!("--cert-dir={}", self.folder.display()),
            format!("--tls-cert-file={}", write("server.crt", &serving.certificate)?),
            format!("--tls-private-key-file={}", write("server.key", &serving.key)?),
            format!("--client-ca-file={}", write("ca.crt", &self.authority.pair().certificate)?),
            format!("--service-cluster-ip-range={}", self.service_cidr),
            format!("--service-account-key-file={}", self.token_keys.public.display()),
            format!("--service-account-signing-key-file={}", self.token_keys.private.display()),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            // There is no Service network, so nobody could use Endpoints of the server itself.
            "--endpoint-reconciler-type=none".to_owned(),
        ];
        arguments.extend(self.more);
        let host = match self.address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let access = Access::new(&format!("https://{host}:{}", self.port), self.authority);
        let admin = access.client_as("admin", &["system:masters"])?;
        let start = if self.nice { Process::start_nice } else { Process::start };
        let process = start(self.name, self.program, &arguments, &self.folder.join("log"))?;
        process.wait_ready(READY, || answers_readyz(&admin)).await?;
        Ok(RunningApiServer { process, access, admin })
    }
}

/// Whether the client's API server says that it is ready.
pub(crate) async fn answers_readyz(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    client.request_text(request).await.is_ok()
}
