//! A request at rest costs nothing.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::jiff::Timestamp;
use o2ims_types::ProvisioningState as State;
use sandbox::Stack;
use testenv::AuditEntry;

use crate::harness::{CLUSTER, OPERATOR_USER, Outcome, Scenario, Tenant, alone_with, patient};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("a_fulfilled_request_at_rest_costs_nothing", 20),
        scenario("a_fulfilled_request_at_rest_for_five_minutes_costs_nothing", 300).slow(),
    ]
}

fn scenario(name: &str, seconds: u64) -> Scenario {
    alone_with(name, patient, async move |stack| rest(stack, seconds).await)
}

/// Nothing is asked and nothing is written but watches and the Lease.
async fn rest(stack: &mut Stack, seconds: u64) -> Outcome {
    let tenant = Tenant::new(stack, "rest", 2).await?;
    tenant.apply(&tenant.request("request", "rest", &[1], &[2])).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    // The last thing that is written for it.
    tenant.until_event("request", "Fulfilled").await?;
    let mark = stack.management.audit_log().mark()?;
    // A request is logged after its answer was seen here, so the mark alone does not tell what came before.
    let begun = Timestamp::now();
    let came_later = |entry: &&AuditEntry| entry.received.parse::<Timestamp>().is_ok_and(|received| received >= begun);
    // The time that is looked at, not a wait for something.
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let entries = stack.management.audit_log().since(&mark)?;
    let mine: Vec<_> = entries
        .iter()
        .filter(|entry| entry.user == OPERATOR_USER && !entry.is_watch() && entry.resource != "leases")
        .filter(came_later)
        .map(|entry| format!("{} {}", entry.verb, entry.uri))
        .collect();
    ensure!(mine.is_empty(), "in {seconds} s at rest: {mine:?}");
    ensure!(entries.iter().any(|entry| entry.user == OPERATOR_USER), "the operator was not there");
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    Ok(())
}
