//! What the tests of the installation share: documents whose commands are run, and ansible.

pub mod ansible;
mod document;
mod repository;
mod shell;

pub use document::{Block, blocks};
pub use repository::top;
pub use shell::Shell;
