//! Simulated hosts on a real management cluster: clusters are made and deleted, hosts fail and are healed.

// Helper functions of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::too_many_lines, reason = "a scenario is one story, a table one list")]

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use cluster_api::kinds::version_of;
use futures::StreamExt;
use hostsim::{FAILURES_CONFIG_MAP, Failure, Host, HostSpec, Site, SiteOptions};
use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{ConfigMap, Node, Secret},
    },
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testenv::{ManagementCluster, Options};

const TENANT: &str = "tenant-a";
const BOOTSTRAPPED: &str = "K8sNodeBootstrapSucceeded";

/// Watches objects until `wish` returns true for them. Cluster API itself waits up to 30 s in some places.
async fn until<K>(what: &str, api: &Api<K>, wish: impl Fn(&BTreeMap<String, K>) -> bool) -> BTreeMap<String, K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let start = Instant::now();
    let mut events = watcher(api.clone(), watcher::Config::default()).boxed();
    let mut objects = BTreeMap::new();
    let mut complete = false;
    let waiting = async {
        loop {
            match events.next().await.expect("watches do not end") {
                Ok(Event::Init) => {
                    objects.clear();
                    complete = false;
                }
                Ok(Event::InitApply(object) | Event::Apply(object)) => drop(objects.insert(object.name_any(), object)),
                Ok(Event::Delete(object)) => drop(objects.remove(&object.name_any())),
                Ok(Event::InitDone) => complete = true,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
            if complete && wish(&objects) {
                break;
            }
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(120), waiting).await;
    assert!(done.is_ok(), "{what}: not within 120 s; last seen: {objects:#?}");
    println!("{what}: {:.1} s", start.elapsed().as_secs_f32());
    objects
}

fn api(client: &Client, group: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version_of(group), kind));
    Api::namespaced_with(client.clone(), TENANT, &resource)
}

fn condition<'a>(object: &'a DynamicObject, kind: &str) -> Option<&'a Value> {
    object.data["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

fn reason(object: &DynamicObject, kind: &str) -> String {
    condition(object, kind).and_then(|c| c["reason"].as_str()).unwrap_or_default().to_owned()
}

fn is_true(object: &DynamicObject, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| c["status"] == "True")
}

/// Whether a host can join the next cluster.
fn free(host: &DynamicObject) -> bool {
    let gone = |part: &str, field: &str| host.data[part].get(field).is_none_or(Value::is_null);
    let marks = ["cluster.x-k8s.io/cluster-name", "byoh.infrastructure.cluster.x-k8s.io/byomachine-name"];
    let notes = ["byoh.infrastructure.cluster.x-k8s.io/unregistering", "cluster.x-k8s.io/paused"];
    marks.iter().all(|label| !host.labels().contains_key(*label))
        && notes.iter().all(|annotation| !host.annotations().contains_key(*annotation))
        && gone("status", "machineRef")
        && gone("spec", "bootstrapSecret")
        && gone("spec", "installationSecret")
        && gone("spec", "uninstallationSecret")
        && reason(host, BOOTSTRAPPED) == "WaitingForMachineRefToBeAssigned"
}

fn ready(node: &Node) -> (String, String) {
    let conditions = node.status.clone().and_then(|status| status.conditions).unwrap_or_default();
    let ready = conditions.into_iter().find(|c| c.type_ == "Ready");
    ready.map(|c| (c.status, c.message.unwrap_or_default())).unwrap_or_default()
}

fn all_ready(nodes: &BTreeMap<String, Node>, count: usize) -> bool {
    nodes.len() == count && nodes.values().all(|node| ready(node).0 == "True")
}

/// The manifests of a cluster of one control-plane host and one worker. External etcd and the expiry date are required
/// by simulated hosts.
fn manifests(cluster: &str, endpoint: &Host) -> String {
    let expiry = Timestamp::now() + SignedDuration::from_hours(24 * 364);
    let address = endpoint.address();
    format!(
        r#"
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: ByoMachineTemplate
metadata: {{name: {cluster}-control-plane, namespace: {TENANT}}}
spec: {{template: {{spec: {{selector: {{matchLabels: {{host-id: cp-1}}}}}}}}}}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: ByoMachineTemplate
metadata: {{name: {cluster}-md-0, namespace: {TENANT}}}
spec: {{template: {{spec: {{selector: {{matchLabels: {{host-id: w-1}}}}}}}}}}
---
apiVersion: bootstrap.cluster.x-k8s.io/v1beta2
kind: KubeadmConfigTemplate
metadata: {{name: {cluster}-md-0, namespace: {TENANT}}}
spec: {{template: {{spec: {{format: cloud-config, joinConfiguration: {{nodeRegistration: {{criSocket: /var/run/containerd/containerd.sock}}}}}}}}}}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: ByoCluster
metadata: {{name: {cluster}, namespace: {TENANT}}}
spec: {{controlPlaneEndpoint: {{host: {address}, port: 6443}}}}
---
apiVersion: controlplane.cluster.x-k8s.io/v1beta2
kind: KubeadmControlPlane
metadata: {{name: {cluster}-control-plane, namespace: {TENANT}}}
spec:
  replicas: 1
  version: v1.33.1
  machineTemplate:
    metadata:
      annotations: {{machine.cluster.x-k8s.io/certificates-expiry: "{expiry:.0}"}}
    spec:
      infrastructureRef:
        apiGroup: infrastructure.cluster.x-k8s.io
        kind: ByoMachineTemplate
        name: {cluster}-control-plane
  kubeadmConfigSpec:
    format: cloud-config
    clusterConfiguration:
      etcd:
        external:
          endpoints: ["https://127.0.0.1:2379"]
          caFile: /etc/kubernetes/pki/etcd/ca.crt
          certFile: /etc/kubernetes/pki/apiserver-etcd-client.crt
          keyFile: /etc/kubernetes/pki/apiserver-etcd-client.key
    initConfiguration: {{nodeRegistration: {{criSocket: /var/run/containerd/containerd.sock}}}}
    joinConfiguration: {{nodeRegistration: {{criSocket: /var/run/containerd/containerd.sock}}}}
---
apiVersion: cluster.x-k8s.io/v1beta2
kind: MachineDeployment
metadata: {{name: {cluster}-md-0, namespace: {TENANT}}}
spec:
  clusterName: {cluster}
  replicas: 1
  selector: {{matchLabels: {{cluster.x-k8s.io/cluster-name: {cluster}, cluster.x-k8s.io/deployment-name: {cluster}-md-0}}}}
  rollout: {{strategy: {{type: RollingUpdate, rollingUpdate: {{maxSurge: 0, maxUnavailable: 1}}}}}}
  template:
    metadata: {{labels: {{cluster.x-k8s.io/cluster-name: {cluster}, cluster.x-k8s.io/deployment-name: {cluster}-md-0}}}}
    spec:
      clusterName: {cluster}
      version: v1.33.1
      bootstrap:
        configRef:
          apiGroup: bootstrap.cluster.x-k8s.io
          kind: KubeadmConfigTemplate
          name: {cluster}-md-0
      infrastructureRef:
        apiGroup: infrastructure.cluster.x-k8s.io
        kind: ByoMachineTemplate
        name: {cluster}-md-0
---
apiVersion: cluster.x-k8s.io/v1beta2
kind: Cluster
metadata: {{name: {cluster}, namespace: {TENANT}}}
spec:
  clusterNetwork: {{pods: {{cidrBlocks: [192.168.0.0/16]}}, services: {{cidrBlocks: [10.128.0.0/12]}}, serviceDomain: cluster.local}}
  controlPlaneEndpoint: {{host: {address}, port: 6443}}
  controlPlaneRef:
    apiGroup: controlplane.cluster.x-k8s.io
    kind: KubeadmControlPlane
    name: {cluster}-control-plane
  infrastructureRef:
    apiGroup: infrastructure.cluster.x-k8s.io
    kind: ByoCluster
    name: {cluster}
"#
    )
}

/// Installs a pod network as far as simulated hosts read it: a DaemonSet of the right name.
async fn install_cni(workload: &Client) {
    let daemon_set = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "simulated-cni"},
        "spec": {
            "selector": {"matchLabels": {"app": "simulated-cni"}},
            "template": {
                "metadata": {"labels": {"app": "simulated-cni"}},
                "spec": {"containers": [{"name": "cni", "image": "example.org/simulated-cni:1"}]},
            },
        },
    });
    let api = Api::<DaemonSet>::namespaced(workload.clone(), "kube-system");
    api.patch("simulated-cni", &PatchParams::apply("test"), &Patch::Apply(daemon_set)).await.unwrap();
}

struct Objects {
    clusters: Api<DynamicObject>,
    machines: Api<DynamicObject>,
    hosts: Api<DynamicObject>,
    secrets: Api<Secret>,
}

impl Objects {
    fn new(client: &Client) -> Self {
        Self {
            clusters: api(client, "cluster.x-k8s.io", "Cluster"),
            machines: api(client, "cluster.x-k8s.io", "Machine"),
            hosts: api(client, "infrastructure.cluster.x-k8s.io", "ByoHost"),
            secrets: Api::namespaced(client.clone(), TENANT),
        }
    }

    async fn until_running(&self, what: &str) {
        until(what, &self.machines, |machines| {
            machines.len() == 2 && machines.values().all(|machine| machine.data["status"]["phase"] == "Running")
        })
        .await;
    }

    async fn delete(&self, cluster: &str) {
        self.clusters.delete(cluster, &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: a minute and a half, most of it waits of Cluster API; the operator's end-to-end tests cover the same"]
async fn clusters_come_and_go_on_simulated_hosts() {
    let start = Instant::now();
    let management = Arc::new(ManagementCluster::start(Options::default(), |step| println!("{step}")).await.unwrap());
    println!("management: {:.1} s", start.elapsed().as_secs_f32());
    let admin = management.admin();
    management.apply_yaml(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {TENANT}}}\n")).await.unwrap();
    let site = Site::new(&management, SiteOptions { namespace: TENANT.to_owned(), ..SiteOptions::default() }).unwrap();
    site.watch_failures(TENANT, FAILURES_CONFIG_MAP);
    let target = site.register(HostSpec::new("target-1", "cp-1")).await.unwrap();
    site.register(HostSpec::new("target-2", "w-1")).await.unwrap();
    assert!(site.register(HostSpec::new("target-2", "w-1")).await.is_err());
    let objects = Objects::new(&admin);
    let hosts = until("hosts idle", &objects.hosts, |hosts| hosts.len() == 2 && hosts.values().all(free)).await;
    assert_eq!(hosts["target-1"].labels()["host-id"], "cp-1");
    let network = hosts["target-1"].data["status"]["network"].as_array().unwrap().clone();
    let default = network.iter().find(|interface| interface["isDefault"] == true).unwrap();
    assert_eq!(default["ipAddrs"][0], format!("{}/16", target.address()));

    first_cluster(&management, &site, &target, &objects).await;
    cluster_with_failures(&management, &site, &target, &objects).await;

    assert_eq!(management.failed(), None);
    target.unregister().await.unwrap();
    until("host taken away", &objects.hosts, |hosts| !hosts.contains_key("target-1")).await;
    site.shut_down().await;
    Arc::into_inner(management).unwrap().stop().await.unwrap();
    println!("all: {:.1} s", start.elapsed().as_secs_f32());
}

async fn first_cluster(management: &ManagementCluster, site: &Site, target: &Host, objects: &Objects) {
    let start = Instant::now();
    management.apply_yaml(&manifests("c1", target)).await.unwrap();
    until("control-plane host bootstrapped", &objects.hosts, |hosts| is_true(&hosts["target-1"], BOOTSTRAPPED)).await;
    let workload = site.workload_client("c1").await.unwrap();
    let nodes = Api::<Node>::all(workload.clone());
    let seen = until("first Node", &nodes, |nodes| nodes.contains_key("target-1")).await;
    let (status, message) = ready(&seen["target-1"]);
    assert_eq!((status.as_str(), message.contains("cni plugin not initialized")), ("False", true), "{message}");
    until("both hosts bootstrapped", &objects.hosts, |hosts| hosts.values().all(|h| is_true(h, BOOTSTRAPPED))).await;
    install_cni(&workload).await;
    let seen = until("Nodes ready", &nodes, |nodes| all_ready(nodes, 2)).await;
    for node in seen.values() {
        assert_eq!(node.status.as_ref().unwrap().node_info.as_ref().unwrap().kubelet_version, "v1.33.1");
    }
    objects.until_running("Machines running").await;
    println!("c1 up: {:.1} s", start.elapsed().as_secs_f32());

    let start = Instant::now();
    objects.delete("c1").await;
    until("Cluster gone", &objects.clusters, BTreeMap::is_empty).await;
    until("hosts free", &objects.hosts, |hosts| hosts.values().all(free)).await;
    until("Secrets of external etcd collected", &objects.secrets, |s| s.keys().all(|name| !name.contains("etcd")))
        .await;
    assert!(site.workload_client("c1").await.is_none());
    assert!(site.workload_client_at((target.address(), 6443).into()).await.is_none());
    assert!(tokio::net::TcpStream::connect((target.address(), 6443)).await.is_err());
    println!("c1 gone: {:.1} s", start.elapsed().as_secs_f32());
}

/// A second cluster on the same hosts and endpoint, with a failure in each phase.
async fn cluster_with_failures(management: &ManagementCluster, site: &Site, target: &Host, objects: &Objects) {
    let worker = site.host("target-2").unwrap();
    let failures = Api::<ConfigMap>::namespaced(management.admin(), TENANT);
    let map = json!({"metadata": {"name": FAILURES_CONFIG_MAP}, "data": {"target-2": "bootstrap"}});
    failures.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
    site.ensure_external_etcd(TENANT, "c2").await.unwrap();
    management.apply_yaml(&manifests("c2", target)).await.unwrap();
    let owners = |secret: &Secret| secret.owner_references().iter().map(|o| o.kind.clone()).collect::<Vec<_>>();
    until("Secrets made before belong to the Cluster and its control plane", &objects.secrets, |secrets| {
        ["c2-etcd", "c2-apiserver-etcd-client"]
            .iter()
            .all(|name| secrets.get(*name).is_some_and(|s| owners(s) == ["Cluster", "KubeadmControlPlane"]))
    })
    .await;
    until("bootstrap failed", &objects.hosts, |hosts| {
        reason(&hosts["target-2"], BOOTSTRAPPED) == "CloudInitExecutionFailed"
    })
    .await;
    let healed = json!({"data": {"target-2": null}});
    failures.patch(FAILURES_CONFIG_MAP, &PatchParams::default(), &Patch::Merge(healed)).await.unwrap();
    until("bootstrap healed", &objects.hosts, |hosts| is_true(&hosts["target-2"], BOOTSTRAPPED)).await;
    let workload = site.workload_client("c2").await.unwrap();
    let nodes = Api::<Node>::all(workload.clone());
    install_cni(&workload).await;
    until("Nodes ready", &nodes, |nodes| all_ready(nodes, 2)).await;
    worker.fail(Failure::NodeNotReady);
    until("Node not ready", &nodes, |nodes| ready(&nodes["target-2"]).0 == "False").await;
    worker.heal();
    until("Node ready again", &nodes, |nodes| all_ready(nodes, 2)).await;
    objects.until_running("Machines running").await;

    // A stopped agent does not see the release; when it is started again, it goes on from the current state.
    worker.fail(Failure::Silent);
    objects.delete("c2").await;
    until("release asked for", &objects.hosts, |hosts| {
        hosts["target-2"].annotations().contains_key("byoh.infrastructure.cluster.x-k8s.io/unregistering")
    })
    .await;
    until("Cluster gone", &objects.clusters, BTreeMap::is_empty).await;
    until("control-plane host free", &objects.hosts, |hosts| free(&hosts["target-1"])).await;
    worker.fail(Failure::HangingCleanup);
    let hanging = objects.hosts.get("target-2").await.unwrap();
    assert!(!free(&hanging));
    worker.heal();
    until("worker host free", &objects.hosts, |hosts| free(&hosts["target-2"])).await;
}
