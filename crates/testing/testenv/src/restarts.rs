//! When a process that has ended is started again: with the delays of a kubelet that restarts a container.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// The pause before the second restart; the first one follows at once. From then on the pause doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// After this time without an end, the next restart is again without a pause.
const RESET_AFTER: Duration = Duration::from_secs(600);

/// The ends and restarts of one process.
#[derive(Debug)]
pub struct Restarts {
    started: Instant,
    count: u32,
    pause: Duration,
    /// Reason and time of the last end.
    last: Option<(String, Instant)>,
    /// When the process may be started again; `None` while it runs.
    due: Option<Instant>,
}

impl Restarts {
    /// The restarts of a process that was started at `now`.
    pub fn new(now: Instant) -> Self {
        Self { started: now, count: 0, pause: Duration::ZERO, last: None, due: None }
    }

    /// Handles a process that was found ended with `status`: starts it again by `start` if its pause is over. If this
    /// end has not been handled before, returns what `describe` makes of its reason, before the process is started
    /// again.
    pub fn handle_exit(
        &mut self,
        status: ExitStatus,
        now: Instant,
        describe: impl FnOnce(&str) -> String,
        start: impl FnOnce() -> anyhow::Result<()>,
    ) -> Option<String> {
        let reason = describe_exit(status);
        let news = self.ended(&reason, now).then(|| describe(&reason));
        if self.is_due(now) {
            match start() {
                Ok(()) => self.started(now),
                Err(error) => self.not_started(format!("{error:#}"), now),
            }
        }
        news
    }

    /// Records that the process has ended, and why. Returns whether that is new.
    fn ended(&mut self, reason: impl Into<String>, now: Instant) -> bool {
        if self.due.is_some() {
            return false;
        }
        self.pause_from(now);
        self.last = Some((reason.into(), now));
        true
    }

    /// Whether the process is down and may be started again.
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Records that the process was started again.
    fn started(&mut self, now: Instant) {
        self.started = now;
        self.count += 1;
        self.due = None;
    }

    /// Records that the process could not be started: a pause begins, as after an end.
    fn not_started(&mut self, reason: impl Into<String>, now: Instant) {
        self.pause_from(now);
        self.last = Some((reason.into(), now));
    }

    /// Whether the process has ever ended.
    pub fn any(&self) -> bool {
        self.last.is_some()
    }

    /// The state of the process, for people.
    pub fn describe(&self, now: Instant) -> String {
        let Some((reason, when)) = &self.last else { return "running".to_owned() };
        let ago = now.saturating_duration_since(*when).as_secs();
        let times = match self.count {
            0 => String::new(),
            1 => ", restarted once".to_owned(),
            count => format!(", restarted {count} times"),
        };
        match self.due {
            None => format!("running{times}, last: {reason}, {ago} s ago"),
            Some(due) => {
                let wait = due.saturating_duration_since(now).as_secs();
                format!("down{times}: {reason}, {ago} s ago; it is started again in {wait} s")
            }
        }
    }

    fn pause_from(&mut self, now: Instant) {
        let down = self.due.is_some();
        if !down && now.saturating_duration_since(self.started) >= RESET_AFTER {
            self.pause = Duration::ZERO;
        }
        self.due = Some(now + self.pause);
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, MAX_PAUSE);
    }
}

/// How a process has ended, for people: its exit code or signal.
pub fn describe_exit(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown exit code".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses in seconds of a process that ends as soon as it is started.
    fn pauses(restarts: &mut Restarts, mut now: Instant, number: usize) -> Vec<u64> {
        let mut pauses = Vec::new();
        for _ in 0..number {
            assert!(restarts.ended("exit code 1", now));
            let ended = now;
            while !restarts.is_due(now) {
                now += Duration::from_secs(1);
            }
            pauses.push((now - ended).as_secs());
            restarts.started(now);
        }
        pauses
    }

    #[test]
    fn the_pause_doubles_up_to_five_minutes() {
        let now = Instant::now();
        assert_eq!(pauses(&mut Restarts::new(now), now, 8), [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_part_that_ran_for_ten_minutes_has_no_pause() {
        let now = Instant::now();
        let mut restarts = Restarts::new(now);
        assert_eq!(pauses(&mut restarts, now, 3), [0, 10, 20]);
        restarts.started(now);
        assert_eq!(pauses(&mut restarts, now + RESET_AFTER, 2), [0, 10]);
    }

    #[test]
    fn a_program_that_does_not_start_is_tried_again() {
        let now = Instant::now();
        let mut restarts = Restarts::new(now);
        assert!(restarts.ended("exit code 1", now));
        restarts.not_started("there is no such program", now);
        assert!(!restarts.is_due(now));
        assert!(restarts.is_due(now + FIRST_PAUSE));
        assert!(!restarts.ended("exit code 1", now + FIRST_PAUSE), "it is the same end");
    }

    #[test]
    fn reason_and_number_are_told() {
        let now = Instant::now();
        let mut restarts = Restarts::new(now);
        assert_eq!(restarts.describe(now), "running");
        restarts.ended("signal 9", now);
        restarts.started(now);
        let later = now + Duration::from_secs(3);
        assert_eq!(restarts.describe(later), "running, restarted once, last: signal 9, 3 s ago");
        restarts.ended("exit code 1", later);
        assert_eq!(
            restarts.describe(later + Duration::from_secs(4)),
            "down, restarted once: exit code 1, 4 s ago; it is started again in 6 s"
        );
    }
}
