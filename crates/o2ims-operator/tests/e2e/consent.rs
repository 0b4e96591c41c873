//! A running cluster lives through what befalls its objects: nothing is reset, rolled or made anew unless its owner says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use cluster_api::Kind;
use cluster_api::byoh::{ByoHost, UNREGISTERING_ANNOTATION};
use cluster_api::labels::PAUSED_ANNOTATION;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt as _};
use o2ims_operator::provisioner::byoh::marks::MarkedHost as _;
use o2ims_types::{ProvisioningRequest, ProvisioningState as State, conditions, names};
use operator_kit::write::status::find;
use sandbox::Stack;
use sandbox::requests::force_away;
use serde_json::{Value, json};
use testenv::servers::Server;

use crate::harness::{CLUSTER, OPERATOR_USER, Outcome, SOON, Scenario, Shared, Tenant, on_servers, shared, wait};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared("a_cluster_that_vanishes_is_left_alone_until_its_owner_speaks", vanishes),
        shared("a_restored_request_takes_its_cluster_back", restored),
        shared("a_cluster_that_lost_its_control_plane_is_told_and_taken_down", headless),
        shared("a_pause_is_told_and_nothing_is_done", paused),
        shared("a_control_plane_cannot_be_scaled_or_rolled_without_hosts", scaled),
        on_servers("servers_live_through_what_befalls_their_objects", servers_live).slow(),
    ]
}

async fn merge(objects: &Api<DynamicObject>, name: &str, patch: Value) -> Outcome {
    objects.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.context("patching")?;
    Ok(())
}

/// Takes an object away as the source of a move does: without its finalizers, and with nothing under it deleted.
async fn take_away(tenant: &Tenant, kind: Kind, name: &str) -> Outcome {
    let objects = tenant.objects(kind);
    // Paused, as a move leaves it: otherwise Cluster API would take down what is under it.
    let mut paused = json!({"metadata": {"annotations": {names::ALLOW_DELETION_ANNOTATION: "true"}}});
    if kind == Kind::Cluster {
        paused["spec"] = json!({"paused": true});
    }
    merge(&objects, name, paused).await?;
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    objects.delete(name, &orphan).await?;
    drop_finalizers(&objects, name).await?;
    wait(objects, name, "the object to be gone", SOON, |object: Option<&DynamicObject>| object.is_none()).await?;
    Ok(())
}

/// Leaves the finalizer of the garbage collector alone. It takes that one away at a time of its own, and the API server then
/// refuses a patch that would add it again: so each patch is for the object as it was read.
async fn drop_finalizers(objects: &Api<DynamicObject>, name: &str) -> Outcome {
    for _ in 0..100 {
        let Some(found) = objects.get_opt(name).await? else { return Ok(()) };
        let kept: Vec<&String> = found.finalizers().iter().filter(|name| *name == names::ORPHAN_FINALIZER).collect();
        let metadata = json!({"finalizers": kept, "resourceVersion": found.resource_version()});
        let patch = Patch::Merge(json!({"metadata": metadata}));
        match objects.patch(name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            result => return result.map(drop).context("taking finalizers away"),
        }
    }
    bail!("{name} changed at every try")
}

/// What runs: every Machine with its UID and the time of its making.
async fn machines(tenant: &Tenant) -> anyhow::Result<BTreeMap<String, (Option<String>, Option<Time>)>> {
    let list = tenant.objects(Kind::Machine).list(&ListParams::default()).await?;
    Ok(list
        .items
        .into_iter()
        .map(|machine| {
            let meta = machine.metadata;
            (meta.name.unwrap_or_default(), (meta.uid, meta.creation_timestamp))
        })
        .collect())
}

/// Nobody asks an agent to clean a host.
async fn assert_not_cleaned(tenant: &Tenant) -> Outcome {
    for host in tenant.byohosts().list(&ListParams::default()).await? {
        ensure!(
            !host.annotations().contains_key(UNREGISTERING_ANNOTATION),
            "{} is asked to be cleaned",
            host.name_any()
        );
    }
    Ok(())
}

/// Waits until a condition is True and its message contains `words`.
async fn until_condition(tenant: &Tenant, name: &str, type_: &str, words: &str) -> anyhow::Result<ProvisioningRequest> {
    let what = format!("condition {type_} of {name} with {words:?}");
    let told = |request: Option<&ProvisioningRequest>| {
        let status = request.and_then(|request| request.status.as_ref());
        let found = status.and_then(|status| find(&status.conditions, type_));
        found.is_some_and(|found| found.status == "True" && found.message.contains(words))
    };
    wait(tenant.requests(), name, &what, CLUSTER, told).await?.context("the request is gone")
}

/// Waits until the request says that its cluster is ready, and nothing else: Cluster API and BYOH have come to rest.
async fn until_calm(tenant: &Tenant, name: &str, workers: &str) -> Outcome {
    let ready = format!("cluster is ready: 1 master, {workers}");
    let calm = |request: Option<&ProvisioningRequest>| {
        let status = request.and_then(|request| request.status.as_ref());
        status.is_some_and(|status| status.provisioning_status.provisioning_message == ready)
    };
    wait(tenant.requests(), name, &format!("{name} to say {ready:?} and nothing else"), CLUSTER, calm).await?;
    Ok(())
}

/// Annotates the request with the id that its status names for `word`.
async fn say(tenant: &Tenant, name: &str, word: &str) -> Outcome {
    let request = tenant.requests().get(name).await?;
    let status = request.status.context("no status")?;
    let degraded =
        find(&status.conditions, conditions::DEGRADED).map(|found| found.message.clone()).unwrap_or_default();
    let told = format!("{} {degraded}", status.provisioning_status.provisioning_message);
    let Some((_, rest)) = told.split_once(&format!("{word}=")) else { bail!("{word} is not offered: {told}") };
    let id: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let patch = Patch::Merge(json!({"metadata": {"annotations": {word: id}}}));
    tenant.requests().patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn vanishes(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "vanishes", 2).await?;
    let before_all = tenant.inventory().await?;
    tenant.apply(&tenant.request("request", "site", &[1], &[2])).await?;
    until_calm(&tenant, "request", "1 worker").await?;
    let before = machines(&tenant).await?;

    take_away(&tenant, Kind::Cluster, "site").await?;
    let told = tenant
        .until("request", State::Failed, "Cluster site is gone, but this request is not being deleted", SOON)
        .await?;
    let told = told.status.context("no status")?.provisioning_status.provisioning_message;
    for words in [
        "its nodes run on host 1 (vanishes-1), host 2 (vanishes-2)",
        names::RESTORE_ANNOTATION,
        names::CLEAN_ANNOTATION,
    ] {
        ensure!(told.contains(words), "{words:?} is not told: {told}");
    }
    let wrong = Patch::Merge(json!({"metadata": {"annotations": {names::CLEAN_ANNOTATION: "site"}}}));
    tenant.requests().patch("request", &PatchParams::default(), &wrong).await?;
    let told = format!("annotation {} names \"site\", which is not the id of anything", names::CLEAN_ANNOTATION);
    tenant.until("request", State::Failed, &told, SOON).await?;
    assert_not_cleaned(&tenant).await?;
    say(&tenant, "request", names::RESTORE_ANNOTATION).await?;
    until_calm(&tenant, "request", "1 worker").await?;
    let taken_off = |request: Option<&ProvisioningRequest>| {
        let words = [names::RESTORE_ANNOTATION, names::CLEAN_ANNOTATION];
        request.is_some_and(|request| words.iter().all(|word| !request.annotations().contains_key(*word)))
    };
    wait(tenant.requests(), "request", "no word any more", SOON, taken_off).await?;
    ensure!(machines(&tenant).await? == before, "Machines were made anew");
    ensure!(tenant.ready_nodes("site").await? == [tenant.host(1), tenant.host(2)]);

    // The word was for that loss, and says nothing about the next.
    take_away(&tenant, Kind::Cluster, "site").await?;
    tenant.until("request", State::Failed, "Cluster site is gone", SOON).await?;
    say(&tenant, "request", names::CLEAN_ANNOTATION).await?;
    for name in before.keys() {
        let gone = |machine: Option<&DynamicObject>| machine.is_none();
        wait(tenant.objects(Kind::Machine), name, "the old Machine to be gone", CLUSTER, gone).await?;
    }
    until_calm(&tenant, "request", "1 worker").await?;
    ensure!(machines(&tenant).await?.keys().all(|name| !before.contains_key(name)), "not all Machines are new");

    // A request that is deleted gives its hosts back, also without its Cluster.
    take_away(&tenant, Kind::Cluster, "site").await?;
    tenant.until("request", State::Failed, "Cluster site is gone", SOON).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    tenant.until_as_before(&before_all).await
}

/// Applies what a backup has: a new UID, no status.
async fn apply_backup(tenant: &Tenant, backup: &ProvisioningRequest) -> Outcome {
    let mut object = serde_json::to_value(backup)?;
    object["metadata"] = json!({"name": backup.name_any(), "namespace": backup.namespace()});
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    tenant.apply(&object).await.map(drop).context("applying a backup")
}

/// Its Machines would be deleted, and let go, by it alone.
async fn headless(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "headless", 2).await?;
    tenant.apply(&tenant.request("request", "site", &[1], &[2])).await?;
    until_calm(&tenant, "request", "1 worker").await?;
    let before = machines(&tenant).await?;
    // Cluster API acts on nothing meanwhile.
    let pause = |paused: bool| json!({"spec": {"paused": paused}});
    merge(&tenant.objects(Kind::Cluster), "site", pause(true)).await?;
    take_away(&tenant, Kind::KubeadmControlPlane, "site-control-plane").await?;
    merge(&tenant.objects(Kind::Cluster), "site", pause(false)).await?;
    tenant
        .until(
            "request",
            State::Failed,
            "KubeadmControlPlane site-control-plane was deleted, not by this operator",
            SOON,
        )
        .await?;
    ensure!(machines(&tenant).await? == before, "other Machines");
    assert_not_cleaned(&tenant).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    // The Secrets that the control plane had made stay: they were orphaned with it.
    tenant.assert_hosts_free().await
}

async fn restored(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "restored", 3).await?;
    let before_all = tenant.inventory().await?;
    tenant.apply(&tenant.request("request", "site", &[1], &[2, 3])).await?;
    tenant.until("request", State::Fulfilled, "2 workers", CLUSTER).await?;
    let before = machines(&tenant).await?;
    let backup = force_away(&tenant.requests(), "request").await?;
    tenant.until_gone("request", SOON).await?;
    let hosts = || async {
        let list = tenant.byohosts().list(&ListParams::default()).await?;
        anyhow::Ok(list.items.into_iter().map(|host| host.metadata.resource_version).collect::<Vec<_>>())
    };
    let revisions = hosts().await?;

    // An older backup, which lacks a worker, takes nothing out.
    let mut older = backup.clone();
    older.spec.template_parameters.hosts.as_mut().context("no hosts")?.workers.truncate(1);
    apply_backup(&tenant, &older).await?;
    let told = "this request was restored and does not name host 3 (restored-3), which its cluster uses";
    tenant.until("request", State::Fulfilled, told, CLUSTER).await?;
    apply_backup(&tenant, &backup).await?;
    let again = tenant.until("request", State::Fulfilled, "cluster is ready: 1 master, 2 workers", CLUSTER).await?;
    ensure!(again.metadata.uid != backup.metadata.uid, "it is the old request");
    ensure!(machines(&tenant).await? == before, "Machines were made anew");
    ensure!(hosts().await? == revisions, "hosts were written to");

    // From then on it is as any other.
    tenant.apply(&tenant.request("request", "site", &[1], &[2])).await?;
    tenant.until("request", State::Fulfilled, "cluster is ready: 1 master, 1 worker", CLUSTER).await?;
    tenant.until_host_free(3).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    tenant.until_as_before(&before_all).await
}

async fn paused(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "paused", 3).await?;
    let before_all = tenant.inventory().await?;
    tenant.template("short", json!({"timeouts": {"controlPlane": "60s", "workers": "1s"}})).await?;
    let ask = |workers: &[u32]| {
        let mut request = tenant.request_for("short", "request", &[1], workers);
        request["spec"]["templateParameters"]["clusterName"] = json!("site");
        request
    };
    tenant.apply(&ask(&[2])).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    let pause = json!({"metadata": {"annotations": {PAUSED_ANNOTATION: ""}}});
    let resume = json!({"metadata": {"annotations": {PAUSED_ANNOTATION: null}}});
    for (kind, name) in [
        (Kind::Cluster, "site"),
        (Kind::KubeadmControlPlane, "site-control-plane"),
        (Kind::ByoCluster, "site"),
        (Kind::MachineDeployment, "site-worker-paused-2"),
    ] {
        merge(&tenant.objects(kind), name, pause.clone()).await?;
        let told = format!("paused: {} {name} (annotation {PAUSED_ANNOTATION})", kind.name());
        tenant.until("request", State::Fulfilled, &told, SOON).await?;
        merge(&tenant.objects(kind), name, resume.clone()).await?;
        tenant.until("request", State::Fulfilled, "cluster is ready: 1 master, 1 worker", SOON).await?;
    }
    // A pause is never a failure, however short the time limit.
    merge(&tenant.objects(Kind::Cluster), "site", json!({"spec": {"paused": true}})).await?;
    tenant.apply(&ask(&[2, 3])).await?;
    tenant.until("request", State::Progressing, "paused: Cluster site (spec.paused)", SOON).await?;
    tenant.delete("request").await?;
    tenant.until("request", State::Deleting, "the deletion waits: paused: Cluster site (spec.paused)", SOON).await?;
    ensure!(tenant.objects(Kind::Cluster).get("site").await?.metadata.deletion_timestamp.is_none(), "it was touched");
    assert_not_cleaned(&tenant).await?;
    merge(&tenant.objects(Kind::Cluster), "site", json!({"spec": {"paused": false}})).await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    let before_all =
        before_all.into_iter().chain([format!("ClusterTemplate {0}/short-v1", tenant.namespace)]).collect();
    tenant.until_as_before(&before_all).await
}

async fn scaled(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "scaled", 2).await?;
    tenant.apply(&tenant.request("request", "site", &[1], &[2])).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    let before = machines(&tenant).await?;
    // A person may not change the number of masters; what may is not kept from it, and is put right.
    let controller =
        stack.management.client_as("system:serviceaccount:capi-system:capi-manager", &["system:masters"])?;
    let resource = Kind::KubeadmControlPlane.api_resource();
    let control_planes = Api::namespaced_with(controller, &tenant.namespace, &resource);
    for change in [json!({"replicas": 3}), json!({"rollout": {"after": "2020-01-01T00:00:00Z"}})] {
        merge(&control_planes, "site-control-plane", json!({"spec": change})).await?;
        let settled = async {
            let mut pace = tokio::time::interval(std::time::Duration::from_millis(200));
            let mut calm = 0;
            // Cluster API may make its surplus Machine late: it has to be gone for some looks in a row.
            while calm < 15 {
                pace.tick().await;
                let object = control_planes.get("site-control-plane").await?;
                let spec = &object.data["spec"];
                let same =
                    spec["replicas"] == 1 && spec["rollout"]["after"].is_null() && machines(&tenant).await? == before;
                calm = if same { calm + 1 } else { 0 };
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(CLUSTER, settled)
            .await
            .with_context(|| format!("{change}: a surplus Machine stays"))??;
        tenant.until("request", State::Fulfilled, "cluster is ready: 1 master, 1 worker", CLUSTER).await?;
    }
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

/// What runs on each server.
pub async fn running(servers: &[Arc<Server>]) -> anyhow::Result<BTreeSet<(String, String)>> {
    let mut all = BTreeSet::new();
    for server in servers {
        let processes = server.node_processes().await?;
        all.extend(processes.into_iter().map(|process| (server.name().to_owned(), process)));
    }
    Ok(all)
}

async fn servers_live(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "harm", 3).await?;
    let whole = tenant.request("request", "site", &[1], &[2, 3]);
    tenant.apply(&whole).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    let before = running(&stack.servers).await?;
    ensure!(before.iter().any(|(_, process)| process.ends_with(" etcd")), "etcd is not seen: {before:?}");
    let lives = async |what: &str| {
        let now = running(&stack.servers).await?;
        ensure!(before.is_subset(&now), "{what}: what ran was {before:?}, and is {now:?}");
        assert_not_cleaned(&tenant).await?;
        eprintln!("lived through: {what}");
        Outcome::Ok(())
    };
    let (ready, workers) = ("cluster is ready: 1 master, 2 workers", "2 workers");
    let annotated = |value: Value| json!({"metadata": {"annotations": {PAUSED_ANNOTATION: value}}});
    for (kind, name) in [
        (Kind::Cluster, "site".to_owned()),
        (Kind::KubeadmControlPlane, "site-control-plane".to_owned()),
        (Kind::ByoCluster, "site".to_owned()),
        (Kind::MachineDeployment, "site-worker-harm-2".to_owned()),
    ] {
        merge(&tenant.objects(kind), &name, annotated(json!(""))).await?;
        tenant.until("request", State::Fulfilled, &format!("paused: {} {name}", kind.name()), SOON).await?;
        lives(&format!("{} paused by annotation", kind.name())).await?;
        merge(&tenant.objects(kind), &name, annotated(Value::Null)).await?;
    }
    merge(&tenant.objects(Kind::Cluster), "site", json!({"spec": {"paused": true}})).await?;
    tenant.until("request", State::Fulfilled, "paused: Cluster site (spec.paused)", SOON).await?;
    lives("Cluster paused by field").await?;
    merge(&tenant.objects(Kind::Cluster), "site", json!({"spec": {"paused": false}})).await?;
    until_calm(&tenant, "request", workers).await?;

    // The Cluster vanishes, and is taken back.
    take_away(&tenant, Kind::Cluster, "site").await?;
    tenant.until("request", State::Failed, "Cluster site is gone", SOON).await?;
    lives("Cluster vanished").await?;
    say(&tenant, "request", names::RESTORE_ANNOTATION).await?;
    tenant.until("request", State::Fulfilled, ready, CLUSTER).await?;
    lives("Cluster taken back").await?;

    // The request vanishes, and a backup is applied: older, then whole.
    let backup = force_away(&tenant.requests(), "request").await?;
    tenant.until_gone("request", SOON).await?;
    let mut older = backup.clone();
    older.spec.template_parameters.hosts.as_mut().context("no hosts")?.workers.truncate(1);
    apply_backup(&tenant, &older).await?;
    tenant.until("request", State::Fulfilled, "this request was restored and does not name host 3", CLUSTER).await?;
    lives("request restored from an older backup").await?;
    apply_backup(&tenant, &backup).await?;
    until_calm(&tenant, "request", workers).await?;
    lives("request restored").await?;

    // Marks are taken off.
    let operator = stack.management.client_as(OPERATOR_USER, &[])?;
    let hosts: Api<DynamicObject> = Api::namespaced_with(operator, &tenant.namespace, &Kind::ByoHost.api_resource());
    merge(&hosts, &tenant.host(2), json!({"metadata": {"labels": {names::REQUEST_UID_LABEL: null}}})).await?;
    let marked = |host: Option<&ByoHost>| host.is_some_and(|host| host.holder().is_some());
    wait(tenant.byohosts(), &tenant.host(2), "the mark to be back", SOON, marked).await?;
    merge(&tenant.objects(Kind::Cluster), "site", json!({"metadata": {"labels": {names::REQUEST_UID_LABEL: null}}}))
        .await?;
    let marked = |object: Option<&DynamicObject>| {
        object.is_some_and(|object| object.labels().contains_key(names::REQUEST_UID_LABEL))
    };
    wait(tenant.objects(Kind::Cluster), "site", "the mark to be back", SOON, marked).await?;
    lives("marks taken off a host and the Cluster").await?;

    // A host gets another id.
    merge(&hosts, &tenant.host(3), json!({"metadata": {"labels": {"host-id": "77"}}})).await?;
    until_condition(&tenant, "request", conditions::DEGRADED, "has the label host-id=77").await?;
    tenant.until("request", State::Fulfilled, ready, SOON).await?;
    lives("host relabelled").await?;
    merge(&hosts, &tenant.host(3), json!({"metadata": {"labels": {"host-id": "3"}}})).await?;
    until_calm(&tenant, "request", workers).await?;

    // A ByoHost is deleted by the runbook for dead servers, and its agent registers it anew.
    let name = tenant.host(3);
    let status = PatchParams::default();
    let nobodys = Patch::Merge(json!({"status": {"machineRef": null}}));
    tenant.objects(Kind::ByoHost).patch_status(&name, &status, &nobodys).await?;
    tenant.byohosts().delete(&name, &DeleteParams::default()).await?;
    until_condition(&tenant, "request", conditions::DEGRADED, "host 3 (harm-3) is not registered").await?;
    lives("ByoHost of a node deleted").await?;
    stack.server(&name)?.run(&["systemctl", "restart", "byoh-hostagent"]).await?;
    until_condition(&tenant, "request", conditions::DEGRADED, "its ByoHost was registered again").await?;
    lives("ByoHost of a node registered anew").await?;
    tenant.apply(&tenant.request("other", "other", &[3], &[])).await?;
    tenant.until("other", State::Pending, "host 3 (harm-3) runs the node of Machine", SOON).await?;
    lives("another request asks for that host").await?;
    tenant.delete("other").await?;
    tenant.until_gone("other", SOON).await?;
    say(&tenant, "request", names::RESTORE_ANNOTATION).await?;
    until_calm(&tenant, "request", workers).await?;
    stack.server(&name)?.run(&["systemctl", "restart", "byoh-hostagent"]).await?;
    lives("ByoHost given back to its machine").await?;

    // Agents, operator and template.
    for server in &stack.servers {
        server.run(&["systemctl", "restart", "byoh-hostagent"]).await?;
    }
    stack.operator.take().context("no operator")?.stop().await?;
    stack.start_operator().await?;
    tenant.until("request", State::Fulfilled, ready, SOON).await?;
    let now = running(&stack.servers).await?;
    ensure!(before.is_subset(&now), "agents and operator were started again: what ran was {before:?}, and is {now:?}");

    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    crate::servers::assert_clean(&stack.servers).await
}
