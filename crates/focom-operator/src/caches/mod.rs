//! The caches of the SMO's objects, with an index for every lookup: no lookup costs what exists, only what it finds.

#[allow(clippy::module_inception, reason = "the caches, among the caches of each kind")]
mod caches;
mod o_clouds;
mod requests;
mod templates;

pub use caches::Caches;
pub use o_clouds::OClouds;
pub use requests::Requests;
pub use templates::Templates;
