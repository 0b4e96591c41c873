//! A real API server accepts what is shipped.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testenv::tools::Tool;
use testenv::{ManagementCluster, Options};
use tokio::runtime::Runtime;

use crate::rendering::{OVERLAYS, chart, objects, overlay, tool};
use crate::run::{Outcome, Written, must, run, top};

/// A test on the management cluster: name and function.
pub type Test = (&'static str, fn(&Cluster) -> Outcome);

/// The tests.
pub const TESTS: &[Test] = &[
    ("the_api_server_takes_overlays_chart_and_examples_without_a_warning", takes_everything_without_a_warning),
    ("manifests_are_valid_by_the_schemas_of_kubernetes", valid_by_the_schemas),
    ("pods_are_admitted_under_the_restricted_standard", pods_are_restricted),
    ("crds_stay_when_an_operator_is_removed", crds_stay),
];

/// How long the API server may take until it publishes the schema of a new CRD.
const PUBLISHED: Duration = Duration::from_secs(30);

/// The management cluster that the tests share; the first test starts it.
pub struct Shared {
    runtime: Runtime,
    management: Mutex<Option<(ManagementCluster, Cluster)>>,
}

/// A cluster on which deploy/overlays/management-cluster and deploy/byoh are installed.
#[derive(Clone)]
pub struct Cluster {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

impl Shared {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { runtime: Runtime::new()?, management: Mutex::default() })
    }

    pub fn with_bed(&self, test: fn(&Cluster) -> Outcome) -> Outcome {
        let mut shared = self.management.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.is_none() {
            let management =
                self.runtime.block_on(ManagementCluster::start(Options::default(), |line| eprintln!("{line}")))?;
            let kubeconfig = management.dir().join("admin.kubeconfig");
            management.kubeconfig_as("admin", &["system:masters"], &kubeconfig)?;
            let cluster = Cluster { kubectl: management.kubectl().to_owned(), kubeconfig };
            shared.insert((management, cluster)).1.install()?;
        }
        let cluster = shared.as_ref().map(|(_, cluster)| cluster.clone()).context("no management cluster")?;
        drop(shared);
        test(&cluster)
    }

    pub fn stop(&self) -> Outcome {
        let management = self.management.lock().unwrap_or_else(PoisonError::into_inner).take();
        management.map_or(Ok(()), |(management, _)| self.runtime.block_on(management.stop()))
    }
}

impl Cluster {
    fn arguments<'a>(&'a self, arguments: &[&'a str]) -> anyhow::Result<Vec<&'a str>> {
        Ok([&["--kubeconfig", self.kubeconfig.to_str().context("not UTF-8")?], arguments].concat())
    }

    fn try_kubectl(&self, arguments: &[&str], input: &str) -> anyhow::Result<Written> {
        run(&self.kubectl, self.arguments(arguments)?, input)
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> anyhow::Result<Written> {
        must(&self.kubectl, self.arguments(arguments)?, input)
    }

    /// Installs everything as the documents say.
    fn install(&self) -> Outcome {
        for arguments in [
            &["apply", "--server-side", "-k", "deploy/overlays/management-cluster"][..],
            &["apply", "--server-side", "-f", "deploy/byoh/webhook-exemption.yaml"],
            &["wait", "--for=condition=Established", "--timeout=30s", "-f", "crds/"],
        ] {
            silent(&self.kubectl(arguments, "")?)?;
        }
        Ok(())
    }

    /// Applies objects in a dry run: the API server checks them, and stores nothing.
    fn dry_run(&self, what: &[&str], input: &str) -> anyhow::Result<Written> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"];
        self.kubectl(&[&arguments, what].concat(), input)
    }

    fn get(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&[&["get", "-o", "json"], arguments].concat(), "")?.out)?)
    }
}

fn silent(written: &Written) -> Outcome {
    ensure!(written.errors.is_empty(), "not without a word: {}", written.errors);
    Ok(())
}

fn takes_everything_without_a_warning(cluster: &Cluster) -> Outcome {
    for (name, values) in OVERLAYS {
        silent(&cluster.dry_run(&["-k", &format!("deploy/overlays/{name}")], "")?)?;
        silent(&cluster.dry_run(&["-f", "-"], &chart(&top().join("deploy/chart"), values)?)?)?;
    }
    for path in ["crds/", "examples/", "deploy/byoh/", "deploy/focom-operator/o-cloud-account.yaml"] {
        silent(&cluster.dry_run(&["-f", path], "")?)?;
    }
    // The check is strict.
    let wrong = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: default}, dat: {a: b}}";
    let refused =
        cluster.try_kubectl(&["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"], wrong)?;
    ensure!(!refused.well && refused.errors.contains("dat"), "an unknown field was taken: {}", refused.errors);
    Ok(())
}

fn valid_by_the_schemas(cluster: &Cluster) -> Outcome {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    (|| {
        write_schemas(cluster, folder)?;
        let location =
            format!("{}/{{{{.Group}}}}_{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json", folder.display());
        let kubeconform = tool(Tool::Kubeconform)?;
        let arguments = ["-summary", "-schema-location", &location, "-"];
        for (name, values) in OVERLAYS {
            for rendered in [overlay(name)?, chart(&top().join("deploy/chart"), values)?] {
                let checked = must(&kubeconform, arguments, &rendered)?;
                let summary = format!("Valid: {}, Invalid: 0, Errors: 0, Skipped: 0", objects(&rendered)?.len());
                ensure!(checked.out.contains(&summary), "{name}: {} instead of {summary}", checked.out);
            }
        }
        let wrong = overlay("o-cloud")?.replace("replicas:", "replicass:");
        let refused = run(&kubeconform, arguments, &wrong)?;
        ensure!(!refused.well && refused.out.contains("replicass"), "an unknown field was taken: {}", refused.out);
        let wrong = overlay("o-cloud")?.replace("replicas: 2", "replicas: two");
        let refused = run(&kubeconform, arguments, &wrong)?;
        ensure!(!refused.well && refused.out.contains("/spec/replicas"), "a wrong type was taken: {}", refused.out);
        Ok(())
    })()
}

/// Writes a schema file for each kind, from the API server's OpenAPI documents. The schemas allow no unknown fields.
fn write_schemas(cluster: &Cluster, folder: &Path) -> Outcome {
    let begun = Instant::now();
    let paths = loop {
        let index: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", "/openapi/v3"], "")?.out)?;
        let paths = index["paths"].as_object().context("no OpenAPI documents")?.clone();
        if paths.contains_key("apis/o2ims.provisioning.oran.org/v1alpha1")
            && paths.contains_key("apis/focom.nephio.org/v1alpha1")
        {
            break paths;
        }
        ensure!(begun.elapsed() < PUBLISHED, "the CRDs' schemas are not published: {:?}", paths.keys());
        std::thread::sleep(Duration::from_millis(100));
    };
    let mut written = BTreeSet::new();
    for (path, entry) in &paths {
        if !path.starts_with("api/v1") && !path.starts_with("apis/") {
            continue;
        }
        let address = entry["serverRelativeURL"].as_str().context("a document without address")?;
        let mut document: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", address], "")?.out)?;
        let mut schemas = document["components"]["schemas"].take();
        close(&mut schemas);
        let kinds: Vec<(String, Value)> = schemas
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.clone(), schema["x-kubernetes-group-version-kind"].clone()))
            .collect();
        for (name, kinds) in kinds {
            for kind in kinds.as_array().into_iter().flatten() {
                let part = |part: &str| kind[part].as_str().unwrap_or_default().to_lowercase();
                let (group, version) = (part("group"), part("version"));
                // A document also has kinds of other groups, which have documents of their own.
                let (home, group) = if group.is_empty() {
                    (format!("api/{version}"), version.clone())
                } else {
                    (format!("apis/{group}/{version}"), group)
                };
                if *path != home {
                    continue;
                }
                // kubeconform calls the core group by its version.
                let file = format!("{group}_{}_{version}.json", part("kind"));
                let schema =
                    json!({"$ref": format!("#/components/schemas/{name}"), "components": {"schemas": schemas.clone()}});
                std::fs::write(folder.join(&file), serde_json::to_vec(&schema)?)?;
                written.insert(file);
            }
        }
    }
    ensure!(written.contains("apps_deployment_v1.json"), "no schema of Deployments: {written:?}");
    Ok(())
}

/// Makes a schema strict, with everything in it.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let open = fields.contains_key("additionalProperties")
                || fields.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
            if fields.get("properties").is_some_and(Value::is_object)
                && fields.get("type") == Some(&json!("object"))
                && !open
            {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn pods_are_restricted(cluster: &Cluster) -> Outcome {
    for (namespace, operator) in [("o2ims-system", "o2ims-operator"), ("focom-system", "focom-operator")] {
        for mode in ["enforce", "audit", "warn"] {
            let labels = &cluster.get(&["namespace", namespace])?["metadata"]["labels"];
            let label = format!("pod-security.kubernetes.io/{mode}");
            ensure!(labels[&label] == "restricted", "{namespace}: {labels}");
        }
        let deployment = cluster.get(&["-n", namespace, "deployment", operator])?;
        let template = &deployment["spec"]["template"];
        let pod = |spec: &Value| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trial", "namespace": namespace}, "spec": spec})
                .to_string()
        };
        // Admission checks accounts, priority and the pod security standard only when a pod is created.
        let create = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
        silent(&cluster.kubectl(&create, &pod(&template["spec"]))?)?;
        // As on a platform that chooses the user.
        let mut any_user = template["spec"].clone();
        any_user["securityContext"].as_object_mut().context("no security context")?.remove("runAsUser");
        silent(&cluster.kubectl(&create, &pod(&any_user))?)?;

        let mut bad = template["spec"].clone();
        bad["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
        let refused = cluster.try_kubectl(&create, &pod(&bad))?;
        ensure!(!refused.well && refused.errors.contains("violates PodSecurity \"restricted"), "{}", refused.errors);
        let mut deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "trial", "namespace": namespace},
            "spec": deployment["spec"].clone(),
        });
        deployment["spec"]["template"]["spec"] = bad;
        let warned = cluster.kubectl(&create, &deployment.to_string())?;
        ensure!(warned.errors.contains("would violate PodSecurity \"restricted"), "no warning: {}", warned.errors);
    }
    Ok(())
}

/// In a dry run, because the other tests need the objects.
fn crds_stay(cluster: &Cluster) -> Outcome {
    for operator in ["o2ims-operator", "focom-operator"] {
        let gone = cluster.kubectl(&["delete", "--dry-run=server", "-k", &format!("deploy/{operator}")], "")?.out;
        ensure!(gone.contains(&format!("deployment.apps \"{operator}\"")), "{gone}");
        ensure!(!gone.contains("customresourcedefinition"), "requests would go: {gone}");
    }
    Ok(())
}
