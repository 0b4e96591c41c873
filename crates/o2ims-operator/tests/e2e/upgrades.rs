//! Upgrades of Kubernetes on real servers, in place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use cluster_api::Kind;
use futures::StreamExt as _;
use hostsim::Failure;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use o2ims_types::{ProvisioningRequest, ProvisioningState as State, conditions, names};
use operator_kit::write::status::find;
use sandbox::Stack;
use serde_json::{Value, json};
use testenv::servers::Server;
use testenv::{kubernetes_version, kubernetes_version_before};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::harness::{
    CLUSTER, Outcome, SOON, Scenario, Shared, Tenant, figure, on_servers_of_two_versions, shared, wait,
};
use crate::lifecycle::installing;
use crate::servers::{ADDRESS, assert_clean};
use crate::silence::Silence;
use crate::support;

pub fn scenarios() -> Vec<Scenario> {
    vec![
        on_servers_of_two_versions("a_cluster_is_upgraded_on_its_own_servers", one_and_one),
        on_servers_of_two_versions("three_masters_are_upgraded_behind_their_address", three_and_one).slow(),
        on_servers_of_two_versions("a_lone_master_is_upgraded_as_by_hand", beside_kubeadm).slow(),
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
            // After an error the watch begins anew.
            while let Some(event) = events.next().await {
                list.lock().expect("not poisoned").extend(event.map(|machine| machine.name_any()));
            }
        });
        Self { seen, task }
    }

    fn seen(self) -> BTreeSet<String> {
        self.task.abort();
        self.seen.lock().expect("not poisoned").clone()
    }
}

/// Every hop that is supported, with Cluster API's real controllers: they make no other Machine at any time. Two of them are one edit. A job that fails
/// stops the upgrade, and goes on when its owner says so.
async fn hop_by_hop(stack: Shared) -> Outcome {
    let versions = ["v1.33.1", "v1.34.1", "v1.35.1", "v1.36.1", "v1.37.1"];
    let (tenant, mut request) = installing(&stack, "hops", json!({"method": "installer"})).await?;
    request["metadata"]["name"] = json!("request");
    request["spec"]["templateParameters"]["clusterName"] = json!("request");
    let mut at = async |version: &str| {
        request["spec"]["templateParameters"]["k8sVersion"] = json!(version);
        tenant.apply(&request).await.map(drop)
    };
    at(versions[0]).await?;
    until_at(&tenant, versions[0]).await?;
    let (before, machines) = (identities(&tenant).await?, Machines::follow(&tenant));
    at(versions[2]).await?;
    let told = "Kubernetes is upgraded by one minor version at a time; add a v1.34 to spec.upgrade.versions of the ClusterTemplate";
    tenant.until("request", State::Failed, told, SOON).await?;
    tenant
        .template("installs", json!({"upgrade": {"versions": [versions[1]]}, "install": {"method": "installer"}}))
        .await?;
    until_at(&tenant, versions[2]).await?;

    let refused = at("v1.34.1").await.expect_err("it is accepted").to_string();
    let told = "spec.templateParameters.k8sVersion cannot change from \"v1.35.1\" to \"v1.34.1\"";
    ensure!(refused.contains(told), "{refused}");

    let worker = tenant.host(2);
    stack.site.host(&worker).context("no such host")?.fail(Failure::Job);
    at(versions[3]).await?;
    let told =
        format!("the upgrade to v1.36.1 has not begun, and no host was changed: host 2 ({worker}): simulated failure");
    tenant.until("request", State::Failed, &told, CLUSTER).await?;
    stack.site.host(&worker).context("no such host")?.heal();
    retry(&tenant, &told).await?;
    until_at(&tenant, versions[3]).await?;
    at(versions[4]).await?;
    until_at(&tenant, versions[4]).await?;

    let after = identities(&tenant).await?;
    ensure!(before == after, "replaced: before {before:?}, after {after:?}");
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    let seen = machines.seen();
    ensure!(seen.len() == 2, "other Machines were made: {seen:?}");
    tenant.assert_hosts_free().await
}

/// A request for a cluster of this version, whose hosts find every version in a folder of its own.
pub async fn request(tenant: &Tenant, version: &str, masters: &[u32], workers: &[u32]) -> anyhow::Result<Value> {
    tenant.template("folders", json!({"install": {"installer": {"source": "files"}}})).await?;
    let mut request = tenant.request_for("folders", "request", masters, workers);
    request["spec"]["templateParameters"]["k8sVersion"] = json!(version);
    Ok(request)
}

/// Waits until the request is fulfilled as it was last edited, at this version.
pub async fn until_at(tenant: &Tenant, version: &str) -> anyhow::Result<ProvisioningRequest> {
    let what = format!("the request to be fulfilled at {version}");
    let is_at = |request: Option<&ProvisioningRequest>| {
        let Some((request, status)) = request.and_then(|request| Some((request, request.status.as_ref()?))) else {
            return false;
        };
        status.provisioning_status.provisioning_state == State::Fulfilled
            && status.observed_generation == request.metadata.generation
            && status.extensions.k8s_version.as_deref() == Some(version)
    };
    wait(tenant.requests(), "request", &what, 4 * CLUSTER, is_at).await?.context("the request is gone")
}

/// Waits until the upgrade has stopped with these words, and carries out the command of its message that tries again.
pub async fn retry(tenant: &Tenant, told: &str) -> Outcome {
    let halted = tenant.until("request", State::Failed, told, 2 * CLUSTER).await?;
    let message = halted.status.context("no status")?.provisioning_status.provisioning_message;
    let ids = message.split_once("/retry=").and_then(|(_, rest)| rest.split(' ').next()).context("no command")?;
    let patch = json!({"metadata": {"annotations": {names::RETRY_ANNOTATION: ids}}});
    tenant.requests().patch("request", &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// The UIDs of everything that an upgrade in place must leave: Machines, hosts and Nodes, by kind and name.
pub async fn identities(tenant: &Tenant) -> anyhow::Result<BTreeMap<String, String>> {
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
pub async fn versions(tenant: &Tenant) -> anyhow::Result<BTreeMap<String, String>> {
    let nodes: Api<Node> = Api::all(tenant.workload("request").await?);
    let version = |node: &Node| Some(node.status.as_ref()?.node_info.as_ref()?.kubelet_version.clone());
    let all = nodes.list(&ListParams::default()).await?;
    Ok(all.iter().map(|node| (node.name_any(), version(node).unwrap_or_default())).collect())
}

/// The port of [`a_workload`] on its server.
const WORKLOAD_PORT: u16 = 1053;

/// A pod on this server that answers at a port of the server, and whose data are on the server only.
pub async fn a_workload(tenant: &Tenant, server: &Server) -> anyhow::Result<(Api<Pod>, Pod)> {
    let image = "ctr --namespace k8s.io images list --quiet | grep '/coredns:' | head -n 1";
    let image = server.run(&["bash", "-c", image]).await?.trim().to_owned();
    let pods: Api<Pod> = Api::namespaced(tenant.workload("request").await?, "default");
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "workload"},
        "spec": {
            "nodeName": server.name(), "hostNetwork": true,
            "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [{
                "name": "workload", "image": image, "imagePullPolicy": "Never", "args": [format!("-dns.port={WORKLOAD_PORT}")],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
        }
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let runs = |pod: Option<&Pod>| {
        pod.and_then(|pod| pod.status.as_ref()?.phase.clone()).is_some_and(|phase| phase == "Running")
    };
    let running = wait(pods.clone(), "workload", "a workload to run", CLUSTER, runs).await?.context("no workload")?;
    Ok((pods, running))
}

/// Who a pod is, and how often its containers were started again.
pub fn life(pod: &Pod) -> (Option<String>, i32) {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    (pod.uid(), containers.map(|container| container.restart_count).sum())
}

/// Upgrades a cluster of this size. Its objects, its hosts and a workload on its last server stay; what did not answer, and for how long, is printed.
async fn upgrade_of(
    stack: &Stack,
    tenant: &Tenant,
    masters: &[u32],
    workers: &[u32],
    endpoint: Option<&str>,
) -> Outcome {
    let (from, to) = (kubernetes_version_before()?, kubernetes_version());
    let at = async |version: &str| {
        let mut request = request(tenant, version, masters, workers).await?;
        if let Some(endpoint) = endpoint {
            request["spec"]["templateParameters"]["controlPlaneEndpoint"] = json!({"host": endpoint});
        }
        tenant.apply(&request).await?;
        until_at(tenant, version).await
    };
    at(from).await?;
    support::a_snapshot_is_taken(tenant, stack.server(&tenant.host(masters[0]))?).await?;
    let last = workers.last().or(masters.last()).context("no host")?;
    let server = stack.server(&tenant.host(*last))?;
    let (pods, workload) = a_workload(tenant, server).await?;
    let (before, machines) = (identities(tenant).await?, Machines::follow(tenant));
    let address = (server.address(), WORKLOAD_PORT);
    let of_workload = Silence::of(move || async move { TcpStream::connect(address).await.is_ok() });
    let (of_the_api, begin) = (Silence::of_the_api(tenant, "request").await?, Instant::now());
    let upgraded = at(to).await?;
    figure(&format!(
        "{} masters, {} workers, {from} to {to}: {:.0?}; the API was {}; a workload was {}",
        masters.len(),
        workers.len(),
        begin.elapsed(),
        of_the_api.take(),
        of_workload.take()
    ));
    let conditions = upgraded.status.context("no status")?.conditions;
    let told = find(&conditions, conditions::UPGRADED).context("no condition Upgraded")?;
    ensure!(told.status == "True", "Upgraded is {}: {}", told.status, told.message);
    let now = versions(tenant).await?;
    ensure!(now.values().all(|version| version == to), "not all at {to}: {now:?}");
    let after = identities(tenant).await?;
    ensure!(before == after, "replaced: before {before:?}, after {after:?}");
    let (was, is) = (life(&workload), life(&pods.get("workload").await?));
    ensure!(was == is, "the workload was {was:?} and is {is:?}");

    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    let seen = machines.seen();
    ensure!(seen.len() == masters.len() + workers.len(), "other Machines were made: {seen:?}");
    tenant.assert_hosts_free().await?;
    assert_clean(&stack.servers).await
}

/// A master and a worker, without a spare server.
async fn one_and_one(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "rise", 2).await?;
    upgrade_of(stack, &tenant, &[1], &[2], None).await
}

/// Three masters, one after the other, behind a virtual address.
async fn three_and_one(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "rise", 4).await?;
    upgrade_of(stack, &tenant, &[1, 2, 3], &[4], Some(ADDRESS)).await
}

/// What an administrator does by hand on an only master. FROM and TO stand for the versions, HOST for the node.
const BY_HAND: &str = r#"
set -euo pipefail
export KUBECONFIG=/etc/kubernetes/admin.conf
files=/opt/kubernetes/TO
kubectl -n kube-system get configmap kubeadm-config -o yaml | sed '/ControlPlaneKubeletLocalMode/d; /featureGates:$/d' | kubectl replace -f - >/dev/null
"$files/kubeadm" upgrade apply TO --yes --ignore-preflight-errors=SystemVerification >/dev/null
ln -sfn "$files/kubelet" /usr/local/bin/kubelet
systemctl restart kubelet
ready='{.status.nodeInfo.kubeletVersion} {.status.conditions[?(@.type=="Ready")].status}'
timeout 300 bash -c "until [ \"\$(kubectl get node HOST -o 'jsonpath=$ready')\" = 'TO True' ]; do sleep 0.5; done"
"#;

/// The only master of a site: by the operator, and then, as a cluster of its own on the same server, by hand. How much longer the one takes is printed.
async fn beside_kubeadm(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "lone", 1).await?;
    upgrade_of(stack, &tenant, &[1], &[], None).await?;

    let (from, to) = (kubernetes_version_before()?, kubernetes_version());
    tenant.apply(&request(&tenant, from, &[1], &[]).await?).await?;
    until_at(&tenant, from).await?;
    let server = stack.server(&tenant.host(1))?;
    let script = BY_HAND.replace("HOST", server.name()).replace("TO", to);
    let begin = Instant::now();
    server.run(&["bash", "-c", &script]).await?;
    figure(&format!("by hand: {:.0?}", begin.elapsed()));
    let now = versions(&tenant).await?;
    ensure!(now.values().all(|version| version == to), "not at {to}: {now:?}");
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    assert_clean(&stack.servers).await
}
