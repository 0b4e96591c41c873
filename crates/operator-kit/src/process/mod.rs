//! The process of an operator: its tasks and their order at the end, and the lease that decides which replica works.

pub(crate) mod lease;
#[allow(clippy::module_inception)]
pub(crate) mod process;
pub(crate) mod tasks;

pub use lease::{Elector, Leadership, LeaseSettings};
pub use process::Process;
pub use tasks::{TaskRunner, TaskSpawner};
