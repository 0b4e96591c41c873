//! The path of the example requests: applied, fulfilled and, if asked for, deleted until nothing is left of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use o2ims_types::{FocomProvisioningRequest, ProvisioningRequest};
use sandbox::installation::Hosts;
use sandbox::{focom, installation, inventory};

use serde_json::{Value, json};

use crate::apart::{NAMESPACE, WITH_HOSTS, WITHOUT_HOSTS};
use crate::follow::{Follower, Request};
use crate::parts::Parts;
use crate::report;
use crate::{say, say_at};

/// How many hosts there are: each example takes two.
const HOSTS: u8 = 4;
/// How long the request may take, either way.
const REQUEST: Duration = Duration::from_secs(300);
/// How long garbage collection may take.
const COLLECTION: Duration = Duration::from_secs(60);
/// How long the objects of a new management cluster may take to be complete.
const SETTLING: Duration = Duration::from_secs(15);
/// Time between two looks at every object that there is; nothing tells when all of them are gone.
const LOOK: Duration = Duration::from_millis(500);

/// Registers hosts and takes both example requests, one after the other, until their clusters are there: the one as a platform
/// operator would apply it, the other as an SMO would. `once`: takes them back and checks that nothing is left. Seconds are
/// counted from `begun`.
///
/// # Errors
/// Whatever is not as it should be.
pub async fn tour(parts: &mut Parts, once: bool, begun: Instant) -> anyhow::Result<()> {
    let stack = &mut parts.stack;
    match stack.hosts() {
        Hosts::Simulated => stack.register(NAMESPACE, "target", 1..=u32::from(HOSTS)).await?,
        Hosts::Servers => stack.power_on(NAMESPACE, "target", 1..=HOSTS, false).await?,
    }
    let kind = stack.hosts().name();
    say_at(begun, &format!("{HOSTS} hosts are registered ({kind}): target-1 to target-{HOSTS}"));
    let client = stack.bed.admin();
    let before = if once { settled(&client).await? } else { BTreeSet::new() };
    let start = begun.elapsed();

    let smo = parts.apart.as_ref().map(|apart| apart.smo.admin());
    let is_apart = smo.is_some();
    let smo = smo.unwrap_or_else(|| client.clone());
    let example = "examples/o2ims-provisioning-request.yaml";
    let mut direct = Act::<ProvisioningRequest>::new(client.clone(), example, installation::EXAMPLE, begun)?;
    let core = parts.during(direct.until_fulfilled()).await?;
    let example = "examples/focom-provisioning-request.yaml";
    let mut by_smo = Act::<FocomProvisioningRequest>::new(smo.clone(), example, focom::EXAMPLE, begun)?;
    if is_apart {
        by_smo.object["spec"]["oCloudId"] = json!(WITH_HOSTS);
        by_smo.what = format!("{example} (at the SMO, oCloudId: {WITH_HOSTS})");
    }
    let edge = parts.during(by_smo.until_fulfilled()).await?;
    let mut far = if is_apart { Some(parts.during(elsewhere(smo, example, begun)).await?) } else { None };
    let remote =
        edge.status.as_ref().and_then(|status| status.remote_name.clone()).context("the FPR names no request")?;
    let requests: Api<ProvisioningRequest> = Api::namespaced(client.clone(), NAMESPACE);
    let made = [core, requests.get(&remote).await.context("reading the request that the FPR has become")?];
    let mut clusters = Vec::new();
    for request in made {
        let cluster = request.spec.template_parameters.cluster_name.clone().unwrap_or_default();
        let nodes = parts.during(report::nodes(client.clone(), NAMESPACE, &cluster)).await?;
        report::check_nodes(&nodes, &hosts_of(&request))?;
        clusters.push((request, nodes));
    }
    report::print(&parts.stack, &edge, &clusters).await?;
    let took = format!(
        "times: start {:.1} s, ProvisioningRequest to fulfilled {:.1} s, FocomProvisioningRequest to fulfilled {:.1} s",
        start.as_secs_f32(),
        direct.fulfilled.as_secs_f32(),
        by_smo.fulfilled.as_secs_f32()
    );
    if !once {
        say(&took);
        say(parts.stack.hosts().explain());
        return Ok(());
    }

    direct.delete().await?;
    by_smo.delete().await?;
    if let Some(far) = &mut far {
        far.delete().await?;
        parts.during(far.until_gone()).await?;
    }
    parts.during(async { tokio::try_join!(direct.until_gone(), by_smo.until_gone()) }).await?;

    // At once, before anything can settle: a request that is gone has given its hosts back.
    all_free(&client).await?;
    say_at(begun, &format!("all {HOSTS} hosts are free"));
    parts.during(nothing_left(&client, &before)).await?;
    say_at(begun, &format!("nothing is left of them: the API holds the same {} objects as before", before.len()));
    direct.check_stages(&["pending", "progressing", "fulfilled", "deleting"])?;
    by_smo.check_stages(&["Pending", "Creating", "Synced", "Deleting"])?;

    say("");
    say("requests -> clusters with Ready nodes -> nothing left: it works");
    say(&format!("{took}, delete to gone {:.1} s and {:.1} s", direct.gone.as_secs_f32(), by_smo.gone.as_secs_f32()));
    say(parts.stack.hosts().explain());
    say("");
    Ok(())
}

/// The same request for the O-Cloud that has no hosts, until that has said so.
async fn elsewhere(
    smo: Client,
    example: &'static str,
    begun: Instant,
) -> anyhow::Result<Act<FocomProvisioningRequest>> {
    let mut act = Act::<FocomProvisioningRequest>::new(smo, example, focom::EXAMPLE, begun)?;
    act.object["spec"]["oCloudId"] = json!(WITHOUT_HOSTS);
    act.rename("far-cluster-request");
    act.what = format!("{example} (at the SMO, metadata.name: {}, oCloudId: {WITHOUT_HOSTS})", act.name);
    act.apply().await?;
    let pending = |request: &FocomProvisioningRequest| request.remote_state() == Some("pending");
    act.follower.until(REQUEST, pending).await?;
    Ok(act)
}

/// One request, from the apply to its end.
struct Act<R> {
    /// What is applied, for people.
    what: String,
    object: Value,
    name: String,
    requests: Api<R>,
    follower: Follower<R>,
    begun: Instant,
    /// From the apply to the cluster.
    fulfilled: Duration,
    deleted: Instant,
    /// From the deletion to the end.
    gone: Duration,
}

impl<R> Act<R>
where
    R: Request + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    fn new(client: Client, file: &str, yaml: &str, begun: Instant) -> anyhow::Result<Self> {
        let object: Value = serde_saphyr::from_str(yaml).with_context(|| format!("reading {file}"))?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let requests = Api::namespaced(client, NAMESPACE);
        let follower = Follower::new(requests.clone(), &name, begun);
        let (what, fulfilled, gone) = (file.to_owned(), Duration::ZERO, Duration::ZERO);
        Ok(Self { what, object, name, requests, follower, begun, fulfilled, deleted: begun, gone })
    }

    fn rename(&mut self, name: &str) {
        self.object["metadata"]["name"] = json!(name);
        name.clone_into(&mut self.name);
        self.follower = Follower::new(self.requests.clone(), name, self.begun);
    }

    async fn apply(&self) -> anyhow::Result<()> {
        say_at(self.begun, &format!("kubectl apply -f {}", self.what));
        let params = PatchParams::apply("sandbox");
        let applied = self.requests.patch(&self.name, &params, &Patch::Apply(&self.object)).await;
        applied.map(drop).context("applying the example request")
    }

    /// Applies the request and waits for its cluster.
    async fn until_fulfilled(&mut self) -> anyhow::Result<R> {
        let applied = Instant::now();
        self.apply().await?;
        let request = self.follower.until_fulfilled(REQUEST).await?;
        self.fulfilled = applied.elapsed();
        Ok(request)
    }

    async fn delete(&mut self) -> anyhow::Result<()> {
        say_at(self.begun, &format!("kubectl delete -f {}", self.what));
        self.deleted = Instant::now();
        self.requests.delete(&self.name, &DeleteParams::default()).await.context("deleting the request")?;
        Ok(())
    }

    async fn until_gone(&mut self) -> anyhow::Result<()> {
        self.follower.until_gone(REQUEST).await?;
        self.gone = self.deleted.elapsed();
        say_at(self.begun, &format!("{} is gone", self.name));
        Ok(())
    }

    fn check_stages(&self, wanted: &[&str]) -> anyhow::Result<()> {
        let seen = self.follower.stages();
        ensure!(seen == wanted, "{} went through {} and not {}", self.name, seen.join(", "), wanted.join(", "));
        Ok(())
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
