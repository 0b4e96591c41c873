//! One SMO and two O-Clouds that all scenarios share, tenants, and waiting on watches.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use o2ims_types::{FocomProvisioningRequest, OCloud, ProvisioningRequest};
pub use sandbox::scenario::Outcome;
use sandbox::waiting::wait;
use sandbox::{Federation, OperatorOptions, StackOptions, scenario};
use serde_json::{Value, json};
use testenv::ManagementCluster;
use tokio::sync::{Mutex, RwLock};

/// A scenario in the world of this operator.
pub type Scenario = scenario::Scenario<World>;

/// A scenario beside others.
pub fn beside<F>(name: &str, body: impl FnOnce(Arc<World>) -> F + Send + 'static) -> Scenario
where
    F: Future<Output = Outcome> + 'static,
{
    Scenario::new(name, async move |world: Arc<World>| {
        let _others = world.turn.read().await;
        world.explained(body).await
    })
}

/// A scenario without others, because it disturbs or counts what they do.
pub fn alone<F>(name: &str, body: impl FnOnce(Arc<World>) -> F + Send + 'static) -> Scenario
where
    F: Future<Output = Outcome> + 'static,
{
    Scenario::new(name, async move |world: Arc<World>| {
        let _nobody_else = world.turn.write().await;
        world.explained(body).await
    })
}

/// Who the operator is to the SMO's API server.
pub const OPERATOR_USER: &str = "system:serviceaccount:focom-system:focom-operator";
/// Who the operator is to an O-Cloud's API server.
pub const SMO_USER: &str = "system:serviceaccount:o2ims-system:smo";
/// How long a whole cluster may take here.
pub const CLUSTER: Duration = Duration::from_secs(240);
/// How long the operators may take for what only they have to do.
pub const SOON: Duration = Duration::from_secs(30);

/// Runs the scenarios as a test binary does, and stops what they share.
pub fn run(scenarios: Vec<Scenario>) -> ExitCode {
    scenario::run(World::default(), scenarios, None)
}

/// Where the scenarios take place.
#[derive(Default)]
pub struct World {
    turn: RwLock<()>,
    parts: Mutex<Option<Arc<Parts>>>,
}

/// The SMO and its O-Clouds.
pub type Parts = Federation;

impl World {
    /// The parts, started when the first scenario needs them.
    pub async fn started(&self) -> anyhow::Result<Arc<Parts>> {
        let mut parts = self.parts.lock().await;
        if let Some(parts) = parts.as_ref() {
            return Ok(Arc::clone(parts));
        }
        let started = Arc::new(Box::pin(start()).await.context("starting the SMO and its O-Clouds")?);
        *parts = Some(Arc::clone(&started));
        Ok(started)
    }

    /// Runs a scenario; its error has the last lines of the operator's log.
    async fn explained<F>(self: &Arc<Self>, body: impl FnOnce(Arc<Self>) -> F) -> Outcome
    where
        F: Future<Output = Outcome>,
    {
        self.started().await?;
        match body(Arc::clone(self)).await {
            Err(error) => Err(self.with_log(error).await),
            Ok(()) => Ok(()),
        }
    }

    async fn with_log(&self, error: anyhow::Error) -> anyhow::Error {
        let parts = self.parts.lock().await;
        let Some(parts) = parts.as_ref() else { return error };
        match parts.focom.lock().await.as_ref() {
            Some(focom) => anyhow!("{error:#}\n--- last lines of the operator's log:\n{}", focom.log_tail(30)),
            None => error,
        }
    }
}

impl scenario::World for World {
    async fn stop(&self) -> Outcome {
        match self.parts.lock().await.take() {
            Some(parts) => stop(Arc::into_inner(parts).context("a scenario still holds them")?).await,
            None => Ok(()),
        }
    }
}

async fn start() -> anyhow::Result<Parts> {
    // Operators that keep their leases: on a small machine others may keep an API server busy for longer than a lease lasts.
    let patient = |program: &Path| {
        let mut options = OperatorOptions::new(program);
        options.arguments = vec!["--lease-duration-seconds".to_owned(), "90".to_owned()];
        options
    };
    let program = Path::new(env!("CARGO_BIN_EXE_focom-operator"));
    let o2ims = program.with_file_name("o2ims-operator");
    ensure!(o2ims.is_file(), "{} is missing: cargo build -p o2ims-operator", o2ims.display());
    let site_a = StackOptions { operator: patient(&o2ims), ..StackOptions::new("") };
    let mut focom = patient(program);
    "info,focom_operator=debug".clone_into(&mut focom.log_level);
    let all = Box::pin(Federation::start(site_a, focom, |line| eprintln!("{line}"))).await?;
    // The SMO is asked itself, too; there is no O2IMS operator on it.
    for crd in sandbox::installation::CRDS {
        all.smo.apply_yaml(crd).await?;
    }
    Ok(all)
}

/// Stops everything. Whatever ran: the rights that are shipped were enough.
async fn stop(parts: Parts) -> Outcome {
    let mut refused = BTreeSet::new();
    for (management, user) in
        [(&parts.smo, OPERATOR_USER), (&parts.site_a.management, SMO_USER), (&parts.site_b.management, SMO_USER)]
    {
        let entries = management.audit_log().entries()?.into_iter();
        let own = entries.filter(|entry| entry.user == user && entry.lacks_right);
        // Where the right is taken away on purpose.
        let meant = |entry: &testenv::AuditEntry| entry.namespace == "gap" && entry.subresource == "status";
        refused.extend(own.filter(|entry| !meant(entry)).map(|entry| format!("{} {}", entry.verb, entry.uri)));
    }
    Box::pin(parts.stop()).await?;
    ensure!(refused.is_empty(), "refused to the operator: {refused:?}");
    Ok(())
}

/// A namespace at the SMO, and one of the same name on every O-Cloud.
pub struct Tenant {
    /// Its name; host names begin with it too.
    pub namespace: String,
    /// The parts that it is on.
    pub parts: Arc<Parts>,
}

impl Tenant {
    /// Makes the namespaces, and OClouds `site-a` and `site-b` in the SMO's.
    pub async fn new(world: &World, namespace: &str) -> anyhow::Result<Self> {
        let tenant = Self::bare(world, namespace).await?;
        tenant.parts.introduce(namespace).await?;
        Ok(tenant)
    }

    /// Makes the namespaces.
    pub async fn bare(world: &World, namespace: &str) -> anyhow::Result<Self> {
        let parts = world.started().await?;
        parts.make_namespace(namespace).await?;
        Ok(Self { namespace: namespace.to_owned(), parts })
    }

    /// The SMO's API.
    pub fn client(&self) -> Client {
        self.parts.smo.admin()
    }

    /// Registers simulated hosts `<namespace>-1` to `<namespace>-<hosts>` on `site-a`, with a CNI.
    pub async fn equip(&self, hosts: u32) -> Outcome {
        self.parts.site_a.apply_cni(&self.namespace).await?;
        self.parts.site_a.register(&self.namespace, &self.namespace, 1..=hosts).await
    }

    /// A request as JSON, for hosts by number.
    pub fn request(&self, name: &str, o_cloud: &str, masters: &[u32], workers: &[u32]) -> Value {
        let hosts = |numbers: &[u32]| -> Vec<Value> {
            numbers
                .iter()
                .map(|number| json!({"hostId": number, "hostName": format!("{}-{number}", self.namespace)}))
                .collect()
        };
        json!({
            "apiVersion": "focom.nephio.org/v1alpha1",
            "kind": "FocomProvisioningRequest",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "oCloudId": o_cloud,
                "oCloudNamespace": self.namespace,
                "templateName": "byoh-workload-cluster",
                "templateVersion": "v1.0.0",
                "templateParameters": {
                    "clusterName": name,
                    "hosts": {"masters": hosts(masters), "workers": hosts(workers)},
                },
            },
        })
    }

    /// Requests of the namespace.
    pub fn requests(&self) -> Api<FocomProvisioningRequest> {
        Api::namespaced(self.client(), &self.namespace)
    }

    /// OClouds of the namespace.
    pub fn o_clouds(&self) -> Api<OCloud> {
        Api::namespaced(self.client(), &self.namespace)
    }

    /// ProvisioningRequests on an O-Cloud, or on the SMO's own cluster.
    pub fn remote(&self, management: &ManagementCluster) -> Api<ProvisioningRequest> {
        Api::namespaced(management.admin(), &self.namespace)
    }

    /// Applies a request, as a user with `kubectl apply --server-side` would.
    pub async fn apply(&self, request: &Value) -> kube::Result<FocomProvisioningRequest> {
        let name = request["metadata"]["name"].as_str().unwrap_or_default();
        self.requests().patch(name, &PatchParams::apply("user").force(), &Patch::Apply(request)).await
    }

    /// Asks for the deletion of a request.
    pub async fn delete(&self, name: &str) -> Outcome {
        self.requests().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Annotates a request so that it is let go, or with something that has no such effect.
    pub async fn abandon(&self, name: &str, value: &str) -> Outcome {
        let change = json!({"metadata": {"annotations": {o2ims_types::names::focom::ABANDON_ANNOTATION: value}}});
        self.requests().patch(name, &PatchParams::default(), &Patch::Merge(&change)).await?;
        Ok(())
    }

    /// Waits until the request is in `phase` and its message contains `words`.
    pub async fn until(
        &self,
        name: &str,
        phase: &str,
        words: &str,
        limit: Duration,
    ) -> anyhow::Result<FocomProvisioningRequest> {
        let what = format!("request {name} to be {phase} with {words:?}");
        let reached = |request: Option<&FocomProvisioningRequest>| {
            let status = request.and_then(|request| request.status.as_ref());
            status.is_some_and(|status| status.phase == phase && status.message.contains(words))
        };
        let found = wait(self.requests(), name, &what, limit, reached).await?;
        found.with_context(|| format!("request {name} is gone"))
    }

    /// Waits until the O-Cloud's state, as the request shows it, is this one.
    pub async fn until_state(
        &self,
        name: &str,
        state: &str,
        limit: Duration,
    ) -> anyhow::Result<FocomProvisioningRequest> {
        let what = format!("request {name} to show the state {state}");
        let reached = |request: Option<&FocomProvisioningRequest>| {
            let status = request.and_then(|request| request.status.as_ref()?.provisioning_status.as_ref());
            status.is_some_and(|status| status.provisioning_state == state)
        };
        let found = wait(self.requests(), name, &what, limit, reached).await?;
        found.with_context(|| format!("request {name} is gone"))
    }

    /// Waits until the request is gone.
    pub async fn until_gone(&self, name: &str, limit: Duration) -> Outcome {
        let what = format!("request {name} to be gone");
        wait(self.requests(), name, &what, limit, |request: Option<&FocomProvisioningRequest>| request.is_none())
            .await?;
        Ok(())
    }

    /// Waits until the OCloud's condition `Ready` has this reason.
    pub async fn until_o_cloud(&self, name: &str, reason: &str) -> anyhow::Result<OCloud> {
        let what = format!("OCloud {name} to be {reason}");
        let reached = |o_cloud: Option<&OCloud>| {
            let conditions = o_cloud.and_then(|o_cloud| Some(&o_cloud.status.as_ref()?.conditions));
            conditions.is_some_and(|list| list.iter().any(|found| found.type_ == "Ready" && found.reason == reason))
        };
        wait(self.o_clouds(), name, &what, SOON, reached).await?.with_context(|| format!("OCloud {name} is gone"))
    }

    /// Reasons of the Events about the request, in no order.
    pub async fn events(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let events = Api::<Event>::namespaced(self.client(), &self.namespace).list(&ListParams::default()).await?;
        let about = |event: &Event| event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(name);
        Ok(events.into_iter().filter(about).filter_map(|event| event.reason).collect())
    }

    /// Waits until a ProvisioningRequest is on an O-Cloud, or is not.
    pub async fn until_remote(&self, management: &ManagementCluster, name: &str, there: bool) -> Outcome {
        let what = format!("ProvisioningRequest {name} to be {}", if there { "there" } else { "gone" });
        let reached = |remote: Option<&ProvisioningRequest>| remote.is_some() == there;
        wait(self.remote(management), name, &what, SOON, reached).await?;
        Ok(())
    }

    /// Names of the ProvisioningRequests of the namespace on a management cluster.
    pub async fn remote_names(&self, management: &ManagementCluster) -> anyhow::Result<Vec<String>> {
        Ok(self.remote(management).list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect())
    }
}
