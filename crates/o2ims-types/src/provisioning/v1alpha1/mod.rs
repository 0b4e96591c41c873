//! Version v1alpha1.

pub mod template_info;
