//! `ByoMachineTemplate`, which chooses hosts, and `K8sInstallerConfigTemplate`, which says where BYOH's bundles are.

use cluster_api::Kind;
use o2ims_types::names;
use o2ims_types::o2ims::v1alpha1::cluster_template::Install;
use serde_json::{Value, json};

/// The spec of a template whose Machines run on the hosts that carry the request's claim and, for a worker, its id.
pub fn machine_template_spec(
    uid: &str,
    namespace: &str,
    role: &str,
    host_id: Option<&str>,
    installer: Option<&str>,
) -> Value {
    let mut labels = json!({names::REQUEST_UID_LABEL: uid, names::ROLE_LABEL: role});
    if let Some(id) = host_id {
        labels[names::HOST_ID_LABEL] = json!(id);
    }
    let mut spec = json!({"selector": {"matchLabels": labels}});
    if let Some(installer) = installer {
        spec["installerRef"] = Kind::K8sInstallerConfigTemplate.object_reference(namespace, installer);
    }
    json!({"template": {"spec": spec}})
}

/// The spec of the installer's template; `None` where Kubernetes is on the hosts already.
pub fn installer_template_spec(install: &Install) -> Option<Value> {
    let bundle = install.bundle.as_ref()?;
    Some(json!({"template": {"spec": {"bundleRepo": bundle.repo, "bundleType": bundle.type_}}}))
}
