//! API group `provisioning.oran.org`: templates as the SMO knows them.

pub mod v1alpha1;
