//! The operator as a process of its own, as its ServiceAccount.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
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
    child: Child,
    log: PathBuf,
    /// Where in the log it begins, in bytes.
    begins: usize,
}

impl Operator {
    /// Starts the operator with a kubeconfig; logs go to `log`, which is appended to.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(options: &OperatorOptions, kubeconfig: &Path, log: &Path) -> anyhow::Result<Self> {
        let file =
            std::fs::OpenOptions::new().create(true).append(true).open(log).context("opening the operator's log")?;
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
        Ok(Self { child, log: log.to_owned(), begins })
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
            bail!("the operator ended with {}: {}", describe(status), self.log_tail(10))
        }
    }

    /// The exit status, if the operator has ended by itself.
    ///
    /// # Errors
    /// When the process cannot be asked.
    pub fn ended(&mut self) -> anyhow::Result<Option<String>> {
        Ok(self.child.try_wait()?.map(|status| format!("{}: {}", describe(status), self.log_tail(10))))
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

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}
