//! Simulated hosts for tests and the sandbox.
//!
//! A [`Site`] holds the hosts of one management cluster. Each [`Host`] is a task that writes what the BYOH agent
//! writes, reads its bootstrap script, and does what kubeadm and the kubelet do in the API of the cluster, which is a
//! real kube-apiserver at the cluster's endpoint. The README says what is real and what is simulated.

mod agent;
mod backoff;
mod bootstrap;
mod byohost;
mod external_etcd;
mod failure;
mod node;
mod release;
mod site;
mod unit;
mod workload;

pub use failure::{FAILURES_CONFIG_MAP, Failure};
pub use site::{Host, HostSpec, Site, SiteOptions};
