//! A ClusterTemplate: its author is told whether requests can use it.

pub mod reconcile;
pub mod status;
