//! A ProvisioningRequest of an O-Cloud, as FOCOM reads it.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use o2ims_types::conditions::NOT_OBSERVED;
use o2ims_types::focom::v1alpha1::focom_provisioning_request::RemoteProvisioningStatus;
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

/// A ProvisioningRequest of an O-Cloud: the fields that FOCOM reads. It is never written back.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
pub struct RemoteRequest {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Its whole spec.
    #[serde(default)]
    pub spec: Value,
    /// The part of its status that is copied to the SMO.
    #[serde(default, deserialize_with = "lenient_status")]
    pub status: RemoteStatus,
}

/// Reads each field by itself: a field of an unexpected form must hide neither the others nor the whole object.
fn lenient_status<'de, D: Deserializer<'de>>(status: D) -> Result<RemoteStatus, D::Error> {
    fn part<T: DeserializeOwned>(value: &Value) -> Option<T> {
        T::deserialize(value).ok()
    }
    let status = Value::deserialize(status)?;
    let observed_generation: Option<i64> = part(&status["observedGeneration"]);
    let reported = &status["provisioningStatus"];
    let is_reported = reported.is_object() && observed_generation != Some(NOT_OBSERVED);
    let provisioning_status = is_reported.then(|| RemoteProvisioningStatus {
        provisioning_state: part(&reported["provisioningState"]).unwrap_or_default(),
        provisioning_message: part(&reported["provisioningMessage"]).unwrap_or_default(),
        // The API stores whole seconds.
        provisioning_update_time: part(&reported["provisioningUpdateTime"])
            .and_then(|Time(time)| Timestamp::from_second(time.as_second()).ok().map(Time)),
    });
    Ok(RemoteStatus {
        provisioning_status,
        provisioned_resource_set: part(&status["provisionedResourceSet"]),
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
