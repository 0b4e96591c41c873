//! The contract with the Bring-Your-Own-Host provider: hosts, and the templates that choose them.

pub mod host;
pub mod installation;
pub mod installer;
pub mod reattachment;
pub mod templates;
