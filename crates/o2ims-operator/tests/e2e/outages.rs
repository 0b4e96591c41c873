//! What goes wrong around the operator: an API server that does not answer.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use o2ims_types::ProvisioningState as State;
use sandbox::Stack;

use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Tenant, alone_with, with_short_lease};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        alone_with("an_api_server_that_does_not_answer_is_survived", with_short_lease, async |stack| {
            silence(stack, 6, false).await
        })
        .slow(),
        alone_with("an_api_server_that_does_not_answer_for_long_costs_a_restart", with_short_lease, async |stack| {
            silence(stack, 30, true).await
        }),
    ]
}

/// The API server is stopped in the middle of a creation. The Lease runs out after 15 s: then the operator ends, as it
/// must, and is started again, as a kubelet would.
async fn silence(stack: &mut Stack, seconds: u64, restarts: bool) -> Outcome {
    let tenant = Tenant::new(stack, "silence", 2).await?;
    tenant.apply(&tenant.request("request", "silence", &[1], &[2])).await?;
    tenant.until("request", State::Progressing, "", SOON).await?;
    stack.management.pause_api_server()?;
    // The length of the outage, not a wait for something.
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stack.management.resume_api_server()?;
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
