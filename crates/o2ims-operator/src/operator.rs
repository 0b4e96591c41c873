//! The operator as a process: settings, and what runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use kube::{Client, ResourceExt as _};
use operator_kit::admin::{ReadinessChecks, Server};
use operator_kit::cache::SyncState;
use operator_kit::client::{self, Limits};
use operator_kit::controller::{Controller, Trigger};
use operator_kit::events::Events;
use operator_kit::metrics::Metrics;
use operator_kit::process::Process;
use operator_kit::process::{Elector, LeaseSettings};
use operator_kit::telemetry;

use crate::provisioning_request::expect::Expectations;
use crate::provisioning_request::rivals::Locks;
use crate::provisioning_request::{Context, leftovers, reconcile};
use crate::watches;

const NAME: &str = "o2ims-operator";

/// Turns ProvisioningRequests into Cluster API clusters on exactly the hosts that were asked for.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
pub struct Settings {
    /// Where /livez, /readyz and /metrics answer.
    #[arg(long, env = "ADMIN_ADDRESS", default_value = "0.0.0.0:8080")]
    pub admin_address: SocketAddr,
    /// Form of the logs: json or text.
    #[arg(long, env = "LOG_FORMAT", default_value_t = telemetry::Format::Json)]
    pub log_format: telemetry::Format,
    /// What is logged, as for tracing's EnvFilter, such as info or o2ims_operator=debug,info.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// Namespace of the Lease that decides which replica works.
    #[arg(long, env = "POD_NAMESPACE", default_value = o2ims_types::names::OPERATOR_NAMESPACE)]
    pub lease_namespace: String,
    /// Seconds after which another replica takes over from one that does not answer; this one ends after two thirds of them.
    #[arg(long, env = "LEASE_DURATION_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(5..=600))]
    pub lease_duration_seconds: u64,
    /// How many requests are worked on at once.
    #[arg(long, env = "CONCURRENCY", default_value_t = 16)]
    pub concurrency: u16,
    /// Test hook: the reconcile of this request (namespace/name) panics.
    #[arg(long, hide = true)]
    pub test_panic_on: Option<String>,
}

/// Runs until SIGTERM or SIGINT, or until the lease is lost.
///
/// # Errors
/// When the API server cannot be configured or a part of the process ends by itself.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    telemetry::init(settings.log_format, &settings.log_level)?;
    let metrics = Metrics::new(NAME, env!("CARGO_PKG_VERSION"));
    let config = client::infer().await?;
    let client = client::build(config.clone(), NAME, Limits::default(), &metrics)?;
    let lease = LeaseSettings::new(settings.lease_namespace.clone(), NAME)
        .lasting(Duration::from_secs(settings.lease_duration_seconds));
    let lease_client: Client = client::build(config, NAME, Limits::lease(lease.renew_deadline), &metrics)?;
    let events = Events::new(client.clone(), NAME, &lease.identity);
    let elector = Elector::new(lease_client, lease, &metrics);
    let trigger = Trigger::new();
    let prepared = watches::set_up(&client, &metrics, &trigger);

    let gates = ReadinessChecks::new();
    gates.add_watch("provisioningrequests", prepared.root.state());
    let mut controller = Controller::new("provisioningrequest", &prepared.root, &trigger, &metrics)
        .concurrency(settings.concurrency)
        .events(events.clone())
        .when_leading(elector.leadership());
    let mut hosts =
        prepared.host_controller.events(events.clone()).after(prepared.root.state()).when_leading(elector.leadership());
    let mut clusters = prepared
        .cluster_controller
        .events(events.clone())
        .after(prepared.root.state())
        .when_leading(elector.leadership());
    for (name, state) in &prepared.states {
        // A provider that is not installed is told on the requests; it does not make the operator unready.
        let gate = state.clone();
        gates.add(*name, move || *gate.borrow() != SyncState::Syncing);
        controller = controller.after(state.clone());
        hosts = hosts.after(state.clone());
        clusters = clusters.after(state.clone());
    }
    let server = Server::bind(settings.admin_address, gates, metrics).await?;
    tracing::info!(address = %server.address(), "admin endpoints listen");

    let context = Arc::new(Context {
        client,
        watches: prepared.watches,
        expectations: Expectations::default(),
        locks: Locks::new(move |request| trigger.enqueue(request)),
        events,
        panic_on: settings.test_panic_on,
    });
    let forgetting = Arc::clone(&context);
    let root = prepared.root.on_delete(move |request| forgetting.forget(&request.uid().unwrap_or_default()));
    let mut process = Process::new();
    process.service("admin", server.run(process.service_stop()));
    process.service("lease", elector.run(process.service_stop()));
    process.service("watch provisioningrequests", root.run(process.service_stop()));
    for (name, task) in prepared.tasks {
        process.service(format!("watch {name}"), task(process.service_stop()));
    }
    process.work("byohost", hosts.run(process.work_stop(), Arc::clone(&context), leftovers::reconcile_host));
    process.work("cluster", clusters.run(process.work_stop(), Arc::clone(&context), leftovers::reconcile_cluster));
    process.work("provisioningrequest", controller.run(process.work_stop(), context, reconcile));
    process.run().await
}
