//! The dry run: before a host is claimed, the API server is asked whether it would create what the cluster then needs. A misspelt setting of
//! a ClusterTemplate, a missing right of the operator, a policy or a used-up quota is so found while the host is still free.

use std::collections::BTreeSet;

use cluster_api::Kind;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::core::ApiResource;
use o2ims_types::o2ims::v1alpha1::cluster_template::InstallMethod;
use operator_kit::text;

use super::desired::{DesiredCluster, RequestedHost};
use super::marks::Marks;
use super::observed::{Observed, Phase};
use super::{create, installer, maintain};
use crate::provisioner::step::{DryRun, Manifest, Setting, Step};

/// What the API server is asked before hosts are claimed: about one object of each kind that is to be created. Those of one kind differ in
/// names and numbers only, so a cluster of 400 workers costs no more than one of two.
pub fn dry_run(desired: &DesiredCluster, observed: &Observed, marks: &Marks<'_>) -> Vec<Step> {
    let is_free = |requested: &RequestedHost| observed.host(&requested.name).is_some_and(|host| !observed.holds(host));
    let hosts: Vec<_> = desired
        .hosts()
        .filter(|(requested, _)| is_free(requested))
        .map(|(requested, _)| requested.to_string())
        .collect();
    let hosts = text::list(&hosts, ", ");
    let mut kinds = BTreeSet::new();
    let objects = missing(desired, observed, marks).into_iter().filter(|manifest| kinds.insert(manifest.kind));
    let mut dry_runs: Vec<_> = objects.map(|manifest| of_part(manifest, desired, &hosts)).collect();
    if !dry_runs.is_empty() && desired.install.method == InstallMethod::Installer {
        dry_runs.extend(of_install_secret(desired, observed, &hosts));
    }
    dry_runs.into_iter().map(Step::DryRun).collect()
}

/// What is created once the hosts are held.
fn missing(desired: &DesiredCluster, observed: &Observed, marks: &Marks<'_>) -> Vec<Manifest> {
    // The Cluster that a template belongs to may not exist yet. Nothing of a dry run is stored, so any UID does.
    let owner = observed.own_cluster().and_then(|cluster| cluster.uid()).unwrap_or_else(|| observed.uid.clone());
    let manifests = create::manifests(desired, &observed.uid, marks, &owner);
    let exists = |manifest: &Manifest| observed.owned.contains_key(&(manifest.kind, manifest.name.clone()));
    match observed.phase {
        Phase::Absent => {
            let cluster = create::new_cluster(desired, marks);
            [cluster].into_iter().chain(manifests).filter(|manifest| !exists(manifest)).collect()
        }
        Phase::Creating => manifests.into_iter().filter(|manifest| !exists(manifest)).collect(),
        Phase::Running => {
            let needed = maintain::still_needed(&manifests, observed);
            let steps = maintain::maintain(desired, observed, &needed).into_iter();
            steps.filter_map(|step| if let Step::Create(manifest) = step { Some(manifest) } else { None }).collect()
        }
        Phase::Lost | Phase::Foreign | Phase::TearingDown | Phase::Deleting => Vec::new(),
    }
}

fn of_part(manifest: Manifest, desired: &DesiredCluster, hosts: &str) -> DryRun {
    let template = desired.template.name_any();
    let settings: &[_] = match manifest.kind {
        Kind::KubeadmControlPlane => &[
            ("spec.kubeadmConfigSpec", "spec.kubeadm.controlPlane"),
            ("spec.machineTemplate.metadata.annotations", "spec.kubeadm.controlPlaneMachineAnnotations"),
        ],
        Kind::KubeadmConfigTemplate => &[("spec.template.spec", "spec.kubeadm.workers")],
        _ => &[],
    };
    let setting = |(path, source): &(&'static str, &str)| Setting {
        path,
        source: format!("{source} of ClusterTemplate {template}"),
    };
    DryRun {
        resource: manifest.kind.api_resource(),
        object: manifest.object,
        may_exist: false,
        hosts: hosts.to_owned(),
        settings: settings.iter().map(setting).collect(),
    }
}

/// The Secret with the install scripts of a host, without the scripts.
fn of_install_secret(desired: &DesiredCluster, observed: &Observed, hosts: &str) -> Option<DryRun> {
    let host = desired.hosts().find_map(|(requested, _)| observed.host(&requested.name))?;
    // No Machine exists yet, so the Secret has the cluster's name in place of it.
    let object = installer::empty_secret(host, &desired.cluster, &observed.uid)?;
    let resource = ApiResource::erase::<Secret>(&());
    Some(DryRun { resource, object, may_exist: true, hosts: hosts.to_owned(), settings: Vec::new() })
}
