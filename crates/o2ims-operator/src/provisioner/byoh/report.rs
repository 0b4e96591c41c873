//! What is reported of a request, for its status.

use cluster_api::byoh::ByoHost;
use cluster_api::cluster::Cluster;
use cluster_api::conditions::Condition;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::provisioning_request::{
    HostStatus, PlannedChange, ProvisionedResourceSet, StatusExtensions,
};
use o2ims_types::{ProvisioningRequest, ProvisioningRequestStatus, names};
use operator_kit::text;

use super::certificates;
use super::consent::keeps_cluster;
use super::desired::DesiredCluster;
use super::give_up;
use super::hosts::{self, HostProgress, State, all_held};
use super::instructions::{command, left_paused};
use super::machine_deletion::held_up;
use super::marks::{MarkedCluster as _, MarkedHost as _};
use super::observed::{Observed, Phase};
use super::pause::{of_request, pauses};
use super::preview;
use super::snapshot;
use super::stages::{missing_providers_message, stages};
use super::support;
use super::teardown;
use super::upgrade::rolling;
use super::warnings::{end_of_certificates, lost_sight, parts_being_deleted};
use crate::provisioner::report::{Deleting, Pause, Progress, Provisioning, Rejection, Report};
use crate::request::{annotation_command, has_finalizer, is_being_deleted};

/// Finalizers on a Cluster that Cluster API and the garbage collector remove by themselves.
const CLUSTER_FINALIZERS: [&str; 3] = ["cluster.cluster.x-k8s.io", "foregroundDeletion", "orphan"];

/// Reports a request.
pub fn report(
    request: &ProvisioningRequest,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
) -> Report {
    let old = request.status.clone().unwrap_or_default();
    let hosts = hosts::progress_of_all(request, verdict.as_ref().ok(), observed);
    let progress = if is_being_deleted(request) {
        Progress::Deleting(deleting(request, verdict, observed, &hosts))
    } else {
        Progress::Provisioning(provisioning(request, verdict, observed, &hosts))
    };
    Report {
        progress,
        resources: resources(request, &old, &hosts, observed),
        extensions: extensions(request, &old, verdict, observed, &hosts),
    }
}

fn provisioning(
    request: &ProvisioningRequest,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
    hosts: &[HostProgress],
) -> Provisioning {
    let (removed, named): (Vec<_>, Vec<_>) = hosts.iter().cloned().partition(|host| host.removed);
    let exists = observed.own_cluster().is_some();
    let certificates = certificates::report(request, observed);
    let failures = certificates.iter().flat_map(|known| known.failures.iter().cloned());
    let upcoming = certificates.iter().filter_map(|known| known.upcoming.clone());
    Provisioning {
        stages: stages(request, verdict, observed, &named),
        has_begun: exists || all_held(&named),
        exists,
        ready: ready(&named, &removed),
        degraded: degraded(request, verdict, observed, &named).into_iter().chain(failures).collect(),
        upcoming: end_of_certificates(observed).into_iter().chain(upcoming).collect(),
        certificates,
        paused: pause(request, verdict, observed),
    }
}

/// Message of a request whose stages are all done.
fn ready(named: &[HostProgress], removed: &[HostProgress]) -> String {
    let masters = named.iter().filter(|host| host.role == names::ROLE_CONTROL_PLANE).count();
    let workers = named.len() - masters;
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let ready = format!("cluster is ready: {}, {}", plural(masters, "master"), plural(workers, "worker"));
    removed.iter().fold(ready, |message, host| format!("{message}; {host}"))
}

/// What is wrong with a running cluster.
fn degraded(
    request: &ProvisioningRequest,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
    named: &[HostProgress],
) -> Vec<String> {
    if !observed.is_created {
        return Vec::new();
    }
    let mut all = match verdict {
        Ok(desired) => desired.warnings.clone(),
        Err(rejection) => [vec![rejection.message.clone()], lost_sight(request, observed)].concat(),
    };
    all.extend(parts_being_deleted(request, observed));
    all.extend(named.iter().filter(|host| host.state == State::Failed).map(ToString::to_string));
    all
}

fn pause(
    request: &ProvisioningRequest,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
) -> Option<Pause> {
    let told = [paused_by_owner(request, verdict, observed), paused(request, observed)];
    let told: Vec<_> = told.into_iter().flatten().collect();
    (!told.is_empty()).then(|| Pause { message: told.join("; "), delays: delayed_deletion(observed) })
}

/// What the owner has paused by an annotation of the request.
fn paused_by_owner(
    request: &ProvisioningRequest,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
) -> Option<String> {
    let annotation = of_request(request)?;
    let go_on = annotation_command(request, annotation, "-");
    if annotation != names::PLAN_ANNOTATION {
        return Some(format!(
            "paused by annotation {annotation} of this request: nothing is changed; to go on: {go_on}"
        ));
    }
    let changes = planned(request, verdict, observed);
    let changes: Vec<_> = changes.iter().map(|change| format!("{} {}", change.host_name, change.message)).collect();
    let what = match (verdict, changes.is_empty()) {
        (Err(_), _) => "this request cannot be carried out".to_owned(),
        (Ok(_), true) => "no host would be changed".to_owned(),
        (Ok(_), false) => format!("the plan is: {}", text::list(&changes, "; ")),
    };
    Some(format!("only planned, by annotation {annotation} of this request: {what}; to carry it out: {go_on}"))
}

fn paused(request: &ProvisioningRequest, observed: &Observed) -> Option<String> {
    let pauses = pauses(observed);
    if pauses.is_empty() {
        return None;
    }
    let left: Vec<_> = left_paused(observed).collect();
    let instruction = if left.is_empty() {
        String::new()
    } else {
        let (hosts, ids): (Vec<_>, Vec<_>) =
            left.iter().map(|host| (host.display(), host.uid().unwrap_or_default())).unzip();
        format!(
            "; BYOH has requested the cleaning of {} and left its pause there, so the agent does not clean; to remove that pause: {}",
            text::list(&hosts, ", "),
            command(request, observed, names::CLEAN_ANNOTATION, &ids.join(","))
        )
    };
    Some(format!(
        "paused: {}; this operator does not change the cluster until the pause is removed{instruction}",
        text::list(&pauses, ", ")
    ))
}

/// What continues when the pause is removed.
fn delayed_deletion(observed: &Observed) -> String {
    let deleting = observed.own_cluster().filter(|cluster| cluster.metadata.deletion_timestamp.is_some());
    deleting.map_or_else(String::new, |cluster| {
        format!(
            "; Cluster {} is being deleted, not by this operator: the deletion continues when the pause is removed",
            cluster.name_any()
        )
    })
}

fn deleting(
    request: &ProvisioningRequest,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
    hosts: &[HostProgress],
) -> Deleting {
    let paused = pause(request, verdict, observed);
    let message = if let Some(pause) = &paused {
        format!("the deletion waits: {}", pause.message)
    } else if let Some(missing) = missing_providers_message(observed)
        .filter(|_| observed.runs_nodes() || teardown::awaits_version(request, observed))
    {
        format!("the deletion waits: {missing}")
    } else if keeps_cluster(request, observed) {
        let (cluster, finalizer) = (&observed.cluster_name, names::ORPHAN_FINALIZER);
        rolling::unfinished(request, verdict, observed).map_or_else(
            || format!("leaving cluster {cluster} as it runs, because this request has the finalizer {finalizer}"),
            |(_, why)| format!("the deletion waits: {why}; then cluster {cluster} is left as it runs"),
        )
    } else if let Some(cluster) = observed.own_cluster() {
        deleting_cluster(cluster, observed, hosts)
    } else if let Some((kind, name)) = observed.owned.keys().next() {
        format!("deleting {} {name}", kind.name())
    } else {
        releasing(request, observed, hosts)
    };
    let template = verdict.as_ref().map(|desired| &desired.template).ok().or(observed.template.as_ref());
    let timeouts = template.map(|template| template.spec.timeouts.clone()).unwrap_or_default();
    let message = text::list(
        &[Some(message), give_up::without_effect(request, observed)].into_iter().flatten().collect::<Vec<_>>(),
        "; ",
    );
    let overdue = give_up::advice(request, observed.held().map(AsRef::as_ref), observed);
    Deleting { message, paused, limit: timeouts.deletion.into(), overdue }
}

fn deleting_cluster(cluster: &Cluster, observed: &Observed, hosts: &[HostProgress]) -> String {
    let name = cluster.name_any();
    if let Some(machine) = teardown::headless_masters(observed).next() {
        return format!("deleting Machine {}, whose KubeadmControlPlane is gone", machine.name_any());
    }
    if teardown::awaits_adoption(cluster, observed) {
        return format!("Cluster {name} is deleted when Cluster API has set the owner references of its parts");
    }
    let deleting =
        Condition::find(&cluster.status.conditions, "Deleting").filter(|condition| condition.status == "True");
    let is_completed = deleting.is_some_and(|condition| condition.reason == "DeletionCompleted");
    let foreign = other_finalizers(cluster.finalizers(), &CLUSTER_FINALIZERS).filter(|_| is_completed);
    let message = foreign.map_or_else(
        || {
            let waits = deleting.map(|condition| format!(" ({})", condition.explain())).unwrap_or_default();
            format!("deleting Cluster {name}{waits}")
        },
        |finalizers| {
            format!(
                "Cluster API has deleted everything of Cluster {name}, which stays until these finalizers of other clients are removed: {finalizers}"
            )
        },
    );
    let cleaning = in_use(observed, hosts, ByoHost::is_unregistering);
    text::list(&[vec![message], cleaning, held_up(observed)].concat(), "; ")
}

fn releasing(request: &ProvisioningRequest, observed: &Observed, hosts: &[HostProgress]) -> String {
    let in_use = in_use(observed, hosts, |_| true);
    match (in_use.is_empty(), other_finalizers(request.finalizers(), &[names::FINALIZER])) {
        (false, _) => format!("waiting for hosts: {}", text::list(&in_use, "; ")),
        (true, Some(finalizers)) if !has_finalizer(request) => {
            format!("all hosts are released; waiting for finalizers of other clients: {finalizers}")
        }
        (true, _) => "releasing hosts".to_owned(),
    }
}

/// Why held hosts are in use, of those that `concerns`.
fn in_use(observed: &Observed, hosts: &[HostProgress], concerns: fn(&ByoHost) -> bool) -> Vec<String> {
    let held = hosts.iter().filter(|host| host.held);
    held.filter_map(|progress| {
        let host = observed.host(&progress.requested.name).filter(|host| concerns(host))?;
        Some(format!("{} {}", progress.requested, host.in_use_reason()?))
    })
    .collect()
}

/// Finalizers that are none of the `known` ones.
fn other_finalizers(finalizers: &[String], known: &[&str]) -> Option<String> {
    let others: Vec<_> = finalizers.iter().map(String::as_str).filter(|finalizer| !known.contains(finalizer)).collect();
    (!others.is_empty()).then(|| others.join(", "))
}

/// UIDs of the held hosts, and of the Cluster once its creation has ended. They stay until the request is gone, also when an object is gone
/// before it: a Cluster that is gone while its hosts are not known to be clean is lost.
fn resources(
    request: &ProvisioningRequest,
    old: &ProvisioningRequestStatus,
    hosts: &[HostProgress],
    observed: &Observed,
) -> Option<ProvisionedResourceSet> {
    let before = old.provisioned_resource_set.clone();
    let cluster = observed.own_cluster().filter(|cluster| !cluster.is_creating()).and_then(|cluster| cluster.uid());
    let ended = observed.phase == Phase::Absent && !is_being_deleted(request);
    if !all_held(hosts) && observed.own_cluster().is_none() {
        // No host is held any more, except hosts that are still in use.
        return before.filter(|_| !ended || observed.held().next().is_some());
    }
    let hosts =
        hosts.iter().filter_map(|view| observed.host(&view.requested.name).filter(|_| view.held)?.uid()).collect();
    let recorded = before.and_then(|before| before.o_cloud_node_cluster_id).filter(|_| !ended);
    Some(ProvisionedResourceSet {
        o_cloud_node_cluster_id: cluster.or(recorded),
        o_cloud_infrastructure_resource_ids: hosts,
    })
}

/// Number of nodes that are Ready. The KubeadmControlPlane counts a master only while the pods of the control plane on it are healthy too.
fn ready_nodes(hosts: &[&HostProgress], observed: &Observed) -> usize {
    let ready = |host: &&&HostProgress| host.state == State::Ready;
    let masters = hosts.iter().filter(ready).filter(|host| host.role == names::ROLE_CONTROL_PLANE).count();
    let all = hosts.iter().filter(ready).count();
    let counted = observed.control_plane.as_ref().map(|object| object.status.counts.ready_replicas);
    let most = counted.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or_default());
    all - masters + masters.min(most)
}

fn extensions(
    request: &ProvisioningRequest,
    old: &ProvisioningRequestStatus,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
    hosts: &[HostProgress],
) -> StatusExtensions {
    let requested: Vec<_> = hosts.iter().filter(|host| !host.removed).collect();
    let ready = ready_nodes(&requested, observed);
    let cluster = observed.own_cluster();
    let networks = cluster.map(|cluster| &cluster.spec.cluster_network);
    let valid = verdict.as_ref().ok();
    let held = |name: &str| observed.host(name).filter(|host| observed.holds(host));
    StatusExtensions {
        k8s_version: valid.map(|valid| valid.version.clone()).or_else(|| old.extensions.k8s_version.clone()),
        ready_nodes: (!requested.is_empty()).then(|| format!("{ready}/{}", requested.len())),
        control_plane_endpoint: valid
            .filter(|_| cluster.is_some())
            .map(|valid| format!("{}:{}", valid.endpoint.host, valid.endpoint.port))
            .or_else(|| old.extensions.control_plane_endpoint.clone().filter(|_| cluster.is_some())),
        pod_cidr: networks.and_then(|networks| networks.pods.cidr_blocks.first().cloned()),
        service_cidr: networks.and_then(|networks| networks.services.cidr_blocks.first().cloned()),
        kubeconfig_secret: cluster.map(|cluster| format!("{}-kubeconfig", cluster.name_any())),
        hosts: hosts
            .iter()
            .map(|view| HostStatus {
                host_name: view.requested.name.clone(),
                host_id: view.requested.id.clone(),
                role: view.role.to_owned(),
                state: view.state.name().to_owned(),
                k8s_version: kubelet_version(&view.requested.name, observed),
                message: view.message.clone(),
                support_bundle: held(&view.requested.name).and_then(|host| support::of_host(request, observed, host)),
                snapshot: held(&view.requested.name).and_then(|host| snapshot::of_host(request, valid, observed, host)),
            })
            .collect(),
        plan: planned(request, verdict, observed),
        revisions: None,
    }
}

/// The version of a host's kubelet, once it is a node.
fn kubelet_version(host: &str, observed: &Observed) -> Option<String> {
    let version = observed.node(host)?.status.node_info.kubelet_version.clone();
    (!version.is_empty()).then_some(version)
}

/// What would be done, for an owner who has asked for that.
fn planned(
    request: &ProvisioningRequest,
    verdict: &Result<DesiredCluster, Rejection>,
    observed: &Observed,
) -> Vec<PlannedChange> {
    let desired = verdict.as_ref().ok().filter(|_| of_request(request) == Some(names::PLAN_ANNOTATION));
    desired.map(|desired| preview::changes(request, desired, observed)).unwrap_or_default()
}
