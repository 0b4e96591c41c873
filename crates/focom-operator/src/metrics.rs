//! Metrics of requests and O-Clouds, counted in the caches whenever the metrics are read: each replica has the same.

use kube::runtime::reflector::Store;
use o2ims_types::conditions::{self, focom::reason};
use o2ims_types::{FocomProvisioningRequest, OCloud, Phase};
use operator_kit::metrics::{Metrics, count_all, count_by};
use operator_kit::write::status::find;

/// Reasons of an OCloud's condition Ready.
const O_CLOUD_STATES: [&str; 11] = [
    reason::READY,
    reason::CONNECTING,
    reason::SECRET_MISSING,
    reason::SECRET_NOT_ALLOWED,
    reason::KUBECONFIG_REFUSED,
    reason::UNREACHABLE,
    reason::CERTIFICATE_INVALID,
    reason::UNAUTHORIZED,
    reason::FORBIDDEN,
    reason::API_MISSING,
    reason::TOO_LARGE,
];

/// Registers all of them.
pub fn register(metrics: &Metrics, requests: &Store<FocomProvisioningRequest>, o_clouds: &Store<OCloud>) {
    let all = requests.clone();
    metrics.register_computed("requests", "FocomProvisioningRequests by phase", move || {
        let all = all.state();
        count_by("phase", &Phase::ALL.map(Phase::name), all.iter().map(|request| phase(request)))
    });
    let all = requests.clone();
    metrics.register_computed("requests_stalled", "FocomProvisioningRequests that are stalled", move || {
        count_all(all.state().iter().filter(|request| is_stalled(request)))
    });
    let all = o_clouds.clone();
    metrics.register_computed("oclouds", "OClouds by the reason of their condition Ready", move || {
        let all = all.state();
        count_by("state", &O_CLOUD_STATES, all.iter().map(|o_cloud| state(o_cloud)))
    });
    let all = o_clouds.clone();
    let help =
        "ProvisioningRequests on O-Clouds whose FocomProvisioningRequest does not exist any more, summed over OClouds";
    metrics.register_computed("orphaned_provisioning_requests", help, move || {
        vec![([], all.state().iter().map(|o_cloud| orphans(o_cloud)).sum::<f64>())]
    });
}

/// The phase; of a request without status the first.
fn phase(request: &FocomProvisioningRequest) -> &str {
    let phase = request.status.as_ref().map(|status| status.phase.as_str()).filter(|phase| !phase.is_empty());
    phase.unwrap_or(Phase::Pending.name())
}

fn is_stalled(request: &FocomProvisioningRequest) -> bool {
    let status = request.status.as_ref();
    let stalled = status.and_then(|status| find(&status.conditions, conditions::STALLED));
    stalled.is_some_and(|stalled| stalled.status == "True")
}

fn orphans(o_cloud: &OCloud) -> f64 {
    let orphans = o_cloud.status.as_ref().and_then(|status| status.orphaned_requests.as_ref());
    orphans.and_then(|orphans| u32::try_from(orphans.count).ok()).map_or(0.0, f64::from)
}

fn state(o_cloud: &OCloud) -> &str {
    let status = o_cloud.status.as_ref();
    let ready = status.and_then(|status| find(&status.conditions, conditions::READY));
    ready.map_or(reason::CONNECTING, |ready| ready.reason.as_str())
}
