//! What must hold at every single write, in every world. Checked against what is true at that moment, not against what
//! the reconcile had seen.

use cluster_api::Kind;
use cluster_api::byoh::{ByoHost, UNREGISTERING_ANNOTATION};
use cluster_api::cluster::Cluster;
use cluster_api::conditions::Condition;
use cluster_api::labels::{EXCLUDE_DRAINING_ANNOTATION, PAUSED_ANNOTATION};
use cluster_api::machine::Machine;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use o2ims_operator::provisioner::byoh::marks::{MarkedCluster as _, MarkedHost as _};
use o2ims_operator::provisioner::byoh::upgrade::version::parse;
use o2ims_operator::provisioner::step::{HostPatch, InstallSecret, Manifest, Step};
use o2ims_operator::provisioning_request::status::Assessment;
use o2ims_operator::request::{has_finalizer, key};
use o2ims_types::o2ims::v1alpha1::cluster_template::UpgradeStrategy;
use o2ims_types::{ProvisioningRequest, ProvisioningState, conditions, names};
use operator_kit::write::status::find;
use serde_json::json;

use crate::model::{Flight, World, asked, is_template};

/// Checks a step whose preconditions hold, right before it is carried out.
pub fn check(world: &World, flight: &Flight, step: &Step) {
    let uid = flight.observed.uid.as_str();
    let request = &world.requests[&flight.request.name_any()];
    assert_eq!(request.metadata.uid, flight.request.metadata.uid, "another request of the same name");
    if !matches!(step, Step::AddFinalizer | Step::Protect) {
        assert!(has_finalizer(request), "an effect before the finalizer: {step:?}");
    }
    match step {
        Step::Protect
        | Step::AddFinalizer
        | Step::DryRun(_)
        | Step::Adopt { kind: Kind::MachineSet | Kind::KubeadmConfig, .. } => {}
        Step::RemoveAnnotations(_) => assert!(
            world
                .clusters
                .values()
                .any(|cluster| cluster.labels().get(names::REQUEST_UID_LABEL).is_some_and(|mark| mark == uid)),
            "forgets what its owner has said while there is no Cluster"
        ),
        Step::RemoveFinalizer => nothing_is_left(world, uid, &key(request)),
        Step::Orphan => assert!(keeps_cluster(flight), "lets go of a cluster that its owner did not want to keep"),
        Step::RecreateCluster { manifest, .. } => {
            let says = |word: &str| request.annotations().contains_key(word);
            let to_go = request.metadata.deletion_timestamp.is_some() || says(names::CLEAN_ANNOTATION);
            assert!(to_go || says(names::RESTORE_ANNOTATION), "makes a Cluster again unasked");
            assert!(to_go || manifest.object["metadata"]["annotations"][names::CLEANING_ANNOTATION].is_null());
        }
        Step::Reattach(reattachment) => {
            let host = &world.hosts[&reattachment.host];
            assert!(
                host.status.machine_ref.is_none() && (host.holder().is_none() || host.holder() == Some(uid)),
                "{} is given away",
                reattachment.host
            );
        }
        Step::Annotate { kind, name, annotations, .. } => {
            assert_eq!(world.mark(*kind, name), Some(uid), "changes what is not its own");
            if let Some(machine) = flight.observed.machines.iter().find(|machine| machine.name_any() == *name)
                && *kind == Kind::Machine
                && annotations.contains_key(EXCLUDE_DRAINING_ANNOTATION)
            {
                is_called_lost(flight, machine.server().unwrap());
            }
        }
        Step::PatchHost(marks) => host(world, flight, marks),
        Step::GiveJob(order) => {
            let host = &world.hosts[&order.host];
            assert_eq!(host.holder(), Some(uid), "gives {}, which it does not hold, a job", order.host);
            let is_for = |job: &str, purpose: &str| job.starts_with(&format!("{purpose}-"));
            let is_asked = request.spec.template_parameters.k8s_version.is_some()
                || is_for(&order.job, "certificates")
                || is_for(&order.job, "snapshot") && request.annotations().contains_key(names::SNAPSHOT_ANNOTATION);
            assert!(is_asked, "upgrades {} unasked", order.host);
            let begun = |host: &&ByoHost| {
                let job = host.annotations().get(names::JOB_ANNOTATION).cloned().unwrap_or_default();
                let told = host.annotations().get(names::JOB_STATUS_ANNOTATION).cloned().unwrap_or_default();
                let id = job.split(' ').next().unwrap();
                let has_ended = told.contains(id) && (told.contains("\"Done\"") || told.contains("\"Failed\""));
                (is_for(&job, "upgrade") || is_for(&job, "certificates")) && !has_ended
            };
            let asked = asked(request);
            let said = request.annotations().get(names::LOST_HOSTS_ANNOTATION).cloned().unwrap_or_default();
            let is_lost = |name: &String| world.dead.contains(name) && said.contains(name.as_str());
            let hosts = world.held(uid).into_iter().filter(|host| asked.contains_key(&host.name_any()));
            let mut hosts = hosts.filter(|host| !is_lost(&host.name_any()));
            let busy = hosts.find(begun).map(kube::ResourceExt::name_any);
            // A certificate that has ended is renewed whatever another master does.
            let dates = host.annotations().get(names::CERTIFICATES_ANNOTATION);
            let is_urgent =
                is_for(&order.job, "certificates") && dates.is_some_and(|dates| dates.contains("\"Ended\""));
            let may_begin = busy.is_none() || is_urgent || is_for(&order.job, "preflight");
            assert!(may_begin, "changes {} beside {busy:?}", order.host);
        }
        Step::Adopt { name, fields, .. } => {
            let machine = &world.machines[name].record;
            let version = fields["spec"]["version"].as_str().unwrap();
            // One that never becomes a node, or is lost, is said to have what the others have.
            let runs = &machine.status.node_info.kubelet_version;
            let said = request.annotations().get(names::LOST_HOSTS_ANNOTATION).cloned().unwrap_or_default();
            let is_lost = machine.server().is_some_and(|host| world.dead.contains(host) && said.contains(host));
            assert!(runs == version || is_lost || !machine.was_a_node(), "{name} runs {runs}, not {version}");
        }
        Step::GiveInstallScripts(equipment) => {
            let host = &world.hosts[&equipment.host];
            assert_eq!(host.holder(), Some(uid), "equips {}, which it does not hold", equipment.host);
            // platform9's BYOH takes a host with the one and without the other for cleaned, and deletes the Secret.
            assert!(
                host.status.machine_ref.is_some() && !host.is_unregistering(),
                "equips {} too early",
                equipment.host
            );
        }
        Step::Create(manifest) => create(world, flight, manifest),
        Step::Update(manifest, _) => change(world, flight, manifest),
        Step::RestoreMarks(manifest, _) => {
            let meta = world.meta(manifest.kind, &manifest.name).unwrap();
            let mark = meta.labels.as_ref().and_then(|labels| labels.get(names::REQUEST_UID_LABEL));
            assert!(mark.is_none_or(|mark| mark == uid), "marks {}, which is {mark:?}'s", manifest.name);
        }
        Step::Delete { kind, name, .. } => delete(world, flight, *kind, name),
        Step::PatchSpec { kind, name, spec, .. } => set(world, flight, *kind, name, spec),
    }
}

/// No object and no mark of a request.
pub fn nothing_is_left(world: &World, uid: &str, key: &str) {
    assert_eq!(world.made(uid), [], "objects are left");
    for host in world.hosts.values() {
        assert_ne!(host.holder(), Some(uid), "{} is still held", host.name_any());
        if host.was_given_up() {
            continue;
        }
        assert_ne!(host.annotations().get(names::REQUEST_ANNOTATION).map(String::as_str), Some(key), "a mark is left");
        assert!(host.holder().is_some() || !world.install_secrets.contains(&host.name_any()), "a Secret is left");
    }
}

/// The owner of the request has said that a host is lost which leaves the request.
fn is_called_lost(flight: &Flight, host: &str) {
    let said = flight.request.annotations().get(names::LOST_HOSTS_ANNOTATION).cloned().unwrap_or_default();
    assert!(said.split(',').any(|name| name.trim() == host), "gives up {host} unasked");
    let is_deleted = flight.request.metadata.deletion_timestamp.is_some();
    assert!(is_deleted || !asked(&flight.request).contains_key(host), "gives up {host}, which the request names");
}

fn host(world: &World, flight: &Flight, marks: &HostPatch) {
    let uid = flight.observed.uid.as_str();
    let host = &world.hosts[&marks.host];
    let holder = host.holder();
    assert!(holder.is_none_or(|holder| holder == uid), "takes {} from {holder:?}", marks.host);
    if marks.annotations.contains_key(UNREGISTERING_ANNOTATION) {
        let consents = flight.request.metadata.deletion_timestamp.is_some()
            || flight.request.annotations().contains_key(names::CLEAN_ANNOTATION);
        assert!(consents, "has {} cleaned, and nobody asked for that", marks.host);
        assert!(!host.is_paused(), "touches {}, which is paused", marks.host);
        let cluster = flight.request.spec.template_parameters.cluster_name.clone().unwrap();
        assert!(!world.clusters.contains_key(&cluster), "has {} cleaned under a Cluster", marks.host);
        assert!(host.is_in_service_of(&cluster), "has {} cleaned, which is not the cluster's", marks.host);
        return;
    }
    if marks.annotations.contains_key(PAUSED_ANNOTATION) {
        let said = flight.request.annotations().get(names::CLEAN_ANNOTATION);
        assert!(said.is_some_and(|ids| ids.contains(&host.uid().unwrap())), "takes a pause off {} unasked", marks.host);
        return;
    }
    let of_job = |key: &String| [names::JOB_ANNOTATION, names::SNAPSHOT_ANNOTATION].contains(&key.as_str());
    let takes_job = marks.annotations.contains_key(names::JOB_ANNOTATION) && marks.annotations.keys().all(of_job);
    if marks.labels.is_empty() && takes_job {
        let told = host.annotations().get(names::JOB_STATUS_ANNOTATION);
        let has_ended = told.is_some_and(|told| told.contains("\"Done\"") || told.contains("\"Failed\""));
        let id = host.annotations()[names::JOB_ANNOTATION].split(' ').next().unwrap();
        let has_begun = told.is_some_and(|told| told.contains(&format!("{id:?}")));
        let ordered = flight.request.annotations().get(names::SNAPSHOT_ANNOTATION).map(|word| word.to_lowercase());
        let is_ordered = ordered.is_some_and(|word| id.starts_with(&format!("snapshot-{}-", word.replace('_', "-"))));
        let is_taken_back = id.starts_with("snapshot-") && !has_begun && !is_ordered;
        let is_clean = host.in_use_reason().is_none();
        assert!(has_ended || is_taken_back || is_clean, "takes a job off {} that has not ended", marks.host);
        assert_eq!(holder, Some(uid), "takes a job off {}, which it does not hold", marks.host);
        return;
    }
    let asked = asked(&flight.request);
    if marks.labels.len() == 1 && marks.labels.get(names::ROLE_LABEL) == Some(&None) {
        assert_eq!(holder, Some(uid), "takes the role off {}, which it does not hold", marks.host);
        let machine = flight.observed.machine_of(host);
        let is_deleted =
            host.is_unregistering() || machine.is_none_or(|machine| machine.metadata.deletion_timestamp.is_some());
        let stays = asked.get(&marks.host) == Some(&names::ROLE_CONTROL_PLANE);
        let is_reset = machine.is_some_and(|machine| is_asked_to_be_reset(world, flight, machine));
        assert!(!stays || is_deleted || is_reset, "takes the role off {}, which stays a master", marks.host);
        return;
    }
    if marks.labels.get(names::REQUEST_UID_LABEL) != Some(&None) {
        let is_deleted = flight.request.metadata.deletion_timestamp.is_some();
        let gives_role_back = keeps_cluster(flight) && holder == Some(uid);
        assert!(!is_deleted || gives_role_back, "claims while it is deleted");
        assert!(asked.contains_key(&marks.host), "claims {}, which was not asked for", marks.host);
        for name in asked.keys() {
            let seen = flight.observed.host(name).unwrap_or_else(|| panic!("claims while {name} does not exist"));
            let available = flight.observed.holds(seen)
                || (seen.holder().is_none() && seen.in_use_reason().is_none() && seen.not_alive_reason().is_none());
            assert!(available, "claims while {name} is not available");
        }
        return;
    }
    assert_eq!(holder, Some(uid), "lets go of {}, which it does not hold", marks.host);
    let cluster = flight.request.spec.template_parameters.cluster_name.clone().unwrap();
    let deleted = flight.request.metadata.deletion_timestamp.is_some();
    let deployment = names::worker(&flight.request.namespace().unwrap(), &cluster, &marks.host);
    let gives_up = marks.labels.get(names::LOST_LABEL).is_some_and(Option::is_some);
    if gives_up {
        is_called_lost(flight, &marks.host);
        let machine = host.attached_machine().filter(|machine| world.machines.contains_key(*machine));
        assert_eq!(machine, None, "gives up {}, which has a Machine", marks.host);
        let is_cleaned = host.is_unregistering() || !host.is_attached_to(&cluster);
        assert!(is_cleaned, "gives up {}, which nobody has asked to be cleaned", marks.host);
        assert!(!matches!(marks.install_secret, Some(InstallSecret::Delete(_))), "takes the uninstall script away");
    } else {
        let in_use = host.in_use_reason().filter(|_| !host.is_attached_to_other(&cluster));
        assert_eq!(in_use, None, "lets go of {}, which is in use", marks.host);
    }
    if deleted || (flight.verdict.is_err() && world.own_clusters(uid).is_empty()) {
        assert_eq!(world.made(uid), [], "lets go of {} before everything is deleted", marks.host);
    } else if asked.contains_key(&marks.host) && flight.verdict.is_ok() {
        assert!(world.own_clusters(uid).is_empty(), "lets go of {}, which the cluster needs", marks.host);
    } else {
        assert!(
            !world.deployments.contains_key(&deployment),
            "lets go of {}, which has a MachineDeployment",
            marks.host
        );
    }
    if host.annotations().contains_key(names::HOST_ID_SET_ANNOTATION) && !gives_up {
        assert_eq!(marks.labels.get(names::HOST_ID_LABEL), Some(&None), "leaves a host-id that it had set");
    } else {
        assert!(!marks.labels.contains_key(names::HOST_ID_LABEL), "takes off a host-id that it had not set");
    }
}

/// Every asked-for host is held in its role, and no other is held as a master: the templates select by that.
fn hosts_are_reserved(world: &World, flight: &Flight) {
    let asked = asked(&flight.request);
    let uid = flight.observed.uid.as_str();
    for (name, role) in &asked {
        // A host that was registered anew while the reconcile was on its way could not be known.
        let seen = flight.observed.host(name).and_then(kube::ResourceExt::uid);
        let Some(host) = world.hosts.get(name).filter(|host| host.uid() == seen) else { continue };
        assert_eq!(host.holder(), Some(uid), "{name} is not held");
        assert_eq!(
            host.labels().get(names::ROLE_LABEL).map(String::as_str),
            Some(*role),
            "{name} is held for something else"
        );
    }
}

/// The owner of the request asks for another version than a Machine has, and its template says that hosts are reset for that.
fn is_asked_to_be_reset(world: &World, flight: &Flight, machine: &Machine) -> bool {
    let strategy = flight.observed.template.as_ref().map(|template| template.spec.upgrade.strategy);
    let asked = &flight.request.spec.template_parameters.k8s_version;
    let version = flight.observed.control_plane.as_ref().map(|object| object.spec.version.clone());
    let is_rolled =
        world.control_planes.keys().any(|name| world.rolling.contains(name)) && machine.spec.version != version;
    let is_asked = strategy == Some(UpgradeStrategy::Rolling) && asked.is_some() && *asked != machine.spec.version;
    is_asked || machine.is_master() && is_rolled
}

/// Every host of the request is a node that is Ready, and none leaves.
fn every_node_is_ready(flight: &Flight) {
    let said = flight.request.annotations().get(names::LOST_HOSTS_ANNOTATION).cloned().unwrap_or_default();
    for host in asked(&flight.request).keys().filter(|host| !said.contains(host.as_str())) {
        let node = flight.observed.node(host).unwrap_or_else(|| panic!("goes on although {host} is no node"));
        assert!(Condition::is_true(&node.status.conditions, "NodeHealthy"), "goes on although {host} is not Ready");
    }
    let mut leaving = flight.observed.machines.iter().filter(|machine| machine.metadata.deletion_timestamp.is_some());
    assert!(leaving.next().is_none(), "goes on while another one leaves");
}

/// Whether the cluster stays when its request is deleted.
fn keeps_cluster(flight: &Flight) -> bool {
    flight.request.finalizers().iter().any(|finalizer| finalizer == names::ORPHAN_FINALIZER)
}

fn create(world: &World, flight: &Flight, manifest: &Manifest) {
    let uid = flight.observed.uid.as_str();
    let is_deleted = flight.request.metadata.deletion_timestamp.is_some();
    // A worker that was reset becomes a node again.
    let gives_back = keeps_cluster(flight) && manifest.kind != Kind::Cluster;
    assert!(!is_deleted || gives_back, "creates while it is deleted");
    assert_eq!(manifest.object["metadata"]["labels"][names::REQUEST_UID_LABEL], json!(uid), "an object without mark");
    if manifest.kind == Kind::Cluster {
        hosts_are_reserved(world, flight);
        assert_eq!(manifest.object["spec"]["paused"], json!(true), "a Cluster that is not whole runs");
        for host in world.held(uid) {
            assert_eq!(host.in_use_reason(), None, "a new Cluster on {}, which is in use", host.name_any());
        }
    }
}

fn change(world: &World, flight: &Flight, manifest: &Manifest) {
    let uid = flight.observed.uid.as_str();
    assert!(flight.request.metadata.deletion_timestamp.is_none(), "changes while it is deleted");
    assert_eq!(world.mark(manifest.kind, &manifest.name), Some(uid), "changes what is not its own");
    let before = &world.applied[&(manifest.kind, manifest.name.clone())];
    if is_template(manifest.kind) {
        assert_eq!(before["spec"], manifest.object["spec"], "{} is changed in place", manifest.name);
    }
    if matches!(manifest.kind, Kind::Cluster | Kind::ByoCluster) {
        let endpoint = |object: &serde_json::Value| object["spec"]["controlPlaneEndpoint"].clone();
        let cluster = &world.applied[&(Kind::Cluster, manifest.name.clone())];
        assert_eq!(endpoint(cluster), endpoint(&manifest.object), "the endpoint of a cluster that is there moves");
    }
    if manifest.kind == Kind::Cluster {
        let starts = before["metadata"]["annotations"].as_object()
            != manifest.object["metadata"]["annotations"].as_object()
            && before["spec"]["paused"] == json!(true);
        if starts {
            it_is_whole(world, flight);
        } else {
            let paused = world.clusters[&manifest.name].spec.paused;
            assert!(!paused || manifest.object["spec"]["paused"] != json!(false), "resumes what somebody has paused");
        }
    }
}

/// The few fields that are set alone.
fn set(world: &World, flight: &Flight, kind: Kind, name: &str, spec: &serde_json::Value) {
    assert_eq!(world.mark(kind, name), Some(flight.observed.uid.as_str()), "changes what is not its own");
    let fields: Vec<_> = spec.as_object().map(|fields| fields.keys().map(String::as_str).collect()).unwrap_or_default();
    if kind == Kind::Cluster {
        assert_eq!(*spec, json!({"paused": false}));
        let cluster = &world.clusters[name];
        let deleted = cluster.metadata.deletion_timestamp.is_some();
        assert!(deleted || cluster.is_creating(), "resumes a Cluster that may be paused by its users");
        let begins = world.made(flight.observed.uid.as_str()).into_iter().any(|(kind, part)| {
            kind == Kind::KubeadmControlPlane
                && world.meta(kind, &part).is_some_and(|meta| meta.deletion_timestamp.is_none())
        });
        assert!(deleted || !begins, "begins a cluster that is to go");
    } else if kind == Kind::Machine {
        assert_eq!(fields, ["deletion"]);
        let machine = &world.machines[name].record;
        assert!(machine.metadata.deletion_timestamp.is_some(), "changes Machine {name}, which stays");
        let host = machine.server().unwrap();
        let deployment = machine.deployment().and_then(|name| flight.observed.deployments.get(name));
        let is_kept = deployment.is_some_and(|object| object.metadata.deletion_timestamp.is_none());
        let is_asked_for = asked(&flight.request).contains_key(host);
        assert!(!is_asked_for || !is_kept, "changes Machine {name} of a host that stays");
    } else {
        let known = ["replicas", "rollout", "version", "template", "kubeadmConfigSpec", "machineTemplate"];
        assert!(fields.iter().all(|field| known.contains(field)), "{} {name}: {fields:?}", kind.name());
        if let Some(replicas) = spec["replicas"].as_u64().filter(|_| kind == Kind::KubeadmControlPlane) {
            assert!(replicas % 2 == 1, "Cluster API refuses {replicas} masters");
        }
        if kind == Kind::KubeadmControlPlane && spec["rollout"]["strategy"]["rollingUpdate"]["maxSurge"] == json!(0) {
            every_node_is_ready(flight);
            let masters = flight.observed.machines.iter().filter(|machine| machine.is_master());
            for machine in masters {
                assert!(is_asked_to_be_reset(world, flight, machine), "replaces masters unasked");
                let host = &world.hosts[machine.server().unwrap()];
                assert!(!host.is_held_as_master(), "BYOH may attach {} before it is clean", host.name_any());
            }
        }
        let is_deleted = flight.request.metadata.deletion_timestamp.is_some();
        assert!(!is_deleted || keeps_cluster(flight), "changes while it is deleted");
    }
}

/// Before Cluster API begins, every part is there and the labels choose exactly the asked-for hosts.
fn it_is_whole(world: &World, flight: &Flight) {
    let uid = flight.observed.uid.as_str();
    hosts_are_reserved(world, flight);
    let asked = asked(&flight.request);
    for host in world.held(uid) {
        let master = host.labels().get(names::ROLE_LABEL).is_some_and(|role| role == names::ROLE_CONTROL_PLANE);
        let meant = asked.get(&host.name_any()) == Some(&names::ROLE_CONTROL_PLANE);
        assert!(!master || meant, "{} would become a master", host.name_any());
    }
    for kind in [Kind::ByoCluster, Kind::KubeadmControlPlane, Kind::ByoMachineTemplate] {
        assert!(world.made(uid).iter().any(|(made, _)| *made == kind), "starts without {}", kind.name());
    }
}

fn delete(world: &World, flight: &Flight, kind: Kind, name: &str) {
    let Some(mark) = world.mark(kind, name) else { return };
    let uid = flight.observed.uid.as_str();
    assert_eq!(mark, uid, "deletes what is not its own");
    let orphaned = world.own_clusters(uid).is_empty();
    let is_cleaned = |cluster: &&Cluster| cluster.annotations().contains_key(names::CLEANING_ANNOTATION);
    let goes = flight.request.metadata.deletion_timestamp.is_some() || world.own_clusters(uid).iter().any(is_cleaned);
    if kind == Kind::Machine && goes && world.made(uid).iter().all(|(kind, _)| *kind != Kind::KubeadmControlPlane) {
        // A master whose control plane somebody has deleted before. Cluster API deletes it only under its Cluster.
        assert!(world.machines[name].record.is_master() && !orphaned, "deletes {name}");
        return;
    }
    if flight.request.metadata.deletion_timestamp.is_some() {
        let own = world.own_clusters(uid);
        let running = own.iter().any(|cluster| !cluster.is_creating());
        assert!(kind == Kind::Cluster || !running, "deletes {name} before Cluster API has taken the cluster down");
        let parts = [Kind::KubeadmControlPlane, Kind::MachineDeployment, Kind::ByoCluster];
        let unseen = world.made(uid).into_iter().find(|(kind, part)| {
            parts.contains(kind) && world.meta(*kind, part).is_some_and(|meta| meta.owner_references.is_none())
        });
        assert!(kind != Kind::Cluster || unseen.is_none(), "deletes Cluster {name} before {unseen:?} was seen");
        return;
    }
    if kind == Kind::Machine {
        master_goes(world, flight, name);
        return;
    }
    let is_cleaned = flight.request.annotations().contains_key(names::CLEAN_ANNOTATION);
    if kind == Kind::Cluster
        && is_cleaned
        && world.clusters[name].annotations().contains_key(names::CLEANING_ANNOTATION)
    {
        return;
    }
    // A creation that somebody has interrupted is taken apart, under its Cluster and while nothing runs.
    if world.own_clusters(uid).iter().any(|cluster| cluster.is_creating() && cluster.is_being_torn_down()) {
        let nodes = world.machines.values().find(|machine| machine.record.was_a_node());
        assert!(nodes.is_none(), "takes a cluster apart that has nodes");
        return;
    }
    // Without its Cluster a request either makes a new one, or clears away what is left.
    if orphaned && flight.verdict.is_err() {
        return;
    }
    assert!(kind == Kind::MachineDeployment || is_template(kind), "deletes {} {name} of a live request", kind.name());
    if is_template(kind) {
        let uses = world.made(uid).into_iter().find(|(user, other)| {
            matches!(user, Kind::KubeadmControlPlane | Kind::MachineDeployment)
                && world.applied[&(*user, other.clone())].to_string().contains(&format!("\"{name}\""))
        });
        assert_eq!(uses, None, "deletes {name}, which is in use");
    } else {
        let cluster = flight.request.spec.template_parameters.cluster_name.clone().unwrap();
        let asked = asked(&flight.request);
        let mut workers = asked.iter().filter(|(_, role)| **role == names::ROLE_WORKER);
        let wanted = workers.any(|(host, _)| names::worker(crate::model::NAMESPACE, &cluster, host) == name);
        let mut machines = flight.observed.machines.iter().filter(|machine| machine.deployment() == Some(name));
        let is_reset = wanted && machines.all(|machine| is_asked_to_be_reset(world, flight, machine));
        if is_reset {
            every_node_is_ready(flight);
        }
        assert!(!wanted || is_reset, "deletes the worker {name}, which was asked for");
    }
}

/// A master is deleted by itself only if an edit took its host out, and the others do without it.
fn master_goes(world: &World, flight: &Flight, name: &str) {
    let machine = &world.machines[name].record;
    if !machine.is_master() && is_asked_to_be_reset(world, flight, machine) {
        every_node_is_ready(flight);
        return;
    }
    assert!(machine.is_master(), "deletes Machine {name} of a worker");
    let attached = world.hosts.values().find(|host| host.attached_machine() == Some(name));
    let host = attached.map(kube::ResourceExt::name_any).or_else(|| machine.server().map(ToOwned::to_owned));
    let Some(host) = host else { return };
    let is_named = asked(&flight.request).get(&host) == Some(&names::ROLE_CONTROL_PLANE);
    assert!(!is_named, "deletes Machine {name} of {host}, which is a master");
    let selected = attached.is_some_and(ByoHost::is_held_as_master);
    assert!(!selected, "deletes Machine {name} while BYOH may give {host} to the next one");
    if !machine.was_a_node() {
        return;
    }
    let others = flight.observed.machines.iter().filter(|other| other.is_master() && other.name_any() != name);
    let healthy = others.filter(|other| {
        other.metadata.deletion_timestamp.is_none() && Condition::is_true(&other.status.conditions, "NodeHealthy")
    });
    assert!(healthy.count() >= 2, "deletes Machine {name}, and etcd has no quorum");
}

/// Cluster API replaces machines that differ from what makes them, unless that is paused.
fn nothing_is_rolled(world: &World) {
    fn is_paused(meta: &ObjectMeta, conditions: &[Condition]) -> bool {
        let annotated = meta.annotations.as_ref().is_some_and(|all| all.contains_key(PAUSED_ANNOTATION));
        annotated && Condition::is_true(conditions, "Paused") || meta.deletion_timestamp.is_some()
    }
    for (name, object) in &world.control_planes {
        let masters = world.machines.values().filter(|machine| machine.owner.1 == *name);
        for machine in masters.filter(|_| !is_paused(&object.metadata, &object.status.conditions)) {
            let (machine, has) = (&machine.record, machine.record.spec.version.as_deref());
            if world.rolling.contains(name) && has != Some(object.spec.version.as_str()) {
                continue;
            }
            assert_eq!(has, Some(object.spec.version.as_str()), "Cluster API would replace {}", machine.name_any());
            let wants_gate = parse(&object.spec.version).is_some_and(|version| version.minor < 36);
            let has_gate = world.with_gate.contains(&machine.name_any());
            assert_eq!(has_gate, wants_gate, "Cluster API would replace {} for its gate", machine.name_any());
        }
    }
    for (name, object) in &world.deployments {
        if let Some(set) = world.machine_sets.get(name)
            && !is_paused(&object.metadata, &object.status.conditions)
        {
            let version = object.spec.template.spec.version.as_ref();
            assert_eq!(version, Some(set), "Cluster API would replace the worker of {name}");
        }
    }
}

/// What holds between the writes.
pub fn check_world(world: &World) {
    nothing_is_rolled(world);
    for machine in world.machines.values() {
        let name = machine.record.name_any();
        let uid = &machine.record.labels()[names::REQUEST_UID_LABEL];
        for host in world.hosts.values() {
            if host.status.machine_ref.as_ref().is_some_and(|attached| attached.name == name) {
                assert_eq!(
                    host.holder(),
                    Some(uid.as_str()),
                    "{} runs {name} without its request's mark",
                    host.name_any()
                );
            }
        }
    }
    let mut endpoints = std::collections::BTreeSet::new();
    for ((kind, name), object) in &world.applied {
        let endpoint = object["spec"]["controlPlaneEndpoint"].to_string();
        assert!(
            *kind != Kind::Cluster || endpoints.insert(endpoint),
            "{name} shares its endpoint with another cluster"
        );
    }
    for host in world.hosts.values().filter(|host| host.in_use_reason().is_some()) {
        assert!(host.holder().is_some() || host.was_given_up(), "{} is in use and nobody holds it", host.name_any());
    }
}

/// What a status says that exists is deleted with the request.
pub fn check_finalizer(request: &ProvisioningRequest, assessment: &Assessment) {
    let state = assessment.status.provisioning_status.provisioning_state;
    let exists = matches!(state, ProvisioningState::Fulfilled | ProvisioningState::Progressing);
    assert!(!exists || has_finalizer(request), "{state} without the finalizer");
}

/// What holds of every status.
pub fn check_status(request: &ProvisioningRequest, assessment: &Assessment) {
    let new = &assessment.status;
    let told = &new.provisioning_status;
    let state = told.provisioning_state;
    let summary = |type_: &str| {
        let condition = find(&new.conditions, type_).unwrap_or_else(|| panic!("{type_} is not told"));
        assert_eq!(condition.observed_generation, request.metadata.generation, "{type_}");
        condition.status == "True"
    };
    let (ready, reconciling, stalled) =
        (summary(conditions::READY), summary(conditions::RECONCILING), summary(conditions::STALLED));
    assert_eq!(u8::from(ready) + u8::from(reconciling) + u8::from(stalled), 1, "exactly one of the three: {new:#?}");
    assert_eq!(ready, state == ProvisioningState::Fulfilled);
    let late = state == ProvisioningState::Deleting
        && find(&new.conditions, conditions::STALLED)
            .is_some_and(|condition| condition.reason == conditions::reason::DEADLINE_EXCEEDED);
    assert!(!stalled || state == ProvisioningState::Failed || late, "stalled: {told:?}");
    assert_eq!(new.observed_generation, request.metadata.generation);
    assert!(!told.provisioning_message.is_empty(), "nothing is said");
    assert!(
        !new.conditions.iter().any(|condition| condition.reason.is_empty() || condition.message.lines().count() > 1)
    );
    assert!(assessment.recheck.is_none_or(|left| !left.is_zero()), "looks again at once, for ever");

    let Some(old) = &request.status else { return };
    let before = &old.provisioning_status;
    let same = before.provisioning_state == state && before.provisioning_message == told.provisioning_message;
    if same {
        assert_eq!(
            before.provisioning_update_time, told.provisioning_update_time,
            "a new time for the same state and message"
        );
    }
    for condition in &new.conditions {
        let before = find(&old.conditions, &condition.type_).filter(|before| before.status == condition.status);
        if let Some(before) = before {
            assert_eq!(before.last_transition_time, condition.last_transition_time, "{}", condition.type_);
        }
    }
}
