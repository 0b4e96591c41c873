//! The contract with Cluster API: which kinds there are, what is read of them, and what is written.
//!
//! The API version is `v1beta1` throughout: it is the storage version up to Cluster API 1.10, served (converted) up to
//! 1.15, and the only one that BYOH speaks.

pub mod cluster;
pub mod contract;
pub mod control_plane;
pub mod read;
pub mod workers;
