//! How soon each of many requests has its first status when all are created at once, beside others that are in work. As for
//! the scale there is an API server without the controllers of Cluster API and BYOH, and the operator has one worker thread.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt as _};
use o2ims_types::ProvisioningRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use testenv::ManagementCluster;
use tokio::time::timeout;

use crate::scale::{self, NAMESPACE, Operator};
use crate::table::quantiles;
use crate::times::LIMIT;

/// How many objects the operator reconciles at once, unless set.
const SIDE_BY_SIDE: usize = 16;

/// Label of the requests that are created at once: the watch shows no others.
pub const LABEL: &str = "burst";

#[derive(clap::Args)]
pub struct Arguments {
    /// How many requests are created at once.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    requests: u32,
    /// How many requests are in work before: their objects are made, and they wait for their control planes.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..=10_000))]
    beside: u32,
}

/// Starts an API server, measures, and stops it.
pub async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    scale::on_api_server(async |cluster| measure(cluster, arguments).await).await
}

async fn measure(cluster: &ManagementCluster, arguments: &Arguments) -> anyhow::Result<String> {
    let Arguments { requests: number, beside } = *arguments;
    let kubeconfig = scale::install(cluster).await?;
    eprintln!("{beside} requests: applying ...");
    scale::make(cluster, 1..=beside, beside).await?;
    let numbers = beside + 1..=beside + number;
    scale::make_hosts(cluster, numbers.clone()).await?;
    let api: Api<ProvisioningRequest> = Api::namespaced(cluster.admin(), NAMESPACE);
    let create = numbers.map(|number| {
        let mut request = scale::request(number, true)?;
        request.labels_mut().insert(LABEL.to_owned(), String::new());
        Ok(request)
    });
    let requests: Vec<_> = create.collect::<anyhow::Result<_>>()?;
    let has_status = |request: &ProvisioningRequest| !request.is_new();

    eprintln!("{number} requests at once, without the operator ...");
    let writer = tokio::spawn(write_statuses(api.clone(), number));
    let mut text = "\nWithout the operator: a client writes a short status for each, and nothing else:\n".to_owned();
    text += &first_statuses(&api, requests.clone(), has_status).await?;
    writer.await??;
    api.delete_collection(&DeleteParams::default(), &ListParams::default().labels(LABEL)).await?;

    let operator = Operator::start(cluster, &kubeconfig).await?;
    operator.until_it_rests(beside).await?;
    operator.forget_held();

    eprintln!("{number} requests at once ...");
    let _ = write!(text, "\nThe operator, beside {beside} requests in work:\n");
    text += &first_statuses(&api, requests, has_status).await?;
    let _ = writeln!(text, "timers of the operator waited at most {} ms meanwhile", operator.held());
    operator.stop().await?;
    Ok(text + scale::note_of_debug_build())
}

/// What the API server can do: writes a status for each new request with the label [`LABEL`], as many at once as the operator.
async fn write_statuses(api: Api<ProvisioningRequest>, number: u32) -> anyhow::Result<()> {
    let status = json!({
        "apiVersion": ProvisioningRequest::api_version(&()), "kind": ProvisioningRequest::kind(&()),
        "status": {
            "observedGeneration": 1,
            "provisioningStatus": {"provisioningState": "progressing", "provisioningMessage": "a short status"},
        },
    });
    let new = watcher(api.clone(), watcher::Config::default().labels(LABEL)).try_filter_map(async |event| {
        Ok(match event {
            Event::Apply(request) | Event::InitApply(request) if request.is_new() => Some(request.name_any()),
            _ => None,
        })
    });
    new.map_err(anyhow::Error::from)
        .map_ok(|name| {
            let (api, status) = (api.clone(), &status);
            async move {
                let params = PatchParams::apply("bench").force();
                api.patch_status(&name, &params, &Patch::Apply(status)).await?;
                Ok(())
            }
        })
        .try_buffer_unordered(SIDE_BY_SIDE)
        .take(usize::try_from(number)?)
        .try_collect()
        .await
}

/// Creates requests with the label [`LABEL`] all at once, and measures the time from the answer to the creation of each
/// until a watch shows its first status.
pub async fn first_statuses<K>(
    api: &Api<K>,
    requests: Vec<K>,
    has_status: impl Fn(&K) -> bool + Send + 'static,
) -> anyhow::Result<String>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + 'static,
{
    let number = requests.len();
    let mut events = watcher(api.clone(), watcher::Config::default().labels(LABEL)).boxed();
    // The watch begins before the first creation.
    while !matches!(events.try_next().await?.context("the watch ended")?, Event::InitDone) {}
    // In a task of its own, so that no creation delays what it sees.
    let seen = tokio::spawn(async move {
        let mut seen = HashMap::new();
        while seen.len() < number {
            let event = events.try_next().await?.context("the watch ended")?;
            if let Event::Apply(request) | Event::InitApply(request) = event
                && has_status(&request)
            {
                seen.entry(request.name_any()).or_insert_with(Instant::now);
            }
        }
        anyhow::Ok(seen)
    });
    let begun = Instant::now();
    let created: Vec<_> = stream::iter(&requests)
        .map(async |request| {
            api.create(&PostParams::default(), request).await?;
            anyhow::Ok((request.name_any(), Instant::now()))
        })
        .buffer_unordered(number.max(1))
        .try_collect()
        .await?;
    let took = begun.elapsed();
    let seen = timeout(LIMIT, seen).await.context("not all requests have a status in time")???;
    let times = created.iter().map(|(name, at)| seen.get(name).map(|seen| seen.saturating_duration_since(*at)));
    let times: Vec<Duration> = times.collect::<Option<_>>().context("a status of another request was seen")?;
    let last = seen.values().max().map_or(Duration::ZERO, |last| last.saturating_duration_since(begun));
    Ok(format!(
        "\n{number} requests created at once, within {:.1} s; the last first status is seen after {:.1} s. From the answer to the \
         creation of each until its first status is seen: {}\n",
        took.as_secs_f32(),
        last.as_secs_f32(),
        quantiles(times)
    ))
}
