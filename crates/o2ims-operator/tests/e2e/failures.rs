//! What goes wrong on a host is told by name, fails the request at its deadline, and is forgotten when it is mended.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use hostsim::Failure;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use o2ims_operator::provisioner::byoh::marks::MarkedHost;
use o2ims_types::{ProvisioningRequest, ProvisioningState as State, conditions, names};
use serde_json::json;
use testenv::ByohDialect;

use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Shared, States, Tenant, shared, wait};

pub fn scenarios() -> Vec<Scenario> {
    let during_creation: [(&str, u32, Failure, &str); 5] = [
        (
            "silent-master",
            1,
            Failure::Silent,
            "its agent has been given the bootstrap script and has not reported back yet",
        ),
        (
            "silent-worker",
            2,
            Failure::Silent,
            "its agent has been given the bootstrap script and has not reported back yet",
        ),
        ("broken-master", 1, Failure::Bootstrap, "bootstrap failed: CloudInitExecutionFailed"),
        ("broken-worker", 2, Failure::Bootstrap, "bootstrap failed: CloudInitExecutionFailed"),
        ("notready-worker", 2, Failure::NodeNotReady, "its node is not Ready"),
    ];
    let mut all: Vec<_> = during_creation
        .into_iter()
        .map(|(name, host, failure, words)| {
            shared(&format!("failing_host_{}", name.replace('-', "_")), move |stack| {
                creation(stack, name, host, failure, words)
            })
        })
        .collect();
    all.push(shared("a_host_that_cleans_slowly_keeps_the_request", |stack| {
        cleanup(stack, "slow", Failure::SlowCleanup(Duration::from_secs(15)))
    }));
    all.push(shared("a_host_that_never_cleans_is_told", |stack| cleanup(stack, "hanging", Failure::HangingCleanup)));
    all.push(
        shared("a_host_that_cleans_for_three_minutes_keeps_the_request", |stack| {
            cleanup(stack, "minutes", Failure::SlowCleanup(Duration::from_secs(180)))
        })
        .slow(),
    );
    all.push(shared("a_config_map_that_the_pod_network_lacks_is_told", missing_config_map));
    all.push(shared("a_dead_host_is_given_up_by_hand", dead_host));
    all.push(shared("a_node_may_be_away_for_a_while", away));
    all.push(shared("a_dead_worker_is_given_up_and_comes_back_clean", dead_worker));
    all.push(shared("a_deletion_gives_dead_hosts_up", dead_cluster));
    all.push(shared("an_agent_that_waits_for_an_installer_is_told", wrong_agent));
    all
}

/// The template's ClusterResourceSet names a ConfigMap that is created later.
async fn missing_config_map(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "no-config-map", 1).await?;
    let namespace = &tenant.namespace;
    let set = json!({
        "apiVersion": Kind::ClusterResourceSet.api_version(), "kind": Kind::ClusterResourceSet.name(),
        "metadata": {"name": "later", "namespace": namespace},
        "spec": {
            "strategy": "ApplyOnce", "clusterSelector": {"matchLabels": {"cni": "later"}},
            "resources": [{"kind": "ConfigMap", "name": "later"}],
        },
    });
    stack.management.apply_yaml(&set.to_string()).await?;
    tenant.template("later", json!({"cni": {"clusterResourceSet": "later"}})).await?;
    tenant.apply(&tenant.request_for("later", "request", &[1], &[])).await?;
    let told = format!("ClusterResourceSet {namespace}/later has not applied ConfigMap later to the cluster yet");
    tenant.until("request", State::Progressing, &told, CLUSTER).await?;

    let config_maps = Api::<ConfigMap>::namespaced(stack.management.admin(), namespace);
    let theirs = config_maps.get("cni").await?;
    let metadata = ObjectMeta { name: Some("later".to_owned()), ..ObjectMeta::default() };
    let later = ConfigMap { metadata, ..theirs };
    config_maps.create(&PostParams::default(), &later).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

async fn creation(stack: Shared, name: &str, broken: u32, failure: Failure, words: &str) -> Outcome {
    let tenant = Tenant::new(&stack, name, 2).await?;
    tenant.template("short", json!({"timeouts": {"controlPlane": "20s", "workers": "20s"}})).await?;
    let host = stack.site.host(&tenant.host(broken)).context("no host")?;
    // platform9's BYOH notices by itself that an agent is silent.
    let heartbeat = stack.management.byoh_dialect() == Some(ByohDialect::Platform9);
    let words = if failure == Failure::Silent && heartbeat { "is not alive: HeartbeatTimeout" } else { words };
    if heartbeat {
        // A host that was never heard of would not be taken at all.
        tenant.until_connected(broken).await?;
    }
    host.fail(failure);
    tenant.apply(&tenant.request_for("short", "request", &[1], &[2])).await?;
    let told = format!("host {broken} ({}): {words}", tenant.host(broken));
    // On a busy machine the deadline may pass before the host's turn comes; the reason is told then all the same.
    let failed = tenant.until("request", State::Failed, &told, CLUSTER).await?;
    let status = failed.status.context("no status")?;
    let stage = if broken == 1 { conditions::CONTROL_PLANE_READY } else { conditions::WORKERS_READY };
    for (type_, value) in [(stage, "False"), (conditions::READY, "False"), (conditions::STALLED, "True")] {
        let condition = status.conditions.iter().find(|condition| condition.type_ == type_).context("no condition")?;
        ensure!(
            condition.status == value && condition.reason == conditions::reason::DEADLINE_EXCEEDED
                || condition.type_ == conditions::READY,
            "{condition:?}"
        );
    }
    host.heal();
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

async fn cleanup(stack: Shared, name: &str, failure: Failure) -> Outcome {
    let tenant = Tenant::new(&stack, &format!("cleanup-{name}"), 2).await?;
    tenant.template("short", json!({"timeouts": {"deletion": "8s"}})).await?;
    let hangs = failure == Failure::HangingCleanup;
    tenant.apply(&tenant.request_for("short", "request", &[1], &[2])).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    let host = stack.site.host(&tenant.host(2)).context("no host")?;
    host.fail(failure);
    tenant.delete("request").await?;
    let told = format!("host 2 ({}) is being cleaned by its agent", tenant.host(2));
    tenant.until("request", State::Deleting, &told, CLUSTER).await?;
    let late = tenant.until("request", State::Deleting, "exceeded (spec.timeouts.deletion", CLUSTER).await?;
    let stalled = late.status.context("no status")?.conditions;
    ensure!(stalled.iter().any(|condition| condition.type_ == conditions::STALLED && condition.status == "True"));
    if hangs {
        host.heal();
    }
    tenant.until_gone("request", CLUSTER + Duration::from_secs(180)).await?;
    tenant.assert_hosts_free().await
}

/// The commands of "A host is dead" in docs/o2ims-operator.md, and why there are two.
async fn dead_host(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "deadhost", 2).await?;
    tenant.apply(&tenant.request("request", "site", &[1], &[2])).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    let dead = tenant.host(2);
    stack.site.host(&dead).context("no host")?.fail(Failure::Silent);
    tenant.delete("request").await?;
    tenant.until("request", State::Deleting, &format!("waiting for hosts: host 2 ({dead})"), CLUSTER).await?;

    let hosts = tenant.byohosts();
    let refused = hosts.delete(&dead, &DeleteParams::default()).await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("\"machineRef\":null")), "it was let go");
    let no_machine = Patch::Merge(json!({"status": {"machineRef": null}}));
    hosts.patch_status(&dead, &PatchParams::default(), &no_machine).await?;
    hosts.delete(&dead, &DeleteParams::default()).await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.until_host_free(1).await
}

/// A worker's server is off: told at once, and undone only after the time that the template gives it.
async fn away(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "away", 2).await?;
    tenant.template("short", json!({"timeouts": {"unreachable": "15s"}})).await?;
    tenant.apply(&tenant.request_for("short", "request", &[1], &[2])).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    let states = States::follow(&tenant, "request");
    let host = stack.site.host(&tenant.host(2)).context("no host")?;
    // It is back in time: no other state was seen.
    host.fail(Failure::Off);
    let told = format!("host 2 ({}): its node is not Ready since ", tenant.host(2));
    let away = tenant.until("request", State::Fulfilled, &told, CLUSTER).await?;
    let message = away.status.context("no status")?.provisioning_status.provisioning_message;
    ensure!(message.ends_with("; switch its server on, repair it, or remove the host from hosts.workers"), "{message}");
    host.heal();
    tenant.until_healthy("request", CLUSTER).await?;
    let seen = states.seen();
    ensure!(seen == [State::Fulfilled], "{seen:?}");

    host.fail(Failure::Off);
    tenant.until("request", State::Fulfilled, &told, CLUSTER).await?;
    tenant.until("request", State::Progressing, &told, CLUSTER).await?;
    host.heal();
    tenant.until_healthy("request", CLUSTER).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

/// The way of "It does not come back" in docs/o2ims-operator.md, for a worker.
async fn dead_worker(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "deadworker", 3).await?;
    tenant.apply(&tenant.request("request", "site", &[1], &[2])).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    let dead = tenant.host(2);
    let host = stack.site.host(&dead).context("no host")?;
    host.fail(Failure::Off);
    tenant.until("request", State::Fulfilled, &format!("host 2 ({dead}): its node is not Ready"), CLUSTER).await?;
    tenant.call_lost("request", &dead).await?;
    tenant.until("request", State::Fulfilled, &format!("names {dead}, which this request still names"), SOON).await?;
    tenant.apply(&tenant.request("request", "site", &[1], &[])).await?;
    let lost = |host: Option<&ByoHost>| host.is_some_and(MarkedHost::was_given_up);
    wait(tenant.byohosts(), &dead, "the host to be given up", CLUSTER, lost).await?;
    tenant.until_event("request", "HostGivenUp").await?;
    tenant.until("request", State::Fulfilled, "cluster is ready: 1 master, 0 workers", CLUSTER).await?;
    let carried_out = |request: Option<&ProvisioningRequest>| {
        request.is_some_and(|request| !request.annotations().contains_key(names::LOST_HOSTS_ANNOTATION))
    };
    wait(tenant.requests(), "request", "the annotation to be removed", SOON, carried_out).await?;
    ensure!(tenant.ready_nodes("site").await? == [tenant.host(1)], "the node is still there");

    // The next one that wants it waits until its agent has cleaned it.
    tenant.apply(&tenant.request("next", "next", &[3], &[2])).await?;
    let told = format!("host 2 ({dead}) was given up by ProvisioningRequest {}/request", tenant.namespace);
    tenant.until("next", State::Pending, &told, SOON).await?;
    host.heal();
    tenant.until("next", State::Fulfilled, "cluster is ready: 1 master, 1 worker", CLUSTER).await?;
    for request in ["request", "next"] {
        tenant.delete(request).await?;
    }
    for request in ["request", "next"] {
        tenant.until_gone(request, CLUSTER).await?;
    }
    tenant.assert_hosts_free().await
}

/// The same for the hosts of a request that is being deleted.
async fn dead_cluster(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "deadcluster", 2).await?;
    tenant.template("short", json!({"timeouts": {"deletion": "8s"}})).await?;
    let before = tenant.inventory().await?;
    tenant.apply(&tenant.request_for("short", "request", &[1], &[2])).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    let hosts: Vec<_> = [1, 2].into_iter().filter_map(|number| stack.site.host(&tenant.host(number))).collect();
    for host in &hosts {
        host.fail(Failure::Off);
    }
    tenant.delete("request").await?;
    let both = format!("{},{}", tenant.host(1), tenant.host(2));
    let command = format!("{}={both} --overwrite", names::LOST_HOSTS_ANNOTATION);
    tenant.until("request", State::Deleting, &command, CLUSTER).await?;
    tenant.call_lost("request", &both).await?;
    tenant.until_gone("request", CLUSTER).await?;
    for host in &hosts {
        let found = tenant.byohosts().get(host.name()).await?;
        ensure!(found.was_given_up() && found.is_unregistering() && found.holder().is_none(), "{found:?}");
        host.heal();
    }
    for number in [1, 2] {
        tenant.until_host_free(number).await?;
    }
    tenant.until_unmarked().await?;
    tenant.until_as_before(&before).await
}

/// `install.method: none` with an agent that was started without `--skip-installation`.
async fn wrong_agent(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "wrongagent", 0).await?;
    let mut host = hostsim::HostSpec::new(tenant.host(1), "1");
    host.namespace = Some(tenant.namespace.clone());
    host.skip_installation = false;
    stack.site.register(host).await?;
    tenant.apply(&tenant.request("request", "site", &[1], &[])).await?;
    let told = format!("host 1 ({}): its agent waits for an installer", tenant.host(1));
    tenant.until("request", State::Progressing, &told, CLUSTER).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER + SOON).await?;
    tenant.assert_hosts_free().await
}
