//! The contract with Cluster API and with the Bring-Your-Own-Host provider (BYOH): kinds, the fields that are read of them, labels,
//! annotations and conditions. It has no client, and knows no kind of this product.
//!
//! Cluster API's own kinds are used in `v1beta2`, in which Cluster API 1.11 and newer store them. BYOH has `v1beta1` only; Cluster API works
//! with providers of that version up to 1.15.
//!
//! A kind that is needed in addition is one line of the table in [`kinds`] and, if its fields are read, one record.

pub mod byoh;
pub mod cluster;
pub mod conditions;
pub mod control_plane;
pub mod kinds;
pub mod labels;
pub mod machine;
mod partial;
pub mod templates;

pub use kinds::Kind;
pub use partial::{Empty, NameRef};
