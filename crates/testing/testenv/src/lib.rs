//! A real management cluster for tests and the sandbox: etcd, kube-apiserver, kube-controller-manager, the three
//! managers of Cluster API and the manager of BYOH, as plain processes on 127.0.0.1. There are no containers, images or
//! copied manifests: programs, CRDs and webhook configurations come from pinned Go modules and are built once into a
//! cache.
//!
//! [`ManagementCluster::start`] is the entry point. Each management cluster needs a network namespace of its own, because BYOH's
//! manager listens on a fixed port; `cargo test` and `cargo run` start everything through `scripts/in-own-namespace`,
//! which makes one.

mod access;
mod api_server;
mod assets;
mod audit;
pub mod build;
mod byoh;
mod certificates;
mod cluster_api;
pub mod command;
mod control_plane;
mod debian_package;
mod flux;
mod folder;
mod http_probe;
pub mod image;
mod inventory;
mod kubernetes;
mod management_cluster;
mod objects;
mod platform;
mod ports;
mod process;
mod progress;
mod provider;
pub mod recipes;
mod restarts;
pub mod servers;
pub mod tools;
pub mod versions;
mod workload;

pub use access::Access;
pub use audit::{AuditEntry, AuditLog, AuditMark};
pub use byoh::ByohDialect;
pub use certificates::{Authority, Pair};
pub use flux::Flux;
pub use inventory::{CLUSTERCTL_LABEL, Inventory, PROVIDER_LABEL};
pub use kubernetes::{kubernetes_version, kubernetes_version_before};
pub use management_cluster::{ManagementCluster, Options};
pub use process::ProcessStatus;
pub use progress::Progress;
pub use restarts::{Restarts, describe_exit};
pub use workload::{WorkloadApi, WorkloadServer, WorkloadServers};
