//! Warnings about a running cluster, which do not make the operator change anything.

use std::collections::BTreeSet;

use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use cluster_api::labels::CERTIFICATES_EXPIRY_ANNOTATION;
use cluster_api::machine::Machine;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_types::{ProvisioningRequest, names};
use operator_kit::text;

use super::certificates;
use super::consent::{held_but_not_requested, may_remove_hosts};
use super::give_up;
use super::instructions::{command, ineffective};
use super::marks::MarkedHost as _;
use super::observed::{Observed, Phase};
use super::snapshot;
use super::support;
use super::upgrade::job;
use crate::provisioner::report::Upcoming;
use crate::request::requested_hosts;

/// How long before the certificates of a control plane end it is told, in seconds: 60 days.
const CERTIFICATES_NOTICE: i64 = 60 * 24 * 60 * 60;

/// The hosts that a restored request holds but does not name: they stay, since a restore removes no host.
pub fn unnamed_hosts(request: &ProvisioningRequest, observed: &Observed) -> Option<String> {
    if may_remove_hosts(request, observed) {
        return None;
    }
    let hosts = held_but_not_requested(request, observed);
    (!hosts.is_empty()).then(|| {
        format!(
            "this request was restored and does not name {}, which its cluster uses; no host is removed until it names them once",
            text::list(&hosts, ", ")
        )
    })
}

/// The warning about a worker whose MachineDeployment is gone.
pub fn unmanaged_worker(machine: &Machine) -> String {
    format!(
        "MachineDeployment {} is gone, but its Machine {} still runs on {}; this operator does not change the Machine. Apply the \
         MachineDeployment again as it was, or remove the host from the request and delete the Machine",
        machine.deployment().unwrap_or_default(),
        machine.name_any(),
        machine.server().unwrap_or_default()
    )
}

/// The parts of a running cluster that are being deleted, not by this operator. The KubeadmControlPlane is not among them: its loss is a state of
/// the request.
pub fn parts_being_deleted(request: &ProvisioningRequest, observed: &Observed) -> Vec<String> {
    if observed.phase != Phase::Running {
        return Vec::new();
    }
    let namespace = request.namespace().unwrap_or_default();
    let cluster = &observed.cluster_name;
    let needed: BTreeSet<_> =
        requested_hosts(request).map(|(host, _)| names::worker(&namespace, cluster, host.name())).collect();
    let told = |kind: Kind, name: &str| match kind {
        Kind::ByoCluster => Some(format!(
            "ByoCluster {name} is being deleted, not by this operator. This cannot be undone: BYOH deletes it once the last machine of cluster \
             {cluster} is gone. The nodes keep running. Back up what you need, delete this request, then create a new request"
        )),
        Kind::MachineDeployment if needed.contains(name) => Some(format!(
            "MachineDeployment {name} is being deleted, not by this operator; this operator creates it again when it is gone and its host is clean"
        )),
        _ => None,
    };
    let deleted = observed.owned.iter().filter(|(_, part)| part.deleting);
    deleted.filter_map(|((kind, name), _)| told(*kind, name)).collect()
}

/// That the certificates of the control plane end on masters whose unit reports none, and what renews them. kubeadm issues them for one year, and
/// nothing renews them there: Cluster API would replace the masters, for which there are no hosts.
pub fn end_of_certificates(observed: &Observed) -> Option<Upcoming> {
    let masters = observed
        .machines
        .iter()
        .filter(|machine| observed.is_created && machine.is_master() && machine.metadata.deletion_timestamp.is_none());
    let reports =
        |machine: &Machine| machine.server().and_then(|name| certificates::dates(observed.host(name)?)).is_some();
    let silent = masters.filter(|machine| !reports(machine));
    let ends = silent.filter_map(|machine| Some((machine.status.certificates_expiry_date.as_ref()?.0, machine)));
    let (end, machine) = ends.min_by_key(|(end, machine)| (*end, machine.name_any()))?;
    let from = Timestamp::from_second(end.as_second().saturating_sub(CERTIFICATES_NOTICE)).unwrap_or(end);
    let (date, server) = (end.to_string(), machine.server().unwrap_or_default());
    Some(Upcoming {
        from,
        message: format!(
            "the certificates of the control plane on {server} are valid until {}, as Cluster API read them last. The unit o2ims-host renews them, and does \
             not report from there; to put it there: {}. Or on each master run \"kubeadm certs renew all\" and start its control plane pods again, \
             then remove the annotation {CERTIFICATES_EXPIRY_ANNOTATION} from its KubeadmConfig, so that Cluster API reads the new date \
             (docs/o2ims-operator.md, \"Hosts without the unit\")",
            date.split('T').next().unwrap_or_default(),
            job::command_for_unit(&[server.to_owned()]),
        ),
    })
}

/// Warnings about hosts that BYOH does not know as attached any more, and about annotations without effect.
pub fn lost_sight(request: &ProvisioningRequest, observed: &Observed) -> Vec<String> {
    let detached = observed.held().filter_map(|host| detached_host(request, host, observed));
    let words =
        [ineffective, give_up::without_effect, support::mistake, snapshot::mistake].map(|of| of(request, observed));
    detached.chain(words.into_iter().flatten()).collect()
}

/// The warning about a host whose status does not name the machine that runs on it any more.
fn detached_host(request: &ProvisioningRequest, host: &ByoHost, observed: &Observed) -> Option<String> {
    let machine = observed.detached_machine(host)?;
    Some(format!(
        "{}: status.machineRef was removed from its ByoHost, although its Machine {} runs; nothing protects that ByoHost from deletion \
         now. To set it again: {}",
        host.display(),
        machine.name_any(),
        command(request, observed, names::RESTORE_ANNOTATION, &host.uid().unwrap_or_default())
    ))
}
