//! Settings that every operator has, and the parts of the process that are created from them.

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use kube::Client;

use crate::{
    admin::{ReadinessChecks, Server},
    client::{self, Limits},
    events::Events,
    metrics::Metrics,
    process::{lease::LeaseSettings, lease_thread::LeaseThread, process::Process},
    telemetry::{self, Format},
    traces::{TraceExporter, TraceSettings, Traces},
};

/// Command line and environment of the process, to flatten into the settings of an operator.
///
/// An operator sets defaults of its own with `#[command(mut_arg("concurrency", |arg| arg.default_value("256")))]`.
#[derive(Args, Clone, Debug)]
pub struct ProcessSettings {
    /// Where /livez, /readyz and /metrics answer. [::] means all addresses, IPv4 included; without IPv6 it means
    /// 0.0.0.0.
    #[arg(long, env = "ADMIN_ADDRESS", default_value = "[::]:8080")]
    pub admin_address: SocketAddr,
    /// Form of the logs: json or text.
    #[arg(long, env = "LOG_FORMAT", default_value_t = Format::Json)]
    pub log_format: Format,
    /// What is logged, as for tracing's EnvFilter, such as info or debug,kube=info.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// Namespace of the Lease that decides which replica works.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub lease_namespace: String,
    /// Seconds after which another replica takes over from one that does not answer; this one ends after two thirds of
    /// them.
    #[arg(
        long,
        env = "LEASE_DURATION_SECONDS",
        default_value_t = 15,
        value_parser = clap::value_parser!(u64).range(5..=600),
    )]
    pub lease_duration_seconds: u64,
    /// How many requests are worked on at once.
    #[arg(long, env = "CONCURRENCY", default_value_t = 16)]
    pub concurrency: u16,
    /// Where traces go.
    #[command(flatten)]
    pub traces: TraceSettings,
}

/// The parts of the process that every operator has.
pub struct ProcessParts {
    /// Metrics.
    pub metrics: Metrics,
    /// Client of the cluster that the operator runs in.
    pub client: Client,
    /// Publishes events.
    pub events: Events,
    /// Elects the leader, on the Lease that has the operator's name; has to be run as a service.
    pub lease: LeaseThread,
    /// What must hold for `/readyz`; empty so far.
    pub readiness: ReadinessChecks,
    /// The admin endpoint, which listens and does not answer yet; has to be run as a service.
    pub admin: Server,
    /// Where spans are handed over.
    pub traces: Traces,
    /// The tasks of the process: so far what sends the spans, if there is an endpoint for traces.
    pub process: Process,
}

impl ProcessSettings {
    /// Starts logging and creates the parts. Call it once, first of all.
    ///
    /// Errors if the log filter is invalid, no cluster configuration can be used, or the admin address cannot be bound.
    pub async fn start(&self, operator: &'static str, version: &'static str) -> anyhow::Result<ProcessParts> {
        telemetry::init(self.log_format, &self.log_level)?;
        let (mut traces, mut process) = (Traces::default(), Process::new());
        if let Some(url) = self.traces.url() {
            let (to_exporter, exporter) = TraceExporter::new(url, operator, version)?;
            traces = to_exporter;
            process.service("traces", exporter.run(process.service_stop()));
        }
        let metrics = Metrics::new(operator, version);
        let config = client::infer().await?;
        let client = client::build(config.clone(), operator, Limits::default(), &metrics)?;
        let lease = LeaseSettings::new(self.lease_namespace.clone(), operator)
            .lasting(Duration::from_secs(self.lease_duration_seconds));
        let events = Events::new(client.clone(), operator, &lease.identity);
        let limits = Limits::lease(lease.renew_deadline);
        let lease = LeaseThread::start(lease, &metrics, || Ok(client::build(config, operator, limits, &metrics)?))?;
        let readiness = ReadinessChecks::new();
        let admin = Server::bind(self.admin_address, readiness.clone(), metrics.clone()).await?;
        Ok(ProcessParts { metrics, client, events, lease, readiness, admin, traces, process })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    /// An operator.
    #[derive(Parser)]
    #[command(mut_arg("concurrency", |arg| arg.default_value("256")))]
    struct Settings {
        #[command(flatten)]
        process: ProcessSettings,
    }

    #[test]
    fn an_operator_may_have_defaults_of_its_own() {
        let command = Settings::command();
        assert_eq!(command.get_about().map(ToString::to_string).as_deref(), Some("An operator"));
        command.debug_assert();
        let concurrency = |arguments: &[&str]| {
            Settings::try_parse_from([&["operator"], arguments].concat()).expect("parses").process.concurrency
        };
        assert_eq!(concurrency(&[]), 256);
        assert_eq!(concurrency(&["--concurrency", "3"]), 3);
    }

    #[test]
    fn the_default_admin_address_has_all_families() {
        let settings = Settings::try_parse_from(["operator"]).expect("parses");
        assert_eq!(settings.process.admin_address, "[::]:8080".parse().expect("address"));
    }
}
