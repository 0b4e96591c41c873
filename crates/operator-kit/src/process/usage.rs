//! What this process uses, as Linux says in `/proc`; on another system nothing is known.

use std::fs;

/// Linux counts processor time in these for programs, whatever its own clock is (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time that the process has used, in seconds.
pub(crate) fn cpu_seconds() -> Option<f64> {
    let (user, system) = (stat(14)?, stat(15)?);
    Some((user + system) / TICKS_PER_SECOND)
}

/// When the process started, in seconds since 1970.
pub(crate) fn start_seconds() -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = system.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
    Some(boot + stat(22)? / TICKS_PER_SECOND)
}

/// Resident memory, in bytes.
pub(crate) fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = size.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

/// Open file descriptors.
pub(crate) fn open_files() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    u32::try_from(count).ok().map(f64::from)
}

/// A number of `/proc/self/stat`, by its position in proc_pid_stat(5), from the third on.
fn stat(position: usize) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The second is the name of the program, in parentheses; it may have spaces and parentheses itself.
    let (_, after_name) = text.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(position.checked_sub(3)?)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::{Duration, Instant, SystemTime};

    #[test]
    fn linux_says_what_the_process_uses() {
        let begun = Instant::now();
        while cpu_seconds().expect("known") < 0.01 {
            assert!(begun.elapsed() < Duration::from_secs(60), "no processor time is counted");
        }
        assert!(resident_bytes().expect("known") > 1_000_000.0);
        assert!(open_files().expect("known") >= 3.0, "input, output and errors");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let age = now - start_seconds().expect("known");
        // Both clocks are rounded to seconds.
        assert!((-2.0..86_400.0).contains(&age), "started {age} s ago");
    }
}
