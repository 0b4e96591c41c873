//! Which version of Kubernetes may follow another one on the same hosts, how it gets there, and which hosts are passed over.

use cluster_api::byoh::ByoHost;
use cluster_api::labels::has_pause_annotation;
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::InstallMethod;
use o2ims_types::{ClusterTemplate, ProvisioningRequest, names};
use semver::Version;

use super::job::Purpose;
use super::strategy;
use super::version::{is_same, parse};
use crate::provisioner::byoh::desired::DesiredCluster;
use crate::provisioner::byoh::give_up;
use crate::provisioner::byoh::observed::Observed;
use crate::request::requested_hosts;

/// With fewer masters etcd cannot lose a member.
pub const QUORUM_SIZE: usize = 3;

/// Why a cluster cannot go from one version to another, and what to do; `None` if it can.
pub fn refusal(
    request: &ProvisioningRequest,
    from: &str,
    to: &str,
    template: &ClusterTemplate,
    observed: &Observed,
) -> Option<String> {
    if from == to {
        return None;
    }
    let back = format!("set k8sVersion back to {from}");
    let told = |why: &str, remedy: &str| Some(format!("k8sVersion cannot change from {from} to {to}: {why}; {remedy}"));
    if let Some((why, remedies)) = impossible_strategy(request, template, observed) {
        return told(&why, &[remedies, vec![back]].concat().join(", or "));
    }
    let (Some(old), Some(new)) = (parse(from), parse(to)) else { return told("one of them is no version", &back) };
    if (new.major, new.minor) < (old.major, old.minor) {
        return told("Kubernetes has no way back to an older minor version", &back);
    }
    // A copy from before an upgrade is no consent to take it back.
    if new < old && request.uid().as_deref() != Some(observed.uid.as_str()) {
        return told("this request was restored from a backup that is older than its cluster", &back);
    }
    let oldest = oldest(request, observed).unwrap_or_else(|| old.clone());
    let is_listed = |minor: &u64| on_the_way(&new, *minor, template).is_some();
    if let Some(minor) = (oldest.minor + 1..new.minor).find(|minor| new.major != old.major || !is_listed(minor)) {
        let next = format!(
            "add a v{0}.{minor} to spec.upgrade.versions of the ClusterTemplate, set k8sVersion to a v{0}.{minor} first, or back to {from}",
            old.major
        );
        return told("Kubernetes is upgraded by one minor version at a time", &next);
    }
    let newer = observed.machines.iter().find_map(|machine| {
        let runs = parse(&machine.status.node_info.kubelet_version)?;
        (runs.minor > new.minor).then(|| (machine.server().unwrap_or_default().to_owned(), runs))
    });
    let (host, runs) = newer?;
    told(
        &format!("host {host} runs v{runs} already, and Kubernetes has no way back to an older minor version"),
        &format!("set k8sVersion to v{runs}"),
    )
}

/// Why the cluster cannot be upgraded in the way that its template says, and what helps.
fn impossible_strategy(
    request: &ProvisioningRequest,
    template: &ClusterTemplate,
    observed: &Observed,
) -> Option<(String, Vec<String>)> {
    let method = observed.install().method;
    if method == InstallMethod::None {
        let why = "with install.method none nothing installs another version on the hosts";
        return Some((why.to_owned(), Vec::new()));
    }
    let name = template.name_any();
    let to = target(request, template, observed);
    if !strategy::is_rolling(request, to.as_deref(), template, observed) {
        let why = "only clusters with install.method installer can be upgraded in place";
        let remedy = format!(
            "set spec.upgrade.strategy Rolling in ClusterTemplate {name}, which resets one server after the other"
        );
        return (method != InstallMethod::Installer).then(|| (why.to_owned(), vec![remedy]));
    }
    let masters = request.spec.template_parameters.hosts.as_ref().map_or(0, |hosts| hosts.masters.len());
    (masters < QUORUM_SIZE).then(|| {
        let why = format!(
            "with spec.upgrade.strategy Rolling of ClusterTemplate {name} each master is reset, and this cluster would not outlive that: it has {masters} of \
             them, and needs {QUORUM_SIZE}"
        );
        let in_place = (method == InstallMethod::Installer).then(|| "set strategy InPlace there".to_owned());
        let more = format!("first have {QUORUM_SIZE} masters in hosts.masters");
        (why, in_place.into_iter().chain([more]).collect())
    })
}

/// Whether Cluster API replaces this master because of its version, or is about to be asked to.
pub fn is_replaced(machine: &Machine, desired: &DesiredCluster, observed: &Observed) -> bool {
    let Some(control_plane) = &observed.control_plane else { return false };
    let to = desired.target.as_deref().filter(|_| desired.is_rolling);
    let wanted = to.unwrap_or(&control_plane.spec.version);
    machine.is_master() && machine.was_a_node() && machine.spec.version.as_deref() != Some(wanted)
}

/// Whether an upgrade passes over the host of this Machine: its owner has called it lost, its node does not answer, and the cluster can do without it.
pub fn is_passed_over(request: &ProvisioningRequest, machine: &Machine, observed: &Observed) -> bool {
    let is_called_lost = |server: &str| give_up::named(request).any(|name| name == server);
    let is_lost = |machine: &Machine| machine.server().is_some_and(is_called_lost) && give_up::is_silent(machine);
    if !is_lost(machine) || !machine.is_master() {
        return is_lost(machine);
    }
    let masters: Vec<_> = observed.machines.iter().filter(|machine| machine.is_master()).collect();
    let lost = masters.iter().filter(|machine| is_lost(machine)).count();
    2 * lost < masters.len()
}

/// The version that the cluster gets next, on the way to the one that the request names; `None` if it names none. Every host gets it before the next one
/// begins.
pub fn target(request: &ProvisioningRequest, template: &ClusterTemplate, observed: &Observed) -> Option<String> {
    let asked = request.spec.template_parameters.k8s_version.as_ref()?;
    let stop = oldest(request, observed)
        .zip(parse(asked))
        .and_then(|(oldest, new)| on_the_way(&new, oldest.minor + 1, template));
    Some(stop.map_or_else(|| asked.clone(), |stop| format!("v{stop}")))
}

/// The versions that the cluster gets before the one that the request names.
pub fn stops(request: &ProvisioningRequest, template: &ClusterTemplate, observed: &Observed) -> Vec<String> {
    let asked = request.spec.template_parameters.k8s_version.as_deref().and_then(parse);
    let Some((oldest, asked)) = oldest(request, observed).zip(asked) else { return Vec::new() };
    let minors = oldest.minor + 1..asked.minor;
    minors.filter_map(|minor| on_the_way(&asked, minor, template)).map(|stop| format!("v{stop}")).collect()
}

/// The newest of the template's versions that has this minor version and comes before the version that is asked for.
fn on_the_way(asked: &Version, minor: u64, template: &ClusterTemplate) -> Option<Version> {
    let listed = template.spec.upgrade.versions.iter().filter_map(|version| parse(version));
    listed.filter(|version| version.major == asked.major && version.minor == minor && minor < asked.minor).max()
}

/// The oldest version that the control plane or the Machine of a node has whose host the request names.
fn oldest(request: &ProvisioningRequest, observed: &Observed) -> Option<Version> {
    let control_plane = observed.control_plane.as_ref().filter(|_| observed.is_created);
    let nodes = requested_hosts(request).filter_map(|(host, _)| observed.node(host.name()));
    let nodes = nodes.filter(|machine| !is_passed_over(request, machine, observed));
    let nodes = nodes.filter_map(|machine| parse(machine.spec.version.as_deref()?));
    control_plane.and_then(|object| parse(&object.spec.version)).into_iter().chain(nodes).min()
}

/// A master on which an upgrade has begun, while Cluster API's objects do not follow yet: a master that joined then would have the older version.
/// One that Cluster API replaces, or that is passed over, is none.
pub fn half_upgraded<'a>(request: &ProvisioningRequest, observed: &'a Observed) -> Option<&'a str> {
    let control_plane = observed.control_plane.as_ref()?;
    let (version, is_paused) = (control_plane.spec.version.as_str(), has_pause_annotation(control_plane.as_ref()));
    let has_begun = |host: &ByoHost| {
        let machine = host.machine_name().unwrap_or_default();
        let id =
            host.annotations().get(names::JOB_ANNOTATION).and_then(|job| job.split(' ').next()).unwrap_or_default();
        let purpose = Purpose::Upgrade.name();
        // The job of the last upgrade stays on the host.
        id.starts_with(purpose)
            && names::is_job_of(id, machine)
            && names::job_attempt(id, purpose, version, machine).is_none()
    };
    let differs = |machine: &&Machine| {
        let (runs, has) = (&machine.status.node_info.kubelet_version, machine.spec.version.as_deref());
        is_paused && has != Some(version)
            || !runs.is_empty() && !is_same(runs, has.unwrap_or(version))
            || machine.server().and_then(|name| observed.host(name)).is_some_and(has_begun)
    };
    let masters = observed.machines.iter().map(AsRef::as_ref).filter(|machine| machine.is_master());
    let nodes = masters.filter(|machine| machine.status.node_ref.is_some());
    nodes.filter(|machine| !is_passed_over(request, machine, observed)).find(differs)?.server()
}
