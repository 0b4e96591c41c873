//! A provider of Cluster API: CRDs, an account, the manager's process, webhooks.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kube::Client;
use serde_json::{Value, json};

use crate::assets;
use crate::build::Built;
use crate::certificates::Pair;
use crate::control_plane::ControlPlane;
use crate::folder::Folder;
use crate::inventory::Inventory;
use crate::objects;
use crate::ports::Ports;
use crate::process::Process;

/// How long a manager may take to become ready. It fills its caches before it serves webhooks, which normally takes a
/// second.
const READY: Duration = Duration::from_secs(60);
/// How long the API server may take to call new webhooks. It watches their configurations; milliseconds are normal.
const IN_FORCE: Duration = Duration::from_secs(20);

/// A provider, and how its manager is started.
pub(crate) struct Provider {
    /// Name of the process and of its folder.
    pub(crate) name: &'static str,
    pub(crate) built: Built,
    /// Its entry in clusterctl's inventory, with the namespace of a real installation.
    pub(crate) inventory: Inventory,
    /// The user that the manager acts as.
    pub(crate) user: &'static str,
    /// What a release's kustomization prefixes the names of webhook configurations with.
    pub(crate) prefix: &'static str,
    /// The port of its webhook server, if it has no flag for the port.
    pub(crate) fixed_webhook_port: Option<u16>,
    /// The folder, below its own, from which it reads its webhook server's certificate.
    pub(crate) certificates: &'static str,
    /// Makes its arguments and environment, which differ from manager to manager.
    pub(crate) launch: fn(&LaunchContext) -> Launch,
}

/// What a manager has to be told at its start; [`Provider::launch`] makes arguments of it.
pub(crate) struct LaunchContext {
    /// The provider's own folder.
    pub(crate) folder: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) webhook_port: u16,
    pub(crate) health_port: u16,
    pub(crate) diagnostics_port: u16,
}

/// Arguments and environment of a process.
pub(crate) struct Launch {
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
}

/// The ports on which a manager serves.
struct ManagerPorts {
    webhook: u16,
    health: u16,
    diagnostics: u16,
}

/// A manager that was started and may not be ready yet.
struct Started {
    process: Process,
    health_port: u16,
    webhook_port: u16,
}

/// Installs providers as `clusterctl` would: CRDs, namespaces and rights, and managers; then, when all managers are
/// ready to answer them, webhooks. `inventory` is the CRD of clusterctl's inventory, YAML. Returns the managers'
/// processes.
pub(crate) async fn install(
    providers: &[Provider],
    inventory: &str,
    control_plane: &ControlPlane,
    folder: &Folder,
    ports: &mut Ports,
) -> Result<Vec<Process>> {
    let client = &control_plane.admin;
    // Conversion webhooks are part of the CRDs, so every manager's port is known before the CRDs are created. Nothing is converted before
    // the managers run: objects are stored in the version in which they list them.
    let authority = control_plane.access.ca_pem();
    let all_ports = providers.iter().map(|provider| provider.ports(ports)).collect::<Result<Vec<_>>>()?;
    let conversions = all_ports.iter().map(|own| Some(conversion(own.webhook, authority))).collect::<Vec<_>>();
    create_kinds(client, providers, &conversions, inventory).await?;

    let mut started = Vec::new();
    for (provider, ports) in providers.iter().zip(&all_ports) {
        started.push(provider.start(control_plane, folder, ports)?);
    }
    for (provider, manager) in providers.iter().zip(&started) {
        let webhook = webhook_client(control_plane, manager.webhook_port)?;
        manager
            .process
            .wait_ready(READY, || async {
                crate::http_probe::answers(manager.health_port, "/readyz").await
                    // BYOH's /readyz does not cover its webhook server.
                    && (provider.fixed_webhook_port.is_none() || speaks_tls(&webhook).await)
            })
            .await?;
    }
    for (provider, manager) in providers.iter().zip(&started) {
        install_webhooks(client, provider, manager.webhook_port, authority).await?;
    }
    Ok(started.into_iter().map(|manager| manager.process).collect())
}

/// Installs everything but managers and webhooks: CRDs with clusterctl's labels, namespaces and rights, and the
/// providers' entries in clusterctl's inventory. `inventory` is the CRD of these entries, YAML. Objects can be read and written in the version
/// in which they are stored.
pub(crate) async fn install_kinds(client: &Client, providers: &[Provider], inventory: &str) -> Result<()> {
    create_kinds(client, providers, &vec![None; providers.len()], inventory).await
}

/// As [`install_kinds`]; `conversions` has for each provider how kinds that have several versions are converted.
async fn create_kinds(
    client: &Client,
    providers: &[Provider],
    conversions: &[Option<Value>],
    inventory: &str,
) -> Result<()> {
    let mut definitions = objects::read_yaml(inventory)?;
    for (provider, conversion) in providers.iter().zip(conversions) {
        let mut own = assets::definitions(provider.built.folder())?;
        for definition in &mut own {
            provider.inventory.label_object(definition);
            if let Some(conversion) = conversion.as_ref().filter(|_| assets::served_versions(definition).count() > 1) {
                definition["spec"]["conversion"] = conversion.clone();
            }
        }
        definitions.extend(own);
    }
    objects::create_definitions(client, &definitions).await?;
    let rights = providers.iter().flat_map(namespace_and_rights);
    let entries = providers.iter().map(|provider| provider.inventory.object());
    objects::apply(client, rights.chain(entries).collect()).await
}

impl Provider {
    fn ports(&self, ports: &mut Ports) -> Result<ManagerPorts> {
        let webhook = match self.fixed_webhook_port {
            Some(port) => check_free(port, self.name)?,
            None => ports.next()?,
        };
        Ok(ManagerPorts { webhook, health: ports.next()?, diagnostics: ports.next()? })
    }

    fn start(&self, control_plane: &ControlPlane, folder: &Folder, ports: &ManagerPorts) -> Result<Started> {
        let own = folder.path().join(self.name);
        let kubeconfig = own.join("kubeconfig");
        // The group that a ServiceAccount of that namespace would have: admission policies recognize controllers by it.
        let accounts = format!("system:serviceaccounts:{}", self.inventory.namespace);
        control_plane.access.kubeconfig_as(self.user, &[&accounts], &kubeconfig)?;
        let local = std::net::Ipv4Addr::LOCALHOST.into();
        let Pair { certificate, key } = control_plane.authority.server("webhook", &[local])?;
        crate::folder::write_private(&own.join(self.certificates).join("tls.crt"), certificate.as_bytes())?;
        crate::folder::write_private(&own.join(self.certificates).join("tls.key"), key.as_bytes())?;
        let context = LaunchContext {
            folder: own.clone(),
            kubeconfig,
            webhook_port: ports.webhook,
            health_port: ports.health,
            diagnostics_port: ports.diagnostics,
        };
        let launch = (self.launch)(&context);
        let environment: Vec<_> = launch.environment.iter().map(|(name, path)| (*name, path.as_path())).collect();
        let log = own.join("log");
        let process = Process::start_with(self.name, &self.built.program, &launch.arguments, &environment, &log)?;
        Ok(Started { process, health_port: ports.health, webhook_port: ports.webhook })
    }
}

/// Returns the port, or an error if another process listens on it.
fn check_free(port: u16, name: &str) -> Result<u16> {
    if std::net::TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port)).is_err() {
        bail!(
            "port {port} is taken, and {name} can use no other one: probably another management cluster runs here; start each of \
             them through scripts/in-own-namespace, or one after the other"
        );
    }
    Ok(port)
}

/// A namespace as in a real installation, and all rights for the manager: the providers' own rights are not tested
/// here.
fn namespace_and_rights(provider: &Provider) -> [Value; 2] {
    [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": provider.inventory.namespace}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": format!("testenv-{}", provider.name)},
            "subjects": [{"kind": "User", "name": provider.user, "apiGroup": "rbac.authorization.k8s.io"}],
            "roleRef": {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"},
        }),
    ]
}

fn webhook_client(control_plane: &ControlPlane, port: u16) -> Result<Client> {
    let mut config = control_plane.access.config_as("testenv", &[])?;
    config.cluster_url = format!("https://127.0.0.1:{port}").parse()?;
    Ok(Client::try_from(config)?)
}

/// Whether a TLS server answers. Any HTTP status will do, also 404.
async fn speaks_tls(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/").body(Vec::new()) else { return false };
    match client.request_text(request).await {
        Ok(_) | Err(kube::Error::Api(_)) => true,
        Err(_) => false,
    }
}

/// How the API server has objects converted by the manager that listens on this port.
fn conversion(port: u16, ca_pem: &str) -> Value {
    let client =
        json!({"url": format!("https://127.0.0.1:{port}/convert"), "caBundle": BASE64_STANDARD.encode(ca_pem)});
    json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client}})
}

/// Installs all webhooks of a provider. They are changed as far as a manager outside of the cluster needs it: its
/// address instead of a Service, and the authority that signed its certificate.
async fn install_webhooks(client: &Client, provider: &Provider, port: u16, ca_pem: &str) -> Result<()> {
    let bundle = BASE64_STANDARD.encode(ca_pem);
    for mut configuration in assets::webhooks(provider.built.folder())? {
        let kind = configuration["kind"].as_str().unwrap_or_default().to_owned();
        let plural = match kind.as_str() {
            "MutatingWebhookConfiguration" => "mutatingwebhookconfigurations",
            "ValidatingWebhookConfiguration" => "validatingwebhookconfigurations",
            other => bail!("{} has a {other} among its webhooks", provider.name),
        };
        let name = configuration["metadata"]["name"].as_str().unwrap_or_default();
        configuration["metadata"] = json!({"name": format!("{}-{name}", provider.prefix)});
        for webhook in configuration["webhooks"].as_array_mut().into_iter().flatten() {
            let path = webhook["clientConfig"]["service"]["path"].as_str().unwrap_or("/");
            webhook["clientConfig"] = json!({"url": format!("https://127.0.0.1:{port}{path}"), "caBundle": bundle});
        }
        objects::create(client, "admissionregistration.k8s.io", "v1", &kind, plural, &[configuration]).await?;
    }
    Ok(())
}

/// Waits until `in_force` says that the API server calls the webhooks of `name`, which were just installed.
///
/// # Errors
/// When that takes too long.
pub(crate) async fn wait_in_force<F>(name: &str, in_force: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = bool>,
{
    let started = Instant::now();
    while !in_force().await {
        if started.elapsed() > IN_FORCE {
            bail!("the API server does not ask {name}'s webhooks after {} s", IN_FORCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    Ok(())
}
