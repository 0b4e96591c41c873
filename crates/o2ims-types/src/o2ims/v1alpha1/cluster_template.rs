//! `ClusterTemplate`: what an O-Cloud offers, and how it makes it. Published by the platform operator, either in the
//! namespace of the requests or, for all namespaces, in the operator's namespace.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::timeouts::Timeouts;
use crate::rules;

/// A kind of cluster that can be asked for, by name and version.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "o2ims.provisioning.oran.org",
    version = "v1alpha1",
    kind = "ClusterTemplate",
    namespaced,
    shortname = "ct",
    category = "o2ims",
    doc = "What an O-Cloud offers: parameters with defaults, how Kubernetes gets onto a host, the CNI, time limits, kubeadm settings.",
    derive = "PartialEq",
    printcolumn(name = "Name", type_ = "string", json_path = ".spec.name"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Install", type_ = "string", json_path = ".spec.install.method"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Description", type_ = "string", priority = 1, json_path = ".spec.description")
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterTemplateSpec {
    /// Name that requests give as `templateName`.
    #[schemars(length(min = 1, max = 120))]
    pub name: String,
    /// Version that requests give as `templateVersion`.
    #[schemars(length(min = 1, max = 60))]
    pub version: String,
    /// What the template is for, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub description: String,
    /// JSON Schema of `templateParameters`, checked after `defaults` are filled in. Default: everything is allowed that
    /// the ProvisioningRequest itself allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub parameter_schema: Option<Value>,
    /// Values for `templateParameters` that a request leaves out; objects are merged, everything else is replaced whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub defaults: Option<Value>,
    /// How Kubernetes gets onto a host.
    #[serde(default)]
    pub install: Install,
    /// Pod network of the clusters. Without one their nodes never become Ready, unless somebody else applies it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cni: Option<Cni>,
    /// Virtual address of control planes with three or more masters.
    #[serde(default)]
    pub virtual_ip: VirtualIp,
    /// Whether new requests are protected from deletion: one that has no annotation
    /// `o2ims.provisioning.oran.org/deletion-protection` is given it with the value `true`.
    #[serde(default)]
    pub deletion_protection: bool,
    /// Time limits of the stages.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Settings that are handed on to kubeadm and Cluster API.
    #[serde(default)]
    pub kubeadm: Kubeadm,
}

/// How Kubernetes gets onto a host.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.method != 'bundle' || has(self.bundle)").message("install.bundle is required with install.method bundle"),
    validation = Rule::new("self.method != 'installer' || !has(self.installer) || self.installer.source != 'packages' || has(self.installer.packages)").message("install.installer.packages is required with install.installer.source packages"),
)]
pub struct Install {
    /// How Kubernetes gets onto a host.
    #[serde(default)]
    pub method: InstallMethod,
    /// Where Kubernetes comes from, for `method: installer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installer: Option<Installer>,
    /// Where BYOH's bundles are, for `method: bundle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Bundle>,
}

/// The ways in which Kubernetes gets onto a host.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum InstallMethod {
    /// It is there already, and hosts are not cleaned when they are let go; agents run with `--skip-installation`.
    #[default]
    None,
    /// By scripts of this operator, on any Linux with systemd; hosts are reset when they are let go. Agents run without
    /// `--skip-installation`.
    Installer,
    /// BYOH's installer pulls a bundle.
    Bundle,
}

/// Where Kubernetes comes from. containerd is expected on the hosts in any case.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Installer {
    /// The kind of source.
    #[serde(default)]
    pub source: InstallerSource,
    /// Where the programs are, for `source: files`.
    #[serde(default)]
    pub files: InstallerFiles,
    /// Where the packages are, for `source: packages`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<InstallerPackages>,
}

/// Kinds of sources.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum InstallerSource {
    /// kubelet and kubeadm are installed; that they have the asked-for version is checked.
    #[default]
    Preinstalled,
    /// kubelet and kubeadm are in a folder on the host, one per version.
    Files,
    /// apt, dnf or yum installs the packages kubelet and kubeadm.
    Packages,
}

/// Programs in a folder on the host.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct InstallerFiles {
    /// The folder of kubelet, kubeadm and kubectl; `VERSION` stands for the version, such as `v1.33.13`.
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

/// Package repositories. `MINOR` stands for the minor version, such as `v1.33`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct InstallerPackages {
    /// For apt: a URL of a flat repository, such as `https://pkgs.k8s.io/core:/stable:/MINOR/deb/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = rules::HOST_URL_PATTERN))]
    pub deb: Option<String>,
    /// For dnf and yum: a base URL, such as `https://pkgs.k8s.io/core:/stable:/MINOR/rpm/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = rules::HOST_URL_PATTERN))]
    pub rpm: Option<String>,
    /// A file on the host with the key that signs the packages, armored. Without one the host's own keys have to do.
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
    /// Type of the bundle, as BYOH has it.
    #[serde(rename = "type", default = "bundle_type")]
    #[schemars(length(min = 1, max = 63))]
    pub type_: String,
}

fn bundle_type() -> String {
    "k8s".to_owned()
}

/// Pod network of the clusters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Cni {
    /// Name of a ClusterResourceSet in the request's namespace. The labels that it selects are put on the Cluster.
    #[schemars(length(min = 1, max = 253))]
    pub cluster_resource_set: String,
}

/// Virtual address of control planes with three or more masters.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIp {
    /// Who carries the address.
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
    "ghcr.io/kube-vip/kube-vip:v0.9.1".to_owned()
}

/// Who carries a control plane's virtual address.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum VirtualIpProvider {
    /// A static pod on every master.
    #[default]
    KubeVip,
    /// A load balancer that exists already.
    External,
}

/// Settings that are handed on to kubeadm and Cluster API (`cluster.x-k8s.io/v1beta1` field names).
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
