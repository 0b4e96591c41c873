//! What an O-Cloud's Secret says is seen nowhere else.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use sandbox::focom;
use serde_json::{Value, json};

use crate::harness::{Outcome, SOON, Scenario, Tenant, World, alone};
use crate::o_clouds::{put_o_cloud, put_secret, with};

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    vec![alone("no_secret_is_seen_anywhere", no_secret_is_seen_anywhere)]
}

/// A mark that nothing else contains.
const MARK: &str = "q7x-unmistakable-z9";

async fn no_secret_is_seen_anywhere(world: Arc<World>) -> Outcome {
    let tenant = Tenant::bare(&world, "secrecy").await?;
    let parts = &tenant.parts;
    focom::allow_secrets(&parts.smo, &tenant.namespace).await?;
    // Everything that the operator can log, and more than anybody asks for.
    let quiet = parts.focom.lock().await.take().context("the operator does not run")?;
    quiet.stop().await?;
    let mut options = parts.focom_options().clone();
    "trace".clone_into(&mut options.log_level);
    let loud = focom::start_operator(&parts.smo, &options).await?;
    let admin = loud.admin_address().await?;
    *parts.focom.lock().await = Some(loud);

    let good = &parts.kubeconfig_b;
    let file: Value = serde_saphyr::from_str(good)?;
    let token = file["users"][0]["user"]["token"].as_str().context("a token")?.to_owned();
    let marked_pem =
        BASE64_STANDARD.encode(format!("-----BEGIN CERTIFICATE-----\n{MARK}\n-----END CERTIFICATE-----\n"));
    let cases = [
        ("fine", good.clone(), "Ready"),
        ("stranger", with(good, "user", "token", MARK)?, "Unauthorized"),
        ("bad-token", with(good, "user", "token", &format!("{MARK} with a space"))?, "KubeconfigRefused"),
        ("bad-server", with(good, "cluster", "server", &format!("http://{MARK}"))?, "KubeconfigRefused"),
        ("no-such-host", with(good, "cluster", "server", &format!("https://{MARK}.invalid:6443"))?, "Unreachable"),
        ("other-name", with(good, "cluster", "tls-server-name", &format!("{MARK}.invalid"))?, "CertificateInvalid"),
        ("bad-authority", with(good, "cluster", "certificate-authority-data", &marked_pem)?, "KubeconfigRefused"),
        ("bad-exec", with(good, "user", "exec", MARK)?, "KubeconfigRefused"),
        ("bad-key", with(good, "user", MARK, MARK)?, "KubeconfigRefused"),
        ("no-yaml", format!("{MARK}: : :"), "KubeconfigRefused"),
    ];
    for (name, content, _) in &cases {
        put_secret(&tenant, name, "kubeconfig", content).await?;
        put_o_cloud(&tenant, name).await?;
        tenant.apply(&tenant.request(&format!("at-{name}"), name, &[1], &[])).await?;
    }
    let mut seen = Vec::new();
    for (name, _, reason) in &cases {
        seen.push(serde_json::to_string(&tenant.until_o_cloud(name, reason).await?)?);
        let phase = if *reason == "Ready" { "Synced" } else { "Pending" };
        let request = tenant.until(&format!("at-{name}"), phase, "", SOON).await?;
        seen.push(serde_json::to_string(&json!({"status": request.status}))?);
    }
    for event in Api::<Event>::namespaced(tenant.client(), &tenant.namespace).list(&ListParams::default()).await? {
        seen.push(serde_json::to_string(&event)?);
    }
    seen.push(metrics(&admin).await?);
    seen.push(std::fs::read_to_string(focom::operator_log(&parts.smo))?);
    ensure!(seen.last().is_some_and(|log| log.contains("TRACE")), "the log has no line at level trace");
    for text in &seen {
        for secret in [MARK, &token] {
            let place =
                text.find(secret).map(|at| text.chars().skip(at.saturating_sub(300)).take(400).collect::<String>());
            ensure!(place.is_none(), "a secret is seen: …{}…", place.unwrap_or_default());
        }
    }
    let loud = parts.focom.lock().await.take().context("the operator does not run")?;
    loud.stop().await?;
    parts.start_focom().await?;
    for (name, ..) in &cases {
        tenant.delete(&format!("at-{name}")).await?;
        tenant.until_gone(&format!("at-{name}"), SOON).await?;
    }
    Ok(())
}

/// What `/metrics` answers.
async fn metrics(address: &str) -> anyhow::Result<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut connection = tokio::net::TcpStream::connect(address).await?;
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    ensure!(answer.contains("reconciles_total"), "no metrics: {answer}");
    Ok(answer)
}
