//! Several want the same: one host at the same instant, an endpoint, or the name of an object.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use hostsim::Failure;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use o2ims_operator::provisioner::byoh::marks::MarkedHost as _;
use o2ims_types::ProvisioningState as State;
use serde_json::json;

use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Shared, Tenant, shared, wait};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared("of_requests_for_one_host_exactly_one_goes_on", |stack| compete(stack, "few", 9, 3)),
        shared("of_requests_for_one_host_exactly_one_goes_on_100_rounds", |stack| compete(stack, "many", 100, 5))
            .slow(),
        shared("of_requests_for_one_endpoint_exactly_one_goes_on", compete_for_endpoint),
        shared("a_request_claims_no_host_while_a_part_of_its_cluster_is_another_owners", foreign_part),
    ]
}

/// `rounds` rounds of 2 to 10 requests, `lanes` rounds side by side.
async fn compete(stack: Shared, prefix: &str, rounds: u32, lanes: u32) -> Outcome {
    let tenant = Tenant::new(&stack, &format!("compete-{prefix}"), lanes).await?;
    let history = History::record(stack.management.admin(), &tenant.namespace);
    for lane in 1..=lanes {
        // The claim is what is looked at: no round needs a cluster that comes up.
        stack.site.host(&tenant.host(lane)).context("no host")?.fail(Failure::Bootstrap);
    }
    let one_lane = |lane: u32| {
        let (tenant, lanes) = (&tenant, lanes);
        async move {
            for round in (lane..=rounds).step_by(lanes as usize) {
                one_round(tenant, lane, round).await.with_context(|| format!("round {round}"))?;
            }
            anyhow::Ok(())
        }
    };
    try_join_all((1..=lanes).map(one_lane)).await?;
    tenant.assert_hosts_free().await?;
    let changes = history.check()?;
    ensure!(changes >= 2 * rounds as usize, "only {changes} claims were seen");
    Ok(())
}

async fn one_round(tenant: &Tenant, host: u32, round: u32) -> Outcome {
    let rivals = 2 + round % 9;
    let names: Vec<String> = (0..rivals).map(|number| format!("round{round}-{number}")).collect();
    try_join_all(names.iter().map(|name| async { tenant.apply(&tenant.request(name, name, &[host], &[])).await }))
        .await?;
    let first = winner(tenant, &names).await?;
    let held =
        format!("host {host} ({}) is held by ProvisioningRequest {}/{first}", tenant.host(host), tenant.namespace);
    for name in names.iter().filter(|name| **name != first) {
        tenant.until(name, State::Pending, &held, SOON).await?;
    }
    tenant.delete(&first).await?;
    tenant.until_gone(&first, CLUSTER).await?;
    let rest: Vec<_> = names.iter().filter(|name| **name != first).cloned().collect();
    let second = winner(tenant, &rest).await?;
    for name in rest.iter().filter(|name| **name != second) {
        tenant.delete(name).await?;
    }
    tenant.delete(&second).await?;
    for name in &rest {
        tenant.until_gone(name, CLUSTER).await?;
    }
    Ok(())
}

/// Requests that share nothing but the endpoint. `ENDPOINT_ROUNDS` asks for another number of rounds than 6.
async fn compete_for_endpoint(stack: Shared) -> Outcome {
    const RIVALS: u32 = 4;
    let rounds = match std::env::var("ENDPOINT_ROUNDS") {
        Ok(told) => told.parse().context("ENDPOINT_ROUNDS")?,
        Err(_) => 6,
    };
    let tenant = Tenant::new(&stack, "endpoint", 3 * RIVALS).await?;
    for host in 1..=3 * RIVALS {
        stack.site.host(&tenant.host(host)).context("no host")?.fail(Failure::Bootstrap);
    }
    for round in 0..rounds {
        one_round_for_endpoint(&tenant, round, RIVALS).await.with_context(|| format!("round {round}"))?;
    }
    tenant.assert_hosts_free().await
}

/// One of them goes on, alone. In every other round it is deleted while the others wait, and one of these goes on.
async fn one_round_for_endpoint(tenant: &Tenant, round: u32, rivals: u32) -> Outcome {
    let names: Vec<String> = (0..rivals).map(|number| format!("round{round}-{number}")).collect();
    try_join_all(names.iter().zip(0..).map(|(name, number)| {
        let masters = [3 * number + 1, 3 * number + 2, 3 * number + 3];
        let mut request = tenant.request(name, name, &masters, &[]);
        request["spec"]["templateParameters"]["controlPlaneEndpoint"] = json!({"host": "127.88.0.3"});
        async move { tenant.apply(&request).await }
    }))
    .await?;
    let first = winner(tenant, &names).await?;
    // It was decided before or after the first one got the lock: `is taken by` it, or `is also requested by` it.
    let by_first = format!("by ProvisioningRequest endpoint/{first}");
    for name in names.iter().filter(|name| **name != first) {
        let waits = tenant.until(name, State::Pending, &by_first, SOON).await?;
        let told = waits.status.context("no status")?.provisioning_status.provisioning_message;
        ensure!(told.starts_with("controlPlaneEndpoint 127.88.0.3:6443 is "), "{name}: {told}");
    }
    let clusters = tenant.objects(Kind::Cluster).list(&ListParams::default()).await?.items;
    ensure!(clusters.iter().all(|cluster| cluster.name_any() == first), "{first} is not alone on the endpoint");
    let mut rest: Vec<_> = names.into_iter().filter(|name| *name != first).collect();
    let mut last = first;
    if round % 2 == 1 {
        tenant.delete(&last).await?;
        tenant.until_gone(&last, CLUSTER).await?;
        last = winner(tenant, &rest).await?;
        rest.retain(|name| *name != last);
    }
    for name in &rest {
        tenant.delete(name).await?;
        tenant.until_gone(name, SOON).await?;
    }
    tenant.delete(&last).await?;
    tenant.until_gone(&last, CLUSTER).await
}

/// An object that another client has created has the name of a part of the cluster.
async fn foreign_part(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "foreign-part", 2).await?;
    let (kind, namespace) = (Kind::ByoCluster, &tenant.namespace);
    let theirs = json!({
        "apiVersion": kind.api_version(), "kind": kind.name(),
        "metadata": {"name": "part", "namespace": namespace}, "spec": {},
    });
    tenant.objects(kind).create(&PostParams::default(), &serde_json::from_value(theirs)?).await?;
    tenant.apply(&tenant.request("request", "part", &[1], &[2])).await?;
    let told = format!("clusterName part is taken by ByoCluster {namespace}/part, which this operator did not create");
    tenant.until("request", State::Pending, &told, SOON).await?;
    tenant.assert_hosts_free().await?;
    tenant.objects(kind).delete("part", &DeleteParams::default()).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

/// The one request that goes on.
async fn winner(tenant: &Tenant, names: &[String]) -> anyhow::Result<String> {
    let waits = names.iter().map(|name| {
        Box::pin(
            async move { tenant.until(name, State::Progressing, "", CLUSTER).await.map(|request| request.name_any()) },
        )
    });
    let (name, _) = futures::future::select_ok(waits).await?;
    for other in names.iter().filter(|other| **other != name) {
        let seen =
            wait(tenant.requests(), other, "any status", SOON, |request: Option<&o2ims_types::ProvisioningRequest>| {
                request.is_some_and(|request| !request.is_new())
            })
            .await?;
        let state = seen.and_then(|request| request.status).context("gone")?.provisioning_status.provisioning_state;
        ensure!(state == State::Pending, "{other} is {state} while {name} goes on");
    }
    Ok(name)
}

/// A host and who holds it.
type Claim = (String, Option<String>);

/// Who held each host, in every revision that a watch delivers.
struct History {
    claims: Arc<Mutex<Vec<Claim>>>,
    task: tokio::task::JoinHandle<()>,
}

impl History {
    fn record(client: Client, namespace: &str) -> Self {
        let claims = Arc::new(Mutex::new(Vec::new()));
        let api: Api<ByoHost> = Api::namespaced(client, namespace);
        let (list, stream) =
            (Arc::clone(&claims), watcher(api, watcher::Config::default()).default_backoff().applied_objects());
        let task = tokio::spawn(async move {
            let mut stream = stream.boxed();
            while let Ok(Some(host)) = stream.try_next().await {
                list.lock().expect("not poisoned").push((host.name_any(), host.holder().map(ToOwned::to_owned)));
            }
        });
        Self { claims, task }
    }

    /// A host goes from one request to nobody and from nobody to the next one, never from one to another. Returns the
    /// number of claims.
    fn check(self) -> anyhow::Result<usize> {
        self.task.abort();
        let claims = self.claims.lock().expect("not poisoned");
        let mut holders = std::collections::BTreeMap::new();
        let mut count = 0;
        for (host, holder) in claims.iter() {
            let before = holders.insert(host.clone(), holder.clone()).flatten();
            if let (Some(before), Some(now)) = (&before, holder) {
                ensure!(before == now, "{host} went from {before} to {now} without being free");
            }
            count += usize::from(before.is_none() && holder.is_some());
        }
        Ok(count)
    }
}
