//! Snapshots of etcd at the word of the owner of a request, by a job of the first master, as an upgrade takes one. The job is given while no other one is
//! due, and taken off the host when it has ended; what came of it stays there in an annotation, so that one word is one order.

use std::collections::BTreeMap;

use cluster_api::byoh::ByoHost;
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::provisioning_request::HostFile;
use o2ims_types::{ProvisioningRequest, names};

use super::claim;
use super::desired::DesiredCluster;
use super::observed::{Observed, Phase};
use super::support::{is_word, made, no_word, note, noted};
use super::upgrade::hop::half_upgraded;
use super::upgrade::job::{self, Job, Purpose, Standing, command_for_unit};
use crate::provisioner::step::Step;

/// Folder of the snapshots on a host.
const FOLDER: &str = "/var/lib/o2ims-snapshots";

fn word(request: &ProvisioningRequest) -> Option<&str> {
    request.annotations().get(names::SNAPSHOT_ANNOTATION).map(|word| word.trim()).filter(|word| is_word(word))
}

fn job<'a>(host: &'a ByoHost, machine: &'a Machine, desired: &DesiredCluster, word: &'a str) -> Job<'a> {
    Job {
        purpose: Purpose::Snapshot,
        host,
        machine: host.machine_name().unwrap_or_default(),
        role: names::ROLE_CONTROL_PLANE,
        is_first: true,
        masters: desired.masters.len(),
        from: machine.spec.version.as_deref().unwrap_or_default(),
        to: word,
        installer: desired.install.installer.clone().unwrap_or_default(),
        ignored: Vec::new(),
        snapshot: "",
        drain: None,
    }
}

/// Takes jobs off their hosts: one that has ended, of which the host keeps what came of it; and one that the host has not begun and that is not ordered any
/// more. What else is due waits for open jobs, so this comes first.
pub fn take_off(request: &ProvisioningRequest, observed: &Observed) -> Vec<Step> {
    if observed.phase != Phase::Running {
        return Vec::new();
    }
    observed.held().filter_map(|host| take_off_host(word(request), observed, host)).flatten().collect()
}

fn take_off_host(word: Option<&str>, observed: &Observed, host: &ByoHost) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let (.., standing) = job::given(Purpose::Snapshot, host)?;
    let mut annotations = BTreeMap::from([(names::JOB_ANNOTATION.to_owned(), None)]);
    match (word.filter(|word| job::is_given(Purpose::Snapshot, word, host)), standing) {
        (Some(word), Standing::Done | Standing::Failed(_)) => {
            let file = serde_json::to_string(&file(word, host)).unwrap_or_default();
            annotations.insert(names::SNAPSHOT_ANNOTATION.to_owned(), Some(file));
            steps.extend(note(observed, names::SNAPSHOT_ANNOTATION, word));
        }
        (None, Standing::Given) => {}
        _ => return None,
    }
    steps.push(Step::PatchHost(claim::patch(host, BTreeMap::new(), annotations)));
    Some(steps)
}

/// What came of the job that has ended.
fn file(word: &str, host: &ByoHost) -> HostFile {
    let ended = |state: &str, message: String| HostFile {
        name: word.to_owned(),
        state: state.to_owned(),
        message,
        ..HostFile::default()
    };
    if let Some((.., Standing::Failed(why))) = job::given(Purpose::Snapshot, host) {
        return ended("Failed", why);
    }
    let words = job::last_words(host);
    let (bytes, sha256) = words.split_once(' ').unwrap_or_default();
    HostFile {
        path: job::snapshot_of(host).map(|snapshot| format!("{FOLDER}/{snapshot}")),
        bytes: bytes.parse().ok(),
        sha256: Some(sha256.to_owned()),
        ..ended("Done", String::new())
    }
}

/// Whether a word was carried out, by a host that may have been reset or have left since.
fn is_over(word: &str, observed: &Observed) -> bool {
    noted(observed, names::SNAPSHOT_ANNOTATION) == Some(word)
}

/// The order of the snapshot, when neither an upgrade nor a renewal is due.
pub fn order(request: &ProvisioningRequest, desired: &DesiredCluster, observed: &Observed) -> Vec<Step> {
    let is_due = |word: &&str| observed.phase == Phase::Running && !is_over(word, observed);
    let Some(word) = word(request).filter(is_due) else { return Vec::new() };
    // An earlier release has noted it nowhere else.
    if observed.held().any(|host| made(host, names::SNAPSHOT_ANNOTATION).is_some_and(|last| last.name == word)) {
        return note(observed, names::SNAPSHOT_ANNOTATION, word).into_iter().collect();
    }
    let first = desired.masters.first().map(|first| first.name.as_str()).unwrap_or_default();
    let (Some(host), Some(machine)) = (observed.host(first).filter(|host| observed.holds(host)), observed.node(first))
    else {
        return Vec::new();
    };
    if !has_unit(host) || job::is_open(host) || is_halfway(request, observed, host) {
        return Vec::new();
    }
    let job = job(host, machine, desired, word);
    job.order(job.last_attempt() + 1, &observed.uid).map(Step::GiveJob).into_iter().collect()
}

/// Whether an upgrade or the way back from one was left halfway: its job must stay on the host, as it tells what is to be done next.
fn is_halfway(request: &ProvisioningRequest, observed: &Observed, host: &ByoHost) -> bool {
    let restore = job::given(Purpose::Restore, host);
    half_upgraded(request, observed).is_some() || restore.is_some_and(|(.., standing)| standing != Standing::Done)
}

fn has_unit(host: &ByoHost) -> bool {
    host.annotations().contains_key(names::HOST_UNIT_ANNOTATION)
}

/// The snapshot of a host that the request holds: the one that is ordered, or else the last one.
pub fn of_host(
    request: &ProvisioningRequest,
    desired: Option<&DesiredCluster>,
    observed: &Observed,
    host: &ByoHost,
) -> Option<HostFile> {
    let is_first =
        desired.and_then(|desired| desired.masters.first()).is_some_and(|first| first.name == host.name_any());
    let ordered = word(request).filter(|word| is_first && !is_over(word, observed));
    if let Some(last) =
        made(host, names::SNAPSHOT_ANNOTATION).filter(|last| ordered.is_none_or(|word| word == last.name))
    {
        return Some(last);
    }
    let name = ordered?;
    let (state, message) = match job::given(Purpose::Snapshot, host) {
        Some((.., Standing::Running(what))) => ("Running", what),
        _ if !has_unit(host) => (
            "Waiting",
            format!(
                "the unit o2ims-host does not report from the host; to put it there: {}",
                command_for_unit(&[host.name_any()])
            ),
        ),
        _ => ("Waiting", "waits for the host, or for an upgrade or a renewal of certificates".to_owned()),
    };
    Some(HostFile { name: name.to_owned(), state: state.to_owned(), message, ..HostFile::default() })
}

/// What is wrong in the annotation, as a sentence.
pub fn mistake(request: &ProvisioningRequest, _: &Observed) -> Option<String> {
    let word = request.annotations().get(names::SNAPSHOT_ANNOTATION)?.trim();
    (!is_word(word)).then(|| no_word(names::SNAPSHOT_ANNOTATION, word))
}
