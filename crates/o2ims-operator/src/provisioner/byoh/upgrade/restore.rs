//! The way back of an only master whose upgrade has failed: a snapshot of its etcd and configuration, which the upgrade has taken. It is restored at its
//! owner's word only, which names that snapshot, and only before Cluster API's objects have the new version.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use o2ims_types::{ProvisioningRequest, names};

use super::job::{self, Job, Purpose, Standing};
use super::member::Member;
use super::outcome::{Next, halted, is_retried};
use super::version::is_same;
use crate::provisioner::byoh::claim;
use crate::provisioner::byoh::observed::Observed;
use crate::provisioner::step::Step;
use crate::request::annotation_command;

/// The snapshot that the failed upgrade of this host has taken; `None` for one master of several, whose etcd has other members.
fn offered(member: &Member<'_>) -> Option<String> {
    job::snapshot_of_failed(member.host).filter(|_| member.is_master() && member.desired.masters.len() == 1)
}

/// The message of an upgrade that has stopped, with the way back where there is one.
pub fn offer(request: &ProvisioningRequest, member: &Member<'_>, next: Next) -> Next {
    match (next, offered(member)) {
        (Next::Halted { message }, Some(snapshot)) => {
            let command = annotation_command(request, names::RESTORE_SNAPSHOT_ANNOTATION, &format!("={snapshot}"));
            let from = member.version();
            Next::Halted {
                message: format!(
                    "{message}. Or go back to {from} and to the snapshot from before the upgrade, which loses what has changed in the cluster since: {command}"
                ),
            }
        }
        (next, _) => next,
    }
}

/// What is next for a host that is to be brought back, or was; `None` if its owner has not said so.
pub fn next(request: &ProvisioningRequest, observed: &Observed, member: &Member<'_>, to: &str) -> Option<Next> {
    let from = member.version();
    let asked = request.annotations().get(names::RESTORE_SNAPSHOT_ANNOTATION).map(String::as_str).unwrap_or_default();
    let job = Job { snapshot: asked, ..member.job(Purpose::Restore, from) };
    let told = |what: &str| format!("bringing {} back to snapshot {asked}: {what}", member.requested);
    let going = |steps: Vec<Step>, what: &str| Next::Going { steps, message: told(what) };
    let (attempt, standing) = job.standing();
    let give = || going(job.order(attempt + 1, &observed.uid).map(Step::GiveJob).into_iter().collect(), "has its job");
    Some(match standing {
        Standing::NotGiven if offered(member).as_deref() == Some(asked) => give(),
        Standing::NotGiven => return None,
        Standing::Given => going(Vec::new(), "has its job and has not reported yet"),
        Standing::Running(what) => going(Vec::new(), &what),
        Standing::Failed(_) if is_retried(request, &job.id(attempt)) => give(),
        Standing::Failed(why) => halted(request, &told(&why), &job.id(attempt)),
        // The owner has the old version again, or upgrades again.
        Standing::Done if is_same(from, to) => return None,
        Standing::Done if is_retried(request, &job.id(attempt)) => return None,
        Standing::Done => {
            let again = annotation_command(request, names::RETRY_ANNOTATION, &format!("={}", job.id(attempt)));
            Next::Halted {
                message: format!(
                    "{} was brought back to snapshot {asked}; set k8sVersion to {from}, or upgrade again: {again}",
                    member.requested
                ),
            }
        }
    })
}

/// Takes an ended job off a host that has its old version again: another upgrade, or another word, begins anew.
pub fn close(member: &Member<'_>) -> Option<Next> {
    let version = member.version();
    let restored = job::given(Purpose::Restore, member.host).is_some_and(|(.., standing)| standing == Standing::Done);
    let given_up = job::given(Purpose::Upgrade, member.host).is_some_and(|(to, _, standing)| {
        matches!(standing, Standing::Failed(_)) && !is_same(to, version) && member.runs(version)
    });
    (restored || given_up).then(|| {
        let annotations = BTreeMap::from([(names::JOB_ANNOTATION.to_owned(), None)]);
        let steps = vec![Step::PatchHost(claim::patch(member.host, BTreeMap::new(), annotations))];
        Next::Going { steps, message: format!("{} runs {version} again", member.requested) }
    })
}
