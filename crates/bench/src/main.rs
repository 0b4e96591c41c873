//! `./mgmt.sh bench`: how long a cluster takes on real servers by a ProvisioningRequest, beside the same cluster by plain
//! Cluster API objects and by kubeadm typed by hand, one after the other in one run. `./mgmt.sh bench focom`: what the way over
//! an SMO costs. Both print tables of figures and ratios.

mod by_hand;
mod by_request;
mod focom;
mod plain;
mod table;

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use sandbox::{Stack, StackOptions};

use table::Table;

/// Kubernetes of all clusters.
const VERSION: &str = "v1.33.13";
/// How long anything may take that is waited for.
const LIMIT: Duration = Duration::from_secs(300);

#[derive(Parser)]
#[command(version, about = "Time to cluster on real servers, beside kubeadm by hand and plain Cluster API objects")]
struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// How many clusters of one master and one worker are made in each way.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=20))]
    rounds: u8,
    /// How many clusters of three masters and one worker are made and deleted by requests.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(0..=20))]
    three_masters: u8,
}

/// What else can be measured.
#[derive(clap::Subcommand)]
enum Other {
    /// The way over an SMO, with two O-Clouds.
    Focom(focom::Arguments),
}

/// Of one cluster.
struct Times {
    /// From the first command until every node is Ready.
    up: Duration,
    /// From the deletion until every host is free.
    down: Duration,
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s, deleted in {:.1} s", self.up.as_secs_f32(), self.down.as_secs_f32())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match Box::pin(run(&arguments)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(Other::Focom(arguments)) = &arguments.other {
        return Box::pin(focom::run(arguments)).await;
    }
    let options = StackOptions::new(sandbox::program("o2ims-operator")?).with_servers();
    let mut stack = Stack::start(options, |line| eprintln!("{line}")).await?;
    let measured = tokio::select! {
        measured = measure(&mut stack, arguments) => measured,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into).and(Err(anyhow::anyhow!("interrupted"))),
    };
    let stopped = stack.stop().await.context("stopping");
    println!("{}", measured?);
    stopped
}

async fn measure(stack: &mut Stack, arguments: &Arguments) -> anyhow::Result<String> {
    for namespace in [by_request::NAMESPACE, by_request::THREE, plain::NAMESPACE] {
        stack.make_namespace(namespace).await?;
        stack.apply_cni(namespace).await?;
    }
    let (mut up, mut down) = (Table::default(), Table::default());
    stack.power_on(by_request::NAMESPACE, by_request::NAMESPACE, 1..=2, false).await?;
    for round in 0..arguments.rounds {
        // Each way comes first as often as the others: what comes first finds cold caches.
        for turn in 0..3 {
            let (way, times) = match (round + turn) % 3 {
                0 => ("kubeadm by hand", by_hand::one_and_one(stack, round).await?),
                1 => ("plain Cluster API objects", plain::one_and_one(stack, round).await?),
                _ => ("ProvisioningRequest", by_request::one_and_one(stack, round).await?),
            };
            eprintln!("{}: {way}: {times}", round + 1);
            up.add(way, times.up);
            down.add(way, times.down);
        }
    }
    let mut text = String::new();
    let first = "kubeadm by hand";
    if arguments.rounds > 0 {
        text += &up.print("1 master, 1 worker: seconds from the first command until both nodes are Ready", first);
        text += &down.print("1 master, 1 worker: seconds from the deletion until both hosts are free", first);
        text += "\nBy hand there is only `kubeadm reset`; with plain objects the old node runs on. A request's hosts are clean.\n";
    }
    for number in 1..=2 {
        stack.remove_server(&format!("{}-{number}", by_request::NAMESPACE)).await?;
    }
    if arguments.three_masters > 0 {
        let (mut up, mut down) = (Table::default(), Table::default());
        stack.power_on(by_request::THREE, by_request::THREE, 1..=4, false).await?;
        for round in 0..arguments.three_masters {
            let (times, memory) = by_request::three_and_one(stack, round).await?;
            eprintln!("{}: three masters: {times}", round + 1);
            up.add("ProvisioningRequest", times.up);
            down.add("ProvisioningRequest", times.down);
            if round == 0 {
                text += &memory;
            }
        }
        text += &up.print("3 masters, 1 worker: seconds until fulfilled", "");
        text += &down.print("3 masters, 1 worker: seconds from the deletion until every host is free", "");
    }
    Ok(text)
}
