//! Cluster API: core, the kubeadm bootstrap provider and the kubeadm control plane provider.

use std::fs;

use anyhow::{Context as _, Result};
use kube::api::PostParams;
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::ApiResource;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::build::{Cache, Module, Recipe, module};
use crate::inventory::Inventory;
use crate::platform::PLATFORM;
use crate::provider::{Launch, LaunchContext, Provider, wait_in_force};
use crate::versions;

/// The variable that names another version of Cluster API than the default by its minor version, such as `1.12`.
const VARIABLE: &str = "O2IMS_CLUSTER_API";
const SOURCES: &str = "sigs.k8s.io/cluster-api";
const DEFINITION: &str = "providers.yaml";
const CERTIFICATES: &str = "certificates";

static V1_13: Module = module!("cluster-api-1.13");
static V1_12: Module = module!("cluster-api-1.12");

/// `-X` flags that set the version.
pub(crate) const STAMPS: &str = "-X sigs.k8s.io/cluster-api/version.gitVersion=VERSION \
     -X sigs.k8s.io/cluster-api/version.gitMajor=1 -X sigs.k8s.io/cluster-api/version.gitMinor=MINOR";

/// Core's package, and the folder of its manifests.
type Core = (&'static str, &'static str);
const CORE: Core = ("sigs.k8s.io/cluster-api/core", "core/config");
const CORE_BEFORE_1_14: Core = (SOURCES, "config");

/// The version that is used if the environment names no other.
static DEFAULT: Release = Release::new(versions::CLUSTER_API, &PLATFORM, CORE);

/// Every version that can be used. Each has a module that pins it: `modules/platform`, and for the others
/// `modules/cluster-api-<minor version>`, where `modules/fetch` looks for it.
static RELEASES: [&Release; 3] = [
    &DEFAULT,
    &Release::new(versions::CLUSTER_API_BEFORE[0], &V1_13, CORE_BEFORE_1_14),
    &Release::new(versions::CLUSTER_API_BEFORE[1], &V1_12, CORE_BEFORE_1_14),
];

/// A version of Cluster API.
pub(crate) struct Release {
    /// Version, such as `v1.0.0`.
    version: &'static str,
    module: &'static Module,
    /// The managers of core, the kubeadm bootstrap provider and the kubeadm control plane provider, in the order in which they are built.
    pub(crate) programs: [Recipe; 3],
}

impl Release {
    const fn new(version: &'static str, module: &'static Module, core: Core) -> Self {
        let bootstrap = ("sigs.k8s.io/cluster-api/bootstrap/kubeadm", "bootstrap/kubeadm/config");
        let control_plane = ("sigs.k8s.io/cluster-api/controlplane/kubeadm", "controlplane/kubeadm/config");
        let programs = [
            recipe("capi-core", version, module, core, 30),
            recipe("capi-kubeadm-bootstrap", version, module, bootstrap, 5),
            recipe("capi-kubeadm-control-plane", version, module, control_plane, 5),
        ];
        Self { version, module, programs }
    }

    /// The version that the environment names, or else the default.
    ///
    /// # Errors
    /// When the environment names one that cannot be used.
    pub(crate) fn from_environment() -> Result<&'static Self> {
        versions::from_environment(VARIABLE, "Cluster API", &RELEASES, |release| release.version)
    }

    /// The providers in clusterctl's inventory, in the order of [`Release::programs`].
    pub(crate) fn inventory(&self) -> [Inventory; 3] {
        let version = self.version;
        let kubeadm = |kind, namespace| Inventory { kind, name: "kubeadm", namespace, version };
        [
            Inventory { kind: "CoreProvider", name: "cluster-api", namespace: "capi-system", version },
            kubeadm("BootstrapProvider", "capi-kubeadm-bootstrap-system"),
            kubeadm("ControlPlaneProvider", "capi-kubeadm-control-plane-system"),
        ]
    }
}

const fn recipe(
    name: &'static str,
    version: &'static str,
    module: &'static Module,
    (package, manifests): (&'static str, &'static str),
    seconds: u32,
) -> Recipe {
    Recipe {
        stamps: STAMPS,
        manifests: Some((SOURCES, manifests)),
        ..Recipe::new(name, version, module, package, seconds)
    }
}

/// The CRD of the kind in which clusterctl keeps its inventory, YAML, from Cluster API's sources.
pub(crate) async fn inventory_definition(cache: &Cache) -> Result<String> {
    const FILE: &str = "cmd/clusterctl/config/manifest/clusterctl-api.yaml";
    let release = Release::from_environment()?;
    let folder = cache
        .folder("clusterctl-inventory", &[release.version, FILE], 1, async |folder| {
            let path = cache.sources(release.module, SOURCES).await?.join(FILE);
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
    let release = Release::from_environment()?;
    let [core, bootstrap, control_plane] = &release.programs;
    let core = cache.program(core).await?;
    let bootstrap = cache.program(bootstrap).await?;
    let control_plane = cache.program(control_plane).await?;
    // Short user names, because those of the real service accounts exceed the 64 characters of a common name.
    let [core_entry, bootstrap_entry, control_plane_entry] = release.inventory();
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
    wait_in_force("Cluster API", || async { defaults_machines(client).await && refuses_machines(client).await }).await
}

/// Whether the mutating webhook is called: it labels a Machine with the name of its Cluster.
async fn defaults_machines(client: &Client) -> bool {
    let machine = try_to_create(client, "v1.0.0").await;
    machine
        .is_ok_and(|machine| machine.labels().get("cluster.x-k8s.io/cluster-name").is_some_and(|name| name == "probe"))
}

/// Whether the validating webhook is called: it refuses a version that is none.
async fn refuses_machines(client: &Client) -> bool {
    let refused = try_to_create(client, "none").await;
    matches!(refused, Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422))
}

/// Creates a Machine of this version, as a dry run.
async fn try_to_create(client: &Client, version: &str) -> kube::Result<DynamicObject> {
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("cluster.x-k8s.io", "v1beta2", "Machine"), "machines");
    let mut object = DynamicObject::new("probe", &resource);
    object.data = json!({"spec": {
        "clusterName": "probe", "version": version, "bootstrap": {"dataSecretName": "probe"},
        "infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "ByoMachine", "name": "probe"},
    }});
    let dry_run = PostParams { dry_run: true, ..Default::default() };
    Api::namespaced_with(client.clone(), "default", &resource).create(&dry_run, &object).await
}
