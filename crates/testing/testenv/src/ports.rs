//! Free TCP ports.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

/// The ports to choose from. They are below the range that the kernel uses for outgoing connections (from 32768 by
/// default): a connection could take a port of that range before the server binds it.
const RANGE: std::ops::Range<u16> = 12_000..30_000;

/// Gives out ports that are free on all interfaces, each only once.
#[derive(Default)]
pub(crate) struct Ports {
    given: HashSet<u16>,
}

impl Ports {
    /// A random free port.
    ///
    /// # Errors
    /// When none is found.
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

/// A random number: std seeds each of its hash states randomly.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
