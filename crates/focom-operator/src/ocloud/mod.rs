//! O-Clouds, and how they are reached.

pub mod kubeconfig;
