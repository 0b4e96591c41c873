//! The Bring-Your-Own-Host provider: the released module, or a checkout of a fork.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
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
use crate::binaries::{Built, Cache, Module, Recipe, module};
use crate::checkout::Checkout;
use crate::inventory::Inventory;
use crate::objects;
use crate::provider::{Launch, Provider, Setting, wait_in_force};

/// Names a checkout of another BYOH tree than the released one.
const CHECKOUT: &str = "O2IMS_BYOH_CHECKOUT";
/// How long BYOH may take to issue a kubeconfig; it takes milliseconds.
const ISSUED: Duration = Duration::from_secs(30);
/// The manager has no flag for it.
const WEBHOOK_PORT: u16 = 9443;
/// The only account that BYOH's own webhook lets change hosts besides their agents.
const USER: &str = "system:serviceaccount:byoh-system:byoh-controller-manager";

static MODULE: Module = module!("byoh");

pub(crate) const RECIPE: &Recipe = &Recipe {
    name: "byoh-manager",
    version: "v0.5.0",
    module: &MODULE,
    package: "github.com/vmware-tanzu/cluster-api-provider-bringyourownhost",
    stamps: "",
    manifests: Some(("github.com/vmware-tanzu/cluster-api-provider-bringyourownhost", "config")),
    seconds: 55,
    in_assets_folder: false,
};

const AGENT: &Recipe = &Recipe {
    name: "byoh-hostagent",
    version: "v0.5.0",
    module: &MODULE,
    package: "github.com/vmware-tanzu/cluster-api-provider-bringyourownhost/agent",
    stamps: "",
    manifests: None,
    seconds: 15,
    in_assets_folder: false,
};

/// Which of the two BYOH in use is installed; they differ in what they write and expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByohDialect {
    /// The released v0.5.0.
    Upstream,
    /// The Platform9 fork: uninstallation by a Secret, and heartbeats of the agents.
    Platform9,
}

/// The checkout that the environment names, if it names one.
pub(crate) fn checkout() -> Result<Option<Checkout>> {
    Checkout::from_environment(CHECKOUT)
}

/// The manager of the checkout that the environment names, or else the released one.
pub(crate) async fn program(cache: &Cache) -> Result<Built> {
    match checkout()? {
        Some(checkout) => cache.checkout(RECIPE.name, ".", &checkout).await,
        None => cache.program(RECIPE).await,
    }
}

/// The host agent that belongs to the manager.
pub(crate) async fn agent(cache: &Cache) -> Result<Built> {
    match checkout()? {
        Some(checkout) => cache.checkout(AGENT.name, "./agent", &checkout).await,
        None => cache.program(AGENT).await,
    }
}

/// As clusterctl knows it. A checkout says nothing of its version; all forks have that of their origin.
pub(crate) fn inventory() -> Result<Inventory> {
    let version = if checkout()?.is_some() { "v0.5.0+checkout" } else { RECIPE.version };
    Ok(Inventory { kind: "InfrastructureProvider", name: "byoh", namespace: "byoh-system", version })
}

pub(crate) async fn provider(cache: &Cache) -> Result<Provider> {
    Ok(Provider {
        name: "byoh",
        built: program(cache).await?,
        inventory: inventory()?,
        user: USER,
        prefix: "byoh",
        fixed_webhook_port: Some(WEBHOOK_PORT),
        // A fixed place below the folder for temporary files, which `launch` moves.
        certificates: "tmp/k8s-webhook-server/serving-certs",
        launch,
    })
}

/// Which dialect the program of this provider speaks, told by its CRDs.
pub(crate) fn dialect(provider: &Provider) -> Result<ByohDialect> {
    let definitions = assets::definitions(provider.built.folder())?;
    let host = definitions
        .iter()
        .find(|definition| definition["spec"]["names"]["kind"] == "ByoHost")
        .ok_or_else(|| anyhow!("BYOH has no CRD for ByoHost"))?;
    let path = "/schema/openAPIV3Schema/properties/spec/properties/uninstallationSecret";
    let versions = host["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let by_secret = versions.iter().any(|version| version.pointer(path).is_some());
    Ok(if by_secret { ByohDialect::Platform9 } else { ByohDialect::Upstream })
}

fn launch(setting: &Setting) -> Launch {
    let temporary = setting.folder.join("tmp");
    let arguments = vec![
        format!("--kubeconfig={}", setting.kubeconfig.display()),
        format!("--metrics-addr=127.0.0.1:{}", setting.diagnostics_port),
        format!("--health-probe-bind-address=127.0.0.1:{}", setting.health_port),
    ];
    Launch { arguments, environment: vec![("TMPDIR", temporary)] }
}

/// What BYOH's installation grants to host agents.
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

/// Has BYOH issue a kubeconfig for agents that have no certificate yet.
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
    let issued = timeout(ISSUED, issued).await.context("BYOH issues no kubeconfig for agents")??;
    issued.as_ref().and_then(text).context("the BootstrapKubeconfig is gone")
}

/// Waits until BYOH's webhook takes part in requests: it refuses hosts from anyone who is not an agent.
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
