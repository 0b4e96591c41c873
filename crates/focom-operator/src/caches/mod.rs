//! The caches of the SMO's objects, with an index for every lookup: the time of a lookup depends on how much it finds,
//! not on how much exists.

#[allow(
    clippy::module_inception,
    reason = "`caches.rs` has the struct of all caches; the other files have one kind each"
)]
mod caches;
mod o_clouds;
mod requests;
mod templates;

pub use caches::Caches;
pub use o_clouds::OClouds;
pub use requests::Requests;
pub use templates::Templates;
