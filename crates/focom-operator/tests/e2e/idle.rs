//! What requests at rest cost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use kube::api::{DeleteParams, ListParams};

use crate::harness::{OPERATOR_USER, Outcome, SMO_USER, SOON, Scenario, Tenant, World, alone};

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        alone("two_hundred_requests_at_rest_cost_nothing", |world| {
            at_rest(world, "rest", 200, Duration::from_secs(20))
        }),
        alone("two_hundred_requests_at_rest_for_five_minutes_cost_nothing", |world| {
            at_rest(world, "long-rest", 200, Duration::from_secs(5 * 60))
        })
        .slow(),
    ]
}

/// The passing of time is what is looked at here, so this waits for it.
async fn at_rest(world: Arc<World>, namespace: &'static str, requests: u32, rest: Duration) -> Outcome {
    let tenant = Tenant::new(&world, namespace).await?;
    let parts = &tenant.parts;
    for number in 0..requests {
        let site = if number % 2 == 0 { "site-a" } else { "site-b" };
        tenant.apply(&tenant.request(&format!("r-{number}"), site, &[number], &[])).await?;
    }
    for number in 0..requests {
        // The word of an operator on the O-Cloud that nothing follows.
        tenant.until_state(&format!("r-{number}"), "pending", SOON).await?;
    }
    let marks = [
        parts.smo.audit_log().mark()?,
        parts.site_a.management.audit_log().mark()?,
        parts.site_b.management.audit_log().mark()?,
    ];
    tokio::time::sleep(rest).await;
    let mut asked = Vec::new();
    for ((management, user), mark) in
        [(&parts.smo, OPERATOR_USER), (&parts.site_a.management, SMO_USER), (&parts.site_b.management, SMO_USER)]
            .into_iter()
            .zip(marks)
    {
        let entries = management.audit_log().since(&mark)?.into_iter();
        let of_interest = entries.filter(|entry| entry.user == user && !entry.is_watch() && entry.resource != "leases");
        asked.extend(of_interest.map(|entry| format!("{} {}", entry.verb, entry.uri)));
    }
    ensure!(asked.is_empty(), "{} requests in {} s of rest: {asked:?}", asked.len(), rest.as_secs());

    // A restart looks at everything and has nothing to write.
    let focom = parts.focom.lock().await.take();
    if let Some(focom) = focom {
        focom.stop().await?;
    }
    let mark = parts.smo.audit_log().mark()?;
    let (mark_a, mark_b) = (parts.site_a.management.audit_log().mark()?, parts.site_b.management.audit_log().mark()?);
    parts.start_focom().await?;
    // When it has taken a new request for each O-Cloud to its end, it has seen the others.
    for site in ["site-a", "site-b"] {
        let name = format!("after-restart-{site}");
        tenant.apply(&tenant.request(&name, site, &[1], &[])).await?;
        tenant.until_state(&name, "pending", SOON).await?;
    }
    let mut written = Vec::new();
    for (management, user, mark) in [
        (&parts.smo, OPERATOR_USER, mark),
        (&parts.site_a.management, SMO_USER, mark_a),
        (&parts.site_b.management, SMO_USER, mark_b),
    ] {
        let entries = management.audit_log().since(&mark)?.into_iter();
        let of_others = entries.filter(|entry| {
            entry.user == user && entry.is_write() && !["leases", "events"].contains(&entry.resource.as_str())
        });
        let of_others = of_others.filter(|entry| !entry.name.starts_with("after-restart"));
        written.extend(of_others.map(|entry| format!("{} {}", entry.verb, entry.uri)));
    }
    ensure!(written.is_empty(), "{} writes after a restart: {written:?}", written.len());
    tenant.requests().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    for number in 0..requests {
        tenant.until_gone(&format!("r-{number}"), SOON * 2).await?;
    }
    tenant.until_gone("after-restart-site-a", SOON).await?;
    tenant.until_gone("after-restart-site-b", SOON).await
}
