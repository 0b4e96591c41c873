//! Real servers: systemd, containerd, kubelet, kubeadm and BYOH's agent, without any other network.

use cluster_api::Kind;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_api::byoh::ByoHost;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt as _};
use o2ims_operator::provisioner::byoh::marks::MarkedHost as _;
use o2ims_types::{ProvisioningState as State, names};
use sandbox::{Stack, inventory};
use serde_json::{Value, json};
use testenv::servers::Server;
use testenv::{ByohDialect, kubernetes_version};

use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Tenant, on_servers, wait};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        on_servers("servers_become_nodes_and_are_clean_again", come_and_go),
        on_servers("a_server_says_why_it_is_no_node", failures).slow(),
        on_servers("a_server_that_is_cut_off_halfway_goes_on_later", cut_off).slow(),
        on_servers("a_wrong_token_is_told", wrong_tokens).slow(),
        on_servers("kubernetes_comes_in_every_way_that_a_template_names", every_way).slow(),
        on_servers("three_masters_and_a_worker_come_and_go", four_come_and_go).slow(),
        on_servers("three_masters_share_an_address_and_one_is_cut_off", three_masters).slow(),
        on_servers("a_site_without_power_comes_back_by_itself", without_power).slow(),
        on_servers("dead_servers_are_given_up_and_come_back_clean", given_up).slow(),
        on_servers("a_health_check_mends_a_worker_and_spares_the_only_master", health_check).slow(),
    ]
}

/// The virtual address of several masters.
pub const ADDRESS: &str = "10.77.0.100";

/// What a cluster leaves on a server, one line each; nothing on a clean one.
const REMAINS: &str = r#"
set -euo pipefail
# What does not work finds nothing.
systemctl is-active --quiet containerd
rules=$(iptables-save && ip6tables-save)
tables=$(nft list tables)
ports=$(ss -Hltn)
routes=$(ip route)
containers=$(ctr --namespace k8s.io containers list --quiet)
set +e
[ -z "$containers" ] || echo "containers $containers"
for path in /etc/kubernetes /run/kubeadm /var/lib/cni /usr/local/sbin/kubeadm /usr/local/sbin/o2ims-host /var/lib/o2ims-jobs /var/lib/o2ims-snapshots /var/lib/o2ims-packages /var/lib/o2ims-support; do [ ! -e "$path" ] || echo "$path"; done
for folder in /var/lib/etcd /var/lib/kubelet /etc/cni/net.d /var/log/pods; do
    [ -z "$(ls -A "$folder" 2>/dev/null)" ] || echo "$folder: $(ls -A "$folder" | tr '\n' ' ')"
done
! systemctl is-active --quiet kubelet || echo 'the kubelet runs'
! systemctl is-active --quiet kubepods.slice || echo 'control groups of the kubelet'
ip -brief link | grep -vE '^(lo|eth0)[@ ]' | sed 's/^/card /'
ip -brief address show dev eth0 | grep -o '[0-9.]*/32' | sed 's/^/address /'
echo "$routes" | grep -vE '^(default|10\.77\.0\.0/24) ' | sed 's/^/route /'
echo "$rules" | grep -E 'KUBE-|CNI-' | head -n 3
echo "$tables" | grep kube-proxy
echo "$ports" | awk '{print $4}' | grep -E ':(2379|2380|6443|10250|10256|10257|10259)$' | sed 's/^/port /'
mount | grep -E '/var/lib/kubelet/|/run/netns/' | sed 's/^/mount /'
true
"#;

pub async fn assert_clean(servers: &[Arc<Server>]) -> Outcome {
    for server in servers {
        assert_server_clean(server).await?;
    }
    Ok(())
}

async fn assert_server_clean(server: &Server) -> Outcome {
    let remains = server.run(&["bash", "-c", REMAINS]).await?;
    ensure!(remains.is_empty(), "on {} is left:\n{remains}", server.name());
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

/// A server that is somebody's node already is refused, and is as it was when the request is gone.
async fn foreign_node(stack: &Stack, tenant: &Tenant) -> Outcome {
    let server = stack.server(&tenant.host(3))?;
    let files = "/etc/kubernetes/kubelet.conf /var/lib/kubelet/kept /var/lib/etcd/member/wal";
    let all = |command: &str| {
        format!("set -e; mkdir -p /etc/kubernetes /var/lib/etcd/member; for file in {files}; do {command} $file; done")
    };
    server.run(&["bash", "-c", &all("touch")]).await?;
    tenant.apply(&tenant.request("foreign", "foreign", &[3], &[])).await?;
    let told =
        format!("host 3 ({}): installation of Kubernetes failed: the host is a Kubernetes node already", server.name());
    tenant.until("foreign", State::Progressing, &told, CLUSTER).await?;
    tenant.delete("foreign").await?;
    tenant.until_gone("foreign", CLUSTER).await?;
    server.run(&["bash", "-c", &all("ls")]).await?;
    server.run(&["bash", "-c", &all("rm")]).await?;
    server.run(&["rm", "-r", "/etc/kubernetes", "/var/lib/etcd/member"]).await?;
    Ok(())
}

/// What goes wrong on a server is told in the words of the program that failed, and forgotten when it is mended.
async fn failures(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "faults", 3).await?;
    foreign_node(stack, &tenant).await?;
    let server = |number: u32| stack.server(&tenant.host(number));
    let told = |number: u32, words: &str| format!("host {number} ({}): {words}", tenant.host(number));

    // A port that kubeadm needs on the master; no room, and then another version, on the worker.
    let (master, worker) = (server(1)?, server(2)?);
    worker.run(&["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", "/var/lib/kubelet"]).await?;
    master.run(&["systemd-run", "--unit=thief", "nc", "-lk", "6443"]).await?;
    worker.run(&["bash", "-c", "mv /usr/bin/kubelet /usr/bin/kubelet.real; printf '#!/bin/sh\\necho Kubernetes v1.30.0\\n' >/usr/bin/kubelet; chmod 755 /usr/bin/kubelet"]).await?;
    tenant.apply(&tenant.request("request", "faults", &[1], &[2])).await?;
    let words = "bootstrap failed: kubeadm init: [ERROR Port-6443]: Port 6443 is in use";
    tenant.until("request", State::Progressing, &told(1, words), CLUSTER).await?;
    master.run(&["systemctl", "stop", "thief"]).await?;
    let words =
        "installation of Kubernetes failed: only 200 MiB are free in /var/lib/kubelet; Kubernetes needs at least 1024";
    tenant.until("request", State::Progressing, &told(2, words), CLUSTER).await?;
    worker.run(&["umount", "/var/lib/kubelet"]).await?;
    let words = format!(
        "installation of Kubernetes failed: kubelet v1.30.0 is installed, {} was asked for",
        kubernetes_version()
    );
    tenant.until("request", State::Progressing, &told(2, &words), CLUSTER).await?;
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

/// Returns when a program with these arguments runs on the server.
async fn until_runs(server: &Server, arguments: &str) -> Outcome {
    let look =
        format!("timeout 120 bash -c 'until pgrep --full \"^[^ ]*{arguments}\" >/dev/null; do sleep 0.02; done'");
    server.run(&["bash", "-c", &look]).await.with_context(|| format!("{arguments} was not seen"))?;
    Ok(())
}

/// Power is cut while kubeadm runs, on the master and on the worker, and the worker's agent is stopped before: each is told
/// by name and fails the request at its deadline, and nobody has to do more than to switch it on again.
async fn cut_off(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "halfway", 2).await?;
    let (master, worker) = (stack.server(&tenant.host(1))?, stack.server(&tenant.host(2))?);
    tenant.template("short", json!({"timeouts": {"controlPlane": "20s", "workers": "10s"}})).await?;
    let heartbeat = stack.management.byoh_dialect() == Some(ByohDialect::Platform9);
    let told = if heartbeat { "is not alive: HeartbeatTimeout" } else { "its agent has been given the" };
    let silent = |number: u32| format!("host {number} ({}): {told}", tenant.host(number));

    tenant.apply(&tenant.request_for("short", "request", &[1], &[2])).await?;
    until_runs(master, "kubeadm init").await?;
    master.power_off().await?;
    worker.run(&["systemctl", "stop", "byoh-hostagent"]).await?;
    tenant.until("request", State::Failed, &silent(1), CLUSTER).await?;
    master.power_on().await?;

    tenant.until("request", State::Failed, &silent(2), CLUSTER).await?;
    worker.run(&["systemctl", "start", "byoh-hostagent"]).await?;
    until_runs(worker, "kubeadm join").await?;
    // What is told stays: upstream's agent reports once, at the end.
    worker.power_off().await?;
    worker.power_on().await?;

    tenant.until("request", State::Fulfilled, "1 master, 1 worker", CLUSTER).await?;
    assert_dns(&tenant, "request", worker.name()).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    assert_clean(&stack.servers).await
}

fn token_in(text: &str) -> anyhow::Result<&str> {
    text.split_once("token: ").and_then(|(_, rest)| rest.split_whitespace().next()).context("no token")
}

/// Two kinds of bootstrap tokens can be wrong: the agent's, so that there is no host, and kubeadm's, so that it cannot join.
async fn wrong_tokens(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "token", 1).await?;
    let name = tenant.namespace.clone();
    let worker = stack.rack_up(&name, &name, 2..=2, false).await?.remove(0);
    let right = stack.management.bootstrap_kubeconfig(&name, worker.name()).await?;
    let token = token_in(&right)?;
    let (id, _) = token.split_once('.').context("no token id")?;
    worker.write("etc/byoh/bootstrap.conf", &right.replace(token, &format!("{id}.0123456789abcdef"))).await?;
    worker.power_on().await?;
    tenant.apply(&tenant.request("request", "token", &[1], &[2])).await?;
    let told = format!("host 2 ({}) is not registered in namespace {name}", worker.name());
    tenant.until("request", State::Pending, &told, SOON).await?;
    // The cause is where the runbook sends people.
    let cause =
        "timeout 60 bash -c 'until journalctl --unit byoh-hostagent | grep -q Unauthorized; do sleep 0.5; done'";
    worker.run(&["bash", "-c", cause]).await?;
    worker.power_off().await?;
    worker.write("etc/byoh/bootstrap.conf", &right).await?;
    worker.power_on().await?;
    tenant.until("request", State::Progressing, "", CLUSTER).await?;

    // kubeadm looks for its token for five minutes, by its own default.
    worker.run(&["systemctl", "stop", "byoh-hostagent"]).await?;
    let has_script = |host: Option<&ByoHost>| host.is_some_and(|host| host.spec.bootstrap_secret.is_some());
    let host = wait(tenant.byohosts(), worker.name(), "a bootstrap script", CLUSTER, has_script).await?;
    let secret = host.and_then(|host| host.spec.bootstrap_secret).context("no bootstrap script")?.name;
    let secrets: Api<Secret> = Api::namespaced(stack.management.admin(), &name);
    let script = secrets.get(&secret).await?.data.and_then(|mut data| data.remove("value")).context("no script")?;
    let script = String::from_utf8(script.0)?;
    let token = token_in(&script)?;
    let put = async |text: String| {
        let patch = json!({"data": {"value": k8s_openapi::ByteString(text.into_bytes())}});
        secrets.patch(&secret, &PatchParams::default(), &Patch::Merge(patch)).await
    };
    put(script.replace(token, "aaaaaa.0123456789abcdef")).await?;
    worker.run(&["systemctl", "start", "byoh-hostagent"]).await?;
    let told = format!("host 2 ({}): bootstrap failed: kubeadm join: ", worker.name());
    let failed = tenant.until("request", State::Progressing, &told, 2 * CLUSTER).await?;
    let message = failed.status.context("no status")?.provisioning_status.provisioning_message;
    ensure!(message.contains("couldn't validate the identity of the API Server"), "{message}");
    put(script.clone()).await?;
    // Or else it comes to that only when kubeadm has waited another five minutes.
    worker.run(&["systemctl", "restart", "byoh-hostagent"]).await?;
    tenant.until("request", State::Fulfilled, "1 master, 1 worker", 3 * CLUSTER).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    assert_clean(&stack.servers).await
}

/// Makes Debian packages of kubelet and kubeadm, and puts them into a repository, which nobody has signed. VERSION stands for
/// their version.
pub const INTO_PACKAGES: &str = r#"
set -euo pipefail
mkdir -p /srv/repository
cd /srv/repository
for program in kubelet kubeadm; do
    mkdir -p "/tmp/$program/DEBIAN" "/tmp/$program/usr/bin"
    cp "/opt/kubernetes/vVERSION/$program" "/tmp/$program/usr/bin/"
    cat >"/tmp/$program/DEBIAN/control" <<END
Package: $program
Version: VERSION-1.1
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: for a test
END
    dpkg-deb --build -Znone "/tmp/$program" "$program-VERSION.deb" >/dev/null
    cat >>Packages <<END
$(dpkg-deb --field "$program-VERSION.deb")
Filename: ./$program-VERSION.deb
Size: $(stat -c %s "$program-VERSION.deb")
SHA256: $(sha256sum "$program-VERSION.deb" | cut -d ' ' -f 1)

END
    rm -r "/tmp/$program"
done
cat >/etc/apt/apt.conf.d/unsigned <<END
Acquire::AllowInsecureRepositories "true";
APT::Get::AllowUnauthenticated "true";
END
"#;

/// Side by side, a cluster of one server for each way.
async fn every_way(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "ways", 3).await?;
    stack.power_on("ways", "ways", 4..=4, true).await?;
    let installer = |source: Value| json!({"install": {"method": "installer", "installer": source}});
    tenant.template("files", installer(json!({"source": "files"}))).await?;
    let packages = json!({"source": "packages", "packages": {"deb": "file:/srv/repository"}});
    tenant.template("packages", installer(packages)).await?;
    let bundle = json!({"method": "bundle", "bundle": {"repo": "registry.invalid/byoh"}});
    tenant.template("bundle", json!({"install": bundle})).await?;
    tenant.template("none", json!({"install": {"method": "none"}})).await?;
    let server = |number: u32| stack.server(&tenant.host(number));
    server(1)?.run(&["bash", "-c", "rm /usr/bin/kube{let,adm,ctl}"]).await?;
    let into_packages = INTO_PACKAGES.replace("VERSION", kubernetes_version().trim_start_matches('v'));
    server(2)?.run(&["bash", "-c", &format!("rm /usr/bin/kube{{let,adm}}\n{into_packages}")]).await?;
    let ways = [("files", 1), ("packages", 2), ("bundle", 3), ("none", 4)];
    for (way, number) in ways {
        tenant.apply(&tenant.request_for(way, way, &[number], &[])).await?;
    }
    // There are no bundles for the servers' system.
    let (state, told) = match stack.management.byoh_dialect() {
        Some(ByohDialect::Platform9) => {
            (State::Progressing, format!("host 3 ({}): its agent waits for BYOH's install script", tenant.host(3)))
        }
        _ => (State::Pending, "ClusterTemplate bundle-v1: install.method bundle does not work".to_owned()),
    };
    tenant.until("bundle", state, &told, CLUSTER).await?;
    for way in ["files", "packages", "none"] {
        tenant.until(way, State::Fulfilled, "1 master, 0 workers", 2 * CLUSTER).await?;
    }
    for (way, _) in ways {
        tenant.delete(way).await?;
    }
    for (way, _) in ways {
        tenant.until_gone(way, CLUSTER).await?;
    }
    tenant.assert_hosts_free().await?;
    // Without an installer nobody cleans; the next bootstrap fails, resets, and succeeds.
    let cleaned: Vec<_> = stack.servers.iter().filter(|server| server.name() != tenant.host(4)).cloned().collect();
    assert_clean(&cleaned).await?;
    // A link to kubeadm stays, which the agent may still need, until the next installation.
    let left = "compgen -G '/usr/local/bin/kube[!a]*'; compgen -G '/etc/apt/sources.list.d/o2ims*'; true";
    for number in [1, 2] {
        let left = server(number)?.run(&["bash", "-c", left]).await?;
        ensure!(left.is_empty(), "on {} is left:\n{left}", tenant.host(number));
    }
    // `/usr/bin` has links to what is in there.
    let folder = format!("/opt/kubernetes/{}", kubernetes_version());
    let other = format!("cp {folder}/* /usr/bin/ && printf '#!/bin/sh\\necho v1.30.0\\n' >{folder}/kubeadm");
    server(1)?.run(&["bash", "-c", &other]).await?;
    tenant.apply(&tenant.request("preinstalled", "preinstalled", &[1], &[])).await?;
    tenant.apply(&tenant.request_for("none", "again", &[4], &[])).await?;
    for name in ["preinstalled", "again"] {
        tenant.until(name, State::Fulfilled, "1 master, 0 workers", CLUSTER).await?;
        tenant.delete(name).await?;
        tenant.until_gone(name, CLUSTER).await?;
    }
    Ok(())
}

/// The shortest way of a cluster with several masters, which is run with every version of Kubernetes.
async fn four_come_and_go(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "four", 4).await?;
    four_are_ready(&tenant, "four").await?;
    let nodes = Api::<Node>::all(tenant.workload("four").await?).list(&ListParams::default()).await?;
    let kubelet = |node: &Node| node.status.as_ref()?.node_info.as_ref().map(|info| info.kubelet_version.clone());
    let kubelets: Vec<_> = nodes.iter().filter_map(kubelet).collect();
    ensure!(kubelets == vec![kubernetes_version(); 4], "the kubelets are {kubelets:?}");
    assert_dns(&tenant, "four", &tenant.host(4)).await?;
    // The super admin's kubeconfig may be taken off the first master: nothing uses it any more.
    for server in stack.servers.iter().take(3) {
        let used = ["sh", "-c", "grep -l super-admin /etc/kubernetes/manifests/* || true"];
        ensure!(server.run(&used).await?.is_empty(), "{} uses the super admin's kubeconfig", server.name());
    }
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    assert_clean(&stack.servers).await
}

/// Applies a request for three masters behind [`ADDRESS`] and a worker, and waits until it is fulfilled.
async fn four_are_ready(tenant: &Tenant, cluster: &str) -> anyhow::Result<Value> {
    let mut request = tenant.request("request", cluster, &[1, 2, 3], &[4]);
    request["spec"]["templateParameters"]["controlPlaneEndpoint"] = json!({"host": ADDRESS});
    tenant.apply(&request).await?;
    tenant.until("request", State::Fulfilled, "3 masters, 1 worker", 2 * CLUSTER).await?;
    Ok(request)
}

/// The server that has [`ADDRESS`] now.
pub async fn holder_of_address(stack: &Stack) -> anyhow::Result<&Arc<Server>> {
    let mut holder = None;
    for server in &stack.servers {
        if server.run(&["ip", "-brief", "address", "show", "dev", "eth0"]).await?.contains(&format!("{ADDRESS}/32")) {
            holder = Some(server);
        }
    }
    holder.context("nobody has the address")
}

async fn three_masters(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "ha", 4).await?;
    let request = four_are_ready(&tenant, "ha").await?;
    let holder = holder_of_address(stack).await?;
    // An agent that is started again reports the address among the host's own. A cluster that runs is not judged by that.
    let before = holder.node_processes().await?;
    holder.run(&["systemctl", "restart", "byoh-hostagent"]).await?;
    let reports =
        |host: Option<&ByoHost>| host.is_some_and(|host| host.addresses().iter().any(|own| own.to_string() == ADDRESS));
    wait(tenant.byohosts(), holder.name(), "the agent to report the virtual address", SOON, reports).await?;
    let mut smaller = request.clone();
    smaller["spec"]["templateParameters"]["hosts"]["workers"] = json!([]);
    tenant.apply(&smaller).await?;
    tenant.until("request", State::Fulfilled, "cluster is ready: 3 masters, 0 workers", CLUSTER).await?;
    tenant.until_host_free(4).await?;
    tenant.apply(&request).await?;
    tenant.until("request", State::Fulfilled, "3 masters, 1 worker", CLUSTER).await?;
    ensure!(before.is_subset(&holder.node_processes().await?), "on {} something was started anew", holder.name());
    holder.power_off().await?;
    // The API is carried on by another one, and the request says whose node is gone.
    let told = format!("({}): its node is not Ready", holder.name());
    tenant.until("request", State::Fulfilled, &told, CLUSTER).await?;
    let answers = async {
        while tenant.ready_nodes("ha").await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(CLUSTER, answers).await.context("nobody answers at the address")?;
    holder.power_on().await?;
    // Cluster API looks again at a master that it could not judge at its next resync, which may be ten minutes away.
    tenant.until_healthy("request", 3 * CLUSTER).await?;

    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    assert_clean(&stack.servers).await
}

/// A master loses its power while it joins etcd, and later the whole site does. Nobody has to do more than to switch the
/// servers on.
async fn without_power(stack: &mut Stack) -> Outcome {
    const JOINS: &str = "timeout 480 bash -c 'until pgrep --full \"^[^ ]*kubeadm join\" >/dev/null && \
        test -e /etc/kubernetes/manifests/etcd.yaml; do sleep 0.1; done'";
    let tenant = Tenant::on_servers(stack, "power", 4).await?;
    tenant.template("strict", json!({"timeouts": {"unreachable": "0s"}})).await?;
    let mut request = tenant.request("request", "power", &[1, 2, 3], &[4]);
    request["spec"]["templateName"] = json!("strict");
    request["spec"]["templateVersion"] = json!("v1");
    request["spec"]["templateParameters"]["controlPlaneEndpoint"] = json!({"host": ADDRESS});
    tenant.apply(&request).await?;
    // Which master is the first one, which does not join, is Cluster API's choice.
    let masters = [1, 2, 3].map(|number| stack.server(&tenant.host(number)));
    let joins = masters.into_iter().map(|server| {
        Box::pin(async move {
            let server = server?;
            server.run(&["bash", "-c", JOINS]).await?;
            anyhow::Ok(server)
        })
    });
    let (joining, _) = futures::future::select_ok(joins).await.context("no master was seen to join")?;
    joining.power_off().await?;
    joining.power_on().await?;
    let ready = "cluster is ready: 3 masters, 1 worker";
    tenant.until("request", State::Fulfilled, ready, 4 * CLUSTER).await?;

    futures::future::try_join_all(stack.servers.iter().map(|server| server.power_off())).await?;
    // The last master comes later than the others, which are enough for etcd.
    let (late, others) = stack.servers.split_at(1);
    futures::future::try_join_all(others.iter().map(|server| server.power_on())).await?;
    let without_it = async {
        // A node counts as Ready until the control plane, which was off too, has missed its heartbeats.
        while tenant.ready_nodes("power").await.ok().is_none_or(|nodes| nodes.len() != others.len()) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(2 * CLUSTER, without_it).await.context("the others have not come back")?;
    let told = format!("({}): its node is not Ready", late[0].name());
    tenant.until("request", State::Progressing, &told, 2 * CLUSTER).await?;
    late[0].power_on().await?;
    tenant.until("request", State::Fulfilled, ready, 2 * CLUSTER).await?;
    assert_dns(&tenant, "power", &tenant.host(4)).await?;

    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    assert_clean(&stack.servers).await
}

/// The way of "It does not come back" in docs/o2ims-operator.md: a worker that is taken out, then the only master of a request that is deleted.
async fn given_up(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "dead", 2).await?;
    let before = tenant.inventory().await?;
    let (master, worker) = (stack.server(&tenant.host(1))?, stack.server(&tenant.host(2))?);
    tenant.apply(&tenant.request("request", "site", &[1], &[2])).await?;
    tenant.until("request", State::Fulfilled, "1 master, 1 worker", CLUSTER).await?;
    worker.power_off().await?;
    let told = format!("host 2 ({}): its node is not Ready since ", worker.name());
    tenant.until("request", State::Fulfilled, &told, CLUSTER).await?;
    tenant.apply(&tenant.request("request", "site", &[1], &[])).await?;
    tenant.call_lost("request", worker.name()).await?;
    tenant.until("request", State::Fulfilled, "cluster is ready: 1 master, 0 workers", CLUSTER).await?;
    ensure!(tenant.byohosts().get(worker.name()).await?.was_given_up(), "the host is not given up");
    worker.power_on().await?;
    tenant.until_host_free(2).await?;
    assert_server_clean(worker).await?;

    master.power_off().await?;
    tenant.delete("request").await?;
    tenant.call_lost("request", master.name()).await?;
    tenant.until_gone("request", CLUSTER).await?;
    ensure!(tenant.byohosts().get(master.name()).await?.was_given_up(), "the host is not given up");
    master.power_on().await?;
    tenant.until_host_free(1).await?;
    tenant.until_unmarked().await?;
    assert_clean(&stack.servers).await?;
    tenant.until_as_before(&before).await
}

/// A MachineHealthCheck of the cluster's owner. A worker that stays away is made anew on its own server, as that is the only one it may
/// have; an only master is not, as etcd would go with it.
async fn health_check(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "checked", 2).await?;
    let ready = "cluster is ready: 1 master, 1 worker";
    tenant.apply(&tenant.request("request", "site", &[1], &[2])).await?;
    tenant.until("request", State::Fulfilled, ready, CLUSTER).await?;
    let machine_on = async |number: u32| {
        let machines = inventory::of_kind(stack.management.admin(), &tenant.namespace, Kind::Machine);
        let machines = machines.list(&ListParams::default()).await?;
        let host = tenant.host(number);
        let found = machines.iter().find(|machine| machine.data["status"]["nodeRef"]["name"] == host.as_str());
        found.map(kube::ResourceExt::name_any).with_context(|| format!("no Machine is the node {host}"))
    };
    let (master, worker) = (machine_on(1).await?, machine_on(2).await?);
    let unhealthy = ["Unknown", "False"].map(|status| json!({"type": "Ready", "status": status, "timeoutSeconds": 10}));
    let check = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineHealthCheck",
        "metadata": {"name": "site", "namespace": tenant.namespace},
        "spec": {
            "clusterName": "site", "selector": {"matchLabels": {"cluster.x-k8s.io/cluster-name": "site"}},
            "checks": {"unhealthyNodeConditions": unhealthy}, "remediation": {"triggerIf": {"unhealthyLessThanOrEqualTo": "100%"}},
        },
    });
    stack.management.apply_yaml(&check.to_string()).await?;

    let server = stack.server(&tenant.host(2))?;
    server.power_off().await?;
    let machines = inventory::of_kind(stack.management.admin(), &tenant.namespace, Kind::Machine);
    let gone = |machine: Option<&DynamicObject>| machine.is_none();
    wait(machines.clone(), &worker, "the worker's Machine to go", CLUSTER, gone).await?;
    // The request says what happens.
    let told = format!("host 2 ({}): is being cleaned by its agent", tenant.host(2));
    tenant.until("request", State::Progressing, &told, SOON).await?;
    server.power_on().await?;
    tenant.until("request", State::Fulfilled, ready, CLUSTER).await?;
    ensure!(machine_on(2).await? != worker, "the worker is the old one");

    // With its power cut, nobody could ask the cluster's API how its node is.
    let server = stack.server(&tenant.host(1))?;
    server.run(&["systemctl", "stop", "kubelet"]).await?;
    let is_unhealthy = |machine: Option<&DynamicObject>| {
        let conditions = machine.and_then(|machine| machine.data["status"]["conditions"].as_array().cloned());
        conditions.into_iter().flatten().any(|condition| {
            condition["type"] == "OwnerRemediated" && condition["message"].as_str().is_some_and(|why| !why.is_empty())
        })
    };
    wait(machines.clone(), &master, "the master's mending to be refused", CLUSTER, is_unhealthy).await?;
    server.run(&["systemctl", "start", "kubelet"]).await?;
    tenant.until("request", State::Fulfilled, ready, 2 * CLUSTER).await?;
    ensure!(machine_on(1).await? == master, "the only master was made anew");

    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    assert_clean(&stack.servers).await
}
