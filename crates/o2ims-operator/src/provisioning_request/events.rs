//! Events: changes of a request that a user should notice when they happen.

use kube::{Resource as _, ResourceExt as _};
use o2ims_types::o2ims::v1alpha1::provisioning_request::HostStatus;
use o2ims_types::{ProvisioningRequest, ProvisioningRequestStatus, ProvisioningState, conditions, names};
use operator_kit::write::status::find;

use crate::context::Context;
use crate::provisioner::report::HOST_FAILED;
use crate::provisioner::step::Step;

const ACTION: &str = "Provision";

/// Tells of a new state, of what is wrong with a cluster that runs, and of hosts that have begun to fail.
pub async fn tell_of_status(request: &ProvisioningRequest, context: &Context, new: &ProvisioningRequestStatus) {
    let regarding = request.object_ref(&());
    let old = request.status.as_ref().filter(|_| !request.is_new());
    let failing = |host: &&HostStatus| host.state == HOST_FAILED;
    for host in new.extensions.hosts.iter().filter(failing) {
        let known = old
            .is_some_and(|old| old.extensions.hosts.iter().filter(failing).any(|old| old.host_name == host.host_name));
        if !known {
            let note = format!("host {} ({}): {}", host.host_id, host.host_name, host.message);
            context.events.warning(&regarding, "HostFailed", ACTION, &note).await;
        }
    }
    let degraded = |status: &ProvisioningRequestStatus| {
        let found = find(&status.conditions, conditions::DEGRADED).filter(|found| found.status == "True");
        found.map(|found| found.message.clone())
    };
    if let Some(note) = degraded(new).filter(|now| old.and_then(degraded).as_ref() != Some(now)) {
        context.events.warning(&regarding, "Degraded", ACTION, &note).await;
    }
    let new = &new.provisioning_status;
    if old.map(|old| old.provisioning_status.provisioning_state) != Some(new.provisioning_state) {
        let (reason, note) = (event_reason(new.provisioning_state), &new.provisioning_message);
        if new.provisioning_state == ProvisioningState::Failed {
            context.events.warning(&regarding, reason, ACTION, note).await;
        } else {
            context.events.normal(&regarding, reason, ACTION, note).await;
        }
    }
}

/// Tells of each instruction that was removed from the request, and of each host that was given up.
pub async fn tell_of_instructions(request: &ProvisioningRequest, context: &Context, steps: &[Step]) {
    let regarding = request.object_ref(&());
    for step in steps {
        match step {
            Step::RemoveAnnotations(annotations) => {
                for annotation in annotations {
                    let note = removed_instruction(request, annotation);
                    context.events.normal(&regarding, "AnnotationTakenOff", ACTION, &note).await;
                }
            }
            Step::PatchHost(patch) if patch.labels.get(names::LOST_LABEL).is_some_and(Option::is_some) => {
                context.events.warning(&regarding, "HostGivenUp", ACTION, &given_up(&patch.host)).await;
            }
            _ => {}
        }
    }
}

/// The note on a host that was given up.
pub fn given_up(host: &str) -> String {
    format!(
        "ByoHost {host} was given up, not cleaned: a server that is on and only cut off still runs its part of the cluster, so keep it switched off. \
         When it comes back, its agent cleans it"
    )
}

/// The note on an instruction that was removed from the request.
pub fn removed_instruction(request: &ProvisioningRequest, annotation: &str) -> String {
    let id = request.annotations().get(annotation).cloned().unwrap_or_default();
    if annotation == names::LOST_HOSTS_ANNOTATION {
        return format!(
            "annotation {annotation}={id} was removed: no host that it names is lost, or leaves this request, any more"
        );
    }
    format!("annotation {annotation}={id} was removed: nothing that it names is lost any more")
}

const fn event_reason(state: ProvisioningState) -> &'static str {
    match state {
        ProvisioningState::Pending => "Pending",
        ProvisioningState::Progressing => "Progressing",
        ProvisioningState::Fulfilled => "Fulfilled",
        ProvisioningState::Failed => "Failed",
        ProvisioningState::Deleting => "Deleting",
    }
}
