//! The offline bundle: manifests, container images and hosts' files of a management cluster, all from pinned sources.
//! [`make()`] makes a bundle; its parts are kept in testenv's cache.

mod cert_manager;
mod components;
mod holes;
mod hosts;
mod images;
mod index;
mod make;
mod manifests;
mod operators;
mod program;
mod render;
mod repository;

pub use holes::{HoleReport, check_holes};
pub use index::{FileEntry, ImageEntry, Index};
pub use make::{Options, make, prepare};
