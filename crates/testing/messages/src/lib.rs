//! The messages of an operator to its users, as a list with what to do about each. It is compared with the operator's source, so that it
//! lacks no message, with the messages that tests make, so that it has no other, and with the documents. For tests.
#![allow(clippy::missing_panics_doc, clippy::panic, clippy::unwrap_used, reason = "everything here is for tests")]

mod catalogue;
mod documents;
mod record;
mod source;

pub use catalogue::{Entry, Group, assert_made, entry};
pub use documents::assert_page;
pub use record::{made, record};
pub use source::{Source, assert_complete, script_texts};
