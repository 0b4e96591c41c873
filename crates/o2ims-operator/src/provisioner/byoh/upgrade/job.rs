//! Jobs: what the unit of the install script runs on a host. A job is a script in a Secret, which an annotation of the ByoHost names with its hash;
//! the host reports by another annotation. A job goes on by itself from then on, also without the management cluster and after a reboot.

use cluster_api::byoh::ByoHost;
use k8s_openapi::ByteString;
use kube::ResourceExt as _;
use o2ims_types::names;
use o2ims_types::o2ims::v1alpha1::cluster_template::Installer;
use operator_kit::text;
use operator_kit::write::apply::sha256;
use serde::Deserialize;
use serde_json::json;

use crate::provisioner::byoh::installer::{self, is_plain, is_sound, secret_of, sources};
use crate::provisioner::byoh::marks::MarkedHost as _;
use crate::provisioner::step::JobOrder;

const JOB: &str = include_str!("scripts/job.sh");
/// How it has packages there before an upgrade, and installs them in it.
const PACKAGES: &str = include_str!("scripts/packages.sh");
/// How it takes a snapshot of etcd and of the configuration of the host.
const SNAPSHOT: &str = include_str!("scripts/snapshot.sh");
const ASKED_SNAPSHOT: &str = include_str!("scripts/asked_snapshot.sh");
const PREFLIGHT: &str = include_str!("scripts/preflight.sh");
const UPGRADE: &str = include_str!("scripts/upgrade.sh");
const RESTORE: &str = include_str!("scripts/restore.sh");
const CERTIFICATES: &str = include_str!("scripts/certificates.sh");
/// How a job reads when certificates end.
const DATES: &str = include_str!("scripts/dates.sh");
/// Longest text that is taken from a host, in characters.
const REPORT_MAX: usize = 600;

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Brings the images to the host, and checks that it can be upgraded.
    Preflight,
    /// Upgrades Kubernetes on the host.
    Upgrade,
    /// Brings an only master back to a snapshot.
    Restore,
    /// Renews the certificates of the control plane on the host, and starts what uses them again.
    RenewCertificates,
    /// Takes a snapshot at the word of the owner of the request.
    Snapshot,
}

impl Purpose {
    /// As it stands in the id of a job.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Upgrade => "upgrade",
            Self::Restore => "restore",
            Self::RenewCertificates => "certificates",
            Self::Snapshot => "snapshot",
        }
    }
}

/// A job of a host.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// What it is for.
    pub purpose: Purpose,
    /// The host.
    pub host: &'a ByoHost,
    /// `<namespace>.<ByoMachine>` that the host is the node of.
    pub machine: &'a str,
    /// The role of the host.
    pub role: &'static str,
    /// It is the master that kubeadm upgrades the cluster's configuration on.
    pub is_first: bool,
    /// Number of masters.
    pub masters: usize,
    /// The version that it has.
    pub from: &'a str,
    /// The version that it gets; for certificates the day on which the first of them ends, for a snapshot the word of the owner.
    pub to: &'a str,
    /// Where that version is found.
    pub installer: Installer,
    /// Names of kubeadm's checks whose errors are ignored.
    pub ignored: Vec<&'a str>,
    /// The snapshot that is restored; empty for other jobs.
    pub snapshot: &'a str,
    /// How long the drain of the node may take before its upgrade, in seconds, 0 for ever; `None`: it is not drained.
    pub drain: Option<i32>,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The host does not have it.
    NotGiven,
    /// The host has been given it, and has not reported yet.
    Given,
    /// The host runs it; what it has reported.
    Running(String),
    /// It is done.
    Done,
    /// It has failed.
    Failed(String),
}

/// What a host reports of its job.
#[derive(Deserialize)]
struct Reported {
    id: String,
    state: String,
    #[serde(default)]
    snapshot: String,
    #[serde(default)]
    message: String,
}

/// The command that puts the unit onto hosts, by their names.
pub fn command_for_unit(hosts: &[String]) -> String {
    format!("ansible-playbook ansible/unit.yaml -e hosts={}", text::list(hosts, ","))
}

/// The job of this purpose that a host has for its machine: the version or day in its id, how often it was given, and how far it is.
pub fn given(purpose: Purpose, host: &ByoHost) -> Option<(&str, u32, Standing)> {
    let (id, standing) = current(host)?;
    let (to, attempt) = names::job_target(id, purpose.name(), host.machine_name().unwrap_or_default())?;
    Some((to, attempt, standing))
}

/// Whether a host has the job of this purpose for this version, or what else stands in its place.
pub fn is_given(purpose: Purpose, to: &str, host: &ByoHost) -> bool {
    let machine = host.machine_name().unwrap_or_default();
    current(host).is_some_and(|(id, _)| names::job_attempt(id, purpose.name(), to, machine).is_some())
}

/// The first of these hosts with a job that has not ended, and what it is for: why something has to wait.
pub fn open_on<'a>(mut hosts: impl Iterator<Item = &'a ByoHost>) -> Option<String> {
    let (host, (id, _)) = hosts.find_map(|host| Some((host, current(host).filter(|_| is_open(host))?)))?;
    Some(format!(
        "{} has a job ({}) that has not ended; if this does not change, systemctl status o2ims-host on the host says why",
        host.display(),
        id.split('-').next().unwrap_or_default()
    ))
}

/// The snapshot that the host has taken for its failed upgrade.
pub fn snapshot_of_failed(host: &ByoHost) -> Option<String> {
    let (.., standing) = given(Purpose::Upgrade, host)?;
    let (id, _) = current(host)?;
    reported(host).filter(|reported| reported.id == id && matches!(standing, Standing::Failed(_)))?;
    snapshot_of(host)
}

/// What a host has said last of its job.
pub fn last_words(host: &ByoHost) -> String {
    reported(host).map(|reported| shown(&reported.message)).unwrap_or_default()
}

/// The snapshot that a host has taken in the job that it has reported last.
pub fn snapshot_of(host: &ByoHost) -> Option<String> {
    let snapshot = reported(host)?.snapshot;
    (is_plain(&snapshot) && !snapshot.is_empty()).then_some(snapshot)
}

/// Whether a host has a job that has not ended.
pub fn is_open(host: &ByoHost) -> bool {
    current(host).is_some_and(|(_, standing)| matches!(standing, Standing::Given | Standing::Running(_)))
}

fn reported(host: &ByoHost) -> Option<Reported> {
    serde_json::from_str(host.annotations().get(names::JOB_STATUS_ANNOTATION)?).ok()
}

fn shown(message: &str) -> String {
    message.chars().filter(|character| !character.is_control()).take(REPORT_MAX).collect()
}

/// The id of the job that a host has, and how far it is.
fn current(host: &ByoHost) -> Option<(&str, Standing)> {
    let id = host.annotations().get(names::JOB_ANNOTATION)?.split(' ').next()?;
    let Some(reported) = reported(host).filter(|reported| reported.id == id) else {
        return Some((id, Standing::Given));
    };
    let standing = match reported.state.as_str() {
        "Done" => Standing::Done,
        "Failed" => Standing::Failed(shown(&reported.message)),
        _ => Standing::Running(shown(&reported.message)),
    };
    Some((id, standing))
}

impl Job<'_> {
    /// How often it was given, and how far it is.
    pub fn standing(&self) -> (u32, Standing) {
        let of_this = |(id, standing): (&str, Standing)| {
            Some((names::job_attempt(id, self.purpose.name(), self.target(), self.machine)?, standing))
        };
        current(self.host).and_then(of_this).unwrap_or((0, Standing::NotGiven))
    }

    /// Whether the job that the host has is one of an upgrade of its machine.
    pub fn is_of_upgrade(&self) -> bool {
        current(self.host).is_some_and(|(id, _)| {
            let is_for = |purpose: Purpose| id.starts_with(&format!("{}-", purpose.name()));
            names::is_job_of(id, self.machine)
                && [Purpose::Preflight, Purpose::Upgrade, Purpose::Restore].into_iter().any(is_for)
        })
    }

    /// Whether the host runs another job of this machine: this one waits for it.
    pub fn is_delayed(&self) -> bool {
        current(self.host).is_some_and(|(id, standing)| {
            matches!(standing, Standing::Running(_)) && names::is_job_of(id, self.machine) && self.standing().0 == 0
        })
    }

    /// How often the host has run it, though it may have been taken off since.
    pub fn last_attempt(&self) -> u32 {
        let of_this =
            |reported: Reported| names::job_attempt(&reported.id, self.purpose.name(), self.target(), self.machine);
        reported(self.host).and_then(of_this).unwrap_or(0)
    }

    /// What stands in its id: a snapshot is restored once.
    fn target(&self) -> &str {
        if self.purpose == Purpose::Restore { self.snapshot } else { self.to }
    }

    /// Its id at this attempt.
    pub fn id(&self, attempt: u32) -> String {
        names::job(self.purpose.name(), self.target(), self.machine, attempt)
    }

    /// What gives it to the host; `None` for values that no script may contain.
    pub fn order(&self, attempt: u32, uid: &str) -> Option<JobOrder> {
        let (host, id) = (self.host.name_any(), self.id(attempt));
        let script = self.script(&id)?;
        let hash = sha256(&script);
        let data = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
        let mut secret = secret_of(self.host, &names::job_secret(&host), uid)?;
        secret["data"] = json!({"script": data(&script), "machine": data(self.machine)});
        Some(JobOrder {
            host,
            resource_version: self.host.metadata.resource_version.clone().unwrap_or_default(),
            secret,
            job: format!("{id} {hash}"),
        })
    }

    fn script(&self, id: &str) -> Option<String> {
        let namespace = self.host.namespace()?;
        let host = self.host.name_any();
        let (ignored, masters) = (self.ignored.join(","), self.masters.to_string());
        let drain = self.drain.map(|limit| limit.to_string()).unwrap_or_default();
        let values = [
            ("@ID@", id),
            ("@NAMESPACE@", &namespace),
            ("@HOST@", &host),
            ("@MACHINE@", self.machine),
            ("@FROM@", self.from),
            ("@TO@", self.to),
            ("@ROLE@", self.role),
            ("@PLACE@", if self.is_first { "first" } else { "other" }),
            ("@MASTERS@", &masters),
            ("@IGNORED@", &ignored),
            ("@SNAPSHOT@", self.snapshot),
            ("@DRAIN@", &drain),
        ];
        // Agents can write some of these, and not only on their own host; what follows is run by root.
        let is_safe = |(_, value): &(&str, &str)| value.split(['/', ',', ':']).all(is_plain);
        let with_packages = |script: &str| format!("{}{PACKAGES}{script}", installer::PACKAGES);
        let script = match self.purpose {
            Purpose::Preflight => with_packages(PREFLIGHT),
            Purpose::Upgrade => with_packages(&format!("{SNAPSHOT}{UPGRADE}")),
            Purpose::Snapshot => format!("{SNAPSHOT}{ASKED_SNAPSHOT}"),
            Purpose::Restore => RESTORE.to_owned(),
            Purpose::RenewCertificates => format!("{DATES}{CERTIFICATES}"),
        };
        let sources = sources(&self.installer, self.to);
        let all = values.into_iter().chain(sources.iter().map(|(mark, value)| (*mark, value.as_str())));
        let fill = |text: String, (mark, value): (&str, &str)| text.replace(mark, value);
        let is_safe = values.iter().all(is_safe) && is_sound(&self.installer);
        is_safe.then(|| all.fold(format!("{JOB}{script}"), fill))
    }
}
