//! Rollouts. The operator makes none but those of an upgrade whose template wants that. It reverts a rollout that another client has requested from
//! Cluster API: there is no spare host.

use cluster_api::Kind;

use super::observed::Observed;
use crate::provisioner::step::Manifest;

/// Whether another client has requested Cluster API to roll out the masters of this KubeadmControlPlane.
pub fn is_requested(manifest: &Manifest, observed: &Observed) -> bool {
    manifest.kind == Kind::KubeadmControlPlane
        && observed.control_plane.as_ref().is_some_and(|object| object.spec.rollout.after.is_some())
}
