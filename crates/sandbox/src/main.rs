//! `sandbox run`: the product on this machine, from the example request to a cluster with Ready nodes and, with `--once`,
//! back to free hosts.

mod apart;
mod control;
mod follow;
mod parts;
mod report;
mod state_dir;
mod tour;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use apart::Apart;
use clap::{Parser, Subcommand};
use parts::Parts;
use sandbox::{OperatorOptions, Stack, StackOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

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
    /// Do something with a server of a running sandbox.
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
    /// Take servers for hosts instead of simulated ones.
    #[arg(long)]
    servers: bool,
    /// Start an SMO of its own and this many O-Clouds, instead of one cluster that is both.
    #[arg(long, value_name = "2", value_parser = clap::value_parser!(u8).range(2..=2))]
    o_clouds: Option<u8>,
    /// Folder for the administrator's kubeconfig and for links to kubectl and the operator's log.
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
}

/// The line that tells `mgmt.sh` that the sandbox is up and that nothing more is coming.
const UP: &str = "The sandbox is up.";
/// Exit code of a program that was interrupted, as shells have it.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse().command {
        Command::Run(arguments) => arguments,
        Command::Host { state_dir, name, action } => return host(&state_dir, action, &name).await,
    };
    // What the hosts do, and what is wrong in the ConfigMap that breaks them; the clients' own lines are noise here.
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

async fn host(folder: &Path, action: control::Action, name: &str) -> ExitCode {
    match control::ask(folder, action, name).await {
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

enum Ending {
    Finished,
    Interrupted,
}

async fn run(arguments: &RunArguments) -> anyhow::Result<Ending> {
    let mut stop = Stop::new()?;
    let begun = Instant::now();
    let options = StackOptions::new(sandbox::program("o2ims-operator")?);
    let focom = OperatorOptions::new(sandbox::program("focom-operator")?);
    let options = if arguments.servers { options.with_servers() } else { options };
    let progress = move |line: &str| say_at(begun, line);
    let started = async {
        if arguments.o_clouds.is_some() {
            let started = Box::pin(Apart::start(options, focom, progress)).await;
            return started.map(|(stack, apart)| (stack, Some(apart)));
        }
        let mut stack = Stack::start(options, progress).await?;
        stack.start_focom(&focom).await?;
        Ok((stack, None))
    };
    let (stack, apart) = tokio::select! {
        started = started => started?,
        () = stop.asked() => return Ok(Ending::Interrupted),
    };
    let mut parts = Parts { stack, apart, folder: arguments.state_dir.clone(), strict: arguments.once };
    let result = tokio::select! {
        result = stay(&mut parts, arguments, begun) => result.map(|()| Ending::Finished),
        ending = async { stop.asked().await; Ending::Interrupted } => Ok(ending),
    };
    let result = match result {
        Ok(Ending::Finished) if !arguments.once => {
            let control = match &arguments.state_dir {
                Some(folder) if arguments.servers => control::open(folder)
                    .inspect_err(|error| say(&format!("./mgmt.sh host will not work: {error:#}")))
                    .ok(),
                _ => None,
            };
            say(UP);
            let servers = parts.stack.servers.clone();
            let control = async {
                match &control {
                    Some(listener) => control::serve(listener, &servers).await,
                    None => std::future::pending().await,
                }
            };
            let failure = tokio::select! {
                failure = parts.failure() => Some(failure),
                never = control => match never {},
                () = stop.asked() => None,
            };
            failure.map_or(Ok(Ending::Finished), |failure| Err(anyhow::anyhow!(failure)))
        }
        Err(error) => {
            say(&format!("\n{}", parts.log_tails()));
            Err(error)
        }
        result => result,
    };
    parts.keep_logs(result.is_err());
    let stopped = parts.stop().await;
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

/// Everything between the start and the stop.
async fn stay(parts: &mut Parts, arguments: &RunArguments, begun: Instant) -> anyhow::Result<()> {
    if let Some(folder) = &arguments.state_dir {
        state_dir::write(folder, &parts.stack, parts.apart.as_ref())?;
    }
    tour::tour(parts, arguments.once, begun).await?;
    if !arguments.once {
        parts.stack.site.watch_failures("default", hostsim::FAILURES_CONFIG_MAP);
    }
    Ok(())
}

/// The signals that end the sandbox.
struct Stop([Signal; 3]);

impl Stop {
    fn new() -> anyhow::Result<Self> {
        let [interrupt, terminate, hangup] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Ok(Self([signal(interrupt)?, signal(terminate)?, signal(hangup)?]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Prints a line. A reader that is gone must not keep the sandbox from stopping in order.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line with the seconds since the start.
fn say_at(begun: Instant, line: &str) {
    say(&format!("[{:6.1} s] {line}", begun.elapsed().as_secs_f32()));
}
