//! Hosts that a request gives up. The agent of a dead server cannot clean it, so its request would wait for ever. The owner of the request names such
//! hosts in the annotation [`names::LOST_HOSTS_ANNOTATION`]. It counts for a host that the request holds and that leaves it: the request is being
//! deleted, or does not name the host any more. An upgrade passes over one that the request still names, while its node does not answer. The annotation
//! is removed when nothing that it names is lost any more: else it would apply to a later edit, and the node of a healthy host would not be drained.
//!
//! What BYOH has written on a host that is given up stays there, so nothing else gets the host, and its agent cleans it when the server comes
//! back. The label [`names::LOST_LABEL`] takes the place of the request's mark until then.

use std::collections::BTreeMap;

use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use cluster_api::conditions::Condition;
use cluster_api::labels::{EXCLUDE_DETACHMENT_ANNOTATION, EXCLUDE_DRAINING_ANNOTATION};
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::{ProvisioningRequest, names};

use super::consent::{keeps_cluster, may_remove_hosts};
use super::observed::Observed;
use super::upgrade::strategy;
use crate::provisioner::step::Step;
use crate::request::{annotation_command, ids_in, is_being_deleted, requested_hosts};

/// The names in the annotation.
pub fn named(request: &ProvisioningRequest) -> impl Iterator<Item = &str> {
    ids_in(request, names::LOST_HOSTS_ANNOTATION).filter(|name| !name.is_empty())
}

/// The value of the annotation that names these hosts too.
pub fn named_and(request: &ProvisioningRequest, hosts: &[&str]) -> String {
    named(request).filter(|name| !hosts.contains(name)).chain(hosts.iter().copied()).collect::<Vec<_>>().join(",")
}

/// Whether the request names a host.
pub fn is_requested(request: &ProvisioningRequest, host: &str) -> bool {
    requested_hosts(request).any(|(requested, _)| requested.name() == host)
}

/// Whether a held host leaves the request.
pub fn leaves(request: &ProvisioningRequest, host: &str, observed: &Observed) -> bool {
    if is_being_deleted(request) {
        return !keeps_cluster(request, observed);
    }
    !is_requested(request, host) && may_remove_hosts(request, observed)
}

/// Whether the owner of the request gives the host up.
fn is_given_up(request: &ProvisioningRequest, host: &ByoHost, observed: &Observed) -> bool {
    let name = host.name_any();
    named(request).any(|named| named == name) && observed.holds(host) && leaves(request, &name, observed)
}

/// Whether a host that is given up can be let go: its Machine is gone, and BYOH has asked its agent to clean it, or the agent has begun to.
pub fn can_be_let_go(request: &ProvisioningRequest, host: &ByoHost, observed: &Observed) -> bool {
    is_given_up(request, host, observed)
        && observed.machine_of(host).is_none()
        && (host.is_unregistering() || !host.is_attached_to(&observed.cluster_name))
}

/// The annotations on the Machines of removed hosts that are given up and whose nodes do not answer, without which Cluster API would drain those.
pub fn skip_draining(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    let is_on_such = |machine: &&Machine| {
        let host = machine.server().and_then(|name| observed.host(name));
        is_silent(machine) && host.is_some_and(|host| is_given_up(request, host, observed))
    };
    let wanted = [EXCLUDE_DRAINING_ANNOTATION, EXCLUDE_DETACHMENT_ANNOTATION];
    let lacks = |machine: &&Machine| wanted.iter().any(|key| !machine.annotations().contains_key(*key));
    let machines = observed.machines.iter().map(AsRef::as_ref).filter(is_on_such).filter(lacks);
    machines
        .map(|machine| Step::Annotate {
            kind: Kind::Machine,
            name: machine.name_any(),
            uid: machine.uid().unwrap_or_default(),
            resource_version: None,
            annotations: wanted.iter().map(|key| ((*key).to_owned(), Some("true".to_owned()))).collect(),
        })
        .collect()
}

/// Whether the annotation names a host that the request holds, or one leaves the request: until then the annotation is kept. A host that the request still
/// names, and whose node answers, is not lost, unless an upgrade is under way.
pub fn is_pending(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let is_upgrading = strategy::is_under_way(request, observed);
    let answers = |name: &str| observed.node(name).is_some_and(|machine| !is_silent(machine));
    let is_back = |name: &str| is_requested(request, name) && answers(name) && !is_upgrading;
    let mut held = observed.held().map(|host| host.name_any());
    held.any(|name| leaves(request, &name, observed) || named(request).any(|named| named == name) && !is_back(&name))
}

/// Names in the annotation that have no effect, as a sentence.
pub fn without_effect(request: &ProvisioningRequest, observed: &Observed) -> Option<String> {
    let annotation = names::LOST_HOSTS_ANNOTATION;
    if named(request).next().is_none() || !is_pending(request, observed) {
        return None;
    }
    let is_held = |name: &str| observed.held().any(|host| host.name_any() == name);
    let name = named(request).find(|name| !is_held(name) || !leaves(request, name, observed))?;
    Some(if is_held(name) && is_requested(request, name) {
        format!(
            "annotation {annotation} names {name}, which this request still names: an upgrade passes over it while its node does not answer; to give it up, \
             remove {name} from hosts of the request, or else from the annotation"
        )
    } else {
        format!(
            "annotation {annotation} names {name}, which is not, or not any more, a host that leaves this request; it takes names of ByoHosts, as in hostName"
        )
    })
}

/// What to do if the servers of these hosts do not come back; empty if they are not waited for.
pub fn advice<'a>(
    request: &ProvisioningRequest,
    hosts: impl Iterator<Item = &'a ByoHost>,
    observed: &Observed,
) -> String {
    let silent: Vec<_> =
        hosts.filter(|host| may_be_silent(request, host, observed)).map(kube::ResourceExt::name_any).collect();
    if silent.is_empty() {
        return String::new();
    }
    let silent: Vec<_> = silent.iter().map(String::as_str).collect();
    let command =
        annotation_command(request, names::LOST_HOSTS_ANNOTATION, &format!("={}", named_and(request, &silent)));
    format!(
        "; if a server does not come back, switch it off, as one that is only cut off still runs its part of the cluster, then give it up: {command}"
    )
}

/// Whether the node of a Machine does not answer.
pub fn is_silent(machine: &Machine) -> bool {
    let healthy = Condition::find(&machine.status.conditions, "NodeHealthy");
    healthy.is_some_and(|condition| condition.status == "Unknown")
}

/// Whether a host leaves, and nothing but an answer of its server is waited for, as far as is known.
fn may_be_silent(request: &ProvisioningRequest, host: &ByoHost, observed: &Observed) -> bool {
    let is_waited_for = match observed.machine_of(host) {
        None => host.in_use_reason().is_some() && !host.is_paused(),
        Some(machine) => machine.metadata.deletion_timestamp.is_some() && is_silent(machine),
    };
    is_waited_for && leaves(request, &host.name_any(), observed) && !is_given_up(request, host, observed)
}

/// The labels of a host that is let go without having been cleaned.
pub fn labels(uid: &str) -> BTreeMap<String, Option<String>> {
    BTreeMap::from([
        (names::REQUEST_UID_LABEL.to_owned(), None),
        (names::ROLE_LABEL.to_owned(), None),
        (names::LOST_LABEL.to_owned(), Some(uid.to_owned())),
    ])
}
