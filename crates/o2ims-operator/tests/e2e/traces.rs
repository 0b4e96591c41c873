//! The trace of a request, as OpenTelemetry's Collector takes it from both operators.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::names::focom;
use sandbox::{OperatorOptions, Stack, StackOptions};
use serde_json::json;
use testenv::tools::{Tool, tool};
use tokio::process::{Child, Command};

use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Tenant, alone_with, patient, wait};

pub fn scenarios() -> Vec<Scenario> {
    vec![alone_with("a_request_is_one_trace_of_both_operators", with_traces, one_trace).slow()]
}

/// Where the collector listens; the scenario has a network of its own.
const ADDRESS: &str = "127.0.0.1:4318";
const NAMESPACE: &str = "traced";

fn with_traces(options: StackOptions) -> StackOptions {
    let mut options = patient(options);
    options.operator.arguments.extend(endpoint());
    options
}

fn endpoint() -> [String; 2] {
    ["--otlp-endpoint".to_owned(), format!("http://{ADDRESS}")]
}

/// A running collector. Dropping this kills it.
struct Collector {
    log: PathBuf,
    _process: Child,
}

impl Collector {
    /// Starts the collector, with files in this folder.
    async fn start(folder: &Path) -> anyhow::Result<Self> {
        let program = tool(Tool::Collector, |line| eprintln!("{line}")).await?;
        let (config, log) = (folder.join("collector.yaml"), folder.join("collector.log"));
        let settings = json!({
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": ADDRESS}}}},
            "exporters": {"debug": {"verbosity": "detailed", "use_internal_logger": false}},
            "service": {
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}},
                "telemetry": {"metrics": {"level": "none"}},
            },
        });
        std::fs::write(&config, settings.to_string())?;
        let output = std::fs::File::create(&log)?;
        let process = Command::new(program)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .context("starting the collector")?;
        Ok(Self { log, _process: process })
    }

    /// Waits until it has printed a span of each of these names. It writes to a file, so this looks again and again.
    async fn until(&self, names: &[&str]) -> anyhow::Result<Vec<Printed>> {
        let deadline = tokio::time::Instant::now() + SOON;
        let mut pace = tokio::time::interval(Duration::from_millis(200));
        loop {
            pace.tick().await;
            let text = std::fs::read_to_string(&self.log).context("reading the collector's log")?;
            // An empty line ends what it prints of one request; what comes after the last one may be half written.
            let spans = text.rsplit_once("\n\n").map_or_else(Vec::new, |(whole, _)| printed(whole));
            if names.iter().all(|name| spans.iter().any(|span| span.field("Name") == *name)) {
                return Ok(spans);
            }
            let in_time = tokio::time::Instant::now() < deadline;
            ensure!(in_time, "not each of {names:?} was printed by the collector:\n{text}");
        }
    }
}

/// A span as the collector prints it.
#[derive(Clone, Debug, Default)]
struct Printed {
    service: String,
    fields: BTreeMap<String, String>,
}

impl Printed {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// The spans in the collector's output: lines `Name : value` after a line `Span #0`, and `-> key: Str(value)` for attributes.
fn printed(text: &str) -> Vec<Printed> {
    let (mut spans, mut service) = (Vec::<Printed>::new(), String::new());
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("-> service.name: Str(") {
            name.trim_end_matches(')').clone_into(&mut service);
        } else if line.starts_with("Span #") {
            spans.push(Printed { service: service.clone(), ..Printed::default() });
        } else if let (Some(span), Some((name, value))) = (spans.last_mut(), line.split_once(':')) {
            span.fields.entry(name.trim().to_owned()).or_insert_with(|| value.trim().to_owned());
        }
    }
    spans
}

async fn one_trace(stack: &mut Stack) -> Outcome {
    let collector = Collector::start(stack.management.dir()).await?;
    let mut options = OperatorOptions::new(sandbox::program("focom-operator")?);
    options.arguments =
        ["--lease-duration-seconds".to_owned(), "90".to_owned()].into_iter().chain(endpoint()).collect();
    stack.start_focom(&options).await?;
    let tenant = Tenant::new(stack, NAMESPACE, 2).await?;
    let api: Api<FocomProvisioningRequest> = Api::namespaced(stack.management.admin(), NAMESPACE);
    let parameters = tenant.request("core", "core", &[1], &[2])["spec"]["templateParameters"].clone();
    let request = json!({
        "apiVersion": "focom.nephio.org/v1alpha1", "kind": "FocomProvisioningRequest",
        "metadata": {"name": "core", "namespace": NAMESPACE},
        "spec": {
            "oCloudId": focom::LOCAL_O_CLOUD, "oCloudNamespace": NAMESPACE, "templateName": "byoh-workload-cluster",
            "templateVersion": "v1.0.0", "templateParameters": parameters,
        },
    });
    let request = api.patch("core", &PatchParams::apply("user"), &Patch::Apply(&request)).await?;
    let is_fulfilled = |request: Option<&FocomProvisioningRequest>| {
        request.is_some_and(|request| request.remote_state() == Some("fulfilled"))
    };
    wait(api.clone(), "core", "request core to be fulfilled", CLUSTER, is_fulfilled).await?;
    let remote = tenant.requests().get(&focom::remote_request("core")).await?;
    collector.until(&["ProvisioningRequest"]).await?;
    api.delete("core", &DeleteParams::default()).await?;
    let is_gone = |request: Option<&FocomProvisioningRequest>| request.is_none();
    wait(api, "core", "request core to be gone", CLUSTER, is_gone).await?;

    let spans = collector.until(&["FocomProvisioningRequest deletion", "ProvisioningRequest deletion"]).await?;
    let trace = request.uid().context("no UID")?.replace('-', "");
    let foreign: Vec<_> = spans.iter().filter(|span| span.field("Trace ID") != trace).collect();
    ensure!(foreign.is_empty(), "not in the trace {trace} of the request: {foreign:?}");
    let name_of = |id: &str| spans.iter().find(|span| span.field("ID") == id).map_or("-", |span| span.field("Name"));
    let mut tree: Vec<_> = spans
        .iter()
        .map(|span| (span.service.as_str(), name_of(span.field("Parent ID")), span.field("Name")))
        .collect();
    tree.sort_unstable();
    let (root, pr) = ("FocomProvisioningRequest", "ProvisioningRequest");
    let mut expected = [
        ("focom-operator", "-", root),
        ("focom-operator", root, "FocomProvisioningRequest deletion"),
        ("focom-operator", root, "OCloudAvailable"),
        ("focom-operator", root, "Synced"),
        ("focom-operator", root, "Validated"),
        ("o2ims-operator", root, pr),
        ("o2ims-operator", pr, "Cluster"),
        ("o2ims-operator", pr, "HostsReserved"),
        ("o2ims-operator", pr, "ProvidersAvailable"),
        ("o2ims-operator", pr, "ProvisioningRequest deletion"),
        ("o2ims-operator", pr, "Validated"),
        ("o2ims-operator", "Cluster", "ControlPlaneReady"),
        ("o2ims-operator", "Cluster", "WorkersReady"),
    ];
    expected.sort_unstable();
    ensure!(tree == expected, "the spans, as service, parent and name, are\n{tree:#?}\ninstead of\n{expected:#?}");

    let whole = spans.iter().find(|span| span.field("Name") == pr).context("it was there")?;
    let created =
        remote.creation_timestamp().context("no creation")?.0.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string();
    ensure!(whole.field("Start time") == created, "the request began at {created}: {whole:?}");
    ensure!(
        whole.field("-> o2ims.cluster.name") == "Str(core)" && whole.field("-> o2ims.hosts") == "Int(2)",
        "{whole:?}"
    );
    let failed: Vec<_> = spans.iter().filter(|span| span.field("Status code") != "Unset").collect();
    ensure!(failed.is_empty(), "{failed:?}");
    Ok(())
}
