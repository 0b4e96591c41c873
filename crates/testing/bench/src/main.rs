//! `./mgmt.sh bench`: how long a cluster takes on servers when it is made by a ProvisioningRequest, by plain Cluster
//! API objects, and by kubeadm on the command line. All are measured in one run, one after the other.
//! `./mgmt.sh bench focom`: what an SMO in between costs.
//! `./mgmt.sh bench scale`: what the operator costs with thousands of requests.
//! `./mgmt.sh bench burst`: how soon each of hundreds of requests that are created at once has its first status.

mod burst;
mod focom;
mod kubeadm;
mod plain_capi;
mod provisioning_request;
mod scale;
mod table;
mod times;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use sandbox::{Stack, StackOptions};

use crate::table::Table;

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

/// Other measurements.
#[derive(clap::Subcommand)]
enum Other {
    /// An SMO with two O-Clouds.
    Focom(focom::Arguments),
    /// Thousands of requests and hosts.
    Scale(scale::Arguments),
    /// Hundreds of requests at once.
    Burst(burst::Arguments),
    /// The operator, with a look at how long it holds its thread; for the measurement itself.
    #[command(hide = true)]
    Operator(o2ims_operator::operator::Settings),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = match arguments.other {
        Some(Other::Operator(settings)) => scale::operator(settings),
        _ => measure_in_runtime(&arguments),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure_in_runtime(arguments: &Arguments) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(Box::pin(run(arguments)))
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.other {
        Some(Other::Focom(arguments)) => return Box::pin(focom::run(arguments)).await,
        Some(Other::Scale(arguments)) => return Box::pin(scale::run(arguments)).await,
        Some(Other::Burst(arguments)) => return Box::pin(burst::run(arguments)).await,
        _ => {}
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

/// Measures everything, and returns the tables.
async fn measure(stack: &mut Stack, arguments: &Arguments) -> anyhow::Result<String> {
    for namespace in [provisioning_request::NAMESPACE, provisioning_request::THREE, plain_capi::NAMESPACE] {
        stack.make_namespace(namespace).await?;
        stack.apply_cni(namespace).await?;
    }
    let mut text = one_and_one(stack, arguments.rounds).await?;
    if arguments.three_masters > 0 {
        text += &three_and_one(stack, arguments.three_masters).await?;
    }
    Ok(text)
}

/// Clusters of one master and one worker, made in each way.
async fn one_and_one(stack: &mut Stack, rounds: u8) -> anyhow::Result<String> {
    const FIRST: &str = "kubeadm by hand";
    let (mut up, mut down) = (Table::default(), Table::default());
    let namespace = provisioning_request::NAMESPACE;
    stack.power_on(namespace, namespace, 1..=2, false).await?;
    for round in 0..rounds {
        // Each way is measured first equally often, because the first one finds cold caches.
        for turn in 0..3 {
            let (way, times) = match (round + turn) % 3 {
                0 => (FIRST, kubeadm::one_and_one(stack, round).await?),
                1 => ("plain Cluster API objects", plain_capi::one_and_one(stack, round).await?),
                _ => ("ProvisioningRequest", provisioning_request::one_and_one(stack, round).await?),
            };
            eprintln!("{}: {way}: {times}", round + 1);
            up.add(way, times.up);
            down.add(way, times.down);
        }
    }
    for number in 1..=2 {
        stack.remove_server(&format!("{namespace}-{number}")).await?;
    }
    let mut text = String::new();
    if rounds > 0 {
        text += &up.print("1 master, 1 worker: seconds from the first command until both nodes are Ready", FIRST);
        text += &down.print("1 master, 1 worker: seconds from the deletion until both hosts are free", FIRST);
        text += "\nBy hand there is only `kubeadm reset`; with plain objects the old node runs on. A request's hosts are \
                 clean.\n";
    }
    Ok(text)
}

/// Clusters of three masters and one worker, made by requests.
async fn three_and_one(stack: &mut Stack, rounds: u8) -> anyhow::Result<String> {
    let (mut up, mut down) = (Table::default(), Table::default());
    let mut text = String::new();
    stack.power_on(provisioning_request::THREE, provisioning_request::THREE, 1..=4, false).await?;
    for round in 0..rounds {
        let (times, memory) = provisioning_request::three_and_one(stack, round).await?;
        eprintln!("{}: three masters: {times}", round + 1);
        up.add("ProvisioningRequest", times.up);
        down.add("ProvisioningRequest", times.down);
        if round == 0 {
            text += &memory;
        }
    }
    text += &up.print("3 masters, 1 worker: seconds until fulfilled", "");
    text += &down.print("3 masters, 1 worker: seconds from the deletion until every host is free", "");
    Ok(text)
}
