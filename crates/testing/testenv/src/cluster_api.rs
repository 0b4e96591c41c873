//! Cluster API: core, the kubeadm bootstrap provider and the kubeadm control plane provider.

use std::fs;

use anyhow::{Context as _, Result};
use kube::api::PostParams;
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::build::{Cache, Module, Recipe, module};
use crate::inventory::Inventory;
use crate::provider::{Launch, LaunchContext, Provider, wait_in_force};

/// Version of Cluster API.
pub(crate) const VERSION: &str = "v1.10.10";
const SOURCES: &str = "sigs.k8s.io/cluster-api";
const DEFINITION: &str = "providers.yaml";
const CERTIFICATES: &str = "certificates";
pub(crate) const STAMPS: &str = "-X sigs.k8s.io/cluster-api/version.gitVersion=v1.10.10 \
     -X sigs.k8s.io/cluster-api/version.gitMajor=1 -X sigs.k8s.io/cluster-api/version.gitMinor=10";

static MODULE: Module = module!("cluster-api");

const CORE: &Recipe = &recipe("capi-core", SOURCES, "config", 110);
const BOOTSTRAP: &Recipe =
    &recipe("capi-kubeadm-bootstrap", "sigs.k8s.io/cluster-api/bootstrap/kubeadm", "bootstrap/kubeadm/config", 10);
const CONTROL_PLANE: &Recipe = &recipe(
    "capi-kubeadm-control-plane",
    "sigs.k8s.io/cluster-api/controlplane/kubeadm",
    "controlplane/kubeadm/config",
    10,
);

/// The providers in clusterctl's inventory, in the order of [`PROGRAMS`].
pub(crate) const INVENTORY: [Inventory; 3] = [
    Inventory { kind: "CoreProvider", name: "cluster-api", namespace: "capi-system", version: VERSION },
    Inventory {
        kind: "BootstrapProvider",
        name: "kubeadm",
        namespace: "capi-kubeadm-bootstrap-system",
        version: VERSION,
    },
    Inventory {
        kind: "ControlPlaneProvider",
        name: "kubeadm",
        namespace: "capi-kubeadm-control-plane-system",
        version: VERSION,
    },
];

/// The providers' managers, in the order in which they are built.
pub(crate) const PROGRAMS: &[&Recipe] = &[CORE, BOOTSTRAP, CONTROL_PLANE];

const fn recipe(name: &'static str, package: &'static str, folder: &'static str, seconds: u32) -> Recipe {
    Recipe {
        stamps: STAMPS,
        manifests: Some((SOURCES, folder)),
        ..Recipe::new(name, VERSION, &MODULE, package, seconds)
    }
}

/// The CRD of the kind in which clusterctl keeps its inventory, YAML, from Cluster API's sources.
pub(crate) async fn inventory_definition(cache: &Cache) -> Result<String> {
    const FILE: &str = "cmd/clusterctl/config/manifest/clusterctl-api.yaml";
    let folder = cache
        .folder("clusterctl-inventory", &[VERSION, FILE], 1, async |folder| {
            let path = cache.sources(&MODULE, SOURCES).await?.join(FILE);
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(fs::write(folder.join(DEFINITION), text)?)
        })
        .await?;
    fs::read_to_string(folder.join(DEFINITION)).context("the definition of clusterctl's inventory cannot be read")
}

/// The three providers with their managers, built. Core's webhooks are installed last: when the API server calls them,
/// it calls those of the others too.
pub(crate) async fn providers(cache: &Cache) -> Result<Vec<Provider>> {
    let provider = |built, inventory, user, prefix| Provider {
        name: prefix,
        built,
        inventory,
        user,
        prefix,
        fixed_webhook_port: None,
        certificates: CERTIFICATES,
        launch,
    };
    let core = cache.program(CORE).await?;
    let bootstrap = cache.program(BOOTSTRAP).await?;
    let control_plane = cache.program(CONTROL_PLANE).await?;
    // Short user names, because those of the real service accounts exceed the 64 characters of a common name.
    let [core_entry, bootstrap_entry, control_plane_entry] = INVENTORY;
    Ok(vec![
        provider(bootstrap, bootstrap_entry, "capi:kubeadm-bootstrap", "capi-kubeadm-bootstrap"),
        provider(control_plane, control_plane_entry, "capi:kubeadm-control-plane", "capi-kubeadm-control-plane"),
        provider(core, core_entry, "capi:core", "capi"),
    ])
}

fn launch(context: &LaunchContext) -> Launch {
    let arguments = vec![
        format!("--kubeconfig={}", context.kubeconfig.display()),
        format!("--webhook-port={}", context.webhook_port),
        format!("--webhook-cert-dir={}", context.folder.join(CERTIFICATES).display()),
        format!("--health-addr=127.0.0.1:{}", context.health_port),
        format!("--diagnostics-address=127.0.0.1:{}", context.diagnostics_port),
        "--insecure-diagnostics=true".to_owned(),
        "-v=2".to_owned(),
    ];
    Launch { arguments, environment: Vec::new() }
}

/// Waits until the API server calls core's webhooks; dry runs show whether it does.
pub(crate) async fn wait_for_webhooks(client: &Client) -> Result<()> {
    wait_in_force("Cluster API", || async { defaults_clusters(client).await && refuses_machines(client).await }).await
}

/// Whether the mutating webhook is called: it sets the namespace of a reference.
async fn defaults_clusters(client: &Client) -> bool {
    let spec = json!({"infrastructureRef": {"kind": "ByoCluster", "name": "probe"}});
    let cluster = try_to_create(client, "Cluster", "clusters", &spec).await;
    cluster.is_ok_and(|cluster| cluster.data["spec"]["infrastructureRef"]["namespace"] == "default")
}

/// Whether the validating webhook is called: it refuses a Machine without bootstrap data.
async fn refuses_machines(client: &Client) -> bool {
    let spec = json!({"clusterName": "probe", "bootstrap": {}, "infrastructureRef": {}});
    matches!(
        try_to_create(client, "Machine", "machines", &spec).await,
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422)
    )
}

async fn try_to_create(client: &Client, kind: &str, plural: &str, spec: &Value) -> kube::Result<DynamicObject> {
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("cluster.x-k8s.io", "v1beta1", kind), plural);
    let mut object = DynamicObject::new("probe", &resource);
    object.data = json!({"spec": spec});
    let dry_run = PostParams { dry_run: true, ..Default::default() };
    Api::namespaced_with(client.clone(), "default", &resource).create(&dry_run, &object).await
}
