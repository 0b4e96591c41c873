//! Upgrades that reset hosts, and masters that die in the middle of an upgrade.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use hostsim::Failure;
use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams};
use o2ims_operator::provisioner::byoh::marks::MarkedHost as _;
use o2ims_types::{ProvisioningRequest, ProvisioningState as State, conditions, names};
use operator_kit::write::status::find;
use sandbox::Stack;
use serde_json::{Value, json};
use testenv::{kubernetes_version, kubernetes_version_before};

use crate::harness::{
    CLUSTER, Outcome, SOON, Scenario, Shared, Tenant, figure, on_servers_of_two_versions, shared, wait,
};
use crate::lifecycle::with_installing_hosts;
use crate::servers::{ADDRESS, assert_clean};
use crate::silence::Silence;
use crate::upgrades::{identities, request, until_at, versions};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        on_servers_of_two_versions("three_masters_and_a_worker_are_reset_for_an_upgrade", on_servers).slow(),
        shared("hosts_are_reset_one_after_the_other_for_an_upgrade", one_after_the_other),
        shared("a_master_that_dies_in_an_upgrade_is_exchanged", dead_master),
    ]
}

const FROM: &str = "v1.35.1";
const TO: &str = "v1.36.1";

/// A request of the template `installs`, behind this address.
fn of_template(tenant: &Tenant, address: &str, version: &str, masters: &[u32], workers: &[u32]) -> Value {
    let mut request = tenant.request_for("installs", "request", masters, workers);
    request["spec"]["templateParameters"]["controlPlaneEndpoint"] = json!({"host": address});
    request["spec"]["templateParameters"]["k8sVersion"] = json!(version);
    request
}

/// UID and version of the Machines of a cluster, by node.
async fn machines(tenant: &Tenant, cluster: &str) -> anyhow::Result<BTreeMap<String, (String, String)>> {
    let of_cluster = ListParams::default().labels(&format!("cluster.x-k8s.io/cluster-name={cluster}"));
    let machines = tenant.objects(Kind::Machine).list(&of_cluster).await?;
    let named = machines.iter().filter_map(|machine| {
        let node = machine.data["status"]["nodeRef"]["name"].as_str()?;
        let version = machine.data["spec"]["version"].as_str()?;
        Some((node.to_owned(), (machine.uid()?, version.to_owned())))
    });
    Ok(named.collect())
}

async fn annotate(tenant: &Tenant, annotation: &str, value: Option<&str>) -> Outcome {
    let patch = json!({"metadata": {"annotations": {annotation: value}}});
    tenant.requests().patch("request", &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// Waits until the condition `Upgraded` is True.
async fn until_upgraded(tenant: &Tenant) -> Outcome {
    let is_upgraded = |request: Option<&ProvisioningRequest>| {
        let conditions = request.and_then(|request| request.status.as_ref()).map(|status| status.conditions.as_slice());
        find(conditions.unwrap_or_default(), conditions::UPGRADED).is_some_and(|told| told.status == "True")
    };
    wait(tenant.requests(), "request", "Upgraded to be True", 2 * CLUSTER, is_upgraded).await?;
    Ok(())
}

/// With Cluster API's real controllers: what is to be reset is in the plan; then every host of the request, and no other, is reset and becomes a node again
/// at the new version. The worker waits for its owner's word.
async fn one_after_the_other(stack: Shared) -> Outcome {
    const ENDPOINT: &str = "127.88.0.21";
    let tenant = with_installing_hosts(&stack, "rolls", 6).await?;
    let upgrade = json!({"strategy": "Rolling", "pauseAfter": "ControlPlane"});
    let refused = tenant.template("bare", json!({"install": {"method": "none"}, "upgrade": upgrade})).await;
    let refused = format!("{:#}", refused.expect_err("nothing would reset a server"));
    ensure!(refused.contains("upgrade.strategy Rolling needs install.method installer or bundle"), "{refused}");
    let install = json!({"method": "installer"});
    tenant.template("installs", json!({"install": install, "upgrade": upgrade})).await?;
    let at =
        async |version: &str| tenant.apply(&of_template(&tenant, ENDPOINT, version, &[1, 2, 3], &[4])).await.map(drop);
    tenant.apply(&tenant.request_for("installs", "other", &[5], &[6])).await?;
    at(FROM).await?;
    until_at(&tenant, FROM).await?;
    tenant.until("other", State::Fulfilled, "", CLUSTER).await?;
    let (before, other) = (machines(&tenant, "request").await?, machines(&tenant, "other").await?);
    ensure!(before.len() == 4 && other.len() == 2, "{before:?}, {other:?}");

    annotate(&tenant, names::PLAN_ANNOTATION, Some("true")).await?;
    at(TO).await?;
    let planned = |request: Option<&ProvisioningRequest>| {
        let plan = request.and_then(|request| request.status.as_ref()).map(|status| status.extensions.plan.as_slice());
        plan.is_some_and(|plan| plan.len() == 4 && plan.iter().all(|change| change.action == "Reinstall"))
    };
    wait(tenant.requests(), "request", "a plan that names every reset", SOON, planned).await?;
    annotate(&tenant, names::PLAN_ANNOTATION, None).await?;

    let told =
        format!("by resetting one host after the other: host 4 ({}) waits: spec.upgrade.pauseAfter", tenant.host(4));
    tenant.until("request", State::Progressing, &told, 4 * CLUSTER).await?;
    let half = machines(&tenant, "request").await?;
    for (host, (uid, version)) in &half {
        let is_worker = *host == tenant.host(4);
        ensure!((before[host].0 == *uid) == is_worker && (version == FROM) == is_worker, "{before:?}, {half:?}");
    }
    annotate(&tenant, names::CONTINUE_ANNOTATION, Some(TO)).await?;
    until_at(&tenant, TO).await?;

    let after = machines(&tenant, "request").await?;
    ensure!(after.keys().eq(before.keys()), "the hosts are {after:?}");
    for (host, (uid, version)) in &after {
        ensure!(before[host].0 != *uid && version == TO, "{host} was not reset: {before:?}, {after:?}");
    }
    let nodes = versions(&tenant).await?;
    ensure!(nodes.len() == 4 && nodes.values().all(|version| version == TO), "the nodes are {nodes:?}");
    ensure!(machines(&tenant, "other").await? == other, "another cluster was touched");
    for request in ["request", "other"] {
        tenant.delete(request).await?;
    }
    for request in ["request", "other"] {
        tenant.until_gone(request, CLUSTER).await?;
    }
    tenant.assert_hosts_free().await
}

/// The second of three masters dies for good when the first one is upgraded. At its owner's word it is passed over; the others keep their Machines, and it
/// is exchanged for a spare host afterwards.
async fn dead_master(stack: Shared) -> Outcome {
    const ENDPOINT: &str = "127.88.0.22";
    let tenant = with_installing_hosts(&stack, "dies", 5).await?;
    let template = json!({"install": {"method": "installer"}, "upgrade": {"pauseAfter": "EachHost"}});
    tenant.template("installs", template).await?;
    tenant.apply(&of_template(&tenant, ENDPOINT, FROM, &[1, 2, 3], &[4])).await?;
    until_at(&tenant, FROM).await?;
    let before = machines(&tenant, "request").await?;
    tenant.apply(&of_template(&tenant, ENDPOINT, TO, &[1, 2, 3], &[4])).await?;
    let dead = tenant.host(2);
    let told = format!("upgrading {FROM} to {TO}: host 2 ({dead}): waits: spec.upgrade.pauseAfter");
    tenant.until("request", State::Progressing, &told, 2 * CLUSTER).await?;

    let server = stack.site.host(&dead).context("no such host")?;
    server.fail(Failure::Off);
    let advice =
        format!("; if {dead} does not come back, switch it off, then have the upgrade pass over it: kubectl annotate");
    tenant.until("request", State::Progressing, &advice, CLUSTER).await?;
    annotate(&tenant, names::CONTINUE_ANNOTATION, Some(TO)).await?;
    tenant.until("request", State::Progressing, &format!("host 2 ({dead}): waits: "), SOON).await?;
    let refused = tenant.apply(&of_template(&tenant, ENDPOINT, TO, &[1, 5, 3], &[4])).await;
    let refused = refused.expect_err("masters change in an upgrade").to_string();
    ensure!(refused.contains("condition Upgraded is False"), "{refused}");

    tenant.call_lost("request", &dead).await?;
    until_upgraded(&tenant).await?;
    let half = machines(&tenant, "request").await?;
    for (host, (uid, version)) in &half {
        ensure!(before[host].0 == *uid && version == TO, "{host} was replaced, or is behind: {before:?}, {half:?}");
    }
    let nodes = versions(&tenant).await?;
    let outdated: Vec<_> = nodes.iter().filter(|(_, version)| *version != TO).map(|(node, _)| node.as_str()).collect();
    ensure!(outdated == [dead.as_str()], "the nodes are {nodes:?}");

    tenant.apply(&of_template(&tenant, ENDPOINT, TO, &[1, 5, 3], &[4])).await?;
    let given_up = |host: Option<&ByoHost>| host.is_some_and(ByoHost::was_given_up);
    wait(tenant.byohosts(), &dead, "the host to be given up", 2 * CLUSTER, given_up).await?;
    until_at(&tenant, TO).await?;
    let after = machines(&tenant, "request").await?;
    let hosts = [1, 3, 4, 5].map(|number| tenant.host(number));
    ensure!(after.keys().eq(hosts.iter()), "the hosts are {after:?}");
    let kept = after.iter().filter(|(host, _)| **host != tenant.host(5));
    for (host, (uid, _)) in kept {
        ensure!(before[host].0 == *uid, "{host} was made anew: {before:?}, {after:?}");
    }
    let nodes = versions(&tenant).await?;
    ensure!(nodes.len() == 4 && nodes.values().all(|version| version == TO), "the nodes are {nodes:?}");
    server.heal();
    tenant.until_host_free(2).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

/// On servers: a stacked etcd loses and gets each of its members, and the address moves from one master to another.
async fn on_servers(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "reset", 4).await?;
    let (from, to) = (kubernetes_version_before()?, kubernetes_version());
    let at = async |version: &str| {
        let mut request = request(&tenant, version, &[1, 2, 3], &[4]).await?;
        let rolling = json!({"install": {"installer": {"source": "files"}}, "upgrade": {"strategy": "Rolling"}});
        tenant.template("folders", rolling).await?;
        request["spec"]["templateParameters"]["controlPlaneEndpoint"] = json!({"host": ADDRESS});
        tenant.apply(&request).await?;
        anyhow::Ok(())
    };
    at(from).await?;
    until_at(&tenant, from).await?;
    let before = identities(&tenant).await?;
    let silence = Silence::of_the_api(&tenant, "request").await?;
    at(to).await?;
    let limit = 12 * CLUSTER;
    let is_at = |request: Option<&ProvisioningRequest>| {
        let status = request.and_then(|request| request.status.as_ref());
        status.is_some_and(|status| {
            status.provisioning_status.provisioning_state == State::Fulfilled
                && status.extensions.k8s_version.as_deref() == Some(to)
        })
    };
    wait(tenant.requests(), "request", "every server to be reset", limit, is_at).await?;
    figure(&format!("3 masters and a worker are reset, {from} to {to}: the API was {}", silence.take()));
    drop(silence);
    let nodes = versions(&tenant).await?;
    ensure!(nodes.len() == 4 && nodes.values().all(|version| version == to), "the nodes are {nodes:?}");
    let after = identities(&tenant).await?;
    for (object, uid) in &after {
        let stays = object.starts_with(Kind::ByoHost.name());
        let was = before.get(object);
        ensure!(was.is_none_or(|was| (was == uid) == stays), "{object} was {was:?} and is {uid}");
    }
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    assert_clean(&stack.servers).await
}
