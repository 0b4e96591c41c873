//! Simulated hosts for tests and the sandbox.
//!
//! A [`Site`] holds the hosts of one bed. Each [`Host`] is a task that writes what the BYOH agent writes, reads the
//! bootstrap script it is given, and plays kubeadm and the kubelet against a real kube-apiserver at the endpoint of
//! the cluster. See the README for what is real and what is not.

mod agent;
mod backoff;
mod bootstrap;
mod byohost;
mod external_etcd;
mod failure;
mod node;
mod release;
mod site;
mod workload;

pub use failure::{FAILURES_CONFIG_MAP, Failure};
pub use site::{Host, HostSpec, Site, SiteOptions};
