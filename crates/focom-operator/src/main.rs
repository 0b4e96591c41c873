//! The FOCOM operator's binary.

use std::process::ExitCode;

use clap::Parser as _;
use focom_operator::operator;

#[tokio::main]
async fn main() -> ExitCode {
    match operator::run(operator::Settings::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever RUST_BACKTRACE says: this is the last thing that `kubectl logs --previous` shows.
            eprintln!("focom-operator ends: {error:#}");
            ExitCode::FAILURE
        }
    }
}
