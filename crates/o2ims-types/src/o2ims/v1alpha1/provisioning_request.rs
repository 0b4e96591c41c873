//! `ProvisioningRequest`: one cluster on exactly the hosts that it names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::NOT_OBSERVED;
use crate::revisions::Revisions;
use crate::rules;

/// What an SMO or a platform operator requests: a template and its parameters.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "o2ims.provisioning.oran.org",
    version = "v1alpha1",
    kind = "ProvisioningRequest",
    namespaced,
    shortname = "pr",
    category = "o2ims",
    doc = "A request for one Kubernetes cluster on exactly the hosts that it names (O-RAN O2 IMS provisioning).",
    status = "ProvisioningRequestStatus",
    derive = "PartialEq",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.templateParameters.clusterName"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.extensions.k8sVersion"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.provisioningStatus.provisioningState"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.extensions.readyNodes"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Revision",
        type_ = "integer",
        priority = 1,
        json_path = ".status.extensions.revisions.accepted.number"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.provisioningStatus.provisioningMessage"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ProvisioningRequestSpec {
    /// Display name; need not be unique.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// Description, free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Name of the ClusterTemplate (its `spec.name`).
    #[schemars(length(min = 1, max = 120))]
    pub template_name: String,
    /// Version of the ClusterTemplate (its `spec.version`).
    #[schemars(length(min = 1, max = 60))]
    pub template_version: String,
    /// The template's parameters.
    pub template_parameters: TemplateParameters,
}

/// Parameters of a cluster. These fields have a type; other fields are kept for templates that define them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::REQUIRED.cel).message(rules::REQUIRED.message),
    validation = Rule::new(rules::CLUSTER_NAME.cel).message(rules::CLUSTER_NAME.message),
    validation = Rule::new(rules::K8S_VERSION.cel).message(rules::K8S_VERSION.message),
    validation = Rule::new(rules::POD_CIDR.cel).message(rules::POD_CIDR.message),
    validation = Rule::new(rules::SERVICE_CIDR.cel).message(rules::SERVICE_CIDR.message),
    validation = Rule::new(rules::CIDR_OVERLAP.cel).message(rules::CIDR_OVERLAP.message),
)]
pub struct TemplateParameters {
    /// Name of the cluster, unique in the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub cluster_name: Option<String>,
    /// Provisioner that creates the cluster. This release has `byoh` only.
    #[serde(default = "byoh")]
    #[schemars(length(min = 1, max = 63))]
    pub cluster_provisioner: String,
    /// Kubernetes version, such as v1.33.1. Default: the template's. A change upgrades the cluster on its own hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub k8s_version: Option<String>,
    /// The hosts that become the cluster's nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Hosts>,
    /// Endpoint of the cluster's API server. Default with one master: that host's address, port 6443. With three or more
    /// masters it is required: a virtual IP or a load balancer; also for one master that is to get company later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<Endpoint>,
    /// Network of the Pods, in CIDR form. Default: the template's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub pod_cidr: Option<String>,
    /// Network of the Services, in CIDR form. Default: the template's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub service_cidr: Option<String>,
    /// Labels for the Cluster object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "label_map")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Parameters that only the template defines; validated against its schema.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

fn label_map(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

fn byoh() -> String {
    rules::BYOH.to_owned()
}

/// Hosts by role.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::MASTERS_ODD.cel).message(rules::MASTERS_ODD.message),
    validation = Rule::new(rules::MASTERS_UNIQUE.cel).message(rules::MASTERS_UNIQUE.message),
    validation = Rule::new(rules::WORKERS_UNIQUE.cel).message(rules::WORKERS_UNIQUE.message),
    validation = Rule::new(rules::ROLES_DISJOINT.cel).message(rules::ROLES_DISJOINT.message),
)]
pub struct Hosts {
    // Server-side apply merges a list by keys that every item has, and a host may be spelled in two ways: both lists are replaced as a whole.
    /// Control-plane hosts: 1, 3, 5 or 7. They may change while the cluster runs, if its endpoint is none of their own addresses.
    #[schemars(length(min = 1, max = 7), extend("x-kubernetes-list-type" = "atomic"))]
    pub masters: Vec<HostRef>,
    /// Worker hosts, any number up to 400.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 400), extend("x-kubernetes-list-type" = "atomic"))]
    pub workers: Vec<HostRef>,
}

impl Hosts {
    /// Every host, masters first.
    pub fn all(&self) -> impl Iterator<Item = &HostRef> {
        self.masters.iter().chain(&self.workers)
    }
}

/// A registered host, by id and by name. Both must belong to the same ByoHost, so that a mistake is noticed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::HOST_ID_PRESENT.cel).message(rules::HOST_ID_PRESENT.message),
    validation = Rule::new(rules::HOST_NAME_PRESENT.cel).message(rules::HOST_NAME_PRESENT.message),
    validation = Rule::new(rules::HOST_NAME.cel).message(rules::HOST_NAME.message),
    validation = Rule::new(rules::HOST_IP.cel).message(rules::HOST_IP.message),
)]
pub struct HostRef {
    /// Id of the host, a whole number or a string: the label `host-id` of its ByoHost. Write it in quotes if it has leading zeros.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = rules::HOST_ID_PATTERN, "minimum" = 0, "maximum" = i32::MAX))]
    pub host_id: Option<IntOrString>,
    /// Name of the host: the name of its ByoHost.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub host_name: Option<String>,
    /// An address that the host must have; compared with those that its agent reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    pub host_ip: Option<String>,
    /// Other spelling of `hostId`; give one of the two.
    #[serde(rename = "host_id", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = rules::HOST_ID_PATTERN, "minimum" = 0, "maximum" = i32::MAX))]
    pub host_id_snake: Option<IntOrString>,
    /// Other spelling of `hostName`; give one of the two.
    #[serde(rename = "host_name", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub host_name_snake: Option<String>,
}

impl ProvisioningRequest {
    /// Whether the operator has written no status yet.
    pub fn is_new(&self) -> bool {
        self.status
            .as_ref()
            .is_none_or(|status| status.observed_generation == Some(NOT_OBSERVED) && status.conditions.is_empty())
    }
}

impl HostRef {
    /// The id as a label value, in either spelling; empty if it is missing.
    pub fn id(&self) -> String {
        match self.host_id.as_ref().or(self.host_id_snake.as_ref()) {
            Some(IntOrString::Int(id)) => id.to_string(),
            Some(IntOrString::String(id)) => id.clone(),
            None => String::new(),
        }
    }

    /// The address `hostIp`, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host_ip.as_ref()?.parse().ok()
    }

    /// The name, in either spelling; empty if it is missing.
    pub fn name(&self) -> &str {
        self.host_name.as_deref().or(self.host_name_snake.as_deref()).unwrap_or_default()
    }
}

/// Host and port of an API server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::ENDPOINT_HOST.cel).message(rules::ENDPOINT_HOST.message))]
pub struct Endpoint {
    /// IP address or DNS name.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// TCP port.
    #[serde(default = "api_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// Default port of an endpoint.
pub const API_PORT: i32 = 6443;

fn api_port() -> i32 {
    API_PORT
}

/// Observed state of the request.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProvisioningRequestStatus {
    /// State and message, as the O2 IMS interface defines them.
    #[serde(default)]
    pub provisioning_status: ProvisioningStatus,
    /// UIDs of the Cluster and the ByoHosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provisioned_resource_set: Option<ProvisionedResourceSet>,
    /// `Ready`, `Reconciling`, `Stalled` (kstatus), `Paused`, `Degraded`, and the stages `ProvidersAvailable`, `Validated`,
    /// `HostsReserved`, `ControlPlaneReady`, `WorkersReady`; `Upgraded` where `k8sVersion` was changed; `CertificatesValid` where
    /// hosts report when their certificates end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// `metadata.generation` that this status was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Status fields beyond the O2 IMS interface.
    #[serde(default)]
    pub extensions: StatusExtensions,
}

/// State and message of a request.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProvisioningStatus {
    /// `pending`: no Cluster exists, and the request is blocked or does not hold all of its hosts; `progressing`: all hosts are held or
    /// the Cluster exists, and not every requested node is Ready; `fulfilled`: every requested node is Ready; `failed`: the message says
    /// what to do, or which time limit is exceeded; `deleting`: until every host is released.
    #[serde(default)]
    pub provisioning_state: ProvisioningState,
    /// What the operator does, what it waits for, or what is wrong, with the object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub provisioning_message: String,
    /// When state or message last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provisioning_update_time: Option<Time>,
}

/// State of a request.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum ProvisioningState {
    /// The request waits for something that the message names. No Cluster is created yet.
    #[default]
    Pending,
    /// Hosts are held or the Cluster exists, and not every requested node is Ready.
    Progressing,
    /// Every requested node is Ready at the requested version.
    Fulfilled,
    /// The request is wrong, its cluster is lost, or a time limit has passed. It recovers when the cause is removed.
    Failed,
    /// The request is being deleted; it stays until every host is released.
    Deleting,
}

impl ProvisioningState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Progressing, Self::Fulfilled, Self::Failed, Self::Deleting];

    /// As `provisioningState` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Progressing => "progressing",
            Self::Fulfilled => "fulfilled",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }
}

impl std::fmt::Display for ProvisioningState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The Cluster and the hosts of a request, by ids that stay the same over restarts.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProvisionedResourceSet {
    /// UID of the Cluster; set once all of its objects exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub o_cloud_node_cluster_id: Option<String>,
    /// UIDs of the ByoHosts, in the order of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub o_cloud_infrastructure_resource_ids: Vec<String>,
}

/// Status fields beyond the O2 IMS interface.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StatusExtensions {
    /// Kubernetes version of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_version: Option<String>,
    /// Number of Ready nodes / number of requested nodes, such as `1/2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_nodes: Option<String>,
    /// Endpoint of the cluster's API server, as `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane_endpoint: Option<String>,
    /// Network of the cluster's pods, as its Cluster has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<String>,
    /// Network of the cluster's Services, as its Cluster has it; absent if that is kubeadm's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_cidr: Option<String>,
    /// Secret with the cluster's kubeconfig, under the key `value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig_secret: Option<String>,
    /// Every host that the request names or holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["hostName"]))]
    pub hosts: Vec<HostStatus>,
    /// What the operator would do, host by host; only while the request has the annotation `o2ims.provisioning.oran.org/plan`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["hostName"]))]
    pub plan: Vec<PlannedChange>,
    /// The specs of the request that it was accepted and fulfilled with last, to go back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revisions: Option<Revisions>,
}

/// A change that the operator would make.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PlannedChange {
    /// Name of the host.
    pub host_name: String,
    /// `Join`: it becomes a node; `Upgrade`: Kubernetes is upgraded on it; `Reinstall`: it is reset, and becomes a node again; `ChangeRole`: it is
    /// removed, and becomes a node in the other role; `Remove`: it is given back, and reset if it is a node.
    pub action: String,
    /// What will be done, and what it stops.
    pub message: String,
}

/// State of one host.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// Name of the host and of its Node.
    pub host_name: String,
    /// Id of the host.
    pub host_id: String,
    /// `control-plane` or `worker`.
    pub role: String,
    /// `Free`: not held, not in use; `Unavailable`: not registered, held by another request, in use, or without a live agent;
    /// `Reserved`: held, not attached yet; `Bootstrapping`: its agent makes it a node; `Joined`: a node, but not Ready, or of another
    /// version; `Ready`: its node is Ready at the requested version; `Unknown`: a node of a cluster whose API server does not answer;
    /// `Failed`: see message; `Cleaning`: its node is being removed, or it is being released.
    pub state: String,
    /// Version of its kubelet, once it is a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_version: Option<String>,
    /// Why the host is not `Ready`, if that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The support bundle that it makes, or has made last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub support_bundle: Option<HostFile>,
    /// The snapshot of etcd that it takes at its owner's word, or has taken last; of the first master only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<HostFile>,
}

/// What a host makes at the word of the owner of its request, and keeps.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HostFile {
    /// The word in the annotation that has ordered it.
    pub name: String,
    /// `Waiting`: the host has not begun; `Running`; `Done`; `Failed`: see message.
    pub state: String,
    /// Path on the host; of a snapshot that of its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Size of the file; of a snapshot that of `etcd.db`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// SHA-256 of the same file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What it waits for, or why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
