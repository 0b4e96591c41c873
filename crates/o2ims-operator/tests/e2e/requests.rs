//! Many requests: such as look right and cannot work take no host, and such as are unusual and right get their cluster.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use cluster_api::Kind;
use futures::{StreamExt as _, stream};
use kube::api::ListParams;
use o2ims_types::ProvisioningState as State;
use sandbox::inventory;
use serde_json::{Value, json};

use crate::admission::until_taken;
use crate::bad_requests::corpus;
use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Shared, Tenant, shared};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared("requests_that_cannot_work_are_refused_before_a_host_is_held", impossible),
        shared("unusual_requests_that_are_right_get_their_cluster", unusual).slow(),
    ]
}

/// How many clusters are made side by side; each has two hosts.
const SIDE_BY_SIDE: u32 = 8;

/// The values of a file, each with what the file says of it and the parameters that it belongs into.
fn cases(file: &str) -> anyhow::Result<Vec<(Value, Value)>> {
    let entries: Vec<Value> = serde_saphyr::from_str(file)?;
    let mut cases = Vec::new();
    for entry in entries {
        for value in entry["values"].as_array().context("values")? {
            cases.push((entry.clone(), value.clone()));
        }
    }
    Ok(cases)
}

/// The request with the value in its parameters, and with names, ids and addresses of hosts for their placeholders.
fn filled(mut request: Value, entry: &Value, value: &Value, hosts: &BTreeMap<String, String>) -> anyhow::Result<Value> {
    corpus::put(&mut request["spec"]["templateParameters"], &entry["parameters"], value);
    let mut text = request.to_string();
    for (placeholder, of_host) in hosts {
        text = text.replace(placeholder.as_str(), of_host);
    }
    Ok(serde_json::from_str(&text)?)
}

async fn address(tenant: &Tenant, number: u32) -> anyhow::Result<String> {
    let host = tenant.byohosts().get(&tenant.host(number)).await?;
    host.addresses().first().map(ToString::to_string).context("no address")
}

async fn impossible(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "impossible", 4).await?;
    let mut hosts = BTreeMap::new();
    for number in 1..=4 {
        hosts.insert(format!("HOST-{number}"), tenant.host(number));
        hosts.insert(format!("ADDRESS-{number}"), address(&tenant, number).await?);
    }
    let mut refused = tenant.request("refused", "refused", &[1], &[2]);
    refused["spec"]["templateParameters"]["k8sVersion"] = json!("v1.33.1-rc.1");
    until_taken(&tenant.requests(), &refused, false).await?;
    let cases = cases(include_str!("requests/impossible.yaml"))?;
    ensure!(cases.len() >= 150, "only {} requests", cases.len());
    let (mut wrong, mut waiting) = (Vec::new(), Vec::new());
    for (number, (entry, value)) in cases.iter().enumerate() {
        let name = format!("impossible-{number}");
        let request = filled(tenant.request(&name, &name, &[1], &[2]), entry, value, &hosts)?;
        let words = entry["words"].as_str().context("words")?;
        let is_refused = entry["end"] == "refused";
        let what = format!("{}: {value}", entry["rule"]);
        match tenant.apply(&request).await {
            Err(kube::Error::Api(status)) if is_refused && status.message.contains(words) => {}
            Err(error) => wrong.push(format!("{what}: {error}")),
            Ok(_) if is_refused => wrong.push(format!("{what}: accepted")),
            Ok(_) => waiting.push((what, name, words)),
        }
    }
    for (what, name, words) in waiting {
        if let Err(error) = tenant.until(&name, State::Failed, words, SOON).await {
            let found = tenant.requests().get(&name).await?.status.unwrap_or_default().provisioning_status;
            wrong.push(format!("{what}: {error}: {found:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    eprintln!("{} requests that cannot work were refused, or failed", cases.len());
    let clusters = inventory::of_kind(stack.management.admin(), "impossible", Kind::Cluster);
    ensure!(clusters.list(&ListParams::default()).await?.items.is_empty(), "a Cluster was created");
    for request in tenant.requests().list(&ListParams::default()).await? {
        ensure!(request.metadata.finalizers.is_none(), "{:?} has a finalizer", request.metadata.name);
    }
    tenant.assert_hosts_free().await
}

async fn unusual(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "unusual", 2 * SIDE_BY_SIDE).await?;
    let cases = cases(include_str!("requests/unusual.yaml"))?;
    ensure!(cases.len() >= 150, "only {} requests", cases.len());
    let (send, free) = tokio::sync::mpsc::unbounded_channel();
    for pair in 0..SIDE_BY_SIDE {
        send.send(2 * pair + 1)?;
    }
    let free = tokio::sync::Mutex::new(free);
    let results: Vec<_> = stream::iter(cases.iter().enumerate())
        .map(|(number, (entry, value))| {
            let (tenant, free, send) = (&tenant, &free, send.clone());
            async move {
                let host = free.lock().await.recv().await.context("no hosts")?;
                let done = one_unusual(tenant, number, entry, value, host).await;
                send.send(host)?;
                done.with_context(|| format!("{}: {value}", entry["rule"]))
            }
        })
        .buffer_unordered(usize::try_from(SIDE_BY_SIDE)?)
        .collect()
        .await;
    let wrong: Vec<_> = results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if !wrong.is_empty() {
        bail!("{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    }
    eprintln!("{} unusual requests got their cluster", cases.len());
    tenant.assert_hosts_free().await
}

/// Makes the cluster of a request on two hosts, and deletes it.
async fn one_unusual(tenant: &Tenant, number: usize, entry: &Value, value: &Value, host: u32) -> Outcome {
    let name = format!("unusual-{number}");
    let mut hosts = BTreeMap::new();
    for (role, number) in [("M", host), ("W", host + 1)] {
        hosts.insert(format!("HOST-{role}"), tenant.host(number));
        hosts.insert(format!("ID-{role}"), number.to_string());
        hosts.insert(format!("ADDRESS-{role}"), address(tenant, number).await?);
    }
    let request = filled(tenant.request(&name, &name, &[host], &[]), entry, value, &hosts)?;
    tenant.apply(&request).await?;
    tenant.until(&name, State::Fulfilled, "", CLUSTER).await?;
    tenant.delete(&name).await?;
    tenant.until_gone(&name, CLUSTER).await
}
