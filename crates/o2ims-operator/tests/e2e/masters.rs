//! Masters that are added, removed and exchanged.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_api::Kind;
use hostsim::Failure;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use o2ims_types::{ProvisioningRequest, ProvisioningState as State};
use sandbox::Stack;
use serde_json::{Value, json};
use testenv::servers::Server;

use crate::harness::{CLUSTER, Outcome, Scenario, Shared, Tenant, figure, on_servers, shared, wait};
use crate::servers::{ADDRESS, assert_clean, holder_of_address};
use crate::silence::Silence;

pub fn scenarios() -> Vec<Scenario> {
    vec![
        on_servers("masters_are_added_and_replaced_behind_an_address", behind_an_address).slow(),
        shared("masters_come_and_go_and_are_replaced", come_and_go),
    ]
}

/// A request for these masters behind an address, and workers.
fn request(tenant: &Tenant, address: &str, masters: &[u32], workers: &[u32]) -> Value {
    let mut request = tenant.request("request", "planes", masters, workers);
    request["spec"]["templateParameters"]["controlPlaneEndpoint"] = json!({"host": address});
    request
}

/// Waits until the request is fulfilled as it was last edited.
async fn until_fulfilled(tenant: &Tenant, limit: Duration) -> Outcome {
    let is_done = |request: Option<&ProvisioningRequest>| {
        let Some((request, status)) = request.and_then(|request| Some((request, request.status.as_ref()?))) else {
            return false;
        };
        status.provisioning_status.provisioning_state == State::Fulfilled
            && status.observed_generation == request.metadata.generation
    };
    wait(tenant.requests(), "request", "the request to be fulfilled", limit, is_done).await?;
    Ok(())
}

/// UIDs of the Machines by node.
async fn machines(tenant: &Tenant) -> anyhow::Result<BTreeMap<String, String>> {
    let machines = tenant.objects(Kind::Machine).list(&ListParams::default()).await?;
    let named = machines.iter().filter_map(|machine| {
        let node = machine.data["status"]["nodeRef"]["name"].as_str()?;
        Some((node.to_owned(), machine.uid()?))
    });
    Ok(named.collect())
}

/// Edits the masters and waits until they are there. What stays keeps its Machine, and what goes is free.
async fn change(tenant: &Tenant, address: &str, masters: &[u32], workers: &[u32], limit: Duration) -> Outcome {
    let before = machines(tenant).await?;
    tenant.apply(&request(tenant, address, masters, workers)).await?;
    until_fulfilled(tenant, limit).await?;
    let now = machines(tenant).await?;
    let wanted: Vec<_> = masters.iter().chain(workers).map(|number| tenant.host(*number)).collect();
    ensure!(now.len() == wanted.len() && wanted.iter().all(|host| now.contains_key(host)), "not {wanted:?}: {now:?}");
    for (host, machine) in &now {
        ensure!(before.get(host).is_none_or(|before| before == machine), "{host} was made anew: {before:?}, {now:?}");
    }
    let mut nodes: Vec<_> = Api::<Node>::all(tenant.workload("planes").await?)
        .list(&ListParams::default())
        .await?
        .iter()
        .map(Node::name_any)
        .collect();
    nodes.sort_unstable();
    ensure!(nodes.iter().eq(now.keys()), "the Nodes are {nodes:?}");
    Ok(())
}

/// With Cluster API's real controllers: 1, 3, 5, 3, one exchanged, one exchanged that is not healthy, all of them, 1. The worker stays.
async fn come_and_go(stack: Shared) -> Outcome {
    const ENDPOINT: &str = "127.88.0.7";
    let tenant = Tenant::new(&stack, "planes", 7).await?;
    let to = |masters: &'static [u32]| change(&tenant, ENDPOINT, masters, &[7], 2 * CLUSTER);
    tenant.apply(&request(&tenant, ENDPOINT, &[1], &[7])).await?;
    until_fulfilled(&tenant, CLUSTER).await?;
    // With an upgrade at once it is refused.
    let mut both = request(&tenant, ENDPOINT, &[1, 2, 3], &[7]);
    both["spec"]["templateParameters"]["k8sVersion"] = json!("v1.37.1");
    let refused = tenant.apply(&both).await.expect_err("it is accepted").to_string();
    ensure!(
        refused.contains("spec.templateParameters.hosts.masters cannot change from host 1 (planes-1) to"),
        "{refused}"
    );

    to(&[1, 2, 3]).await?;
    to(&[1, 2, 3, 4, 5]).await?;
    to(&[5, 2, 4]).await?;
    for number in [1, 3] {
        tenant.until_host_free(number).await?;
    }
    to(&[5, 1, 4]).await?;
    let sick = stack.site.host(&tenant.host(4)).context("no such host")?;
    sick.fail(Failure::NodeNotReady);
    tenant.until("request", State::Fulfilled, "(planes-4): its node is not Ready", CLUSTER).await?;
    to(&[5, 1, 6]).await?;
    sick.heal();
    // The only one of a control plane that has become small by way of three.
    to(&[1]).await?;
    tenant.until_host_free(4).await?;
    to(&[4]).await?;

    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

/// The number of a server.
fn number(tenant: &Tenant, server: &Server) -> anyhow::Result<u32> {
    let number = server.name().strip_prefix(&format!("{}-", tenant.namespace)).context("another server")?;
    Ok(number.parse()?)
}

/// On servers, with a stacked etcd and kube-vip: from one master to three, the one with the address is replaced, one is replaced whose power was cut, and
/// back to one.
async fn behind_an_address(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "planes", 4).await?;
    let limit = 3 * CLUSTER;
    tenant.apply(&request(&tenant, ADDRESS, &[1], &[])).await?;
    until_fulfilled(&tenant, CLUSTER).await?;
    let silence = Silence::of_the_api(&tenant, "planes").await?;
    change(&tenant, ADDRESS, &[1, 2, 3], &[], limit).await?;
    figure(&format!("from one master to three: the API was {}", silence.take()));

    let holder = number(&tenant, holder_of_address(stack).await?)?;
    let rest: Vec<u32> = (1..=3).filter(|number| *number != holder).collect();
    let [dead, other] = rest[..] else { anyhow::bail!("{rest:?}") };
    change(&tenant, ADDRESS, &[dead, 4, other], &[], limit).await?;
    figure(&format!("the master with the address is replaced: the API was {}", silence.take()));
    tenant.until_host_free(holder).await?;

    let server = stack.server(&tenant.host(dead))?;
    server.power_off().await?;
    let told = format!("({}): its node is not Ready", server.name());
    tenant.until("request", State::Fulfilled, &told, CLUSTER).await?;
    change(&tenant, ADDRESS, &[holder, 4, other], &[], 2 * limit).await?;
    figure(&format!("a master without power is replaced: the API was {}", silence.take()));
    tenant.until("request", State::Fulfilled, &format!("({}): is being cleaned", server.name()), CLUSTER).await?;
    server.power_on().await?;
    tenant.until_host_free(dead).await?;

    change(&tenant, ADDRESS, &[4], &[], limit).await?;
    figure(&format!("from three masters to one: the API was {}", silence.take()));
    drop(silence);
    let clean: Vec<_> = stack.servers.iter().filter(|server| server.name() != tenant.host(4)).cloned().collect();
    for number in (1..=3).filter(|number| *number != 4) {
        tenant.until_host_free(number).await?;
    }
    assert_clean(&clean).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    assert_clean(&stack.servers).await
}
