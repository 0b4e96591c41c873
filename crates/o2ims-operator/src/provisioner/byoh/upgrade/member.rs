//! A host of a request that is a node of its cluster, and the jobs that it is given.

use cluster_api::byoh::ByoHost;
use cluster_api::control_plane::KubeadmControlPlane;
use cluster_api::machine::Machine;
use o2ims_types::names;
use serde_json::Value;

use super::job::{Job, Purpose, Standing};
use super::version::{is_older, is_same};
use crate::provisioner::byoh::desired::{DesiredCluster, RequestedHost};

/// kubeadm's check that every master is Ready (`CheckClusterHealth` of its `health.go`).
const ALL_MASTERS_READY: &str = "ControlPlaneNodesReady";

/// A host of the request that is a node.
pub struct Member<'a> {
    /// The request.
    pub desired: &'a DesiredCluster,
    /// The control plane of its cluster.
    pub control_plane: &'a KubeadmControlPlane,
    /// As the request names it.
    pub requested: &'a RequestedHost,
    /// Its role.
    pub role: &'static str,
    /// Its ByoHost.
    pub host: &'a ByoHost,
    /// Its Machine.
    pub machine: &'a Machine,
    /// It is the master that kubeadm upgrades the cluster's configuration on.
    pub is_first: bool,
    /// A master is passed over.
    pub misses_master: bool,
}

impl Member<'_> {
    /// A job of this host.
    pub fn job<'a>(&'a self, purpose: Purpose, to: &'a str) -> Job<'a> {
        Job {
            purpose,
            host: self.host,
            machine: self.host.machine_name().unwrap_or_default(),
            role: self.role,
            is_first: self.is_first,
            masters: self.desired.masters.len(),
            from: self.runs_or_has(),
            to,
            installer: self.desired.install.installer.clone().unwrap_or_default(),
            ignored: self.ignored_checks(),
            snapshot: "",
            drain: None,
        }
    }

    /// The checks of kubeadm whose errors the cluster ignores. What is set for masters is in their control plane; for workers in the template.
    fn ignored_checks(&self) -> Vec<&str> {
        let settings = &self.control_plane.spec.kubeadm_config_spec;
        let of_masters = [&settings.init_configuration, &settings.join_configuration];
        let of_masters = of_masters.into_iter().flat_map(|node| &node.node_registration.ignore_preflight_errors);
        let template = self.desired.template.spec.kubeadm.workers.as_ref();
        let of_workers = template.map(|all| &all["joinConfiguration"]["nodeRegistration"]["ignorePreflightErrors"]);
        let of_workers = of_workers.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let mut checks: Vec<_> =
            if self.is_master() { of_masters.map(String::as_str).collect() } else { of_workers.collect() };
        if self.is_first && self.misses_master {
            checks.push(ALL_MASTERS_READY);
        }
        checks.sort_unstable();
        checks.dedup();
        checks
    }

    /// The version that its Machine has.
    pub fn version(&self) -> &str {
        self.machine.spec.version.as_deref().unwrap_or_default()
    }

    /// Whether its kubelet has this version.
    pub fn runs(&self, version: &str) -> bool {
        is_same(&self.machine.status.node_info.kubelet_version, version)
    }

    /// The version that it is upgraded from: of a master that was passed over only the Machine has the new one.
    pub fn runs_or_has(&self) -> &str {
        if self.is_master_behind_its_machine() {
            return &self.machine.status.node_info.kubelet_version;
        }
        self.version()
    }

    fn is_master_behind_its_machine(&self) -> bool {
        self.is_master() && is_older(&self.machine.status.node_info.kubelet_version, self.version())
    }

    /// Whether it is still to be brought to a version: its Machine has another one; it is a master that was passed over; or its node has another one, or will
    /// have, because of a job. Another kubelet that somebody has changed by hand is not the operator's to change back.
    pub fn is_behind(&self, to: &str) -> bool {
        if self.is_master_behind_its_machine() {
            return true;
        }
        let checked = self.job(Purpose::Preflight, to);
        if self.version() != to || !checked.is_of_upgrade() {
            return self.version() != to;
        }
        let runs_another = !self.machine.status.node_info.kubelet_version.is_empty() && !self.runs(to);
        let has_a_job = self.job(Purpose::Upgrade, to).standing().1 != Standing::Done;
        has_a_job && runs_another || checked.is_delayed()
    }

    /// Whether it was brought to this version by its job.
    pub fn has_run(&self, to: &str) -> bool {
        self.runs(to) && self.job(Purpose::Upgrade, to).standing().1 == Standing::Done
    }

    /// Whether it is a master.
    pub fn is_master(&self) -> bool {
        self.role == names::ROLE_CONTROL_PLANE
    }
}
