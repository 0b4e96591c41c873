//! Which version of Kubernetes may follow another one on the same hosts.

use cluster_api::byoh::ByoHost;
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::InstallMethod;
use o2ims_types::{ClusterTemplate, ProvisioningRequest, names};
use semver::Version;

use super::job::Purpose;
use crate::provisioner::byoh::observed::Observed;
use crate::request::requested_hosts;

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
    if observed.install().method != InstallMethod::Installer {
        return told("only clusters with install.method installer can be upgraded", &back);
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

/// The version that the cluster gets next, on the way to the one that the request names; `None` if it names none. Every host gets it before the next one
/// begins.
pub fn target(request: &ProvisioningRequest, template: &ClusterTemplate, observed: &Observed) -> Option<String> {
    let asked = request.spec.template_parameters.k8s_version.as_ref()?;
    let stop = oldest(request, observed)
        .zip(parse(asked))
        .and_then(|(oldest, new)| on_the_way(&new, oldest.minor + 1, template));
    Some(stop.map_or_else(|| asked.clone(), |stop| format!("v{stop}")))
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
    let nodes = nodes.filter_map(|machine| parse(machine.spec.version.as_deref()?));
    control_plane.and_then(|object| parse(&object.spec.version)).into_iter().chain(nodes).min()
}

/// A master on which an upgrade has begun, while Cluster API's objects do not follow yet: a master that joined then would have the older version.
pub fn half_upgraded(observed: &Observed) -> Option<&str> {
    let version = observed.control_plane.as_ref().map(|object| object.spec.version.as_str())?;
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
        let runs = &machine.status.node_info.kubelet_version;
        machine.spec.version.as_deref() != Some(version)
            || !runs.is_empty() && !is_same(runs, version)
            || machine.server().and_then(|name| observed.host(name)).is_some_and(has_begun)
    };
    let masters = observed.machines.iter().map(AsRef::as_ref).filter(|machine| machine.is_master());
    masters.filter(|machine| machine.status.node_ref.is_some()).find(differs)?.server()
}

/// A version as Kubernetes writes it, such as `v1.33.1`.
pub fn parse(version: &str) -> Option<Version> {
    Version::parse(version.strip_prefix('v')?).ok()
}

/// Whether two versions are the same; what the builder of a distribution adds after `+` does not count.
pub fn is_same(one: &str, other: &str) -> bool {
    let plain = |version: &str| version.split('+').next().unwrap_or_default().to_owned();
    plain(one) == plain(other)
}
