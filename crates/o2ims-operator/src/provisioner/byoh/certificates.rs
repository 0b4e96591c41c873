//! Certificates that end: those of the control plane, which kubeadm issues for a year, and those of BYOH's agents. Each host reports by an
//! annotation when its own end. The unit on a host renews the agent's by itself. Those of the control plane are renewed by a job, on one master
//! after the other; the unit says when they are due, since nothing here has a clock.
//!
//! A job has the day of the end in its id, so that the next one, a year later, is another job. When it is done it is taken off the host.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_api::byoh::ByoHost;
use cluster_api::conditions::Condition;
use cluster_api::machine::Machine;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use o2ims_types::o2ims::v1alpha1::cluster_template::Installer;
use o2ims_types::{ProvisioningRequest, conditions, names};
use operator_kit::text;
use operator_kit::write::status::find;
use serde::Deserialize;

use super::claim;
use super::marks::MarkedHost as _;
use super::observed::{Observed, Phase};
use super::pause;
use super::upgrade::adoption;
use super::upgrade::gate::unhealthy_control_plane;
use super::upgrade::hop::half_upgraded;
use super::upgrade::job::{self, Job, Purpose, Standing};
use super::upgrade::outcome::{Next, halted, is_retried};
use crate::provisioner::report::{Certificates, Upcoming};
use crate::provisioner::step::Step;

/// How long before its end a certificate that was to be renewed by itself is told, in seconds: 20 days, a third of the time that there is for it.
const NOTICE: i64 = 20 * 24 * 60 * 60;
/// Longest text that is taken from a host, in characters.
const REPORT_MAX: usize = 400;

/// What a host reports of its certificates.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Dates {
    /// When the agent's ends.
    pub agent: Option<Timestamp>,
    /// When the first of the control plane ends; of masters only.
    pub control_plane: Option<Timestamp>,
    /// Those of the control plane are to be renewed.
    pub renew: Option<Due>,
    /// Why the agent's could not be renewed at the last try.
    pub failure: String,
}

/// How urgent a renewal is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Due {
    /// They end soon.
    Soon,
    /// One has ended, so that the control plane may not answer.
    Ended,
}

/// What a host reports of its certificates; `None` if it reports nothing that can be read.
pub fn dates(host: &ByoHost) -> Option<Dates> {
    serde_json::from_str(host.annotations().get(names::CERTIFICATES_ANNOTATION)?).ok()
}

/// A host whose node runs.
struct Node<'a> {
    host: &'a ByoHost,
    machine: &'a Machine,
    dates: Option<Dates>,
}

impl Node<'_> {
    /// The day in the id of the job that renews what ends first now, and how urgent it is.
    fn due(&self) -> Option<(String, Due)> {
        let dates = self.dates.as_ref()?;
        Some((dates.control_plane?.strftime("%Y-%m-%d").to_string(), dates.renew?))
    }

    fn job<'a>(&'a self, day: &'a str, masters: usize) -> Job<'a> {
        Job {
            purpose: Purpose::RenewCertificates,
            host: self.host,
            machine: self.host.machine_name().unwrap_or_default(),
            role: names::ROLE_CONTROL_PLANE,
            is_first: false,
            masters,
            from: self.machine.spec.version.as_deref().unwrap_or_default(),
            to: day,
            installer: Installer::default(),
            ignored: Vec::new(),
            snapshot: "",
            drain: None,
        }
    }
}

/// The request's hosts whose nodes run, by name.
fn nodes(observed: &Observed) -> Vec<Node<'_>> {
    let hosts = observed.in_service();
    let nodes = hosts.filter_map(|host| {
        let machine = observed.node(&host.name_any()).filter(|machine| machine.was_a_node())?;
        Some(Node { host, machine, dates: dates(host) })
    });
    nodes.collect()
}

/// What is next in the renewal of the control plane's certificates. It needs nothing of the request, which may have a mistake in it for years.
pub fn next(request: &ProvisioningRequest, observed: &Observed) -> Next {
    if observed.phase != Phase::Running || !adoption::begun(observed).is_empty() {
        return Next::Nothing;
    }
    let masters: Vec<_> = nodes(observed).into_iter().filter(|node| node.machine.is_master()).collect();
    // Where one has ended, nothing is healthy, and this is what helps: it waits for no other master.
    let without_job = |master: &&Node<'_>| {
        !job::is_open(master.host) && job::given(Purpose::RenewCertificates, master.host).is_none()
    };
    let ended = |master: &Node<'_>| master.due().filter(|(_, due)| *due == Due::Ended).map(|(day, _)| day);
    let urgent = masters.iter().filter(without_job).find_map(|master| Some((master, ended(master)?)));
    if let Some((master, day)) = urgent {
        let attempt = master.job(&day, masters.len()).last_attempt() + 1;
        return give(observed, master, masters.len(), &day, attempt);
    }
    let begun = masters.iter().find_map(|master| {
        let (day, attempt, standing) = job::given(Purpose::RenewCertificates, master.host)?;
        Some(go_on(request, observed, master, masters.len(), day, attempt, standing))
    });
    if let Some(begun) = begun {
        return begun;
    }
    // An upgrade that was left halfway may still run on a host.
    if half_upgraded(request, observed).is_some() {
        return Next::Nothing;
    }
    let due = masters.iter().find_map(|master| Some((master, master.due()?)));
    let Some((master, (day, _))) = due else { return Next::Nothing };
    if let Some(why) = job::open_on(masters.iter().map(|master| master.host)).or_else(|| unhealthy(&masters, observed))
    {
        return going(master.host, Vec::new(), &format!("waits: {why}"));
    }
    let attempt = master.job(&day, masters.len()).last_attempt() + 1;
    give(observed, master, masters.len(), &day, attempt)
}

/// What is next for a master that has its job.
fn go_on(
    request: &ProvisioningRequest,
    observed: &Observed,
    master: &Node<'_>,
    masters: usize,
    day: &str,
    attempt: u32,
    standing: Standing,
) -> Next {
    let id = master.job(day, masters).id(attempt);
    match standing {
        Standing::Failed(_) if is_retried(request, &id) => give(observed, master, masters, day, attempt + 1),
        Standing::Failed(why) => {
            let what =
                format!("the certificates of the control plane on {} were not renewed: {why}", master.host.display());
            halted(request, &what, &id)
        }
        Standing::NotGiven | Standing::Given => going(
            master.host,
            Vec::new(),
            "has its job and has not reported yet; if this does not change, systemctl status o2ims-host on the host says why",
        ),
        Standing::Running(what) => going(master.host, Vec::new(), &what),
        Standing::Done if master.due().is_some_and(|(still, _)| still == day) => {
            going(master.host, Vec::new(), "is done; waiting for the host to report the new dates")
        }
        // Both or none of the steps that follow.
        Standing::Done if master.host.is_paused() => going(master.host, Vec::new(), "is done"),
        Standing::Done => {
            // Cluster API keeps the date that it has read, until it is taken away.
            let annotations = BTreeMap::from([(names::JOB_ANNOTATION.to_owned(), None)]);
            let closed = Step::PatchHost(claim::patch(master.host, BTreeMap::new(), annotations));
            let steps = adoption::adopt_config(master.machine, false).into_iter().chain([closed]).collect();
            going(master.host, steps, "is done")
        }
    }
}

fn give(observed: &Observed, master: &Node<'_>, masters: usize, day: &str, attempt: u32) -> Next {
    let order = master.job(day, masters).order(attempt, &observed.uid).map(Step::GiveJob);
    going(master.host, order.into_iter().collect(), "is given its job")
}

fn going(host: &ByoHost, steps: Vec<Step>, what: &str) -> Next {
    let message = format!("renewing the certificates of the control plane: {}: {what}", host.display());
    Next::Going { steps, message }
}

/// Why the next master must wait: the cluster could not do without it. A worker that is not well is no reason, as a cluster with one would end.
fn unhealthy(masters: &[Node<'_>], observed: &Observed) -> Option<String> {
    if let Some(why) = unhealthy_control_plane(observed) {
        return Some(why);
    }
    let all: Vec<_> = observed.machines.iter().filter(|machine| machine.is_master()).collect();
    let replicas = observed.control_plane.as_ref().and_then(|object| usize::try_from(object.spec.replicas?).ok());
    let is_settled = |machine: &&Arc<Machine>| machine.metadata.deletion_timestamp.is_none() && machine.was_a_node();
    if replicas != Some(all.len()) || !all.iter().all(is_settled) {
        return Some("the masters of the cluster are being changed".to_owned());
    }
    let is_ready = |machine: &Machine| Condition::is_true(&machine.status.conditions, "NodeHealthy");
    let sick = masters.iter().find(|master| !is_ready(master.machine))?;
    Some(format!("the node of {} is not Ready", sick.host.display()))
}

/// What is known of the certificates of a running cluster; `None` if no host reports any.
pub fn report(request: &ProvisioningRequest, observed: &Observed) -> Option<Certificates> {
    if observed.phase != Phase::Running {
        return None;
    }
    let nodes = nodes(observed);
    let ends = nodes.iter().flat_map(|node| {
        let dates = node.dates.as_ref();
        let agent = dates.and_then(|dates| dates.agent).map(|end| (end, "the certificate of the agent", node.host));
        let control_plane = dates.and_then(|dates| dates.control_plane);
        agent.into_iter().chain(control_plane.map(|end| (end, "a certificate of the control plane", node.host)))
    });
    let (end, what, host) = ends.min_by_key(|(end, what, host)| (*end, *what, host.name_any()))?;
    let first = format!("{what} on {}", host.display());
    let told = request.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let is_upgrading = find(told, conditions::UPGRADED).is_some_and(|told| told.status != "True");
    let (renewal, mut failures) = match next(request, observed) {
        // Nothing is done then, whatever is due.
        Next::Going { .. } if is_upgrading || pause::of_request(request).is_some() => (None, Vec::new()),
        Next::Nothing | Next::Scheduled { .. } => (None, Vec::new()),
        Next::Going { message, .. } => (Some(message), Vec::new()),
        Next::Halted { message } => (None, vec![message]),
    };
    failures.extend(nodes.iter().filter_map(agent_failure));
    let unknown = nodes.iter().filter(|node| node.dates.is_none()).map(|node| node.host);
    let (shown, hosts): (Vec<_>, Vec<_>) = unknown.map(|host| (host.display(), host.name_any())).unzip();
    let unknown = (!hosts.is_empty()).then(|| {
        format!(
            "not known of {}: the unit o2ims-host does not report any from there; to put it there: {}",
            text::list(&shown, ", "),
            job::command_for_unit(&hosts)
        )
    });
    let more = |texts: Vec<Option<String>>| {
        texts.into_iter().flatten().fold(String::new(), |all, text| format!("{all}; {text}"))
    };
    let from = Timestamp::from_second(end.as_second().saturating_sub(NOTICE)).unwrap_or(end);
    let late = format!("{first} is valid until {end} and was not renewed{}", more(vec![renewal.clone()]));
    Some(Certificates {
        end,
        message: format!("the first to end is {first}, at {end}{}", more(vec![unknown, renewal])),
        upcoming: failures.is_empty().then_some(Upcoming { from, message: late }),
        failures,
    })
}

fn agent_failure(node: &Node<'_>) -> Option<String> {
    let dates = node.dates.as_ref()?;
    let why: String = dates.failure.chars().filter(|character| !character.is_control()).take(REPORT_MAX).collect();
    let end = dates.agent.filter(|_| !why.is_empty())?;
    Some(format!(
        "the certificate of the agent on {}, valid until {end}, was not renewed: {why}; the unit o2ims-host tries again every ten minutes",
        node.host.display()
    ))
}
