//! Carries a plan out, one write after the other, and returns what the caches have yet to show.

pub mod error;
mod host;
mod object;
mod request;
mod steps;
mod target;

pub use steps::apply;
