//! Maintenance windows of upgrades, and drains: before an upgrade, and of hosts that leave.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use o2ims_types::{ProvisioningState as State, conditions, names};
use operator_kit::write::status::find;
use sandbox::Stack;
use serde_json::{Value, json};
use testenv::{kubernetes_version, kubernetes_version_before};

use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Shared, Tenant, on_servers_of_two_versions, shared, wait};
use crate::lifecycle::installing;
use crate::upgrade_faults::end;
use crate::upgrades::{a_workload, identities, life, retry, until_at, versions};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared("an_upgrade_waits_for_its_maintenance_window", windows),
        shared("a_drain_that_a_budget_holds_up_ends_at_its_limit", limit),
        on_servers_of_two_versions("a_drain_before_an_upgrade_respects_a_budget", drains).slow(),
    ]
}

/// The window of a day that is far away, then one that begins soon: nobody has to do anything.
async fn windows(stack: Shared) -> Outcome {
    let (from, to) = ("v1.35.1", "v1.36.1");
    let (tenant, mut request) = installing(&stack, "windows", json!({"method": "installer"})).await?;
    request["metadata"]["name"] = json!("request");
    request["spec"]["templateParameters"]["clusterName"] = json!("request");
    let with = async |change: Value| {
        let mut spec = json!({"install": {"method": "installer"}});
        template_schema::overlay(&mut spec, change);
        tenant.template("installs", spec).await
    };
    for (change, field) in [
        (json!({"upgrade": {"windows": [{"start": "24:00", "duration": "4h"}]}}), "spec.upgrade.windows[0].start"),
        (json!({"upgrade": {"windows": [{"start": "22:00", "duration": "30s"}]}}), "duration must be from 1m to 168h"),
        (json!({"upgrade": {"windows": [{"start": "22:00", "duration": "169h"}]}}), "duration must be from 1m to 168h"),
        (
            json!({"upgrade": {"windows": [{"days": ["Monday"], "start": "22:00", "duration": "4h"}]}}),
            "spec.upgrade.windows[0].days[0]",
        ),
        (json!({"upgrade": {"drain": "Always"}}), "spec.upgrade.drain"),
        (json!({"timeouts": {"drain": "0s"}}), "timeouts.drain must be at least 1s; without it a drain has no limit"),
    ] {
        let refused = with(change.clone()).await.err().with_context(|| format!("{change} is accepted"))?;
        let refused = format!("{refused:#}");
        ensure!(refused.contains(field), "{change}: {refused}");
    }
    let mut at = async |version: &str| {
        request["spec"]["templateParameters"]["k8sVersion"] = json!(version);
        tenant.apply(&request).await.map(drop)
    };
    at(from).await?;
    until_at(&tenant, from).await?;
    let before = identities(&tenant).await?;

    let far = Timestamp::now() + SignedDuration::from_hours(72);
    let window = json!({"days": [far.strftime("%a").to_string()], "start": "12:30", "duration": "1m"});
    with(json!({"upgrade": {"windows": [window]}})).await?;
    at(to).await?;
    let words = |begin: Timestamp| {
        let host = tenant.host(1);
        format!("upgrading {from} to {to}: host 1 ({host}): waits for the maintenance window that begins at {begin} ")
    };
    let begin: Timestamp = format!("{}T12:30:00Z", far.strftime("%F")).parse()?;
    let waits = tenant.until("request", State::Progressing, &words(begin), CLUSTER).await?;
    let told = waits.status.context("no status")?.conditions;
    let told = find(&told, conditions::UPGRADED).context("no condition Upgraded")?;
    ensure!(
        told.status == "False" && told.reason == "WaitingForWindow",
        "Upgraded is {} ({})",
        told.status,
        told.reason
    );
    for host in tenant.byohosts().list(&ListParams::default()).await? {
        let job = host.annotations().get(names::JOB_ANNOTATION).cloned().unwrap_or_default();
        ensure!(job.starts_with("preflight-"), "{} has job {job:?}", host.name_any());
    }

    let soon = (Timestamp::now().as_second() / 60 + 1) * 60;
    let soon = Timestamp::from_second(if soon - Timestamp::now().as_second() < 15 { soon + 60 } else { soon })?;
    let window = json!({"start": soon.strftime("%H:%M").to_string(), "duration": "30m"});
    with(json!({"upgrade": {"windows": [window]}})).await?;
    tenant.until("request", State::Progressing, &words(soon), SOON).await?;
    until_at(&tenant, to).await?;
    ensure!(Timestamp::now() >= soon, "it has not waited until {soon}");
    let after = identities(&tenant).await?;
    ensure!(before == after, "replaced: before {before:?}, after {after:?}");
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

/// A pod whose budget allows no eviction.
async fn a_protected_pod(workload: &Client, node: &str) -> Outcome {
    let accounts: Api<ServiceAccount> = Api::namespaced(workload.clone(), "default");
    let account = serde_json::from_value(json!({"metadata": {"name": "web"}}))?;
    accounts.create(&PostParams::default(), &account).await?;
    let pods: Api<Pod> = Api::namespaced(workload.clone(), "default");
    let pod = json!({
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "nodeName": node, "serviceAccountName": "web", "automountServiceAccountToken": false,
            "containers": [{"name": "web", "image": "web"}],
        }
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    // No kubelet says it, and no budget protects a pod that does not run.
    let runs = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status("web", &PatchParams::default(), &Patch::Strategic(runs)).await?;
    let budget = a_budget(workload).await?;
    // Nor does a controller count what the budget protects.
    let counted = json!({"status": {
        "observedGeneration": budget.metadata.generation, "expectedPods": 1, "desiredHealthy": 1, "currentHealthy": 1, "disruptionsAllowed": 0,
    }});
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(workload.clone(), "default");
    budgets.patch_status("web", &PatchParams::default(), &Patch::Merge(counted)).await?;
    Ok(())
}

async fn a_budget(workload: &Client) -> anyhow::Result<PodDisruptionBudget> {
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(workload.clone(), "default");
    let budget = json!({
        "metadata": {"name": "web"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    });
    Ok(budgets.create(&PostParams::default(), &serde_json::from_value(budget)?).await?)
}

/// The drain of a worker that leaves. Its template gets a limit while it is held up, which does nothing to the nodes that stay.
async fn limit(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "limit", 3).await?;
    tenant.template("limits", json!({})).await?;
    let request = |workers: &[u32]| tenant.request_for("limits", "request", &[1], workers);
    tenant.apply(&request(&[2, 3])).await?;
    tenant.until("request", State::Fulfilled, "2 workers", CLUSTER).await?;
    let workload = tenant.workload("request").await?;
    a_protected_pod(&workload, &tenant.host(2)).await?;
    tenant.apply(&request(&[3])).await?;
    let held = "the drain of its node waits for Pod default/web (PodDisruptionBudget web does not allow the eviction)";
    wait_for_message(&tenant, held).await?;
    let stays = tenant.objects(cluster_api::Kind::Machine).list(&ListParams::default()).await?;
    let stays: BTreeSet<_> = stays
        .iter()
        .filter(|machine| machine.metadata.deletion_timestamp.is_none())
        .map(|machine| (machine.name_any(), machine.uid()))
        .collect();
    tenant.template("limits", json!({"timeouts": {"drain": "3s"}})).await?;
    let is_gone = |node: Option<&Node>| node.is_none();
    wait(Api::<Node>::all(workload), &tenant.host(2), "the node to be gone", CLUSTER, is_gone).await?;
    tenant.until("request", State::Fulfilled, "cluster is ready: 1 master, 1 worker", CLUSTER).await?;
    let left = tenant.objects(cluster_api::Kind::Machine).list(&ListParams::default()).await?;
    let left: BTreeSet<_> = left.iter().map(|machine| (machine.name_any(), machine.uid())).collect();
    ensure!(left == stays, "the Machines were {stays:?}, and are {left:?}");
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

/// Waits until the message of the request has these words, in whichever state.
async fn wait_for_message(tenant: &Tenant, words: &str) -> Outcome {
    let has = |request: Option<&o2ims_types::ProvisioningRequest>| {
        let status = request.and_then(|request| request.status.as_ref());
        status.is_some_and(|status| status.provisioning_status.provisioning_message.contains(words))
    };
    wait(tenant.requests(), "request", words, CLUSTER, has).await?;
    Ok(())
}

/// The nodes that are cordoned, and whether a job has done that.
async fn cordoned(nodes: &Api<Node>) -> anyhow::Result<Vec<(String, bool)>> {
    let all = nodes.list(&ListParams::default()).await?;
    let is_cordoned = |node: &&Node| node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let by_job = |node: &Node| node.annotations().contains_key("o2ims.provisioning.oran.org/cordoned");
    ensure!(all.iter().filter(|node| by_job(node)).all(|node| is_cordoned(&node)), "a mark was left on a node");
    Ok(all.iter().filter(is_cordoned).map(|node| (node.name_any(), by_job(node))).collect())
}

/// The pod of a Deployment that would rather be on this node, once it runs; it is not `before`.
async fn pod_of_web(workload: &Client, before: Option<&Pod>) -> anyhow::Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(workload.clone(), "default");
    let found = async {
        let mut pace = tokio::time::interval(Duration::from_millis(500));
        loop {
            pace.tick().await;
            let Ok(all) = pods.list(&ListParams::default().labels("app=web")).await else { continue };
            let is_ready = |pod: &Pod| {
                let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                pod.metadata.deletion_timestamp.is_none()
                    && conditions.into_iter().any(|told| told.type_ == "Ready" && told.status == "True")
            };
            let mut others = all.into_iter().filter(|pod| before.is_none_or(|before| before.uid() != pod.uid()));
            if let Some(pod) = others.find(is_ready) {
                return pod;
            }
        }
    };
    tokio::time::timeout(CLUSTER, found).await.context("no pod of Deployment web is Ready")
}

/// A master and three workers, the last of which its administrator has cordoned. A budget stops the upgrade before the first worker is changed. When it is
/// gone the pods move, what nothing would create again stays, and every node takes pods that took them before.
async fn drains(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "drain", 4).await?;
    let (from, to) = (kubernetes_version_before()?, kubernetes_version());
    let spec = json!({
        "install": {"installer": {"source": "files"}}, "upgrade": {"drain": "WhenPossible"}, "timeouts": {"drain": "30s"},
    });
    tenant.template("drains", spec).await?;
    let at = async |version: &str| {
        let mut request = tenant.request_for("drains", "request", &[1], &[2, 3, 4]);
        request["spec"]["templateParameters"]["k8sVersion"] = json!(version);
        tenant.apply(&request).await.map(drop)
    };
    at(from).await?;
    until_at(&tenant, from).await?;
    let (first, last) = (stack.server(&tenant.host(2))?, tenant.host(4));
    let workload = tenant.workload("request").await?;
    let nodes: Api<Node> = Api::all(workload.clone());
    let cordon = |is_cordoned: bool| Patch::Merge(json!({"spec": {"unschedulable": is_cordoned}}));
    nodes.patch(&last, &PatchParams::default(), &cordon(true)).await?;

    let (pods, alone) = a_workload(&tenant, first).await?;
    let image = alone.spec.as_ref().context("no spec")?.containers[0].image.clone();
    let near = json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": {"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": [first.name()]},
    ]}}]});
    let web = json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "affinity": {"nodeAffinity": near}, "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "web", "image": image, "imagePullPolicy": "Never", "args": ["-dns.port=1054"]}],
                }
            }
        }
    });
    let deployments: Api<Deployment> = Api::namespaced(workload.clone(), "default");
    deployments.create(&PostParams::default(), &serde_json::from_value(web)?).await?;
    let here = pod_of_web(&workload, None).await?;
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    ensure!(node(&here) == first.name(), "web runs on {}", node(&here));
    a_budget(&workload).await?;
    let before = identities(&tenant).await?;

    at(to).await?;
    let held =
        format!("waits for pod default/{} (PodDisruptionBudget web does not allow the eviction)", here.name_any());
    let running = format!("host 2 ({}): 3 of 6: draining the node: {held}", first.name());
    tenant.until("request", State::Progressing, &running, 4 * CLUSTER).await?;
    ensure!(cordoned(&nodes).await? == [(first.name().to_owned(), true), (last.clone(), false)]);
    let told = format!(
        "the upgrade to {to} has stopped at host 2 ({}): the node was not drained within 30 s (spec.timeouts.drain of the ClusterTemplate): it {held}",
        first.name()
    );
    tenant.until("request", State::Failed, &told, CLUSTER).await?;
    ensure!(cordoned(&nodes).await? == [(last.clone(), false)], "the node stays cordoned");
    ensure!(versions(&tenant).await?[first.name()] == from, "the worker was changed");
    let still = pods.get(&here.name_any()).await?;
    ensure!(still.uid() == here.uid() && still.metadata.deletion_timestamp.is_none(), "the pod was evicted");

    let budgets: Api<PodDisruptionBudget> = Api::namespaced(workload.clone(), "default");
    budgets.delete("web", &DeleteParams::default()).await?;
    retry(&tenant, &told).await?;
    until_at(&tenant, to).await?;
    ensure!(cordoned(&nodes).await? == [(last.clone(), false)], "not as before");
    pod_of_web(&workload, Some(&here)).await?;
    let (was, is) = (life(&alone), life(&pods.get(&alone.name_any()).await?));
    ensure!(was == is, "the pod without a controller was {was:?} and is {is:?}");
    nodes.patch(&last, &PatchParams::default(), &cordon(false)).await?;
    end(stack, &tenant, &before).await
}
