//! The process of an operator: its settings, its tasks and their order at the end, and leader election.

pub(crate) mod heartbeat;
pub(crate) mod lease;
pub(crate) mod lease_thread;
#[allow(clippy::module_inception, reason = "the folder is named after its main type")]
pub(crate) mod process;
pub(crate) mod settings;
pub(crate) mod tasks;
pub(crate) mod thread;
pub(crate) mod usage;

pub use lease::{Elector, Leadership, LeaseSettings};
pub use lease_thread::LeaseThread;
pub use process::Process;
pub use settings::{ProcessParts, ProcessSettings};
pub use tasks::{TaskRunner, TaskSpawner};
