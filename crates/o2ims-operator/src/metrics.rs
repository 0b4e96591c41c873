//! Metrics of requests and hosts. What exists is counted in the caches whenever the metrics are read; how long something took is observed by
//! the leader when it writes that it has ended, so once.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_api::byoh::ByoHost;
use cluster_api::machine::Machine;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::reflector::Store;
use o2ims_types::conditions::{self, reason};
use o2ims_types::{ProvisioningRequest, ProvisioningRequestStatus, ProvisioningState};
use operator_kit::metrics::{Metrics as ProcessMetrics, Sample, count_all, count_by};
use operator_kit::write::status::find;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::provisioner::byoh::certificates::dates;
use crate::provisioner::byoh::marks::MarkedHost as _;

/// What has a time limit.
const LIMITED: [&str; 3] = [conditions::CONTROL_PLANE_READY, conditions::WORKERS_READY, DELETION];
/// Not a condition: the deletion as a whole.
const DELETION: &str = "Deletion";
/// Reasons of the condition Stalled.
const STALLED_REASONS: [&str; 4] =
    [reason::INVALID, reason::DEADLINE_EXCEEDED, reason::CLUSTER_MISSING, reason::CONTROL_PLANE_LOST];
/// States of a host, in the words of the glossary.
const HOST_STATES: [&str; 4] = ["free", "held", "in_use", "cleaning"];

type Stage = [(&'static str, &'static str); 1];

/// What is observed of requests.
pub struct Metrics {
    provisioning: Histogram,
    stages: Family<Stage, Histogram, fn() -> Histogram>,
    deletion: Histogram,
    exceeded: Family<Stage, Counter>,
}

/// 1 s to 4.5 h.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 15))
}

impl Metrics {
    /// Registers all of them.
    pub fn new(
        process: &ProcessMetrics,
        requests: &Store<ProvisioningRequest>,
        hosts: &Store<ByoHost>,
        machines: &Store<Machine>,
    ) -> Self {
        count_requests(process, requests);
        let all = hosts.clone();
        process.register_computed("hosts", "ByoHosts by state", move || count_hosts(&all));
        let (all, nodes) = (hosts.clone(), machines.clone());
        let help = "When the first certificate of clusters' control planes, or of hosts' agents, expires, in seconds since 1970";
        process.register_computed("certificate_expiry_timestamp_seconds", help, move || earliest_expiry(&all, &nodes));

        let stages: Family<Stage, Histogram, fn() -> Histogram> = Family::new_with_constructor(histogram);
        let metrics = Self { provisioning: histogram(), stages, deletion: histogram(), exceeded: Family::default() };
        // Series are there before there is anything to count, so that the first failure is seen as an increase.
        for stage in conditions::STAGES {
            metrics.stages.get_or_create_owned(&[("stage", stage)]);
        }
        for stage in LIMITED {
            metrics.exceeded.get_or_create_owned(&[("stage", stage)]);
        }
        let help = "Time from the creation of a request until it was first fulfilled";
        process.register("provisioning_duration_seconds", help, metrics.provisioning.clone());
        let help = "Time that a stage was in progress or blocked, before the request was first fulfilled";
        process.register("stage_duration_seconds", help, metrics.stages.clone());
        let help = "Time from the deletion of a request until everything of it was torn down";
        process.register("deletion_duration_seconds", help, metrics.deletion.clone());
        process.register("deadline_exceeded", "Time limits that were exceeded", metrics.exceeded.clone());
        metrics
    }

    /// This status was written for the request, which is as it was before.
    pub fn status_written(&self, request: &ProvisioningRequest, new: &ProvisioningRequestStatus) {
        let Some(old) = &request.status else { return };
        let is_first = was_never_ready(&old.conditions);
        for stage in conditions::STAGES {
            let Some((before, now)) = find(&old.conditions, stage).zip(find(&new.conditions, stage)) else { continue };
            if now.reason == reason::DEADLINE_EXCEEDED && before.reason != reason::DEADLINE_EXCEEDED {
                self.exceeded.get_or_create(&[("stage", stage)]).inc();
            }
            if is_first && before.status == "False" && now.status == "True" {
                let took = seconds(&before.last_transition_time, &now.last_transition_time);
                self.stages.get_or_create(&[("stage", stage)]).observe(took);
            }
        }
        if deletion_takes_too_long(new) && !deletion_takes_too_long(old) {
            self.exceeded.get_or_create(&[("stage", DELETION)]).inc();
        }
        let ready = find(&new.conditions, conditions::READY).filter(|ready| is_first && ready.status == "True");
        if let (Some(ready), Some(created)) = (ready, &request.metadata.creation_timestamp) {
            self.provisioning.observe(seconds(created, &ready.last_transition_time));
        }
    }

    /// Everything that was created for the request is torn down, and its finalizer was removed.
    pub fn deletion_finished(&self, request: &ProvisioningRequest, now: Timestamp) {
        if let Some(begun) = &request.metadata.deletion_timestamp {
            self.deletion.observe(seconds(begun, &Time(now)));
        }
    }
}

fn seconds(from: &Time, to: &Time) -> f64 {
    // The clock of the API server may be ahead.
    to.0.duration_since(from.0).as_secs_f64().max(0.0)
}

/// Whether the request was never fulfilled. Ready is then False since the first status, and no condition is older. Once Ready was True, it is
/// younger than the conditions of the stages that were done before.
pub(crate) fn was_never_ready(conditions: &[Condition]) -> bool {
    find(conditions, conditions::READY).is_some_and(|ready| {
        ready.status == "False"
            && conditions.iter().all(|other| ready.last_transition_time <= other.last_transition_time)
    })
}

fn deletion_takes_too_long(status: &ProvisioningRequestStatus) -> bool {
    status.provisioning_status.provisioning_state == ProvisioningState::Deleting
        && stalled_reason(status) == Some(reason::DEADLINE_EXCEEDED)
}

/// The reason of the condition Stalled, if it is True.
fn stalled_reason(status: &ProvisioningRequestStatus) -> Option<&str> {
    let stalled = find(&status.conditions, conditions::STALLED).filter(|stalled| stalled.status == "True");
    stalled.map(|stalled| stalled.reason.as_str())
}

fn is_degraded(status: &ProvisioningRequestStatus) -> bool {
    find(&status.conditions, conditions::DEGRADED).is_some_and(|degraded| degraded.status == "True")
}

fn count_requests(process: &ProcessMetrics, requests: &Store<ProvisioningRequest>) {
    let all = requests.clone();
    process.register_computed("requests", "ProvisioningRequests by provisioningState", move || {
        let states = all.state().into_iter().map(|request| {
            request.status.as_ref().map(|status| status.provisioning_status.provisioning_state).unwrap_or_default()
        });
        count_by("state", &ProvisioningState::ALL.map(ProvisioningState::name), states.map(ProvisioningState::name))
    });
    let all = requests.clone();
    process.register_computed("requests_stalled", "ProvisioningRequests that are stalled, by reason", move || {
        let all = all.state();
        count_by("reason", &STALLED_REASONS, all.iter().filter_map(|request| stalled_reason(request.status.as_ref()?)))
    });
    let all = requests.clone();
    process.register_computed("requests_degraded", "ProvisioningRequests with something wrong", move || {
        count_all(all.state().iter().filter(|request| request.status.as_ref().is_some_and(is_degraded)))
    });
}

/// Of each host one state, and whether its agent is alive as far as that is known.
fn count_hosts(hosts: &Store<ByoHost>) -> Vec<Sample<2>> {
    let states = HOST_STATES.into_iter().flat_map(|state| [(state, "true"), (state, "false")]);
    let mut counts: BTreeMap<_, f64> = states.map(|labels| (labels, 0.0)).collect();
    for host in hosts.state() {
        let alive = if host.not_alive_reason().is_none() { "true" } else { "false" };
        *counts.entry((host_state(&host), alive)).or_default() += 1.0;
    }
    counts.into_iter().map(|((state, alive), count)| ([("state", state), ("alive", alive)], count)).collect()
}

fn host_state(host: &ByoHost) -> &'static str {
    if host.is_unregistering() {
        "cleaning"
    } else if host.in_use_reason().is_some() {
        "in_use"
    } else if host.holder().is_some() {
        "held"
    } else {
        "free"
    }
}

/// The first end of each kind. A host that reports its own dates knows better than its Machine.
fn earliest_expiry(hosts: &Store<ByoHost>, machines: &Store<Machine>) -> Vec<Sample<1>> {
    let hosts = hosts.state();
    let reported: BTreeMap<_, _> = hosts.iter().filter_map(|host| Some((host_key(host), dates(host)?))).collect();
    let is_read = |machine: &Arc<Machine>| {
        machine.metadata.deletion_timestamp.is_none()
            && machine.server().is_none_or(|name| !reported.contains_key(&(machine.namespace(), name.to_owned())))
    };
    let machines = machines.state();
    let read = machines.iter().filter(|machine| is_read(machine));
    let read = read.filter_map(|machine| Some(machine.status.certificates_expiry_date.as_ref()?.0));
    let control_plane = read.chain(reported.values().filter_map(|dates| dates.control_plane)).min();
    let agent = reported.values().filter_map(|dates| dates.agent).min();
    let ends = [("control-plane", control_plane), ("agent", agent)];
    ends.into_iter().filter_map(|(kind, end)| Some(([("kind", kind)], end?.as_duration().as_secs_f64()))).collect()
}

fn host_key(host: &ByoHost) -> (Option<String>, String) {
    (host.namespace(), host.name_any())
}
