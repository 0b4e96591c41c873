//! A real control plane for tests and the sandbox: etcd, kube-apiserver, kube-controller-manager, the three managers of
//! Cluster API and the manager of BYOH, as plain processes on 127.0.0.1. No container, no image, no copied manifest:
//! binaries, CRDs and webhook configurations come from pinned Go modules and are built once into a cache.
//!
//! [`Bed::start`] is the entry point. A bed expects the network to itself, as BYOH's manager listens on a fixed port:
//! `scripts/in-own-namespace` gives it that, and is what `cargo test` and `cargo run` start everything with.

mod access;
mod assets;
mod audit;
mod bed;
mod binaries;
mod byoh;
mod certificates;
mod checkout;
mod cluster_api;
mod control_plane;
mod flux;
mod folder;
mod http_probe;
mod inventory;
mod objects;
mod ports;
mod process;
mod progress;
mod provider;
pub mod recipes;
mod restarts;
pub mod servers;
pub mod tools;
mod workload;

pub use access::Access;
pub use audit::{AuditEntry, AuditLog, AuditMark};
pub use bed::{Bed, Options};
pub use binaries::build_all;
pub use byoh::ByohDialect;
pub use certificates::{Authority, Pair};
pub use flux::Flux;
pub use process::Part;
pub use restarts::{Restarts, describe_exit};
pub use workload::{WorkloadApi, WorkloadServer, WorkloadServers};
