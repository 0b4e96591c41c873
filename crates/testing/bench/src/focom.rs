//! The costs of an SMO: how long a state of the O-Cloud takes to show at the SMO, how much an O-Cloud that never
//! answers delays the requests for another one, how many requests, how much processor time and memory the operator needs,
//! and how soon each of many requests that are created at once has its first status.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use o2ims_types::{FocomProvisioningRequest, ProvisioningRequest};
use sandbox::waiting::wait;
use sandbox::{Federation, OperatorOptions, StackOptions, focom};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::burst;
use crate::table::{Table, quantiles};
use crate::times::LIMIT;

/// The operator's users, at the SMO's and at an O-Cloud's API server.
const USERS: [&str; 2] =
    ["system:serviceaccount:focom-system:focom-operator", "system:serviceaccount:o2ims-system:smo"];
const NAMESPACE: &str = "bench";
/// Requests to one O-Cloud in one round.
const REQUESTS: u32 = 20;
/// Time between two of them.
const INTERVAL: Duration = Duration::from_millis(150);

#[derive(clap::Args)]
pub struct Arguments {
    /// Number of changes of a state that are measured.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    changes: u32,
    /// Number of rounds of twenty requests, with and without the O-Cloud that never answers.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
    /// Number of requests that are created at once.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    burst: u16,
}

/// Starts an SMO and two O-Clouds, measures, and stops them.
pub async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut site_a = StackOptions::new(sandbox::program("o2ims-operator")?);
    // One of the operators is suspended for a while, and must not lose its lease.
    site_a.operator.arguments = vec!["--lease-duration-seconds".to_owned(), "600".to_owned()];
    let focom = OperatorOptions::new(sandbox::program("focom-operator")?);
    let all = Box::pin(Federation::start(site_a, focom, |line| eprintln!("{line}"))).await?;
    let measured = tokio::select! {
        measured = measure(&all, arguments) => measured,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into).and(Err(anyhow::anyhow!("interrupted"))),
    };
    let stopped = Box::pin(all.stop()).await.context("stopping");
    println!("{}", measured?);
    stopped
}

/// Measures everything, and returns the tables.
async fn measure(all: &Federation, arguments: &Arguments) -> anyhow::Result<String> {
    all.make_namespace(NAMESPACE).await?;
    all.introduce(NAMESPACE).await?;
    let mut text = beside_a_black_hole(all, arguments.rounds).await?;
    text += &cost_of_a_hundred(all).await?;
    text += &burst(all, arguments.burst).await?;
    text += &hop(all, arguments.changes).await?;
    Ok(text)
}

fn requests(all: &Federation) -> Api<FocomProvisioningRequest> {
    Api::namespaced(all.smo.admin(), NAMESPACE)
}

fn request(name: &str, o_cloud: &str, host: u32) -> Value {
    json!({
        "apiVersion": "focom.nephio.org/v1alpha1", "kind": "FocomProvisioningRequest", "metadata": {"name": name},
        "spec": {
            "oCloudId": o_cloud, "oCloudNamespace": NAMESPACE,
            "templateName": "byoh-workload-cluster", "templateVersion": "v1.0.0",
            "templateParameters": {
                "clusterName": name, "hosts": {"masters": [{"hostId": host, "hostName": format!("host-{host}")}]},
            },
        },
    })
}

async fn apply(all: &Federation, name: &str, o_cloud: &str, host: u32) -> anyhow::Result<()> {
    let params = PatchParams::apply("user");
    requests(all).patch(name, &params, &Patch::Apply(&request(name, o_cloud, host))).await?;
    Ok(())
}

/// Waits until `wanted` requests show a state of their O-Clouds, by one watch of all. Counts requests whose name has
/// the prefix `of`. Returns when each showed it.
async fn until_shown(all: &Federation, wanted: usize, of: &str) -> anyhow::Result<HashMap<String, Instant>> {
    let mut shown = HashMap::new();
    let mut changes = watcher(requests(all), watcher::Config::default()).default_backoff().applied_objects().boxed();
    let follow = async {
        while let Some(request) = changes.try_next().await? {
            if request.remote_state().is_some() && request.name_any().starts_with(of) {
                shown.entry(request.name_any()).or_insert_with(Instant::now);
            }
            if shown.len() == wanted {
                return Ok(shown);
            }
        }
        anyhow::bail!("the watch ended")
    };
    tokio::time::timeout(LIMIT, follow).await.context("not all requests show a state in time")?
}

/// Deletes the requests whose name has the prefix `of`, and waits until they are gone.
async fn delete_all(all: &Federation, of: &str) -> anyhow::Result<()> {
    let api = requests(all);
    for request in api.list(&ListParams::default()).await? {
        if request.name_any().starts_with(of) {
            api.delete(&request.name_any(), &DeleteParams::default()).await?;
        }
    }
    let mut poll = tokio::time::interval(Duration::from_millis(100));
    let deadline = Instant::now() + LIMIT;
    while api.list_metadata(&ListParams::default()).await?.iter().any(|left| left.name_any().starts_with(of)) {
        ensure!(Instant::now() < deadline, "requests {of}* are not gone in time");
        poll.tick().await;
    }
    Ok(())
}

/// Twenty requests for one O-Cloud: alone, and beside twenty for an O-Cloud that accepts connections and never answers.
async fn beside_a_black_hole(all: &Federation, rounds: u8) -> anyhow::Result<String> {
    let hole = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = hole.local_addr()?;
    let accept = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((connection, _)) = hole.accept().await {
            kept.push(connection);
        }
    });
    let mut file: Value = serde_saphyr::from_str(&all.kubeconfig_b)?;
    file["clusters"][0]["cluster"]["server"] = json!(format!("https://{address}"));
    focom::introduce(&all.smo, NAMESPACE, "hole", &file.to_string()).await?;
    let mut table = Table::default();
    for round in 0..rounds {
        for with_hole in [round % 2 == 0, round % 2 != 0] {
            let send = async {
                let mut sent = Vec::new();
                // The same interval in both ways, so that the API servers have the same load.
                let mut ticks = tokio::time::interval(INTERVAL);
                for number in 0..REQUESTS {
                    ticks.tick().await;
                    if with_hole {
                        apply(all, &format!("lost-{number}"), "hole", number).await?;
                    }
                    let name = format!("fine-{number}");
                    sent.push((name.clone(), Instant::now()));
                    apply(all, &name, "site-a", number).await?;
                }
                Ok(sent)
            };
            let (words, applied) = tokio::try_join!(until_shown(all, REQUESTS as usize, "fine"), send)?;
            let way = if with_hole { "beside 20 for a black hole" } else { "alone" };
            for (name, at) in applied {
                table.add(way, words.get(&name).context("not shown")?.saturating_duration_since(at));
            }
            eprintln!("{}: {way}", round + 1);
            delete_all(all, "fine").await?;
            delete_all(all, "lost").await?;
        }
    }
    accept.abort();
    let o_clouds = Api::<o2ims_types::OCloud>::namespaced(all.smo.admin(), NAMESPACE);
    o_clouds.delete("hole", &DeleteParams::default()).await?;
    Ok(table.print("rounds of 20 requests: seconds from the apply of one until it shows its O-Cloud's word", "alone"))
}

/// A hundred requests, to two O-Clouds.
async fn cost_of_a_hundred(all: &Federation) -> anyhow::Result<String> {
    const HUNDRED: u32 = 100;
    let clusters = [(&all.smo, USERS[0]), (&all.site_a.management, USERS[1]), (&all.site_b.management, USERS[1])];
    let marks =
        clusters.iter().map(|(management, _)| management.audit_log().mark()).collect::<anyhow::Result<Vec<_>>>()?;
    let (before, begun) = (usage(all).await?, Instant::now());
    for number in 0..HUNDRED {
        apply(all, &format!("many-{number}"), if number % 2 == 0 { "site-a" } else { "site-b" }, number).await?;
    }
    until_shown(all, HUNDRED as usize, "many").await?;
    let (took, after) = (begun.elapsed(), usage(all).await?);
    let mut text = format!(
        "\n100 requests to two O-Clouds, applied one after the other: all show their O-Clouds' word {:.1} s after the \
         first\noperator: {:.2} s of processor time, {:.0} MiB of memory (debug build)\n\n\
         | requests of the operator | reads | writes | watches |\n|---|---|---|---|\n",
        took.as_secs_f32(),
        after.0 - before.0,
        after.1
    );
    for ((management, user), mark) in clusters.iter().zip(&marks) {
        let entries = management.audit_log().since(mark)?;
        let own = || entries.iter().filter(|entry| entry.user == *user && entry.resource != "leases");
        let writes = own().filter(|entry| entry.is_write()).count();
        let watches = own().filter(|entry| entry.is_watch()).count();
        let name = if *user == USERS[0] { "at the SMO" } else { "at an O-Cloud" };
        let _ = writeln!(text, "| {name} | {} | {writes} | {watches} |", own().count() - writes - watches);
    }
    delete_all(all, "many").await?;
    Ok(text)
}

/// Processor time so far (seconds) and memory (MiB) of the FOCOM operator.
async fn usage(all: &Federation) -> anyhow::Result<(f64, f64)> {
    let id = all.focom.lock().await.as_ref().and_then(sandbox::Operator::id).context("the operator does not run")?;
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<_> = stat.rsplit(") ").next().context("stat")?.split_whitespace().collect();
    let ticks: f64 = [11, 12].iter().filter_map(|field| fields.get(*field)?.parse::<f64>().ok()).sum();
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let memory =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    // Linux counts 100 ticks a second on all common architectures.
    Ok((ticks / 100.0, memory.context("VmRSS")? / 1024.0))
}

/// The time from when a watch of the O-Cloud shows a state until a watch of the SMO shows it; this process has both
/// watches. The O2IMS operator of the O-Cloud is suspended, and the states that it would write are SIMULATED.
async fn hop(all: &Federation, changes: u32) -> anyhow::Result<String> {
    apply(all, "hop", "site-b", 1).await?;
    until_shown(all, 1, "hop").await?;
    let operator =
        all.site_b.operator.as_ref().and_then(sandbox::Operator::id).context("the O2IMS operator does not run")?;
    tokio::process::Command::new("kill").args(["-STOP", &operator.to_string()]).status().await?;
    let measured = follow(all, changes).await;
    tokio::process::Command::new("kill").args(["-CONT", &operator.to_string()]).status().await?;
    delete_all(all, "hop").await?;
    Ok(format!("\n{changes} changes of a state on an O-Cloud, until the SMO shows it: {}\n", quantiles(measured?)))
}

/// Requests that are created at once.
async fn burst(all: &Federation, number: u16) -> anyhow::Result<String> {
    let create = (0..number).map(|number| {
        let mut request = request(&format!("burst-{number}"), "site-a", number.into());
        request["metadata"]["labels"] = json!({(burst::LABEL): ""});
        Ok(serde_json::from_value(request)?)
    });
    let has_status = |request: &FocomProvisioningRequest| !request.is_new();
    let text = burst::first_statuses(&requests(all), create.collect::<anyhow::Result<_>>()?, has_status).await?;
    delete_all(all, "burst").await?;
    Ok(text)
}

/// When each message was first seen.
type Seen = Arc<Mutex<HashMap<String, Instant>>>;

/// Records when a watch shows each message of one object, in a task.
fn record<K>(api: Api<K>, name: &'static str, message: fn(K) -> Option<String>) -> (Seen, JoinHandle<()>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let seen = Seen::default();
    let recorded = Arc::clone(&seen);
    let task = tokio::spawn(async move {
        let mut changes = watcher::watch_object(api, name).default_backoff().boxed();
        while let Ok(Some(object)) = changes.try_next().await {
            if let Some(message) = object.and_then(message) {
                recorded.lock().unwrap_or_else(PoisonError::into_inner).entry(message).or_insert_with(Instant::now);
            }
        }
    });
    (seen, task)
}

/// Changes the state on the O-Cloud again and again, and measures how long each change takes to show at the SMO.
async fn follow(all: &Federation, changes: u32) -> anyhow::Result<Vec<Duration>> {
    let there = Api::<ProvisioningRequest>::namespaced(all.site_b.management.admin(), NAMESPACE);
    let (on_o_cloud, first) =
        record(there.clone(), "hop-o2ims", |found| Some(found.status?.provisioning_status.provisioning_message));
    let (at_smo, second) = record(requests(all), "hop", |found: FocomProvisioningRequest| Some(found.status?.message));
    for number in 0..changes {
        let message = format!("change {number}");
        let status = json!({
            "status": {"provisioningStatus": {"provisioningState": "progressing", "provisioningMessage": message}},
        });
        there.patch_status("hop-o2ims", &PatchParams::default(), &Patch::Merge(&status)).await?;
        let arrived = |found: Option<&FocomProvisioningRequest>| {
            found.and_then(|found| found.status.as_ref()).is_some_and(|status| status.message == message)
        };
        wait(requests(all), "hop", &message, LIMIT, arrived).await?;
    }
    // Each change was waited for by another watch than the one that records the times.
    let last = format!("change {}", changes.saturating_sub(1));
    let deadline = Instant::now() + LIMIT;
    let has = |seen: &Seen| seen.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&last);
    while !(has(&on_o_cloud) && has(&at_smo)) {
        ensure!(Instant::now() < deadline, "the watches do not show the last change");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    first.abort();
    second.abort();
    let (on_o_cloud, at_smo) = (on_o_cloud.lock(), at_smo.lock());
    let (on_o_cloud, at_smo) =
        (on_o_cloud.unwrap_or_else(PoisonError::into_inner), at_smo.unwrap_or_else(PoisonError::into_inner));
    let hops = (0..changes).filter_map(|number| {
        let message = format!("change {number}");
        Some(at_smo.get(&message)?.saturating_duration_since(*on_o_cloud.get(&message)?))
    });
    let hops: Vec<_> = hops.collect();
    ensure!(
        u32::try_from(hops.len()) == Ok(changes),
        "only {} of {changes} changes were seen by both watches",
        hops.len()
    );
    Ok(hops)
}
