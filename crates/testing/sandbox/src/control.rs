//! Switches servers of a running sandbox on and off, for `mgmt.sh host`. A request is a line such as `off target-1`
//! over a socket in the state folder; the answer is a line too.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;
use testenv::servers::Server;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// A command for a server.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Action {
    /// Switch the server on.
    On,
    /// Cut the server's power.
    Off,
    /// Print the id of the server's process 1, for nsenter.
    First,
}

/// Prefix of an answer that is an error.
const ERROR_PREFIX: &str = "error: ";

fn socket(folder: &Path) -> PathBuf {
    folder.join("control")
}

/// How long a client may take to send its request.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the socket.
///
/// # Errors
/// When the socket cannot be made; its path must not be longer than about 100 characters.
pub fn open(folder: &Path) -> anyhow::Result<UnixListener> {
    let path = socket(folder);
    // A killed sandbox leaves its socket.
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(&path).with_context(|| format!("cannot listen at {}", path.display()))
}

/// Answers requests, one after the other. Never returns.
pub async fn serve(listener: &UnixListener, servers: &[Arc<Server>]) -> Infallible {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let mut line = String::new();
        // A client that sends no request gets no answer.
        if let Ok(Ok(_)) = timeout(READ_TIMEOUT, BufReader::new(&mut stream).read_line(&mut line)).await {
            let answer = match execute(line.trim(), servers).await {
                Ok(answer) => answer,
                Err(error) => format!("{ERROR_PREFIX}{error:#}"),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }
}

/// Executes a request, and returns the answer.
async fn execute(line: &str, servers: &[Arc<Server>]) -> anyhow::Result<String> {
    let (action, name) = line.split_once(' ').unwrap_or((line, ""));
    let names = || servers.iter().map(|server| server.name()).collect::<Vec<_>>().join(", ");
    let server = servers.iter().find(|server| server.name() == name);
    let server = server.with_context(|| format!("there is no server {name}; there are {}", names()))?;
    let action = Action::from_str(action, true).map_err(anyhow::Error::msg)?;
    match action {
        Action::On if server.is_on().await => Ok(format!("{name} is on")),
        Action::On => server.power_on().await.map(|()| format!("{name} is on")),
        Action::Off => server.power_off().await.map(|()| format!("{name} is off")),
        Action::First if !server.is_on().await => bail!("{name} is off; ./mgmt.sh host {name} on switches it on"),
        Action::First => Ok(server.first_process().await?.to_string()),
    }
}

/// Sends a request to a running sandbox, and returns the answer.
///
/// # Errors
/// When no sandbox with servers is up, or the request fails.
pub async fn request(folder: &Path, action: Action, name: &str) -> anyhow::Result<String> {
    let mut stream = match UnixStream::connect(socket(folder)).await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            bail!(
                "no sandbox with servers is up, or it is still starting; simulated hosts are broken by a ConfigMap, see \
                 crates/testing/hostsim/README.md"
            )
        }
        result => result?,
    };
    stream.write_all(format!("{action:?} {name}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.strip_prefix(ERROR_PREFIX) {
        Some(why) => bail!(why.to_owned()),
        None => Ok(answer),
    }
}
