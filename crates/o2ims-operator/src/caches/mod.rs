//! Local copies of what the API server has, with an index for every lookup. The time of a lookup depends on how much it finds,
//! not on how much exists.

#[allow(
    clippy::module_inception,
    reason = "`caches.rs` has the struct of all caches; the other files have one kind each"
)]
mod caches;
mod clusters;
mod hosts;
mod machines;
mod marked;
mod requests;
mod templates;

pub use caches::{Caches, MissingProvider, OWNED_KINDS, ProvidedKind};
pub use clusters::Clusters;
pub use hosts::Hosts;
pub use machines::Machines;
pub use marked::{MarkedObjects, is_marked_by, version_of};
pub use requests::{Requests, part_names};
pub use templates::Templates;
