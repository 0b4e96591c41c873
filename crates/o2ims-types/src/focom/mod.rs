//! API group `focom.nephio.org`: the resources of an SMO.

pub mod v1alpha1;
