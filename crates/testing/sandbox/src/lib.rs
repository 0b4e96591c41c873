//! The whole product on one machine: a real management cluster, the operators as their ServiceAccounts with the rights
//! from `deploy/`, and hosts.

pub mod federation;
pub mod focom;
pub mod installation;
pub mod inventory;
pub mod operator;
pub mod requests;
pub mod scenario;
pub mod stack;
pub mod waiting;

pub use federation::Federation;
pub use operator::{Operator, OperatorOptions, program};
pub use stack::{Stack, StackOptions};
