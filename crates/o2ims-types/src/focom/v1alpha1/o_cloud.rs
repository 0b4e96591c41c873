//! `OCloud`: how an O-Cloud is reached. The fields of Nephio's published type, and more.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

/// How the O-Cloud is reached, and which namespaces may use it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "focom.nephio.org",
    version = "v1alpha1",
    kind = "OCloud",
    plural = "oclouds",
    namespaced,
    category = "focom",
    doc = "An O-Cloud that requests can be sent to.",
    status = "OCloudStatus",
    derive = "PartialEq",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.serverVersion"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type=='Ready')].message"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct OCloudSpec {
    /// Credentials for the O-Cloud's API server.
    #[serde(rename = "o2imsSecret")]
    pub o2ims_secret: O2imsSecret,
    /// Namespaces, in addition to the OCloud's own, whose requests may use it; `*` for all. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    // Not a set: an OCloud that names a namespace twice was accepted, and stays valid.
    #[schemars(length(max = 256), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub allowed_namespaces: Vec<String>,
}

/// Credentials for the O-Cloud's API server.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct O2imsSecret {
    /// Secret with a kubeconfig, under the key `kubeconfig` or `value`.
    pub secret_ref: SecretRef,
}

/// A Secret with a kubeconfig under the key `kubeconfig`, or `value`, which is the key that Cluster API uses.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), extend("pattern" = rules::SUBDOMAIN_PATTERN))]
    pub name: String,
    /// Namespace of the Secret. Default: the OCloud's. Another Namespace must have the annotation `focom.nephio.org/secrets-for`
    /// with the OCloud's namespace in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), extend("pattern" = rules::LABEL_PATTERN))]
    pub namespace: Option<String>,
}

impl OCloud {
    /// Namespace and name of the Secret with the credentials.
    pub fn secret(&self) -> (String, String) {
        let SecretRef { name, namespace } = &self.spec.o2ims_secret.secret_ref;
        (namespace.clone().or_else(|| self.metadata.namespace.clone()).unwrap_or_default(), name.clone())
    }
}

/// Observed state of the OCloud: whether it can be used.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OCloudStatus {
    /// `Ready`: the O-Cloud can be used; otherwise reason and message say why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Version of the O-Cloud's API server, as last reported by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// ProvisioningRequests that this SMO has sent there and whose FocomProvisioningRequests do not exist any more, as last seen. Absent if
    /// there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orphaned_requests: Option<OrphanedRequests>,
    /// `metadata.generation` that this status was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// ProvisioningRequests without a FocomProvisioningRequest.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OrphanedRequests {
    /// How many there are.
    pub count: i64,
    /// The first ten of them, sorted, as `namespace/name`; as `name` where ProvisioningRequests have no namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub names: Vec<String>,
    /// Why there are such, and what to do.
    pub message: String,
}
