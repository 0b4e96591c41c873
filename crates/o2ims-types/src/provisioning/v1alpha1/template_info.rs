//! `TemplateInfo`: what the SMO knows of an O-Cloud's template. The fields of Nephio's published type, and a condition.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A template by name and version, with the schema of its parameters.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "provisioning.oran.org",
    version = "v1alpha1",
    kind = "TemplateInfo",
    plural = "templateinfoes",
    namespaced,
    category = "focom",
    doc = "A template as the SMO knows it: FocomProvisioningRequests in the same namespace with this templateName and templateVersion are validated against its schema before they are sent.",
    status = "TemplateInfoStatus",
    derive = "PartialEq",
    printcolumn(name = "Template", type_ = "string", json_path = ".spec.templateName"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.templateVersion"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type=='Ready')].message"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TemplateInfoSpec {
    /// Name that requests give as `templateName`.
    #[schemars(length(min = 1, max = 120))]
    pub template_name: String,
    /// Version that requests give as `templateVersion`.
    #[schemars(length(min = 1, max = 60))]
    pub template_version: String,
    /// JSON Schema of `templateParameters`, written as JSON or YAML.
    #[schemars(length(max = 262_144))]
    pub template_parameter_schema: String,
}

/// Observed state of the TemplateInfo: whether its schema can be used.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TemplateInfoStatus {
    /// `Ready`: the schema can be used; otherwise the message says why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// `metadata.generation` that this status was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
