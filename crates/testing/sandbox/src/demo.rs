//! The demo: applies the example requests, waits until they are fulfilled and, if asked for, deletes them and checks
//! that nothing is left.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use o2ims_types::{FocomProvisioningRequest, ProvisioningRequest};
use sandbox::installation::Hosts;
use sandbox::{Stack, focom, installation, inventory};
use serde_json::{Value, json};

use crate::follow::{Follower, Request};
use crate::output::{say, say_at};
use crate::remote_smo::{NAMESPACE, WITH_HOSTS, WITHOUT_HOSTS};
use crate::report;
use crate::supervisor::Supervisor;

/// How many hosts are registered; each example takes two.
pub const HOSTS: u8 = 4;
/// Begin of the hosts' names.
pub const PREFIX: &str = "target";
/// How long a request may take to be fulfilled, and to be deleted.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// How long garbage collection may take.
const COLLECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a new management cluster may go on making objects of its own.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);
/// How often all objects are listed. No watch can tell when the objects of all kinds are gone.
const POLL: Duration = Duration::from_millis(500);

/// Registers hosts, applies both example requests (one as a platform operator would, one as an SMO
/// would), and waits for their clusters. With `once`, deletes the requests and checks that nothing is left. Printed
/// seconds are counted from `begun`.
///
/// # Errors
/// When something is not as it should be.
pub async fn run(supervisor: &mut Supervisor, once: bool, begun: Instant) -> anyhow::Result<()> {
    register_hosts(&mut supervisor.stack, begun).await?;
    let client = supervisor.stack.management.admin();
    let before = if once { settled(&client).await? } else { BTreeSet::new() };
    let start = begun.elapsed();

    let mut examples = Examples::until_fulfilled(supervisor, begun).await?;
    examples.report(supervisor).await?;
    let took = format!("times: start {:.1} s, {}", start.as_secs_f32(), examples.times());
    if !once {
        say(&took);
        say(supervisor.stack.hosts().explain());
        return Ok(());
    }

    examples.delete(supervisor).await?;
    // Checked at once: a request must not be gone before its hosts are free.
    all_free(&client).await?;
    say_at(begun, &format!("all {HOSTS} hosts are free"));
    supervisor.during(nothing_left(&client, &before)).await?;
    say_at(begun, &format!("nothing is left of them: the API holds the same {} objects as before", before.len()));
    examples.check_stages()?;

    say("");
    say("requests -> clusters with Ready nodes -> nothing left: it works");
    let (direct, by_smo) = (examples.direct.gone.as_secs_f32(), examples.by_smo.gone.as_secs_f32());
    say(&format!("{took}, delete to gone {direct:.1} s and {by_smo:.1} s"));
    say(supervisor.stack.hosts().explain());
    say("");
    Ok(())
}

async fn register_hosts(stack: &mut Stack, begun: Instant) -> anyhow::Result<()> {
    match stack.hosts() {
        Hosts::Simulated => stack.register(NAMESPACE, PREFIX, 1..=u32::from(HOSTS)).await?,
        Hosts::Servers => stack.power_on(NAMESPACE, PREFIX, 1..=HOSTS, false).await?,
    }
    let kind = stack.hosts().name();
    say_at(begun, &format!("{HOSTS} hosts are registered ({kind}): {PREFIX}-1 to {PREFIX}-{HOSTS}"));
    Ok(())
}

/// The example requests.
struct Examples {
    /// The request that is applied at the O-Cloud.
    direct: Example<ProvisioningRequest>,
    /// The request that is applied at the SMO.
    by_smo: Example<FocomProvisioningRequest>,
    /// The request for the O-Cloud without hosts, if there is one.
    without_hosts: Option<Example<FocomProvisioningRequest>>,
    /// `direct`, fulfilled.
    core: ProvisioningRequest,
    /// `by_smo`, fulfilled.
    edge: FocomProvisioningRequest,
}

impl Examples {
    /// Applies the requests and waits until they are fulfilled; the one without hosts only until its O-Cloud has
    /// answered.
    async fn until_fulfilled(supervisor: &mut Supervisor, begun: Instant) -> anyhow::Result<Self> {
        let client = supervisor.stack.management.admin();
        let smo = supervisor.remote_smo.as_ref().map(|remote| remote.smo.admin());
        let example = "examples/o2ims-provisioning-request.yaml";
        let mut direct = Example::<ProvisioningRequest>::new(
            client.clone(),
            example,
            &installation::as_built(installation::EXAMPLE),
            begun,
        )?;
        let example = "examples/focom-provisioning-request.yaml";
        let at = smo.clone().unwrap_or(client);
        let mut by_smo =
            Example::<FocomProvisioningRequest>::new(at, example, &installation::as_built(focom::EXAMPLE), begun)?;
        if smo.is_some() {
            by_smo.object["spec"]["oCloudId"] = json!(WITH_HOSTS);
            by_smo.what = format!("{example} (at the SMO, oCloudId: {WITH_HOSTS})");
        }
        let both = async { tokio::try_join!(direct.until_fulfilled(), by_smo.until_fulfilled()) };
        let (core, edge) = supervisor.during(both).await?;
        let without_hosts = match smo {
            Some(smo) => Some(supervisor.during(until_pending(smo, example, begun)).await?),
            None => None,
        };
        Ok(Self { direct, by_smo, without_hosts, core, edge })
    }

    /// Checks the clusters' Nodes, and prints everything.
    async fn report(&self, supervisor: &mut Supervisor) -> anyhow::Result<()> {
        let client = supervisor.stack.management.admin();
        let remote = self.edge.status.as_ref().and_then(|status| status.remote_name.clone());
        let remote = remote.context("the FPR names no request")?;
        let requests: Api<ProvisioningRequest> = Api::namespaced(client.clone(), NAMESPACE);
        let made = requests.get(&remote).await.context("reading the request that the FPR has become")?;
        let mut clusters = Vec::new();
        for request in [self.core.clone(), made] {
            let cluster = request.spec.template_parameters.cluster_name.clone().unwrap_or_default();
            let nodes = supervisor.during(report::nodes(client.clone(), NAMESPACE, &cluster)).await?;
            report::check_nodes(&nodes, &hosts_of(&request))?;
            clusters.push((request, nodes));
        }
        report::print(&supervisor.stack, &self.edge, &clusters).await
    }

    /// How long the requests took to be fulfilled, for people.
    fn times(&self) -> String {
        format!(
            "ProvisioningRequest to fulfilled {:.1} s, FocomProvisioningRequest to fulfilled {:.1} s",
            self.direct.fulfilled.as_secs_f32(),
            self.by_smo.fulfilled.as_secs_f32()
        )
    }

    /// Deletes the requests and waits until they are gone.
    async fn delete(&mut self, supervisor: &mut Supervisor) -> anyhow::Result<()> {
        self.direct.delete().await?;
        self.by_smo.delete().await?;
        if let Some(example) = &mut self.without_hosts {
            example.delete().await?;
            supervisor.during(example.until_gone()).await?;
        }
        let gone = async { tokio::try_join!(self.direct.until_gone(), self.by_smo.until_gone()) };
        supervisor.during(gone).await.map(drop)
    }

    /// Checks the states that the requests went through.
    fn check_stages(&self) -> anyhow::Result<()> {
        self.direct.check_stages(&["pending", "progressing", "fulfilled", "deleting"])?;
        self.by_smo.check_stages(&["Pending", "Creating", "Synced", "Deleting"])
    }
}

/// Applies the SMO's request for the O-Cloud without hosts, and waits until that O-Cloud says that the request is
/// pending.
async fn until_pending(
    smo: Client,
    file: &'static str,
    begun: Instant,
) -> anyhow::Result<Example<FocomProvisioningRequest>> {
    let mut example =
        Example::<FocomProvisioningRequest>::new(smo, file, &installation::as_built(focom::EXAMPLE), begun)?;
    example.object["spec"]["oCloudId"] = json!(WITHOUT_HOSTS);
    example.rename("far-cluster-request");
    example.what = format!("{file} (at the SMO, metadata.name: {}, oCloudId: {WITHOUT_HOSTS})", example.name);
    example.apply().await?;
    let pending = |request: &FocomProvisioningRequest| request.remote_state() == Some("pending");
    example.follower.until(REQUEST_TIMEOUT, pending).await?;
    Ok(example)
}

/// One example request, from its application to its end.
struct Example<R> {
    /// The applied file, for people.
    what: String,
    object: Value,
    name: String,
    requests: Api<R>,
    follower: Follower<R>,
    begun: Instant,
    /// Time from the application until the request was fulfilled.
    fulfilled: Duration,
    deleted: Instant,
    /// Time from the deletion until the request was gone.
    gone: Duration,
}

impl<R> Example<R>
where
    R: Request + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    /// The request in a file of this repository, not applied yet.
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

    /// Applies the request and waits until it is fulfilled.
    async fn until_fulfilled(&mut self) -> anyhow::Result<R> {
        let applied = Instant::now();
        self.apply().await?;
        let request = self.follower.until_fulfilled(REQUEST_TIMEOUT).await?;
        self.fulfilled = applied.elapsed();
        Ok(request)
    }

    /// Deletes the request; does not wait.
    async fn delete(&mut self) -> anyhow::Result<()> {
        say_at(self.begun, &format!("kubectl delete -f {}", self.what));
        self.deleted = Instant::now();
        self.requests.delete(&self.name, &DeleteParams::default()).await.context("deleting the request")?;
        Ok(())
    }

    /// Waits until the deleted request does not exist.
    async fn until_gone(&mut self) -> anyhow::Result<()> {
        self.follower.until_gone(REQUEST_TIMEOUT).await?;
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

/// All objects, when two lists in a row are the same: a new cluster makes some objects of its own after its start.
async fn settled(client: &Client) -> anyhow::Result<BTreeSet<String>> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let mut last = inventory::objects(client).await?;
    loop {
        tokio::time::sleep(POLL).await;
        let now = inventory::objects(client).await?;
        if now == last || Instant::now() > deadline {
            return Ok(now);
        }
        last = now;
    }
}

/// Waits until the API server has the same objects as before.
///
/// # Errors
/// When that takes too long; the error names the difference.
async fn nothing_left(client: &Client, before: &BTreeSet<String>) -> anyhow::Result<()> {
    let deadline = Instant::now() + COLLECTION_TIMEOUT;
    loop {
        let now = inventory::objects(client).await?;
        if now == *before {
            return Ok(());
        }
        if Instant::now() > deadline {
            let lines = |set: Vec<&str>| set.join("\n  ");
            bail!(
                "{} s after the request was gone the API does not hold the same objects as before\nleft over:\n  {}\n\
                 missing:\n  {}",
                COLLECTION_TIMEOUT.as_secs(),
                lines(now.difference(before).map(String::as_str).collect()),
                lines(before.difference(&now).map(String::as_str).collect())
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Checks that all hosts are free.
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
