//! `ClusterTemplate`: a type of cluster that an O-Cloud offers, and how it is created. The platform operator creates it in the
//! namespace of the requests or, for all namespaces, in the operator's namespace.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::timeouts::Timeouts;
use crate::rules;

/// A type of cluster that requests can name, by name and version.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "o2ims.provisioning.oran.org",
    version = "v1alpha1",
    kind = "ClusterTemplate",
    namespaced,
    shortname = "ct",
    category = "o2ims",
    doc = "A type of cluster that an O-Cloud offers: parameters with defaults, installation of Kubernetes, CNI, time limits, kubeadm settings.",
    status = "ClusterTemplateStatus",
    derive = "PartialEq",
    printcolumn(name = "Name", type_ = "string", json_path = ".spec.name"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Install", type_ = "string", json_path = ".spec.install.method"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Description", type_ = "string", priority = 1, json_path = ".spec.description"),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type=='Ready')].message"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.upgrade.strategy != 'Rolling' || self.install.method != 'none'").message("upgrade.strategy Rolling needs install.method installer or bundle: with none nothing resets a server"),
)]
pub struct ClusterTemplateSpec {
    /// Name that requests give as `templateName`.
    #[schemars(length(min = 1, max = 120))]
    pub name: String,
    /// Version that requests give as `templateVersion`.
    #[schemars(length(min = 1, max = 60))]
    pub version: String,
    /// Description, free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub description: String,
    /// JSON Schema of `templateParameters`, which are validated after `defaults` are filled in. Default: the rules of the
    /// ProvisioningRequest alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub parameter_schema: Option<Value>,
    /// Values for `templateParameters` that a request leaves out. Objects are merged; any other value, lists too, is replaced by that
    /// of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub defaults: Option<Value>,
    /// How Kubernetes is installed on a host.
    #[serde(default)]
    pub install: Install,
    /// CNI of the clusters. Without it nodes stay NotReady until a CNI is installed in another way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cni: Option<Cni>,
    /// What provides the address in `controlPlaneEndpoint`, if no master has it.
    #[serde(default)]
    pub virtual_ip: VirtualIp,
    /// Whether new requests are protected from deletion: one without the annotation
    /// `o2ims.provisioning.oran.org/deletion-protection` gets it with the value `true`.
    #[serde(default)]
    pub deletion_protection: bool,
    /// Time limits of the stages and of the deletion. When a stage exceeds its limit, provisioningState is `failed`; the operator
    /// continues with the stage.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How Kubernetes is upgraded on the hosts of a cluster.
    #[serde(default)]
    pub upgrade: Upgrade,
    /// Settings that are passed to kubeadm and Cluster API, in the form of `v1beta2` of Cluster API. Those in the form of `v1beta1` are translated.
    #[serde(default)]
    pub kubeadm: Kubeadm,
}

/// Observed state of the ClusterTemplate: whether requests can use it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterTemplateStatus {
    /// `Ready`: nothing is wrong with the template; otherwise the message says what is, with the field, and what to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// `metadata.generation` that this status was computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// How Kubernetes is installed on a host.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.method != 'bundle' || has(self.bundle)").message("install.bundle is required with install.method bundle"),
    validation = Rule::new("self.method != 'installer' || !has(self.installer) || self.installer.source != 'packages' || has(self.installer.packages)").message("install.installer.packages is required with install.installer.source packages"),
)]
pub struct Install {
    /// `none`: Kubernetes is installed already, agents run with `--skip-installation`, and do not reset hosts; `installer`: by scripts
    /// of this operator, on any Linux with systemd, agents reset hosts; `bundle`: by BYOH's installer, from a bundle.
    #[serde(default)]
    pub method: InstallMethod,
    /// Source of kubelet and kubeadm, for `method: installer`. containerd must be on the hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installer: Option<Installer>,
    /// Source of BYOH's bundles, for `method: bundle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Bundle>,
}

/// How Kubernetes is installed on a host.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum InstallMethod {
    /// It is installed already. Agents run with `--skip-installation`, and do not reset hosts.
    #[default]
    None,
    /// By scripts of this operator, on any Linux with systemd. Agents run without `--skip-installation`, and reset hosts that are
    /// detached.
    Installer,
    /// By BYOH's installer, which pulls a bundle.
    Bundle,
}

/// Source of kubelet and kubeadm. containerd must be on the hosts in any case.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Installer {
    /// `preinstalled`: kubelet and kubeadm are installed already, their version is checked; `files`: in a directory on the host;
    /// `packages`: from a repository, by apt, dnf or yum.
    #[serde(default)]
    pub source: InstallerSource,
    /// Directory with the binaries, for `source: files`.
    #[serde(default)]
    pub files: InstallerFiles,
    /// Package repositories, for `source: packages`. `MINOR` in a URL stands for the minor version, such as `v1.33`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<InstallerPackages>,
}

/// Sources of kubelet and kubeadm.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum InstallerSource {
    /// They are installed already; it is checked that they have the requested version.
    #[default]
    Preinstalled,
    /// They are in a directory on the host, one for each version.
    Files,
    /// apt, dnf or yum installs their packages.
    Packages,
}

/// Binaries in a directory on the host.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct InstallerFiles {
    /// Directory with kubelet, kubeadm and, if wanted, kubectl. `VERSION` stands for the version, such as `v1.33.1`.
    #[serde(default = "files_path")]
    #[schemars(length(min = 1, max = 512), regex(pattern = rules::HOST_PATH_PATTERN))]
    pub path: String,
}

impl Default for InstallerFiles {
    fn default() -> Self {
        Self { path: files_path() }
    }
}

fn files_path() -> String {
    "/opt/kubernetes/VERSION".to_owned()
}

/// Package repositories. `MINOR` in a URL stands for the minor version, such as `v1.33`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct InstallerPackages {
    /// For apt: URL of a flat repository, such as `https://pkgs.k8s.io/core:/stable:/MINOR/deb/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = rules::HOST_URL_PATTERN))]
    pub deb: Option<String>,
    /// For dnf and yum: base URL of a repository, such as `https://pkgs.k8s.io/core:/stable:/MINOR/rpm/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = rules::HOST_URL_PATTERN))]
    pub rpm: Option<String>,
    /// Path on the host of the ASCII-armored public key of the repository. Default: the keys that the host's package manager trusts
    /// already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = rules::HOST_PATH_PATTERN))]
    pub key_file: Option<String>,
}

/// Source of BYOH's bundles.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// OCI repository without scheme; BYOH appends `/byoh-bundle-<os>_k8s:<version>`.
    #[schemars(length(min = 1, max = 512))]
    pub repo: String,
    /// `bundleType` of BYOH's `K8sInstallerConfigTemplate`.
    #[serde(rename = "type", default = "bundle_type")]
    #[schemars(length(min = 1, max = 63))]
    pub type_: String,
}

fn bundle_type() -> String {
    "k8s".to_owned()
}

/// CNI of the clusters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Cni {
    /// Name of a ClusterResourceSet in the request's namespace. The `matchLabels` of its `clusterSelector` are set on the Cluster.
    #[schemars(length(min = 1, max = 253))]
    pub cluster_resource_set: String,
}

/// What provides the address of an endpoint, if no master has it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIp {
    /// `kube-vip`: a static Pod on every master, if controlPlaneEndpoint.host is an IP address (virtual IP); `external`: a load balancer
    /// that exists already.
    #[serde(default)]
    pub provider: VirtualIpProvider,
    /// Image of kube-vip, for `provider: kube-vip`.
    #[serde(default = "kube_vip_image")]
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
}

impl Default for VirtualIp {
    fn default() -> Self {
        Self { provider: VirtualIpProvider::default(), image: kube_vip_image() }
    }
}

fn kube_vip_image() -> String {
    "ghcr.io/kube-vip/kube-vip:v1.2.2".to_owned()
}

/// What provides the address of a control plane's endpoint.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum VirtualIpProvider {
    /// A static Pod on every master, as a virtual IP.
    #[default]
    KubeVip,
    /// A load balancer that exists already.
    External,
}

/// How Kubernetes is upgraded on the hosts of a cluster.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Upgrade {
    /// `InPlace`: on the hosts as they run, and no server is reset; `Rolling`: one host after the other is drained, taken out, reset by its agent, and becomes
    /// a node again, so that the local data of its pods is lost. `Rolling` takes `install.method` `installer` or `bundle`, and three masters or more.
    #[serde(default)]
    pub strategy: UpgradeStrategy,
    /// Versions on the way, for a `k8sVersion` that is more than one minor version newer than the cluster: one of each minor version in between, such as
    /// `v1.34.1`. Without them `k8sVersion` can be one minor version newer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"), length(max = 32), inner(length(max = 64), regex(pattern = rules::RELEASE_PATTERN)))]
    pub versions: Vec<String>,
    /// After what an upgrade waits for the word of the request's owner, which is the annotation `o2ims.provisioning.oran.org/continue`. With
    /// `strategy: Rolling` the masters count as one host.
    #[serde(default)]
    pub pause_after: PauseAfter,
    /// Whether the pods of a worker are evicted before Kubernetes is upgraded on it.
    #[serde(default)]
    pub drain: Drain,
    /// When Kubernetes may be upgraded on a host; what has begun there goes on to its end. Without windows: at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"), length(max = 32))]
    pub windows: Vec<Window>,
}

/// Whether the pods of a worker are evicted before Kubernetes is upgraded on it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drain {
    /// They run on.
    #[default]
    Never,
    /// They are evicted if another worker of the cluster is Ready.
    WhenPossible,
}

/// A maintenance window, in UTC.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.duration) >= duration('1m') && duration(self.duration) <= duration('168h')").message("duration must be from 1m to 168h"))]
pub struct Window {
    /// Days on which it begins. Default: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"), length(max = 7))]
    pub days: Vec<Day>,
    /// Time of day in UTC at which it begins, such as `22:00`.
    #[schemars(length(max = 5), regex(pattern = rules::TIME_OF_DAY_PATTERN))]
    pub start: String,
    /// How long it is, such as `4h`. It may end on a later day.
    #[schemars(extend("pattern" = rules::DURATION_PATTERN, "maxLength" = 32))]
    pub duration: Duration,
}

/// A day of the week.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// How hosts come to another version.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpgradeStrategy {
    /// Kubernetes is upgraded on the hosts as they run.
    #[default]
    InPlace,
    /// Hosts are reset, and become nodes again, one after the other.
    Rolling,
}

/// After what an upgrade waits.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PauseAfter {
    /// It does not wait.
    #[default]
    None,
    /// It waits when every master is upgraded.
    ControlPlane,
    /// It waits after each host.
    EachHost,
}

/// Settings that are passed to kubeadm and Cluster API, in the form of `v1beta2` of Cluster API. Those in the form of `v1beta1` are translated.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Kubeadm {
    /// Merged into the KubeadmControlPlane's `kubeadmConfigSpec`; for example `clusterConfiguration.etcd.external`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub control_plane: Option<Value>,
    /// Merged into the workers' KubeadmConfigTemplate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub workers: Option<Value>,
    /// Annotations of the control plane's Machines.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub control_plane_machine_annotations: BTreeMap<String, String>,
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
