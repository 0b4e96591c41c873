//! The path of the example request: applied, fulfilled and, if asked for, deleted until nothing is left of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt as _};
use o2ims_types::{ProvisioningRequest, ProvisioningState as State};
use sandbox::installation::Hosts;
use sandbox::{Stack, installation, inventory};

use crate::follow::Follower;
use crate::report;
use crate::{say, say_at};

/// Namespace of the example request and of the hosts.
const NAMESPACE: &str = "default";
/// How many hosts there are: the example takes the first two.
const HOSTS: u8 = 4;
/// How long the request may take, either way.
const REQUEST: Duration = Duration::from_secs(300);
/// How long garbage collection may take.
const COLLECTION: Duration = Duration::from_secs(60);
/// How long the objects of a new management cluster may take to be complete.
const SETTLING: Duration = Duration::from_secs(15);
/// Time between two looks at every object that there is; nothing tells when all of them are gone.
const LOOK: Duration = Duration::from_millis(500);

/// Registers hosts, applies the example request and waits until it is fulfilled; `once`: takes it back and checks that
/// nothing is left. Seconds are counted from `begun`.
///
/// # Errors
/// Whatever is not as it should be.
pub async fn tour(stack: &mut Stack, once: bool, begun: Instant) -> anyhow::Result<()> {
    match stack.hosts() {
        Hosts::Simulated => stack.register(NAMESPACE, "target", 1..=u32::from(HOSTS)).await?,
        Hosts::Servers => stack.power_on(NAMESPACE, "target", 1..=HOSTS, false).await?,
    }
    let kind = stack.hosts().name();
    say_at(begun, &format!("{HOSTS} hosts are registered ({kind}): target-1 to target-{HOSTS}"));
    let client = stack.bed.admin();
    let before = if once { settled(&client).await? } else { BTreeSet::new() };
    let start = begun.elapsed();

    let example: ProvisioningRequest =
        serde_saphyr::from_str(installation::EXAMPLE).context("reading the example request")?;
    let name = example.name_any();
    let requests: Api<ProvisioningRequest> = Api::namespaced(client.clone(), NAMESPACE);
    let mut follower = Follower::new(requests.clone(), &name, begun);
    say_at(begun, "kubectl apply -f examples/o2ims-provisioning-request.yaml");
    let applied = Instant::now();
    stack.bed.apply_yaml(installation::EXAMPLE).await.context("applying the example request")?;
    let request = watched(stack, follower.until_fulfilled(REQUEST)).await?;
    let fulfilled = applied.elapsed();

    let cluster = example.spec.template_parameters.cluster_name.clone().unwrap_or_default();
    let nodes = watched(stack, report::nodes(client.clone(), NAMESPACE, &cluster)).await?;
    report::print(stack, &request, &nodes).await?;
    report::check_nodes(&nodes, &hosts_of(&example))?;
    if !once {
        say(&format!(
            "times: start {:.1} s, request to fulfilled {:.1} s",
            start.as_secs_f32(),
            fulfilled.as_secs_f32()
        ));
        say(stack.hosts().explain());
        return Ok(());
    }

    say_at(begun, "kubectl delete -f examples/o2ims-provisioning-request.yaml");
    let deleted = Instant::now();
    requests.delete(&name, &DeleteParams::default()).await.context("deleting the request")?;
    watched(stack, follower.until_gone(REQUEST)).await?;
    let gone = deleted.elapsed();
    say_at(begun, "the request is gone");

    // At once, before anything can settle: a request that is gone has given its hosts back.
    all_free(&client).await?;
    say_at(begun, &format!("all {HOSTS} hosts are free"));
    watched(stack, nothing_left(&client, &before)).await?;
    say_at(begun, &format!("nothing is left of it: the API holds the same {} objects as before", before.len()));
    check_states(follower.states())?;

    say("");
    say("request -> cluster with Ready nodes -> nothing left: it works");
    say(&format!(
        "times: start {:.1} s, request to fulfilled {:.1} s, delete to gone {:.1} s",
        start.as_secs_f32(),
        fulfilled.as_secs_f32(),
        gone.as_secs_f32()
    ));
    say(stack.hosts().explain());
    say("");
    Ok(())
}

/// Waits until a process of the stack ends that should not, and says which.
pub async fn failure(stack: &mut Stack) -> String {
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        look.tick().await;
        if let Some(failure) = stack.bed.failed() {
            return failure;
        }
        match stack.operator.as_mut().map(sandbox::Operator::ended) {
            Some(Ok(Some(ended))) => return format!("the operator ended by itself: {ended}"),
            Some(Err(error)) => return format!("the operator cannot be watched: {error:#}"),
            Some(Ok(None)) | None => {}
        }
    }
}

/// `work`, unless a process of the stack ends before it.
async fn watched<T>(stack: &mut Stack, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        result = work => result,
        failure = failure(stack) => bail!(failure),
    }
}

/// Names of the hosts that a request asks for, sorted.
fn hosts_of(request: &ProvisioningRequest) -> Vec<String> {
    let hosts = request.spec.template_parameters.hosts.iter();
    let mut names: Vec<_> =
        hosts.flat_map(|hosts| hosts.masters.iter().chain(&hosts.workers)).map(|host| host.name().to_owned()).collect();
    names.sort();
    names
}

/// Every object, once two looks in a row have seen the same: a new cluster makes some of its own a little later.
async fn settled(client: &Client) -> anyhow::Result<BTreeSet<String>> {
    let deadline = Instant::now() + SETTLING;
    let mut last = inventory::objects(client).await?;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = inventory::objects(client).await?;
        if now == last || Instant::now() > deadline {
            return Ok(now);
        }
        last = now;
    }
}

/// Waits until the API holds the same objects as before.
async fn nothing_left(client: &Client, before: &BTreeSet<String>) -> anyhow::Result<()> {
    let deadline = Instant::now() + COLLECTION;
    loop {
        let now = inventory::objects(client).await?;
        if now == *before {
            return Ok(());
        }
        if Instant::now() > deadline {
            let lines = |set: Vec<&str>| set.join("\n  ");
            bail!(
                "{} s after the request was gone the API does not hold the same objects as before\nleft over:\n  {}\nmissing:\n  {}",
                COLLECTION.as_secs(),
                lines(now.difference(before).map(String::as_str).collect()),
                lines(before.difference(&now).map(String::as_str).collect())
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn all_free(client: &Client) -> anyhow::Result<()> {
    let hosts = inventory::hosts(client.clone(), NAMESPACE).list(&ListParams::default()).await?;
    ensure!(u8::try_from(hosts.items.len()) == Ok(HOSTS), "there are {} hosts and not {HOSTS}", hosts.items.len());
    for host in &hosts {
        if let Some(sign) = report::in_use(host) {
            bail!("the request is gone, but host {} is not free: {sign}", host.name_any());
        }
    }
    Ok(())
}

fn check_states(seen: &[State]) -> anyhow::Result<()> {
    let wanted = [State::Pending, State::Progressing, State::Fulfilled, State::Deleting];
    let list = |states: &[State]| states.iter().map(State::to_string).collect::<Vec<_>>().join(", ");
    ensure!(seen == wanted, "the request had the states {} and not {}", list(seen), list(&wanted));
    Ok(())
}
