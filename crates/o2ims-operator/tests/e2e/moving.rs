//! A running cluster moves to another management cluster and back, by `clusterctl move`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use o2ims_types::{ProvisioningRequest, ProvisioningState as State};
use sandbox::installation::Hosts;
use sandbox::{Stack, StackOptions, inventory};
use serde_json::json;
use testenv::Options;
use testenv::tools::{Tool, tool};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Tenant, alone, on_servers, wait};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        alone("a_cluster_moves_to_another_management_cluster_and_back_and_runs_on", async |stack| {
            Box::pin(there_and_back(stack, true)).await
        }),
        alone("a_cluster_moves_away_and_back_while_the_operator_is_stopped", async |stack| {
            Box::pin(there_and_back(stack, false)).await
        })
        .slow(),
        on_servers("a_cluster_on_servers_moves_away_and_back_and_nothing_is_started_anew", async |stack| {
            Box::pin(there_and_back(stack, true)).await
        })
        .slow(),
    ]
}

const REQUEST: &str = "core-request";
const CLUSTER_NAME: &str = "core";
/// With it an agent resets its host.
const RESET: &str = cluster_api::byoh::UNREGISTERING_ANNOTATION;
/// What a request says whose Cluster has gone without it.
const WAY_ON: &str = "is gone, but this request is not being deleted";

/// `watched`: the operator at home runs all the time.
async fn there_and_back(stack: &mut Stack, watched: bool) -> Outcome {
    let tenant = match stack.hosts() {
        Hosts::Simulated => Tenant::new(stack, "moving", 2).await?,
        Hosts::Servers => Tenant::on_servers(stack, "moving", 2).await?,
    };
    tenant.apply(&tenant.request(REQUEST, CLUSTER_NAME, &[1], &[2])).await?;
    tenant.until(REQUEST, State::Fulfilled, "1 master, 1 worker", CLUSTER).await?;
    let here = stack.management.admin();
    // The Secret with its kubeconfig moves, too.
    let workload = tenant.workload(CLUSTER_NAME).await?;
    let (machines, nodes) = (machines(&here, &tenant).await?, nodes(&workload).await?);
    let processes = crate::consent::running(&stack.servers).await?;
    let mut resets = Resets::watch(&tenant);

    // It has an operator too, which finds a cluster with the marks of a request that it does not know.
    let management = Options { byoh: false, ..Options::default() };
    let options = StackOptions { management, operator: stack.operator_options().clone(), ..StackOptions::new("") };
    let started = Stack::start(options, |line| eprintln!("the other management cluster: {line}"));
    let other = Box::pin(started).await?;
    let result = async {
        other.management.install_byoh_kinds().await?;
        other.make_namespace(&tenant.namespace).await?;
        if !watched && let Some(operator) = stack.operator.take() {
            operator.stop().await?;
        }
        let there = other.management.admin();

        clusterctl_move(stack, &other, &tenant).await?;
        if watched {
            tokio::select! {
                told = until_told(&tenant) => told?,
                host = resets.first() => bail!("while the cluster was being moved, ByoHost {host} got {RESET}"),
            }
        }
        stand_in_for_byoh(&there, &tenant).await?;
        until_managed(&there, &tenant, &machines).await?;
        ensure!(nodes == self::nodes(&workload).await?, "nodes were made anew while the cluster was away");

        clusterctl_move(&other, stack, &tenant).await?;
        if !watched {
            stack.start_operator().await?;
        }
        let back = async {
            until_managed(&here, &tenant, &machines).await?;
            tenant.until(REQUEST, State::Fulfilled, "1 master, 1 worker", CLUSTER).await
        };
        tokio::select! {
            fulfilled = back => drop(fulfilled?),
            host = resets.first() => bail!("after the cluster had come back, ByoHost {host} got {RESET}"),
        }
        let back = self::machines(&here, &tenant).await?;
        ensure!(back == machines, "the Machines were {machines:?}, and are {back:?}");
        ensure!(nodes == self::nodes(&workload).await?, "nodes were made anew after the cluster had come back");
        ensure!(self::machines(&there, &tenant).await?.is_empty(), "Machines stayed behind");
        let now = crate::consent::running(&stack.servers).await?;
        ensure!(processes.is_subset(&now), "on the servers ran {processes:?}, and now {now:?}");
        anyhow::Ok(())
    };
    let result = Box::pin(result).await;
    let none = resets.none();
    result.and(none).and(Box::pin(other.stop()).await)
}

/// Moves what is in the tenant's namespace from one management cluster to another, as a user would.
async fn clusterctl_move(from: &Stack, to: &Stack, tenant: &Tenant) -> Outcome {
    let kubeconfig = |stack: &Stack| -> anyhow::Result<PathBuf> {
        let path = stack.management.dir().join("clusterctl.kubeconfig");
        stack.management.kubeconfig_as("admin", &["system:masters"], &path)?;
        Ok(path)
    };
    let output = clusterctl(from.management.dir())
        .await?
        .arg("move")
        .args(["--namespace", &tenant.namespace])
        .arg("--kubeconfig")
        .arg(kubeconfig(from)?)
        .arg("--to-kubeconfig")
        .arg(kubeconfig(to)?)
        .output()
        .await
        .context("starting clusterctl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    eprintln!("clusterctl move:\n{said}");
    ensure!(output.status.success(), "clusterctl move failed ({}):\n{said}", output.status);
    Ok(())
}

/// clusterctl with a home of its own and no look for newer versions of itself.
async fn clusterctl(home: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(tool(Tool::Clusterctl, |line| eprintln!("{line}")).await?);
    command
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("CLUSTERCTL_DISABLE_VERSIONCHECK", "true")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

/// Waits until the request says that its cluster is gone, and what can be done.
async fn until_told(tenant: &Tenant) -> Outcome {
    let told = |request: Option<&ProvisioningRequest>| {
        let status = request.and_then(|request| request.status.as_ref());
        serde_json::to_string(&status).is_ok_and(|status| status.contains(WAY_ON))
    };
    wait(tenant.requests(), REQUEST, &format!("the request to name {WAY_ON}"), SOON, told).await?;
    Ok(())
}

/// Writes what BYOH's manager would find out at a management cluster that has its kinds without it.
async fn stand_in_for_byoh(there: &Client, tenant: &Tenant) -> Outcome {
    for kind in ["ByoCluster", "ByoMachine"] {
        let api = inventory::api(there.clone(), &tenant.namespace, "infrastructure.cluster.x-k8s.io", kind);
        for object in api.list(&ListParams::default()).await? {
            let ready = json!({"status": {"ready": true}});
            api.patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(&ready)).await?;
        }
    }
    Ok(())
}

/// Waits until Cluster API has found out again, after a move, how the cluster is: status does not move with its object.
async fn until_managed(client: &Client, tenant: &Tenant, machines: &[String]) -> Outcome {
    let has_node = |machine: Option<&DynamicObject>| {
        machine.is_some_and(|machine| machine.data["status"]["nodeRef"]["name"].is_string())
    };
    for machine in machines {
        let what = format!("Machine {machine} to have its node");
        wait(core(client, tenant, "Machine"), machine, &what, CLUSTER, has_node).await?;
    }
    let is_ready = |cluster: Option<&DynamicObject>| {
        cluster.is_some_and(|cluster| {
            let (status, deleted) = (&cluster.data["status"], &cluster.metadata.deletion_timestamp);
            let available = status["conditions"].as_array().into_iter().flatten();
            let mut available = available.filter(|condition| condition["type"] == "ControlPlaneAvailable");
            deleted.is_none()
                && status["initialization"]["infrastructureProvisioned"] == true
                && available.any(|condition| condition["status"] == "True")
        })
    };
    wait(core(client, tenant, "Cluster"), CLUSTER_NAME, "the cluster to be ready", CLUSTER, is_ready).await?;
    Ok(())
}

/// Names of the Machines at a management cluster, sorted.
async fn machines(client: &Client, tenant: &Tenant) -> anyhow::Result<Vec<String>> {
    let machines = core(client, tenant, "Machine").list(&ListParams::default()).await?;
    let mut names: Vec<_> = machines.iter().map(kube::ResourceExt::name_any).collect();
    names.sort();
    Ok(names)
}

/// Objects of Cluster API's own group.
fn core(client: &Client, tenant: &Tenant, kind: &str) -> Api<DynamicObject> {
    inventory::api(client.clone(), &tenant.namespace, "cluster.x-k8s.io", kind)
}

/// The cluster's nodes, which are new ones when a host has joined again.
async fn nodes(workload: &Client) -> anyhow::Result<BTreeMap<String, Option<String>>> {
    let nodes = Api::<Node>::all(workload.clone()).list(&ListParams::default()).await?;
    Ok(nodes.into_iter().map(|node| (node.name_any(), node.metadata.uid)).collect())
}

/// ByoHosts that were to be reset at any time.
struct Resets {
    seen: watch::Receiver<Option<String>>,
    task: JoinHandle<()>,
}

impl Resets {
    fn watch(tenant: &Tenant) -> Self {
        let (tell, seen) = watch::channel(None);
        let hosts = watcher(tenant.byohosts(), watcher::Config::default()).default_backoff().applied_objects();
        let task = tokio::spawn(async move {
            let mut hosts = hosts.boxed();
            while let Ok(Some(host)) = hosts.try_next().await {
                if host.annotations().contains_key(RESET) {
                    tell.send_replace(Some(host.name_any()));
                }
            }
        });
        Self { seen, task }
    }

    /// Waits for the first one.
    async fn first(&mut self) -> String {
        match self.seen.wait_for(Option::is_some).await {
            Ok(host) => host.clone().unwrap_or_default(),
            Err(_) => "(the watch ended)".to_owned(),
        }
    }

    /// Fails if there was one.
    fn none(self) -> Outcome {
        self.task.abort();
        match self.seen.borrow().as_deref() {
            Some(host) => bail!("ByoHost {host} got {RESET}"),
            None => Ok(()),
        }
    }
}
