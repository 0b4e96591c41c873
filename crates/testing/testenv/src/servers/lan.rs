//! The rack's LAN: a bridge, and a virtual network card for each server.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use tokio::process::Command;

use crate::command::run;

/// The rack's own address on the LAN: the servers' gateway, and the address on which the management cluster listens for
/// them.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Prefix length of the LAN.
pub(crate) const PREFIX: u8 = 24;
const BRIDGE: &str = "lan0";

/// Address of the server with this number.
pub(crate) fn address(number: u8) -> Ipv4Addr {
    let [a, b, c, _] = GATEWAY.octets();
    Ipv4Addr::new(a, b, c, number)
}

/// Makes the LAN, in place of one that was left there.
///
/// # Errors
/// When the bridge cannot be made.
pub(crate) async fn make() -> Result<()> {
    // A start that failed in this network may have left it.
    let _ = delete().await;
    ip(&["link", "add", BRIDGE, "type", "bridge"]).await?;
    ip(&["address", "add", &format!("{GATEWAY}/{PREFIX}"), "dev", BRIDGE]).await?;
    ip(&["link", "set", BRIDGE, "up"]).await
}

/// Removes the LAN.
///
/// # Errors
/// When there is none, or it cannot be removed.
pub(crate) async fn delete() -> Result<()> {
    ip(&["link", "delete", BRIDGE]).await
}

/// Connects a server's network card to the LAN. `process` is process 1 of the server.
///
/// # Errors
/// When the card cannot be made.
pub(crate) async fn plug(number: u8, process: i32) -> Result<()> {
    let (card, address) = (card(number), hardware_address(number));
    let process = process.to_string();
    ip(&["link", "add", &card, "type", "veth", "peer", "name", "eth0", "address", &address, "netns", &process]).await?;
    ip(&["link", "set", &card, "master", BRIDGE, "up"]).await
}

/// Makes a virtual machine's network card, connected to the LAN, and returns its name.
///
/// # Errors
/// When the card cannot be made.
pub(crate) async fn plug_tap(number: u8) -> Result<String> {
    let card = card(number);
    ip(&["tuntap", "add", "dev", &card, "mode", "tap"]).await?;
    ip(&["link", "set", &card, "master", BRIDGE, "up"]).await?;
    Ok(card)
}

/// The hardware address of a server's network card.
pub(crate) fn hardware_address(number: u8) -> String {
    format!("02:00:0a:4d:00:{number:02x}")
}

/// Disconnects a server's network card.
pub(crate) async fn unplug(number: u8) {
    // An error means that the kernel has removed the card with the server's namespace.
    let _ = ip(&["link", "set", &card(number), "down"]).await;
    let _ = ip(&["link", "delete", &card(number)]).await;
}

/// Name of a server's network card outside of the server.
fn card(number: u8) -> String {
    format!("server{number}")
}

async fn ip(arguments: &[&str]) -> Result<()> {
    run(Command::new("ip").args(arguments)).await.map(drop).with_context(|| format!("ip {}", arguments.join(" ")))
}
