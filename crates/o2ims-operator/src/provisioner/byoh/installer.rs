//! Install and uninstall scripts of this operator's own, for any Linux with systemd and containerd.
//!
//! They reach the agent in a Secret that the ByoHost names. BYOH also takes an installer behind `installerRef`, a pair of
//! kinds for template and configuration; that would be two more CRDs for the same two scripts. A host gets a Secret each time when BYOH has
//! attached it to a machine, for that machine's version, so an upgrade needs nothing else.

use cluster_api::byoh::{ByoHost, ByohVariant};
use kube::ResourceExt as _;
use o2ims_types::names;
use o2ims_types::o2ims::v1alpha1::cluster_template::{Installer, InstallerSource};
use serde_json::{Value, json};

use crate::provisioner::step::InstallScripts;

const COMMON: &str = include_str!("installer/common.sh");
const CLEAN_HOST: &str = include_str!("installer/clean_host.sh");
/// How packages come from a repository; for jobs too.
pub const PACKAGES: &str = include_str!("installer/packages.sh");
const INSTALL: &str = include_str!("installer/install.sh");
const UNINSTALL: &str = include_str!("installer/uninstall.sh");
/// The program of the unit that runs jobs on a host.
const UNIT: &str = include_str!("upgrade/scripts/unit.sh");
/// How it makes support bundles.
const SUPPORT: &str = include_str!("upgrade/scripts/support.sh");
/// The unit itself.
const SERVICE: &str = include_str!("upgrade/scripts/o2ims-host.service");
/// How it reads when certificates end.
const DATES: &str = include_str!("upgrade/scripts/dates.sh");

/// The install scripts that a host lacks which BYOH has just attached to a machine of the cluster; `None` if it lacks none.
pub fn install_scripts(
    host: &ByoHost,
    cluster: &str,
    installer: &Installer,
    pods: &[String],
    variant: ByohVariant,
    uid: &str,
) -> Option<InstallScripts> {
    // Agents can write these, and not only on their own host; what follows is run by root.
    let version = host.machine_version().filter(|text| is_plain(text))?;
    let machine = host.machine_name().filter(|text| is_plain(text))?;
    // platform9's BYOH regards a host without a machine as cleaned, and deletes the Secrets that it names.
    let is_attached = host.is_in_service_of(cluster) && host.status.machine_ref.is_some();
    let has_scripts = host.spec.installation_secret.is_some() || host.spec.uninstallation_secret.is_some();
    if !is_attached || has_scripts {
        return None;
    }
    let (namespace, name) = (host.namespace()?, host.name_any());
    let pods = networks(pods);
    let values = Values { installer, version, machine, namespace: &namespace, host: &name, pods };
    let secret_name = names::install_secret(&name, machine);
    let mut secret = empty_secret(host, machine, uid)?;
    secret["stringData"] =
        json!({"install": values.fill(&format!("{PACKAGES}{INSTALL}")), "uninstall": values.fill(UNINSTALL)});
    let former = host.annotations().get(names::INSTALL_SECRET_ANNOTATION);
    Some(InstallScripts {
        resource_version: host.metadata.resource_version.clone().unwrap_or_default(),
        replaces: former.filter(|former| **former != secret_name).cloned(),
        host: name,
        name: secret_name,
        secret,
        has_uninstallation_secret: variant == ByohVariant::Platform9,
    })
}

/// The Secret with the install scripts of a host for a machine, without the scripts.
pub fn empty_secret(host: &ByoHost, machine: &str, uid: &str) -> Option<Value> {
    // A name of its own for each machine: a deletion that is meant for the former one cannot hit it.
    secret_of(host, &names::install_secret(&host.name_any(), machine), uid)
}

/// A Secret of this name, without data, that is deleted with the host.
pub fn secret_of(host: &ByoHost, name: &str, uid: &str) -> Option<Value> {
    Some(json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": name, "namespace": host.namespace()?,
            "labels": {names::REQUEST_UID_LABEL: uid},
            "ownerReferences": [{
                "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "ByoHost",
                "name": host.name_any(), "uid": host.uid().unwrap_or_default(),
            }],
        },
    }))
}

/// What cleans a host of this machine, for a host whose agent has lost it; `None` for values that no script may contain.
pub fn uninstall_script(
    host: &ByoHost,
    machine: &str,
    version: &str,
    installer: &Installer,
    pods: &[String],
) -> Option<String> {
    let namespace = host.namespace()?;
    let pods = networks(pods);
    let values = Values { installer, version, machine, namespace: &namespace, host: &host.name_any(), pods };
    (is_plain(machine) && is_plain(version)).then(|| values.fill(UNINSTALL))
}

/// Networks as a script takes them.
fn networks(pods: &[String]) -> String {
    let is_network =
        |text: &&String| text.chars().all(|character| character.is_ascii_hexdigit() || ".:/".contains(character));
    pods.iter().filter(is_network).cloned().collect::<Vec<_>>().join(" ")
}

/// Whether no character is in it that a shell or a Go template would read.
pub fn is_plain(text: &str) -> bool {
    text.chars().all(|character| character.is_ascii_alphanumeric() || "-._+".contains(character))
}

/// No path or URL has a character that a shell or a Go template would read. The CRD's patterns see to that in a
/// ClusterTemplate; nothing does in an annotation.
pub fn is_sound(installer: &Installer) -> bool {
    let packages = installer.packages.iter();
    let places = packages.flat_map(|all| [&all.deb, &all.rpm, &all.key_file]).flatten().chain([&installer.files.path]);
    places
        .flat_map(|place| place.chars())
        .all(|character| character.is_ascii_alphanumeric() || "-._+/:~%".contains(character))
}

/// The program of the unit that runs jobs on a host, and the unit. `@NAMESPACE@` and `@HOST@` stand for those of the host, `@HOME@` for the home of root.
pub fn unit() -> [String; 2] {
    let program = UNIT.replace("@DATES@", DATES.trim_end()).replace("@SUPPORT@", SUPPORT.trim_end());
    [program, SERVICE.to_owned()]
}

/// What is filled into a script. [`is_plain`] and [`is_sound`] keep it from being read as anything else.
struct Values<'a> {
    installer: &'a Installer,
    version: &'a str,
    machine: &'a str,
    namespace: &'a str,
    host: &'a str,
    pods: String,
}

/// Where a script finds this version of Kubernetes, as the marks in it and what stands in their places.
pub fn sources(installer: &Installer, version: &str) -> [(&'static str, String); 6] {
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
        ("@SOURCE@", source.to_owned()),
        ("@FILES@", installer.files.path.replace("VERSION", version)),
        ("@DEB@", repository(packages.deb)),
        ("@RPM@", repository(packages.rpm)),
        ("@KEY@", packages.key_file.unwrap_or_default()),
    ]
}

impl Values<'_> {
    fn fill(&self, script: &str) -> String {
        let [program, service] = unit();
        let service = service.trim_end().replace("@HOME@", "${HOME:-/root}");
        let of_host = [
            ("@MACHINE@", self.machine.to_owned()),
            ("@NAMESPACE@", self.namespace.to_owned()),
            ("@HOST@", self.host.to_owned()),
            ("@PODS@", self.pods.clone()),
        ];
        let text = format!("{COMMON}{CLEAN_HOST}{script}");
        let text = text.replace("@UNIT@", program.trim_end()).replace("@SERVICE@", &service);
        let values = sources(self.installer, self.version).into_iter().chain(of_host);
        values.fold(text, |text, (mark, value)| text.replace(mark, &value))
    }
}
