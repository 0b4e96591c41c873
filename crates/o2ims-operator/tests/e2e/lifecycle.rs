//! From request to cluster and back.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use hostsim::Failure;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt as _};
use o2ims_types::{ClusterTemplate, ProvisioningState as State, names};
use sandbox::{Stack, inventory};
use serde_json::{Value, json};
use testenv::{ByohDialect, kubernetes_version};

use crate::harness::{CLUSTER, OPERATOR_USER, Outcome, SOON, Scenario, Shared, States, Tenant, alone, shared, wait};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared("one_master_one_worker_comes_and_goes_without_a_trace", one_and_one),
        shared("three_masters_two_workers_behind_a_virtual_address", three_and_two),
        shared("workers_come_and_go", workers_come_and_go),
        shared("a_cluster_name_belongs_to_one_request", same_name_twice),
        shared("an_endpoint_belongs_to_one_request", same_endpoint_twice),
        shared("a_request_that_is_deleted_at_once_leaves_nothing", deleted_at_once),
        shared("what_a_vanished_request_held_comes_free", vanished),
        alone("a_cluster_whose_request_vanished_runs_on_and_is_taken_back", orphaned),
        shared("bundles_work_with_platform9_and_are_refused_with_upstream", bundle),
        shared("hosts_get_install_scripts_and_lose_them", installer),
        shared("twenty_clusters_on_exactly_their_hosts", twenty_clusters).slow(),
    ]
}

async fn one_and_one(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "oneone", 2).await?;
    let before = tenant.inventory().await?;
    let states = States::follow(&tenant, "core-request");
    tenant.apply(&tenant.request("core-request", "core", &[1], &[2])).await?;
    let request = tenant.until("core-request", State::Fulfilled, "1 master, 1 worker", CLUSTER).await?;
    let status = request.status.context("no status")?;
    let resources = status.provisioned_resource_set.context("no resources")?;
    ensure!(resources.o_cloud_node_cluster_id.is_some() && resources.o_cloud_infrastructure_resource_ids.len() == 2);

    let by_host = tenant.nodes_by_host().await?;
    ensure!(by_host.len() == 2 && by_host.iter().all(|(host, node)| host == node), "{by_host:?}");
    ensure!(tenant.ready_nodes("core").await? == [tenant.host(1), tenant.host(2)]);

    tenant.delete("core-request").await?;
    tenant.until("core-request", State::Deleting, "", SOON).await?;
    tenant.until_gone("core-request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    tenant.until_as_before(&before).await?;
    let seen = states.seen();
    ensure!(seen == [State::Pending, State::Progressing, State::Fulfilled, State::Deleting], "{seen:?}");
    Ok(())
}

async fn three_and_two(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "threetwo", 5).await?;
    let before = tenant.inventory().await?;
    let mut request = tenant.request("ha", "ha", &[1, 2, 3], &[4, 5]);
    request["spec"]["templateParameters"]["controlPlaneEndpoint"] = json!({"host": "127.88.0.1", "port": 6443});
    tenant.apply(&request).await?;
    tenant.until("ha", State::Fulfilled, "3 masters, 2 workers", 2 * CLUSTER).await?;
    let by_host = tenant.nodes_by_host().await?;
    ensure!(by_host.len() == 5 && by_host.iter().all(|(host, node)| host == node), "{by_host:?}");
    tenant.delete("ha").await?;
    tenant.until_gone("ha", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    tenant.until_as_before(&before).await
}

async fn workers_come_and_go(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "scale", 3).await?;
    tenant.apply(&tenant.request("scale", "scale", &[1], &[2])).await?;
    tenant.until("scale", State::Fulfilled, "1 worker", CLUSTER).await?;
    let worker = |name: &str| name.to_owned();
    let machines = || async {
        let list = tenant.objects(Kind::MachineDeployment).list(&ListParams::default()).await?;
        anyhow::Ok(list.items.into_iter().map(|object| (object.metadata.name, object.metadata.uid)).collect::<Vec<_>>())
    };
    let first = machines().await?;

    tenant.apply(&tenant.request("scale", "scale", &[1], &[2, 3])).await?;
    tenant.until("scale", State::Fulfilled, "2 workers", CLUSTER).await?;
    ensure!(machines().await?.contains(&first[0]), "the worker that was there was replaced");
    ensure!(tenant.ready_nodes("scale").await?.contains(&worker(&tenant.host(3))));

    tenant.apply(&tenant.request("scale", "scale", &[1], &[3])).await?;
    tenant.until("scale", State::Fulfilled, "1 worker", CLUSTER).await?;
    tenant.until_host_free(2).await?;
    tenant.delete("scale").await?;
    tenant.until_gone("scale", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

async fn same_name_twice(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "samename", 2).await?;
    tenant.apply(&tenant.request("first", "twin", &[1], &[])).await?;
    tenant.until("first", State::Progressing, "", SOON).await?;
    tenant.apply(&tenant.request("second", "twin", &[2], &[])).await?;
    tenant
        .until("second", State::Pending, "clusterName twin is taken by ProvisioningRequest samename/first", SOON)
        .await?;
    tenant.until("first", State::Fulfilled, "", CLUSTER).await?;
    let cluster = tenant.objects(Kind::Cluster).get("twin").await?;
    // A mark that somebody takes off costs nothing, and comes back.
    let control_plane = names::control_plane(&tenant.namespace, "twin");
    for (kind, name) in [(Kind::Cluster, "twin"), (Kind::KubeadmControlPlane, control_plane.as_str())] {
        let lost = json!({"metadata": {"labels": {names::REQUEST_UID_LABEL: null}}});
        tenant.objects(kind).patch(name, &PatchParams::default(), &Patch::Merge(lost)).await?;
        let marked = |object: Option<&DynamicObject>| {
            object.is_some_and(|object| object.labels().contains_key(names::REQUEST_UID_LABEL))
        };
        wait(tenant.objects(kind), name, "the mark to be back", SOON, marked).await?;
    }
    // Deleting the second one touches nothing of the first's.
    tenant.delete("second").await?;
    tenant.until_gone("second", SOON).await?;
    tenant.until("first", State::Fulfilled, "", SOON).await?;
    ensure!(tenant.objects(Kind::Cluster).get("twin").await?.metadata.uid == cluster.metadata.uid);
    // The name is free again when the first one is gone.
    tenant.apply(&tenant.request("third", "twin", &[2], &[])).await?;
    tenant.until("third", State::Pending, "is taken by", SOON).await?;
    tenant.delete("first").await?;
    tenant.until("third", State::Progressing, "", CLUSTER).await?;
    tenant.delete("third").await?;
    tenant.until_gone("third", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

async fn same_endpoint_twice(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "sameend", 6).await?;
    let request = |name: &str, masters: &[u32]| {
        let mut request = tenant.request(name, name, masters, &[]);
        request["spec"]["templateParameters"]["controlPlaneEndpoint"] = json!({"host": "127.88.0.2"});
        request
    };
    tenant.apply(&request("one", &[1, 2, 3])).await?;
    tenant.until("one", State::Progressing, "", SOON).await?;
    tenant.apply(&request("two", &[4, 5, 6])).await?;
    tenant
        .until(
            "two",
            State::Pending,
            "controlPlaneEndpoint 127.88.0.2:6443 is taken by ProvisioningRequest sameend/one",
            SOON,
        )
        .await?;
    tenant.delete("one").await?;
    tenant.until_gone("one", CLUSTER).await?;
    tenant.until("two", State::Progressing, "", SOON).await?;
    tenant.delete("two").await?;
    tenant.until_gone("two", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

/// Deletes at different moments of the first second.
async fn deleted_at_once(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "atonce", 12).await?;
    let before = tenant.inventory().await?;
    for (number, age) in (1..=6).zip([0, 20, 60, 120, 300, 900]) {
        let name = format!("r{number}");
        tenant.apply(&tenant.request(&name, &name, &[number], &[number + 6])).await?;
        tokio::time::sleep(Duration::from_millis(age)).await;
        tenant.delete(&name).await?;
    }
    for number in 1..=6 {
        tenant.until_gone(&format!("r{number}"), CLUSTER).await?;
    }
    // The API server may have deleted a request in the moment in which it got its finalizer: it does not wait then.
    for number in 1..=12 {
        tenant.until_host_free(number).await?;
    }
    tenant.assert_hosts_free().await?;
    tenant.until_as_before(&before).await
}

/// Requests that went without the operator's leave: by force, and before their finalizer counted.
async fn vanished(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "vanished", 3).await?;
    let before = tenant.inventory().await?;
    tenant.apply(&tenant.request("forced", "site", &[1], &[2])).await?;
    tenant.until("forced", State::Fulfilled, "", CLUSTER).await?;
    let host = stack.site.host(&tenant.host(2)).context("no host")?;
    host.fail(Failure::HangingCleanup);
    tenant.delete("forced").await?;
    tenant.until("forced", State::Deleting, &tenant.host(2), SOON).await?;
    let force = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    tenant.requests().patch("forced", &PatchParams::default(), &force).await?;
    tenant.until_gone("forced", SOON).await?;
    tenant.apply(&tenant.request("next", "other", &[1], &[2])).await?;
    tenant
        .until(
            "next",
            State::Pending,
            "is held by an earlier ProvisioningRequest vanished/forced that does not exist",
            SOON,
        )
        .await?;
    host.heal();
    tenant.until("next", State::Progressing, "", CLUSTER).await?;
    tenant.delete("next").await?;
    tenant.until_gone("next", CLUSTER).await?;

    // What is left where a request was deleted while its finalizer was being written: a claim, and at worst a Cluster that
    // was never let go.
    let marks = json!({
        "labels": {names::REQUEST_UID_LABEL: "nobody", names::ROLE_LABEL: names::ROLE_CONTROL_PLANE},
        "annotations": {names::REQUEST_ANNOTATION: "vanished/nobody"},
    });
    let mut cluster = json!({
        "apiVersion": Kind::Cluster.api_version(),
        "kind": "Cluster",
        "metadata": marks,
        "spec": {"paused": true, "infrastructureRef": Kind::ByoCluster.reference("half")},
    });
    cluster["metadata"]["name"] = json!("half");
    cluster["metadata"]["annotations"][names::CREATING_ANNOTATION] = json!("true");
    tenant.objects(Kind::Cluster).create(&PostParams::default(), &serde_json::from_value(cluster)?).await?;
    let claim = Patch::Merge(json!({"metadata": marks}));
    let operator = stack.management.client_as(OPERATOR_USER, &[])?;
    let hosts: Api<DynamicObject> = Api::namespaced_with(operator, &tenant.namespace, &Kind::ByoHost.api_resource());
    hosts.patch(&tenant.host(3), &PatchParams::default(), &claim).await?;
    tenant.until_host_free(3).await?;
    tenant.assert_hosts_free().await?;
    tenant.until_as_before(&before).await
}

/// The request is forced away while the operator does not look.
async fn orphaned(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::new(stack, "orphaned", 2).await?;
    let before = tenant.inventory().await?;
    tenant.apply(&tenant.request("request", "site", &[1], &[2])).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    stack.operator.take().context("no operator")?.stop().await?;
    let force = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    tenant.requests().patch("request", &PatchParams::default(), &force).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", SOON).await?;
    stack.start_operator().await?;

    // Somebody applies it again, as GitOps does: it takes back what runs.
    let clusters = tenant.objects(Kind::Cluster);
    let old = clusters.get("site").await?.metadata.uid;
    tenant.apply(&tenant.request("request", "site", &[1], &[2])).await?;
    tenant.until("request", State::Fulfilled, "1 master, 1 worker", SOON).await?;
    ensure!(tenant.ready_nodes("site").await? == [tenant.host(1), tenant.host(2)]);
    ensure!(clusters.get("site").await?.metadata.uid == old, "the Cluster was made anew");
    let refused = clusters.delete("site", &DeleteParams::default()).await;
    ensure!(
        refused.is_err_and(|error| error.to_string().contains(names::ALLOW_DELETION_ANNOTATION)),
        "a Cluster could be deleted by a slip"
    );
    let allow = Patch::Merge(json!({"metadata": {"annotations": {names::ALLOW_DELETION_ANNOTATION: "true"}}}));
    clusters.patch("site", &PatchParams::default(), &allow).await?;
    clusters.delete("site", &DeleteParams::default()).await?;
    let is_new = |object: Option<&DynamicObject>| object.is_some_and(|object| object.metadata.uid != old);
    wait(clusters, "site", "the Cluster to be made again", CLUSTER, is_new).await?;
    tenant.until("request", State::Fulfilled, "1 master, 1 worker", CLUSTER).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    tenant.until_as_before(&before).await
}

async fn bundle(stack: Shared) -> Outcome {
    let install = json!({"method": "bundle", "bundle": {"repo": "registry.example.org/byoh"}});
    let (tenant, request) = installing(&stack, "bundled", install).await?;
    let before = tenant.inventory().await?;
    tenant.apply(&request).await?;
    if stack.management.byoh_dialect() == Some(ByohDialect::Platform9) {
        tenant.until("bundled", State::Fulfilled, "", CLUSTER).await?;
    } else {
        tenant.until("bundled", State::Pending, "install.method bundle does not work with upstream BYOH", SOON).await?;
    }
    tenant.delete("bundled").await?;
    tenant.until_gone("bundled", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    tenant.until_as_before(&before).await
}

/// A tenant whose agents run install scripts, and a request of its name for a template that installs in this way.
pub async fn installing(stack: &Shared, name: &str, install: Value) -> anyhow::Result<(Tenant, Value)> {
    let tenant = with_installing_hosts(stack, name, 2).await?;
    tenant.template("installs", json!({"install": install})).await?;
    let request = tenant.request_for("installs", name, &[1], &[2]);
    Ok((tenant, request))
}

/// A namespace with so many hosts whose agents install Kubernetes.
pub async fn with_installing_hosts(stack: &Shared, name: &str, hosts: u32) -> anyhow::Result<Tenant> {
    let tenant = Tenant::new(stack, name, 0).await?;
    for number in 1..=hosts {
        let mut host = hostsim::HostSpec::new(tenant.host(number), number.to_string());
        host.namespace = Some(tenant.namespace.clone());
        host.skip_installation = false;
        stack.site.register(host).await?;
    }
    Ok(tenant)
}

/// The scripts are there for both dialects of BYOH as long as a host is held, and the agent finds them filled in.
async fn installer(stack: Shared) -> Outcome {
    let files = json!({"path": "/srv/kubernetes/VERSION"});
    let install = json!({"method": "installer", "installer": {"source": "files", "files": files}});
    let (tenant, request) = installing(&stack, "installed", install.clone()).await?;
    let before = tenant.inventory().await?;
    tenant.apply(&request).await?;
    tenant.until("installed", State::Fulfilled, "", CLUSTER).await?;
    let secrets: Api<Secret> = Api::namespaced(stack.management.admin(), &tenant.namespace);
    // A machine that comes later gets them too, though the template is gone and the request asks too much by then.
    let script_of = |host: Option<&ByoHost>| host.and_then(|host| host.spec.installation_secret.clone());
    let old = script_of(Some(&tenant.byohosts().get(&tenant.host(2)).await?));
    let templates: Api<ClusterTemplate> = Api::namespaced(stack.management.admin(), &tenant.namespace);
    templates.delete("installs-v1", &DeleteParams::default()).await?;
    tenant.apply(&tenant.request_for("installs", "installed", &[1], &[2, 9])).await?;
    tenant.until("installed", State::Progressing, "ClusterTemplate installs-v1", CLUSTER).await?;
    let machines = inventory::of_kind(stack.management.admin(), &tenant.namespace, Kind::Machine);
    for machine in machines.list(&ListParams::default().labels("!cluster.x-k8s.io/control-plane")).await? {
        machines.delete(&machine.name_any(), &DeleteParams::default()).await?;
    }
    let is_new = |host: Option<&ByoHost>| script_of(host).is_some_and(|script| Some(&script) != old.as_ref());
    wait(tenant.byohosts(), &tenant.host(2), "another install script", CLUSTER, is_new).await?;
    tenant.template("installs", json!({"install": install})).await?;
    tenant.apply(&request).await?;
    tenant.until("installed", State::Fulfilled, "", CLUSTER).await?;
    for number in 1..=2 {
        let host = tenant.host(number);
        let name = tenant.byohosts().get(&host).await?.spec.installation_secret.context("no install script")?.name;
        let secret = secrets.get(&name).await?;
        for key in ["install", "uninstall"] {
            let script = secret.data.as_ref().and_then(|data| data.get(key)).context("no script")?;
            let script = std::str::from_utf8(&script.0)?;
            ensure!(script.contains(&format!("on host {host};")), "{key} of {host} is not for it");
            ensure!(
                script.contains(&format!("/srv/kubernetes/{}/", kubernetes_version())) == (key == "install"),
                "{key} of {host} has no place"
            );
            // BYOH's agent reads scripts as templates.
            let marks = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_uppercase());
            ensure!(!script.contains("{{") && !script.split('@').any(marks), "{key} of {host} is not filled in");
        }
    }
    // The annotation that names a Secret can get lost; and not every Secret with the label is the operator's.
    let operator = stack.management.client_as(OPERATOR_USER, &[])?;
    let hosts = inventory::hosts(operator, &tenant.namespace);
    let lost = Patch::Merge(json!({"metadata": {"annotations": {names::INSTALL_SECRET_ANNOTATION: null}}}));
    hosts.patch(&tenant.host(2), &PatchParams::default(), &lost).await?;
    let uid = tenant.requests().get("installed").await?.metadata.uid;
    let theirs = json!({"metadata": {"name": "theirs", "labels": {names::REQUEST_UID_LABEL: uid}}});
    secrets.create(&PostParams::default(), &serde_json::from_value(theirs)?).await?;
    tenant.delete("installed").await?;
    tenant.until_gone("installed", CLUSTER).await?;
    let allow = json!({"metadata": {"annotations": {names::ALLOW_DELETION_ANNOTATION: "true"}}});
    secrets.patch("theirs", &PatchParams::default(), &Patch::Merge(allow)).await.context("a Secret of others")?;
    secrets.delete("theirs", &DeleteParams::default()).await?;
    tenant.assert_hosts_free().await?;
    tenant.until_as_before(&before).await
}

async fn twenty_clusters(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "twenty", 40).await?;
    // Every host once, in an order that no pattern of names follows.
    let mut hosts: Vec<u32> = (1..=40).collect();
    let mut seed: u32 = 2026;
    for index in (1..hosts.len()).rev() {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        hosts.swap(index, seed as usize % (index + 1));
    }
    for (number, pair) in hosts.chunks(2).enumerate() {
        let name = format!("c{number}");
        tenant.apply(&tenant.request(&name, &name, &pair[..1], &pair[1..])).await?;
    }
    for (number, pair) in hosts.chunks(2).enumerate() {
        let name = format!("c{number}");
        tenant.until(&name, State::Fulfilled, "1 master, 1 worker", 5 * CLUSTER).await?;
        let mut expected = [tenant.host(pair[0]), tenant.host(pair[1])];
        expected.sort();
        ensure!(tenant.ready_nodes(&name).await? == expected, "{name} is not on {expected:?}");
    }
    for number in 0..20 {
        tenant.delete(&format!("c{number}")).await?;
    }
    for number in 0..20 {
        tenant.until_gone(&format!("c{number}"), 2 * CLUSTER).await?;
    }
    tenant.assert_hosts_free().await
}
