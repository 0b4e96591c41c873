//! `FocomProvisioningRequest`: a request of an SMO to one of its O-Clouds. The fields of Nephio's published type, and more.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::conditions::NOT_OBSERVED;
use crate::names::focom;
use crate::o2ims::v1alpha1::provisioning_request::ProvisionedResourceSet;
use crate::revisions::Revisions;
use crate::rules;

/// The O-Cloud, the template and its parameters.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "focom.nephio.org",
    version = "v1alpha1",
    kind = "FocomProvisioningRequest",
    namespaced,
    shortname = "fpr",
    category = "focom",
    doc = "A request of the SMO to one of its O-Clouds; it becomes a ProvisioningRequest there.",
    status = "FocomProvisioningRequestStatus",
    derive = "PartialEq",
    printcolumn(name = "O-Cloud", type_ = "string", json_path = ".spec.oCloudId"),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.templateParameters.clusterName"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.provisioningStatus.provisioningState"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Revision", type_ = "integer", priority = 1, json_path = ".status.revisions.accepted.number"),
    printcolumn(name = "Message", type_ = "string", priority = 1, json_path = ".status.message")
)]
#[serde(rename_all = "camelCase")]
pub struct FocomProvisioningRequestSpec {
    /// Display name; need not be unique.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// Description, free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Name of the OCloud. The value of the operator's environment variable `LOCAL_O_CLOUD` (default `management-cluster`) means the
    /// cluster that the operator runs in.
    #[schemars(length(min = 1, max = 253), extend("pattern" = rules::SUBDOMAIN_PATTERN))]
    pub o_cloud_id: String,
    /// Namespace of the OCloud at the SMO, and of the ProvisioningRequest on the O-Cloud.
    #[schemars(length(min = 1, max = 63), extend("pattern" = rules::LABEL_PATTERN))]
    pub o_cloud_namespace: String,
    /// Name of the template.
    #[schemars(length(min = 1, max = 120))]
    pub template_name: String,
    /// Version of the template.
    #[serde(default = "first_version")]
    #[schemars(length(min = 1, max = 60))]
    pub template_version: String,
    /// The template's parameters. The O-Cloud validates them; with a TemplateInfo of the template the SMO does so too, before the
    /// request is sent.
    #[schemars(schema_with = "open_object")]
    pub template_parameters: Map<String, Value>,
}

impl FocomProvisioningRequest {
    /// Namespace and name of the OCloud that it was sent to, or, if it was not sent yet, of the one that the spec names.
    pub fn o_cloud(&self) -> (&str, &str) {
        let sent = self.status.as_ref().and_then(|status| status.sent_to_o_cloud.as_deref()?.split_once('/'));
        sent.unwrap_or((&self.spec.o_cloud_namespace, &self.spec.o_cloud_id))
    }

    /// Whether the operator has written no status yet.
    pub fn is_new(&self) -> bool {
        self.status
            .as_ref()
            .is_none_or(|status| status.observed_generation == Some(NOT_OBSERVED) && status.conditions.is_empty())
    }

    /// Whether it has been sent to an O-Cloud.
    pub fn was_sent(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.remote_name.is_some())
    }

    /// Whether the O-Cloud that `status.sentTo` names may have its ProvisioningRequest. The operator adds its finalizer before it sends
    /// anything, and may have ended before it could say that it has.
    pub fn may_have_been_sent(&self) -> bool {
        self.was_sent() || self.has_finalizer()
    }

    /// Whether it has the operator's finalizer.
    pub fn has_finalizer(&self) -> bool {
        self.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == focom::FINALIZER)
    }

    /// The state of the ProvisioningRequest, as last reported by the O-Cloud.
    pub fn remote_state(&self) -> Option<&str> {
        let said = self.status.as_ref()?.provisioning_status.as_ref()?;
        Some(said.provisioning_state.as_str()).filter(|state| !state.is_empty())
    }
}

/// `namespace/name`, each with its own rule: they become parts of URLs.
const O_CLOUD_PATTERN: &str =
    "^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// Version of the template if a request names none, as in the integration guide's example.
pub const DEFAULT_TEMPLATE_VERSION: &str = "v1.0.0";

fn first_version() -> String {
    DEFAULT_TEMPLATE_VERSION.to_owned()
}

fn open_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Observed state of the request.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FocomProvisioningRequestStatus {
    /// `Pending`: not sent yet; `Creating`: sent, not seen on the O-Cloud yet; `Synced`: the ProvisioningRequest on the O-Cloud has this
    /// spec, see provisioningStatus; `Failed`: see message; `Deleting`: the ProvisioningRequest is being deleted. There is no enum, so that
    /// an object with a phase of another FOCOM operator stays valid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// What the operator does, what it waits for, or what is wrong, with the object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When this status last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<Time>,
    /// Name of the ProvisioningRequest on the O-Cloud. Absent until the request was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_name: Option<String>,
    /// Identifies the O-Cloud that the request was sent to, or, without remoteName, is about to be sent to: a hash of API server URL, TLS
    /// server name and certificate authority; `local` for the SMO's own cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_to: Option<String>,
    /// OCloud that the request was sent to, as `namespace/name`. It does not change when the spec does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317), extend("pattern" = O_CLOUD_PATTERN))]
    pub sent_to_o_cloud: Option<String>,
    /// State and message of the ProvisioningRequest, as last reported by the O-Cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provisioning_status: Option<RemoteProvisioningStatus>,
    /// UIDs of the Cluster and the ByoHosts, as last reported by the O-Cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provisioned_resource_set: Option<ProvisionedResourceSet>,
    /// `Ready`, `Reconciling`, `Stalled` (kstatus), and the stages `Validated`, `OCloudAvailable`, `Synced`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// `metadata.generation` that this status was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The specs of the request that the O-Cloud has accepted and fulfilled last, to go back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revisions: Option<Revisions>,
}

/// State and message of a ProvisioningRequest, as the operator on the O-Cloud has written them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RemoteProvisioningStatus {
    /// `pending`, `progressing`, `fulfilled`, `failed` or `deleting`, as provisioningState of the ProvisioningRequest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provisioning_state: String,
    /// provisioningMessage of the ProvisioningRequest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provisioning_message: String,
    /// When state or message last changed, by the O-Cloud's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provisioning_update_time: Option<Time>,
}

/// How far the SMO is with the O-Cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The request has not been sent yet; the message says what it waits for.
    Pending,
    /// The ProvisioningRequest has been sent, and no watch shows it yet; or it was deleted, and is created again.
    Creating,
    /// The O-Cloud has the present version of the request; its state says how far the cluster is.
    Synced,
    /// The request is wrong or not allowed, its ProvisioningRequest is gone, or the O-Cloud reports `failed`. It recovers when the
    /// cause is removed.
    Failed,
    /// The request is being deleted; it stays until its ProvisioningRequest is deleted.
    Deleting,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Creating, Self::Synced, Self::Failed, Self::Deleting];

    /// As `status.phase` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Creating => "Creating",
            Self::Synced => "Synced",
            Self::Failed => "Failed",
            Self::Deleting => "Deleting",
        }
    }
}
