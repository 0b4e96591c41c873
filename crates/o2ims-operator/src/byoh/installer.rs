//! Install and uninstall scripts of this operator's own, for any Linux with systemd and containerd.
//!
//! They reach the agent in a Secret that the ByoHost names. BYOH also takes an installer behind `installerRef`, a pair of
//! kinds for template and configuration; that would be two more CRDs for the same two scripts. The Secret is given to a
//! host each time when BYOH has given it to a machine, for that machine's version, so an upgrade needs nothing else.

use kube::ResourceExt as _;
use o2ims_types::cluster_template::{Installer, InstallerSource};
use o2ims_types::names;
use serde_json::{Value, json};

use super::host::ByoHost;
use super::installation::Dialect;

const COMMON: &str = include_str!("installer/common.sh");
const INSTALL: &str = include_str!("installer/install.sh");
const UNINSTALL: &str = include_str!("installer/uninstall.sh");

/// A host that is to be given its scripts.
#[derive(Clone, Debug, PartialEq)]
pub struct Equipment {
    /// Name of the host.
    pub host: String,
    /// The host as it was observed.
    pub resource_version: String,
    /// The Secret, as it is applied.
    pub secret: Value,
    /// Only platform9's BYOH has a field for the uninstall script of its own.
    pub has_uninstallation_secret: bool,
}

/// What a host that BYOH has just given to a machine of the cluster still lacks; `None` if that is nothing.
pub fn equipment(
    host: &ByoHost,
    cluster: &str,
    installer: &Installer,
    pods: Option<&str>,
    dialect: Dialect,
    uid: &str,
) -> Option<Equipment> {
    let version = host.machine_version()?;
    // platform9's BYOH takes a host without a machine for one that has been cleaned, and deletes what it names.
    let is_given = host.is_kept_by(cluster) && host.status.machine_ref.is_some();
    let wants = is_given && host.spec.installation_secret.is_none();
    let namespace = host.namespace()?;
    wants.then(|| {
        let name = host.name_any();
        let owner = json!({
            "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "ByoHost",
            "name": name, "uid": host.uid().unwrap_or_default(),
        });
        let fill = |script: &str| fill(script, installer, version, &namespace, &name, pods.unwrap_or_default());
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {
                "name": names::install_secret(&name), "namespace": namespace,
                "labels": {names::REQUEST_UID_LABEL: uid},
                "ownerReferences": [owner],
            },
            "stringData": {"install": fill(INSTALL), "uninstall": fill(UNINSTALL)},
        });
        Equipment {
            host: name,
            resource_version: host.metadata.resource_version.clone().unwrap_or_default(),
            secret,
            has_uninstallation_secret: dialect == Dialect::Platform9,
        }
    })
}

/// Fills in a script. All values have been checked to have no character that a shell or a Go template would read.
fn fill(script: &str, installer: &Installer, version: &str, namespace: &str, host: &str, pods: &str) -> String {
    let minor = version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    let source = match installer.source {
        InstallerSource::Preinstalled => "preinstalled",
        InstallerSource::Files => "files",
        InstallerSource::Packages => "packages",
    };
    let packages = installer.packages.clone().unwrap_or_default();
    let repository = |url: Option<String>| url.unwrap_or_default().replace("MINOR", &minor);
    [
        ("@VERSION@", version.to_owned()),
        ("@NAMESPACE@", namespace.to_owned()),
        ("@HOST@", host.to_owned()),
        ("@SOURCE@", source.to_owned()),
        ("@FILES@", installer.files.path.replace("VERSION", version)),
        ("@DEB@", repository(packages.deb)),
        ("@RPM@", repository(packages.rpm)),
        ("@KEY@", packages.key_file.unwrap_or_default()),
        ("@PODS@", pods.to_owned()),
    ]
    .into_iter()
    .fold(format!("{COMMON}{script}"), |text, (mark, value)| text.replace(mark, &value))
}

/// The fields of a host that name its scripts, once their Secret has this UID.
pub fn references(equipment: &Equipment, uid: &str) -> Value {
    let metadata = &equipment.secret["metadata"];
    let reference =
        json!({"apiVersion": "v1", "kind": "Secret", "namespace": metadata["namespace"], "name": metadata["name"]});
    let mut spec = json!({"installationSecret": reference});
    if equipment.has_uninstallation_secret {
        spec["uninstallationSecret"] = reference;
    }
    json!({
        "metadata": {
            "resourceVersion": equipment.resource_version,
            "annotations": {names::INSTALL_SECRET_ANNOTATION: uid},
        },
        "spec": spec,
    })
}
