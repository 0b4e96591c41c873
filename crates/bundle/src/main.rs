//! `./mgmt.sh bundle`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use bundle::Options;
use clap::Parser;
use testenv::Progress;

#[derive(Parser)]
#[command(version, about = "Everything that a management cluster and its hosts need, as files")]
struct Arguments {
    /// The bundle's folder; an older bundle there is replaced.
    #[arg(required_unless_present_any = ["prepare", "holes"])]
    folder: Option<PathBuf>,
    /// A folder with o2ims-operator and focom-operator as static programs; without it scripts/build-release builds
    /// them.
    #[arg(long, value_name = "FOLDER")]
    operators: Option<PathBuf>,
    /// Leave hosts/ out, for servers that come with containerd, kubelet, kubeadm and BYOH's agent.
    #[arg(long)]
    without_hosts: bool,
    /// Make no bundle; build what the tests of bundles need from the network.
    #[arg(long, conflicts_with_all = ["folder", "operators", "without_hosts"])]
    prepare: bool,
    /// Make no bundle; compare the Go programs of the one in FOLDER, or without FOLDER those in the cache, with the Go
    /// vulnerability database, and the result with deploy/known-holes.yaml.
    #[arg(long, conflicts_with_all = ["prepare", "operators", "without_hosts"])]
    holes: bool,
}

/// Exit code where all is well of what could be checked, and not all could be; as that of `scripts/check-crates`.
const NOT_ALL: u8 = 75;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let progress = Progress::new(|line| eprintln!("{line}"));
    if arguments.holes {
        let update = std::env::var_os("UPDATE_HOLES").is_some();
        let report = bundle::check_holes(arguments.folder.as_deref(), update, progress).await?;
        print!("{}", report.text);
        if !report.as_listed {
            bail!("the holes are not those of deploy/known-holes.yaml; the differences are above");
        }
        return Ok(if report.complete { ExitCode::SUCCESS } else { ExitCode::from(NOT_ALL) });
    }
    let Some(folder) = arguments.folder else {
        bundle::prepare(progress).await?;
        return Ok(ExitCode::SUCCESS);
    };
    let options = Options { operators: arguments.operators, without_hosts: arguments.without_hosts };
    let index = bundle::make(&folder, &options, progress).await?;
    print!("{}", index.summary(&folder));
    Ok(ExitCode::SUCCESS)
}
