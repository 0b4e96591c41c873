//! Requests that come back from a backup, requests that another operator has sent, and requests that are let go: what is on the
//! O-Cloud stays as it is.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use o2ims_types::names::focom as names;
use o2ims_types::{FocomProvisioningRequest, OCloud, OrphanedRequests, ProvisioningRequest};
use sandbox::inventory;
use sandbox::requests::force_away;
use sandbox::waiting::wait;
use serde_json::{Value, json};
use testenv::ManagementCluster;

use crate::harness::{CLUSTER, Outcome, SMO_USER, SOON, Scenario, Tenant, World, alone, beside};
use crate::protection::refuse;

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        alone("restored_requests_take_back_what_they_had", restored_requests),
        beside("what_nephios_operator_has_sent_is_adopted", adopted),
        beside("what_another_smo_has_sent_is_taken_by_its_word_only", another_smo),
        alone("a_request_that_is_deleted_as_an_orphan_lets_go", orphaned),
        beside("what_an_o_cloud_does_not_know_any_more_is_not_sent_again_unasked", forgotten),
        beside("a_namespace_that_is_deleted_takes_its_requests_back", namespace_ends),
    ]
}

/// Annotates a request, or takes an annotation off.
pub async fn annotate(tenant: &Tenant, name: &str, key: &str, value: Option<&str>) -> Outcome {
    let change = json!({"metadata": {"annotations": {key: value}}});
    tenant.requests().patch(name, &PatchParams::default(), &Patch::Merge(&change)).await?;
    Ok(())
}

/// A ProvisioningRequest as Nephio's operator sends it for a request: its name and spec, and no marks.
async fn send_as_nephio(
    tenant: &Tenant,
    management: &ManagementCluster,
    request: &Value,
    labels: Value,
) -> anyhow::Result<String> {
    let spec = &request["spec"];
    let name = request["metadata"]["name"].as_str().context("a name")?;
    let object = json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "templateName": spec["templateName"], "templateVersion": spec["templateVersion"],
            "templateParameters": spec["templateParameters"],
        },
    });
    let sent = tenant.remote(management).patch(name, &PatchParams::apply("nephio"), &Patch::Apply(&object)).await?;
    sent.metadata.uid.context("a UID")
}

/// What a backup has of a request.
fn backup(request: &FocomProvisioningRequest) -> anyhow::Result<Value> {
    let mut object = serde_json::to_value(request)?;
    let metadata = object["metadata"].as_object_mut().context("metadata")?;
    metadata.retain(|key, _| ["name", "namespace", "labels", "annotations", "finalizers"].contains(&key.as_str()));
    object.as_object_mut().context("an object")?.remove("status");
    Ok(object)
}

/// Takes the request away as the loss of a cluster does: nobody is asked to clean up.
async fn lose(tenant: &Tenant, name: &str) -> Outcome {
    let off = json!({"metadata": {"finalizers": null}});
    tenant.requests().patch(name, &PatchParams::default(), &Patch::Merge(&off)).await?;
    tenant.delete(name).await?;
    tenant.until_gone(name, SOON).await
}

/// Stops the operator.
async fn stop(tenant: &Tenant) -> Outcome {
    let focom = tenant.parts.focom.lock().await.take();
    focom.context("the operator does not run")?.stop().await
}

async fn event(tenant: &Tenant, name: &str, reason: &str) -> Outcome {
    let events = tenant.events(name).await?;
    ensure!(events.iter().any(|found| found == reason), "no event {reason} of {name}: {events:?}");
    Ok(())
}

async fn restored_requests(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "restored").await?;
    let (site_b, remote) = (&tenant.parts.site_b.management, tenant.remote(&tenant.parts.site_b.management));
    let all = ["plain", "with-status", "older", "unwanted", "lost"];
    let (mut before, mut backups) = (Vec::new(), Vec::new());
    for name in all {
        tenant.apply(&tenant.request(name, "site-b", &[1], &[2])).await?;
        tenant.until_state(name, "pending", SOON).await?;
        before.push(remote.get(&format!("{name}-o2ims")).await?);
        backups.push(tenant.requests().get(name).await?);
    }
    tenant.apply(&tenant.request("rolled", "site-b", &[1], &[2, 3])).await?;
    tenant.until_state("rolled", "pending", SOON).await?;
    // A namespace that goes while its O-Cloud takes its time, until after a restart.
    let ending = Tenant::new(&world, "restored-ending").await?;
    let slow = going(&ending, "left").await?;

    stop(&tenant).await?;
    for name in all {
        lose(&tenant, name).await?;
    }
    for old in backups.iter().filter(|old| old.name_any() != "lost") {
        let (name, mut object) = (old.name_any(), backup(old)?);
        if ["older", "unwanted"].contains(&name.as_str()) {
            // From before the worker was added.
            object["spec"]["templateParameters"]["hosts"]["workers"] = json!([]);
        }
        tenant.requests().create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        if name == "with-status" {
            let status = json!({"status": old.status});
            tenant.requests().patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        }
    }
    // A request that keeps its UID and is older than what was sent, as after a restore of etcd: SIMULATED by the mark of a newer state.
    let newer = json!({"metadata": {"annotations": {names::SOURCE_GENERATION_ANNOTATION: "7"}}});
    let rolled = remote.patch("rolled-o2ims", &PatchParams::default(), &Patch::Merge(&newer)).await?;
    tenant.apply(&tenant.request("rolled", "site-b", &[1], &[2])).await?;
    let mark = site_b.audit_log().mark()?;
    tenant.parts.start_focom().await?;

    for name in ["plain", "with-status"] {
        tenant.until_state(name, "pending", SOON).await?;
        tenant.until(name, "Synced", "", SOON).await?;
    }
    for name in ["older", "unwanted"] {
        let words = "it differs from this request in spec.templateParameters.hosts.workers. Nothing was written";
        let told = tenant.until(name, "Failed", words, SOON).await?.status.context("a status")?;
        let reason = told.conditions.iter().find(|found| found.type_ == "Ready").map(|found| found.reason.clone());
        ensure!(reason.as_deref() == Some("AdoptionRequired"), "reason: {reason:?}");
    }
    tenant.delete("unwanted").await?;
    tenant.until_gone("unwanted", SOON).await?;
    event(&tenant, "unwanted", "NotDeleted").await?;
    // Once it says what is there, it takes that back.
    tenant.apply(&tenant.request("older", "site-b", &[1], &[2])).await?;
    tenant.until("older", "Synced", "", SOON).await?;
    for name in ["plain", "with-status", "older"] {
        event(&tenant, name, "Adopted").await?;
    }
    for old in &before {
        let now = remote.get(&old.name_any()).await?;
        ensure!(
            now.uid() == old.uid() && now.metadata.deletion_timestamp.is_none(),
            "{} is another one",
            old.name_any()
        );
        ensure!(
            now.metadata.generation == old.metadata.generation && now.spec == old.spec,
            "{} was changed",
            old.name_any()
        );
        let source = now.labels().get(names::SOURCE_LABEL).cloned().unwrap_or_default();
        let request = tenant.requests().get_opt(&source).await?.and_then(|request| request.uid());
        let marked = now.labels().get(names::SOURCE_UID_LABEL);
        ensure!(request.is_none() || request.as_ref() == marked, "{source} is not marked with its new UID");
    }
    let words = "(generation 7, this is 2), as after a restore of the SMO from an older backup, and differs from it in \
                 spec.templateParameters.hosts.workers: nothing is changed on the O-Cloud";
    tenant.until("rolled", "Failed", words, SOON).await?;
    ensure!(remote.get("rolled-o2ims").await?.metadata.generation == rolled.metadata.generation, "it was changed");
    let entries = site_b.audit_log().since(&mark)?.into_iter();
    let writes: Vec<_> = entries
        .filter(|entry| entry.user == SMO_USER && entry.namespace == tenant.namespace && entry.is_write())
        .map(|entry| format!("{} {}", entry.verb, entry.name))
        .collect();
    ensure!(writes.len() == 3 && writes.iter().all(|write| write.starts_with("patch ")), "written: {writes:?}");

    // Once it says the same, changes go through again.
    tenant.apply(&tenant.request("rolled", "site-b", &[1], &[2, 3])).await?;
    tenant.until("rolled", "Synced", "", SOON).await?;
    tenant.apply(&tenant.request("rolled", "site-b", &[1], &[4])).await?;
    let changed = |found: Option<&ProvisioningRequest>| {
        found.is_some_and(|found| found.metadata.generation > rolled.metadata.generation)
    };
    wait(remote.clone(), "rolled-o2ims", "the change to arrive", SOON, changed).await?;

    // What was kept in memory is gone with the former process.
    let words = "namespace restored-ending is being deleted, and OCloud restored-ending/site-b is already deleted";
    ending.until("left", "Deleting", words, SOON).await?;
    ending.abandon("left", "true").await?;
    ending.until_gone("left", SOON).await?;
    slow.patch("left-o2ims", &PatchParams::default(), &Patch::Merge(&json!({"metadata": {"finalizers": null}})))
        .await?;
    ending.until_remote(site_b, "left-o2ims", false).await?;

    tenant.requests().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    for name in ["plain", "with-status", "older", "rolled"] {
        tenant.until_gone(name, SOON).await?;
    }
    let mut left = tenant.remote_names(site_b).await?;
    left.sort();
    ensure!(left == ["lost-o2ims", "unwanted-o2ims"], "left on the O-Cloud: {left:?}");
    Ok(())
}

async fn forgotten(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "forgotten").await?;
    tenant.equip(2).await?;
    let remote = tenant.remote(&tenant.parts.site_a.management);
    tenant.apply(&tenant.request("edge", "site-a", &[1], &[2])).await?;
    let before = tenant.until_state("edge", "fulfilled", CLUSTER).await?.status.context("a status")?;
    let hosts = inventory::hosts(tenant.parts.site_a.management.admin(), &tenant.namespace);
    let revisions = async || {
        let hosts = hosts.list(&ListParams::default()).await?;
        anyhow::Ok(hosts.into_iter().map(|host| host.metadata.resource_version).collect::<Vec<_>>())
    };
    let hosts_before = revisions().await?;
    let words = "ProvisioningRequest edge-o2ims is gone from O-Cloud forgotten/site-a, and was not seen being deleted";
    let ready = "cluster is ready: 1 master, 1 worker";

    // It comes back with the rest of the restore.
    let backup = force_away(&remote, "edge-o2ims").await?;
    tenant.until("edge", "Failed", words, SOON).await?;
    ensure!(tenant.remote_names(&tenant.parts.site_a.management).await?.is_empty(), "it was sent again");
    come_back(&remote, backup).await?;
    tenant.until("edge", "Synced", ready, SOON).await?;

    // It does not, and its owner says so. The O-Cloud knows the cluster by its marks.
    force_away(&remote, "edge-o2ims").await?;
    tenant.until("edge", "Failed", words, SOON).await?;
    annotate(&tenant, "edge", names::SEND_AGAIN_ANNOTATION, Some("another")).await?;
    let id = before.provisioned_resource_set.and_then(|set| set.o_cloud_node_cluster_id).context("an id")?;
    tenant.until("edge", "Failed", &format!("names \"another\", but the id is {id}"), SOON).await?;
    annotate(&tenant, "edge", names::SEND_AGAIN_ANNOTATION, Some(&id)).await?;
    tenant.until("edge", "Synced", ready, SOON).await?;
    let used_up = |found: Option<&FocomProvisioningRequest>| {
        found.is_some_and(|found| !found.annotations().contains_key(names::SEND_AGAIN_ANNOTATION))
    };
    wait(tenant.requests(), "edge", "the annotation to be taken off", SOON, used_up).await?;

    // Its request is deleted meanwhile, and stays until its owner lets it go.
    let told = delete_while_gone(&tenant, &remote, words).await?.status.context("a status")?.message;
    let command = "kubectl annotate fpr edge -n forgotten focom.nephio.org/abandon=true --overwrite";
    ensure!(told.contains(command), "no way on: {told}");
    tenant.abandon("edge", "true").await?;
    tenant.until_gone("edge", SOON).await?;
    event(&tenant, "edge", "Abandoned").await?;
    // One of that name gets the cluster back.
    tenant.apply(&tenant.request("edge", "site-a", &[1], &[2])).await?;
    tenant.until("edge", "Synced", ready, SOON).await?;
    ensure!(revisions().await? == hosts_before, "a host was written to");

    // Or until it comes back, and is deleted then.
    let backup = remote.get("edge-o2ims").await?;
    delete_while_gone(&tenant, &remote, words).await?;
    come_back(&remote, backup).await?;
    tenant.until_gone("edge", CLUSTER).await?;
    ensure!(tenant.remote_names(&tenant.parts.site_a.management).await?.is_empty(), "left on the O-Cloud");
    Ok(())
}

/// Makes a ProvisioningRequest again from a backup.
async fn come_back(remote: &Api<ProvisioningRequest>, mut backup: ProvisioningRequest) -> Outcome {
    (backup.metadata.resource_version, backup.metadata.uid, backup.status) = (None, None, None);
    remote.create(&PostParams::default(), &backup).await?;
    Ok(())
}

/// Takes the ProvisioningRequest of `edge` away, and deletes `edge` then.
async fn delete_while_gone(
    tenant: &Tenant,
    remote: &Api<ProvisioningRequest>,
    words: &str,
) -> anyhow::Result<FocomProvisioningRequest> {
    force_away(remote, "edge-o2ims").await?;
    tenant.until("edge", "Failed", words, SOON).await?;
    tenant.delete("edge").await?;
    tenant.until("edge", "Deleting", words, SOON).await
}

async fn adopted(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "adopted").await?;
    let (site_b, remote) = (&tenant.parts.site_b.management, tenant.remote(&tenant.parts.site_b.management));
    let mut request = tenant.request("edge", "site-b", &[1], &[2]);
    let uid = send_as_nephio(&tenant, site_b, &request, json!({})).await?;

    // Two fields differ.
    let as_sent = request["spec"]["templateParameters"].clone();
    request["spec"]["templateParameters"]["hosts"]["masters"][0]["hostId"] = json!(7);
    request["spec"]["description"] = json!("new");
    request["metadata"]["annotations"] = json!({names::ADOPT_ANNOTATION: "dry-run"});
    tenant.apply(&request).await?;
    let words = format!(
        "dry run: ProvisioningRequest edge on O-Cloud adopted/site-b (UID {uid}) cannot be adopted, because it differs from this \
         request in spec.description, spec.templateParameters.hosts.masters[0].hostId. Nothing was written"
    );
    tenant.until("edge", "Pending", &words, SOON).await?;
    request["spec"]["templateParameters"] = as_sent;
    request["spec"].as_object_mut().context("a spec")?.remove("description");
    tenant.apply(&request).await?;
    let words = format!("(UID {uid}) would be adopted; its spec is this request's");
    let told = tenant.until("edge", "Pending", &words, SOON).await?;
    let told = told.status.context("a status")?;
    ensure!(told.message.contains(&format!("annotate this request with focom.nephio.org/adopt={uid}")));
    ensure!(told.remote_name.is_none() && told.sent_to.is_none(), "{told:?}");

    annotate(&tenant, "edge", names::ADOPT_ANNOTATION, Some("another")).await?;
    tenant.until("edge", "Failed", &format!("has the UID {uid}, and the annotation"), SOON).await?;
    let before = remote.get("edge").await?;
    ensure!(before.labels().is_empty() && before.annotations().is_empty(), "written by a dry run: {before:?}");

    annotate(&tenant, "edge", names::ADOPT_ANNOTATION, Some(&uid)).await?;
    let request_uid = tenant.until_state("edge", "pending", SOON).await?.metadata.uid;
    let status = tenant.until("edge", "Synced", "", SOON).await?.status.context("a status")?;
    ensure!(status.remote_name.as_deref() == Some("edge"), "remote name: {:?}", status.remote_name);
    event(&tenant, "edge", "Adopted").await?;
    let now = remote.get("edge").await?;
    ensure!(
        now.uid().as_ref() == Some(&uid) && now.metadata.generation == before.metadata.generation,
        "it was changed"
    );
    ensure!(now.spec == before.spec && now.labels().get(names::SOURCE_UID_LABEL).cloned() == request_uid);
    ensure!(tenant.remote_names(site_b).await? == ["edge"], "a second one was sent");

    // From now on it is the request's own.
    let change = json!({"spec": {"description": "changed"}});
    tenant.requests().patch("edge", &PatchParams::default(), &Patch::Merge(&change)).await?;
    let changed = |remote: Option<&ProvisioningRequest>| {
        remote.is_some_and(|remote| remote.spec.description.as_deref() == Some("changed"))
    };
    wait(remote.clone(), "edge", "the change to arrive", SOON, changed).await?;
    // Gone there, it is not made a second time while the annotation is there.
    remote.delete("edge", &DeleteParams::default()).await?;
    let words =
        "there is neither ProvisioningRequest edge-o2ims nor edge on O-Cloud adopted/site-b, and nothing is sent";
    tenant.until("edge", "Failed", words, SOON).await?;
    annotate(&tenant, "edge", names::ADOPT_ANNOTATION, None).await?;
    tenant.until_remote(site_b, "edge-o2ims", true).await?;

    // What another operator's status says was sent is not sent again, with no annotation at all.
    tenant.apply(&tenant.request("kept", "site-c", &[3], &[])).await?;
    tenant.until("kept", "Failed", "there is no OCloud adopted/site-c", SOON).await?;
    let said = json!({"status": {"phase": "Fulfilled", "remoteName": "kept"}});
    tenant.requests().patch_status("kept", &PatchParams::default(), &Patch::Merge(&said)).await?;
    let kept = send_as_nephio(&tenant, site_b, &tenant.request("kept", "site-c", &[3], &[]), json!({})).await?;
    sandbox::focom::introduce(&tenant.parts.smo, "adopted", "site-c", &tenant.parts.kubeconfig_b).await?;
    tenant.until("kept", "Failed", "annotate this request with focom.nephio.org/adopt=dry-run", SOON).await?;
    tenant.delete("kept").await?;
    tenant.until("kept", "Deleting", "annotate this request with focom.nephio.org/abandon=true", SOON).await?;
    ensure!(remote.get("kept").await?.metadata.deletion_timestamp.is_none(), "deleted without a word");
    annotate(&tenant, "kept", names::ADOPT_ANNOTATION, Some(&kept)).await?;
    tenant.until_gone("kept", SOON).await?;
    tenant.delete("edge").await?;
    tenant.until_gone("edge", SOON).await?;
    ensure!(tenant.remote_names(site_b).await?.is_empty(), "left on the O-Cloud");
    tenant.o_clouds().delete("site-c", &DeleteParams::default()).await?;
    Ok(())
}

async fn another_smo(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "two-smos").await?;
    let guest = Tenant::bare(&world, "two-smos-guest").await?;
    let (site_b, remote) = (&tenant.parts.site_b.management, tenant.remote(&tenant.parts.site_b.management));
    // The name that this SMO gives, and the marks of another one.
    let marks = json!({
        names::SMO_LABEL: "former", names::SOURCE_LABEL: "edge", names::SOURCE_NAMESPACE_LABEL: "two-smos",
        names::SOURCE_UID_LABEL: "u",
    });
    let sent = tenant.request("edge-o2ims", "site-b", &[1], &[]);
    let uid = send_as_nephio(&tenant, site_b, &sent, marks.clone()).await?;
    let mut request = tenant.request("edge", "site-b", &[1], &[]);
    request["spec"]["templateParameters"]["clusterName"] = json!("edge-o2ims");
    tenant.apply(&request).await?;
    let words = format!(
        "by another SMO (former): if this is that SMO, restored, start the operator with --smo-id=former, or annotate this request with \
         focom.nephio.org/adopt={uid}"
    );
    tenant.until("edge", "Failed", &words, SOON).await?;
    // Deleting it does nothing there.
    tenant.delete("edge").await?;
    tenant.until_gone("edge", SOON).await?;
    let found = remote.get("edge-o2ims").await?;
    ensure!(json!(found.labels()) == marks && found.metadata.deletion_timestamp.is_none(), "it was touched: {found:?}");
    tenant.apply(&request).await?;
    tenant.until("edge", "Failed", &words, SOON).await?;
    annotate(&tenant, "edge", names::ADOPT_ANNOTATION, Some(&uid)).await?;
    tenant.until("edge", "Synced", "", SOON).await?;
    let found = remote.get("edge-o2ims").await?;
    ensure!(found.uid() == Some(uid) && found.metadata.generation == Some(1), "it is another one, or was changed");

    // A living request's is never taken, whatever an annotation says; nor may a guest take what says nothing.
    let change = json!({"spec": {"allowedNamespaces": ["two-smos-guest"]}});
    tenant.o_clouds().patch("site-b", &PatchParams::default(), &Patch::Merge(&change)).await?;
    let theirs = send_as_nephio(&tenant, site_b, &tenant.request("bare", "site-b", &[2], &[]), json!({})).await?;
    for (name, uid, words) in [
        ("edge", found.uid().unwrap_or_default(), "is not this request's: choose another metadata.name"),
        ("bare", theirs, "it can be adopted when it has the labels focom.nephio.org/source=bare"),
    ] {
        let mut request = guest.request(name, "site-b", &[2], &[]);
        request["spec"]["oCloudNamespace"] = json!("two-smos");
        request["metadata"]["annotations"] = json!({names::ADOPT_ANNOTATION: uid});
        guest.apply(&request).await?;
        guest.until(name, "Failed", words, SOON).await?;
        guest.delete(name).await?;
        annotate(&guest, name, names::ADOPT_ANNOTATION, None).await.ok();
        guest.until_gone(name, SOON).await?;
    }
    tenant.until("edge", "Synced", "", SOON).await?;
    ensure!(remote.get("bare").await?.labels().is_empty(), "a guest has marked it");
    remote.delete("bare", &DeleteParams::default()).await?;
    tenant.delete("edge").await?;
    tenant.until_gone("edge", SOON).await?;
    ensure!(!tenant.remote_names(site_b).await?.contains(&"edge-o2ims".to_owned()), "left on the O-Cloud");
    Ok(())
}

/// Waits until the status of the OCloud names these orphans, or none.
async fn until_orphans(
    tenant: &Tenant,
    o_cloud: &str,
    names: Option<&[&str]>,
) -> anyhow::Result<Option<OrphanedRequests>> {
    let told = |found: Option<&OCloud>| found.and_then(|found| found.status.as_ref()?.orphaned_requests.clone());
    let reached = |found: Option<&OCloud>| match (told(found), names) {
        (Some(told), Some(names)) => told.names == names,
        (told, names) => told.is_none() == names.is_none(),
    };
    let what = format!("OCloud {o_cloud} to name the orphans {names:?}");
    Ok(told(wait(tenant.o_clouds(), o_cloud, &what, SOON, reached).await?.as_ref()))
}

async fn orphaned(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "orphans").await?;
    let (site_b, remote) = (&tenant.parts.site_b.management, tenant.remote(&tenant.parts.site_b.management));
    // Kubernetes' garbage collector would take its finalizer off at once: a policy keeps it until the operator has seen it.
    let keep = "!has(object.metadata) || !has(oldObject.metadata.finalizers) || !('orphan' in oldObject.metadata.finalizers) || \
                !has(object.metadata.finalizers) || 'orphan' in object.metadata.finalizers || \
                !('focom.nephio.org/finalizer' in object.metadata.finalizers)";
    let kind = ("focom.nephio.org", "focomprovisioningrequests");
    refuse(&tenant.parts.smo, "orphans", kind, "UPDATE", keep, "not yet").await?;
    tenant.apply(&tenant.request("edge", "site-b", &[1], &[])).await?;
    tenant.until_state("edge", "pending", SOON).await?;
    let before = remote.get("edge-o2ims").await?;
    tenant.requests().delete("edge", &DeleteParams::orphan()).await?;
    tenant.until_gone("edge", SOON).await?;
    event(&tenant, "edge", "Orphaned").await?;
    let now = remote.get("edge-o2ims").await?;
    ensure!(now.metadata.resource_version == before.metadata.resource_version, "it was touched: {now:?}");
    // The OCloud that leads to it names it, and no other one does, also if it leads to the same O-Cloud.
    let told = until_orphans(&tenant, "site-b", Some(&["orphans/edge-o2ims"])).await?.context("nothing is told")?;
    ensure!(told.count == 1 && told.message.contains("apply the FocomProvisioningRequest again"), "{told:?}");
    until_orphans(&tenant, "site-a", None).await?;
    let other = Tenant::new(&world, "no-orphans").await?;
    other.until_o_cloud("site-b", "Ready").await?;
    until_orphans(&other, "site-b", None).await?;
    // So does an operator that has just started.
    stop(&tenant).await?;
    let forgotten = json!({"status": {"orphanedRequests": null}});
    tenant.o_clouds().patch_status("site-b", &PatchParams::default(), &Patch::Merge(&forgotten)).await?;
    tenant.parts.start_focom().await?;
    until_orphans(&tenant, "site-b", Some(&["orphans/edge-o2ims"])).await?;
    // A new one of that name takes it back.
    tenant.apply(&tenant.request("edge", "site-b", &[1], &[])).await?;
    tenant.until("edge", "Synced", "", SOON).await?;
    until_orphans(&tenant, "site-b", None).await?;
    let now = remote.get("edge-o2ims").await?;
    ensure!(now.uid() == before.uid() && now.metadata.generation == before.metadata.generation);
    tenant.delete("edge").await?;
    tenant.until_gone("edge", SOON).await?;
    ensure!(tenant.remote_names(site_b).await?.is_empty(), "left on the O-Cloud");
    Ok(())
}

/// A request on `site-b` whose namespace is being deleted, up to the point where nothing of what leads to the O-Cloud is there any
/// more; and the ProvisioningRequest, which stays until its finalizer is taken off.
async fn going(tenant: &Tenant, name: &str) -> anyhow::Result<Api<ProvisioningRequest>> {
    let remote = tenant.remote(&tenant.parts.site_b.management);
    tenant.apply(&tenant.request(name, "site-b", &[1], &[])).await?;
    tenant.until_state(name, "pending", SOON).await?;
    let slow = json!({"metadata": {"finalizers": ["example.org/slow"]}});
    remote.patch(&format!("{name}-o2ims"), &PatchParams::default(), &Patch::Merge(&slow)).await?;
    Api::<Namespace>::all(tenant.client()).delete(&tenant.namespace, &DeleteParams::default()).await?;
    let secrets = Api::<Secret>::namespaced(tenant.client(), &tenant.namespace);
    wait(secrets, "site-b", "the Secret to be gone", SOON, |found: Option<&Secret>| found.is_none()).await?;
    wait(tenant.o_clouds(), "site-b", "the OCloud to be gone", SOON, |found: Option<&OCloud>| found.is_none()).await?;
    let leaving =
        |found: Option<&ProvisioningRequest>| found.is_some_and(|found| found.metadata.deletion_timestamp.is_some());
    wait(remote.clone(), &format!("{name}-o2ims"), "the deletion to arrive", SOON, leaving).await?;
    Ok(remote)
}

async fn namespace_ends(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "ending").await?;
    let remote = going(&tenant, "edge").await?;
    tenant.until("edge", "Deleting", "", SOON).await?;
    remote
        .patch("edge-o2ims", &PatchParams::default(), &Patch::Merge(&json!({"metadata": {"finalizers": null}})))
        .await?;
    tenant.until_gone("edge", SOON).await?;
    tenant.until_remote(&tenant.parts.site_b.management, "edge-o2ims", false).await?;
    let gone = |found: Option<&Namespace>| found.is_none();
    wait(Api::<Namespace>::all(tenant.client()), "ending", "the namespace to be gone", SOON, gone).await?;
    Ok(())
}
