//! The rules: which values a field may have, which fields may not change, and the admission policies that refuse the rest.

pub mod admission_policies;
mod fields_in_cel;
pub mod fields_in_rust;
mod immutable_fields;

pub use fields_in_cel::*;
pub use immutable_fields::*;
