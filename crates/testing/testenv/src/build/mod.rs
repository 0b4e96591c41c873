//! Builds programs from pinned Go modules, once, and keeps them in a cache.

mod cache;
mod checkout;
mod go;
mod published;
pub mod recipe;
mod together;

pub(crate) use cache::short_hash;
pub use cache::{Built, Cache};
pub(crate) use checkout::Checkout;
pub use go::Download;
pub(crate) use recipe::module;
pub use recipe::{Module, Recipe};
