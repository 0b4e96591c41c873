//! Where traces go.

use clap::Args;
use http::Uri;

/// Path of OTLP for traces, below the base of all signals.
const PATH: &str = "/v1/traces";

/// The endpoint for traces; the variables are those of OpenTelemetry's specification.
#[derive(Args, Clone, Debug, Default)]
pub struct TraceSettings {
    /// Where a collector takes OTLP over HTTP, such as http://collector.example:4318; traces go to /v1/traces below it.
    /// Without an endpoint there are no traces.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = url_or_nothing)]
    otlp_endpoint: Option<String>,
    /// The whole URL that traces are sent to, in place of the endpoint for all signals.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", value_parser = url_or_nothing)]
    otlp_traces_endpoint: Option<String>,
}

impl TraceSettings {
    /// The URL that traces are sent to, if they are.
    pub(crate) fn url(&self) -> Option<String> {
        // As the specification demands, an empty value is none.
        let given = |url: &Option<String>| url.clone().filter(|url| !url.is_empty());
        let below_base = |base: String| format!("{}{PATH}", base.trim_end_matches('/'));
        given(&self.otlp_traces_endpoint).or_else(|| given(&self.otlp_endpoint).map(below_base))
    }
}

fn url_or_nothing(text: &str) -> Result<String, &'static str> {
    let is_url = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.query().is_none()
            // Credentials belong in OTEL_EXPORTER_OTLP_HEADERS: this is logged.
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    };
    if text.is_empty() || text.parse().is_ok_and(|uri| is_url(&uri)) {
        Ok(text.to_owned())
    } else {
        Err("must be a URL with http or https and a host, without user, password and query")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Settings {
        #[command(flatten)]
        traces: TraceSettings,
    }

    fn url(arguments: &[&str]) -> Result<Option<String>, clap::Error> {
        Ok(Settings::try_parse_from([&["operator"], arguments].concat())?.traces.url())
    }

    #[test]
    fn traces_are_off_unless_there_is_an_endpoint() {
        let of = |arguments: &[&str]| url(arguments).expect("parses");
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["--otlp-endpoint", "", "--otlp-traces-endpoint", ""]), None);
        let base = ["--otlp-endpoint", "http://collector:4318/"];
        assert_eq!(of(&base).as_deref(), Some("http://collector:4318/v1/traces"));
        let both = [&base[..], &["--otlp-traces-endpoint", "https://other/here"]].concat();
        assert_eq!(of(&both).as_deref(), Some("https://other/here"), "as it stands there");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for wrong in [
            "collector:4318",
            "grpc://collector:4317",
            "http://",
            "http://user:password@collector",
            "http://a?b",
            "/v1",
        ] {
            assert!(url(&["--otlp-endpoint", wrong]).is_err(), "{wrong}");
        }
    }
}
