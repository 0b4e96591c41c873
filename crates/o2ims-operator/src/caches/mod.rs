//! Local copies of what the API server has, with an index for every lookup: no lookup costs what exists, only what it finds.

#[allow(clippy::module_inception, reason = "the caches, among the caches of each kind")]
mod caches;
mod clusters;
mod hosts;
mod machines;
mod marked;
mod requests;
mod templates;

pub use caches::{Caches, OWNED_KINDS};
pub use clusters::Clusters;
pub use hosts::Hosts;
pub use machines::Machines;
pub use marked::{MarkedObjects, is_marked_by, version_of};
pub use requests::Requests;
pub use templates::Templates;
