//! etcd, kube-apiserver and kube-controller-manager.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Client;

use crate::access::Access;
use crate::audit;
use crate::binaries::{Built, Cache, Module, Recipe, module};
use crate::certificates::{Authority, Pair, signing_key};
use crate::folder::{AUDIT_LOG, Folder, write_private};
use crate::http_probe;
use crate::ports::Ports;
use crate::process::Process;

/// A cold, busy machine of two cores took 5 s for the slowest of them.
const READY: Duration = Duration::from_secs(90);
/// Of Kubernetes, on hosts too.
pub const KUBERNETES_VERSION: &str = "v1.33.13";
const KUBERNETES_STAMPS: &str = "-X k8s.io/component-base/version.gitVersion=v1.33.13 \
     -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=33 \
     -X k8s.io/client-go/pkg/version.gitVersion=v1.33.13";

/// Of etcd and its tools.
pub(crate) const ETCD_VERSION: &str = "v3.5.21";
static ETCD_MODULE: Module = module!("etcd");
static KUBERNETES_MODULE: Module = module!("kubernetes");

pub(crate) const ETCD: &Recipe = &Recipe {
    name: "etcd",
    version: ETCD_VERSION,
    module: &ETCD_MODULE,
    package: "go.etcd.io/etcd/server/v3",
    stamps: "",
    manifests: None,
    seconds: 45,
    in_assets_folder: true,
};
pub(crate) const KUBE_APISERVER: &Recipe =
    &kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", 240, true);
pub(crate) const KUBE_CONTROLLER_MANAGER: &Recipe =
    &kubernetes("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", 60, false);
pub(crate) const KUBECTL: &Recipe = &kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl", 25, true);

/// All programs of this part, in the order in which they are built.
pub(crate) const PROGRAMS: &[&Recipe] = &[ETCD, KUBE_APISERVER, KUBE_CONTROLLER_MANAGER, KUBECTL];

pub(crate) const fn kubernetes(
    name: &'static str,
    package: &'static str,
    seconds: u32,
    in_assets_folder: bool,
) -> Recipe {
    Recipe {
        name,
        version: KUBERNETES_VERSION,
        module: &KUBERNETES_MODULE,
        package,
        stamps: KUBERNETES_STAMPS,
        manifests: None,
        seconds,
        in_assets_folder,
    }
}

/// The programs, ready to be started.
pub(crate) struct Programs {
    etcd: Built,
    kube_apiserver: Built,
    kube_controller_manager: Built,
    kubectl: Built,
}

impl Programs {
    pub(crate) async fn get(cache: &Cache) -> Result<Self> {
        Ok(Self {
            etcd: cache.program(ETCD).await?,
            kube_apiserver: cache.program(KUBE_APISERVER).await?,
            kube_controller_manager: cache.program(KUBE_CONTROLLER_MANAGER).await?,
            kubectl: cache.program(KUBECTL).await?,
        })
    }

    pub(crate) fn kubectl(&self) -> &Path {
        &self.kubectl.program
    }
}

/// Where API servers keep their data; one etcd serves all of them, under different prefixes.
#[derive(Clone)]
pub(crate) struct Storage {
    pub(crate) port: u16,
}

/// The keys that an API server signs service account tokens with.
#[derive(Clone)]
pub(crate) struct TokenKeys {
    private: PathBuf,
    public: PathBuf,
}

impl TokenKeys {
    /// Writes a key; the API server takes the public part from a private key as well.
    pub(crate) fn write(folder: &Path, private: &str, public: Option<&str>) -> Result<Self> {
        let keys = Self { private: folder.join("sa.key"), public: folder.join("sa.pub") };
        write_private(&keys.private, private.as_bytes())?;
        write_private(&keys.public, public.unwrap_or(private).as_bytes())?;
        Ok(keys)
    }
}

/// What distinguishes one API server from another.
pub(crate) struct ApiServer<'a> {
    pub(crate) name: &'a str,
    pub(crate) program: &'a Path,
    pub(crate) folder: PathBuf,
    pub(crate) storage: &'a Storage,
    pub(crate) prefix: &'a str,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) authority: Arc<Authority>,
    pub(crate) token_keys: &'a TokenKeys,
    pub(crate) service_cidr: &'a str,
    pub(crate) more: Vec<String>,
    /// It is another cluster's: the management cluster goes first.
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
            // There is no Service network: an Endpoints object for the server itself would lead nowhere.
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

/// Whether the API server behind the client says that it is ready.
async fn answers_readyz(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    client.request_text(request).await.is_ok()
}

/// The management control plane. Fields are dropped, and thereby killed, from the newest to the oldest.
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
                // A log that is rotated away under a reader's mark would hide requests.
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
}

impl ControlPlane {
    pub(crate) async fn stop(&self) -> Result<()> {
        self.controllers.stop().await?;
        self.api_server.stop().await?;
        self.etcd.stop().await
    }

    /// Starts what was stopped, at the same addresses and with the same keys.
    pub(crate) async fn start_again(&self) -> Result<()> {
        self.etcd.start_again()?;
        self.etcd.wait_ready(READY, || http_probe::answers(self.storage.port, "/health")).await?;
        self.api_server.start_again()?;
        self.api_server.wait_ready(READY, || answers_readyz(&self.admin)).await?;
        self.controllers.start_again()
    }
}

/// Where etcd has its data, below the bed's folder.
pub(crate) const ETCD_DATA: &str = "etcd/data";

async fn start_etcd(built: &Built, folder: &Folder, ports: &mut Ports) -> Result<(Process, Storage)> {
    let (port, peer_port) = (ports.next()?, ports.next()?);
    let client = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    let arguments = [
        "--name=bed".to_owned(),
        format!("--data-dir={}", folder.path().join(ETCD_DATA).display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=bed={peer}"),
        "--log-level=warn".to_owned(),
        // Nobody reads these data after a crash.
        "--unsafe-no-fsync".to_owned(),
    ];
    let process = Process::start("etcd", &built.program, &arguments, &folder.path().join("etcd/log"))?;
    process.wait_ready(READY, || http_probe::answers(port, "/health")).await?;
    Ok((process, Storage { port }))
}

/// Starts those controllers of Kubernetes that a management cluster cannot be without. None of them is about pods, as
/// there is no node. It opens no port and nothing waits for it: controllers are late in real clusters too.
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
        // Each controller as its own account, as in most clusters: admission policies tell them apart.
        "--use-service-account-credentials=true".to_owned(),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
    ];
    let log = folder.path().join("controllers/log");
    Process::start("kube-controller-manager", &built.program, &arguments, &log)
        .context("the management cluster's controllers")
}
