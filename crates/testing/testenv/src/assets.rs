//! A provider's CRDs and webhook configurations, from its own sources.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::objects::read_yaml;

/// JSON, because every start reads it, and reading YAML takes many times as long.
const DEFINITIONS: &str = "crds.json";
const WEBHOOKS: &str = "webhooks.json";

/// Reads the manifests in a controller's `config` folder and stores them in a cache entry.
///
/// # Errors
/// When there are no CRDs, or a file cannot be read or written.
pub(crate) fn store(config: &Path, entry: &Path) -> Result<()> {
    let bases = config.join("crd/bases");
    let mut definitions = Vec::new();
    for path in yaml_files(&bases)? {
        definitions.extend(read(&path)?.into_iter().map(as_released));
    }
    if definitions.is_empty() {
        bail!("no CRDs in {}", bases.display());
    }
    let webhooks = config.join("webhook/manifests.yaml");
    let webhooks = if webhooks.is_file() { read(&webhooks)? } else { Vec::new() };
    fs::write(entry.join(DEFINITIONS), serde_json::to_vec(&definitions)?)?;
    fs::write(entry.join(WEBHOOKS), serde_json::to_vec(&webhooks)?)?;
    Ok(())
}

/// The CRDs of a cache entry.
pub(crate) fn definitions(entry: &Path) -> Result<Vec<Value>> {
    load(&entry.join(DEFINITIONS))
}

/// The webhook configurations of a cache entry.
pub(crate) fn webhooks(entry: &Path) -> Result<Vec<Value>> {
    load(&entry.join(WEBHOOKS))
}

/// Adds to a generated CRD what a release's kustomization adds: for each version that is served a label that maps the contract of that
/// name to the version. Without it Cluster API does not find a provider's kinds.
fn as_released(mut definition: Value) -> Value {
    if let Some(object) = definition.as_object_mut() {
        object.remove("status");
    }
    let provider = definition["spec"]["group"].as_str().is_some_and(|group| group.ends_with("cluster.x-k8s.io"));
    let served: Vec<_> = served_versions(&definition).map(ToOwned::to_owned).collect();
    if let Some(metadata) = definition["metadata"].as_object_mut() {
        metadata.remove("creationTimestamp");
        if !provider {
            return definition;
        }
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        for version in served {
            labels[format!("cluster.x-k8s.io/{version}")] = json!(version);
        }
    }
    definition
}

/// The versions that a CRD serves.
pub(crate) fn served_versions(definition: &Value) -> impl Iterator<Item = &str> {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    versions.filter(|version| version["served"] == true).filter_map(|version| version["name"].as_str())
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    read_yaml(&text).with_context(|| format!("cannot read {}", path.display()))
}

fn load(path: &Path) -> Result<Vec<Value>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged; remove its folder", path.display()))
}
