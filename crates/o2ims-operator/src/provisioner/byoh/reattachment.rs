//! Reattachment of a ByoHost that was deleted and registered again while its node runs: BYOH regards it as not in use. This writes what BYOH
//! and its agent had written on the deleted ByoHost, so that nothing is bootstrapped or reset.

use std::collections::BTreeMap;

use cluster_api::Kind;
use cluster_api::byoh::{
    BOOTSTRAP_SUCCEEDED, ByoHost, INSTALLATION_SUCCEEDED, MACHINE_NAME_LABEL, MACHINE_VERSION_ANNOTATION,
};
use cluster_api::labels::CLUSTER_NAME_LABEL;
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::names;

use super::marks::MarkedHost as _;
use crate::provisioner::step::Reattachment;

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

/// The scripts that the agent of a host has run or keeps.
pub enum AgentScripts {
    /// Kubernetes was there before the agent.
    None,
    /// The agent has installed Kubernetes.
    Installed {
        /// The script that it cleans the host with, if it keeps one.
        uninstall: Option<String>,
    },
}

/// Attaches `host` to `machine` again.
pub fn reattachment(host: &ByoHost, machine: &Machine, owner: &Owner<'_>, scripts: AgentScripts) -> Reattachment {
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
    let uninstall_script = match scripts {
        AgentScripts::None => None,
        AgentScripts::Installed { uninstall } => {
            conditions.push(INSTALLATION_SUCCEEDED);
            uninstall
        }
    };
    Reattachment {
        host: host.name_any(),
        resource_version: host.metadata.resource_version.clone().unwrap_or_default(),
        machine: Kind::ByoMachine.reference(&namespace, &reference.name),
        conditions,
        labels,
        annotations,
        uninstall_script,
    }
}
