//! The manifests. Each project's own are rendered from its sources, and changed: they name the images of the bundle,
//! and the pod security level `restricted` admits their pods.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use testenv::build::Cache;
use testenv::recipes;
use testenv::{CLUSTERCTL_LABEL, kubernetes_version, versions};

use crate::program::Program;
use crate::render::{Document, defaults, kustomize, read, write as write_documents};
use crate::repository::repository;
use crate::{cert_manager, operators};

/// The pod security level of all namespaces.
const LEVEL: &str = "restricted";
/// Files of this repository that go into the bundle as they are, but for the version of Kubernetes.
const COPIED: [(&str, &str); 2] = [
    ("crates/testing/sandbox/manifests/pod-network.yaml", "cni.yaml"),
    ("examples/cluster-template.yaml", "cluster-template.yaml"),
];

/// Writes all manifests into `manifests` of the bundle, in files that are numbered in the order of installation.
///
/// # Errors
/// When something cannot be rendered or written, or a project's manifests are not as expected.
pub(crate) async fn write(cache: &Cache, programs: &[Program], bundle: &Path) -> Result<()> {
    let to = bundle.join("manifests");
    fs::create_dir(&to)?;
    let program =
        |name: &str| programs.iter().find(|program| program.name == name).with_context(|| format!("no program {name}"));

    let mut documents = read(&cert_manager::render(cache, programs).await?)?;
    adapt_cert_manager(&mut documents)?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cert_manager::NAMESPACE}});
    documents.insert(0, Document::new(namespace)?);
    finish(&to.join("10-cert-manager.yaml"), documents, None)?;

    for (name, file) in [
        ("capi-core", "20-cluster-api.yaml"),
        ("capi-kubeadm-bootstrap", "30-kubeadm-bootstrap.yaml"),
        ("capi-kubeadm-control-plane", "40-kubeadm-control-plane.yaml"),
    ] {
        let program = program(name)?;
        let mut documents = provider(cache, program).await?;
        if name == "capi-core" {
            // This file defines the kind of the entries in clusterctl's inventory, so it cannot have an object of that
            // kind.
            let entry = documents.pop().context("Cluster API has no entry in clusterctl's inventory")?;
            write_documents(&to.join("21-clusterctl-inventory.yaml"), &[entry])?;
            let mut definition = read(&recipes::inventory_definition(cache).await?)?;
            for document in &mut definition {
                document.label(&[(CLUSTERCTL_LABEL, String::new())])?;
            }
            documents.splice(0..0, definition);
        }
        finish(&to.join(file), documents, Some(program))?;
    }

    let byoh = program("byoh-manager")?;
    let mut documents = provider(cache, byoh).await?;
    adapt_byoh(&mut documents)?;
    finish(&to.join("50-byoh.yaml"), documents, Some(byoh))?;

    let overlays = ["o-cloud", "smo"];
    let files = ["60-o2ims-operator.yaml", "70-focom-operator.yaml"];
    for ((name, overlay), file) in operators::OPERATORS.into_iter().zip(overlays).zip(files) {
        let text = kustomize(cache, &repository().join("deploy/overlays").join(overlay)).await?;
        finish(&to.join(file), read(&text)?, Some(program(name)?))?;
    }
    for (from, name) in COPIED {
        let text = fs::read_to_string(repository().join(from)).with_context(|| format!("cannot read {from}"))?;
        fs::write(to.join(name), text.replace(versions::KUBERNETES, kubernetes_version()))
            .with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

/// A provider's manifests as they are released, with clusterctl's labels, and its entry in clusterctl's inventory as
/// the last document. The rendered text is kept in the cache, so a second bundle needs no sources.
async fn provider(cache: &Cache, program: &Program) -> Result<Vec<Document>> {
    let manager = program.provider.as_ref().with_context(|| format!("{} has no manifests", program.name))?;
    let folder = cache
        .folder(&format!("bundle-manifests-{}", program.name), &[&program.tag, "1"], 1, async |folder| {
            let text = kustomize(cache, &manager.config(cache).await?.join("default")).await?;
            let text = defaults(&text).with_context(|| format!("the manifests of {}", program.name))?;
            Ok(fs::write(folder.join("rendered.yaml"), text)?)
        })
        .await?;
    let mut documents = read(&fs::read_to_string(folder.join("rendered.yaml"))?)?;
    for document in &mut documents {
        document.label(&manager.inventory.labels())?;
    }
    documents.push(Document::new(manager.inventory.object())?);
    Ok(documents)
}

/// Changes cert-manager's manifests: its programs are built without ACME, so the controller has no option for the image
/// of an ACME solver.
fn adapt_cert_manager(documents: &mut [Document]) -> Result<()> {
    let mut removed = 0;
    for document in documents.iter_mut().filter(|document| document.is("Deployment")) {
        document.edit(|deployment| {
            for container in containers(deployment)? {
                let Some(arguments) = container["args"].as_array_mut() else { continue };
                let before = arguments.len();
                arguments.retain(|argument| {
                    argument.as_str().is_none_or(|text| !text.starts_with("--acme-http01-solver-image"))
                });
                removed += before - arguments.len();
            }
            Ok(())
        })?;
    }
    if removed != 1 {
        bail!("cert-manager's manifests name the image of an ACME solver {removed} times instead of once");
    }
    Ok(())
}

/// Changes BYOH's manifests. The proxy in front of its metrics is removed with everything that belongs to it, because
/// the registry of its image no longer exists; metrics are then served on localhost only. The webhook exempts our
/// operator, which claims hosts.
fn adapt_byoh(documents: &mut Vec<Document>) -> Result<()> {
    documents.retain(|document| {
        let name = document.name();
        !["-metrics-service", "-proxy-role", "-proxy-rolebinding", "-metrics-reader"]
            .iter()
            .any(|end| name.ends_with(end))
    });
    let path = repository().join("deploy/byoh/webhook-exemption.yaml");
    let exemption = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let exemption: Value = serde_saphyr::from_str(&exemption)?;
    let mut exempted = false;
    for document in documents.iter_mut() {
        if document.is("Deployment") {
            document.edit(|deployment| {
                let containers = containers(deployment)?;
                containers.retain(|container| container["name"] != "kube-rbac-proxy");
                for container in containers {
                    // Its caches take more than the 30 MiB of its own manifest.
                    container["resources"] =
                        json!({"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}});
                    // Its /readyz answers before its webhook does, so a rollout would end too early. Only the start is
                    // probed by the webhook's port, because each such probe writes a line to the log.
                    let probes = json!({
                        "startupProbe": {"tcpSocket": {"port": 9443}, "periodSeconds": 1, "failureThreshold": 120},
                        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8081}},
                    });
                    complete(container, &probes);
                }
                Ok(())
            })?;
        }
        if document.field("/kind") == &exemption["kind"]
            && document.field("/metadata/name") == &exemption["metadata"]["name"]
        {
            document.edit(|object| {
                exempted = exempt(object, &exemption);
                Ok(())
            })?;
        }
    }
    if !exempted {
        bail!("BYOH has no webhook as {} names it", path.display());
    }
    Ok(())
}

/// Copies `matchConditions` from the webhooks of `exemption` to those of the same name. Returns whether there is one
/// for each.
fn exempt(configuration: &mut Value, exemption: &Value) -> bool {
    let Some(webhooks) = configuration["webhooks"].as_array_mut() else { return false };
    exemption["webhooks"].as_array().is_some_and(|wanted| {
        wanted.iter().all(|wanted| match webhooks.iter_mut().find(|webhook| webhook["name"] == wanted["name"]) {
            Some(webhook) => {
                webhook["matchConditions"] = wanted["matchConditions"].clone();
                true
            }
            None => false,
        })
    })
}

/// Completes the documents of one file, and writes it. `program` is the one whose image the Deployments get; without it
/// they keep theirs.
fn finish(path: &Path, mut documents: Vec<Document>, program: Option<&Program>) -> Result<()> {
    let mut deployments = 0;
    for document in &mut documents {
        if document.is("Namespace") {
            document.edit(|namespace| {
                for mode in ["enforce", "warn"] {
                    let label = format!("pod-security.kubernetes.io/{mode}");
                    namespace["metadata"]["labels"][label] = LEVEL.into();
                }
                Ok(())
            })?;
        }
        if document.is("ClusterRole") && !document.field("/aggregationRule").is_null() {
            // Kubernetes fills in the rules; applying empty ones would remove them for a moment.
            document.edit(|role| {
                role.as_object_mut().context("a ClusterRole is no object")?.remove("rules");
                Ok(())
            })?;
        }
        if document.is("Certificate") {
            // The default since cert-manager v1.18, which warns if the field is not set.
            document.edit(|certificate| {
                complete(&mut certificate["spec"]["privateKey"], &json!({"rotationPolicy": "Always"}));
                Ok(())
            })?;
        }
        if document.is("Deployment") {
            deployments += 1;
            document.edit(|deployment| {
                secure(deployment)?;
                for container in containers(deployment)? {
                    container["imagePullPolicy"] = "IfNotPresent".into();
                    if let Some(program) = program {
                        container["image"] = program.image().into();
                    }
                }
                Ok(())
            })?;
        }
    }
    if deployments == 0 {
        bail!("{} would have no Deployment", path.display());
    }
    write_documents(path, &documents)
}

/// The containers of a Deployment.
fn containers(deployment: &mut Value) -> Result<&mut Vec<Value>> {
    let containers = &mut deployment["spec"]["template"]["spec"]["containers"];
    containers.as_array_mut().context("a Deployment has no containers")
}

/// Sets what the level `restricted` requires, where a project does not set it.
fn secure(deployment: &mut Value) -> Result<()> {
    let pod = &mut deployment["spec"]["template"]["spec"]["securityContext"];
    complete(pod, &json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}));
    for container in containers(deployment)? {
        let wanted = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        complete(&mut container["securityContext"], &wanted);
    }
    Ok(())
}

/// Adds those fields of `wanted` that the object does not have.
fn complete(object: &mut Value, wanted: &Value) {
    if object.is_null() {
        *object = json!({});
    }
    let (Some(object), Some(wanted)) = (object.as_object_mut(), wanted.as_object()) else { return };
    for (name, value) in wanted {
        object.entry(name).or_insert_with(|| value.clone());
    }
}
