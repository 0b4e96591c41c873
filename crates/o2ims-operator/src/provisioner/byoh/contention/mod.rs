//! Contention: requests that demand the same cluster name or the same endpoint. Hosts need no such rule: the API server decides on each
//! claim.
//!
//! A Cluster object is the lock on its name and on its endpoint. Before it exists, the request that is to create it has a lock in this
//! process. [`Locks`] alone decides which request gets it, one request at a time, on what the caches show at that moment. The status of
//! another request is not read: it describes an earlier moment, and may be lost.

mod arbiter;
mod demand;
mod lock_table;
mod locks;

pub use arbiter::can_be_carried_out;
pub use demand::{contenders, wants_endpoint_of};
pub use locks::{Locks, Standing};
