//! What the operator costs with thousands of requests and hosts, on a real API server without the controllers of Cluster
//! API and BYOH: the operator makes every cluster as far as it can, and then has nothing to do.
//!
//! The operator runs in a process of its own, on one worker thread. A task on that thread wakes every millisecond and
//! notes how much processor time the other tasks took in between: for so long a timer had to wait for them.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use o2ims_operator::operator::Settings;
use o2ims_types::ProvisioningRequest;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use sandbox::installation::{Hosts, install_product};
use serde_json::{Value, json};
use testenv::{ManagementCluster, Options};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// Namespace of the requests.
pub const NAMESPACE: &str = "bench";
/// Hosts of each request: one master and two workers.
const HOSTS: u32 = 3;
/// How many objects are written at the same time.
const SIDE_BY_SIDE: usize = 16;
/// How many requests are touched to measure a reconcile that has nothing to do.
const TOUCHED: u32 = 50;
/// How long anything may take that is waited for, at ten thousand requests.
const LIMIT: Duration = Duration::from_secs(3600);
/// The operator has nothing to do any more when it has written nothing for this time.
const QUIET: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct Arguments {
    /// Numbers of requests, growing; there are three hosts for each.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 10_000])]
    requests: Vec<u32>,
    /// How many of the requests are carried out; further ones name a template that does not exist, and wait.
    #[arg(long, default_value_t = 1000)]
    carried_out: u32,
}

/// Starts an API server, measures with more and more requests, and stops it.
pub async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(arguments.requests.is_sorted(), "--requests must grow");
    on_api_server(async |cluster| measure(cluster, arguments).await).await
}

/// Starts an API server without the controllers of Cluster API and BYOH, prints what is measured on it, and stops it.
pub async fn on_api_server(
    measure: impl AsyncFnOnce(&ManagementCluster) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let options = Options { cluster_api: false, byoh: false, ..Options::default() };
    let cluster = ManagementCluster::start(options, |line| eprintln!("{line}")).await?;
    let measured = tokio::select! {
        measured = measure(&cluster) => measured,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into).and(Err(anyhow::anyhow!("interrupted"))),
    };
    let stopped = cluster.stop().await.context("stopping");
    println!("{}", measured?);
    stopped
}

/// Installs the product without the controllers of Cluster API and BYOH, and returns the operator's kubeconfig.
pub async fn install(cluster: &ManagementCluster) -> anyhow::Result<PathBuf> {
    cluster.install_all_kinds().await?;
    install_product(cluster, Hosts::Simulated).await?;
    // No control plane becomes Ready here: with the limits of the shipped template, every request would fail in time.
    let patient = sandbox::installation::TEMPLATE.replace("10m", "1000h");
    cluster.apply_yaml(&patient).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let cni = json!({
        "apiVersion": "addons.cluster.x-k8s.io/v1beta2", "kind": "ClusterResourceSet",
        "metadata": {"name": "cni", "namespace": NAMESPACE},
        "spec": {"clusterSelector": {"matchLabels": {"cni": "bench"}}, "resources": [{"kind": "ConfigMap", "name": "cni"}]},
    });
    cluster.apply_yaml(&serde_json::to_string(&json!({"kind": "List", "items": [namespace, cni]}))?).await?;
    let kubeconfig = cluster.dir().join("operator.kubeconfig");
    cluster.service_account_kubeconfig("o2ims-system", "o2ims-operator", &kubeconfig).await?;
    Ok(kubeconfig)
}

async fn measure(cluster: &ManagementCluster, arguments: &Arguments) -> anyhow::Result<String> {
    let kubeconfig = install(cluster).await?;
    let mut rows = Vec::new();
    let mut made = 0;
    for &number in &arguments.requests {
        eprintln!("{number} requests, {} hosts: applying ...", number * HOSTS);
        make(cluster, made + 1..=number, arguments.carried_out).await?;
        let new = number - made;
        made = number;
        let mut row = vec![number.to_string()];
        row.extend(work(cluster, &kubeconfig, number, new).await?);
        row.extend(rest(cluster, &kubeconfig, number, arguments.carried_out).await?);
        eprintln!("{}", row.join(" | "));
        rows.push(row);
    }
    Ok(print(&rows))
}

const COLUMNS: [&str; 10] = [
    "requests",
    "new ones, all at once",
    "timers waited at most, meanwhile (ms)",
    "seconds until the operator rests",
    "memory then (MiB)",
    "first listing (s)",
    "timers waited at most in it (ms)",
    "memory after it (MiB)",
    "a reconcile with nothing to do (ms)",
    "timers waited at most in these (ms)",
];

fn print(rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text =
        "\nThe operator with many requests, on an API server without the controllers of Cluster API and BYOH\n\n"
            .to_owned();
    text += &line(&COLUMNS.map(ToOwned::to_owned));
    text += "|";
    text += &"---|".repeat(COLUMNS.len());
    text += "\n";
    for row in rows {
        text += &line(row);
    }
    text + note_of_debug_build()
}

/// A sentence below what was measured.
pub fn note_of_debug_build() -> &'static str {
    if cfg!(debug_assertions) { "\nA debug build: times and memory say nothing about a release.\n" } else { "" }
}

/// The operator starts with `new` requests that it has not seen.
async fn work(cluster: &ManagementCluster, kubeconfig: &PathBuf, number: u32, new: u32) -> anyhow::Result<[String; 4]> {
    let operator = Operator::start(cluster, kubeconfig).await?;
    let begun = Instant::now();
    let rests = operator.until_it_rests(number).await?;
    let took = rests.duration_since(begun).as_secs_f64();
    let row = [new.to_string(), operator.held(), format!("{took:.0}"), operator.memory("VmRSS")?];
    operator.stop().await?;
    Ok(row)
}

/// The operator starts with nothing to do, and then 50 requests are touched, one after the other. They are among those that are carried out.
async fn rest(
    cluster: &ManagementCluster,
    kubeconfig: &PathBuf,
    number: u32,
    carried_out: u32,
) -> anyhow::Result<[String; 5]> {
    let begun = Instant::now();
    let operator = Operator::start(cluster, kubeconfig).await?;
    let listed = begun.elapsed().as_secs_f64();
    operator.until_it_rests(number).await?;
    let (held, memory) = (operator.held(), operator.memory("VmRSS")?);
    operator.forget_held();
    let before = operator.reconciles().await?;
    let requests: Api<ProvisioningRequest> = Api::namespaced(cluster.admin(), NAMESPACE);
    for touched in 0..TOUCHED {
        let name = name(1 + touched * (number.min(carried_out) - 1) / TOUCHED);
        let patch = json!({"metadata": {"annotations": {"bench": format!("{number}-{touched}")}}});
        requests.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        let wanted = before.count + u64::from(touched) + 1;
        let done = async {
            while operator.reconciles().await?.count < wanted {
                sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(())
        };
        timeout(Duration::from_secs(60), done).await.context("a request that was touched is not reconciled")??;
    }
    let after = operator.reconciles().await?;
    #[allow(clippy::cast_precision_loss, reason = "few")]
    let each = 1000.0 * (after.seconds - before.seconds) / (after.count - before.count) as f64;
    let row = [format!("{listed:.1}"), held, memory, format!("{each:.3}"), operator.held()];
    operator.stop().await?;
    Ok(row)
}

fn name(number: u32) -> String {
    format!("site-{number:05}")
}

/// Makes requests and their hosts.
pub async fn make(cluster: &ManagementCluster, numbers: RangeInclusive<u32>, carried_out: u32) -> anyhow::Result<()> {
    make_hosts(cluster, numbers.clone()).await?;
    let requests: Api<ProvisioningRequest> = Api::namespaced(cluster.admin(), NAMESPACE);
    stream::iter(numbers)
        .map(|number| {
            let requests = requests.clone();
            async move {
                requests.create(&PostParams::default(), &request(number, number <= carried_out)?).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(SIDE_BY_SIDE)
        .try_collect::<()>()
        .await
}

/// Makes the hosts of requests, which look as if their agents had registered them.
pub async fn make_hosts(cluster: &ManagementCluster, numbers: RangeInclusive<u32>) -> anyhow::Result<()> {
    let hosts = sandbox::inventory::hosts(cluster.admin(), NAMESPACE);
    stream::iter(numbers.flat_map(|number| (0..HOSTS).map(move |part| number * HOSTS + part)))
        .map(|number| make_host(hosts.clone(), number))
        .buffer_unordered(SIDE_BY_SIDE)
        .try_collect::<()>()
        .await
}

async fn make_host(hosts: Api<DynamicObject>, number: u32) -> anyhow::Result<()> {
    let name = format!("host-{number}");
    let host: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "infrastructure.cluster.x-k8s.io/v1beta1", "kind": "ByoHost",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"host-id": number.to_string()}},
        "spec": {},
    }))?;
    hosts.create(&PostParams::default(), &host).await?;
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number);
    let status = json!({"status": {
        "hostinfo": {"architecture": "amd64", "osimage": "Debian GNU/Linux 12 (bookworm)", "osname": "linux"},
        "network": [
            {"connected": true, "ipAddrs": ["127.0.0.1/8", "::1/128"], "macAddr": "", "networkInterfaceName": "lo"},
            {"connected": true, "ipAddrs": [format!("{address}/8")], "isDefault": true, "macAddr": "02:00:00:00:00:01",
             "networkInterfaceName": "eth0"},
        ],
        "conditions": [{
            "type": "K8sNodeBootstrapSucceeded", "status": "False", "reason": "WaitingForMachineRefToBeAssigned",
            "severity": "Info", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    }});
    hosts.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// A request that is carried out, or waits for a template that does not exist.
pub fn request(number: u32, is_carried_out: bool) -> anyhow::Result<ProvisioningRequest> {
    let host = |part: u32| {
        let id = number * HOSTS + part;
        json!({"hostId": id, "hostName": format!("host-{id}")})
    };
    let request: Value = json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest",
        "metadata": {"name": name(number), "namespace": NAMESPACE},
        "spec": {
            "templateName": "byoh-workload-cluster",
            "templateVersion": if is_carried_out { "v1.0.0" } else { "none" },
            "templateParameters": {
                "clusterName": name(number), "hosts": {"masters": [host(0)], "workers": [host(1), host(2)]},
            },
        },
    });
    Ok(serde_json::from_value(request)?)
}

/// The operator in a process of its own.
pub struct Operator {
    child: Child,
    port: u16,
    /// Longest time that the thread was held, in microseconds.
    held: Arc<AtomicU64>,
}

/// Reconciles of requests.
struct Reconciles {
    count: u64,
    seconds: f64,
}

impl Operator {
    /// Starts it, and waits until it has listed everything and leads.
    pub async fn start(cluster: &ManagementCluster, kubeconfig: &PathBuf) -> anyhow::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?.port();
        let log = std::fs::File::options().create(true).append(true).open(cluster.dir().join("operator.log"))?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["operator", "--log-format", "text", "--log-level", "warn"])
            .args(["--admin-address", &format!("127.0.0.1:{port}")])
            .env("KUBECONFIG", kubeconfig)
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let held = Arc::new(AtomicU64::new(0));
        let longest = Arc::clone(&held);
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                longest.fetch_max(line.parse().unwrap_or_default(), Ordering::Relaxed);
            }
        });
        let mut operator = Self { child, port, held };
        let begun = Instant::now();
        while !operator.is_ready().await {
            if let Some(ended) = operator.child.try_wait()? {
                bail!("the operator ended with {ended}");
            }
            ensure!(begun.elapsed() < LIMIT, "the operator does not become ready");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(operator)
    }

    async fn is_ready(&self) -> bool {
        let leads = self.get("/metrics").await.is_ok_and(|text| text.contains("\no2ims_leader 1"));
        leads && self.get("/readyz").await.is_ok()
    }

    /// Waits until every request was reconciled and nothing has happened for a while. Returns since when.
    pub async fn until_it_rests(&self, requests: u32) -> anyhow::Result<Instant> {
        let (mut last, mut since) = (0, Instant::now());
        let deadline = Instant::now() + LIMIT;
        loop {
            ensure!(Instant::now() < deadline, "the operator does not come to rest");
            let count = self.reconciles().await?.count;
            if count != last {
                (last, since) = (count, Instant::now());
            }
            if count >= u64::from(requests) && since.elapsed() > QUIET {
                return Ok(since);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn reconciles(&self) -> anyhow::Result<Reconciles> {
        let text = self.get("/metrics").await?;
        let value = |name: &str| {
            let series = format!("o2ims_reconcile_duration_seconds_{name}{{controller=\"provisioningrequest\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&series)).map_or("0", str::trim).to_owned()
        };
        Ok(Reconciles { count: value("count").parse()?, seconds: value("sum").parse()? })
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        if answer.split(' ').nth(1) != Some("200") {
            bail!("{path}: {}", answer.lines().next().unwrap_or_default());
        }
        Ok(answer)
    }

    /// Longest time that the thread was held since the last call of [`Operator::forget_held`], in milliseconds.
    pub fn held(&self) -> String {
        #[allow(clippy::cast_precision_loss, reason = "seconds at most")]
        let milliseconds = self.held.load(Ordering::Relaxed) as f64 / 1000.0;
        format!("{milliseconds:.1}")
    }

    /// See [`Operator::held`].
    pub fn forget_held(&self) {
        self.held.store(0, Ordering::Relaxed);
    }

    /// A figure of `/proc/<pid>/status`, in MiB.
    fn memory(&self, what: &str) -> anyhow::Result<String> {
        let id = self.child.id().context("the operator has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let kibibytes =
            status.lines().find_map(|line| line.strip_prefix(what)?.split_whitespace().nth(1)?.parse::<u64>().ok());
        Ok((kibibytes.context("no such figure")? / 1024).to_string())
    }

    /// Stops it, and fails unless it ends well.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.child.id().context("the operator has ended")?;
        let pid = Pid::from_raw(i32::try_from(id)?).context("a process id")?;
        kill_process(pid, Signal::TERM)?;
        let ended =
            timeout(Duration::from_secs(30), self.child.wait()).await.context("the operator does not stop")??;
        ensure!(ended.success(), "the operator ended with {ended}");
        Ok(())
    }
}

/// Runs the operator on one thread, and prints each new longest time that the thread was held, in microseconds.
pub fn operator(settings: Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        tokio::spawn(note_longest_hold());
        tokio::spawn(o2ims_operator::operator::run(settings)).await?
    })
}

async fn note_longest_hold() {
    loop {
        let before = processor_time();
        sleep(Duration::from_millis(1)).await;
        let held = processor_time().saturating_sub(before);
        if held > Duration::from_millis(2) {
            let _ = writeln!(std::io::stdout(), "{}", held.as_micros());
        }
    }
}

/// Of the calling thread.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
