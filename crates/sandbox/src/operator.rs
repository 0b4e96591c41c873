//! The operator as a process of its own, as its ServiceAccount.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use testenv::{Part, Restarts, describe_exit};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// A program of the product, which is built beside the one that runs, or above a test's.
///
/// # Errors
/// When it is not there; the message says how to build it.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program's folder")?;
    let folder = own.parent().filter(|folder| folder.ends_with("deps")).unwrap_or(&own);
    let program = folder.with_file_name(name);
    ensure!(program.is_file(), "{} is missing; cargo build -p {name} makes it", program.display());
    Ok(program)
}

/// How the operator is started.
#[derive(Clone, Debug)]
pub struct OperatorOptions {
    /// The program.
    pub program: PathBuf,
    /// Arguments beside those that the stack gives.
    pub arguments: Vec<String>,
    /// What is logged.
    pub log_level: String,
}

impl OperatorOptions {
    /// `program` with its defaults.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), arguments: Vec::new(), log_level: "info".to_owned() }
    }
}

/// A running operator. Dropping it kills it.
pub struct Operator {
    // It is large, and part of many futures.
    child: Box<Child>,
    options: OperatorOptions,
    kubeconfig: PathBuf,
    log: PathBuf,
    /// Where in the log it begins, in bytes.
    begins: usize,
    restarts: Restarts,
}

impl Operator {
    /// Starts the operator with a kubeconfig; logs go to `log`, which is appended to.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(options: &OperatorOptions, kubeconfig: &Path, log: &Path) -> anyhow::Result<Self> {
        let (child, begins) = spawn(options, kubeconfig, log)?;
        let restarts = Restarts::new(std::time::Instant::now());
        Ok(Self {
            child,
            options: options.clone(),
            kubeconfig: kubeconfig.to_owned(),
            log: log.to_owned(),
            begins,
            restarts,
        })
    }

    /// Starts the operator again if it has ended and its pause is over, as a Deployment would. Says what has happened, if
    /// something has.
    pub fn keep(&mut self) -> Option<String> {
        let status = self.child.try_wait().unwrap_or_default()?;
        let (now, reason) = (std::time::Instant::now(), describe_exit(status));
        let mut news = None;
        if self.restarts.ended(&reason, now) {
            news = Some(format!(
                "{} has ended ({reason}); the last lines of {}:\n{}",
                self.name(),
                self.log.display(),
                self.log_tail(10)
            ));
        }
        if self.restarts.is_due(now) {
            match spawn(&self.options, &self.kubeconfig, &self.log) {
                Ok((child, begins)) => {
                    (self.child, self.begins) = (child, begins);
                    self.restarts.started(now);
                }
                Err(error) => self.restarts.not_started(format!("{error:#}"), now),
            }
        }
        news
    }

    /// Whether the operator has ended, and is not started again yet.
    pub fn is_down(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// How the operator is, for people.
    pub fn part(&self) -> Part {
        Part {
            name: self.name(),
            state: self.restarts.describe(std::time::Instant::now()),
            has_ended: self.restarts.any(),
            log: self.log.clone(),
        }
    }

    fn name(&self) -> String {
        self.options.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Kills the operator as a crash would.
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
            // The workspace forbids unsafe code; kill(1) is what a user would use, too.
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

    /// The exit status, if the operator has ended by itself.
    ///
    /// # Errors
    /// When the process cannot be asked.
    pub fn ended(&mut self) -> anyhow::Result<Option<String>> {
        Ok(self.child.try_wait()?.map(|status| format!("{}: {}", describe_exit(status), self.log_tail(10))))
    }

    /// Address of the admin endpoints, from the log: the port is chosen by the system.
    ///
    /// # Errors
    /// When it does not appear in 20 s.
    pub async fn admin_address(&self) -> anyhow::Result<String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let own = text.get(self.begins..).unwrap_or_default();
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

    /// Process id.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The last lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// The process, and the length of its log before it.
fn spawn(options: &OperatorOptions, kubeconfig: &Path, log: &Path) -> anyhow::Result<(Box<Child>, usize)> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(log).context("opening the operator's log")?;
    let begins = usize::try_from(file.metadata().context("looking at the operator's log")?.len())?;
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
    Ok((Box::new(child), begins))
}
