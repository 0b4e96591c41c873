//! `sandbox run`: the product on this machine. Applies the example requests, follows them until their clusters have
//! Ready nodes and, with `--once`, deletes them again.

mod control;
mod demo;
mod follow;
mod output;
mod remote_smo;
mod report;
mod state_dir;
mod supervisor;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use sandbox::{OperatorOptions, Stack, StackOptions};
use testenv::servers::Server;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::output::{say, say_at};
use crate::remote_smo::RemoteSmo;
use crate::supervisor::Supervisor;

#[derive(Parser)]
#[command(version, about = "The product on this machine: a real control plane, Cluster API and BYOH, and hosts")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything and apply the example request.
    Run(RunArguments),
    /// Switch a server of a running sandbox on or off.
    Host {
        /// The state folder of the sandbox.
        #[arg(long, value_name = "FOLDER")]
        state_dir: PathBuf,
        /// The server's name.
        name: String,
        /// What to do.
        action: control::Action,
    },
}

#[derive(clap::Args)]
struct RunArguments {
    /// Delete the request again, check that nothing is left of it, and end.
    #[arg(long)]
    once: bool,
    /// Use servers as hosts instead of simulated hosts.
    #[arg(long)]
    servers: bool,
    /// Start an SMO with a cluster of its own and this many O-Clouds, instead of one cluster that is both.
    #[arg(long, value_name = "2", value_parser = clap::value_parser!(u8).range(2..=2))]
    o_clouds: Option<u8>,
    /// Folder for the administrator's kubeconfig and for links to kubectl and the operator's log.
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
}

/// The last line of output of a sandbox that has started. `mgmt.sh` waits for it.
const UP: &str = "The sandbox is up.";
/// Exit code of an interrupted program, as in shells.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse().command {
        Command::Run(arguments) => arguments,
        Command::Host { state_dir, name, action } => return host(&state_dir, action, &name).await,
    };
    // Logs of the simulated hosts only: what they do, and mistakes in the ConfigMap of their failures.
    let default = if arguments.once { "off,hostsim=warn" } else { "off,hostsim=info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    match Box::pin(run(&arguments)).await {
        Ok(Ending::Finished) => ExitCode::SUCCESS,
        Ok(Ending::Interrupted) => {
            say("interrupted; everything is stopped");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            say(&format!("\nFAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Sends a command for a server to a running sandbox.
async fn host(folder: &Path, action: control::Action, name: &str) -> ExitCode {
    match control::request(folder, action, name).await {
        Ok(answer) => {
            say(&answer);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How a run has ended without an error.
enum Ending {
    Finished,
    Interrupted,
}

async fn run(arguments: &RunArguments) -> anyhow::Result<Ending> {
    let mut signals = StopSignals::new()?;
    let begun = Instant::now();
    let (stack, remote_smo) = tokio::select! {
        started = Box::pin(start(arguments, begun)) => started?,
        () = signals.received() => return Ok(Ending::Interrupted),
    };
    let mut supervisor = Supervisor { stack, remote_smo, folder: arguments.state_dir.clone(), strict: arguments.once };
    let result = tokio::select! {
        result = show(&mut supervisor, arguments, begun) => result.map(|()| Ending::Finished),
        () = signals.received() => Ok(Ending::Interrupted),
    };
    let result = match result {
        Ok(Ending::Finished) if !arguments.once => stay_up(&mut supervisor, arguments, &mut signals).await,
        Err(error) => {
            say(&format!("\n{}", supervisor.log_tails()));
            Err(error)
        }
        result => result,
    };
    supervisor.keep_logs(result.is_err());
    let stopped = supervisor.stop().await;
    if let Some(folder) = &arguments.state_dir {
        state_dir::clear(folder);
    }
    let ending = result?;
    stopped.context("stopping")?;
    if matches!(ending, Ending::Finished) {
        say_at(begun, "everything is stopped");
    }
    Ok(ending)
}

/// Starts all clusters and operators.
async fn start(arguments: &RunArguments, begun: Instant) -> anyhow::Result<(Stack, Option<RemoteSmo>)> {
    let options = StackOptions::new(sandbox::program("o2ims-operator")?);
    let options = if arguments.servers {
        StackOptions { booting: Some((demo::PREFIX, 1..=demo::HOSTS)), ..options.with_servers() }
    } else {
        options
    };
    let focom = OperatorOptions::new(sandbox::program("focom-operator")?);
    let progress = move |line: &str| say_at(begun, line);
    if arguments.o_clouds.is_some() {
        let (stack, remote_smo) = Box::pin(RemoteSmo::start(options, focom, progress)).await?;
        return Ok((stack, Some(remote_smo)));
    }
    let mut stack = Stack::start(options, progress).await?;
    stack.start_focom(&focom).await?;
    Ok((stack, None))
}

/// Writes the state folder, and runs the demo.
async fn show(supervisor: &mut Supervisor, arguments: &RunArguments, begun: Instant) -> anyhow::Result<()> {
    if let Some(folder) = &arguments.state_dir {
        state_dir::write(folder, &supervisor.stack, supervisor.remote_smo.as_ref())?;
    }
    Box::pin(demo::run(supervisor, arguments.once, begun)).await?;
    if !arguments.once {
        supervisor.stack.site.watch_failures("default", hostsim::FAILURES_CONFIG_MAP);
    }
    Ok(())
}

/// Keeps the sandbox up until a signal comes or it cannot go on.
async fn stay_up(
    supervisor: &mut Supervisor,
    arguments: &RunArguments,
    signals: &mut StopSignals,
) -> anyhow::Result<Ending> {
    let control = match &arguments.state_dir {
        Some(folder) if arguments.servers => {
            control::open(folder).inspect_err(|error| say(&format!("./mgmt.sh host will not work: {error:#}"))).ok()
        }
        _ => None,
    };
    say(UP);
    let servers = supervisor.stack.servers.clone();
    tokio::select! {
        failure = supervisor.failure() => Err(anyhow::anyhow!(failure)),
        never = serve(control.as_ref(), &servers) => match never {},
        () = signals.received() => Ok(Ending::Finished),
    }
}

/// Answers requests for servers, if there is a socket. Never returns.
async fn serve(control: Option<&UnixListener>, servers: &[Arc<Server>]) -> Infallible {
    match control {
        Some(listener) => control::serve(listener, servers).await,
        None => std::future::pending().await,
    }
}

/// The signals that stop the sandbox.
struct StopSignals([Signal; 3]);

impl StopSignals {
    fn new() -> anyhow::Result<Self> {
        let [interrupt, terminate, hangup] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Ok(Self([signal(interrupt)?, signal(terminate)?, signal(hangup)?]))
    }

    /// Waits for one of the signals.
    async fn received(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
