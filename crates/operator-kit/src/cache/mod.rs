//! Local copies of what the API server has: watched kinds, and which of our own writes they do not show yet.

pub(crate) mod expectations;
pub(crate) mod index;
pub(crate) mod objects;
pub(crate) mod watch;

pub use expectations::Expectations;
pub use index::Index;
pub use objects::CachedObjects;
pub use watch::{CachedWatch, DeserializeGuard, SizeLimit, SyncState, WatchFailure, api_status};
