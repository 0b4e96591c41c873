//! Lines of output for people.

use std::io::Write as _;
use std::time::Instant;

/// Prints a line. A failed write is ignored: if the reader has gone, the sandbox must still stop in order.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line with the seconds since the start.
pub fn say_at(begun: Instant, line: &str) {
    say(&format!("[{:6.1} s] {line}", begun.elapsed().as_secs_f32()));
}
