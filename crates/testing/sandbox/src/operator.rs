//! An operator as a process that runs as its ServiceAccount.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use testenv::command::last_lines;
use testenv::{ProcessStatus, Restarts, describe_exit};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// Path of a program of the product. It must have been built into the same folder as the running program, or the one
/// above a test's.
///
/// # Errors
/// When it is not there; the error says how to build it.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program's folder")?;
    let folder = own.parent().filter(|folder| folder.ends_with("deps")).unwrap_or(&own);
    let program = folder.with_file_name(name);
    ensure!(program.is_file(), "{} is missing; cargo build -p {name} makes it", program.display());
    Ok(program)
}

/// How an operator is started.
#[derive(Clone, Debug)]
pub struct OperatorOptions {
    /// The program.
    pub program: PathBuf,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// The log level.
    pub log_level: String,
}

impl OperatorOptions {
    /// `program` with its defaults.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), arguments: Vec::new(), log_level: "info".to_owned() }
    }
}

/// A running operator. Dropping this kills the process.
pub struct Operator {
    // In a box, because it is large and part of many futures.
    child: Box<Child>,
    options: OperatorOptions,
    kubeconfig: PathBuf,
    log: PathBuf,
    /// Length of the log, in bytes, when the process was started.
    log_offset: usize,
    restarts: Restarts,
}

impl Operator {
    /// Starts the operator with a kubeconfig. Its log is appended to the file `log`.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(options: &OperatorOptions, kubeconfig: &Path, log: &Path) -> anyhow::Result<Self> {
        let (child, log_offset) = spawn(options, kubeconfig, log)?;
        let restarts = Restarts::new(std::time::Instant::now());
        Ok(Self {
            child,
            options: options.clone(),
            kubeconfig: kubeconfig.to_owned(),
            log: log.to_owned(),
            log_offset,
            restarts,
        })
    }

    /// Starts the operator again if it has ended and its pause is over, as a kubelet would. Returns a message when the
    /// end is noticed.
    pub fn restart_if_ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().unwrap_or_default()?;
        let Self { child, options, kubeconfig, log, log_offset, restarts } = self;
        let describe = |reason: &str| {
            let tail = log_tail(log, 10);
            format!("{} has ended ({reason}); the last lines of {}:\n{tail}", name_of(options), log.display())
        };
        restarts.handle_exit(status, std::time::Instant::now(), describe, || {
            (*child, *log_offset) = spawn(options, kubeconfig, log)?;
            Ok(())
        })
    }

    /// Whether the operator has ended, and has not been started again yet.
    pub fn is_down(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// The state of the operator, for people.
    pub fn status(&self) -> ProcessStatus {
        ProcessStatus {
            name: name_of(&self.options),
            state: self.restarts.describe(std::time::Instant::now()),
            has_ended: self.restarts.any(),
            log: self.log.clone(),
        }
    }

    /// Kills the operator, as a crash would end it.
    ///
    /// # Errors
    /// When the process cannot be killed.
    pub async fn crash(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("killing the operator")
    }

    /// Asks the operator to stop and waits for it.
    ///
    /// # Errors
    /// When it does not stop in 20 s, or stops with an error.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(id) = self.child.id() {
            // kill(1), because kill(2) would need unsafe code.
            Command::new("kill").args(["-TERM", &id.to_string()]).status().await.context("signalling the operator")?;
        }
        let status = timeout(Duration::from_secs(20), self.child.wait())
            .await
            .context("the operator did not stop in 20 s")??;
        if status.success() {
            Ok(())
        } else {
            bail!("the operator ended with {}: {}", describe_exit(status), self.log_tail(10))
        }
    }

    /// How the operator has ended, with the last lines of its log; `None` while it runs.
    ///
    /// # Errors
    /// When the process cannot be asked.
    pub fn ended(&mut self) -> anyhow::Result<Option<String>> {
        Ok(self.child.try_wait()?.map(|status| format!("{}: {}", describe_exit(status), self.log_tail(10))))
    }

    /// Address of the admin endpoints. The kernel chooses the port, so the address is read from the log.
    ///
    /// # Errors
    /// When the log does not show it within 20 s.
    pub async fn admin_address(&self) -> anyhow::Result<String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let own = text.get(self.log_offset..).unwrap_or_default();
            let found = own
                .lines()
                .find(|line| line.contains("admin endpoints listen"))
                .and_then(|line| line.split("address=").nth(1)?.split_whitespace().next().map(ToOwned::to_owned));
            if let Some(address) = found {
                return Ok(address);
            }
            if Instant::now() > deadline {
                bail!("the operator names no admin address: {}", self.log_tail(10));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The process id; `None` if the operator has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The last lines of the log, at most `lines`.
    pub fn log_tail(&self, lines: usize) -> String {
        log_tail(&self.log, lines)
    }
}

/// Name of the program.
fn name_of(options: &OperatorOptions) -> String {
    options.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The last lines of a log, at most `lines`.
fn log_tail(log: &Path, lines: usize) -> String {
    last_lines(&std::fs::read_to_string(log).unwrap_or_default(), lines)
}

/// Starts the process. Also returns the length of the log before that.
fn spawn(options: &OperatorOptions, kubeconfig: &Path, log: &Path) -> anyhow::Result<(Box<Child>, usize)> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(log).context("opening the operator's log")?;
    let log_offset = usize::try_from(file.metadata().context("looking at the operator's log")?.len())?;
    let child = Command::new(&options.program)
        .args(["--log-format", "text", "--log-level", &options.log_level, "--admin-address", "127.0.0.1:0"])
        .args(&options.arguments)
        .env("KUBECONFIG", kubeconfig)
        .env_remove("KUBERNETES_SERVICE_HOST")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", options.program.display()))?;
    Ok((Box::new(child), log_offset))
}
