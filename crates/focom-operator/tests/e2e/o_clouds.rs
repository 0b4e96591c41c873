//! O-Clouds that can and cannot be used, and what is said of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use o2ims_types::OCloud;
use sandbox::focom;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{Outcome, SOON, Scenario, Tenant, World, alone, beside};

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        beside("every_obstacle_on_the_way_to_an_o_cloud_has_a_reason", every_obstacle_has_a_reason),
        beside("a_new_secret_is_used_at_once", a_new_secret_is_used_at_once),
        beside("a_black_hole_holds_up_nobody_else", a_black_hole_holds_up_nobody_else),
        alone("an_o_cloud_that_falls_silent_is_waited_for", an_o_cloud_that_falls_silent_is_waited_for),
    ]
}

/// Writes the Secret that the OCloud of the same name uses.
pub async fn put_secret(tenant: &Tenant, name: &str, key: &str, content: &str) -> Outcome {
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: content}});
    let api = Api::<Secret>::namespaced(tenant.client(), &tenant.namespace);
    let params = PatchParams::apply("user").force();
    api.patch(name, &params, &Patch::Apply(&secret)).await.context("writing the Secret")?;
    Ok(())
}

/// Writes an OCloud whose Secret has its name.
pub async fn put_o_cloud(tenant: &Tenant, name: &str) -> Outcome {
    let o_cloud = focom::o_cloud(&tenant.namespace, name);
    let api = Api::<OCloud>::namespaced(tenant.client(), &tenant.namespace);
    api.patch(name, &PatchParams::apply("user").force(), &Patch::Apply(&o_cloud))
        .await
        .context("writing the OCloud")?;
    Ok(())
}

/// The kubeconfig with another value at one place of its only cluster or user.
pub fn with(kubeconfig: &str, entry: &str, field: &str, value: &str) -> anyhow::Result<String> {
    let mut file: Value = serde_saphyr::from_str(kubeconfig)?;
    let list = format!("{entry}s");
    file[&list][0][entry][field] = json!(value);
    Ok(file.to_string())
}

fn ready_message(o_cloud: &OCloud) -> String {
    let conditions = o_cloud.status.iter().flat_map(|status| &status.conditions);
    conditions.filter(|found| found.type_ == "Ready").map(|found| found.message.clone()).collect()
}

async fn every_obstacle_has_a_reason(world: Arc<World>) -> Outcome {
    let tenant = Tenant::bare(&world, "reasons").await?;
    let smo = &tenant.parts.smo;
    let good = &tenant.parts.kubeconfig_b;
    focom::allow_secrets(smo, &tenant.namespace).await?;

    // An account without rights, on an O-Cloud that is fine.
    let nobody = tenant.parts.site_b.management.dir().join("nobody.kubeconfig");
    tenant.parts.site_b.management.kubeconfig_as("nobody", &[], &nobody)?;
    let nobody = std::fs::read_to_string(&nobody)?;
    // A port that nobody listens on: taken, and let go again.
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?;
    let other_authority = testenv::Authority::generate("somebody else")?;
    let other_authority = BASE64_STANDARD.encode(&other_authority.pair().certificate);
    let no_kubernetes = silent_listener(Manner::Closes).await?;

    let cases = [
        ("missing", None, "SecretMissing", "put a kubeconfig"),
        (
            "empty",
            Some(("something-else", good.clone())),
            "SecretMissing",
            "neither the key kubeconfig nor the key value",
        ),
        ("hostile", Some(("kubeconfig", with(good, "user", "exec", "x")?)), "KubeconfigRefused", "exec"),
        (
            "closed",
            Some(("kubeconfig", with(good, "cluster", "server", &format!("https://{closed}"))?)),
            "Unreachable",
            "connection refused",
        ),
        (
            "nonsense",
            Some(("kubeconfig", with(good, "cluster", "server", &format!("https://{no_kubernetes}"))?)),
            "Unreachable",
            "cannot be reached",
        ),
        (
            "impostor",
            Some(("kubeconfig", with(good, "cluster", "certificate-authority-data", &other_authority)?)),
            "CertificateInvalid",
            "not signed by the authority",
        ),
        ("stranger", Some(("kubeconfig", with(good, "user", "token", "nonsense")?)), "Unauthorized", "401"),
        ("nobody", Some(("kubeconfig", nobody)), "Forbidden", "o-cloud-account.yaml"),
        ("ready", Some(("kubeconfig", good.clone())), "Ready", "answers"),
        // As Cluster API writes it.
        ("value", Some(("value", good.clone())), "Ready", "answers"),
    ];
    for (name, secret, ..) in &cases {
        if let Some((key, content)) = secret {
            put_secret(&tenant, name, key, content).await?;
        }
        put_o_cloud(&tenant, name).await?;
        tenant.apply(&tenant.request(&format!("at-{name}"), name, &[1], &[])).await?;
    }
    for (name, _, reason, words) in &cases {
        let o_cloud = tenant.until_o_cloud(name, reason).await?;
        let message = ready_message(&o_cloud);
        ensure!(message.contains(words), "{name}: {message}");
        // The address is the Secret's.
        ensure!(!message.contains("127.0.0.1"), "{name}: {message}");
        let (phase, words) = if *reason == "Ready" { ("Synced", "") } else { ("Pending", "waiting for O-Cloud") };
        let request = tenant.until(&format!("at-{name}"), phase, words, SOON).await?;
        let conditions = request.status.map(|status| status.conditions).unwrap_or_default();
        let available =
            conditions.iter().find(|found| found.type_ == "OCloudAvailable").context("no OCloudAvailable")?;
        let expected = if *reason == "Ready" { "Succeeded" } else { reason };
        ensure!(available.reason == expected, "{name}: {}", available.reason);
    }
    for (name, ..) in &cases {
        tenant.delete(&format!("at-{name}")).await?;
    }
    for (name, ..) in &cases {
        // Nothing was sent where the O-Cloud did not answer, so nothing keeps those.
        tenant.until_gone(&format!("at-{name}"), SOON).await?;
    }
    Ok(())
}

async fn a_new_secret_is_used_at_once(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "rotation").await?;
    tenant.until_o_cloud("site-b", "Ready").await?;
    let good = &tenant.parts.kubeconfig_b;
    put_secret(&tenant, "site-b", "kubeconfig", &with(good, "user", "token", "withdrawn")?).await?;
    tenant.until_o_cloud("site-b", "Unauthorized").await?;
    tenant.apply(&tenant.request("waits", "site-b", &[1], &[])).await?;
    tenant.until("waits", "Pending", "does not accept the credentials", SOON).await?;
    put_secret(&tenant, "site-b", "kubeconfig", good).await?;
    tenant.until_o_cloud("site-b", "Ready").await?;
    tenant.until("waits", "Synced", "", SOON).await?;
    // Another O-Cloud under the same name is another O-Cloud: what was sent is neither made twice nor forgotten.
    put_secret(&tenant, "site-b", "kubeconfig", &tenant.parts.kubeconfig_a).await?;
    tenant.until("waits", "Failed", "leads to another O-Cloud", SOON).await?;
    tenant.apply(&tenant.request("to-go", "site-b", &[1], &[])).await?;
    tenant.until("to-go", "Synced", "", SOON).await?;
    tenant.delete("waits").await?;
    tenant.until("waits", "Deleting", "leads to another O-Cloud", SOON).await?;
    put_secret(&tenant, "site-b", "kubeconfig", good).await?;
    tenant.until_gone("waits", SOON).await?;
    ensure!(tenant.remote_names(&tenant.parts.site_b.management).await?.is_empty(), "left behind on the O-Cloud");
    let moved = tenant.until("to-go", "Failed", "leads to another O-Cloud", SOON).await?;
    let sent_to = moved.status.and_then(|status| status.sent_to).context("it was sent")?;
    tenant.abandon("to-go", &sent_to).await?;
    tenant.until_remote(&tenant.parts.site_b.management, "to-go-o2ims", true).await?;
    tenant.until("to-go", "Synced", "", SOON).await?;
    ensure!(tenant.events("to-go").await?.iter().any(|reason| reason == "Abandoned"), "nobody was told");
    tenant.delete("to-go").await?;
    tenant.until_gone("to-go", SOON).await?;
    ensure!(
        tenant.remote_names(&tenant.parts.site_a.management).await? == ["to-go-o2ims"],
        "what was left there stays"
    );
    Ok(())
}

/// What a listener does with a connection.
#[derive(Clone, Copy)]
pub enum Manner {
    /// Takes it and says nothing.
    Keeps,
    /// Ends it.
    Closes,
}

/// A listener that never answers.
pub async fn silent_listener(manner: Manner) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            if matches!(manner, Manner::Keeps) {
                kept.push(connection);
            }
        }
    });
    Ok(address)
}

async fn a_black_hole_holds_up_nobody_else(world: Arc<World>) -> Outcome {
    const REQUESTS: u32 = 20;
    let tenant = Tenant::new(&world, "black-hole").await?;
    let hole = silent_listener(Manner::Keeps).await?;
    let lost = with(&tenant.parts.kubeconfig_b, "cluster", "server", &format!("https://{hole}"))?;
    put_secret(&tenant, "site-b", "kubeconfig", &lost).await?;
    tenant.until_o_cloud("site-b", "Unreachable").await?;
    for number in 0..REQUESTS {
        tenant.apply(&tenant.request(&format!("lost-{number}"), "site-b", &[number], &[])).await?;
        tenant.apply(&tenant.request(&format!("fine-{number}"), "site-a", &[number], &[])).await?;
    }
    for number in 0..REQUESTS {
        tenant.until(&format!("fine-{number}"), "Synced", "", SOON).await?;
        tenant.until(&format!("lost-{number}"), "Pending", "does not answer", SOON).await?;
    }
    put_secret(&tenant, "site-b", "kubeconfig", &tenant.parts.kubeconfig_b).await?;
    for number in 0..REQUESTS {
        tenant.until(&format!("lost-{number}"), "Synced", "", SOON).await?;
    }
    let params = DeleteParams::default();
    tenant.requests().delete_collection(&params, &kube::api::ListParams::default()).await?;
    for number in 0..REQUESTS {
        tenant.until_gone(&format!("lost-{number}"), SOON).await?;
        tenant.until_gone(&format!("fine-{number}"), SOON).await?;
    }
    Ok(())
}

/// The API server stands still while requests are under way, as if the network had gone.
async fn an_o_cloud_that_falls_silent_is_waited_for(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "silence").await?;
    let site_b = &tenant.parts.site_b.management;
    tenant.apply(&tenant.request("before", "site-b", &[1], &[])).await?;
    tenant.until("before", "Synced", "", SOON).await?;
    site_b.pause_api_server()?;
    let paused = async {
        for number in 0..10 {
            tenant.apply(&tenant.request(&format!("lost-{number}"), "site-b", &[number], &[])).await?;
        }
        // Beside them others go on at once: less than the time limit of a single request to the silent one.
        for number in 0..10 {
            tenant.apply(&tenant.request(&format!("fine-{number}"), "site-a", &[number], &[])).await?;
        }
        for number in 0..10 {
            tenant.until(&format!("fine-{number}"), "Synced", "", SOON).await?;
        }
        tenant.until_o_cloud("site-b", "Unreachable").await?;
        tenant.until("lost-0", "Pending", "does not answer", SOON).await?;
        // What was there before stays as it was last known, and says so.
        let known = tenant.until("before", "Synced", "waiting for O-Cloud silence/site-b", SOON).await?;
        let ready = known.status.and_then(|status| status.conditions.into_iter().find(|found| found.type_ == "Ready"));
        ensure!(ready.is_some_and(|ready| ready.status == "Unknown"), "Ready is not Unknown");
        tenant.delete("before").await?;
        tenant.until("before", "Deleting", "focom.nephio.org/abandon=true", SOON).await?;
        Ok(())
    };
    let result: Outcome = paused.await;
    site_b.resume_api_server()?;
    result?;
    tenant.until_gone("before", SOON).await?;
    for number in 0..10 {
        tenant.until(&format!("lost-{number}"), "Synced", "", SOON).await?;
    }
    tenant.requests().delete_collection(&DeleteParams::default(), &kube::api::ListParams::default()).await?;
    for number in 0..10 {
        tenant.until_gone(&format!("lost-{number}"), SOON).await?;
        tenant.until_gone(&format!("fine-{number}"), SOON).await?;
    }
    Ok(())
}
