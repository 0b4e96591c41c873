//! ProvisioningRequests on an O-Cloud that this SMO has sent, and whose FocomProvisioningRequest does not exist any more. Nobody else knows
//! of them, so the status of the OCloud names them. They are neither changed nor deleted: only their owner may do that.

use kube::ResourceExt as _;
use kube::runtime::reflector::Store;
use o2ims_types::names::focom;
use o2ims_types::{OCloud, OrphanedRequests};

use super::remote_request::RemoteRequest;
use crate::authorization;
use crate::caches::Requests;

/// Most names in a status.
const NAMES_MAX: usize = 10;

/// The orphans on the O-Cloud of one OCloud; `None` if there are none.
pub fn find(o_cloud: &OCloud, remotes: &Store<RemoteRequest>, requests: &Requests) -> Option<OrphanedRequests> {
    let remotes = remotes.state();
    let orphans = remotes.iter().filter(|remote| is_orphan(remote, o_cloud, requests));
    let mut names: Vec<_> = orphans
        .map(|orphan| match orphan.namespace() {
            Some(namespace) => format!("{namespace}/{}", orphan.name_any()),
            None => orphan.name_any(),
        })
        .collect();
    let count = i64::try_from(names.len()).ok().filter(|count| *count > 0)?;
    names.sort();
    names.truncate(NAMES_MAX);
    Some(OrphanedRequests { count, names, message: message() })
}

/// Whether the status of the OCloud names orphans.
pub fn are_told(o_cloud: &OCloud) -> bool {
    o_cloud.status.as_ref().is_some_and(|status| status.orphaned_requests.is_some())
}

/// Whether the ProvisioningRequest, which carries the label of this SMO, is an orphan that the status of the OCloud names.
pub fn is_orphan(remote: &RemoteRequest, o_cloud: &OCloud, requests: &Requests) -> bool {
    remote.metadata.deletion_timestamp.is_none()
        && is_concern(remote, o_cloud)
        && !is_claimed(remote, o_cloud, requests)
}

/// Whether the OCloud is one that the ProvisioningRequest can have been sent by: an OCloud of another namespace, which may lead to the same
/// O-Cloud, is not told of it.
fn is_concern(remote: &RemoteRequest, o_cloud: &OCloud) -> bool {
    if let Some(namespace) = remote.namespace() {
        return Some(namespace) == o_cloud.namespace();
    }
    let source = remote.labels().get(focom::SOURCE_NAMESPACE_LABEL);
    source.is_some_and(|namespace| authorization::can_use(o_cloud, namespace))
}

/// Whether a request has the ProvisioningRequest, or says itself what becomes of it. One with its UID does, wherever it was sent last: several
/// OClouds, and several addresses, may lead to one O-Cloud, and what its owner has left behind was told by an event.
fn is_claimed(remote: &RemoteRequest, o_cloud: &OCloud, requests: &Requests) -> bool {
    let label = |key: &str| remote.labels().get(key).map(String::as_str);
    if label(focom::SOURCE_UID_LABEL).is_some_and(|uid| requests.exists(uid)) {
        return true;
    }
    let of_name = label(focom::SOURCE_LABEL)
        .zip(label(focom::SOURCE_NAMESPACE_LABEL))
        .and_then(|(name, namespace)| requests.get(namespace, name));
    of_name.is_some_and(|request| {
        request.o_cloud() == (o_cloud.namespace().unwrap_or_default().as_str(), o_cloud.name_any().as_str())
    })
}

fn message() -> String {
    format!(
        "this SMO has sent these ProvisioningRequests, and their FocomProvisioningRequests do not exist any more: they were deleted with \
         --cascade=orphan or abandoned, their finalizer was removed by hand, or the SMO was restored from an older backup. Their clusters \
         run on and hold their hosts. To take one back, apply the FocomProvisioningRequest again that its labels {} and {} name, with the \
         spec that it has on the O-Cloud; to have its cluster deleted, run kubectl delete pr NAME on the O-Cloud",
        focom::SOURCE_NAMESPACE_LABEL,
        focom::SOURCE_LABEL
    )
}
