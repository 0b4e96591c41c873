//! API group `o2ims.provisioning.oran.org`: the resources of an O-Cloud.

pub mod v1alpha1;
