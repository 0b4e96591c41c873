//! A ByoHost that was deleted and registered anew under a running node: BYOH takes it for free. This writes what BYOH and its
//! agent would have written, had it been there all the time, so that nothing is bootstrapped or reset.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use o2ims_types::names;
use serde_json::{Value, json};

use super::host::{
    BOOTSTRAP_SUCCEEDED, ByoHost, INSTALLATION_SUCCEEDED, MACHINE_NAME_LABEL, MACHINE_VERSION_ANNOTATION,
};
use crate::capi::contract::{CLUSTER_NAME_LABEL, VERSION};
use crate::capi::read::Machine;

/// A host that is to be given back to its Machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Reattachment {
    /// Name of the host.
    pub host: String,
    /// The host as it was observed.
    pub resource_version: String,
    /// The ByoMachine.
    pub machine: Value,
    /// Conditions that are True from then on. Before the labels: an agent that saw a machine without them would bootstrap.
    pub conditions: Vec<&'static str>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// What upstream's agent cleans the host with; it reads it from the install Secret only while it installs.
    pub uninstall_script: Option<String>,
}

/// Whose host it is.
pub struct Owner<'a> {
    /// The request's mark.
    pub uid: &'a str,
    /// `namespace/name` of the request.
    pub request: &'a str,
    /// What the host is for.
    pub role: &'a str,
    /// The host's id.
    pub host_id: &'a str,
    /// Name of the cluster.
    pub cluster: &'a str,
    /// Kubernetes version of the node.
    pub version: &'a str,
}

impl Reattachment {
    /// Gives `host` back to `machine`. `scripts`: the agent installs, and cleans with this script where it keeps one.
    pub fn new(host: &ByoHost, machine: &Machine, owner: &Owner<'_>, scripts: Option<Option<String>>) -> Self {
        let namespace = host.namespace().unwrap_or_default();
        let reference = &machine.spec.infrastructure_ref;
        let mut labels = BTreeMap::from([
            (CLUSTER_NAME_LABEL.to_owned(), owner.cluster.to_owned()),
            (MACHINE_NAME_LABEL.to_owned(), format!("{namespace}.{}", reference.name)),
            (names::REQUEST_UID_LABEL.to_owned(), owner.uid.to_owned()),
            (names::ROLE_LABEL.to_owned(), owner.role.to_owned()),
        ]);
        let mut annotations = BTreeMap::from([
            (MACHINE_VERSION_ANNOTATION.to_owned(), owner.version.to_owned()),
            (names::REQUEST_ANNOTATION.to_owned(), owner.request.to_owned()),
        ]);
        if host.host_id().is_none() {
            labels.insert(names::HOST_ID_LABEL.to_owned(), owner.host_id.to_owned());
            annotations.insert(names::HOST_ID_SET_ANNOTATION.to_owned(), "true".to_owned());
        }
        let mut conditions = vec![BOOTSTRAP_SUCCEEDED];
        conditions.extend(scripts.is_some().then_some(INSTALLATION_SUCCEEDED));
        Self {
            host: host.name_any(),
            resource_version: host.metadata.resource_version.clone().unwrap_or_default(),
            machine: json!({
                "apiVersion": format!("infrastructure.cluster.x-k8s.io/{VERSION}"),
                "kind": "ByoMachine",
                "namespace": namespace,
                "name": reference.name,
            }),
            conditions,
            labels,
            annotations,
            uninstall_script: scripts.flatten(),
        }
    }

    /// The first patch, of the status; `now` as in RFC 3339.
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

    /// The second patch, of everything else.
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
