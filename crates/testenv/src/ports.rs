//! Free TCP ports.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

/// Below the range that the kernel takes for outgoing connections (32768 and up by default): a port of that range may be
/// free when it is looked for and taken by a client's connection before the server binds it.
const RANGE: std::ops::Range<u16> = 12_000..30_000;

/// Hands out ports that are free on all interfaces, each only once.
#[derive(Default)]
pub(crate) struct Ports {
    given: HashSet<u16>,
}

impl Ports {
    pub(crate) fn next(&mut self) -> Result<u16> {
        let width = u64::from(RANGE.end - RANGE.start);
        for _ in 0..1_000 {
            let port = RANGE.start + u16::try_from(random() % width)?;
            if !self.given.contains(&port) && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
                self.given.insert(port);
                return Ok(port);
            }
        }
        bail!("no free TCP port between {} and {}", RANGE.start, RANGE.end)
    }
}

/// A random number without a generator of our own: std seeds each of its hash states randomly.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
