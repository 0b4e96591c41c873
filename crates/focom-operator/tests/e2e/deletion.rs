//! What keeps a request that is being deleted, what it says then, and how somebody gives it up.

use std::sync::Arc;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use o2ims_types::names::focom as names;
use serde_json::json;

use crate::harness::{Outcome, SOON, Scenario, Tenant, World, beside};
use crate::o_clouds::{Manner, put_o_cloud, put_secret, silent_listener, with};

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        beside("a_request_stays_until_its_o_cloud_can_be_asked", a_request_stays),
        beside("a_request_is_given_up_on_purpose_only", a_request_is_given_up),
        beside("what_was_never_sent_goes_at_once", what_was_never_sent_goes),
        beside("what_the_o_cloud_loses_is_made_anew", what_the_o_cloud_loses),
        beside("a_mark_that_was_taken_off_comes_back", a_mark_that_was_taken_off),
    ]
}

async fn a_request_stays(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "stays").await?;
    for name in ["no-o-cloud", "no-secret"] {
        tenant.apply(&tenant.request(name, "site-b", &[1], &[])).await?;
        tenant.until(name, "Synced", "", SOON).await?;
    }
    let secrets = Api::<Secret>::namespaced(tenant.client(), &tenant.namespace);
    secrets.delete("site-b", &DeleteParams::default()).await?;
    tenant.until_o_cloud("site-b", "SecretMissing").await?;
    tenant.delete("no-secret").await?;
    tenant.until("no-secret", "Deleting", "Secret stays/site-b does not exist", SOON).await?;
    tenant.o_clouds().delete("site-b", &DeleteParams::default()).await?;
    tenant.delete("no-o-cloud").await?;
    tenant.until("no-o-cloud", "Deleting", "there is no OCloud stays/site-b", SOON).await?;
    ensure!(
        tenant.remote_names(&tenant.parts.site_b.management).await?.len() == 2,
        "taken back though nobody could be asked"
    );

    put_secret(&tenant, "site-b", "kubeconfig", &tenant.parts.kubeconfig_b).await?;
    put_o_cloud(&tenant, "site-b").await?;
    for name in ["no-o-cloud", "no-secret"] {
        tenant.until_gone(name, SOON).await?;
    }
    ensure!(tenant.remote_names(&tenant.parts.site_b.management).await?.is_empty());
    Ok(())
}

async fn a_request_is_given_up(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "given-up").await?;
    tenant.apply(&tenant.request("lost", "site-b", &[1], &[])).await?;
    tenant.apply(&tenant.request("kept", "site-a", &[1], &[])).await?;
    tenant.until("lost", "Synced", "", SOON).await?;
    tenant.until("kept", "Synced", "", SOON).await?;
    let hole = silent_listener(Manner::Keeps).await?;
    let lost = with(&tenant.parts.kubeconfig_b, "cluster", "server", &format!("https://{hole}"))?;
    put_secret(&tenant, "site-b", "kubeconfig", &lost).await?;
    tenant.until_o_cloud("site-b", "Unreachable").await?;
    tenant.delete("lost").await?;
    let words = format!("annotate this request with {}=true", names::ABANDON_ANNOTATION);
    tenant.until("lost", "Deleting", &words, SOON).await?;
    tenant.abandon("lost", "yes").await?;
    // The status speaks of the changed request, so it was looked at with that annotation.
    let change = json!({"spec": {"description": "a new generation"}});
    let changed = tenant.requests().patch("lost", &PatchParams::default(), &Patch::Merge(&change)).await?;
    let looked_at = |found: Option<&o2ims_types::FocomProvisioningRequest>| {
        found.is_some_and(|found| {
            found.status.as_ref().and_then(|status| status.observed_generation) == changed.metadata.generation
        })
    };
    sandbox::waiting::wait(tenant.requests(), "lost", "a look at it", SOON, looked_at).await?;
    tenant.abandon("lost", "true").await?;
    tenant.until_gone("lost", SOON).await?;
    ensure!(tenant.events("lost").await?.iter().any(|reason| reason == "Abandoned"), "nobody was told");
    ensure!(tenant.remote_names(&tenant.parts.site_b.management).await? == ["lost-o2ims"], "what is there stays");

    // Where the O-Cloud answers it is asked all the same, and not waited for.
    tenant.abandon("kept", "true").await?;
    let remote = tenant.remote(&tenant.parts.site_a.management);
    let slow = json!({"metadata": {"finalizers": ["example.org/slow"]}});
    remote.patch("kept-o2ims", &PatchParams::default(), &Patch::Merge(&slow)).await?;
    tenant.delete("kept").await?;
    tenant.until_gone("kept", SOON).await?;
    ensure!(remote.get("kept-o2ims").await?.metadata.deletion_timestamp.is_some(), "the O-Cloud was not asked");
    let done = json!({"metadata": {"finalizers": null}});
    remote.patch("kept-o2ims", &PatchParams::default(), &Patch::Merge(&done)).await?;
    tenant.until_remote(&tenant.parts.site_a.management, "kept-o2ims", false).await
}

async fn what_was_never_sent_goes(world: Arc<World>) -> Outcome {
    let tenant = Tenant::bare(&world, "never-sent").await?;
    tenant.apply(&tenant.request("nowhere", "unknown", &[1], &[])).await?;
    tenant.until("nowhere", "Failed", "oCloudId unknown: there is no OCloud never-sent/unknown", SOON).await?;
    tenant.delete("nowhere").await?;
    tenant.until_gone("nowhere", SOON).await
}

/// Without the SMO's mark the operator's watch does not show the ProvisioningRequest any more.
async fn a_mark_that_was_taken_off(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "marks").await?;
    tenant.apply(&tenant.request("marked", "site-b", &[1], &[])).await?;
    tenant.until("marked", "Synced", "", SOON).await?;
    let remote = tenant.remote(&tenant.parts.site_b.management);
    let first = remote.get("marked-o2ims").await?.metadata.uid;
    let off = json!({"metadata": {"labels": {names::SMO_LABEL: null}}});
    remote.patch("marked-o2ims", &PatchParams::default(), &Patch::Merge(&off)).await?;
    let marked = |found: Option<&o2ims_types::ProvisioningRequest>| {
        let labels = found.and_then(|found| found.metadata.labels.as_ref());
        labels.is_some_and(|labels| labels.contains_key(names::SMO_LABEL))
    };
    sandbox::waiting::wait(remote.clone(), "marked-o2ims", "the mark", SOON, marked).await?;
    ensure!(remote.get("marked-o2ims").await?.metadata.uid == first, "it was made anew");
    tenant.until("marked", "Synced", "", SOON).await?;
    tenant.delete("marked").await?;
    tenant.until_gone("marked", SOON).await?;
    ensure!(tenant.remote_names(&tenant.parts.site_b.management).await?.is_empty());
    Ok(())
}

async fn what_the_o_cloud_loses(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "loses").await?;
    tenant.apply(&tenant.request("again", "site-b", &[1], &[])).await?;
    tenant.until("again", "Synced", "", SOON).await?;
    let remote = tenant.remote(&tenant.parts.site_b.management);
    let first = remote.get("again-o2ims").await?.metadata.uid;
    remote.delete("again-o2ims", &DeleteParams::default()).await?;
    let anew =
        |found: Option<&o2ims_types::ProvisioningRequest>| found.is_some_and(|found| found.metadata.uid != first);
    sandbox::waiting::wait(remote, "again-o2ims", "a new one", SOON, anew).await?;
    tenant.until("again", "Synced", "", SOON).await?;
    tenant.delete("again").await?;
    tenant.until_gone("again", SOON).await
}
