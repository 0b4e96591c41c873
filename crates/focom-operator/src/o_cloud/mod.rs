//! An OCloud: `grant → Secret → kubeconfig → connection → status`.

pub mod connection;
pub mod credentials;
pub mod error;
pub mod kubeconfig;
pub mod limiter;
pub mod orphans;
pub mod reconcile;
pub mod registry;
pub mod remote_request;
