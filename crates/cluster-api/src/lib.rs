//! The contract with Cluster API and with the Bring-Your-Own-Host provider (BYOH): kinds, the fields that are read of them, labels,
//! annotations and conditions. It has no client, and knows no kind of this product.
//!
//! The API version is `v1beta1` throughout: it is the storage version up to Cluster API 1.10, is served (converted) up to 1.15, and is
//! the only one that BYOH has.
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
