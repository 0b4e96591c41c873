//! Marks: the label `request-uid` and the annotation `request`, by which an object or a host belongs to a request; and what else the
//! operator writes onto hosts and Clusters.

use cluster_api::Kind;
use cluster_api::byoh::{BOOTSTRAP_SUCCEEDED, ByoHost, INSTALLATION_SUCCEEDED};
use cluster_api::cluster::Cluster;
use cluster_api::conditions::Condition;
use cluster_api::labels::CLUSTER_NAME_LABEL;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::Install;
use o2ims_types::{ProvisioningRequest, names};
use operator_kit::write::apply::content_hash;
use serde_json::{Value, json};

use super::desired::DesiredCluster;
use crate::provisioner::step::Manifest;
use crate::request::key;

/// Longest text that is taken from a host into a message, in characters.
const REPORT_MAX: usize = 400;

/// What the operator's marks on a ByoHost say.
pub trait MarkedHost {
    /// UID of the request that holds the host.
    fn holder(&self) -> Option<&str>;
    /// Who holds the host, for messages to another request.
    fn held_reason(&self) -> String;
    /// A request has given the host up, and its agent has not cleaned it since.
    fn was_given_up(&self) -> bool;
    /// Why the host cannot be had, of one that no request holds; `None` when it is free.
    fn busy_reason(&self) -> Option<String>;
    /// The host is held as a master.
    fn is_held_as_master(&self) -> bool;
    /// The server's id.
    fn host_id(&self) -> Option<&str>;
    /// `host 1 (target-1)`, as requests name it.
    fn display(&self) -> String;
    /// The last failure that the agent has reported and has not recovered from.
    fn failure(&self) -> Option<String>;
}

impl MarkedHost for ByoHost {
    fn holder(&self) -> Option<&str> {
        self.labels().get(names::REQUEST_UID_LABEL).map(String::as_str)
    }

    fn held_reason(&self) -> String {
        let holder = self.annotations().get(names::REQUEST_ANNOTATION);
        holder.map_or_else(
            || "is held by another request".to_owned(),
            |holder| format!("is held by ProvisioningRequest {holder}"),
        )
    }

    fn was_given_up(&self) -> bool {
        self.labels().contains_key(names::LOST_LABEL)
    }

    fn busy_reason(&self) -> Option<String> {
        let busy = self.in_use_reason()?;
        if !self.was_given_up() {
            return Some(busy);
        }
        let by = self.annotations().get(names::REQUEST_ANNOTATION).map_or("another request", String::as_str);
        Some(format!(
            "was given up by ProvisioningRequest {by}, and has not come back: switch its server on; when its agent has cleaned it, the host is \
             free"
        ))
    }

    fn is_held_as_master(&self) -> bool {
        self.labels().get(names::ROLE_LABEL).is_some_and(|role| role == names::ROLE_CONTROL_PLANE)
    }

    fn host_id(&self) -> Option<&str> {
        self.labels().get(names::HOST_ID_LABEL).map(String::as_str)
    }

    fn display(&self) -> String {
        format!("host {} ({})", self.host_id().unwrap_or("without id"), self.name_any())
    }

    fn failure(&self) -> Option<String> {
        if let Some(condition) = self.failed(INSTALLATION_SUCCEEDED)
            && condition.reason == "K8sComponentsInstallationFailed"
        {
            return Some(format!("installation of Kubernetes failed: {}", detail(self, condition)));
        }
        let bootstrap = self.failed(BOOTSTRAP_SUCCEEDED)?;
        (bootstrap.severity == "Error").then(|| format!("bootstrap failed: {}", detail(self, bootstrap)))
    }
}

/// The text that the install script wrote onto the host, if there is one: BYOH's agent reports that something failed, but not what.
fn detail(host: &ByoHost, condition: &Condition) -> String {
    match host.annotations().get(names::FAILURE_ANNOTATION) {
        Some(text) => text.chars().filter(|character| !character.is_control()).take(REPORT_MAX).collect(),
        None => condition.explain(),
    }
}

/// What the operator's annotations on a Cluster say.
pub trait MarkedCluster {
    /// The operator is still creating the cluster: the Cluster is paused by the operator, not by a user.
    fn is_creating(&self) -> bool;
    /// How Kubernetes is installed on the hosts, as the cluster was created.
    fn install(&self) -> Option<Install>;
    /// The operator deletes the Cluster although its request is not being deleted.
    fn is_being_torn_down(&self) -> bool;
}

impl MarkedCluster for Cluster {
    fn is_creating(&self) -> bool {
        self.annotations().contains_key(names::CREATING_ANNOTATION)
    }

    fn install(&self) -> Option<Install> {
        serde_json::from_str(self.annotations().get(names::INSTALL_ANNOTATION)?).ok()
    }

    fn is_being_torn_down(&self) -> bool {
        self.annotations().contains_key(names::CLEANING_ANNOTATION)
    }
}

/// The marks on everything that is created for a request.
pub struct Marks<'a> {
    /// Name of the cluster.
    pub cluster: &'a str,
    /// The owner UID of the request: the value of its mark.
    pub uid: &'a str,
    /// `namespace/name` of the request.
    pub request: String,
}

impl<'a> Marks<'a> {
    /// The marks for one request.
    pub fn of(request: &ProvisioningRequest, desired: &'a DesiredCluster, uid: &'a str) -> Self {
        Self { cluster: &desired.cluster, uid, request: key(request) }
    }

    /// The object with the marks.
    pub fn manifest(&self, kind: Kind, mut object: Value) -> Manifest {
        let hash = content_hash(&object);
        let metadata = &mut object["metadata"];
        metadata["labels"][CLUSTER_NAME_LABEL] = json!(self.cluster);
        metadata["labels"][names::REQUEST_UID_LABEL] = json!(self.uid);
        metadata["annotations"][names::REQUEST_ANNOTATION] = json!(self.request);
        metadata["annotations"][names::APPLIED_HASH_ANNOTATION] = json!(hash);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Manifest { kind, name, object, hash }
    }

    /// An immutable template: named after its content, and deleted with the Cluster.
    pub fn template(&self, namespace: &str, kind: Kind, prefix: &str, spec: &Value, cluster_uid: &str) -> Manifest {
        let object = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.name(),
            "metadata": {
                "name": names::hashed(prefix, &content_hash(spec)),
                "namespace": namespace,
                "ownerReferences": [{
                    "apiVersion": Kind::Cluster.api_version(),
                    "kind": Kind::Cluster.name(),
                    "name": self.cluster,
                    "uid": cluster_uid,
                }],
            },
            "spec": spec,
        });
        self.manifest(kind, object)
    }
}
