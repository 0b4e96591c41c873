//! The versions of what is built from other projects. They stand here only: everything else that names one is made from
//! this list, or compared with it by the test `versions` of the crate `acceptance`.

use anyhow::{Context as _, Result};

/// Kubernetes, on management clusters and on hosts.
pub const KUBERNETES: &str = "v1.36.3";
/// The versions of Kubernetes that can be built instead.
pub const KUBERNETES_OTHERS: [&str; 4] = ["v1.37.2", "v1.35.4", "v1.34.4", "v1.33.13"];
/// The newest Kubernetes that all of [`CLUSTER_API_BEFORE`] were released for.
const WITH_THOSE_BEFORE: &str = KUBERNETES_OTHERS[1];
/// The oldest Kubernetes that a management cluster may have.
pub const OLDEST_KUBERNETES: &str = "v1.33.0";
/// etcd, of the minor version that kubeadm asks for, and its tools.
pub const ETCD: &str = "v3.6.16";
/// etcd for Kubernetes 1.37 and 1.33, whose kubeadm asks for other minor versions.
pub const ETCD_OTHERS: [&str; 2] = ["v3.7.3", "v3.5.24"];
/// `CoreDNS`, the cluster DNS of workload clusters, for every Kubernetes.
pub const COREDNS: &str = "v1.14.2";
/// kube-vip, the virtual IP of several masters.
pub const KUBE_VIP: &str = "v1.2.2";
/// containerd with its shim and ctr, for hosts of any distribution.
pub const CONTAINERD: &str = "v2.4.2";
/// runc, beside that containerd.
pub const RUNC: &str = "v1.5.3";
/// crictl, beside that containerd.
pub const CRICTL: &str = "v1.37.0";
/// The CNI project's programs, beside that containerd.
pub const CNI_PLUGINS: &str = "v1.10.0";
/// Cluster API and clusterctl.
pub const CLUSTER_API: &str = "v1.14.2";
/// The versions of Cluster API before it that can be used instead.
pub const CLUSTER_API_BEFORE: [&str; 2] = ["v1.13.6", "v1.12.10"];
/// The released BYOH.
pub const BYOH: &str = "v0.5.0";
/// What clusterctl's inventory says of BYOH from a checkout. A checkout does not name its version, so it has the one
/// that all forks come from.
pub(crate) const BYOH_CHECKOUT: &str = "v0.5.0+checkout";
/// cert-manager, in bundles.
pub const CERT_MANAGER: &str = "v1.21.2";
/// Helm.
pub const HELM: &str = "v4.3.2";
/// Flux's source-controller and kustomize-controller. v1.10 and later need Go 1.27.
pub const FLUX: &str = "v1.9.6";
/// The library with kstatus, as Flux's kustomize-controller has it.
pub const KSTATUS: &str = "v1.2.3";
/// Argo CD, of which the CRD of Applications is taken. v3.6 and later need Go 1.27, even to be downloaded.
pub const ARGO_CD: &str = "v3.5.7";
/// Prometheus, of which promtool is taken: its long-term release. Its Go module of 3.13 is called v0.313.
pub const PROMETHEUS: &str = "v3.13.5";
/// OpenTelemetry's Collector.
pub const COLLECTOR: &str = "v0.165.0";
/// kubeconform.
pub const KUBECONFORM: &str = "v0.8.0";
/// govulncheck, which finds known holes.
pub const GOVULNCHECK: &str = "v1.9.0";
/// The Go that builds all but the container runtime: the newest that a `go.mod` asks for.
pub const GO: &str = "v1.26.4";
/// The Go that builds the container runtime too.
pub const GO_WITH_RUNTIME: &str = "v1.26.8";
/// The Lua of Argo CD's health scripts.
pub const LUA: &str = "v1.1.2";

/// The minor version of a version: `1.14` of `v1.14.2`.
pub fn minor(version: &str) -> &str {
    let version = version.trim_start_matches('v');
    version.match_indices('.').nth(1).and_then(|(end, _)| version.get(..end)).unwrap_or(version)
}

/// The minor versions of Kubernetes and Cluster API that are tested together beside the defaults: each Kubernetes with the
/// default Cluster API, and each Cluster API before that with a Kubernetes that it was released for.
pub fn combinations() -> impl Iterator<Item = (&'static str, &'static str)> {
    let kubernetes = KUBERNETES_OTHERS.into_iter().map(|kubernetes| (minor(kubernetes), minor(CLUSTER_API)));
    let cluster_api = CLUSTER_API_BEFORE.into_iter().map(|cluster_api| (minor(WITH_THOSE_BEFORE), minor(cluster_api)));
    kubernetes.chain(cluster_api)
}

/// The release that a variable of the environment names by its minor version, or else the first one.
///
/// # Errors
/// When the environment names one that is not there.
pub(crate) fn from_environment<T>(
    variable: &str,
    project: &str,
    releases: &'static [&'static T],
    version: impl Fn(&T) -> &'static str,
) -> Result<&'static T> {
    let wanted = std::env::var(variable).ok().filter(|minor| !minor.is_empty());
    let fits = |release: &&&T| wanted.as_ref().is_none_or(|wanted| minor(version(release)) == wanted);
    releases.iter().find(fits).copied().with_context(|| {
        let known: Vec<_> = releases.iter().map(|release| minor(version(release))).collect();
        let wanted = wanted.as_deref().unwrap_or_default();
        format!("{variable}={wanted} is no version of {project} that can be used: {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_version_is_cut_out() {
        assert_eq!(["v1.14.2", "v0.36.0-flux.15", "v1.14"].map(minor), ["1.14", "0.36", "1.14"]);
    }
}
