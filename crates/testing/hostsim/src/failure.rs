//! Failures of simulated hosts, and the ConfigMap by which a user of the sandbox causes them.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use anyhow::{Context, bail};

/// The usual name of the ConfigMap for [`crate::Site::watch_failures`].
pub const FAILURES_CONFIG_MAP: &str = "hostsim-failures";

/// A way in which a simulated host fails until it is healed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The agent process does not run; the kubelet does. When the host is healed, the agent starts again, registers the
    /// host, and goes on from the current state.
    Silent,
    /// The server is off: neither agent nor kubelet runs, and the Node does not answer. When the host is healed, both go on.
    Off,
    /// The installation script fails. Has no effect on a host that skips the installation.
    Install,
    /// The bootstrap script fails, and is retried with exponential backoff.
    Bootstrap,
    /// Jobs of the operator fail.
    Job,
    /// The kubelet reports the Node as not ready.
    NodeNotReady,
    /// Release takes this much longer than usual.
    SlowCleanup(Duration),
    /// Release never ends.
    HangingCleanup,
    /// The agent is stopped and its `ByoHost` deleted, as when an administrator removes the host. When the host is
    /// healed, the agent starts and registers the host again.
    Unregistered,
}

impl Failure {
    /// Whether the agent process does not run.
    pub(crate) fn stops_agent(&self) -> bool {
        matches!(self, Self::Silent | Self::Off | Self::Unregistered)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("silent"),
            Self::Off => f.write_str("off"),
            Self::Install => f.write_str("install"),
            Self::Bootstrap => f.write_str("bootstrap"),
            Self::Job => f.write_str("job"),
            Self::NodeNotReady => f.write_str("node-not-ready"),
            Self::SlowCleanup(extra) => write!(f, "slow-cleanup={}ms", extra.as_millis()),
            Self::HangingCleanup => f.write_str("hanging-cleanup"),
            Self::Unregistered => f.write_str("unregistered"),
        }
    }
}

impl FromStr for Failure {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        Ok(match text {
            "silent" => Self::Silent,
            "off" => Self::Off,
            "install" => Self::Install,
            "bootstrap" => Self::Bootstrap,
            "job" => Self::Job,
            "node-not-ready" => Self::NodeNotReady,
            "hanging-cleanup" => Self::HangingCleanup,
            "unregistered" => Self::Unregistered,
            _ => match text.split_once('=') {
                Some(("slow-cleanup", time)) => Self::SlowCleanup(duration(time)?),
                _ => bail!(
                    "unknown failure {text:?}; known are silent, off, install, bootstrap, job, node-not-ready, \
                     slow-cleanup=<time, such as 180s>, hanging-cleanup, unregistered"
                ),
            },
        })
    }
}

/// Reads a duration of one number and one unit: `500ms`, `180s`, `5m`, `1h`.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().with_context(|| format!("{text:?} is not a time such as 180s"))?;
    let unit = &text[digits.len()..];
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => bail!("{text:?} has no unit of ms, s, m or h"),
    };
    Ok(Duration::from_millis(milliseconds.with_context(|| format!("{text:?} is too long"))?))
}

/// Reads the data of the ConfigMap: failures by the name of the host. Invalid entries are logged and left out, so that
/// a typing error does not heal the other hosts.
pub(crate) fn read_config_map(data: &BTreeMap<String, String>) -> BTreeMap<String, Failure> {
    let mut failures = BTreeMap::new();
    for (host, text) in data {
        match text.parse() {
            Ok(failure) => {
                failures.insert(host.clone(), failure);
            }
            Err(error) => tracing::warn!(%host, %error, "failure of a simulated host not understood"),
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_reads_what_it_prints() {
        for failure in [
            Failure::Silent,
            Failure::Off,
            Failure::Install,
            Failure::Bootstrap,
            Failure::Job,
            Failure::NodeNotReady,
            Failure::SlowCleanup(Duration::from_millis(1500)),
            Failure::HangingCleanup,
            Failure::Unregistered,
        ] {
            assert_eq!(failure.to_string().parse::<Failure>().unwrap(), failure);
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!("slow-cleanup=180s".parse::<Failure>().unwrap(), Failure::SlowCleanup(Duration::from_secs(180)));
        assert_eq!(" slow-cleanup=5m ".parse::<Failure>().unwrap(), Failure::SlowCleanup(Duration::from_secs(300)));
        for wrong in [
            "slow-cleanup",
            "slow-cleanup=5",
            "slow-cleanup=s",
            "slow-cleanup=-5s",
            "slow-cleanup=99999999999999999999h",
        ] {
            assert!(wrong.parse::<Failure>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_typing_error_leaves_the_other_entries() {
        let data = BTreeMap::from([("a".to_owned(), "silnet".to_owned()), ("b".to_owned(), "silent\n".to_owned())]);
        assert_eq!(read_config_map(&data), BTreeMap::from([("b".to_owned(), Failure::Silent)]));
    }
}
