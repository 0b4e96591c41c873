//! The ProvisioningRequest that a request is sent as, and how it is compared with the one on the O-Cloud.

use kube::ResourceExt as _;
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::names::{self, focom};
use operator_kit::write::apply::content_hash;
use serde_json::{Map, Value, json};

use super::annotations;
use crate::o_cloud::connection::ReadyOCloud;
use crate::o_cloud::remote_request::{API_VERSION, KIND, RemoteRequest};

/// Separates the hash of the spec from the rest in the annotation [`focom::APPLIED_HASH_ANNOTATION`].
const SPEC_END: char = '+';

/// The manifest of the ProvisioningRequest of this name, as it is to be applied.
pub fn manifest(request: &FocomProvisioningRequest, o_cloud: &ReadyOCloud, name: &str) -> Value {
    let spec = remote_spec(request);
    let mut hash = content_hash(&spec);
    let mut annotations = Map::new();
    if let Some(protection) = annotations::deletion_protection(request) {
        // Part of the hash, so that its removal from the request is noticed.
        hash = format!("{hash}{SPEC_END}{protection}");
        annotations.insert(names::DELETION_PROTECTION_ANNOTATION.to_owned(), json!(protection));
    }
    for (annotation, value) in annotations::passed_on(request) {
        hash = format!("{hash}{SPEC_END}{annotation}={value}");
        annotations.insert(annotation.to_owned(), json!(value));
    }
    annotations.insert(focom::APPLIED_HASH_ANNOTATION.to_owned(), json!(hash));
    if let Some(generation) = request.metadata.generation {
        annotations.insert(focom::SOURCE_GENERATION_ANNOTATION.to_owned(), json!(generation.to_string()));
    }
    let mut metadata = json!({
        "name": name,
        "labels": {
            focom::SMO_LABEL: o_cloud.smo,
            focom::SOURCE_LABEL: request.name_any(),
            focom::SOURCE_NAMESPACE_LABEL: request.namespace().unwrap_or_default(),
            focom::SOURCE_UID_LABEL: request.uid().unwrap_or_default(),
        },
        "annotations": annotations,
    });
    if let Some(namespace) = o_cloud.namespace(request.o_cloud().0) {
        metadata["namespace"] = json!(namespace);
    }
    json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec})
}

fn remote_spec(request: &FocomProvisioningRequest) -> Value {
    let spec = &request.spec;
    let mut remote = json!({
        "templateName": spec.template_name,
        "templateVersion": spec.template_version,
        "templateParameters": spec.template_parameters,
    });
    for (field, value) in [("name", &spec.name), ("description", &spec.description)] {
        if let Some(value) = value {
            remote[field] = json!(value);
        }
    }
    remote
}

/// The manifest with the revision of `found` as a precondition: it is applied to that revision and to no other.
pub fn at_revision_of(mut manifest: Value, found: &RemoteRequest) -> Value {
    manifest["metadata"]["resourceVersion"] = json!(found.metadata.resource_version);
    manifest
}

/// Whether `found` needs no update. `is_stored` tells whether its spec is what the O-Cloud stored at the last update: an
/// admission webhook there may have changed it.
pub fn is_up_to_date(found: &RemoteRequest, manifest: &Value, is_stored: impl Fn(&RemoteRequest) -> bool) -> bool {
    let annotation = |key: &str| found.annotations().get(key).map(String::as_str);
    // A new generation of the request with the same content needs no update.
    let is_compared = |key: &str| key != focom::SOURCE_GENERATION_ANNOTATION;
    let annotations = manifest["metadata"]["annotations"].as_object();
    annotations.is_none_or(|all| all.iter().all(|(key, value)| !is_compared(key) || annotation(key) == value.as_str()))
        && (contains(&found.spec, &manifest["spec"]) || is_stored(found))
}

/// Whether `found` was sent from the present spec of the request. TemplateInfos that change afterwards make no
/// difference.
pub fn is_current_spec(request: &FocomProvisioningRequest, found: &RemoteRequest) -> bool {
    applied_spec_hash(found) == Some(&content_hash(&remote_spec(request)))
}

/// The hash of the spec that was last applied to `found`.
pub fn applied_spec_hash(found: &RemoteRequest) -> Option<&str> {
    found.annotations().get(focom::APPLIED_HASH_ANNOTATION).and_then(|hash| hash.split(SPEC_END).next())
}

/// The hash of the spec in a manifest.
pub fn spec_hash(manifest: &Value) -> Option<&str> {
    manifest["metadata"]["annotations"][focom::APPLIED_HASH_ANNOTATION].as_str()?.split(SPEC_END).next()
}

/// Whether `found` has every field of `wanted` with the same value. Further fields, such as defaults, make no
/// difference.
pub fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| found.get(key).is_some_and(|found| contains(found, wanted)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| contains(found, wanted))
        }
        (found, wanted) => found == wanted,
    }
}
