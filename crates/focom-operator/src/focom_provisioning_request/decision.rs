//! What is decided for a request before anything is written, as a function without client.

use kube::ResourceExt as _;
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::names::focom;
use operator_kit::controller::Outcome;

use super::annotations;
use super::expectations::Expectations;
use super::observe::{Observed, RemoteState};
use super::plan::{self, Step};
use super::validate::{self, Rejection};
use crate::o_cloud::connection::ConnectionState;

/// What is decided for a request.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Whether it is carried out.
    pub verdict: Result<(), Rejection>,
    /// The writes that are due.
    pub steps: Vec<Step>,
    /// A warning for the user, to be given before the writes.
    pub warning: Option<Warning>,
}

/// An event that warns of a ProvisioningRequest that stays on an O-Cloud without a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Reason of the event.
    pub reason: &'static str,
    /// Message of the event.
    pub message: String,
}

/// Decides what is due for the request.
///
/// # Errors
/// How the reconcile ends if nothing can be decided yet.
pub fn decide(
    request: &FocomProvisioningRequest,
    observed: &Observed,
    expectations: &Expectations,
) -> Result<Decision, Outcome> {
    let remote = observed.remote.as_ref();
    if awaits_first_connection(request, remote) {
        return Err(Outcome::progressing());
    }
    let cached = remote.and_then(|remote| remote.request.as_deref());
    if let Some(wait) = expectations.missing(&observed.uid, request, cached) {
        return Err(Outcome::progressing_for(wait));
    }
    let verdict = validate::validate(request, observed);
    let steps = plan::plan(request, observed, &verdict, |own| expectations.is_stored(&observed.uid, own));
    let leaves_former =
        annotations::abandons_previous_target(request) && plan::awaits_target(request, observed, &verdict);
    let warning = orphan_warning(request, remote, &steps, leaves_former);
    Ok(Decision { verdict, steps, warning })
}

/// Whether to wait for the first answer of the O-Cloud, which comes soon. The request has a status already, which
/// stays as it is until then.
fn awaits_first_connection(request: &FocomProvisioningRequest, remote: Option<&RemoteState>) -> bool {
    let connecting = remote.is_some_and(|remote| matches!(remote.connection.state, ConnectionState::Connecting));
    let needs_no_answer = annotations::skips_remote_deletion(request) || annotations::orphans_remote(request);
    connecting && !request.is_new() && !needs_no_answer
}

/// A warning if these steps leave a ProvisioningRequest on an O-Cloud that no request is responsible for. `leaves_former`: the request is
/// about to be sent to another O-Cloud than the one that it was sent to.
fn orphan_warning(
    request: &FocomProvisioningRequest,
    remote: Option<&RemoteState>,
    steps: &[Step],
    leaves_former: bool,
) -> Option<Warning> {
    let is_last = steps.contains(&Step::RemoveFinalizer);
    let (namespace, id) = request.o_cloud();
    let name = match remote {
        Some(remote) => remote.name(request),
        None => focom::remote_request(&request.name_any()),
    };
    if annotations::orphans_remote(request) {
        let exists = remote.is_some_and(|remote| remote.own().is_some()) || request.was_sent();
        let message = format!(
            "ProvisioningRequest {name} stays on O-Cloud {namespace}/{id}, with its cluster and hosts, because this request was deleted \
             with --cascade=orphan; a request of the same name, namespace and spec adopts it"
        );
        return (is_last && exists).then_some(Warning { reason: "Orphaned", message });
    }
    if annotations::skips_remote_deletion(request) && is_last || leaves_former {
        let sent_to = request.status.as_ref().and_then(|status| status.sent_to.as_deref()).unwrap_or("unknown");
        let message = format!(
            "ProvisioningRequest {namespace}/{name} may stay on the O-Cloud that OCloud {namespace}/{id} led to (sentTo {sent_to}), with \
             its cluster and hosts; delete it there"
        );
        return Some(Warning { reason: "Abandoned", message });
    }
    let stays =
        remote.is_some_and(|remote| remote.predecessor().is_some() && plan::deletion_target(request, remote).is_none());
    (is_last && stays).then(|| Warning {
        reason: "NotDeleted",
        message: format!(
            "ProvisioningRequest {name} stays on O-Cloud {namespace}/{id}: it was created for an earlier FocomProvisioningRequest of \
             this name and namespace, and this request has not adopted it"
        ),
    })
}
