//! A child process with a log file: started, watched, stopped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::restarts::{Restarts, describe_exit};

/// How often a condition outside of our reach (readiness, exit) is looked at.
const LOOK: Duration = Duration::from_millis(25);
/// How long a process may take to leave after SIGTERM before it is killed.
const LEAVE: Duration = Duration::from_secs(10);
/// How long it may take until all threads of a paused process have noticed; milliseconds on an idle machine.
const PAUSE: Duration = Duration::from_secs(10);
/// Of 19; enough to leave nine tenths of a processor to others.
const NICENESS: u8 = 10;
/// How much of a log an error quotes.
const QUOTED_LINES: usize = 15;

/// A process of a bed, as people are told of it.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it is called.
    pub name: String,
    /// How it is, with the reason of its last end.
    pub state: String,
    /// Whether it has ever ended by itself.
    pub has_ended: bool,
    /// Its log.
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
    /// Starts the program, in a process group of its own: a Ctrl-C at the terminal is for us, who then stop in order.
    pub(crate) fn start(name: &str, program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        Self::start_with(name, program, arguments, &[], log)
    }

    /// As [`Process::start`], for what belongs on another machine: it stands back where processors are short.
    pub(crate) fn start_nice(name: &str, program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        let own = ["-n".to_owned(), NICENESS.to_string(), program.display().to_string()];
        Self::start(name, Path::new("nice"), &[&own, arguments].concat(), log)
    }

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

    pub(crate) fn id(&self) -> i32 {
        self.running().pid.as_raw_nonzero().get()
    }

    /// Waits until `ready` says so; an exit or the deadline is an error that quotes the log.
    pub(crate) async fn wait_ready<F>(&self, deadline: Duration, ready: impl Fn() -> F) -> Result<()>
    where
        F: Future<Output = bool>,
    {
        let started = Instant::now();
        loop {
            // An answer may also hang: the limit keeps the deadline honest.
            if tokio::time::timeout(Duration::from_secs(5), ready()).await.unwrap_or(false) {
                return Ok(());
            }
            if let Some(failure) = self.failed() {
                bail!(failure);
            }
            if started.elapsed() > deadline {
                bail!("{} was not ready after {} s; {}", self.name, deadline.as_secs(), self.last_lines());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What to say if the process is gone although nobody stopped it.
    pub(crate) fn failed(&self) -> Option<String> {
        let status = self.exit_status()?;
        Some(format!("{} ended unexpectedly ({status}); {}", self.name, self.last_lines()))
    }

    /// Starts the program again if it has ended and its pause is over. Says what has happened, if something has.
    pub(crate) fn keep(&self) -> Option<String> {
        let mut running = self.running();
        let status = running.child.try_wait().unwrap_or_default()?;
        let now = Instant::now();
        let reason = describe_exit(status);
        let mut news = None;
        if running.restarts.ended(&reason, now) {
            news = Some(format!("{} has ended ({reason}); {}", self.name, self.last_lines()));
        }
        if running.restarts.is_due(now) {
            match self.command.start(&self.name, &self.log) {
                Ok((child, pid)) => {
                    (running.child, running.pid) = (child, pid);
                    running.restarts.started(now);
                }
                Err(error) => running.restarts.not_started(format!("{error:#}"), now),
            }
        }
        news
    }

    /// Starts the program again that was stopped.
    pub(crate) fn start_again(&self) -> Result<()> {
        let mut running = self.running();
        (running.child, running.pid) = self.command.start(&self.name, &self.log)?;
        running.restarts = Restarts::new(Instant::now());
        Ok(())
    }

    /// How the process is, for people.
    pub(crate) fn part(&self) -> Part {
        let running = self.running();
        Part {
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

    /// Stops the process's clock. The signal alone does not mean that: threads that run at the moment go on for a while.
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let asked = Instant::now();
        while !self.is_paused() {
            if asked.elapsed() > PAUSE {
                bail!("{} does not pause", self.name);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

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

    /// Asks the process to leave, without waiting. A paused process could not hear it, so it goes on first.
    pub(crate) fn ask_to_leave(&self) {
        // Failing means that it is gone already.
        let _ = self.signal(Signal::TERM);
        let _ = self.signal(Signal::CONT);
    }

    /// Ends the process and waits for it: politely first, then by force.
    pub(crate) async fn stop(&self) -> Result<()> {
        self.ask_to_leave();
        let asked = Instant::now();
        let mut forced = false;
        while self.exit_status().is_none() {
            if asked.elapsed() > LEAVE && !forced {
                let _ = self.signal(Signal::KILL);
                forced = true;
            }
            if asked.elapsed() > LEAVE * 2 {
                bail!("{} (process {}) does not end", self.name, self.id());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Ends the process by force and waits for it: for one whose work is not wanted any more.
    pub(crate) async fn kill(&self) -> Result<()> {
        let _ = self.signal(Signal::KILL);
        self.stop().await
    }

    fn exit_status(&self) -> Option<ExitStatus> {
        // An error here means that the exit was collected elsewhere, which nothing in this crate does.
        self.running().child.try_wait().unwrap_or_default()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_lines(&self) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(QUOTED_LINES)..).unwrap_or_default().join("\n");
        format!("the last lines of {}:\n{last}", self.log.display())
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
