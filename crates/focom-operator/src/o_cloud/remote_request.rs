//! A ProvisioningRequest of an O-Cloud, as FOCOM reads it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use o2ims_types::conditions::NOT_OBSERVED;
use o2ims_types::focom::v1alpha1::focom_provisioning_request::RemoteProvisioningStatus;
use o2ims_types::names::{self, focom};
use o2ims_types::o2ims::v1alpha1::provisioning_request::ProvisionedResourceSet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Group and version of the ProvisioningRequests on O-Clouds.
pub const API_VERSION: &str = "o2ims.provisioning.oran.org/v1alpha1";
/// Version of them.
pub const VERSION: &str = "v1alpha1";
/// Their kind.
pub const KIND: &str = "ProvisioningRequest";
/// Their resource, as in URLs.
pub const PLURAL: &str = "provisioningrequests";

/// Longest message of an O-Cloud that is kept, in characters.
pub const MESSAGE_MAX: usize = 2_000;
/// Longest name of a state that is kept, in characters.
pub const STATE_MAX: usize = 63;
/// Longest id of a resource that is kept, in characters.
const ID_MAX: usize = 253;
/// Most resources of one cluster that are kept.
const RESOURCES_MAX: usize = 1_000;
/// Labels and annotations that FOCOM reads.
const LABELS: [&str; 4] =
    [focom::SMO_LABEL, focom::SOURCE_LABEL, focom::SOURCE_NAMESPACE_LABEL, focom::SOURCE_UID_LABEL];
const ANNOTATIONS: [&str; 3] =
    [focom::APPLIED_HASH_ANNOTATION, focom::SOURCE_GENERATION_ANNOTATION, names::DELETION_PROTECTION_ANNOTATION];

/// A ProvisioningRequest of an O-Cloud: what FOCOM reads, as all of them are kept in memory. It is never written back.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
pub struct RemoteRequest {
    /// Metadata, without what is not read.
    #[serde(deserialize_with = "small_metadata")]
    pub metadata: ObjectMeta,
    /// Its whole spec.
    #[serde(default)]
    pub spec: Value,
    /// The part of its status that is copied to the SMO.
    #[serde(default, deserialize_with = "lenient_status")]
    pub status: RemoteStatus,
}

impl RemoteRequest {
    /// Its state, if the operator on the O-Cloud has reported one of the present spec. A status without observedGeneration counts as current.
    pub fn current_state(&self) -> Option<&str> {
        let status = &self.status;
        let is_current = status
            .observed_generation
            .is_none_or(|seen| self.metadata.generation.is_none_or(|present| seen >= present));
        let told = status.provisioning_status.as_ref().map(|told| told.provisioning_state.as_str());
        told.filter(|state| is_current && !state.is_empty())
    }

    /// About how many bytes it takes in memory.
    pub fn size(&self) -> usize {
        /// An entry of a map or list, or a string, without its characters.
        const ENTRY: usize = 64;
        fn text(text: &str) -> usize {
            ENTRY + text.len()
        }
        fn value(found: &Value) -> usize {
            match found {
                Value::String(found) => text(found),
                Value::Array(items) => ENTRY + items.iter().map(value).sum::<usize>(),
                Value::Object(fields) => {
                    ENTRY + fields.iter().map(|(key, found)| text(key) + value(found)).sum::<usize>()
                }
                _ => ENTRY,
            }
        }
        let meta = &self.metadata;
        let names = [&meta.name, &meta.namespace, &meta.uid, &meta.resource_version].into_iter().flatten();
        let marks = [&meta.labels, &meta.annotations].into_iter().flatten().flatten();
        let said = self.status.provisioning_status.iter();
        let said = said.flat_map(|said| [&said.provisioning_state, &said.provisioning_message]);
        let set = self.status.provisioned_resource_set.iter();
        let resources =
            set.flat_map(|set| set.o_cloud_node_cluster_id.iter().chain(&set.o_cloud_infrastructure_resource_ids));
        size_of::<Self>()
            + value(&self.spec)
            + marks.map(|(key, found)| text(key) + text(found)).sum::<usize>()
            + names.chain(said).chain(resources).map(|found| text(found)).sum::<usize>()
    }
}

/// At most `max` characters of a text.
pub fn truncate(text: &str, max: usize) -> String {
    text.chars().take(max).collect()
}

fn small_metadata<'de, D: Deserializer<'de>>(metadata: D) -> Result<ObjectMeta, D::Error> {
    let ObjectMeta {
        name, namespace, uid, resource_version, generation, deletion_timestamp, labels, annotations, ..
    } = ObjectMeta::deserialize(metadata)?;
    let only = |all: Option<BTreeMap<String, String>>, keys: &[&str]| {
        all.map(|all| all.into_iter().filter(|(key, _)| keys.contains(&key.as_str())).collect())
    };
    Ok(ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        generation,
        deletion_timestamp,
        labels: only(labels, &LABELS),
        annotations: only(annotations, &ANNOTATIONS),
        ..ObjectMeta::default()
    })
}

/// Reads each field by itself: a field of an unexpected form must hide neither the others nor the whole object.
fn lenient_status<'de, D: Deserializer<'de>>(status: D) -> Result<RemoteStatus, D::Error> {
    fn part<T: DeserializeOwned>(value: &Value) -> Option<T> {
        T::deserialize(value).ok()
    }
    fn text(value: &Value, max: usize) -> String {
        truncate(value.as_str().unwrap_or_default(), max)
    }
    let status = Value::deserialize(status)?;
    let observed_generation: Option<i64> = part(&status["observedGeneration"]);
    let reported = &status["provisioningStatus"];
    let is_reported = reported.is_object() && observed_generation != Some(NOT_OBSERVED);
    let provisioning_status = is_reported.then(|| RemoteProvisioningStatus {
        provisioning_state: text(&reported["provisioningState"], STATE_MAX),
        provisioning_message: text(&reported["provisioningMessage"], MESSAGE_MAX),
        // The API stores whole seconds.
        provisioning_update_time: part(&reported["provisioningUpdateTime"])
            .and_then(|Time(time)| Timestamp::from_second(time.as_second()).ok().map(Time)),
    });
    Ok(RemoteStatus {
        provisioning_status,
        provisioned_resource_set: part(&status["provisionedResourceSet"]).map(|mut set: ProvisionedResourceSet| {
            set.o_cloud_infrastructure_resource_ids.truncate(RESOURCES_MAX);
            let ids = set.o_cloud_infrastructure_resource_ids.iter_mut().chain(&mut set.o_cloud_node_cluster_id);
            ids.for_each(|id| *id = truncate(id, ID_MAX));
            set
        }),
        observed_generation,
    })
}

impl Resource for RemoteRequest {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }
    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }
    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }
    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The part of a status that is copied to the SMO. Every field is optional: other operators write other fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RemoteStatus {
    /// State and message.
    pub provisioning_status: Option<RemoteProvisioningStatus>,
    /// Ids of its resources.
    pub provisioned_resource_set: Option<ProvisionedResourceSet>,
    /// Generation that the status was computed from; Nephio's operator does not set it.
    pub observed_generation: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A ProvisioningRequest of a cluster of ten hosts, as an API server has it.
    fn usual() -> Value {
        let hosts: Vec<_> =
            (0..10).map(|host| json!({"hostId": host, "hostName": format!("a-long-name-of-a-host-{host}")})).collect();
        json!({
            "metadata": {
                "name": "edge-o2ims", "namespace": "team", "uid": "0c1f5c1e-8a52-4f0c-9b5e-52a3b1e0d9a4", "resourceVersion": "123456",
                "labels": {focom::SMO_LABEL: "smo", focom::SOURCE_UID_LABEL: "uid", "other": "of others"},
                "annotations": {focom::APPLIED_HASH_ANNOTATION: "hash", "kubectl.kubernetes.io/last-applied-configuration": "x".repeat(9000)},
                "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}], "finalizers": ["f"],
            },
            "spec": {"templateName": "t", "templateVersion": "v1", "templateParameters": {"clusterName": "edge", "hosts": {"workers": hosts}}},
            "status": {"provisioningStatus": {"provisioningState": "fulfilled", "provisioningMessage": "m".repeat(100)}},
        })
    }

    #[test]
    fn a_record_has_what_is_read_and_no_more() {
        let mut object = usual();
        object["status"]["provisioningStatus"]["provisioningMessage"] = json!("m".repeat(1_000_000));
        let record: RemoteRequest = serde_json::from_value(object).expect("decodes");
        let metadata = serde_json::to_value(&record.metadata).expect("encodes");
        assert_eq!(
            metadata,
            json!({
                "name": "edge-o2ims", "namespace": "team", "uid": "0c1f5c1e-8a52-4f0c-9b5e-52a3b1e0d9a4", "resourceVersion": "123456",
                "labels": {focom::SMO_LABEL: "smo", focom::SOURCE_UID_LABEL: "uid"},
                "annotations": {focom::APPLIED_HASH_ANNOTATION: "hash"},
            })
        );
        assert_eq!(record.spec, usual()["spec"]);
        let said = record.status.provisioning_status.as_ref().expect("a status");
        assert_eq!(said.provisioning_message.len(), MESSAGE_MAX);
    }

    #[test]
    fn the_size_of_a_record_grows_with_everything_in_it() {
        let size = |object: Value| serde_json::from_value::<RemoteRequest>(object).expect("decodes").size();
        let with = |pointer: &str, value: Value| {
            let mut object = usual();
            *object.pointer_mut(pointer).expect("exists") = value;
            size(object)
        };
        let usual = size(usual());
        assert!((3_000..6_700).contains(&usual), "{usual} bytes: 32 MiB are for less than five thousand");
        let long = "x".repeat(100_000);
        assert!(with("/metadata/uid", json!(long)) > 100_000);
        assert!(with("/metadata/labels", json!({focom::SMO_LABEL: long})) > 100_000);
        assert!(with("/spec/templateName", json!(long)) > 100_000);
        assert!(with("/spec/templateParameters", json!({long.clone(): 1})) > 100_000);
        assert!(with("/spec", json!(vec![0; 10_000])) > 10_000 * 32, "more than its length as JSON");
        let resources = |id: &str, hosts: usize| {
            let hosts = vec!["x".repeat(ID_MAX); hosts];
            with(
                "/status",
                json!({"provisionedResourceSet": {"oCloudNodeClusterId": id, "oCloudInfrastructureResourceIds": hosts}}),
            )
        };
        assert!(resources("id", 1_000) > 1_000 * ID_MAX);
        assert!(resources(&long, 0) < usual + 2 * ID_MAX, "an id has an end");
    }
}
