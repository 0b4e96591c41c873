//! How long one cluster took.

use std::fmt;
use std::time::Duration;

/// How long anything may take that is waited for.
pub const LIMIT: Duration = Duration::from_secs(300);

/// How long one cluster took.
pub struct Times {
    /// From the first command until every node is Ready.
    pub up: Duration,
    /// From the deletion until every host is free.
    pub down: Duration,
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s, deleted in {:.1} s", self.up.as_secs_f32(), self.down.as_secs_f32())
    }
}
