//! The shared management cluster, tenants, and waiting on watches.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::future::Future;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use cluster_api::byoh::ByoHost;
use cluster_api::conditions::Condition;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Namespace, Node, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::config::KubeConfigOptions;
use kube::core::DynamicObject;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config, ResourceExt};
use o2ims_operator::provisioner::byoh::marks::MarkedHost as _;
use o2ims_types::{ClusterTemplate, ProvisioningRequest, ProvisioningState, conditions, names};
use operator_kit::write::status::{ConditionStatus, find};
use sandbox::installation::Hosts;
pub use sandbox::scenario::Outcome;
pub use sandbox::waiting::wait;
use sandbox::{Stack, StackOptions, inventory, scenario};
use serde_json::{Value, json};
use testenv::AuditEntry;
use tokio::process::Command;
use tokio::sync::{OwnedRwLockReadGuard, RwLock, Semaphore};

use crate::revisions::FORBIDDEN_NAMESPACE;

/// A scenario in the world of this operator.
pub type Scenario = scenario::Scenario<World>;

/// A scenario on the stack that all share.
pub fn shared<F>(name: &str, body: impl FnOnce(Shared) -> F + Send + 'static) -> Scenario
where
    F: Future<Output = Outcome> + 'static,
{
    Scenario::new(name, async move |world: Arc<World>| {
        let result = body(world.shared().await?).await;
        match (result, world.shared.read().await.as_ref()) {
            (Err(error), Some(stack)) => Err(with_log(error, stack)),
            (result, _) => result,
        }
    })
}

/// A scenario with a stack of its own, because it disturbs or counts what others do.
pub fn alone(name: &str, body: impl AsyncFnOnce(&mut Stack) -> Outcome + Send + 'static) -> Scenario {
    alone_with(name, patient, body)
}

/// A scenario with real servers for hosts.
pub fn on_servers(name: &str, body: impl AsyncFnOnce(&mut Stack) -> Outcome + Send + 'static) -> Scenario {
    alone_with(name, |options| patient(options.with_servers()), body).with_servers()
}

/// A scenario with real servers that have two minor versions of Kubernetes.
pub fn on_servers_of_two_versions(
    name: &str,
    body: impl AsyncFnOnce(&mut Stack) -> Outcome + Send + 'static,
) -> Scenario {
    let set_up = |options: StackOptions| StackOptions { kubernetes_before: true, ..patient(options.with_servers()) };
    alone_with(name, set_up, body).with_servers()
}

/// The defaults of an operator: it loses its lease in 10 s, and another one can lead after 15 s.
pub fn with_short_lease(options: StackOptions) -> StackOptions {
    options
}

/// As [`alone`], on a stack that is set up in this way.
pub fn alone_with(
    name: &str,
    set_up: impl FnOnce(StackOptions) -> StackOptions + Send + 'static,
    body: impl AsyncFnOnce(&mut Stack) -> Outcome + Send + 'static,
) -> Scenario {
    let own_name = name.to_owned();
    Scenario::new(name, async move |world: Arc<World>| {
        if env::var_os(ALONE).is_none() && env::var_os(ISOLATED).is_some() {
            let _room = world.room.acquire().await?;
            return in_own_namespace(&own_name).await;
        }
        ensure!(
            env::var_os(ALONE).is_none() || env::var_os(ISOLATED).is_some(),
            "no second layer of namespaces is permitted here, and this network has room for one management cluster only"
        );
        // The network has room for one management cluster.
        let mut shared = world.shared.write().await;
        if let Some(stack) = shared.take() {
            stop(stack).await?;
        }
        let mut stack = start(set_up).await?;
        let result = body(&mut stack).await.map_err(|error| with_log(error, &stack));
        result.and(stop(stack).await)
    })
}

/// An operator that keeps its lease: on a small machine others may keep the API server busy for longer than a lease lasts.
pub fn patient(mut options: StackOptions) -> StackOptions {
    options.operator.arguments = vec!["--lease-duration-seconds".to_owned(), "90".to_owned()];
    options
}

/// How many scenarios have a management cluster of their own at the same time; one takes up to 2 GiB of memory.
const MANAGEMENT_CLUSTERS: usize = 2;
/// Set by `scripts/in-own-namespace` where namespaces are permitted.
const ISOLATED: &str = "O2IMS_OWN_NAMESPACE";
/// Set for a process that runs one scenario alone.
const ALONE: &str = "O2IMS_SCENARIO_ALONE";

/// What a line on standard error begins with that is shown also of a scenario in a process of its own.
const FIGURE: &str = "figure: ";

/// Prints a figure of a scenario.
pub fn figure(text: &str) {
    eprintln!("{FIGURE}{text}");
}

/// Runs one scenario in a process and a network of its own: BYOH's manager has a fixed port, so a network has room for one
/// management cluster.
async fn in_own_namespace(name: &str) -> Outcome {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/in-own-namespace"))
        .arg(env::current_exe()?)
        .args(["--exact", name, "--include-ignored"])
        .env_remove(ISOLATED)
        .env(ALONE, "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("1 passed"), "in a process of its own:\n{said}");
    // Figures, such as how long something did not answer.
    for line in String::from_utf8_lossy(&output.stderr).lines().filter_map(|line| line.strip_prefix(FIGURE)) {
        eprintln!("{name}: {line}");
    }
    Ok(())
}

/// Runs the scenarios as a test binary does, and stops what they share.
pub fn run(scenarios: Vec<Scenario>) -> ExitCode {
    let no_servers = testenv::servers::left_out().unwrap_or_else(|error| Some(format!("{error:#}")));
    if let (Some(why), true) = (&no_servers, env::var_os(ALONE).is_none()) {
        eprintln!("LEFT OUT: what needs real servers ({why})");
    }
    let world = World { shared: Arc::default(), room: Semaphore::new(MANAGEMENT_CLUSTERS) };
    scenario::run(world, scenarios, no_servers.as_deref())
}

/// The stack that scenarios share.
pub type Shared = OwnedRwLockReadGuard<Option<Stack>, Stack>;

/// Where the scenarios take place.
pub struct World {
    shared: Arc<RwLock<Option<Stack>>>,
    room: Semaphore,
}

impl World {
    /// The shared stack, started when the first scenario needs it.
    async fn shared(&self) -> anyhow::Result<Shared> {
        loop {
            let slot = Arc::clone(&self.shared).read_owned().await;
            if let Ok(stack) = OwnedRwLockReadGuard::try_map(slot, Option::as_ref) {
                return Ok(stack);
            }
            let mut slot = self.shared.write().await;
            if slot.is_none() {
                *slot = Some(start(patient).await?);
            }
        }
    }
}

impl scenario::World for World {
    async fn stop(&self) -> Outcome {
        match self.shared.write().await.take() {
            Some(stack) => stop(stack).await,
            None => Ok(()),
        }
    }
}

async fn start(set_up: impl FnOnce(StackOptions) -> StackOptions) -> anyhow::Result<Stack> {
    let options = set_up(StackOptions::new(env!("CARGO_BIN_EXE_o2ims-operator")));
    Stack::start(options, |line| eprintln!("{line}")).await.context("starting the stack")
}

/// Stops the stack. Whatever ran on it: the rights that are shipped were enough.
async fn stop(stack: Stack) -> Outcome {
    let entries = stack.management.audit_log().entries();
    // While a namespace was being deleted, nothing could be made in it.
    let namespaces = Api::<Namespace>::all(stack.management.admin()).list_metadata(&ListParams::default()).await?;
    let is_there = |name: &str| name.is_empty() || namespaces.iter().any(|namespace| namespace.name_any() == name);
    stack.stop().await?;
    // A Secret of others with the operator's label; and what a quota refuses.
    let is_meant = |entry: &AuditEntry| {
        entry.namespace == "installed" && entry.verb == "deletecollection"
            || entry.namespace == "dry-run" && entry.uri.contains("dryRun=All")
            || entry.namespace == FORBIDDEN_NAMESPACE && entry.resource == "controllerrevisions"
    };
    let refused: BTreeSet<_> = entries?
        .into_iter()
        .filter(|entry| entry.user == OPERATOR_USER && entry.code == 403 && is_there(&entry.namespace))
        .filter(|entry| !is_meant(entry))
        .map(|entry| format!("{} {}", entry.verb, entry.uri))
        .collect();
    ensure!(refused.is_empty(), "refused to the operator: {refused:?}");
    Ok(())
}

fn with_log(error: anyhow::Error, stack: &Stack) -> anyhow::Error {
    let Some(operator) = &stack.operator else { return error };
    anyhow!("{error:#}\n--- last lines of the operator's log:\n{}", operator.log_tail(30))
}

/// Who the operator is to the API server.
pub const OPERATOR_USER: &str = "system:serviceaccount:o2ims-system:o2ims-operator";
/// How long a whole cluster may take here.
pub const CLUSTER: Duration = Duration::from_secs(240);
/// How long the operator may take for what only it has to do.
pub const SOON: Duration = Duration::from_secs(30);

/// A namespace with a CNI and hosts.
pub struct Tenant {
    /// Its name; host names begin with it too.
    pub namespace: String,
    client: Client,
    hosts: Hosts,
}

impl Tenant {
    /// Makes the namespace and registers hosts `<namespace>-1` to `<namespace>-<hosts>` with these ids.
    pub async fn new(stack: &Stack, namespace: &str, hosts: u32) -> anyhow::Result<Self> {
        let tenant = Self::in_namespace(stack, namespace).await?;
        if stack.management.byoh_dialect().is_some() {
            tenant.equip(stack, hosts).await?;
        }
        Ok(tenant)
    }

    /// Makes the namespace and switches servers `<namespace>-1` to `<namespace>-<hosts>` on.
    pub async fn on_servers(stack: &mut Stack, namespace: &str, hosts: u8) -> anyhow::Result<Self> {
        let tenant = Self::without_hosts(stack, namespace).await?;
        stack.power_on(namespace, namespace, 1..=hosts, false).await?;
        Ok(tenant)
    }

    /// Makes the namespace.
    pub async fn without_hosts(stack: &Stack, namespace: &str) -> anyhow::Result<Self> {
        let tenant = Self::in_namespace(stack, namespace).await?;
        tenant.equip(stack, 0).await?;
        Ok(tenant)
    }

    async fn in_namespace(stack: &Stack, namespace: &str) -> anyhow::Result<Self> {
        stack.make_namespace(namespace).await?;
        Ok(Self { namespace: namespace.to_owned(), client: stack.management.admin(), hosts: stack.hosts() })
    }

    /// CNI and hosts, which need Cluster API and BYOH.
    pub async fn equip(&self, stack: &Stack, hosts: u32) -> Outcome {
        let namespace = &self.namespace;
        stack.apply_cni(namespace).await?;
        if hosts > 0 {
            stack.register(namespace, namespace, 1..=hosts).await?;
        }
        Ok(())
    }

    /// Name of the host with this number.
    pub fn host(&self, number: u32) -> String {
        format!("{}-{number}", self.namespace)
    }

    /// A request as JSON.
    pub fn request(&self, name: &str, cluster: &str, masters: &[u32], workers: &[u32]) -> Value {
        let hosts = |numbers: &[u32]| -> Vec<Value> {
            numbers.iter().map(|number| json!({"hostId": number, "hostName": self.host(*number)})).collect()
        };
        json!({
            "apiVersion": "o2ims.provisioning.oran.org/v1alpha1",
            "kind": "ProvisioningRequest",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "templateName": "byoh-workload-cluster",
                "templateVersion": "v1.0.0",
                "templateParameters": {
                    "clusterName": cluster,
                    "hosts": {"masters": hosts(masters), "workers": hosts(workers)},
                }
            }
        })
    }

    /// As [`Tenant::request`], for the tenant's own template of this name.
    pub fn request_for(&self, template: &str, name: &str, masters: &[u32], workers: &[u32]) -> Value {
        let mut request = self.request(name, name, masters, workers);
        request["spec"]["templateName"] = json!(template);
        request["spec"]["templateVersion"] = json!("v1");
        request
    }

    /// A ClusterTemplate of the tenant's own, as the shared one but for `change`; requests name it by `name`, v1.
    pub async fn template(&self, name: &str, change: Value) -> Outcome {
        let mut template: Value = serde_saphyr::from_str(&self.hosts.template())?;
        template_schema::overlay(
            &mut template,
            json!({
                "metadata": {"name": format!("{name}-v1"), "namespace": self.namespace},
                "spec": {"name": name, "version": "v1"}
            }),
        );
        template_schema::overlay(&mut template["spec"], change);
        let api: Api<ClusterTemplate> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = format!("{name}-v1");
        api.patch(&name, &PatchParams::apply("user"), &Patch::Apply(&template)).await.context("making the template")?;
        Ok(())
    }

    /// Waits until the tenant's own template of this name is Ready, or is not, in these words and as it is now.
    pub async fn until_template(&self, name: &str, ready: bool, words: &str) -> Outcome {
        let api: Api<ClusterTemplate> = Api::namespaced(self.client.clone(), &self.namespace);
        let (name, expected) = (format!("{name}-v1"), ConditionStatus::from(ready).as_str());
        let is_told = |template: &ClusterTemplate| {
            let conditions = template.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            find(conditions, conditions::READY).is_some_and(|told| {
                told.status == expected
                    && told.message.contains(words)
                    && told.observed_generation == template.metadata.generation
            })
        };
        let what = format!("ClusterTemplate {name} to be Ready={expected} with {words:?}");
        wait(api, &name, &what, SOON, |template: Option<&ClusterTemplate>| template.is_some_and(is_told)).await?;
        Ok(())
    }

    /// Every object of every kind in the namespace, as `Kind namespace/name`.
    pub async fn inventory(&self) -> anyhow::Result<BTreeSet<String>> {
        let mark = format!(" {}/", self.namespace);
        Ok(inventory::objects(&self.client).await?.into_iter().filter(|object| object.contains(&mark)).collect())
    }

    /// Waits until the namespace holds what it held `before`. The garbage collector notices kinds that are younger than
    /// its last look at the API only at the next one. All kinds at once cannot be watched, so this looks again and again.
    pub async fn until_as_before(&self, before: &BTreeSet<String>) -> Outcome {
        let deadline = tokio::time::Instant::now() + CLUSTER;
        let mut pace = tokio::time::interval(Duration::from_millis(500));
        loop {
            pace.tick().await;
            let now = self.inventory().await?;
            if now == *before {
                return Ok(());
            }
            let left: Vec<_> = now.symmetric_difference(before).collect();
            ensure!(tokio::time::Instant::now() < deadline, "left behind, or missing: {left:?}");
        }
    }

    /// Requests of the namespace.
    pub fn requests(&self) -> Api<ProvisioningRequest> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Recorded specs of requests of the namespace.
    pub fn revisions(&self) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn byohosts(&self) -> Api<ByoHost> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies a request, as a user with `kubectl apply --server-side` would.
    pub async fn apply(&self, request: &Value) -> kube::Result<ProvisioningRequest> {
        let name = request["metadata"]["name"].as_str().unwrap_or_default();
        self.requests().patch(name, &PatchParams::apply("user"), &Patch::Apply(request)).await
    }

    /// Asks for the deletion of a request.
    pub async fn delete(&self, name: &str) -> anyhow::Result<()> {
        self.requests().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Names hosts of a request as lost, as a user with `kubectl annotate` would.
    pub async fn call_lost(&self, request: &str, hosts: &str) -> Outcome {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {names::LOST_HOSTS_ANNOTATION: hosts}}}));
        self.requests().patch(request, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Waits until the request is in `state` and its message contains `words`.
    pub async fn until(
        &self,
        name: &str,
        state: ProvisioningState,
        words: &str,
        limit: Duration,
    ) -> anyhow::Result<ProvisioningRequest> {
        let what = format!("request {name} to be {state} with {words:?}");
        wait(self.requests(), name, &what, limit, |request: Option<&ProvisioningRequest>| {
            request.and_then(|request| request.status.as_ref()).is_some_and(|status| {
                let told = &status.provisioning_status;
                told.provisioning_state == state && told.provisioning_message.contains(words)
            })
        })
        .await?
        .ok_or_else(|| anyhow!("request {name} is gone"))
    }

    /// Waits until the request is fulfilled, and nothing is wrong with its cluster.
    pub async fn until_healthy(&self, name: &str, limit: Duration) -> Outcome {
        let what = format!("request {name} to be fulfilled without trouble");
        wait(self.requests(), name, &what, limit, |request: Option<&ProvisioningRequest>| {
            request.and_then(|request| request.status.as_ref()).is_some_and(|status| {
                let is_degraded =
                    find(&status.conditions, conditions::DEGRADED).is_some_and(|told| told.status == "True");
                status.provisioning_status.provisioning_state == ProvisioningState::Fulfilled && !is_degraded
            })
        })
        .await?;
        Ok(())
    }

    /// Waits until there is an Event with this reason about the request.
    pub async fn until_event(&self, name: &str, reason: &str) -> Outcome {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let about = |event: &Event| {
            event.reason.as_deref() == Some(reason)
                && event.regarding.as_ref().is_some_and(|regarding| regarding.name.as_deref() == Some(name))
        };
        let mut events = watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
        let seen = async {
            while let Some(event) = events.try_next().await? {
                if about(&event) {
                    return Ok(());
                }
            }
            Err(anyhow!("the watch ended"))
        };
        tokio::time::timeout(SOON, seen).await.with_context(|| format!("no event {reason} for {name}"))?
    }

    /// Waits until the request is gone.
    pub async fn until_gone(&self, name: &str, limit: Duration) -> anyhow::Result<()> {
        let what = format!("request {name} to be gone");
        wait(self.requests(), name, &what, limit, |request: Option<&ProvisioningRequest>| request.is_none()).await?;
        Ok(())
    }

    /// Objects of one of Cluster API's or BYOH's kinds in the namespace.
    pub fn objects(&self, kind: cluster_api::Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.api_resource())
    }

    /// Every Machine's Node name by the ByoHost that its ByoMachine is attached to.
    pub async fn nodes_by_host(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let machines = self.objects(cluster_api::Kind::Machine);
        let hosts = self.objects(cluster_api::Kind::ByoHost).list(&ListParams::default()).await?;
        let mut found = BTreeMap::new();
        for machine in machines.list(&ListParams::default()).await? {
            let byo_machine = &machine.data["spec"]["infrastructureRef"]["name"];
            let host = hosts.iter().find(|host| host.data["status"]["machineRef"]["name"] == *byo_machine);
            if let (Some(host), Some(node)) = (host, machine.data["status"]["nodeRef"]["name"].as_str()) {
                found.insert(host.name_any(), node.to_owned());
            }
        }
        Ok(found)
    }

    /// Fails unless every host of the namespace is free and without a mark of the operator.
    pub async fn assert_hosts_free(&self) -> Outcome {
        for host in self.byohosts().list(&ListParams::default()).await? {
            if let Some(busy) = host.in_use_reason() {
                bail!("host {} {busy}", host.name_any());
            }
            let marks = host.labels().keys().chain(host.annotations().keys()).find(|key| key.contains("o2ims"));
            if let Some(mark) = marks {
                bail!("host {} still has {mark}", host.name_any());
            }
        }
        Ok(())
    }

    /// Waits until no host of the namespace has a mark of the operator.
    pub async fn until_unmarked(&self) -> Outcome {
        for host in self.byohosts().list(&ListParams::default()).await? {
            let is_unmarked = |host: Option<&ByoHost>| {
                let has_mark = |host: &ByoHost| {
                    host.labels().keys().chain(host.annotations().keys()).any(|key| key.contains("o2ims"))
                };
                host.is_some_and(|host| !has_mark(host))
            };
            let name = host.name_any();
            wait(self.byohosts(), &name, &format!("host {name} to have no mark"), SOON, is_unmarked).await?;
        }
        Ok(())
    }

    /// Waits until platform9's BYOH has seen the heartbeat of a host's agent.
    pub async fn until_connected(&self, number: u32) -> Outcome {
        let hosts = self.byohosts();
        let name = self.host(number);
        let connected = |host: Option<&ByoHost>| {
            host.is_some_and(|host| Condition::is_true(&host.status.conditions, "AgentConnected"))
        };
        wait(hosts, &name, &format!("host {name} to be connected"), SOON, connected).await?;
        Ok(())
    }

    /// Waits until a host is free and without a mark of the operator.
    pub async fn until_host_free(&self, number: u32) -> Outcome {
        let hosts = self.byohosts();
        let name = self.host(number);
        let free =
            |host: Option<&ByoHost>| host.is_some_and(|host| host.in_use_reason().is_none() && host.holder().is_none());
        wait(hosts, &name, &format!("host {name} to be free"), CLUSTER, free).await?;
        Ok(())
    }

    /// A client from the kubeconfig Secret of a cluster, as a user would use it.
    pub async fn workload(&self, cluster: &str) -> anyhow::Result<Client> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = secrets.get(&format!("{cluster}-kubeconfig")).await?;
        let data = secret.data.and_then(|mut data| data.remove("value")).context("no key value")?;
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&String::from_utf8(data.0)?)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    /// Names of the Ready Nodes of a cluster, from its kubeconfig Secret.
    pub async fn ready_nodes(&self, cluster: &str) -> anyhow::Result<Vec<String>> {
        let nodes = Api::<Node>::all(self.workload(cluster).await?).list(&ListParams::default()).await?;
        Ok(nodes.items.iter().filter(|node| is_ready(node)).map(ResourceExt::name_any).collect())
    }
}

/// The states that a request goes through, each once, in the order in which a watch shows them.
pub struct States {
    seen: Arc<std::sync::Mutex<Vec<ProvisioningState>>>,
    task: tokio::task::JoinHandle<()>,
}

impl States {
    /// Watches the request, which need not be there yet.
    pub fn follow(tenant: &Tenant, name: &str) -> Self {
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (list, api, name) = (Arc::clone(&seen), tenant.requests(), name.to_owned());
        let task = tokio::spawn(async move {
            let mut events = watcher::watch_object(api, &name).default_backoff().boxed();
            while let Ok(Some(object)) = events.try_next().await {
                if let Some(status) = object.and_then(|object| object.status) {
                    let state = status.provisioning_status.provisioning_state;
                    let mut list = list.lock().expect("not poisoned");
                    if list.last() != Some(&state) {
                        list.push(state);
                    }
                }
            }
        });
        Self { seen, task }
    }

    /// What was seen.
    pub fn seen(self) -> Vec<ProvisioningState> {
        self.task.abort();
        self.seen.lock().expect("not poisoned").clone()
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|list| list.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}
