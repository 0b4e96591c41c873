//! The exact objects that are made, in the order in which they are applied, and the unit of hosts. `UPDATE_GOLDEN=1` writes the files anew.
//!
//! A change in one of them changes running clusters: a different KubeadmControlPlane or template makes Cluster API
//! replace machines, for which there is no spare host.

use std::fmt::Write as _;
use std::path::Path;

use cluster_api::byoh::ByohVariant;
use o2ims_operator::provisioner::byoh::installer;
use o2ims_operator::provisioner::step::{HostPatch, Step};
use o2ims_types::ProvisioningRequest;
use serde_json::{Value, json};

use crate::model::{World, from, request};

/// Every write from an empty world to a Cluster that runs.
fn written(world: &mut World, request: ProvisioningRequest) -> String {
    world.submit(request);
    let mut text = String::new();
    for _ in 0..10 {
        for step in world.reconcile("one") {
            let (what, object) = match step {
                Step::DryRun(_) => continue,
                Step::AddFinalizer => ("add the finalizer".to_owned(), None),
                Step::PatchHost(HostPatch { host, labels, annotations, .. }) => (
                    format!("mark ByoHost {host}"),
                    Some(json!({"metadata": {"labels": labels, "annotations": annotations}})),
                ),
                Step::Create(manifest) => {
                    (format!("create {} {}", manifest.kind.name(), manifest.name), Some(manifest.object))
                }
                Step::Update(manifest, _) => {
                    (format!("change {} {}", manifest.kind.name(), manifest.name), Some(manifest.object))
                }
                other => panic!("{other:?}"),
            };
            let _ = writeln!(text, "--- # {what}");
            if let Some(object) = object {
                text.push_str(&serde_saphyr::to_string(&object).unwrap());
            }
        }
    }
    text
}

fn compare(name: &str, dialect: ByohVariant, template: Value, request: ProvisioningRequest) -> String {
    let text = written(&mut World::new(dialect, template, 5), request);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/pure/golden/{name}.yaml"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    let line = text.lines().zip(stored.lines()).position(|(new, old)| new != old).unwrap_or_default();
    assert!(
        stored == text,
        "{} differs from line {} on:\n- {}\n+ {}\nUPDATE_GOLDEN=1 writes it anew",
        path.display(),
        line + 1,
        stored.lines().nth(line).unwrap_or_default(),
        text.lines().nth(line).unwrap_or_default()
    );
    text
}

/// The playbook puts the same unit onto hosts as the install script.
#[test]
fn the_playbook_has_the_same_unit() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ansible/roles/unit/files");
    for (name, text) in ["o2ims-host", "o2ims-host.service"].into_iter().zip(installer::unit()) {
        let path = files.join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == text, "{} is not the operator's: UPDATE_GOLDEN=1 writes it anew", path.display());
    }
}

/// It waits until this unit has reported: one of an earlier release has left its own number at the host.
#[test]
fn the_playbook_waits_for_this_unit() {
    let role = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ansible/roles/unit");
    let read = |file: &str| std::fs::read_to_string(role.join(file)).unwrap();
    let [program, _] = installer::unit();
    let is_number = |line: &&str| line.contains("host-unit=$unit") || line.contains(" unit=");
    let lines: Vec<_> = program.lines().filter(is_number).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let number = lines[0].rsplit_once(" unit=").unwrap().1;
    assert!(number.parse::<u32>().is_ok(), "{number:?} is not at the end of its line, where the playbook looks for it");
    let looked_for = "lookup('ansible.builtin.file', role_path ~ '/files/o2ims-host') | regex_search(' unit=([0-9]+)\\\\n', '\\\\1') | first";
    assert!(read("vars/main.yml").contains(&format!("unit_number: \"{{{{ {looked_for} }}}}\"")));
    assert!(read("tasks/main.yml").contains("until: unit_reported.stdout == unit_number\n"));
}

fn three_masters(version: &str) -> ProvisioningRequest {
    let mut request = request("one", "core", &[1, 2, 3], &[4, 5]);
    request.spec.template_parameters.k8s_version = Some(version.to_owned());
    request.spec.template_parameters.control_plane_endpoint = Some(from(json!({"host": "10.0.0.100"})));
    request
}

#[test]
fn one_master_one_worker() {
    let text = compare("one-master-one-worker", ByohVariant::Upstream, json!({}), request("one", "core", &[1], &[2]));
    assert!(!text.contains("kube-vip"));
}

/// The agent renders file contents as a template that knows one variable: any other pair of braces breaks the node.
#[test]
fn three_masters_two_workers() {
    let text = compare("three-masters-v1.33", ByohVariant::Upstream, json!({}), three_masters("v1.33.1"));
    assert_eq!((text.matches("{{").count(), text.matches("}}").count()), (1, 1));
    assert!(text.contains("{{ .DefaultNetworkInterfaceName }}"));
}

/// Which patches of which minor versions do without is not to be guessed.
#[test]
fn three_masters_need_the_super_admin_at_first() {
    for version in ["v1.29.0", "v1.32.2", "v1.33.1", "v1.34.0", "v1.40.0"] {
        let text = written(&mut World::new(ByohVariant::Upstream, json!({}), 5), three_masters(version));
        let commands: Vec<_> = text.lines().filter(|line| line.contains("super-admin.conf")).collect();
        let [after, before] = commands[..] else { panic!("{version}: {commands:?}") };
        assert!(before.contains("#path: /etc/kubernetes/super-admin.conf#"), "{before}");
        assert!(after.contains("#path: /etc/kubernetes/admin.conf#"), "{after}");
    }
}

/// Before 1.29 there is no super-admin.conf, and the admin's is good enough.
#[test]
fn three_masters_of_1_28_do_not() {
    let text = written(&mut World::new(ByohVariant::Upstream, json!({}), 5), three_masters("v1.28.15"));
    assert!(text.contains("kube-vip") && !text.contains("super-admin"));
}

#[test]
fn bundle() {
    let install = json!({"install": {"method": "bundle", "bundle": {"repo": "registry.example.org/byoh"}}});
    let text = compare("bundle", ByohVariant::Platform9, install, request("one", "core", &[1], &[2]));
    assert_eq!(text.matches("installerRef").count(), 2);
}

#[test]
fn external_etcd() {
    let etcd = json!({"external": {
        "endpoints": ["https://10.0.0.50:2379"],
        "caFile": "/etc/kubernetes/pki/etcd/ca.crt",
        "certFile": "/etc/kubernetes/pki/apiserver-etcd-client.crt",
        "keyFile": "/etc/kubernetes/pki/apiserver-etcd-client.key"
    }});
    let kubeadm = json!({
        "controlPlane": {"clusterConfiguration": {"etcd": etcd}, "preKubeadmCommands": ["echo before"]},
        "workers": {"joinConfiguration": {"nodeRegistration": {"kubeletExtraArgs": {"max-pods": "250"}}}},
        "controlPlaneMachineAnnotations": {"machine.cluster.x-k8s.io/certificates-expiry": "2030-01-01T00:00:00Z"}
    });
    compare("external-etcd", ByohVariant::Upstream, json!({"kubeadm": kubeadm}), request("one", "core", &[1], &[2]));
}
