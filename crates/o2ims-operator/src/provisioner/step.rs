//! The writes and dry runs that a plan consists of, as data. [`crate::apply`] carries them out.

use std::collections::BTreeMap;

use cluster_api::Kind;
use kube::core::ApiResource;
use kube::{Resource, ResourceExt as _};
use o2ims_types::names;
use serde_json::{Value, json};

/// One write, or a dry run.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Protects a new request from deletion, as its template wants it.
    Protect,
    /// Adds the finalizer: before the first effect outside of the request.
    AddFinalizer,
    /// Removes the finalizer: after the last effect is undone.
    RemoveFinalizer,
    /// Removes the finalizer and leaves everything else as it is.
    Orphan,
    /// Removes annotations of the request, if it is still as it was observed.
    RemoveAnnotations(Vec<&'static str>),
    /// Sets (`Some`) or removes (`None`) labels and annotations of a host, if it is still as it was observed.
    PatchHost(HostPatch),
    /// Gives a host its install scripts, if it is still as it was observed.
    GiveInstallScripts(InstallScripts),
    /// Gives a host a job, if it is still as it was observed.
    GiveJob(JobOrder),
    /// Asks the API server whether it would create an object that is created after the next claims.
    DryRun(DryRun),
    /// Creates an object; it must not exist.
    Create(Manifest),
    /// Applies an object again; it must be the one with this UID.
    Update(Manifest, String),
    /// Restores marks of the manifest that were removed from the object; it must be the one with this UID.
    RestoreMarks(Manifest, String),
    /// Deletes an object; it must be the one with this UID.
    Delete {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// It must also be as it was observed: nodes are deleted with it, and it may just have been paused.
        resource_version: Option<String>,
    },
    /// Creates the Cluster again, if this part of it exists.
    RecreateCluster {
        /// The Cluster; it must not exist.
        manifest: Manifest,
        /// Kind, name and UID of the part.
        part: (Kind, String, String),
    },
    /// Attaches a host that was registered again to its Machine, if it is still as it was observed.
    Reattach(Reattachment),
    /// Sets (`Some`) or removes (`None`) annotations of an object; it must be the one with this UID.
    Annotate {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// It must also be as it was observed, where another client may set the same annotation.
        resource_version: Option<String>,
        /// The annotations.
        annotations: BTreeMap<String, Option<String>>,
    },
    /// Sets fields of an object that Cluster API has made, to what its node runs already.
    Adopt {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// The fields, as a merge patch.
        fields: Value,
    },
    /// Sets fields of an object's spec and leaves the rest as it is; it must be the one with this UID.
    PatchSpec {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// The fields.
        spec: Value,
    },
}

/// Labels and annotations of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPatch {
    /// Name of the host.
    pub host: String,
    /// The host as it was observed.
    pub resource_version: String,
    /// Labels to set or to remove.
    pub labels: BTreeMap<String, Option<String>>,
    /// Annotations to set or to remove.
    pub annotations: BTreeMap<String, Option<String>>,
    /// What becomes of the Secret with its install scripts, before.
    pub install_secret: Option<InstallSecret>,
}

/// What becomes of the Secret with a host's install scripts, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstallSecret {
    /// It is deleted.
    Delete(String),
    /// It loses the mark of the request, so that it is not deleted with it: the agent still needs the uninstall script.
    Keep(String),
}

/// An object as it is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// All of it, marks included.
    pub object: Value,
    /// Hash of it without marks.
    pub hash: String,
}

/// An object that the API server is asked about before hosts are claimed for it.
#[derive(Clone, Debug, PartialEq)]
pub struct DryRun {
    /// Its kind.
    pub resource: ApiResource,
    /// All of it.
    pub object: Value,
    /// It is applied whether or not it exists.
    pub may_exist: bool,
    /// The hosts that are not claimed before, for messages.
    pub hosts: String,
    /// Where a user has set parts of it.
    pub settings: Vec<Setting>,
}

/// A part of an object that a user has set elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The part.
    pub path: &'static str,
    /// Where it is set, for messages: `spec.kubeadm.workers of ClusterTemplate edge-v1`.
    pub source: String,
}

/// A host that is to get its install scripts.
#[derive(Clone, Debug, PartialEq)]
pub struct InstallScripts {
    /// Name of the host.
    pub host: String,
    /// The host as it was observed.
    pub resource_version: String,
    /// Name of the Secret.
    pub name: String,
    /// The Secret, as it is applied.
    pub secret: Value,
    /// The Secret of an earlier machine, which is deleted.
    pub replaces: Option<String>,
    /// The host has a field for the uninstall script of its own (platform9's BYOH only).
    pub has_uninstallation_secret: bool,
}

/// A host that is to get a job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobOrder {
    /// Name of the host.
    pub host: String,
    /// The host as it was observed.
    pub resource_version: String,
    /// The Secret with the job, as it is applied.
    pub secret: Value,
    /// The annotation that names the job.
    pub job: String,
}

/// A host that is to be attached to its Machine again.
#[derive(Clone, Debug, PartialEq)]
pub struct Reattachment {
    /// Name of the host.
    pub host: String,
    /// The host as it was observed.
    pub resource_version: String,
    /// Reference to the ByoMachine.
    pub machine: Value,
    /// Conditions that are True from then on. Before the labels: an agent that saw a machine without them would bootstrap.
    pub conditions: Vec<&'static str>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// The script that upstream's agent cleans the host with; it reads it from the install Secret only while it installs.
    pub uninstall_script: Option<String>,
}

impl Manifest {
    /// The merge patch that sets everything in the manifest, and removes what a Cluster has only until it is created.
    pub fn as_merge_patch(&self) -> Value {
        let metadata = &self.object["metadata"];
        let (labels, mut annotations) = (metadata["labels"].clone(), metadata["annotations"].clone());
        let mut spec = self.object["spec"].clone();
        if self.kind == Kind::Cluster {
            // In a merge patch null removes a field.
            for (fields, name) in [(&mut spec, "paused"), (&mut annotations, names::CREATING_ANNOTATION)] {
                if fields[name].is_null() {
                    fields[name] = Value::Null;
                }
            }
        }
        json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": spec})
    }
}

impl InstallScripts {
    /// The patch of the host's fields that name its scripts, if the host is still at this resource version.
    pub fn references(&self, resource_version: &str) -> Value {
        let namespace = &self.secret["metadata"]["namespace"];
        let reference = json!({"apiVersion": "v1", "kind": "Secret", "namespace": namespace, "name": self.name});
        let mut spec = json!({"installationSecret": reference});
        if self.has_uninstallation_secret {
            spec["uninstallationSecret"] = reference;
        }
        json!({"metadata": {"resourceVersion": resource_version}, "spec": spec})
    }
}

impl Reattachment {
    /// The patch of the status, which is made first; `now` as in RFC 3339.
    pub fn status(&self, now: &str) -> Value {
        let conditions: Vec<_> = self
            .conditions
            .iter()
            .map(|type_| json!({"type": type_, "status": "True", "lastTransitionTime": now}))
            .collect();
        json!({
            "metadata": {"resourceVersion": self.resource_version},
            "status": {"machineRef": self.machine, "conditions": conditions},
        })
    }

    /// The patch of everything else.
    pub fn fields(&self, resource_version: &str) -> Value {
        let mut patch = json!({"metadata": {
            "resourceVersion": resource_version, "labels": self.labels, "annotations": self.annotations,
        }});
        if let Some(script) = &self.uninstall_script {
            patch["spec"] = json!({"uninstallationScript": script});
        }
        patch
    }
}

impl Step {
    /// Deletes an object with which nodes are deleted: it must also be as it was observed.
    pub fn delete_with_nodes<K: Resource<DynamicType = ()>>(kind: Kind, object: &K) -> Self {
        let meta = object.meta();
        Self::Delete {
            kind,
            name: object.name_any(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_ends_the_creation_of_a_cluster() {
        let manifest = |kind: Kind, spec: Value| Manifest {
            kind,
            name: "core".to_owned(),
            object: json!({"metadata": {"name": "core", "labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": spec}),
            hash: String::new(),
        };
        let creating = names::CREATING_ANNOTATION;
        assert_eq!(
            manifest(Kind::Cluster, json!({"clusterNetwork": {}})).as_merge_patch(),
            json!({
                "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d", creating: null}},
                "spec": {"clusterNetwork": {}, "paused": null},
            })
        );
        assert_eq!(
            manifest(Kind::KubeadmControlPlane, json!({"replicas": 1})).as_merge_patch(),
            json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {"replicas": 1}})
        );
    }
}
