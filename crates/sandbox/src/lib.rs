//! The whole product on a test bed: real control plane, Cluster API and BYOH, the operator under its own ServiceAccount
//! and with the rights that it ships, and simulated hosts.

pub mod federation;
pub mod focom;
pub mod installation;
pub mod inventory;
pub mod operator;
pub mod requests;
pub mod stack;
pub mod waiting;

pub use federation::Federation;
pub use operator::{Operator, OperatorOptions, program};
pub use stack::{Stack, StackOptions};
