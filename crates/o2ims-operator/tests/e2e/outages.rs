//! What goes wrong around the operator: a panic in one reconcile, an API server that does not answer.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use o2ims_types::ProvisioningState as State;
use sandbox::{OperatorOptions, Stack};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Tenant};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::alone("a_panic_in_one_reconcile_stops_no_other", panic),
        Scenario::alone("an_api_server_that_does_not_answer_is_survived", async |stack| silence(stack, 6, false).await)
            .slow(),
        Scenario::alone("an_api_server_that_does_not_answer_for_long_costs_a_restart", async |stack| {
            silence(stack, 30, true).await
        }),
    ]
}

async fn panic(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::new(stack, "panic", 2).await?;
    stack.operator.take().context("no operator")?.stop().await?;
    let arguments = vec!["--test-panic-on".to_owned(), "panic/bad".to_owned()];
    let options = OperatorOptions { arguments, ..stack.operator_options().clone() };
    let operator = stack.another_operator(&options).await?;
    tenant.apply(&tenant.request("bad", "bad", &[1], &[])).await?;
    tenant.apply(&tenant.request("good", "good", &[2], &[])).await?;
    tenant.until("good", State::Fulfilled, "", CLUSTER).await?;
    let metrics = get(&operator.admin_address().await?, "/metrics").await?;
    let panics =
        metrics.lines().find(|line| !line.starts_with('#') && line.contains("panic")).context("no metric of panics")?;
    ensure!(!panics.ends_with(" 0"), "{panics}");
    operator.stop().await?;
    // Without the hook the other request goes on.
    stack.start_operator().await?;
    tenant.until("bad", State::Progressing, "", SOON).await?;
    for name in ["bad", "good"] {
        tenant.delete(name).await?;
        tenant.until_gone(name, CLUSTER).await?;
    }
    tenant.assert_hosts_free().await
}

/// The API server is stopped in the middle of a creation. The Lease runs out after 15 s: then the operator ends, as it
/// must, and is started again, as a kubelet would.
async fn silence(stack: &mut Stack, seconds: u64, restarts: bool) -> Outcome {
    let tenant = Tenant::new(stack, "silence", 2).await?;
    tenant.apply(&tenant.request("request", "silence", &[1], &[2])).await?;
    tenant.until("request", State::Progressing, "", SOON).await?;
    stack.bed.pause_api_server()?;
    // The length of the outage, not a wait for something.
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stack.bed.resume_api_server()?;
    let ended = stack.operator.as_mut().context("no operator")?.ended()?;
    match (&ended, restarts) {
        (Some(how), false) => bail!("the operator ended: {how}"),
        (Some(how), true) => {
            ensure!(how.contains("exit code 1") && how.contains("lease"), "{how}");
            stack.start_operator().await?;
        }
        (None, true) => bail!("the operator went on without its Lease"),
        (None, false) => {}
    }
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

async fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: operator\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
