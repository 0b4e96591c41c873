//! Switches servers of a running sandbox on and off, for `mgmt.sh host`: a line over a socket in the state folder, such as
//! `off target-1`, and a line back.

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

/// What can be done with a server.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Action {
    /// Switch it on.
    On,
    /// Cut its power.
    Off,
    /// Print the number of its first process, for nsenter.
    First,
}

const REFUSED: &str = "error: ";

fn socket(folder: &Path) -> PathBuf {
    folder.join("control")
}

/// How long somebody who has come may take to say something.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the socket.
///
/// # Errors
/// When it cannot be made; a path of more than some 100 characters is too long for one.
pub fn open(folder: &Path) -> anyhow::Result<UnixListener> {
    let path = socket(folder);
    // One that was killed leaves it.
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(&path).with_context(|| format!("cannot listen at {}", path.display()))
}

/// Answers until it is dropped.
pub async fn serve(listener: &UnixListener, servers: &[Arc<Server>]) -> Infallible {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let mut line = String::new();
        // Whoever goes away without a word has nothing to be told.
        if let Ok(Ok(_)) = timeout(PATIENCE, BufReader::new(&mut stream).read_line(&mut line)).await {
            let answer = match act(line.trim(), servers).await {
                Ok(answer) => answer,
                Err(error) => format!("{REFUSED}{error:#}"),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }
}

async fn act(line: &str, servers: &[Arc<Server>]) -> anyhow::Result<String> {
    let (action, name) = line.split_once(' ').unwrap_or((line, ""));
    let names = || servers.iter().map(|server| server.name()).collect::<Vec<_>>().join(", ");
    let server = servers.iter().find(|server| server.name() == name);
    let server = server.with_context(|| format!("there is no server {name}; there are {}", names()))?;
    let action = Action::from_str(action, true).map_err(anyhow::Error::msg)?;
    match action {
        Action::On => server.power_on().await.map(|()| format!("{name} is on")),
        Action::Off => server.power_off().await.map(|()| format!("{name} is off")),
        Action::First => Ok(server.first().await?.to_string()),
    }
}

/// Asks a running sandbox.
///
/// # Errors
/// When no sandbox with servers is up, or it refuses.
pub async fn ask(folder: &Path, action: Action, name: &str) -> anyhow::Result<String> {
    let mut stream = match UnixStream::connect(socket(folder)).await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            bail!(
                "no sandbox with servers is up, or it is still starting; simulated hosts are broken by a ConfigMap, see crates/hostsim/README.md"
            )
        }
        result => result?,
    };
    stream.write_all(format!("{action:?} {name}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.strip_prefix(REFUSED) {
        Some(why) => bail!(why.to_owned()),
        None => Ok(answer),
    }
}
