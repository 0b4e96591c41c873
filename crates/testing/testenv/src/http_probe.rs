//! Plain HTTP to servers on localhost that have no TLS: etcd, and the managers' health endpoints.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Whether `GET path` answers 200.
pub(crate) async fn answers(port: u16, path: &str) -> bool {
    request(port, &format!("GET {path} HTTP/1.0\r\n\r\n")).await.is_ok()
}

/// Sends a JSON document.
///
/// # Errors
/// When the answer is not 200.
pub(crate) async fn post(port: u16, path: &str, json: &str) -> Result<()> {
    let length = json.len();
    let head = format!("POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    request(port, &(head + json)).await.with_context(|| format!("POST {path} to port {port}"))
}

async fn request(port: u16, text: &str) -> Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(text.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    // "HTTP/1.0 200 OK": the status is the second word.
    if answer.split(|byte| *byte == b' ').nth(1) == Some(b"200".as_slice()) {
        return Ok(());
    }
    bail!("unexpected answer: {}", String::from_utf8_lossy(answer.get(..200).unwrap_or(&answer)))
}
