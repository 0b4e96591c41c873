//! The management cluster's own processes: etcd, kube-apiserver and kube-controller-manager.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use kube::Client;

use crate::access::Access;
use crate::api_server::{ApiServer, READY, RunningApiServer, Storage, TokenKeys, answers_readyz};
use crate::audit;
use crate::build::{Built, Cache};
use crate::certificates::{Authority, Pair, signing_key};
use crate::folder::{AUDIT_LOG, Folder};
use crate::http_probe;
use crate::kubernetes::{self, Program};
use crate::ports::Ports;
use crate::process::Process;

/// The programs of a control plane, built.
pub(crate) struct Programs {
    etcd: Built,
    kube_apiserver: Built,
    kube_controller_manager: Built,
    kubectl: Built,
}

impl Programs {
    pub(crate) async fn get(cache: &Cache) -> Result<Self> {
        Ok(Self {
            etcd: cache.program(&kubernetes::etcd()?).await?,
            kube_apiserver: Program::ApiServer.get(cache).await?,
            kube_controller_manager: Program::ControllerManager.get(cache).await?,
            kubectl: Program::Kubectl.get(cache).await?,
        })
    }

    pub(crate) fn kubectl(&self) -> &Path {
        &self.kubectl.program
    }
}

/// The running control plane. Fields are dropped in their order, which kills the processes from the newest to the
/// oldest.
pub(crate) struct ControlPlane {
    pub(crate) controllers: Process,
    pub(crate) api_server: Process,
    pub(crate) etcd: Process,
    pub(crate) storage: Storage,
    pub(crate) authority: Arc<Authority>,
    pub(crate) token_keys: TokenKeys,
    pub(crate) access: Access,
    pub(crate) admin: Client,
    pub(crate) audit_log: PathBuf,
    pub(crate) api_server_program: PathBuf,
}

impl ControlPlane {
    /// Starts the processes and waits until etcd and the API server are ready. The API server listens on `address`.
    ///
    /// # Errors
    /// When a process does not start; the error quotes its log.
    pub(crate) async fn start(
        programs: &Programs,
        folder: &Folder,
        ports: &mut Ports,
        address: Ipv4Addr,
    ) -> Result<Self> {
        let authority = Arc::new(Authority::generate("testenv")?);
        let (private, public) = signing_key()?;
        let token_keys = TokenKeys::write(folder.path(), &private, Some(&public))?;
        let (etcd, storage) = start_etcd(&programs.etcd, folder, ports).await?;

        let policy = folder.write("api-server/audit-policy.json", audit::POLICY)?;
        let audit_log = folder.path().join(AUDIT_LOG);
        let server = ApiServer {
            name: "kube-apiserver",
            program: &programs.kube_apiserver.program,
            folder: folder.path().join("api-server"),
            storage: &storage,
            prefix: "/management",
            address: address.into(),
            port: ports.next()?,
            authority: authority.clone(),
            token_keys: &token_keys,
            service_cidr: "10.96.0.0/16",
            more: vec![
                "--enable-bootstrap-token-auth".to_owned(),
                format!("--audit-policy-file={}", policy.display()),
                format!("--audit-log-path={}", audit_log.display()),
                // No rotation: a reader whose position is in a file that was rotated away would miss requests.
                "--audit-log-maxsize=100000".to_owned(),
            ],
            nice: false,
        };
        let RunningApiServer { process: api_server, access, admin } = server.start().await?;
        let controllers =
            start_controllers(&programs.kube_controller_manager, folder, &access, &authority, &token_keys)?;
        let api_server_program = programs.kube_apiserver.program.clone();
        Ok(Self {
            controllers,
            api_server,
            etcd,
            storage,
            authority,
            token_keys,
            access,
            admin,
            audit_log,
            api_server_program,
        })
    }

    /// Stops the processes, the newest first.
    pub(crate) async fn stop(&self) -> Result<()> {
        self.controllers.stop().await?;
        self.api_server.stop().await?;
        self.etcd.stop().await
    }

    /// Starts the stopped processes again, at the same addresses and with the same keys.
    pub(crate) async fn start_again(&self) -> Result<()> {
        self.etcd.start_again()?;
        self.etcd.wait_ready(READY, || http_probe::answers(self.storage.port, "/health")).await?;
        self.api_server.start_again()?;
        self.api_server.wait_ready(READY, || answers_readyz(&self.admin)).await?;
        self.controllers.start_again()
    }
}

/// Where etcd has its data, below the management cluster's folder.
pub(crate) const ETCD_DATA: &str = "etcd/data";

async fn start_etcd(built: &Built, folder: &Folder, ports: &mut Ports) -> Result<(Process, Storage)> {
    let (port, peer_port) = (ports.next()?, ports.next()?);
    let client = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    let arguments = [
        "--name=management".to_owned(),
        format!("--data-dir={}", folder.path().join(ETCD_DATA).display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=management={peer}"),
        "--log-level=warn".to_owned(),
        // Nobody reads the data after a crash of the machine.
        "--unsafe-no-fsync".to_owned(),
    ];
    let process = Process::start("etcd", &built.program, &arguments, &folder.path().join("etcd/log"))?;
    process.wait_ready(READY, || http_probe::answers(port, "/health")).await?;
    Ok((process, Storage { port }))
}

/// Starts kube-controller-manager with the controllers that a management cluster cannot be without. None of them is
/// about pods, because there is no node. The process opens no port, and nothing waits for it: controllers may be late
/// in real clusters too.
fn start_controllers(
    built: &Built,
    folder: &Folder,
    access: &Access,
    authority: &Authority,
    token_keys: &TokenKeys,
) -> Result<Process> {
    const CONTROLLERS: [&str; 8] = [
        "certificatesigningrequest-cleaner-controller",
        "certificatesigningrequest-signing-controller",
        "clusterrole-aggregation-controller",
        "garbage-collector-controller",
        "namespace-controller",
        "root-ca-certificate-publisher-controller",
        "serviceaccount-controller",
        "serviceaccount-token-controller",
    ];
    let kubeconfig = folder.path().join("controllers/kubeconfig");
    access.kubeconfig_as("system:kube-controller-manager", &["system:masters"], &kubeconfig)?;
    let Pair { certificate, key } = authority.pair();
    let certificate = folder.write("controllers/ca.crt", certificate)?;
    let key = folder.write("controllers/ca.key", key)?;
    let arguments = [
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--controllers={}", CONTROLLERS.join(",")),
        format!("--cluster-signing-cert-file={}", certificate.display()),
        format!("--cluster-signing-key-file={}", key.display()),
        format!("--root-ca-file={}", certificate.display()),
        format!("--service-account-private-key-file={}", token_keys.private.display()),
        // Each controller has an account of its own, as in most clusters: admission policies tell them apart by it.
        "--use-service-account-credentials=true".to_owned(),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
    ];
    let log = folder.path().join("controllers/log");
    Process::start("kube-controller-manager", &built.program, &arguments, &log)
        .context("the management cluster's controllers")
}
