//! A request at rest costs nothing.

use std::time::Duration;

use anyhow::ensure;
use o2ims_types::ProvisioningState as State;
use sandbox::Stack;

use crate::harness::{CLUSTER, OPERATOR_USER, Outcome, Scenario, Tenant};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::alone("a_fulfilled_request_at_rest_costs_nothing", async |stack| rest(stack, 20).await),
        Scenario::alone("a_fulfilled_request_at_rest_for_five_minutes_costs_nothing", async |stack| {
            rest(stack, 300).await
        })
        .slow(),
    ]
}

/// Nothing is asked and nothing is written but watches and the Lease.
async fn rest(stack: &mut Stack, seconds: u64) -> Outcome {
    let tenant = Tenant::new(stack, "rest", 2).await?;
    tenant.apply(&tenant.request("request", "rest", &[1], &[2])).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    // The last thing that is written for it.
    tenant.until_event("request", "Fulfilled").await?;
    let mark = stack.bed.audit_log().mark()?;
    // The time that is looked at, not a wait for something.
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let entries = stack.bed.audit_log().since(&mark)?;
    let mine: Vec<_> = entries
        .iter()
        .filter(|entry| entry.user == OPERATOR_USER && !entry.is_watch() && entry.resource != "leases")
        .map(|entry| format!("{} {}", entry.verb, entry.uri))
        .collect();
    ensure!(mine.is_empty(), "in {seconds} s at rest: {mine:?}");
    ensure!(entries.iter().any(|entry| entry.user == OPERATOR_USER), "the operator was not there");
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    Ok(())
}
