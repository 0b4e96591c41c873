//! The specs that an O-Cloud has accepted are kept at the SMO, and the owner of a request goes back to one of them.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use o2ims_types::{FocomProvisioningRequest, Revisions};
use sandbox::waiting::wait;
use serde_json::json;

use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Tenant, World, beside};

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    vec![beside("a_request_is_brought_back_to_an_earlier_revision", back)]
}

async fn back(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "revisions").await?;
    tenant.equip(2).await?;
    tenant.until_o_cloud("site-a", "Ready").await?;
    let first = tenant.request("edge", "site-a", &[1], &[]);
    tenant.apply(&first).await?;
    let one = until_revision(&tenant, 1).await?.accepted.name;
    tenant.apply(&tenant.request("edge", "site-a", &[1], &[2])).await?;
    let two = until_revision(&tenant, 2).await?.accepted.name;
    ensure!(one != two && one.starts_with("edge-"), "{one}, {two}");

    // One that the O-Cloud refuses.
    let mut wrong = tenant.request("edge", "site-a", &[1], &[2]);
    wrong["spec"]["templateParameters"]["podCidr"] = json!("10.1.0.0/16");
    tenant.apply(&wrong).await?;
    let told = tenant.until("edge", "Failed", "podCidr", SOON).await?;
    let revisions = revisions_of(&told).context("no revisions")?;
    ensure!(revisions.accepted.name == two && revisions.fulfilled.is_some_and(|last| last.name == two));
    ensure!(numbers(&tenant).await? == [1, 2], "a refused spec is recorded: {:?}", numbers(&tenant).await?);

    // The data of a revision is a manifest.
    let revision = all(&tenant).get(&one).await?;
    let owner = revision.owner_references().first().map(|owner| owner.uid.clone());
    ensure!(owner == told.uid() && owner.is_some(), "owner: {owner:?}");
    let manifest = revision.data.context("no data")?.0;
    let is_same = |field: &str| manifest[field] == first[field];
    ensure!(["apiVersion", "kind", "metadata", "spec"].into_iter().all(is_same), "{manifest}");
    tenant.apply(&manifest).await?;
    let revisions = until_revision(&tenant, 3).await?;
    ensure!(revisions.accepted.name == one, "the same spec is another revision: {revisions:?}");
    ensure!(numbers(&tenant).await? == [2, 3], "{:?}", numbers(&tenant).await?);
    let remote = tenant.remote(&tenant.parts.site_a.management).get("edge-o2ims").await?;
    let workers = remote.spec.template_parameters.hosts.context("no hosts")?.workers;
    ensure!(workers.is_empty(), "the O-Cloud has {workers:?}");

    tenant.delete("edge").await?;
    tenant.until_gone("edge", CLUSTER).await?;
    for revision in all(&tenant).list(&ListParams::default()).await? {
        let name = revision.name_any();
        let is_gone = |revision: Option<&ControllerRevision>| revision.is_none();
        wait(all(&tenant), &name, &format!("revision {name} to be gone"), CLUSTER, is_gone).await?;
    }
    Ok(())
}

fn revisions_of(request: &FocomProvisioningRequest) -> Option<Revisions> {
    request.status.as_ref()?.revisions.clone()
}

/// Waits until the revision of this number is accepted and fulfilled.
async fn until_revision(tenant: &Tenant, number: i64) -> anyhow::Result<Revisions> {
    let what = format!("revision {number} to be accepted and fulfilled");
    let is_noted = |request: Option<&FocomProvisioningRequest>| {
        let revisions = request.and_then(revisions_of);
        revisions.is_some_and(|revisions| {
            revisions.accepted.number == number && revisions.fulfilled.is_some_and(|last| last.number == number)
        })
    };
    let found = wait(tenant.requests(), "edge", &what, CLUSTER, is_noted).await?;
    found.as_ref().and_then(revisions_of).context("no revisions")
}

fn all(tenant: &Tenant) -> Api<ControllerRevision> {
    Api::namespaced(tenant.client(), &tenant.namespace)
}

/// The numbers of the revisions that are there, in their order.
async fn numbers(tenant: &Tenant) -> anyhow::Result<Vec<i64>> {
    let list = all(tenant).list(&ListParams::default()).await?;
    let mut numbers: Vec<_> = list.iter().map(|revision| revision.revision).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
