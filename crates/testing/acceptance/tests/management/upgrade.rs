//! `up` with a newer bundle, over an installation that a former release has made and that has running clusters.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use acceptance::{Shell, top};
use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use hostsim::{HostSpec, Site, SiteOptions};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams};
use kube::core::DynamicObject;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use o2ims_types::ProvisioningRequest;
use sandbox::waiting::wait;
use sandbox::{Operator, OperatorOptions, installation, inventory};
use serde_json::{Value, json};
use testenv::{ManagementCluster, Options, versions};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::interval;

use crate::pods::Node;
use crate::{LIMIT, fulfilled, shell_of, simulated_node};

/// Versions of Cluster API: of the former installation, and of the bundle that upgrades it.
const FORMER: &str = versions::CLUSTER_API_BEFORE[0];
const NEW: &str = versions::CLUSTER_API;
/// The Kubernetes that the former installation's ClusterTemplate is for.
const FORMER_KUBERNETES: &str = "v1.32.9";

/// Running clusters, and the requests that they belong to, do not notice an upgrade, and go on in the new version.
pub(crate) async fn upgrade() -> Result<()> {
    let options = Options { cluster_api: false, byoh: false, ..Options::default() };
    let management = ManagementCluster::start(options, |line| eprintln!("{line}")).await?;
    let result = Box::pin(on(&management)).await;
    result.and(management.stop().await)
}

async fn on(management: &ManagementCluster) -> Result<()> {
    let folder = management.dir().join("site");
    for (name, version) in [("former", versions::minor(FORMER)), ("new", "")] {
        bundle(&folder, name, version).await?;
    }
    let shell = shell_of(management, &folder)?;
    simulated_node(&shell)?;
    let node = Node::start(management, vec![folder.join("former"), folder.join("new")])?;
    let result = Box::pin(installed(management, &shell)).await;
    // Why a pod could not be run is the reason of what came after it.
    node.stop().await.and(result)
}

/// Installs the former release, and hosts.
async fn installed(management: &ManagementCluster, shell: &Shell) -> Result<()> {
    shell.run(&up("former"))?;
    let site = Site::new(management, SiteOptions::default())?;
    let result = Box::pin(story(management, shell, &site)).await;
    site.shut_down().await;
    result
}

async fn story(management: &ManagementCluster, shell: &Shell, site: &Site) -> Result<()> {
    let client = management.admin();
    store_in_former_versions(shell, &client).await?;
    let kubeconfig = management.dir().join("o2ims-operator.kubeconfig");
    management.service_account_kubeconfig("o2ims-system", "o2ims-operator", &kubeconfig).await?;
    let options = OperatorOptions::new(sandbox::program("o2ims-operator")?);
    let mut operator = Operator::start(&options, &kubeconfig, &management.dir().join("o2ims-operator.log"))?;
    let operator = tokio::spawn(async move {
        let mut look = interval(Duration::from_secs(1));
        loop {
            look.tick().await;
            operator.restart_if_ended().into_iter().for_each(|why| eprintln!("{why}"));
        }
    });
    for number in 1..=5 {
        site.register(HostSpec::new(format!("target-{number}"), number.to_string())).await?;
    }
    let requests: Api<ProvisioningRequest> = Api::namespaced(client.clone(), "default");
    let clusters = [("one", 1, vec![2]), ("two", 3, vec![]), ("three", 4, vec![])];
    for (name, master, workers) in &clusters {
        management.apply_yaml(&request(name, *master, workers).to_string()).await?;
    }
    for (name, ..) in &clusters {
        wait(requests.clone(), name, "a cluster", LIMIT, fulfilled).await?;
    }
    let before = machines(&client).await?;
    ensure!(before.len() == 4, "{before:?}");

    foreseen(shell)?;
    let witness = Witness::start(requests.clone());
    held_up(shell)?;
    upgraded(shell)?;
    for definition in definitions(&client).await? {
        let name = definition.name_any();
        let all: Api<CustomResourceDefinition> = Api::all(client.clone());
        let anew =
            |definition: Option<&CustomResourceDefinition>| definition.is_some_and(|one| stored(one) == ["v1beta2"]);
        wait(all, &name, "objects to be stored in v1beta2 only", LIMIT, anew).await?;
    }
    let said = shell.run(&format!("{} status", program()))?;
    ensure!(said.contains(NEW) && !said.contains(FORMER) && !said.contains("may still be stored"), "{said}");
    witness.saw_nothing()?;
    let after = machines(&client).await?;
    ensure!(after == before, "the Machines were {before:?}, and are {after:?}");

    // One is deleted to the end, and one gains a worker.
    requests.delete("three", &DeleteParams::default()).await?;
    wait(requests.clone(), "three", "the end of a cluster", LIMIT, |request| request.is_none()).await?;
    let clean = |host: Option<&DynamicObject>| host.is_some_and(|host| host.data["status"]["machineRef"].is_null());
    wait(inventory::hosts(client.clone(), "default"), "target-4", "a clean host", LIMIT, clean).await?;
    management.apply_yaml(&request("one", 1, &[2, 5]).to_string()).await?;
    wait(requests.clone(), "one", "another worker", LIMIT, |request| fulfilled(request) && is_observed(request))
        .await?;
    let after = machines(&client).await?;
    let kept = before.intersection(&after).count();
    ensure!(after.len() == 4 && kept == 3, "the Machines were {before:?}, and are {after:?}");

    let again = shell.run(&format!("{} --dry-run", up("new")))?;
    ensure!(!again.contains("would"), "a dry run foresees changes after the upgrade:\n{again}");
    let (code, back) = shell.attempt(&up("former"))?;
    ensure!(code != 0 && back.contains("Cluster API cannot go back to an older version"), "{back}");
    operator.abort();
    Ok(())
}

/// Makes a bundle with this minor version of Cluster API, or the default, and what simulated hosts need. Its operators are
/// stand-ins.
async fn bundle(folder: &Path, name: &str, cluster_api: &str) -> Result<()> {
    let operators = folder.join("operators");
    fs::create_dir_all(&operators)?;
    for name in ["o2ims-operator", "focom-operator"] {
        fs::write(operators.join(name), format!("a stand-in for {name}"))?;
    }
    let bundle = folder.join(name);
    let mut command = Command::new(sandbox::program("bundle")?);
    command.arg(&bundle).arg("--without-hosts").arg("--operators").arg(operators);
    let status = command.env("O2IMS_CLUSTER_API", cluster_api).status().await?;
    ensure!(
        status.success(),
        "a bundle cannot be made of what is there: O2IMS_CLUSTER_API={cluster_api} bundle --prepare"
    );
    let (mut cni, mut template) = (installation::CNI.to_owned(), installation::TEMPLATE.to_owned());
    if !cluster_api.is_empty() {
        // Releases before had this kind in v1beta1 only.
        cni = cni.replace("v1beta2", "v1beta1");
        template = template.replace(versions::KUBERNETES, FORMER_KUBERNETES);
        ensure!(template.contains(FORMER_KUBERNETES), "the ClusterTemplate is for no Kubernetes");
    }
    fs::write(bundle.join("manifests/cni.yaml"), cni)?;
    Ok(fs::write(bundle.join("manifests/cluster-template.yaml"), template)?)
}

fn program() -> String {
    format!("'{}'", top().join("mgmt.sh").display())
}

/// The installation of a bundle. Nobody pulls its images.
fn up(bundle: &str) -> String {
    format!("{} up --bundle {bundle} --registry registry.example.org --timeout 180", program())
}

/// Has all objects stored in the version before, as releases have left them that knew no other: v1beta1 in most kinds.
async fn store_in_former_versions(shell: &Shell, client: &Client) -> Result<()> {
    for definition in definitions(client).await? {
        let versions = &definition.spec.versions;
        let new = versions.iter().position(|version| version.storage).context("no version is stored")?;
        let former = versions.iter().rposition(|version| !version.storage).context("only one version")?;
        let set = |index: usize, value: bool| json!({"op": "replace", "path": format!("/spec/versions/{index}/storage"), "value": value});
        let patch = json!([set(new, false), set(former, true)]);
        shell.run(&format!("kubectl patch crd {} --type json --patch '{patch}'", definition.name_any()))?;
    }
    Ok(())
}

/// A dry run tells what is there, what will be, and what will go, and changes nothing.
fn foreseen(shell: &Shell) -> Result<()> {
    const STATE: &str = "kubectl get crds,deployments,clusterroles -A -o \
        'jsonpath={range .items[*]}{.metadata.name} {.metadata.generation}{\"\\n\"}{end}'";
    shell.run(
        "kubectl create clusterrole former --verb=get --resource=pods
        kubectl -n capi-system create configmap former
        for object in clusterrole/former configmap/former; do
            kubectl -n capi-system label $object o2ims.provisioning.oran.org/component=cluster-api
        done",
    )?;
    let before = shell.run(STATE)?;
    let said = shell.run(&format!("{} --dry-run", up("new")))?;
    for words in [
        "would stop the managers of cluster-api kubeadm-bootstrap kubeadm-control-plane until the bundle's are there",
        &format!("kubeadm-bootstrap: {FORMER} is installed, the bundle has {NEW}"),
        "kubeadm-bootstrap: would change apiextensions.k8s.io.v1.CustomResourceDefinition..kubeadmconfigs.bootstrap.cluster.x-k8s.io ",
        " apps.v1.Deployment.capi-kubeadm-bootstrap-system.capi-kubeadm-bootstrap-controller-manager ",
        "cluster-api: would remove rbac.authorization.k8s.io.v1.ClusterRole..former\n",
        &format!(
            "byoh-workload-cluster-v1.0.0 stays as it is, for Kubernetes {FORMER_KUBERNETES} and with ghcr.io/kube-vip/"
        ),
        "cert-manager: all ",
    ] {
        ensure!(said.contains(words), "the dry run does not say {words:?}:\n{said}");
    }
    let after = shell.run(STATE)?;
    ensure!(after == before, "a dry run has changed\n{before}\nto\n{after}");
    Ok(())
}

/// A manager that does not end, as on a node that is dead, is told, and all managers run again.
fn held_up(shell: &Shell) -> Result<()> {
    const POD: &str = "kubectl -n capi-system patch --type merge --patch";
    let pod = shell.run("kubectl -n capi-system get pods --output name")?;
    shell.run(&format!(r#"{POD} '{{"metadata":{{"finalizers":["example.org/node"]}}}}' {pod}"#))?;
    let (code, said) = shell.attempt(&up("new").replace("--timeout 180", "--timeout 10"))?;
    let pod = pod.trim().trim_start_matches("pod/");
    for words in [
        &format!("cluster-api: the former manager did not end in 10 s: pod capi-system/{pod} on node "),
        "its managers run again",
        &format!("kubectl --namespace capi-system delete pod {pod} --force"),
    ] {
        ensure!(code != 0 && said.contains(words), "up does not say {words:?}:\n{said}");
    }
    shell
        .run(&format!(
            "kubectl -n capi-system rollout status deployment/capi-controller-manager --timeout 120s
        kubectl -n capi-kubeadm-bootstrap-system rollout status deployment/capi-kubeadm-bootstrap-controller-manager --timeout 120s
        {POD} '{{\"metadata\":{{\"finalizers\":null}}}}' pod/{pod}"
        ))
        .map(drop)
}

/// Runs `up` with the new bundle, and another pod network for new clusters.
fn upgraded(shell: &Shell) -> Result<()> {
    let network =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "network", "namespace": "kube-system"}});
    let said = shell.run(&format!("echo '{network}' >network.yaml; {} --cni network.yaml", up("new")))?;
    for words in [
        "stopping the managers of cluster-api kubeadm-bootstrap kubeadm-control-plane until the bundle's are there",
        "note: the pod network in network.yaml is for new clusters; running ones keep theirs: one, three, two",
        "no longer part of it: clusterrole.rbac.authorization.k8s.io \"former\" deleted",
    ] {
        ensure!(said.contains(words), "up does not say {words:?}:\n{said}");
    }
    // Nobody but users knows what is in a ConfigMap.
    shell.run("kubectl -n capi-system get configmap former")?;
    let webhooks = shell.run(
        "kubectl get mutatingwebhookconfiguration capi-kubeadm-bootstrap-mutating-webhook-configuration \
        -o 'jsonpath={.webhooks[*].name}'",
    )?;
    ensure!(webhooks == "default.kubeadmconfigtemplate.bootstrap.cluster.x-k8s.io", "{webhooks}");
    let set = shell.run("kubectl get clusterresourcesets.v1beta2.addons.cluster.x-k8s.io cni -o 'jsonpath={.spec}'")?;
    let set: Value = serde_json::from_str(&set)?;
    let whole = json!({
        "clusterSelector": {"matchLabels": {"cni": "cni"}}, "resources": [{"kind": "ConfigMap", "name": "cni"}], "strategy": "ApplyOnce",
    });
    ensure!(set == whole, "{set:#}");
    Ok(())
}

fn request(name: &str, master: u32, workers: &[u32]) -> Value {
    let host = |number: &u32| json!({"hostId": number, "hostName": format!("target-{number}")});
    let workers: Vec<_> = workers.iter().map(host).collect();
    json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "templateName": "byoh-workload-cluster", "templateVersion": "v1.0.0",
            "templateParameters": {
                "clusterName": name, "k8sVersion": versions::KUBERNETES, "hosts": {"masters": [host(&master)], "workers": workers},
            },
        },
    })
}

/// Whether the status is that of the request as it is now.
fn is_observed(request: Option<&ProvisioningRequest>) -> bool {
    request.is_some_and(|request| {
        request.status.as_ref().and_then(|status| status.observed_generation) == request.metadata.generation
    })
}

/// Name and UID of each Machine.
async fn machines(client: &Client) -> Result<BTreeSet<(String, Option<String>)>> {
    let all = inventory::api(client.clone(), "default", "cluster.x-k8s.io", "Machine");
    let all = all.list(&ListParams::default()).await?;
    Ok(all.iter().map(|machine| (machine.name_any(), machine.uid())).collect())
}

/// The CRDs of Cluster API's providers.
async fn definitions(client: &Client) -> Result<Vec<CustomResourceDefinition>> {
    let ours = ListParams::default()
        .labels("cluster.x-k8s.io/provider in (cluster-api, bootstrap-kubeadm, control-plane-kubeadm)");
    Ok(Api::<CustomResourceDefinition>::all(client.clone()).list(&ours).await?.items)
}

/// The versions in which objects of a kind may be stored.
fn stored(definition: &CustomResourceDefinition) -> &[String] {
    definition.status.as_ref().and_then(|status| status.stored_versions.as_deref()).unwrap_or_default()
}

/// Watches requests, and notes each that is not fulfilled.
struct Witness {
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Witness {
    fn start(requests: Api<ProvisioningRequest>) -> Self {
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let notes = seen.clone();
        let task = tokio::spawn(async move {
            let mut requests = pin!(watcher(requests, watcher::Config::default()).default_backoff().applied_objects());
            while let Some(request) = requests.next().await {
                let Some(request) = request.ok().filter(|request| !fulfilled(Some(request))) else { continue };
                notes.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{:?}", request.status));
            }
        });
        Self { seen, task }
    }

    /// Ends the watch.
    ///
    /// # Errors
    /// When a request was not fulfilled.
    fn saw_nothing(self) -> Result<()> {
        self.task.abort();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(seen.is_empty(), "requests were not fulfilled meanwhile: {seen:#?}");
        Ok(())
    }
}
