//! The objects that kubeadm and the kubelet write to the API of a cluster, as far as Cluster API reads them.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::watcher,
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    backoff::ExponentialBackoff, bootstrap::NodeRegistration, byohost::now, failure::Failure, workload::Membership,
};

const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// How long a new API server may take to make its own namespaces.
const NAMESPACE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the last write of a released host's Node may take. It is not important, so the limit is short.
const FINAL_WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// The properties of a host that its Node shows.
#[derive(Clone, Debug)]
pub(crate) struct HostInfo {
    pub(crate) host_name: String,
    pub(crate) address: IpAddr,
    pub(crate) os_image: String,
    /// Machine id, boot id and system UUID.
    pub(crate) id: String,
}

/// How a Node is set up.
pub(crate) struct NodeSetup<'a> {
    pub(crate) control_plane: bool,
    pub(crate) version: String,
    pub(crate) registration: &'a NodeRegistration,
    /// The kubeadm configuration that the first control-plane host stores in the cluster.
    pub(crate) cluster_configuration: Option<&'a str>,
}

/// The running kubelet of a host, which maintains the condition `Ready` of its Node.
pub(crate) struct Kubelet {
    pub(crate) membership: Membership,
    node: String,
    stop: DropGuard,
    task: JoinHandle<Option<()>>,
}

/// Registers the Node and, on a control plane, its static pods; then starts the kubelet.
pub(crate) async fn start(
    membership: Membership,
    host: &HostInfo,
    setup: &NodeSetup<'_>,
    failure: watch::Receiver<Option<Failure>>,
) -> anyhow::Result<Kubelet> {
    let client = membership.client.clone();
    wait_for_kube_system(&client).await?;
    let name = setup.registration.name.clone().unwrap_or_else(|| host.host_name.clone());
    let ready = ready_condition(*membership.cni.borrow(), failure.borrow().as_ref());
    let node = register(&client, &name, host, setup, &ready).await.context("registering the Node")?;
    if setup.control_plane {
        for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            static_pod(&client, &node, component, host.address, &setup.version)
                .await
                .with_context(|| format!("static pod {component}"))?;
        }
    }
    // Last, because Cluster API regards the control plane as initialized when it exists.
    if let Some(configuration) = setup.cluster_configuration {
        store_configuration(&client, configuration).await.context("keeping the kubeadm configuration")?;
    }
    let stop = CancellationToken::new();
    let run = kubelet(client, name.clone(), membership.cni.clone(), failure, ready);
    let task = tokio::spawn(stop.clone().run_until_cancelled_owned(run));
    Ok(Kubelet { membership, node: name, stop: stop.drop_guard(), task })
}

/// Writes another version of the kubelet into a Node.
pub(crate) async fn set_version(client: Client, name: &str, version: &str) -> anyhow::Result<()> {
    let status = json!({"status": {"nodeInfo": {"kubeletVersion": version}}});
    Api::<Node>::all(client).patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

impl Kubelet {
    /// The cluster's API, and the name of the Node in it.
    pub(crate) fn node(&self) -> (Client, String) {
        (self.membership.client.clone(), self.node.clone())
    }

    /// Stops the kubelet. If the cluster goes on, the Node's `Ready` becomes `Unknown`. In a real cluster the node
    /// lifecycle controller does that some forty seconds later; a simulated cluster has none.
    pub(crate) async fn end(self, cluster_goes_on: bool) {
        drop(self.stop);
        let _ = self.task.await;
        if !cluster_goes_on {
            return;
        }
        let nodes = Api::<Node>::all(self.membership.client);
        let unknown = unanswered();
        let written = write_ready(&nodes, &self.node, &unknown);
        if let Ok(Err(error)) = tokio::time::timeout(FINAL_WRITE_TIMEOUT, written).await {
            tracing::debug!(node = %self.node, %error, "Node of a released host not marked");
        }
    }
}

/// The cluster's version of Kubernetes, which a joining host runs by default.
pub(crate) async fn cluster_version(client: &Client) -> anyhow::Result<String> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "kube-system");
    let map = maps.get("kubeadm-config").await?;
    let text = map.data.and_then(|mut data| data.remove("ClusterConfiguration")).unwrap_or_default();
    let configuration: Value = serde_saphyr::from_str(&text)?;
    let version = configuration["kubernetesVersion"].as_str().context("the cluster does not name its version")?;
    Ok(version.to_owned())
}

async fn wait_for_kube_system(client: &Client) -> anyhow::Result<()> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let there = async {
        let mut seen = std::pin::pin!(watcher::watch_object(namespaces, "kube-system"));
        loop {
            match seen.try_next().await {
                Ok(Some(Some(_))) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "waiting for kube-system");
                    ExponentialBackoff::new().wait().await;
                }
            }
        }
    };
    tokio::time::timeout(NAMESPACE_TIMEOUT, there).await.context("the workload API has no namespace kube-system")
}

/// The condition `Ready` of a Node whose kubelet does not run. In a real cluster the node lifecycle controller writes it, some forty seconds later.
fn unanswered() -> Value {
    json!({
        "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
    })
}

/// The condition `Ready` of a Node.
fn ready_condition(cni: bool, failure: Option<&Failure>) -> Value {
    let not_ready =
        |message: &str| json!({"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": message});
    if failure == Some(&Failure::Off) {
        unanswered()
    } else if failure == Some(&Failure::NodeNotReady) {
        not_ready("simulated failure: PLEG is not healthy")
    } else if cni {
        json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"})
    } else {
        not_ready("container runtime network not ready: cni plugin not initialized")
    }
}

/// Creates the Node, or takes over one that is not ready, and writes its status.
async fn register(
    client: &Client,
    name: &str,
    host: &HostInfo,
    setup: &NodeSetup<'_>,
    ready: &Value,
) -> anyhow::Result<Node> {
    let nodes = Api::<Node>::all(client.clone());
    let labels = labels(name, setup);
    let taints = setup.registration.taints.clone().unwrap_or_else(|| {
        if setup.control_plane { vec![json!({"key": CONTROL_PLANE, "effect": "NoSchedule"})] } else { Vec::new() }
    });
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints},
    }))?;
    let node = match nodes.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let old = nodes.get(name).await?;
            let conditions = old.status.and_then(|status| status.conditions).unwrap_or_default();
            if conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True") {
                bail!("a Node named {name} exists in the cluster and is ready");
            }
            let patch = json!({"metadata": {"labels": labels}, "spec": {"taints": taints}});
            nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?
        }
        created => created?,
    };
    let status = json!({"status": status(name, host, &setup.version, ready)});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(node)
}

/// The labels that the kubelet and kubeadm set on a Node.
fn labels(name: &str, setup: &NodeSetup<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("beta.kubernetes.io/arch".to_owned(), "amd64".to_owned()),
        ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), "amd64".to_owned()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/hostname".to_owned(), name.to_owned()),
    ]);
    labels.extend(setup.registration.labels.clone());
    if setup.control_plane {
        labels.insert(CONTROL_PLANE.to_owned(), String::new());
        labels.insert("node.kubernetes.io/exclude-from-external-load-balancers".to_owned(), String::new());
    }
    labels
}

/// The status that the kubelet writes when it registers its Node.
fn status(name: &str, host: &HostInfo, version: &str, ready: &Value) -> Value {
    let mut conditions = vec![
        json!({"type": "MemoryPressure", "status": "False", "reason": "KubeletHasSufficientMemory",
               "message": "kubelet has sufficient memory available"}),
        json!({"type": "DiskPressure", "status": "False", "reason": "KubeletHasNoDiskPressure",
               "message": "kubelet has no disk pressure"}),
        json!({"type": "PIDPressure", "status": "False", "reason": "KubeletHasSufficientPID",
               "message": "kubelet has sufficient PID available"}),
        ready.clone(),
    ];
    for condition in &mut conditions {
        condition["lastTransitionTime"] = now();
        condition["lastHeartbeatTime"] = now();
    }
    let resources = json!({"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": "110"});
    json!({
        "addresses": [
            {"type": "InternalIP", "address": host.address.to_string()},
            {"type": "Hostname", "address": name},
        ],
        "allocatable": resources,
        "capacity": resources,
        "conditions": conditions,
        "nodeInfo": {
            "architecture": "amd64",
            "bootID": host.id,
            "containerRuntimeVersion": "containerd://simulated",
            "kernelVersion": "simulated",
            "kubeProxyVersion": "",
            "kubeletVersion": version,
            "machineID": host.id,
            "operatingSystem": "linux",
            "osImage": host.os_image,
            "systemUUID": host.id,
        },
    })
}

/// Writes the mirror pod of a static pod, running and ready.
async fn static_pod(
    client: &Client,
    node: &Node,
    component: &str,
    address: IpAddr,
    version: &str,
) -> anyhow::Result<()> {
    let pods = Api::<Pod>::namespaced(client.clone(), "kube-system");
    let node_name = node.name_any();
    let name = format!("{component}-{node_name}");
    let image = format!("registry.k8s.io/{component}:{version}");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "labels": {"component": component, "tier": "control-plane"},
            "annotations": {
                "kubernetes.io/config.hash": "simulated",
                "kubernetes.io/config.mirror": "simulated",
                "kubernetes.io/config.source": "file",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Node", "controller": true, "name": node_name, "uid": node.metadata.uid,
            }],
        },
        "spec": {
            "containers": [{"name": component, "image": image}],
            "hostNetwork": true,
            "nodeName": node_name,
            "tolerations": [{"effect": "NoExecute", "operator": "Exists"}],
        },
    }))?;
    match pods.create(&PostParams::default(), &pod).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        created => drop(created?),
    }
    let conditions: Vec<_> = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .iter()
        .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": now()}))
        .collect();
    let status = json!({"status": {
        "phase": "Running",
        "conditions": conditions,
        "containerStatuses": [{
            "name": component, "image": image, "imageID": image, "ready": true, "started": true, "restartCount": 0,
            "state": {"running": {"startedAt": now()}},
        }],
        "hostIP": address.to_string(),
        "podIP": address.to_string(),
        "startTime": now(),
    }});
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// Stores the kubeadm configuration in the cluster, as kubeadm does.
async fn store_configuration(client: &Client, configuration: &str) -> anyhow::Result<()> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "kube-system");
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kubeadm-config"},
        "data": {"ClusterConfiguration": configuration},
    });
    maps.patch("kubeadm-config", &PatchParams::apply("kubeadm").force(), &Patch::Apply(map)).await?;
    Ok(())
}

/// Writes the condition `Ready` whenever the pod network or a failure changes it. Returns when the cluster or the Node
/// is gone.
async fn kubelet(
    client: Client,
    name: String,
    mut cni: watch::Receiver<bool>,
    mut failure: watch::Receiver<Option<Failure>>,
    mut written: Value,
) {
    let nodes = Api::<Node>::all(client);
    let mut delay = ExponentialBackoff::new();
    loop {
        let ready = ready_condition(*cni.borrow_and_update(), failure.borrow_and_update().as_ref());
        if ready != written {
            match write_ready(&nodes, &name, &ready).await {
                Ok(()) => written = ready,
                // A real kubelet does not create a deleted Node again either.
                Err(kube::Error::Api(status)) if status.code == 404 => return,
                Err(error) => {
                    tracing::debug!(node = %name, %error, "condition of a Node not written");
                    tokio::select! {
                        () = delay.wait() => continue,
                        gone = cni.changed() => if gone.is_err() { return } else { continue },
                    }
                }
            }
            delay = ExponentialBackoff::new();
        }
        tokio::select! {
            changed = cni.changed() => if changed.is_err() { return },
            changed = failure.changed() => if changed.is_err() { return },
        }
    }
}

/// Writes the condition `Ready` of a Node.
async fn write_ready(nodes: &Api<Node>, name: &str, ready: &Value) -> kube::Result<()> {
    let mut ready = ready.clone();
    ready["lastTransitionTime"] = now();
    ready["lastHeartbeatTime"] = now();
    // A strategic merge patch merges conditions by type, and leaves the others unchanged.
    let patch = json!({"status": {"conditions": [ready]}});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}
