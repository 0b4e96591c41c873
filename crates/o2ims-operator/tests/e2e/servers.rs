//! Real servers: systemd, containerd, kubelet, kubeadm and BYOH's agent, without any other network.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use o2ims_types::{ProvisioningState as State, names};
use sandbox::Stack;
use serde_json::json;
use testenv::servers::Server;

use crate::harness::{CLUSTER, Outcome, Scenario, Tenant, wait};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::on_servers("servers_become_nodes_and_are_clean_again", come_and_go),
        Scenario::on_servers("a_server_says_why_it_is_no_node", failures).slow(),
        Scenario::on_servers("three_masters_share_an_address_and_one_is_cut_off", three_masters).slow(),
    ]
}

/// What a cluster leaves on a server, one line each; nothing on a clean one.
const REMAINS: &str = r#"
set -euo pipefail
# What does not work finds nothing.
systemctl is-active --quiet containerd
rules=$(iptables-save; ip6tables-save) tables=$(nft list tables) ports=$(ss -Hltn) routes=$(ip route)
containers=$(ctr --namespace k8s.io containers list --quiet)
set +e
[ -z "$containers" ] || echo "containers $containers"
for path in /etc/kubernetes /run/kubeadm /var/lib/cni /usr/local/sbin/kubeadm; do [ ! -e "$path" ] || echo "$path"; done
for folder in /var/lib/etcd /var/lib/kubelet /etc/cni/net.d /var/log/pods; do
    [ -z "$(ls -A "$folder" 2>/dev/null)" ] || echo "$folder: $(ls -A "$folder" | tr '\n' ' ')"
done
! systemctl is-active --quiet kubelet || echo 'the kubelet runs'
ip -brief link | grep -vE '^(lo|eth0)[@ ]' | sed 's/^/card /'
ip -brief address show dev eth0 | grep -o '[0-9.]*/32' | sed 's/^/address /'
echo "$routes" | grep -vE '^(default|10\.77\.0\.0/24) ' | sed 's/^/route /'
echo "$rules" | grep -E 'KUBE-|CNI-' | head -n 3
echo "$tables" | grep kube-proxy
echo "$ports" | awk '{print $4}' | grep -E ':(2379|2380|6443|10250|10256|10257|10259)$' | sed 's/^/port /'
mount | grep -E '/var/lib/kubelet/|/run/netns/' | sed 's/^/mount /'
true
"#;

async fn assert_clean(servers: &[Arc<Server>]) -> Outcome {
    for server in servers {
        let remains = server.run(&["bash", "-c", REMAINS]).await?;
        ensure!(remains.is_empty(), "on {} is left:\n{remains}", server.name());
    }
    Ok(())
}

/// A pod on this node looks the API's own name up, which takes the pod network, kube-proxy and the cluster's DNS.
async fn assert_dns(tenant: &Tenant, cluster: &str, node: &str) -> Outcome {
    let pods: Api<Pod> = Api::namespaced(tenant.workload(cluster).await?, "default");
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "probe"},
        "spec": {
            "nodeName": node,
            "restartPolicy": "OnFailure",
            "containers": [{
                "name": "probe", "image": "localhost/probe:1", "imagePullPolicy": "Never",
                "args": ["kubernetes.default.svc.cluster.local"],
            }],
        }
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
    let succeeded = |pod: Option<&Pod>| pod.and_then(phase).is_some_and(|phase| phase == "Succeeded");
    wait(pods, "probe", "a pod to resolve a name of the cluster", CLUSTER, succeeded).await?;
    Ok(())
}

async fn come_and_go(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "rack", 3).await?;
    let before = tenant.inventory().await?;
    // The same servers again in other roles: nothing of the former cluster may be in the way.
    for (cluster, masters, workers) in [("core", [1], [2]), ("edge", [2], [3])] {
        tenant.apply(&tenant.request("request", cluster, &masters, &workers)).await?;
        tenant.until("request", State::Fulfilled, "1 master, 1 worker", CLUSTER).await?;
        let mut nodes = [tenant.host(masters[0]), tenant.host(workers[0])];
        nodes.sort();
        ensure!(tenant.ready_nodes(cluster).await? == nodes, "not the nodes {nodes:?}");
        assert_dns(&tenant, cluster, &tenant.host(workers[0])).await?;
        tenant.delete("request").await?;
        tenant.until_gone("request", CLUSTER).await?;
        tenant.assert_hosts_free().await?;
        assert_clean(&stack.servers).await?;
        tenant.until_as_before(&before).await?;
    }
    Ok(())
}

/// What goes wrong on a server is told in the words of the program that failed, and forgotten when it is mended.
async fn failures(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "faults", 2).await?;
    let server = |number: u32| stack.server(&tenant.host(number));
    let told = |number: u32, words: &str| format!("host {number} ({}): {words}", tenant.host(number));

    // A port that kubeadm needs on the master; another version on the worker.
    let (master, worker) = (server(1)?, server(2)?);
    master.run(&["systemd-run", "--unit=thief", "nc", "-lk", "6443"]).await?;
    worker.run(&["bash", "-c", "mv /usr/bin/kubelet /usr/bin/kubelet.real; printf '#!/bin/sh\\necho Kubernetes v1.30.0\\n' >/usr/bin/kubelet; chmod 755 /usr/bin/kubelet"]).await?;
    tenant.apply(&tenant.request("request", "faults", &[1], &[2])).await?;
    let words = "bootstrap failed: kubeadm init: [ERROR Port-6443]: Port 6443 is in use";
    tenant.until("request", State::Progressing, &told(1, words), CLUSTER).await?;
    master.run(&["systemctl", "stop", "thief"]).await?;
    let words = "installation of Kubernetes failed: kubelet v1.30.0 is installed, v1.33.13 was asked for";
    tenant.until("request", State::Progressing, &told(2, words), CLUSTER).await?;
    worker.run(&["mv", "/usr/bin/kubelet.real", "/usr/bin/kubelet"]).await?;
    tenant.until("request", State::Fulfilled, "", 2 * CLUSTER).await?;
    for host in tenant.byohosts().list(&ListParams::default()).await? {
        ensure!(!host.annotations().contains_key(names::FAILURE_ANNOTATION), "{} still tells of it", host.name_any());
    }

    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    assert_clean(&stack.servers).await
}

async fn three_masters(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "ha", 4).await?;
    let mut request = tenant.request("request", "ha", &[1, 2, 3], &[4]);
    let address = "10.77.0.100";
    request["spec"]["templateParameters"]["controlPlaneEndpoint"] = json!({"host": address});
    tenant.apply(&request).await?;
    tenant.until("request", State::Fulfilled, "3 masters, 1 worker", 2 * CLUSTER).await?;
    let mut holder = None;
    for server in &stack.servers {
        if server.run(&["ip", "-brief", "address", "show", "dev", "eth0"]).await?.contains(&format!("{address}/32")) {
            holder = Some(server);
        }
    }
    let holder = holder.context("nobody has the address")?;
    holder.power_off().await?;
    // The API is carried on by another one, and the request says whose node is gone.
    let told = format!("({}): its node is not Ready", holder.name());
    tenant.until("request", State::Progressing, &told, CLUSTER).await?;
    let answers = async {
        while tenant.ready_nodes("ha").await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(CLUSTER, answers).await.context("nobody answers at the address")?;
    holder.power_on().await?;
    tenant.until("request", State::Fulfilled, "3 masters, 1 worker", CLUSTER).await?;

    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    assert_clean(&stack.servers).await
}
