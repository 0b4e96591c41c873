//! Objects of Cluster API and BYOH without a request, on hosts whose agents skip the installation.

use std::time::Instant;

use anyhow::Context as _;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use kube::core::DynamicObject;
use kube::runtime::conditions::is_deleted;
use kube::runtime::wait::await_condition;
use sandbox::{Stack, inventory};
use testenv::kubernetes_version;
use tokio::time::timeout;

use crate::times::{LIMIT, Times};

/// Namespace of the objects, and prefix of the servers' names.
pub const NAMESPACE: &str = "plain";
const MANIFEST: &str = include_str!("../manifests/plain.yaml");

/// Makes and deletes a cluster of one master and one worker.
pub async fn one_and_one(stack: &mut Stack, round: u8) -> anyhow::Result<Times> {
    // New servers each time: without an installer no host is cleaned, and the next bootstrap on it fails once.
    let numbers = [20 + 2 * round, 21 + 2 * round];
    stack.power_on(NAMESPACE, NAMESPACE, numbers[0]..=numbers[1], true).await?;
    let names = numbers.map(|number| format!("{NAMESPACE}-{number}"));
    let cluster = format!("plain-{round}");
    let manifest = [
        ("CLUSTER", cluster.clone()),
        ("NAMESPACE", NAMESPACE.to_owned()),
        ("ADDRESS", stack.server(&names[0])?.address().to_string()),
        ("MASTER", numbers[0].to_string()),
        ("WORKER", numbers[1].to_string()),
        ("VERSION", kubernetes_version().to_owned()),
    ]
    .into_iter()
    .fold(MANIFEST.to_owned(), |text, (word, value)| text.replace(word, &value));
    let client = stack.management.admin();
    let api = |group: &str, kind: &str| inventory::api(client.clone(), NAMESPACE, group, kind);
    let masters = api("controlplane.cluster.x-k8s.io", "KubeadmControlPlane");
    let workers = api("cluster.x-k8s.io", "MachineDeployment");
    let is_ready =
        |object: Option<&DynamicObject>| object.is_some_and(|object| object.data["status"]["readyReplicas"] == 1);

    let begun = Instant::now();
    stack.management.apply_yaml(&manifest).await?;
    timeout(LIMIT, await_condition(masters, &cluster, is_ready)).await.context("no master is Ready")??;
    let deployment = format!("{cluster}-worker");
    timeout(LIMIT, await_condition(workers, &deployment, is_ready)).await.context("no worker is Ready")??;
    let up = begun.elapsed();

    let begun = Instant::now();
    let clusters = api("cluster.x-k8s.io", "Cluster");
    let uid = clusters.get(&cluster).await?.uid().unwrap_or_default();
    clusters.delete(&cluster, &DeleteParams::default()).await?;
    timeout(LIMIT, await_condition(clusters, &cluster, is_deleted(&uid))).await.context("the Cluster stays")??;
    let is_free = |host: Option<&DynamicObject>| {
        host.is_some_and(|host| {
            host.data["status"]["machineRef"].is_null() && !host.labels().contains_key("cluster.x-k8s.io/cluster-name")
        })
    };
    for name in &names {
        let free = await_condition(inventory::hosts(client.clone(), NAMESPACE), name, is_free);
        timeout(LIMIT, free).await.with_context(|| format!("{name} does not come free"))??;
    }
    let down = begun.elapsed();
    for name in &names {
        stack.remove_server(name).await?;
    }
    Ok(Times { up, down })
}
