//! All processes of a sandbox with servers are killed at a random moment, ten times. The next sandbox starts
//! nevertheless, and in the end nothing is left on the machine. No other sandbox may be started meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test they are the message")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use rustix::process::{Pid, Signal, kill_process};
use testenv::servers::left_out;

const ROUNDS: u32 = 10;
/// The environment variable by which all processes of a run are found.
const MARK: &str = "O2IMS_TEST_KILLED";
const ISOLATED: &str = "O2IMS_OWN_NAMESPACE";
/// How long a run may take until it prints a line, or ends.
const DEADLINE: Duration = Duration::from_secs(240);
const HOSTS_ARE_THERE: &str = "hosts are registered";

fn main() -> ExitCode {
    let mut trials = vec![
        Trial::test("a_sandbox_that_is_killed_at_any_moment_leaves_nothing", || {
            killed();
            Ok(())
        })
        .with_ignored_flag(true),
    ];
    if let Some(why) = left_out().unwrap() {
        eprintln!("LEFT OUT: what needs real servers ({why})");
        trials.clear();
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn killed() {
    let before = state();
    for round in 1..=ROUNDS {
        let mut run = Run::start();
        // Every other run is killed while it starts; the runs in between show that the remains of the killed ones do no
        // harm.
        let from = if round % 2 == 0 {
            run.until(HOSTS_ARE_THERE);
            HOSTS_ARE_THERE
        } else {
            "its start"
        };
        let moment = Duration::from_millis(random() % if round % 2 == 0 { 50_000 } else { 15_000 });
        run.goes_on_for(moment);
        run.kill_all();
        eprintln!("{round}: killed {:.1} s after {from}", moment.as_secs_f32());
    }
    Run::start().until("it works");
    let deadline = Instant::now() + DEADLINE;
    loop {
        let left: Vec<_> = state().difference(&before).cloned().collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left on the machine: {left:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A sandbox with servers, from the start to the end of the example request.
struct Run {
    script: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Run {
    fn start() -> Self {
        let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../scripts/in-own-namespace"))
            .args([env!("CARGO_BIN_EXE_sandbox"), "run", "--servers", "--once"])
            .env_remove(ISOLATED)
            .env(MARK, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let output = BufReader::new(script.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { script, lines, said: Vec::new() }
    }

    fn until(&mut self, words: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(line),
                Err(error) => panic!("{words:?} was not said ({error}):\n{}", self.said.join("\n")),
            }
            if self.said.last().is_some_and(|line| line.contains(words)) {
                return;
            }
        }
    }

    /// Waits for this time, or until the run ends, which must be with success.
    fn goes_on_for(&mut self, moment: Duration) {
        let end = Instant::now() + moment;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => {
                    assert!(self.script.wait().unwrap().success(), "{}", self.said.join("\n"));
                    return;
                }
            }
        }
    }

    /// Kills all processes of the run, including the sweeper. Other processes on the servers end with their namespaces.
    fn kill_all(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let all = marked();
            if all.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "these processes do not end: {all:?}");
            for id in all {
                // An error means that it has just ended.
                let _ = kill_process(id, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.script.wait().unwrap();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = self.script.wait();
        }
        for id in marked() {
            let _ = kill_process(id, Signal::KILL);
        }
    }
}

/// The processes of the run, without this one.
fn marked() -> Vec<Pid> {
    let mark = format!("{MARK}={}", std::process::id());
    let ids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    })
    .filter_map(Pid::from_raw)
    .collect()
}

/// Everything that a sandbox could leave on the machine, one line each.
fn state() -> BTreeSet<String> {
    let mut all: BTreeSet<String> = marked().into_iter().map(|id| format!("process {id:?}")).collect();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    all.extend(mounts.lines().filter_map(|line| Some(format!("mount {}", line.split(' ').nth(1)?))));
    let mut folders = vec!["/dev/shm".into(), std::env::temp_dir(), "/sys/fs/cgroup".into(), "/sys/class/net".into()];
    folders.extend(fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()));
    folders.push(testenv::servers::racks().unwrap());
    for entry in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        if name.to_string_lossy().contains("o2ims-") || path.starts_with("/sys/class/net") {
            all.insert(path.display().to_string());
        }
    }
    all
}

/// A random number. It is printed, so that a run can be understood.
fn random() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::from(now.subsec_micros())
}
