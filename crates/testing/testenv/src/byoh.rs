//! The Bring-Your-Own-Host provider (BYOH): the released module, or a checkout of a fork.

use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kube::api::PostParams;
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::ApiResource;
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::access::Access;
use crate::assets;
use crate::build::{Built, Cache, Checkout, Module, Recipe, module};
use crate::inventory::Inventory;
use crate::objects;
use crate::provider::{Launch, LaunchContext, Provider, wait_in_force};
use crate::versions;

/// The variable that names a checkout of BYOH, which is used instead of the released module.
const CHECKOUT: &str = "O2IMS_BYOH_CHECKOUT";
/// How long BYOH may take to issue a kubeconfig; it takes milliseconds.
const ISSUE_TIMEOUT: Duration = Duration::from_secs(30);
/// The port of the manager's webhooks; the manager has no flag for it.
const WEBHOOK_PORT: u16 = 9443;
/// The manager's account: the only one besides the agents that BYOH's webhook lets change hosts.
const USER: &str = "system:serviceaccount:byoh-system:byoh-controller-manager";

static MODULE: Module = module!("byoh");

const SOURCES: &str = "github.com/vmware-tanzu/cluster-api-provider-bringyourownhost";

pub(crate) const MANAGER: &Recipe = &Recipe {
    manifests: Some((SOURCES, "config")),
    ..Recipe::new("byoh-manager", versions::BYOH, &MODULE, SOURCES, 45)
};

pub(crate) const AGENT: &Recipe = &Recipe::new(
    "byoh-hostagent",
    versions::BYOH,
    &MODULE,
    "github.com/vmware-tanzu/cluster-api-provider-bringyourownhost/agent",
    5,
);

/// A variant of BYOH. The two variants differ in what they write and expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByohDialect {
    /// The release.
    Upstream,
    /// The Platform9 fork: uninstallation by a Secret, and heartbeats of the agents.
    Platform9,
}

impl ByohDialect {
    /// The variant that the CRD of ByoHost (as JSON) belongs to.
    pub fn of_definition(byo_host: &Value) -> Self {
        let path = "/schema/openAPIV3Schema/properties/spec/properties/uninstallationSecret";
        let versions = byo_host["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let by_secret = versions.iter().any(|version| version.pointer(path).is_some());
        if by_secret { Self::Platform9 } else { Self::Upstream }
    }
}

/// The checkout of BYOH that is used instead of the released module, if there is one.
pub(crate) fn checkout() -> Result<Option<Checkout>> {
    Checkout::from_environment(CHECKOUT)
}

/// Builds the manager, from the checkout if there is one.
pub(crate) async fn manager(cache: &Cache) -> Result<Built> {
    match checkout()? {
        Some(checkout) => cache.checkout(MANAGER.name, ".", &checkout).await,
        None => cache.program(MANAGER).await,
    }
}

/// Builds the host agent of the same version as the manager.
pub(crate) async fn agent(cache: &Cache) -> Result<Built> {
    match checkout()? {
        Some(checkout) => cache.checkout(AGENT.name, "./agent", &checkout).await,
        None => cache.program(AGENT).await,
    }
}

/// BYOH in clusterctl's inventory.
pub(crate) fn inventory() -> Result<Inventory> {
    let version = if checkout()?.is_some() { versions::BYOH_CHECKOUT } else { MANAGER.version };
    Ok(Inventory { kind: "InfrastructureProvider", name: "byoh", namespace: "byoh-system", version })
}

/// BYOH with its manager, built.
pub(crate) async fn provider(cache: &Cache) -> Result<Provider> {
    Ok(Provider {
        name: "byoh",
        built: manager(cache).await?,
        inventory: inventory()?,
        user: USER,
        prefix: "byoh",
        fixed_webhook_port: Some(WEBHOOK_PORT),
        // A fixed place below the folder for temporary files; `launch` sets that folder.
        certificates: "tmp/k8s-webhook-server/serving-certs",
        launch,
    })
}

/// The variant of a provider, read from its CRDs.
pub(crate) fn dialect(provider: &Provider) -> Result<ByohDialect> {
    let definitions = assets::definitions(provider.built.folder())?;
    let host = definitions
        .iter()
        .find(|definition| definition["spec"]["names"]["kind"] == "ByoHost")
        .context("BYOH has no CRD for ByoHost")?;
    Ok(ByohDialect::of_definition(host))
}

fn launch(context: &LaunchContext) -> Launch {
    let temporary = context.folder.join("tmp");
    let arguments = vec![
        format!("--kubeconfig={}", context.kubeconfig.display()),
        format!("--metrics-addr=127.0.0.1:{}", context.diagnostics_port),
        format!("--health-probe-bind-address=127.0.0.1:{}", context.health_port),
    ];
    Launch { arguments, environment: vec![("TMPDIR", temporary)] }
}

/// Creates the roles that BYOH's installation grants to host agents.
pub(crate) async fn grant_agents(client: &Client) -> Result<()> {
    let allow = |group: &str, resources: &[&str], verbs: &[&str]| -> Value {
        json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
    };
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "byoh-hosts"},
        "rules": [
            allow("infrastructure.cluster.x-k8s.io", &["byohosts", "byohosts/status"], &["*"]),
            allow("", &["secrets"], &["get"]),
            allow("certificates.k8s.io", &["certificatesigningrequests"], &["create", "get", "list", "watch"]),
            allow("", &["events"], &["*"]),
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "byoh-hosts"},
        "subjects": [{"kind": "Group", "name": "byoh:hosts", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "byoh-hosts", "apiGroup": "rbac.authorization.k8s.io"},
    });
    let bootstrap = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "byoh-bootstrappers"},
        "rules": [allow("certificates.k8s.io", &["certificatesigningrequests"], &["create", "get", "list", "watch"])],
    });
    let bootstrap_binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "byoh-bootstrappers"},
        "subjects": [{"kind": "Group", "name": "system:bootstrappers:byoh", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "byoh-bootstrappers", "apiGroup": "rbac.authorization.k8s.io"},
    });
    objects::apply(client, vec![role, binding, bootstrap, bootstrap_binding]).await
}

/// Asks BYOH for a kubeconfig with which agents that have no certificate yet can request one.
pub(crate) async fn bootstrap_kubeconfig(
    client: &Client,
    access: &Access,
    namespace: &str,
    name: &str,
) -> Result<String> {
    let kind = GroupVersionKind::gvk("infrastructure.cluster.x-k8s.io", "v1beta1", "BootstrapKubeconfig");
    let resource = ApiResource::from_gvk_with_plural(&kind, "bootstrapkubeconfigs");
    let object = json!({
        "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "BootstrapKubeconfig",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "apiserver": access.server(), "certificate-authority-data": BASE64_STANDARD.encode(access.ca_pem()),
        },
    });
    objects::apply(client, vec![object]).await?;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let text = |object: &DynamicObject| {
        object.data["status"]["bootstrapKubeconfigData"].as_str().filter(|text| !text.is_empty()).map(ToOwned::to_owned)
    };
    let issued = await_condition(api, name, |object: Option<&DynamicObject>| object.and_then(text).is_some());
    let issued = timeout(ISSUE_TIMEOUT, issued).await.context("BYOH issues no kubeconfig for agents")??;
    issued.as_ref().and_then(text).context("the BootstrapKubeconfig is gone")
}

/// Waits until the API server calls BYOH's webhook, which then refuses a host from a user that is not an agent.
pub(crate) async fn wait_for_webhooks(client: &Client) -> Result<()> {
    let kind = GroupVersionKind::gvk("infrastructure.cluster.x-k8s.io", "v1beta1", "ByoHost");
    let resource = ApiResource::from_gvk_with_plural(&kind, "byohosts");
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let mut host = DynamicObject::new("probe", &resource);
    host.data = json!({"spec": {}});
    let dry_run = PostParams { dry_run: true, ..Default::default() };
    wait_in_force(
        "BYOH",
        async || matches!(api.create(&dry_run, &host).await, Err(kube::Error::Api(status)) if status.code == 403),
    )
    .await
}
