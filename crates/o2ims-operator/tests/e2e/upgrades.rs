//! Upgrades of Kubernetes on real servers, in place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use cluster_api::Kind;
use futures::{StreamExt as _, TryStreamExt as _};
use hostsim::Failure;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use o2ims_types::{ProvisioningRequest, ProvisioningState as State, conditions, names};
use operator_kit::write::status::find;
use sandbox::Stack;
use serde_json::{Value, json};
use testenv::{kubernetes_version, kubernetes_version_before};
use tokio::task::JoinHandle;

use crate::harness::{CLUSTER, Outcome, Scenario, Shared, Tenant, on_servers_of_two_versions, shared, wait};
use crate::lifecycle::installing;
use crate::servers::assert_clean;

pub fn scenarios() -> Vec<Scenario> {
    vec![
        on_servers_of_two_versions("a_cluster_is_upgraded_on_its_own_servers", one_and_one),
        shared("simulated_hosts_are_upgraded_without_another_machine", hop_by_hop),
    ]
}

/// Every Machine that was ever seen in a tenant's namespace.
struct Machines {
    seen: Arc<Mutex<BTreeSet<String>>>,
    task: JoinHandle<()>,
}

impl Machines {
    fn follow(tenant: &Tenant) -> Self {
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let (list, api) = (Arc::clone(&seen), tenant.objects(Kind::Machine));
        let task = tokio::spawn(async move {
            let mut events = watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
            while let Ok(Some(machine)) = events.try_next().await {
                list.lock().expect("not poisoned").insert(machine.name_any());
            }
        });
        Self { seen, task }
    }

    fn seen(self) -> BTreeSet<String> {
        self.task.abort();
        self.seen.lock().expect("not poisoned").clone()
    }
}

/// Every hop that is supported, with Cluster API's real controllers: they make no other Machine at any time. A job that fails stops the upgrade, and
/// goes on when its owner says so.
async fn hop_by_hop(stack: Shared) -> Outcome {
    let versions = ["v1.33.1", "v1.34.1", "v1.35.1", "v1.36.1", "v1.37.1"];
    let (tenant, mut request) = installing(&stack, "request", json!({"method": "installer"})).await?;
    let mut at = async |version: &str| {
        request["spec"]["templateParameters"]["k8sVersion"] = json!(version);
        tenant.apply(&request).await.map(drop)
    };
    at(versions[0]).await?;
    until_at(&tenant, versions[0]).await?;
    let (before, machines) = (identities(&tenant).await?, Machines::follow(&tenant));
    for version in &versions[1..3] {
        at(version).await?;
        until_at(&tenant, version).await?;
    }

    // Refused at once: a jump, and a way back.
    for wrong in ["v1.37.1", "v1.34.1"] {
        let refused = at(wrong).await.expect_err("it is accepted").to_string();
        let told = format!("spec.templateParameters.k8sVersion cannot change from \"v1.35.1\" to \"{wrong}\"");
        ensure!(refused.contains(&told), "{refused}");
    }

    let worker = tenant.host(2);
    stack.site.host(&worker).context("no such host")?.fail(Failure::Job);
    at(versions[3]).await?;
    let told =
        format!("the upgrade to v1.36.1 has not begun, and no host was changed: host 2 ({worker}): simulated failure");
    let halted = tenant.until("request", State::Failed, &told, CLUSTER).await?;
    stack.site.host(&worker).context("no such host")?.heal();
    let message = halted.status.context("no status")?.provisioning_status.provisioning_message;
    let retry = message.split_once("/retry=").and_then(|(_, rest)| rest.split(' ').next()).context("no command")?;
    let patch = json!({"metadata": {"annotations": {names::RETRY_ANNOTATION: retry}}});
    tenant.requests().patch("request", &PatchParams::default(), &Patch::Merge(patch)).await?;
    until_at(&tenant, versions[3]).await?;
    at(versions[4]).await?;
    until_at(&tenant, versions[4]).await?;

    let after = identities(&tenant).await?;
    ensure!(before == after, "replaced: before {before:?}, after {after:?}");
    let seen = machines.seen();
    ensure!(seen.len() == 2, "other Machines were made: {seen:?}");
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

/// A request for a cluster of this version, whose hosts find every version in a folder of its own.
async fn request(tenant: &Tenant, version: &str, masters: &[u32], workers: &[u32]) -> anyhow::Result<Value> {
    tenant.template("folders", json!({"install": {"installer": {"source": "files"}}})).await?;
    let mut request = tenant.request_for("folders", "request", masters, workers);
    request["spec"]["templateParameters"]["k8sVersion"] = json!(version);
    Ok(request)
}

/// Waits until the request is fulfilled as it was last edited, at this version.
async fn until_at(tenant: &Tenant, version: &str) -> anyhow::Result<ProvisioningRequest> {
    let what = format!("the request to be fulfilled at {version}");
    let is_at = |request: Option<&ProvisioningRequest>| {
        let Some((request, status)) = request.and_then(|request| Some((request, request.status.as_ref()?))) else {
            return false;
        };
        status.provisioning_status.provisioning_state == State::Fulfilled
            && status.observed_generation == request.metadata.generation
            && status.extensions.k8s_version.as_deref() == Some(version)
    };
    wait(tenant.requests(), "request", &what, CLUSTER, is_at).await?.context("the request is gone")
}

/// The UIDs of everything that an upgrade in place must leave: Machines, hosts and Nodes, by kind and name.
async fn identities(tenant: &Tenant) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for kind in [Kind::Machine, Kind::MachineSet, Kind::ByoMachine, Kind::ByoHost] {
        for object in tenant.objects(kind).list(&ListParams::default()).await? {
            found.insert(format!("{} {}", kind.name(), object.name_any()), object.uid().unwrap_or_default());
        }
    }
    let nodes: Api<Node> = Api::all(tenant.workload("request").await?);
    for node in nodes.list(&ListParams::default()).await? {
        found.insert(format!("Node {}", node.name_any()), node.uid().unwrap_or_default());
    }
    Ok(found)
}

/// The kubelets' versions, by node.
async fn versions(tenant: &Tenant) -> anyhow::Result<BTreeMap<String, String>> {
    let nodes: Api<Node> = Api::all(tenant.workload("request").await?);
    let version = |node: &Node| Some(node.status.as_ref()?.node_info.as_ref()?.kubelet_version.clone());
    let all = nodes.list(&ListParams::default()).await?;
    Ok(all.iter().map(|node| (node.name_any(), version(node).unwrap_or_default())).collect())
}

/// A master and a worker, without a spare server.
async fn one_and_one(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "rise", 2).await?;
    let (from, to) = (kubernetes_version_before()?, kubernetes_version());
    tenant.apply(&request(&tenant, from, &[1], &[2]).await?).await?;
    until_at(&tenant, from).await?;
    let before = identities(&tenant).await?;

    tenant.apply(&request(&tenant, to, &[1], &[2]).await?).await?;
    let upgraded = until_at(&tenant, to).await?;
    let conditions = upgraded.status.context("no status")?.conditions;
    let told = find(&conditions, conditions::UPGRADED).context("no condition Upgraded")?;
    ensure!(told.status == "True", "Upgraded is {}: {}", told.status, told.message);
    let now = versions(&tenant).await?;
    ensure!(now.values().all(|version| version == to), "not all at {to}: {now:?}");
    let after = identities(&tenant).await?;
    ensure!(before == after, "replaced: before {before:?}, after {after:?}");

    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    assert_clean(&stack.servers).await
}
