//! The operator is killed at the worst moment.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use sandbox::waiting::wait;
use serde_json::{Value, json};

use crate::harness::{Outcome, SOON, Scenario, Tenant, World, alone};

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        alone("killed_between_the_o_cloud_and_the_status", killed_between_the_o_cloud_and_the_status),
        alone("killed_as_the_request_arrives", killed_as_the_request_arrives),
    ]
}

/// The Lease of one that was killed goes with it: how long it would have kept others waiting is not looked at here.
async fn kill(tenant: &Tenant) -> Outcome {
    tenant.parts.focom.lock().await.take().context("the operator does not run")?.crash().await?;
    let leases = Api::<Lease>::namespaced(tenant.client(), "focom-system");
    leases.delete("focom-operator", &DeleteParams::default()).await?;
    Ok(())
}

/// The ProvisioningRequest is there and the status cannot be written: exactly the gap, held open as long as it takes.
async fn killed_between_the_o_cloud_and_the_status(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "gap").await?;
    let o_cloud_namespaces = Api::<Namespace>::all(tenant.parts.site_b.management.admin());
    let mut request = tenant.request("late", "site-b", &[1], &[]);
    // The O-Cloud has no such namespace yet, so the request waits right before the gap.
    let elsewhere = json!({"metadata": {"name": "gap-elsewhere"}});
    Api::<Namespace>::all(tenant.client())
        .create(&PostParams::default(), &serde_json::from_value(elsewhere.clone())?)
        .await?;
    sandbox::focom::introduce(&tenant.parts.smo, "gap-elsewhere", "site-b", &tenant.parts.kubeconfig_b).await?;
    let allow = json!({"spec": {"allowedNamespaces": ["gap"]}});
    let o_clouds = Api::<o2ims_types::OCloud>::namespaced(tenant.client(), "gap-elsewhere");
    o_clouds.patch("site-b", &PatchParams::default(), &Patch::Merge(&allow)).await?;
    request["spec"]["oCloudNamespace"] = json!("gap-elsewhere");
    tenant.apply(&request).await?;
    tenant.until("late", "Pending", "no such namespace", SOON).await?;

    let roles = Api::<ClusterRole>::all(tenant.client());
    let whole = roles.get("focom-operator").await?;
    let mut without: Value = serde_json::to_value(&whole)?;
    for rule in without["rules"].as_array_mut().context("rules")? {
        if let Some(resources) = rule["resources"].as_array_mut() {
            resources.retain(|resource| resource != "focomprovisioningrequests/status");
        }
    }
    let set = async |rules: &Value| -> Outcome {
        roles.patch("focom-operator", &PatchParams::default(), &Patch::Merge(&json!({"rules": rules}))).await?;
        Ok(())
    };
    set(&without["rules"]).await?;
    o_cloud_namespaces.create(&PostParams::default(), &serde_json::from_value(elsewhere)?).await?;
    let remote =
        Api::<o2ims_types::ProvisioningRequest>::namespaced(tenant.parts.site_b.management.admin(), "gap-elsewhere");
    let there =
        wait(remote.clone(), "late-o2ims", "the ProvisioningRequest", SOON * 3, |found: Option<&_>| found.is_some())
            .await?;
    let uid = there.and_then(|there| there.metadata.uid);
    let status = tenant.requests().get("late").await?.status.context("a status")?;
    ensure!(status.remote_name.is_none(), "the status was written: {status:?}");
    ensure!(status.sent_to.is_some(), "nothing tells where it was sent: {status:?}");
    let killed = kill(&tenant).await;
    set(&serde_json::to_value(&whole.rules)?).await?;
    killed?;
    // The OCloud leads to another O-Cloud before anybody could see that the request was sent.
    let lead_to = |kubeconfig| sandbox::focom::introduce(&tenant.parts.smo, "gap-elsewhere", "site-b", kubeconfig);
    lead_to(&tenant.parts.kubeconfig_a).await?;
    tenant.parts.start_focom().await?;
    let words = "was being sent to, and it is not known whether that one has its ProvisioningRequest";
    tenant.until("late", "Failed", words, SOON).await?;
    lead_to(&tenant.parts.kubeconfig_b).await?;
    let request = tenant.until("late", "Synced", "", SOON).await?;
    ensure!(request.status.and_then(|status| status.remote_name).as_deref() == Some("late-o2ims"));
    let all = remote.list(&ListParams::default()).await?;
    ensure!(all.items.len() == 1 && all.items.first().and_then(|one| one.metadata.uid.clone()) == uid, "a second one");
    tenant.delete("late").await?;
    tenant.until_gone("late", SOON).await?;
    ensure!(remote.list(&ListParams::default()).await?.items.is_empty(), "left behind on the O-Cloud");
    Ok(())
}

/// As fast as a watch can tell, at whatever moment that is.
async fn killed_as_the_request_arrives(world: Arc<World>) -> Outcome {
    const ROUNDS: u32 = 10;
    let tenant = Tenant::new(&world, "killed").await?;
    let remote = tenant.remote(&tenant.parts.site_b.management);
    let mut in_the_gap = 0;
    for round in 0..ROUNDS {
        let name = format!("round-{round}");
        let remote_name = format!("{name}-o2ims");
        let appears =
            wait(remote.clone(), &remote_name, "the ProvisioningRequest", SOON, |found: Option<&_>| found.is_some());
        let apply = async { Ok(tenant.apply(&tenant.request(&name, "site-b", &[1], &[])).await?) };
        tokio::try_join!(appears, apply)?;
        kill(&tenant).await?;
        tenant.parts.start_focom().await?;
        let status = tenant.requests().get(&name).await?.status.unwrap_or_default();
        in_the_gap += u32::from(status.remote_name.is_none());
    }
    eprintln!("killed {ROUNDS} times, {in_the_gap} of them before the status knew of the ProvisioningRequest");
    for round in 0..ROUNDS {
        let request = tenant.until(&format!("round-{round}"), "Synced", "", SOON).await?;
        let uid = request.metadata.uid;
        let there = remote.get(&format!("round-{round}-o2ims")).await?;
        ensure!(there.metadata.labels.and_then(|mut labels| labels.remove("focom.nephio.org/source-uid")) == uid);
    }
    ensure!(u32::try_from(tenant.remote_names(&tenant.parts.site_b.management).await?.len()) == Ok(ROUNDS));
    tenant.requests().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    for round in 0..ROUNDS {
        tenant.until_gone(&format!("round-{round}"), SOON).await?;
    }
    ensure!(tenant.remote_names(&tenant.parts.site_b.management).await?.is_empty(), "left behind on the O-Cloud");
    Ok(())
}
