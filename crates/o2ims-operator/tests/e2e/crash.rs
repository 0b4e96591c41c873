//! `kill -9` of the operator at ten moments of create, of delete, and of each kind of edit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use hostsim::{Failure, HostSpec};
use k8s_openapi::jiff::{Timestamp, ToSpan as _};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use o2ims_types::{ProvisioningRequest, ProvisioningState as State, conditions, names};
use operator_kit::write::status::find;
use sandbox::Stack;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::harness::{CLUSTER, OPERATOR_USER, Outcome, Scenario, Tenant, alone_with, figure, wait, with_short_lease};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        alone_with("a_crash_at_any_moment_changes_nothing", with_short_lease, crash),
        alone_with("a_crash_in_the_middle_of_an_edit_changes_nothing", with_short_lease, edits).slow(),
    ]
}

/// How old each request is when the operator is killed, in milliseconds.
const AGES: [u64; 10] = [2, 10, 25, 50, 90, 150, 300, 1_000, 3_000, 8_000];
/// The same for an edit, which Cluster API or a host has to carry out step by step.
const AGES_OF_EDITS: [u64; 10] = [20, 100, 300, 800, 1_500, 3_000, 5_000, 9_000, 15_000, 25_000];

async fn crash(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::new(stack, "crash", 10).await?;
    let before = tenant.inventory().await?;
    let name = |number: usize| format!("r{number}");
    let mark = stack.management.audit_log().mark()?;

    at_ages(AGES, |number| {
        let (tenant, host) = (&tenant, u32::try_from(number).unwrap_or_default() + 1);
        async move {
            tenant.apply(&tenant.request(&name(number), &name(number), &[host], &[])).await.map(|_| ()).context("apply")
        }
    })
    .await?;
    stack.crash_operator().await?;
    report(stack, mark, "create", 11 * AGES.len())?;
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
    at_ages(AGES, |number| {
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

/// Does something for each request, so that at the end each is as old as its number among the ages says.
async fn at_ages<F: Future<Output = Outcome>>(ages: [u64; 10], act: impl Fn(usize) -> F) -> Outcome {
    let begin = Instant::now();
    let oldest = ages[ages.len() - 1];
    for (number, age) in ages.iter().enumerate().rev() {
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

/// One of the requests, each of which has hosts of its own: two for masters that come later, and one for another worker.
struct Site<'a> {
    tenant: &'a Tenant,
    name: String,
    first: u32,
    address: String,
}

/// Hosts of a [`Site`].
const HOSTS: u32 = 5;

impl Site<'_> {
    fn host(&self, number: u32) -> String {
        self.tenant.host(self.first + number)
    }

    /// The request for these of the site's hosts.
    fn asks(&self, version: &str, masters: &[u32], workers: &[u32]) -> Value {
        let own = |numbers: &[u32]| numbers.iter().map(|number| self.first + number).collect::<Vec<_>>();
        let mut request = self.tenant.request_for("edits", &self.name, &own(masters), &own(workers));
        request["spec"]["templateParameters"]["k8sVersion"] = json!(version);
        request["spec"]["templateParameters"]["controlPlaneEndpoint"] = json!({"host": self.address});
        request
    }

    async fn apply(&self, version: &str, masters: &[u32], workers: &[u32]) -> Outcome {
        self.tenant.apply(&self.asks(version, masters, workers)).await?;
        Ok(())
    }

    /// UIDs of the Machines by host, when the request is fulfilled with these hosts.
    async fn until_done(
        &self,
        version: &str,
        masters: &[u32],
        workers: &[u32],
    ) -> anyhow::Result<BTreeMap<String, String>> {
        let told = format!(
            "cluster is ready: {} master{}, {} worker{}",
            masters.len(),
            if masters.len() == 1 { "" } else { "s" },
            workers.len(),
            if workers.len() == 1 { "" } else { "s" }
        );
        let is_done = |request: Option<&ProvisioningRequest>| {
            let Some((request, status)) = request.and_then(|request| Some((request, request.status.as_ref()?))) else {
                return false;
            };
            let provisioning = &status.provisioning_status;
            provisioning.provisioning_state == State::Fulfilled
                && provisioning.provisioning_message.contains(&told)
                && !provisioning.provisioning_message.contains(';')
                && status.observed_generation == request.metadata.generation
                && status.extensions.k8s_version.as_deref() == Some(version)
        };
        wait(self.tenant.requests(), &self.name, &format!("{told} at {version}"), 6 * CLUSTER, is_done).await?;
        let machines = self.tenant.objects(Kind::Machine).list(&ListParams::default()).await?;
        let own = machines.iter().filter(|machine| machine.data["spec"]["clusterName"] == json!(self.name));
        let found: BTreeMap<_, _> = own
            .filter_map(|machine| {
                Some((machine.data["status"]["nodeRef"]["name"].as_str()?.to_owned(), machine.uid()?))
            })
            .collect();
        let wanted: BTreeSet<_> = masters.iter().chain(workers).map(|number| self.host(*number)).collect();
        ensure!(found.keys().cloned().collect::<BTreeSet<_>>() == wanted, "{}: {found:?}, not {wanted:?}", self.name);
        Ok(found)
    }
}

/// Ten requests are edited at different times, and the operator is killed while each is at another point of it: an upgrade, a worker that is exchanged,
/// masters that are added, a worker that is given up, and certificates that are renewed. Each ends as it would without.
async fn edits(stack: &mut Stack) -> Outcome {
    const BEFORE: &str = "v1.35.1";
    const AFTER: &str = "v1.36.1";
    let tenant = Tenant::new(stack, "crash", 0).await?;
    for number in 1..=HOSTS * 10 {
        let mut host = HostSpec::new(tenant.host(number), number.to_string());
        host.namespace = Some(tenant.namespace.clone());
        host.skip_installation = false;
        stack.site.register(host).await?;
    }
    tenant.template("edits", json!({"install": {"method": "installer"}})).await?;
    let sites: Vec<_> = (0..10_u32)
        .map(|number| Site {
            tenant: &tenant,
            name: format!("r{number}"),
            first: number * HOSTS,
            address: format!("127.87.0.{}", number + 1),
        })
        .collect();
    for site in &sites {
        site.apply(BEFORE, &[1], &[2]).await?;
    }
    let mut machines = Vec::new();
    for site in &sites {
        machines.push(site.until_done(BEFORE, &[1], &[2]).await?);
    }

    killed_during(stack, &sites, "upgrade", async |site: &Site<'_>| site.apply(AFTER, &[1], &[2]).await).await?;
    for (site, machines) in sites.iter().zip(&machines) {
        let now = site.until_done(AFTER, &[1], &[2]).await?;
        ensure!(now == *machines, "{}: {now:?}, and {machines:?} before the upgrade", site.name);
    }

    killed_during(stack, &sites, "another worker", async |site: &Site<'_>| site.apply(AFTER, &[1], &[5]).await).await?;
    let mut kept = Vec::new();
    for (site, machines) in sites.iter().zip(&machines) {
        let now = site.until_done(AFTER, &[1], &[5]).await?;
        ensure!(now[&site.host(1)] == machines[&site.host(1)], "{}: the master was made anew", site.name);
        tenant.until_host_free(site.first + 2).await?;
        kept.push(now);
    }

    killed_during(stack, &sites, "more masters", async |site: &Site<'_>| site.apply(AFTER, &[1, 3, 4], &[5]).await)
        .await?;
    let mut all = Vec::new();
    for (site, kept) in sites.iter().zip(&kept) {
        let now = site.until_done(AFTER, &[1, 3, 4], &[5]).await?;
        ensure!(
            kept.iter().all(|(host, machine)| now[host] == *machine),
            "{}: {now:?}, and {kept:?} before",
            site.name
        );
        all.push(now);
    }

    for site in &sites {
        stack.site.host(&site.host(5)).context("no such host")?.fail(Failure::Off);
    }
    for site in &sites {
        let told = format!("({}): its node is not Ready", site.host(5));
        tenant.until(&site.name, State::Fulfilled, &told, CLUSTER).await?;
    }
    killed_during(stack, &sites, "dead workers", async |site: &Site<'_>| {
        tenant.call_lost(&site.name, &site.host(5)).await?;
        site.apply(AFTER, &[1, 3, 4], &[]).await
    })
    .await?;
    for (site, all) in sites.iter().zip(&mut all) {
        let now = site.until_done(AFTER, &[1, 3, 4], &[]).await?;
        all.remove(&site.host(5));
        ensure!(now == *all, "{}: {now:?}, and {all:?} before", site.name);
        stack.site.host(&site.host(5)).context("no such host")?.heal();
        tenant.until_host_free(site.first + 5).await?;
    }

    // BYOH lets nobody but its agent change a host.
    let agents = sites.iter().map(|site| {
        let agent = stack.management.client_as(&format!("byoh:host:{}", site.host(1)), &["byoh:hosts"])?;
        anyhow::Ok((site.host(1), Api::<ByoHost>::namespaced(agent, &tenant.namespace)))
    });
    let agents = agents.collect::<anyhow::Result<BTreeMap<_, _>>>()?;
    killed_during(stack, &sites, "certificates", async |site: &Site<'_>| {
        let (months, day) = (Timestamp::now() + 2400.hours(), Timestamp::now() + 24.hours());
        let dates = json!({"agent": months, "controlPlane": day, "renew": "Soon"}).to_string();
        let patch = json!({"metadata": {"annotations": {names::CERTIFICATES_ANNOTATION: dates}}});
        agents[&site.host(1)].patch(&site.host(1), &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    })
    .await?;
    for (site, all) in sites.iter().zip(&all) {
        let is_renewed = |host: Option<&ByoHost>| {
            let annotation = |key: &str| host.and_then(|host| host.annotations().get(key).cloned()).unwrap_or_default();
            host.is_some()
                && !annotation(names::CERTIFICATES_ANNOTATION).contains("renew")
                && !annotation(names::JOB_ANNOTATION).starts_with("certificates-")
        };
        wait(tenant.byohosts(), &site.host(1), "renewed certificates", CLUSTER, is_renewed).await?;
        let is_told = |request: Option<&ProvisioningRequest>| {
            let told =
                request.and_then(|request| find(&request.status.as_ref()?.conditions, conditions::CERTIFICATES_VALID));
            told.is_some_and(|told| told.status == "True")
        };
        wait(tenant.requests(), &site.name, "CertificatesValid to be True", CLUSTER, is_told).await?;
        let now = site.until_done(AFTER, &[1, 3, 4], &[]).await?;
        ensure!(now == *all, "{}: {now:?}, and {all:?} before", site.name);
    }

    for site in &sites {
        tenant.delete(&site.name).await?;
    }
    for site in &sites {
        tenant.until_gone(&site.name, 2 * CLUSTER).await?;
    }
    tenant.assert_hosts_free().await
}

/// Does something for each site, and kills the operator while each of them is at another point of it.
async fn killed_during(
    stack: &mut Stack,
    sites: &[Site<'_>],
    what: &str,
    act: impl AsyncFn(&Site<'_>) -> Outcome,
) -> Outcome {
    let mark = stack.management.audit_log().mark()?;
    at_ages(AGES_OF_EDITS, |number| act(&sites[number])).await?;
    stack.crash_operator().await?;
    let entries = stack.management.audit_log().since(&mark)?;
    let of_operator =
        |entry: &&testenv::AuditEntry| entry.user == OPERATOR_USER && entry.is_write() && entry.resource != "events";
    let writes = entries.iter().filter(|entry| entry.namespace == "crash").filter(of_operator).count();
    figure(&format!("{what}: killed after {writes} writes for {} requests of {AGES_OF_EDITS:?} ms", sites.len()));
    ensure!(writes > 0, "the operator had written nothing");
    Ok(())
}
