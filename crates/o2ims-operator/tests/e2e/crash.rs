//! `kill -9` of the operator at ten moments of create and of delete.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_api::Kind;
use kube::api::ListParams;
use o2ims_types::ProvisioningState as State;
use sandbox::Stack;
use tokio::time::{Instant, sleep_until};

use crate::harness::{CLUSTER, OPERATOR_USER, Outcome, Scenario, Tenant, alone_with, with_short_lease};

pub fn scenarios() -> Vec<Scenario> {
    vec![alone_with("a_crash_at_any_moment_changes_nothing", with_short_lease, crash)]
}

/// How old each request is when the operator is killed, in milliseconds.
const AGES: [u64; 10] = [2, 10, 25, 50, 90, 150, 300, 1_000, 3_000, 8_000];

async fn crash(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::new(stack, "crash", 10).await?;
    let before = tenant.inventory().await?;
    let name = |number: usize| format!("r{number}");
    let mark = stack.management.audit_log().mark()?;

    at_ages(|number| {
        let (tenant, host) = (&tenant, u32::try_from(number).unwrap_or_default() + 1);
        async move {
            tenant.apply(&tenant.request(&name(number), &name(number), &[host], &[])).await.map(|_| ()).context("apply")
        }
    })
    .await?;
    stack.crash_operator().await?;
    report(stack, mark, "create", 10 * AGES.len())?;
    for number in 0..AGES.len() {
        tenant.until(&name(number), State::Fulfilled, "1 master", 2 * CLUSTER).await?;
    }
    // One object of each kind per request, and not one more.
    for (kind, each) in
        [(Kind::Cluster, 1), (Kind::KubeadmControlPlane, 1), (Kind::ByoCluster, 1), (Kind::ByoMachineTemplate, 1)]
    {
        let count = tenant.objects(kind).list(&ListParams::default()).await?.items.len();
        ensure!(count == each * AGES.len(), "{count} objects of kind {}", kind.name());
    }

    // This time another one stands by, and takes over.
    let mark = stack.management.audit_log().mark()?;
    let standby = stack.another_operator(stack.operator_options()).await?;
    at_ages(|number| {
        let tenant = &tenant;
        async move { tenant.delete(&name(number)).await }
    })
    .await?;
    stack.operator.replace(standby).context("no operator")?.crash().await?;
    report(stack, mark, "delete", 6 * AGES.len())?;
    for number in 0..AGES.len() {
        tenant.until_gone(&name(number), 2 * CLUSTER).await?;
    }
    tenant.assert_hosts_free().await?;
    tenant.until_as_before(&before).await
}

/// Does something for each request, so that at the end the first is as old as the last of [`AGES`], and so on.
async fn at_ages<F: Future<Output = Outcome>>(act: impl Fn(usize) -> F) -> Outcome {
    let begin = Instant::now();
    let oldest = AGES[AGES.len() - 1];
    for (number, age) in AGES.iter().enumerate().rev() {
        sleep_until(begin + Duration::from_millis(oldest - age)).await;
        act(number).await?;
    }
    sleep_until(begin + Duration::from_millis(oldest)).await;
    Ok(())
}

/// Says how many writes had been made for the requests at the kill, and fails where that was none or all: then the kill
/// came before or after everything, and showed nothing.
fn report(stack: &Stack, mark: testenv::AuditMark, what: &str, all: usize) -> Outcome {
    let entries = stack.management.audit_log().since(&mark)?;
    let writes = entries
        .iter()
        .filter(|entry| entry.user == OPERATOR_USER && entry.is_write() && entry.namespace == "crash")
        .filter(|entry| entry.resource != "events")
        .count();
    eprintln!("killed at {what} after {writes} writes for {} requests of {AGES:?} ms", AGES.len());
    ensure!(writes > 0 && writes < all, "{writes} of about {all} writes");
    Ok(())
}
