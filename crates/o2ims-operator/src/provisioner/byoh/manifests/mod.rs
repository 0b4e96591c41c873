//! The objects that are created for a cluster, as they are applied.

pub mod cluster;
pub mod control_plane;
pub mod kube_vip;
pub mod templates;
pub mod workers;
