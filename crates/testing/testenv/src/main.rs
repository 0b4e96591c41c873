//! `testenv`: builds the programs of a management cluster, or starts one to try things out.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use testenv::servers::{DistributionUnavailable, Rack};
use testenv::tools::Tool;
use testenv::{ManagementCluster, Options};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(version, about = "A real management cluster (Kubernetes, Cluster API, BYOH) as plain processes")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything that is not in the cache yet.
    Build {
        /// Also what servers consist of.
        #[arg(long)]
        servers: bool,
        /// Also programs that only tests need: clusterctl, etcdctl, etcdutl, helm, kstatus, kubeconform, Lua.
        #[arg(long)]
        tools: bool,
        /// Also what slow tests need: promtool, OpenTelemetry's Collector, Flux's controllers and Argo CD's CRD.
        #[arg(long)]
        slow: bool,
        /// Also what tests with hosts of another distribution need: Debian 13, and the container runtime as static programs.
        #[arg(long)]
        other_hosts: bool,
        /// Also what tests of upgrades need: the minor version of Kubernetes before.
        #[arg(long)]
        upgrades: bool,
        /// Also the kernel of virtual machines, if this machine can have these.
        #[arg(long)]
        virtual_machines: bool,
    },
    /// Check whether this machine can have servers; if not, print the reason and fail.
    CheckServers,
    /// Print the folder with everything that turns servers into hosts without a network; `hosts` of a bundle is the
    /// same.
    HostFiles,
    /// Start servers `server-1`, `server-2` and so on, and keep them until Ctrl-C.
    Servers {
        /// Servers with a freshly installed system: Debian with sshd and python3.
        #[arg(long)]
        debian: bool,
        /// Number of servers.
        #[arg(default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=100))]
        number: u8,
    },
    /// Print the versions that are tested beside the defaults, one combination a line: of Kubernetes and of Cluster API,
    /// as `O2IMS_KUBERNETES` and `O2IMS_CLUSTER_API` name them.
    Versions,
    /// Start a management cluster and keep it until Ctrl-C.
    Up {
        /// Leave out Cluster API and BYOH.
        #[arg(long)]
        bare: bool,
        /// Leave out BYOH.
        #[arg(long)]
        without_byoh: bool,
    },
}

/// Exit code when the servers' distribution cannot be fetched.
const DISTRIBUTION_UNAVAILABLE: u8 = 75;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<DistributionUnavailable>() {
                ExitCode::from(DISTRIBUTION_UNAVAILABLE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

async fn run(command: Command) -> Result<()> {
    let line = |text: &str| eprintln!("{text}");
    match command {
        Command::Build { servers, tools, slow, other_hosts, upgrades, virtual_machines } => {
            let programs = testenv::recipes::build_all(servers, line);
            let programs = if servers {
                // Whether the distribution can be fetched is known at once; the programs take minutes.
                tokio::try_join!(testenv::servers::fetch(line), programs)?.1
            } else {
                programs.await?
            };
            for program in programs {
                println!("{}", program.display());
            }
            if servers {
                testenv::servers::build(line).await?;
            }
            if virtual_machines {
                match testenv::servers::no_virtual_machines() {
                    Some(reason) => eprintln!("there are no virtual machines: {reason}"),
                    None => testenv::servers::build_kernel(line).await?,
                }
            }
            if tools {
                for tool in Tool::ALL {
                    println!("{}", testenv::tools::tool(tool, line).await?.display());
                }
            }
            if slow {
                for tool in Tool::SLOW {
                    println!("{}", testenv::tools::tool(tool, line).await?.display());
                }
                testenv::Flux::build(line).await?;
                println!("{}", testenv::tools::argo_cd_crd(line).await?.display());
            }
            if upgrades {
                testenv::servers::build_before(line).await?;
            }
            if other_hosts {
                testenv::servers::build_other_system(line).await?;
                println!("{}", testenv::servers::runtime(line).await?.display());
            }
            Ok(())
        }
        Command::CheckServers => testenv::servers::unsupported_reason()?.map_or(Ok(()), |reason| bail!(reason)),
        Command::HostFiles => {
            println!("{}", testenv::servers::host_files(line).await?.display());
            Ok(())
        }
        Command::Versions => {
            for (kubernetes, cluster_api) in testenv::versions::combinations() {
                println!("{kubernetes} {cluster_api}");
            }
            Ok(())
        }
        Command::Servers { number, debian } => servers(number, debian).await,
        Command::Up { bare, without_byoh } => {
            up(Options { cluster_api: !bare, byoh: !bare && !without_byoh, ..Options::default() }).await
        }
    }
}

async fn servers(number: u8, debian: bool) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let rack = Rack::start(false, |line| eprintln!("{line}")).await?;
    let mut servers = Vec::new();
    for number in 1..=number {
        let (name, address) = (format!("server-{number}"), number + 10);
        let server = if debian { rack.debian_server(&name, address)? } else { rack.server(&name, address)? };
        server.power_on().await?;
        println!(
            "{} is on, address {}, first process {}",
            server.name(),
            server.address(),
            server.first_process().await?
        );
        servers.push(server);
    }
    if debian {
        let login = rack.login()?;
        println!("ssh -i {} -o UserKnownHostsFile={} root@...", login.key.display(), login.known_hosts.display());
    }
    println!("{} is up; Ctrl-C stops it.", rack.name());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    for server in servers {
        server.remove().await?;
    }
    rack.stop().await
}

async fn up(options: Options) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let begun = Instant::now();
    let started =
        ManagementCluster::start(options, move |text| eprintln!("[{:5.1} s] {text}", begun.elapsed().as_secs_f32()));
    let management = tokio::select! {
        management = started => management?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let kubeconfig = management.dir().join("admin.kubeconfig");
    management.kubeconfig_as("admin", &["system:masters"], &kubeconfig)?;
    println!("kubeconfig: {}", kubeconfig.display());
    println!("kubectl:    {}", management.kubectl().display());
    if let Some(dialect) = management.byoh_dialect() {
        println!("BYOH:       {dialect:?}");
    }
    println!("Ctrl-C stops it.");
    let mut poll = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = poll.tick() => if let Some(failure) = management.failed() {
                // Stopping may fail too; the first failure is the one to report.
                let _ = management.stop().await;
                bail!(failure);
            },
        }
    }
    eprintln!("stopping ...");
    management.stop().await
}
