//! Random edits of a request, with Cluster API's real controllers and simulated hosts: whatever came before, the end is the state of the last edit.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_api::Kind;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::ResourceExt as _;
use kube::api::ListParams;
use o2ims_types::{ProvisioningRequest, ProvisioningState as State};
use proptest::prelude::*;
use proptest::sample::subsequence;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use sandbox::Stack;
use serde_json::{Value, json};

use crate::harness::{CLUSTER, Outcome, Scenario, Tenant, alone, wait};

pub fn scenarios() -> Vec<Scenario> {
    vec![alone("random_edits_end_in_the_state_of_the_last", edits).slow()]
}

/// How many sequences are run, if `O2IMS_EDIT_SEQUENCES` does not say so; and how many at once.
const SEQUENCES: u64 = 12;
const AT_ONCE: usize = 4;
/// Edits of a sequence.
const EDITS: usize = 4;
/// Hosts of a sequence.
const HOSTS: u32 = 6;
/// The versions that a cluster may have, the first one at its creation.
const VERSIONS: [&str; 5] = ["v1.34.1", "v1.34.2", "v1.35.1", "v1.35.2", "v1.36.1"];

/// An edit, and what goes on around it.
#[derive(Clone, Debug)]
struct Edit {
    change: Change,
    /// An edit that the API server refuses comes before it.
    refused: bool,
    /// A node that is not Ready for so many milliseconds after it.
    sick: Option<(u32, u64)>,
    /// When the next edit comes, in milliseconds.
    pause: u64,
}

#[derive(Clone, Debug)]
enum Change {
    NextVersion,
    /// One or three of these, which are no workers.
    Masters(bool, Vec<u32>),
    /// Those of these that are no masters.
    Workers(Vec<u32>),
}

fn edit_of_any_kind() -> impl Strategy<Value = Edit> {
    let hosts: Vec<u32> = (1..=HOSTS).collect();
    let change = prop_oneof![
        Just(Change::NextVersion),
        (any::<bool>(), Just(hosts.clone()).prop_shuffle()).prop_map(|(three, hosts)| Change::Masters(three, hosts)),
        subsequence(hosts.clone(), 0..=hosts.len()).prop_map(Change::Workers),
        subsequence(hosts.clone(), 0..=hosts.len()).prop_map(Change::Workers),
    ];
    let sick = prop::option::weighted(0.3, (1..=HOSTS, 0..3_000_u64));
    (change, prop::bool::weighted(0.2), sick, 0..20_000_u64).prop_map(|(change, refused, sick, pause)| Edit {
        change,
        refused,
        sick,
        pause,
    })
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    masters: Vec<u32>,
    workers: BTreeSet<u32>,
    version: usize,
}

async fn edits(stack: &mut Stack) -> Outcome {
    let count = env::var("O2IMS_EDIT_SEQUENCES").ok().map(|count| count.parse()).transpose()?.unwrap_or(SEQUENCES);
    let stack = &*stack;
    let runs = (0..count).map(|seed| async move {
        sequence(stack, seed).await.with_context(|| format!("sequence {seed}"))?;
        eprintln!("sequence {seed} of {count} is through");
        anyhow::Ok(())
    });
    stream::iter(runs).buffer_unordered(AT_ONCE).try_collect().await
}

/// One tenant whose request is edited at random moments.
async fn sequence(stack: &Stack, seed: u64) -> Outcome {
    let config = Config { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let edits = prop::collection::vec(edit_of_any_kind(), EDITS).new_tree(&mut TestRunner::new(config));
    let edits = edits.map_err(|error| anyhow::anyhow!("{error}"))?.current();
    let tenant = Tenant::new(stack, &format!("edits{seed}"), 0).await?;
    for number in 1..=HOSTS {
        let mut host = hostsim::HostSpec::new(tenant.host(number), number.to_string());
        host.namespace = Some(tenant.namespace.clone());
        host.skip_installation = false;
        stack.site.register(host).await?;
    }
    tenant.template("edits", json!({"install": {"method": "installer"}, "timeouts": {"unreachable": "0s"}})).await?;
    let address = format!("127.89.{}.{}", seed / 200, 1 + seed % 200);
    let asks = |wish: &Wish| {
        let workers: Vec<_> = wish.workers.iter().copied().collect();
        let mut request = tenant.request_for("edits", "request", &wish.masters, &workers);
        request["spec"]["templateParameters"]["k8sVersion"] = json!(VERSIONS[wish.version]);
        request["spec"]["templateParameters"]["controlPlaneEndpoint"] = json!({"host": address});
        request
    };
    let mut wish = Wish { masters: vec![1], workers: BTreeSet::from([2]), version: 0 };
    tenant.apply(&asks(&wish)).await?;
    until_fulfilled(&tenant, &asks(&wish), 2 * CLUSTER).await?;
    let (mut kept, before) = (BTreeSet::from([1, 2]), machines(&tenant).await?);
    for Edit { change, refused, sick, pause } in &edits {
        // What is refused takes nothing away.
        if *refused {
            let mut wrong = asks(&wish);
            wrong["spec"]["templateParameters"]["k8sVersion"] = json!("v1.33.1");
            ensure!(tenant.apply(&wrong).await.is_err(), "an older minor version is accepted");
        }
        let next = wish.after(change);
        match tenant.apply(&asks(&next)).await {
            Ok(_) => wish = next,
            // Masters do not change during an upgrade.
            Err(kube::Error::Api(refused)) if refused.code == 403 => {}
            Err(error) => return Err(error.into()),
        }
        kept.retain(|number| wish.masters.contains(number) || wish.workers.contains(number));
        if let Some((number, time)) = sick {
            let host = stack.site.host(&tenant.host(*number)).context("no such host")?;
            host.fail(hostsim::Failure::NodeNotReady);
            tokio::time::sleep(Duration::from_millis(*time)).await;
            host.heal();
        }
        // In the middle of what was begun, or long after.
        tokio::time::sleep(Duration::from_millis(*pause)).await;
    }
    until_fulfilled(&tenant, &asks(&wish), 6 * CLUSTER).await?;
    let now = machines(&tenant).await?;
    let wanted: BTreeSet<_> = wish.masters.iter().chain(&wish.workers).map(|number| tenant.host(*number)).collect();
    ensure!(now.keys().cloned().collect::<BTreeSet<_>>() == wanted, "{wish:?}: the nodes are {now:?}");
    for host in kept.iter().map(|number| tenant.host(*number)) {
        ensure!(before[&host].0 == now[&host].0, "{wish:?}: the Machine of {host} was replaced");
    }
    let is_at = VERSIONS[wish.version];
    ensure!(now.values().all(|(_, version)| version == is_at), "{wish:?}: the versions are {now:?}");
    tenant.delete("request").await?;
    tenant.until_gone("request", 2 * CLUSTER).await?;
    tenant.assert_hosts_free().await
}

impl Wish {
    fn after(&self, change: &Change) -> Self {
        let mut next = self.clone();
        match change {
            Change::NextVersion => next.version = (self.version + 1).min(VERSIONS.len() - 1),
            Change::Masters(three, order) => {
                let free: Vec<_> = order.iter().copied().filter(|number| !self.workers.contains(number)).collect();
                let count = if *three { 3 } else { 1 };
                if free.len() >= count {
                    next.masters = free[..count].to_vec();
                }
            }
            Change::Workers(numbers) => {
                next.workers = numbers.iter().copied().filter(|number| !self.masters.contains(number)).collect();
            }
        }
        next
    }
}

/// Waits until the request is fulfilled as it was last edited, also after a version on its way.
async fn until_fulfilled(tenant: &Tenant, asked: &Value, limit: Duration) -> Outcome {
    let version = asked["spec"]["templateParameters"]["k8sVersion"].as_str();
    let is_done = |request: Option<&ProvisioningRequest>| {
        let Some((request, status)) = request.and_then(|request| Some((request, request.status.as_ref()?))) else {
            return false;
        };
        status.provisioning_status.provisioning_state == State::Fulfilled
            && status.observed_generation == request.metadata.generation
            && status.extensions.k8s_version.as_deref() == version
            && !status.provisioning_status.provisioning_message.contains(';')
    };
    wait(tenant.requests(), "request", "the request to be fulfilled", limit, is_done).await?;
    Ok(())
}

/// UID of the Machine, and version, of each node.
async fn machines(tenant: &Tenant) -> anyhow::Result<BTreeMap<String, (String, String)>> {
    let machines = tenant.objects(Kind::Machine).list(&ListParams::default()).await?;
    let named = machines.iter().filter_map(|machine| {
        let node = machine.data["status"]["nodeRef"]["name"].as_str()?;
        Some((node.to_owned(), (machine.uid()?, machine.data["spec"]["version"].as_str()?.to_owned())))
    });
    Ok(named.collect())
}
