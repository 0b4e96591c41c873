//! What the deletion of a Machine waits for, in Cluster API's words: a drain that a PodDisruptionBudget holds up, volumes, hooks.

use std::sync::Arc;

use cluster_api::conditions::Condition;
use cluster_api::labels::CONTROL_PLANE_HOOK;
use cluster_api::machine::Machine;
use kube::ResourceExt as _;
use operator_kit::controller::stable;
use operator_kit::text;

use super::observed::Observed;

/// What to do about a PodDisruptionBudget that allows no eviction.
const BUDGET_ADVICE: &str =
    "To continue, add replicas on other nodes, change the PodDisruptionBudget, or delete the pod";

/// `its Machine X is being deleted`, and what that waits for, if it is known. The text has neither counts nor times: Cluster API writes them
/// anew at every try.
pub fn deletion_of(machine: &Machine) -> String {
    let waits = obstacle(machine).map(|waits| format!("; {waits}")).unwrap_or_default();
    format!("its Machine {} is being deleted{waits}", machine.name_any())
}

/// The Machines whose deletion is held up, and by what. Cluster API drains no node of a Cluster that is being deleted, but waits for hooks then
/// too.
pub fn held_up(observed: &Observed) -> Vec<String> {
    let told = |machine: &Arc<Machine>| {
        let server = machine.server().map(|server| format!(" on {server}")).unwrap_or_default();
        Some(format!("Machine {}{server}: {}", machine.name_any(), obstacle(machine)?))
    };
    observed.machines.iter().filter_map(told).collect()
}

/// What keeps a Machine that is being deleted from going on; `None` if nothing is known to.
pub fn obstacle(machine: &Machine) -> Option<String> {
    machine.metadata.deletion_timestamp.as_ref()?;
    let deleting =
        Condition::find(&machine.status.conditions, "Deleting").filter(|condition| condition.status == "True")?;
    match deleting.reason.as_str() {
        "DrainingNode" => drain(&deleting.message).or_else(|| failed_drain(&deleting.message)),
        "WaitingForVolumeDetach" => Some(detachment(&deleting.message)),
        "WaitingForPreDrainHook" | "WaitingForPreTerminateHook" => hooks(&deleting.message),
        _ => None,
    }
}

/// The pods that a drain waits for. Cluster API lists them, a line for each cause.
fn drain(message: &str) -> Option<String> {
    let pods: Vec<_> = message.lines().filter_map(undrained).collect();
    if pods.is_empty() {
        return None;
    }
    let waits = format!("the drain of its node waits for {}", text::list(&pods, ", "));
    let has_budget = pods.iter().any(|pod| pod.contains("PodDisruptionBudget"));
    Some(if has_budget { format!("{waits}. {BUDGET_ADVICE}") } else { waits })
}

/// One line of a drain, such as `* Pod default/web: cannot evict pod as it would violate the pod's disruption budget. The disruption budget
/// web needs 2 healthy pods and has 2 currently` (`ConditionMessage` of the Machine controller's drain).
fn undrained(line: &str) -> Option<String> {
    let (pods, why) = line.trim().strip_prefix("* ")?.split_once(": ")?;
    let pods = without_count(pods);
    if why.starts_with("cannot evict pod as it would violate the pod's disruption budget") {
        let named = why.split_once("The disruption budget ").and_then(|(_, rest)| rest.split_whitespace().next());
        let budget =
            named.map_or_else(|| "a PodDisruptionBudget".to_owned(), |name| format!("PodDisruptionBudget {name}"));
        return Some(format!("{pods} ({budget} does not allow the eviction)"));
    }
    if why.starts_with("deletionTimestamp set") {
        return Some(format!("{pods} (being deleted, not ended yet)"));
    }
    Some(format!("{pods} ({})", stable(why)))
}

/// That a drain failed. Cluster API writes the reason into its log only.
fn failed_drain(message: &str) -> Option<String> {
    message.starts_with("Error ").then(|| format!("the drain of its node failed: {}", stable(message)))
}

/// The volumes that are still attached.
fn detachment(message: &str) -> String {
    let volumes: Vec<_> =
        message.lines().filter_map(|line| line.trim().strip_prefix("* ")).map(without_count).collect();
    let volumes = if volumes.is_empty() { String::new() } else { format!(" ({})", volumes.join(", ")) };
    format!(
        "Cluster API waits until the volumes of its node are detached{volumes}. If they stay, look at the VolumeAttachments of the cluster"
    )
}

/// The annotations by which other clients delay the deletion. The KubeadmControlPlane's own hook is a step of every deletion.
fn hooks(message: &str) -> Option<String> {
    let (_, listed) = message.split_once("(hooks: ")?;
    let listed = listed.trim_end().trim_end_matches(')');
    let foreign: Vec<_> = listed.split(',').filter(|hook| *hook != CONTROL_PLANE_HOOK).collect();
    (!foreign.is_empty())
        .then(|| format!("Cluster API waits until the annotation {} is removed from it", foreign.join(", ")))
}

/// A list without `... (3 more)`.
fn without_count(list: &str) -> &str {
    list.split_once(", ... (").map_or(list, |(listed, _)| listed)
}
