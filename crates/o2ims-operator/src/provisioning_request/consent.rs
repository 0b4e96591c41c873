//! Consent: what may be done to servers that run a node. A server is reset only if
//!
//! * its request is being deleted, and not with `orphan`;
//! * an edit of the request took it out;
//! * a machine of it failed before it was ever a node, which BYOH's agent does by itself; or
//! * the request has the annotation [`names::CLEAN_ANNOTATION`] with the id that its status names.
//!
//! A Cluster that went, a mark that was taken off, a ByoHost that was registered anew, a request that vanished, a pause, a move
//! and a restore are no consent. They are told on the request, with the ways on: [`names::RESTORE_ANNOTATION`] takes back what
//! runs, [`names::CLEAN_ANNOTATION`] takes it down, or has a host cleaned that BYOH left paused. Both name an id, so that a word
//! that was meant for one loss says nothing about the next.
//!
//! What is paused is not touched at all; see [`pauses`].

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::{Resource as _, ResourceExt as _};
use o2ims_types::cluster_template::InstallMethod;
use o2ims_types::provisioning_request::ProvisionedResourceSet;
use o2ims_types::{ProvisioningRequest, names};
use serde_json::json;

use super::observe::Observed;
use super::plan::{HostMarks, Marks, Step, key};
use super::{reserve, teardown};
use crate::byoh::host::ByoHost;
use crate::byoh::installation::Dialect;
use crate::byoh::installer::{self, Equipment};
use crate::byoh::reattachment::{Owner, Reattachment};
use crate::capi::cluster;
use crate::capi::contract::{Kind, PAUSED_ANNOTATION};
use crate::capi::read::{Cluster, Machine, has_pause_annotation};

impl Observed {
    /// Hosts that the request holds, that BYOH has given to machines of its cluster, and that nobody has asked to be cleaned.
    pub fn in_service(&self) -> impl Iterator<Item = &ByoHost> {
        self.held().map(AsRef::as_ref).filter(|host| host.is_given_to(&self.cluster_name) && !host.is_unregistering())
    }

    /// Something runs for the request that a deletion of its objects would end.
    pub fn runs_nodes(&self) -> bool {
        let stays = |machine: &Machine| machine.metadata.deletion_timestamp.is_none();
        self.in_service().next().is_some() || self.machines.iter().any(|machine| stays(machine))
    }

    /// Nodes run, or may run, and their Cluster is not there. Cluster API deletes a Cluster after its nodes, so nobody has deleted
    /// this one in that way.
    pub fn has_lost_its_cluster(&self) -> bool {
        self.cluster.is_none() && (self.runs_nodes() || self.misses_cluster)
    }

    /// Parts of the cluster that Cluster API can take down only under their Cluster.
    pub fn parts(&self) -> impl Iterator<Item = &(Kind, String)> {
        let needs_cluster =
            |kind: Kind| matches!(kind, Kind::KubeadmControlPlane | Kind::MachineDeployment | Kind::ByoCluster);
        self.made.keys().filter(move |(kind, _)| needs_cluster(*kind))
    }

    /// A ByoHost that BYOH takes for free although a Machine of the cluster is its node: it was deleted and registered anew. BYOH
    /// goes by its label; a host that has its machine in its status only is one that was given back by half.
    pub fn is_registered_anew(&self, host: &ByoHost) -> Option<&Machine> {
        if host.machine_name().is_some() || host.is_given_to(&self.cluster_name) || host.is_unregistering() {
            return None;
        }
        self.running_machine_of(host)
    }

    /// A host of the request whose Machine runs, and from whose status somebody has taken the machine.
    pub fn is_detached(&self, host: &ByoHost) -> Option<&Machine> {
        if host.status.machine_ref.is_some() || host.machine_name().is_none() || host.is_unregistering() {
            return None;
        }
        self.running_machine_of(host).filter(|_| host.holder() == Some(&self.uid))
    }

    fn running_machine_of(&self, host: &ByoHost) -> Option<&Machine> {
        self.machine_of(host).filter(|machine| machine.was_a_node() && machine.metadata.deletion_timestamp.is_none())
    }
}

/// Hosts of the request that are to be cleaned, since their Machine was deleted, and are paused. BYOH, which pauses the hosts of a
/// paused cluster, takes its mark off only from hosts whose Machine stays; and its webhook lets no user take it off.
pub fn left_paused(observed: &Observed) -> impl Iterator<Item = &ByoHost> {
    let is_left = |host: &&ByoHost| host.is_paused() && host.is_unregistering() && observed.machine_of(host).is_none();
    observed.held().map(AsRef::as_ref).filter(is_left)
}

/// What the owner of a request has said about something that went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Take it back as it runs.
    Restore,
    /// Take it down.
    Clean,
}

/// What the request held when its status was written.
fn recorded(request: &ProvisioningRequest) -> Option<&ProvisionedResourceSet> {
    request.status.as_ref()?.provisioned_resource_set.as_ref()
}

/// UID of the Cluster that the request's status names.
pub fn recorded_id(request: &ProvisioningRequest) -> Option<&str> {
    recorded(request)?.o_cloud_node_cluster_id.as_deref()
}

/// The request had a Cluster, and what became of its nodes cannot be told: not every host that it had is still held.
pub fn misses_cluster(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let is_deleted = request.meta().deletion_timestamp.is_some();
    let held: Vec<_> = observed.held().filter_map(|host| host.uid()).collect();
    recorded(request).is_some_and(|set| {
        let Some(id) = &set.o_cloud_node_cluster_id else { return false };
        let all_held = set.o_cloud_infrastructure_resource_ids.iter().all(|host| held.contains(host));
        observed.cluster.is_none() && !is_deleted && !all_held && word(request, id) != Some(Word::Clean)
    })
}

/// The id by which an annotation names the Cluster that went.
pub fn lost_id(request: &ProvisioningRequest, observed: &Observed) -> String {
    recorded_id(request).map_or_else(|| observed.uid.clone(), ToOwned::to_owned)
}

/// The annotations with which an owner says a [`Word`].
const WORDS: [&str; 2] = [names::CLEAN_ANNOTATION, names::RESTORE_ANNOTATION];

/// The ids that an annotation of the request names.
fn named<'a>(request: &'a ProvisioningRequest, annotation: &str) -> impl Iterator<Item = &'a str> {
    request.annotations().get(annotation).into_iter().flat_map(|all| all.split(',')).map(str::trim)
}

/// What the request says about what has this id; nothing, if it says both.
pub fn word(request: &ProvisioningRequest, id: &str) -> Option<Word> {
    let names_it = |annotation: &str| named(request, annotation).any(|named| named == id);
    match (names_it(names::CLEAN_ANNOTATION), names_it(names::RESTORE_ANNOTATION)) {
        (true, false) => Some(Word::Clean),
        (false, true) => Some(Word::Restore),
        _ => None,
    }
}

/// The ids of what is lost now and about which this annotation can say something.
fn lost_ids(request: &ProvisioningRequest, observed: &Observed, annotation: &str) -> Vec<String> {
    let restores = annotation == names::RESTORE_ANNOTATION;
    let cluster = observed.has_lost_its_cluster() && (!restores || can_be_restored(observed));
    let hosts = observed.hosts.values().map(AsRef::as_ref);
    let hosts =
        hosts.filter(|host| observed.is_registered_anew(host).is_some() || observed.is_detached(host).is_some());
    let hosts: Vec<_> = if restores { hosts.collect() } else { left_paused(observed).collect() };
    let cluster = cluster.then(|| lost_id(request, observed));
    cluster.into_iter().chain(hosts.into_iter().filter_map(kube::ResourceExt::uid)).collect()
}

fn is_anything_lost(request: &ProvisioningRequest, observed: &Observed) -> bool {
    WORDS.into_iter().any(|annotation| !lost_ids(request, observed, annotation).is_empty())
}

/// What the request says without effect while something is lost.
pub fn misdirected(request: &ProvisioningRequest, observed: &Observed) -> Option<String> {
    // What is being carried out is not lost any more.
    if clean(observed).is_some() || !is_anything_lost(request, observed) {
        return None;
    }
    let [clean, restore] = WORDS;
    if let Some(id) = named(request, clean).find(|id| named(request, restore).any(|other| other == *id)) {
        return Some(format!(
            "annotations {clean} and {restore} both name \"{id}\", so nothing is done: take one of them off"
        ));
    }
    let without_effect = |annotation: &'static str| {
        let lost = lost_ids(request, observed, annotation);
        named(request, annotation).find(|id| lost.iter().all(|lost| lost != id)).map(|id| (annotation, id))
    };
    let (annotation, id) = WORDS.into_iter().find_map(without_effect)?;
    Some(format!(
        "annotation {annotation} names \"{id}\", which is not the id of anything lost that this annotation applies to"
    ))
}

/// Takes words off that were carried out, or that name nothing: one that stayed could be taken for a word about another loss, if
/// the same objects come back from a backup.
pub fn spent(request: &ProvisioningRequest, observed: &Observed) -> Option<Step> {
    let said: Vec<_> = WORDS.into_iter().filter(|word| request.annotations().contains_key(*word)).collect();
    let cluster = observed.own_cluster().filter(|_| observed.is_running())?;
    let goes =
        cluster.metadata.deletion_timestamp.is_some() || cluster.annotations().contains_key(names::CLEANING_ANNOTATION);
    let is_recorded = recorded_id(request) == cluster.metadata.uid.as_deref();
    let is_over = !goes && is_recorded && !is_anything_lost(request, observed);
    (!said.is_empty() && is_over).then_some(Step::DropWords(said))
}

/// The command with which the owner says a word, beside what the annotation says already of something that is lost. What an SMO
/// has sent is annotated on the O-Cloud too.
pub fn command(request: &ProvisioningRequest, observed: &Observed, annotation: &str, ids: &str) -> String {
    let namespace = request.namespace().unwrap_or_default();
    let lost = lost_ids(request, observed, annotation);
    let said = named(request, annotation)
        .filter(|id| lost.iter().any(|lost| lost == id) && ids.split(',').all(|new| new != *id));
    let all: Vec<_> = said.chain([ids]).collect();
    format!("kubectl annotate pr {} -n {namespace} {annotation}={} --overwrite", request.name_any(), all.join(","))
}

/// The owner wants to keep what runs, and only the request to go.
pub fn keeps_cluster(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let orphans = request.finalizers().iter().any(|finalizer| finalizer == names::ORPHAN_FINALIZER);
    orphans && (observed.runs_nodes() || observed.is_running())
}

/// Whether an edit of the request may take hosts out. One that was restored from a backup may be older than what runs: it has
/// first to name everything that it holds.
pub fn may_take_out(request: &ProvisioningRequest, observed: &Observed) -> bool {
    let uid = request.meta().uid.as_deref().unwrap_or_default();
    let restored_by = |cluster: &Cluster| cluster.annotations().get(names::RESTORED_BY_ANNOTATION).cloned();
    observed.uid == uid
        || observed
            .own_cluster()
            .is_some_and(|cluster| cluster.is_being_made() || restored_by(cluster.as_ref()).as_deref() == Some(uid))
}

/// Notes on the Cluster that a restored request names everything that it holds.
pub fn note_restored(request: &ProvisioningRequest, observed: &Observed) -> Option<Step> {
    let cluster = observed.own_cluster().filter(|_| !may_take_out(request, observed))?;
    let uid = request.uid()?;
    unnamed(request, observed).is_empty().then(|| Step::Annotate {
        kind: Kind::Cluster,
        name: cluster.name_any(),
        uid: cluster.uid().unwrap_or_default(),
        annotations: BTreeMap::from([(names::RESTORED_BY_ANNOTATION.to_owned(), Some(uid))]),
    })
}

/// Hosts that the request holds and does not name, and servers of Machines that it does not name, whatever has become of their
/// ByoHosts.
pub fn unnamed(request: &ProvisioningRequest, observed: &Observed) -> Vec<String> {
    let named: Vec<_> = super::status::asked(request).map(|(host, _)| host.name()).collect();
    let held = observed.held().map(|host| (host.name_any(), host.display()));
    let stays = |machine: &&Arc<Machine>| machine.metadata.deletion_timestamp.is_none();
    let nodes = observed.machines.iter().filter(stays).filter_map(|machine| machine.server());
    let nodes = nodes.filter(|name| observed.host(name).is_none_or(|host| !observed.holds(host)));
    held.chain(nodes.map(|name| (name.to_owned(), name.to_owned())))
        .filter(|(name, _)| !named.contains(&name.as_str()))
        .map(|(_, display)| display)
        .collect()
}

/// Workers that run and whose MachineDeployment went. One that is made again is made from today's template, and would replace a
/// Machine that was made from another.
pub fn orphaned_workers(observed: &Observed) -> impl Iterator<Item = &Machine> {
    observed.machines.iter().map(AsRef::as_ref).filter(|machine| {
        machine.metadata.deletion_timestamp.is_none()
            && machine.was_a_node()
            && machine.deployment().is_some_and(|name| !observed.deployments.contains_key(name))
    })
}

/// What is due when the Cluster went from under a request that stays: nothing, unless its owner has said so.
pub fn recover(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    match word(request, &lost_id(request, observed)) {
        Some(Word::Restore) => restore(request, observed, false).into_iter().collect(),
        Some(Word::Clean) => take_down_lost(request, observed),
        None => Vec::new(),
    }
}

/// Takes down what runs without its Cluster: the Cluster is made again and then deleted, since Cluster API takes machines down
/// only under one. Hosts that no part is left of are cleaned by their agents.
pub fn take_down_lost(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    restore(request, observed, true).map_or_else(|| reserve::clean_all(observed), |step| vec![step])
}

/// Makes the Cluster again for the parts that are there. `None` without parts, or where somebody has deleted them already:
/// under a Cluster their deletion would go on.
fn restore(request: &ProvisioningRequest, observed: &Observed, to_go: bool) -> Option<Step> {
    let (kind, name) =
        observed.parts().find(|(kind, _)| *kind == Kind::KubeadmControlPlane).or(observed.parts().next())?;
    if !to_go && !can_be_restored(observed) {
        return None;
    }
    let mut object = cluster::restored(request, observed);
    if to_go {
        object["metadata"]["annotations"][names::CLEANING_ANNOTATION] = json!("true");
    }
    let marks = Marks { cluster: &observed.cluster_name, uid: &observed.uid, request: key(request) };
    let part = observed.made.get(&(*kind, name.clone()))?;
    Some(Step::Restore { manifest: marks.manifest(object), part: (*kind, name.clone(), part.uid.clone()) })
}

/// The parts that a Cluster needs are there, and nobody has deleted them.
pub fn can_be_restored(observed: &Observed) -> bool {
    observed.control_plane.is_some()
        && observed.byo_cluster.is_some()
        && !observed.made.values().any(|part| part.deleting)
}

/// Parts that somebody deletes while their Cluster is made, and nothing runs yet. Let go, the Cluster would lose them, and a control
/// plane cannot be made a second time.
pub fn cut(observed: &Observed) -> Option<&(Kind, String)> {
    let making = observed.own_cluster().is_some_and(|cluster| cluster.is_being_made()) && !observed.runs_nodes();
    observed.parts().find(|part| making && observed.made.get(part).is_some_and(|part| part.deleting))
}

/// A Cluster that is to be taken down although its request stays.
pub fn clean(observed: &Observed) -> Option<Vec<Step>> {
    let cluster = observed.own_cluster()?;
    cluster.annotations().contains_key(names::CLEANING_ANNOTATION).then(|| teardown::cluster(cluster, observed))
}

/// Takes the pause off hosts whose Machine is gone, where the owner has said that they are to be cleaned.
pub fn unpause(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    let named = |host: &&ByoHost| word(request, &host.uid().unwrap_or_default()) == Some(Word::Clean);
    left_paused(observed).filter(named).map(reserve::unpause).collect()
}

/// Gives hosts that were registered anew back to their Machines, where the owner has said so, or wants to be rid of them: an agent
/// cleans only what BYOH has given away.
pub fn reattach(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    let key = key(request);
    let install = observed.install();
    let is_deleted = request.meta().deletion_timestamp.is_some();
    let steps = observed.hosts.values().filter_map(|host| {
        let anew = observed.is_registered_anew(host).filter(|_| host.holder().is_none());
        let machine = anew.or_else(|| observed.is_detached(host))?;
        let asked = super::status::asked(request).find(|(asked, _)| asked.name() == host.name_any());
        let id = asked.map(|(asked, _)| asked.id()).or_else(|| host.host_id().map(ToOwned::to_owned))?;
        let is_wanted = word(request, &host.uid().unwrap_or_default()) == Some(Word::Restore);
        let goes = anew.is_some() && (is_deleted || asked.is_none() && may_take_out(request, observed));
        if !is_wanted && !goes {
            return None;
        }
        let version = observed.control_plane.as_ref()?.spec.version.as_str();
        let owner = Owner {
            uid: &observed.uid,
            request: &key,
            role: if machine.is_master() { names::ROLE_CONTROL_PLANE } else { names::ROLE_WORKER },
            host_id: &id,
            cluster: &observed.cluster_name,
            version,
        };
        let scripts = (install.method != InstallMethod::None).then(|| {
            let installer = install.installer.clone().unwrap_or_default();
            let pods = observed.cluster.as_ref().map(|cluster| cluster.spec.cluster_network.pods.cidr_blocks.clone());
            let script = installer::uninstall_script(
                host,
                &machine.spec.infrastructure_ref.name,
                version,
                &installer,
                &pods.unwrap_or_default(),
            );
            script.filter(|_| observed.dialect == Some(Dialect::Upstream))
        });
        Some(Step::Reattach(Reattachment::new(host, machine, &owner, scripts)))
    });
    steps.collect()
}

/// Everything of the request's cluster that somebody has paused. The operator's own pause while it makes a cluster is none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Paused {
    kind: Kind,
    name: String,
    /// `spec.paused`, or the annotation.
    by: String,
}

fn paused(observed: &Observed) -> Vec<Paused> {
    fn annotated<K: kube::Resource>(kind: Kind, object: &K) -> Option<Paused> {
        let by = format!("annotation {PAUSED_ANNOTATION}");
        has_pause_annotation(object).then(|| Paused { kind, name: object.name_any(), by })
    }
    let spec = observed.own_cluster().filter(|cluster| cluster.spec.paused && !cluster.is_being_made());
    let by_field =
        spec.map(|object| Paused { kind: Kind::Cluster, name: object.name_any(), by: "spec.paused".to_owned() });
    let mut all: Vec<_> = by_field.into_iter().collect();
    all.extend(observed.own_cluster().and_then(|object| annotated(Kind::Cluster, object.as_ref())));
    let control_plane = observed.control_plane.iter();
    all.extend(control_plane.filter_map(|object| annotated(Kind::KubeadmControlPlane, object.as_ref())));
    all.extend(observed.byo_cluster.iter().filter_map(|object| annotated(Kind::ByoCluster, object.as_ref())));
    let deployments = observed.deployments.values();
    all.extend(deployments.filter_map(|object| annotated(Kind::MachineDeployment, object.as_ref())));
    all.extend(observed.machines.iter().filter_map(|object| annotated(Kind::Machine, object.as_ref())));
    all.extend(observed.held().filter_map(|object| annotated(Kind::ByoHost, object.as_ref())));
    all
}

/// What somebody has paused, as `Cluster core (spec.paused)`.
pub fn pauses(observed: &Observed) -> Vec<String> {
    let all = paused(observed);
    // BYOH pauses the hosts of a paused cluster by itself.
    let only_hosts = all.iter().all(|paused| paused.kind == Kind::ByoHost);
    let told = all.into_iter().filter(|paused| only_hosts || paused.kind != Kind::ByoHost);
    told.map(|Paused { kind, name, by }| format!("{} {name} ({by})", kind.name())).collect()
}

/// The steps that may be taken: nothing is done to what is paused, and with a Cluster or its halves nothing at all. A deletion
/// that takes machines down waits for them and their hosts: an agent does not clean a host that is paused, and BYOH, which pauses
/// the hosts of a paused cluster, takes its mark off only from machines that stay.
pub fn allowed(steps: Vec<Step>, observed: &Observed) -> Vec<Step> {
    let all = paused(observed);
    let is_paused = |kind: Kind, name: &str| all.iter().any(|paused| paused.kind == kind && paused.name == name);
    let halves = [Kind::Cluster, Kind::KubeadmControlPlane, Kind::ByoCluster];
    let pauses_all = all.iter().any(|paused| halves.contains(&paused.kind));
    let waits = |step: &Step| match step {
        Step::Protect | Step::AddFinalizer | Step::RemoveFinalizer | Step::LetGo | Step::DropWords(_) => false,
        _ if pauses_all => true,
        Step::MarkHost(marks) if marks.annotations.contains_key(PAUSED_ANNOTATION) => false,
        Step::Delete { kind: Kind::Cluster | Kind::Machine, .. } => !all.is_empty(),
        Step::Delete { kind: Kind::MachineDeployment, name, .. } => {
            let of_worker = |machine: &Arc<Machine>| machine.deployment() == Some(name);
            is_paused(Kind::MachineDeployment, name)
                || observed.held().any(|host| host.is_paused() && is_worker_on(name, host, observed))
                || observed
                    .machines
                    .iter()
                    .any(|machine| of_worker(machine) && is_paused(Kind::Machine, &machine.name_any()))
        }
        Step::Set { kind, name, .. } | Step::Delete { kind, name, .. } => is_paused(*kind, name),
        Step::MarkHost(HostMarks { host, .. })
        | Step::EquipHost(Equipment { host, .. })
        | Step::Reattach(Reattachment { host, .. }) => observed.host(host).is_some_and(ByoHost::is_paused),
        _ => false,
    };
    steps.into_iter().filter(|step| !waits(step)).collect()
}

/// The MachineDeployment of this name is the one of this host.
fn is_worker_on(name: &str, host: &ByoHost, observed: &Observed) -> bool {
    let namespace = host.namespace().unwrap_or_default();
    name == names::worker(&namespace, &observed.cluster_name, &host.name_any())
}
