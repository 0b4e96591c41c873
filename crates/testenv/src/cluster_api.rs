//! Cluster API: core, the kubeadm bootstrap provider and the kubeadm control plane provider.

use std::fs;

use anyhow::{Context as _, Result};
use kube::api::PostParams;
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::binaries::{Cache, Module, Recipe, module};
use crate::inventory::Inventory;
use crate::provider::{Launch, Provider, Setting, wait_in_force};

/// Of Cluster API.
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

/// As clusterctl knows them, in the order of [`PROGRAMS`].
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

/// All programs of this part, in the order in which they are built.
pub(crate) const PROGRAMS: &[&Recipe] = &[CORE, BOOTSTRAP, CONTROL_PLANE];

const fn recipe(name: &'static str, package: &'static str, folder: &'static str, seconds: u32) -> Recipe {
    Recipe {
        name,
        version: VERSION,
        module: &MODULE,
        package,
        stamps: STAMPS,
        manifests: Some((SOURCES, folder)),
        seconds,
        in_assets_folder: false,
    }
}

/// The kind in which clusterctl keeps its inventory, from the sources of Cluster API.
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

/// The three providers. Core's webhooks come last: when they are in force, those of the others are.
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
    // Short user names: the real service accounts' are longer than the 64 characters of a common name.
    let [core_entry, bootstrap_entry, control_plane_entry] = INVENTORY;
    Ok(vec![
        provider(bootstrap, bootstrap_entry, "capi:kubeadm-bootstrap", "capi-kubeadm-bootstrap"),
        provider(control_plane, control_plane_entry, "capi:kubeadm-control-plane", "capi-kubeadm-control-plane"),
        provider(core, core_entry, "capi:core", "capi"),
    ])
}

fn launch(setting: &Setting) -> Launch {
    let arguments = vec![
        format!("--kubeconfig={}", setting.kubeconfig.display()),
        format!("--webhook-port={}", setting.webhook_port),
        format!("--webhook-cert-dir={}", setting.folder.join(CERTIFICATES).display()),
        format!("--health-addr=127.0.0.1:{}", setting.health_port),
        format!("--diagnostics-address=127.0.0.1:{}", setting.diagnostics_port),
        "--insecure-diagnostics=true".to_owned(),
        "-v=2".to_owned(),
    ];
    Launch { arguments, environment: Vec::new() }
}

/// Waits until core's webhooks take part in requests, tried with dry runs.
pub(crate) async fn wait_for_webhooks(client: &Client) -> Result<()> {
    wait_in_force("Cluster API", || async { defaults_clusters(client).await && refuses_machines(client).await }).await
}

/// The mutating webhook fills in the namespace of a reference.
async fn defaults_clusters(client: &Client) -> bool {
    let spec = json!({"infrastructureRef": {"kind": "ByoCluster", "name": "probe"}});
    let cluster = try_to_create(client, "Cluster", "clusters", &spec).await;
    cluster.is_ok_and(|cluster| cluster.data["spec"]["infrastructureRef"]["namespace"] == "default")
}

/// The validating webhook refuses a Machine without bootstrap data.
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
