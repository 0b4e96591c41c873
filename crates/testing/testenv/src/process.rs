//! A child process with a log file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::command::last_lines;
use crate::restarts::Restarts;

/// How often readiness and exit are polled.
const POLL: Duration = Duration::from_millis(25);
/// How long a process may take to end after SIGTERM before it is killed.
const GRACE_PERIOD: Duration = Duration::from_secs(10);
/// How long it may take until all threads of a paused process have stopped; milliseconds on an idle machine.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The niceness of processes that give way to others. At 10 (of 19) nine tenths of a busy processor are left to the
/// others.
const NICENESS: u8 = 10;
/// How many lines of a log an error quotes.
const QUOTED_LINES: usize = 15;

/// The state of a process, for people.
#[derive(Clone, Debug)]
pub struct ProcessStatus {
    /// Name of the process.
    pub name: String,
    /// Whether it runs or is down, its restarts, and the reason of its last end.
    pub state: String,
    /// Whether it has ever ended by itself.
    pub has_ended: bool,
    /// Path of its log.
    pub log: PathBuf,
}

/// A running program; killed on drop.
pub(crate) struct Process {
    name: String,
    command: CommandLine,
    log: PathBuf,
    running: Mutex<Running>,
}

/// What a program is started with.
struct CommandLine {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, PathBuf)>,
}

struct Running {
    child: Child,
    pid: Pid,
    restarts: Restarts,
}

impl Process {
    /// Starts the program, in a process group of its own: a Ctrl-C at the terminal must reach only this process, which
    /// then stops its children in order.
    pub(crate) fn start(name: &str, program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        Self::start_with(name, program, arguments, &[], log)
    }

    /// As [`Process::start`], at low priority: for programs that would run on another machine.
    pub(crate) fn start_nice(name: &str, program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        let own = ["-n".to_owned(), NICENESS.to_string(), program.display().to_string()];
        Self::start(name, Path::new("nice"), &[&own, arguments].concat(), log)
    }

    /// As [`Process::start`], with further variables in the environment.
    pub(crate) fn start_with(
        name: &str,
        program: &Path,
        arguments: &[String],
        environment: &[(&str, &Path)],
        log: &Path,
    ) -> Result<Self> {
        let command = CommandLine {
            program: program.to_path_buf(),
            arguments: arguments.to_vec(),
            environment: environment.iter().map(|(name, path)| ((*name).to_owned(), path.to_path_buf())).collect(),
        };
        let (child, pid) = command.start(name, log)?;
        let running = Mutex::new(Running { child, pid, restarts: Restarts::new(Instant::now()) });
        Ok(Self { name: name.to_owned(), command, log: log.to_path_buf(), running })
    }

    /// The process id.
    pub(crate) fn id(&self) -> i32 {
        self.running().pid.as_raw_nonzero().get()
    }

    /// Waits until `ready` returns true.
    ///
    /// # Errors
    /// When the process ends, or the deadline passes; the error quotes the log.
    pub(crate) async fn wait_ready<F>(&self, deadline: Duration, ready: impl Fn() -> F) -> Result<()>
    where
        F: Future<Output = bool>,
    {
        let started = Instant::now();
        loop {
            // A check may hang, and must not hold up the deadline.
            if tokio::time::timeout(Duration::from_secs(5), ready()).await.unwrap_or(false) {
                return Ok(());
            }
            if let Some(failure) = self.failed() {
                bail!(failure);
            }
            if started.elapsed() > deadline {
                bail!("{} was not ready after {} s; {}", self.name, deadline.as_secs(), self.last_lines());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A message if the process has ended although nobody stopped it.
    pub(crate) fn failed(&self) -> Option<String> {
        let status = self.exit_status()?;
        Some(format!("{} ended unexpectedly ({status}); {}", self.name, self.last_lines()))
    }

    /// Starts the program again if it has ended and its pause is over. Returns a message when the end is noticed.
    pub(crate) fn restart_if_ended(&self) -> Option<String> {
        let mut running = self.running();
        let Running { child, pid, restarts } = &mut *running;
        let status = child.try_wait().unwrap_or_default()?;
        let describe = |reason: &str| format!("{} has ended ({reason}); {}", self.name, self.last_lines());
        restarts.handle_exit(status, Instant::now(), describe, || {
            (*child, *pid) = self.command.start(&self.name, &self.log)?;
            Ok(())
        })
    }

    /// Starts the stopped program again.
    pub(crate) fn start_again(&self) -> Result<()> {
        let mut running = self.running();
        (running.child, running.pid) = self.command.start(&self.name, &self.log)?;
        running.restarts = Restarts::new(Instant::now());
        Ok(())
    }

    /// The state of the process, for people.
    pub(crate) fn status(&self) -> ProcessStatus {
        let running = self.running();
        ProcessStatus {
            name: self.name.clone(),
            state: running.restarts.describe(Instant::now()),
            has_ended: running.restarts.any(),
            log: self.log.clone(),
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        if self.exit_status().is_some() {
            bail!("{} is not running", self.name);
        }
        kill_process(self.running().pid, signal).with_context(|| format!("cannot send {signal:?} to {}", self.name))
    }

    /// Suspends the process, and waits until all of its threads have stopped: running threads go on for a while after
    /// the signal.
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let asked = Instant::now();
        while !self.is_paused() {
            if asked.elapsed() > PAUSE_TIMEOUT {
                bail!("{} does not pause", self.name);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Lets a suspended process go on.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Whether all threads are stopped: `T` after the name in `/proc/ID/task/THREAD/stat`.
    fn is_paused(&self) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.id())) else { return false };
        threads.flatten().all(|thread| {
            let text = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            text.rsplit_once(')').is_some_and(|(_, state)| state.trim_start().starts_with('T'))
        })
    }

    /// Sends SIGTERM and does not wait. A suspended process is resumed, because it could not handle the signal.
    pub(crate) fn terminate(&self) {
        // An error means that the process has ended already.
        let _ = self.signal(Signal::TERM);
        let _ = self.signal(Signal::CONT);
    }

    /// Ends the process, by SIGKILL if it does not end after SIGTERM, and waits for it.
    ///
    /// # Errors
    /// When the process does not end.
    pub(crate) async fn stop(&self) -> Result<()> {
        self.terminate();
        let asked = Instant::now();
        let mut forced = false;
        while self.exit_status().is_none() {
            if asked.elapsed() > GRACE_PERIOD && !forced {
                let _ = self.signal(Signal::KILL);
                forced = true;
            }
            if asked.elapsed() > GRACE_PERIOD * 2 {
                bail!("{} (process {}) does not end", self.name, self.id());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Ends the process by SIGKILL and waits for it.
    ///
    /// # Errors
    /// When the process does not end.
    pub(crate) async fn kill(&self) -> Result<()> {
        let _ = self.signal(Signal::KILL);
        self.stop().await
    }

    fn exit_status(&self) -> Option<ExitStatus> {
        // An error would mean that something else has collected the exit status, which nothing in this crate does.
        self.running().child.try_wait().unwrap_or_default()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_lines(&self) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        format!("the last lines of {}:\n{}", self.log.display(), last_lines(&text, QUOTED_LINES))
    }
}

impl CommandLine {
    fn start(&self, name: &str, log: &Path) -> Result<(Child, Pid)> {
        let start = || -> Result<(Child, Pid)> {
            if let Some(parent) = log.parent() {
                fs::create_dir_all(parent)?;
            }
            let output = File::options().create(true).append(true).open(log)?;
            let child = Command::new(&self.program)
                .args(&self.arguments)
                .envs(self.environment.iter().map(|(name, path)| (name, path)))
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output)
                .process_group(0)
                .kill_on_drop(true)
                .spawn()?;
            let id = child.id().ok_or_else(|| anyhow!("it ended at once"))?;
            let pid = Pid::from_raw(i32::try_from(id)?).ok_or_else(|| anyhow!("it has no process id"))?;
            Ok((child, pid))
        };
        start().with_context(|| format!("cannot start {name} ({})", self.program.display()))
    }
}
