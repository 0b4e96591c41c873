//! How a cluster comes to the version that its request asks for: in place, or by having its hosts reset. The strategy of the template is recorded on the
//! Cluster, with that version, when the edit is first carried out, and the record stays until every host has the version: no server is reset because of a
//! change of the template alone. A record is changed from `Rolling` to `InPlace` when the template is, and back by an edit of the version only.

use std::collections::BTreeMap;

use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use cluster_api::labels::has_pause_annotation;
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::{InstallMethod, UpgradeStrategy};
use o2ims_types::{ClusterTemplate, ProvisioningRequest, names};

use super::job::{self, Purpose};
use super::version::is_same;
use crate::provisioner::byoh::desired::DesiredCluster;
use crate::provisioner::byoh::observed::Observed;
use crate::provisioner::step::Step;

/// Whether a cluster has not got the version yet that its request asks for: its control plane, or the Machine of a node, has another one.
pub fn is_under_way(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let Some(asked) = &request.spec.template_parameters.k8s_version else { return false };
    let control_plane = observed.control_plane.as_ref().filter(|_| observed.is_created);
    let mut machines = observed.machines.iter().filter(|machine| machine.was_a_node());
    control_plane.is_some_and(|object| {
        object.spec.version != *asked || machines.any(|machine| machine.spec.version.as_ref() != Some(asked))
    })
}

/// Whether the record of an upgrade is on the Cluster: not every host has the version yet.
pub fn is_recorded(observed: &Observed) -> bool {
    recorded(observed).is_some()
}

/// The record: the version that the request asked for, and the strategy.
fn recorded(observed: &Observed) -> Option<(&str, UpgradeStrategy)> {
    let cluster = observed.own_cluster()?;
    let (version, strategy) = cluster.annotations().get(names::UPGRADE_STRATEGY_ANNOTATION)?.split_once(' ')?;
    let is_rolling = strategy == format!("{:?}", UpgradeStrategy::Rolling);
    Some((version, if is_rolling { UpgradeStrategy::Rolling } else { UpgradeStrategy::InPlace }))
}

/// Whether the cluster comes to this version by having its hosts reset. What was begun in place is finished in place, and what Cluster API has begun to
/// replace is replaced, whatever the template says by then.
pub fn is_rolling(
    request: &ProvisioningRequest,
    to: Option<&str>,
    template: &ClusterTemplate,
    observed: &Observed,
) -> bool {
    let Some(to) = to.filter(|_| observed.install().method != InstallMethod::None) else { return false };
    let differs = |machine: &Machine| machine.spec.version.as_deref() != Some(to);
    let is_begun = || {
        let control_plane = observed.control_plane.as_ref();
        control_plane.is_some_and(|object| object.spec.version == to && !has_pause_annotation(object.as_ref()))
            && observed.machines.iter().any(|machine| machine.is_master() && differs(machine))
    };
    (is_chosen(request, to, template, observed) || is_begun()) && !is_begun_in_place(to, observed)
}

/// Whether the owner of the request has asked for a version, with a template by which hosts are reset for it. Where some hosts have another version than
/// others, an edit of the version goes on as the one before.
fn is_chosen(request: &ProvisioningRequest, to: &str, template: &ClusterTemplate, observed: &Observed) -> bool {
    let asked = request.spec.template_parameters.k8s_version.as_deref().unwrap_or(to);
    let counts = |version: &str| version == asked || is_mixed(observed);
    let before = recorded(observed).filter(|(version, _)| counts(version)).map(|(_, strategy)| strategy);
    let all = before.into_iter().chain([template.spec.upgrade.strategy]);
    all.into_iter().all(|strategy| strategy == UpgradeStrategy::Rolling)
}

/// Whether a host that is to get this version has a job for it.
fn is_begun_in_place(to: &str, observed: &Observed) -> bool {
    let has_job = |host: &ByoHost| {
        let jobs = [Purpose::Preflight, Purpose::Upgrade].into_iter();
        jobs.filter_map(|purpose| job::given(purpose, host)).any(|(version, ..)| version == to)
    };
    let differs = |machine: &Machine| machine.spec.version.as_deref() != Some(to);
    observed.held().any(|host| has_job(host) && observed.machine_of(host).is_some_and(differs))
}

/// Whether a node, or its Machine, has another version than the control plane.
fn is_mixed(observed: &Observed) -> bool {
    let Some(control_plane) = &observed.control_plane else { return false };
    let kubelets = observed.machines.iter().map(|machine| machine.status.node_info.kubelet_version.as_str());
    let machines = observed.machines.iter().filter_map(|machine| machine.spec.version.as_deref());
    let mut all = kubelets.filter(|version| !version.is_empty()).chain(machines);
    all.any(|version| !is_same(version, &control_plane.spec.version))
}

/// Writes, changes or removes the record.
pub fn record(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Option<Step> {
    let (cluster, to) = (observed.own_cluster()?, desired.target.as_deref()?);
    let asked = request.spec.template_parameters.k8s_version.as_deref()?;
    let has = cluster.annotations().get(names::UPGRADE_STRATEGY_ANNOTATION);
    let is_upgraded = |machine: &Machine| is_same(&machine.status.node_info.kubelet_version, asked);
    let is_left = || desired.hosts().any(|(host, _)| observed.node(&host.name).is_none_or(|node| !is_upgraded(node)));
    let is_under_way = is_under_way(request, observed);
    let wanted = (is_under_way || has.is_some() && is_left()).then(|| {
        let is_rolling = is_chosen(request, to, &desired.template, observed) && !is_begun_in_place(to, observed);
        let strategy = if is_rolling { UpgradeStrategy::Rolling } else { UpgradeStrategy::InPlace };
        format!("{asked} {strategy:?}")
    });
    (wanted.as_ref() != has).then(|| Step::Annotate {
        kind: Kind::Cluster,
        name: cluster.name_any(),
        uid: cluster.uid().unwrap_or_default(),
        resource_version: None,
        annotations: BTreeMap::from([(names::UPGRADE_STRATEGY_ANNOTATION.to_owned(), wanted)]),
    })
}
