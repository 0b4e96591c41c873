//! Logs on stderr, one line per event, as text or JSON.

use std::{any::Any, fmt, str::FromStr};

use anyhow::Context as _;
use tracing_subscriber::{EnvFilter, filter::Directive, layer::SubscriberExt, util::SubscriberInitExt};

/// Format of the log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line, for log collectors.
    #[default]
    Json,
    /// For people.
    Text,
}

impl FromStr for Format {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => anyhow::bail!("unknown log format {text:?}: json or text"),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

/// Targets that may log secrets. kube logs an answer that it cannot decode as a whole, at level warn, and an answer may
/// be a Secret; nothing is lost, as what it logs as an error it returns too. hyper and rustls log addresses at level
/// trace, which may be from a Secret. These directives come last, so that no filter overrides them.
const NEVER_LOGGED: [&str; 4] = ["kube_client::client=off", "hyper_util=info", "hyper=info", "rustls=info"];

/// Starts logging for the process; call once, first of all. `filter` has the syntax of `RUST_LOG`
/// (`info`, `debug,kube=info`). Panics are logged too, in the same format.
///
/// Errors if the filter cannot be parsed or logging was started before.
pub fn init(format: Format, filter: &str) -> anyhow::Result<()> {
    let registry = tracing_subscriber::registry().with(guarded(filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        Format::Text => registry.with(lines.with_ansi(false)).try_init(),
    }
    .context("logging was started before")?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, cause = panic_message(panic.payload()), "panic");
    }));
    Ok(())
}

/// The message of a panic.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn guarded(filter: &str) -> anyhow::Result<EnvFilter> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("log filter {filter:?}"))?;
    NEVER_LOGGED.iter().try_fold(filter, |filter, never| Ok(filter.add_directive(never.parse::<Directive>()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_filter_turns_on_the_lines_that_hold_answers() {
        for filter in ["trace", "kube_client=trace", "kube_client::client=trace"] {
            let filter = guarded(filter).expect("parses").to_string();
            assert!(filter.contains("kube_client::client=off"), "{filter}");
            assert!(!filter.contains("kube_client::client=trace"), "{filter}");
            assert!(filter.contains("hyper_util=info"), "{filter}");
        }
        assert!(guarded("not a [filter").is_err());
    }

    #[test]
    fn format_round_trips() {
        for format in [Format::Json, Format::Text] {
            assert_eq!(format.to_string().parse::<Format>().expect("parses"), format);
        }
    }
}
