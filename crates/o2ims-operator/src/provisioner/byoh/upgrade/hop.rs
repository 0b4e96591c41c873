//! Which version of Kubernetes may follow another one on the same hosts.

use kube::ResourceExt as _;
use o2ims_types::ProvisioningRequest;
use o2ims_types::o2ims::v1alpha1::cluster_template::InstallMethod;
use semver::Version;

use crate::provisioner::byoh::observed::Observed;

/// Why a cluster cannot go from one version to another, and what to do; `None` if it can.
pub fn refusal(request: &ProvisioningRequest, from: &str, to: &str, observed: &Observed) -> Option<String> {
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
    if new.major != old.major || new.minor > old.minor + 1 {
        let next = format!("set k8sVersion to a v{}.{} first, or back to {from}", old.major, old.minor + 1);
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

/// A version as Kubernetes writes it, such as `v1.33.1`.
pub fn parse(version: &str) -> Option<Version> {
    Version::parse(version.strip_prefix('v')?).ok()
}

/// Whether two versions are the same; what the builder of a distribution adds after `+` does not count.
pub fn is_same(one: &str, other: &str) -> bool {
    let plain = |version: &str| version.split('+').next().unwrap_or_default().to_owned();
    plain(one) == plain(other)
}
