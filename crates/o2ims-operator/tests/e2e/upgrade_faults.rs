//! Upgrades on real servers that are disturbed: power cuts, programs that are killed, a management cluster that is away, and servers that cannot be
//! upgraded as they are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use o2ims_types::{ProvisioningState as State, names};
use sandbox::Stack;
use serde_json::json;
use testenv::servers::Server;
use testenv::{kubernetes_version, kubernetes_version_before};

use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Tenant, on_servers_of_two_versions};
use crate::servers::{INTO_PACKAGES, assert_clean};
use crate::support;
use crate::upgrades::{identities, request, retry, until_at, versions};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        on_servers_of_two_versions("an_upgrade_goes_on_after_every_power_cut", power_cuts).slow(),
        on_servers_of_two_versions("an_upgrade_goes_on_after_every_kill", kills).slow(),
        on_servers_of_two_versions("an_upgrade_goes_on_without_the_management_cluster", without_management).slow(),
        on_servers_of_two_versions("a_master_is_brought_back_to_its_snapshot", brought_back).slow(),
        on_servers_of_two_versions("what_a_server_lacks_for_an_upgrade_is_told", lacking).slow(),
        on_servers_of_two_versions("packages_are_fetched_before_an_upgrade", packages).slow(),
    ]
}

/// What a host's job writes down of itself.
const STATUS: &str = "var/lib/o2ims-jobs/status";
const API_SERVER: &str = "etc/kubernetes/manifests/kube-apiserver.yaml";
const ETCD: &str = "etc/kubernetes/manifests/etcd.yaml";

/// A moment of a job: a file of the server contains these words; or, without words, differs from what it was when the upgrade began.
type Moment = (&'static str, &'static str);

/// Every step of the upgrade of a master, and what kubeadm does in the third one.
const OF_A_MASTER: [Moment; 7] = [
    (STATUS, "1 of 5"),
    (STATUS, "2 of 5"),
    (STATUS, "3 of 5"),
    (ETCD, ""),
    (API_SERVER, ""),
    (STATUS, "4 of 5"),
    (STATUS, "5 of 5"),
];
/// Every step of the upgrade of a worker.
const OF_A_WORKER: [Moment; 5] =
    [(STATUS, "1 of 5"), (STATUS, "2 of 5"), (STATUS, "3 of 5"), (STATUS, "4 of 5"), (STATUS, "5 of 5")];

/// A file of a server, as it is now; nothing where there is none.
async fn file(server: &Server, path: &str) -> anyhow::Result<String> {
    let path = PathBuf::from(format!("/proc/{}/root/{path}", server.first_process().await?));
    Ok(std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
}

/// Waits until it is this moment on the server.
async fn until_moment(server: &Server, (path, words): Moment, before: &str) -> Outcome {
    let is_there = async {
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        loop {
            pace.tick().await;
            let now = file(server, path).await?;
            let is_now = if words.is_empty() { !now.is_empty() && now != before } else { now.contains(words) };
            if is_now {
                return Ok(());
            }
        }
    };
    let what = || format!("{path} of {} has not come to {words:?}", server.name());
    tokio::time::timeout(2 * CLUSTER, is_there).await.with_context(what)?
}

/// The kubelets' versions, as soon as the API of the cluster answers again.
async fn versions_later(tenant: &Tenant) -> anyhow::Result<BTreeMap<String, String>> {
    let answers = async {
        let mut pace = tokio::time::interval(Duration::from_millis(200));
        loop {
            if let Ok(versions) = versions(tenant).await {
                return versions;
            }
            pace.tick().await;
        }
    };
    tokio::time::timeout(CLUSTER, answers).await.context("the API of the cluster does not answer")
}

/// A cluster of the version before, of a master and a worker.
async fn cluster_of_before(stack: &mut Stack, namespace: &str) -> anyhow::Result<Tenant> {
    let tenant = Tenant::on_servers(stack, namespace, 2).await?;
    let from = kubernetes_version_before()?;
    tenant.apply(&request(&tenant, from, &[1], &[2]).await?).await?;
    until_at(&tenant, from).await?;
    Ok(tenant)
}

/// Asks for the upgrade.
async fn begin(tenant: &Tenant) -> Outcome {
    tenant.apply(&request(tenant, kubernetes_version(), &[1], &[2]).await?).await?;
    Ok(())
}

/// Waits until the cluster is as an undisturbed upgrade leaves it, and deletes it.
pub async fn end(stack: &Stack, tenant: &Tenant, before: &BTreeMap<String, String>) -> Outcome {
    let to = kubernetes_version();
    until_at(tenant, to).await?;
    let now = versions(tenant).await?;
    ensure!(now.values().all(|version| version == to), "not all at {to}: {now:?}");
    let after = identities(tenant).await?;
    ensure!(*before == after, "replaced: before {before:?}, after {after:?}");
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    assert_clean(&stack.servers).await
}

/// The plug is pulled in every step, on the only master and on the worker. Nobody has to do more than to switch the servers on.
async fn power_cuts(stack: &mut Stack) -> Outcome {
    let tenant = cluster_of_before(stack, "cuts").await?;
    let before = identities(&tenant).await?;
    let (master, worker) = (stack.server(&tenant.host(1))?, stack.server(&tenant.host(2))?);
    let (etcd, api_server) = (file(master, ETCD).await?, file(master, API_SERVER).await?);
    begin(&tenant).await?;
    for (server, moments) in [(master, &OF_A_MASTER[..]), (worker, &OF_A_WORKER[..])] {
        for moment in moments {
            until_moment(server, *moment, if moment.0 == ETCD { &etcd } else { &api_server }).await?;
            server.power_off().await?;
            server.power_on().await?;
        }
    }
    end(stack, &tenant, &before).await
}

/// The job, the unit that runs it, BYOH's agent and the operator are killed in every step.
async fn kills(stack: &mut Stack) -> Outcome {
    const KILL: &str = "for unit in o2ims-host byoh-hostagent o2ims-job; do \
        systemctl kill --kill-who=all --signal=KILL $unit 2>/dev/null; done; true";
    let tenant = cluster_of_before(stack, "kills").await?;
    let before = identities(&tenant).await?;
    let old =
        (file(stack.server(&tenant.host(1))?, ETCD).await?, file(stack.server(&tenant.host(1))?, API_SERVER).await?);
    begin(&tenant).await?;
    let moments: [(u32, &[Moment]); 2] = [(1, &OF_A_MASTER), (2, &OF_A_WORKER)];
    for (number, moments) in moments {
        for moment in moments {
            let server = stack.server(&tenant.host(number))?;
            until_moment(server, *moment, if moment.0 == ETCD { &old.0 } else { &old.1 }).await?;
            server.run(&["bash", "-c", KILL]).await?;
            stack.crash_operator().await?;
        }
    }
    end(stack, &tenant, &before).await
}

/// The management cluster is away while a host is upgraded: the host goes on by itself, and the rest when it is back.
async fn without_management(stack: &mut Stack) -> Outcome {
    let tenant = cluster_of_before(stack, "absent").await?;
    let before = identities(&tenant).await?;
    begin(&tenant).await?;
    for number in [1, 2] {
        until_moment(stack.server(&tenant.host(number))?, (STATUS, "1 of 5"), "").await?;
        stack.operator.take().context("no operator")?.crash().await?;
        stack.management.shut_down().await?;
        until_moment(stack.server(&tenant.host(number))?, (STATUS, "runs Kubernetes"), "").await?;
        stack.management.start_again().await?;
        stack.start_operator().await?;
    }
    end(stack, &tenant, &before).await
}

/// A server that cannot be upgraded as it is stops the upgrade with the true cause, before anything is changed; and an etcd that does not start is
/// put back by kubeadm. What is mended is tried again at a word of the owner.
async fn lacking(stack: &mut Stack) -> Outcome {
    const SMALL: &str = "cp -a /etc/kubernetes /tmp/kept && mount -t tmpfs -o size=200m tmpfs /etc/kubernetes && cp -a /tmp/kept/. /etc/kubernetes";
    const ROOMY: &str = "umount /etc/kubernetes && rm -r /tmp/kept";
    let tenant = cluster_of_before(stack, "lacking").await?;
    let before = identities(&tenant).await?;
    let (master, worker) = (stack.server(&tenant.host(1))?, stack.server(&tenant.host(2))?);
    let (from, to) = (kubernetes_version_before()?, kubernetes_version());
    let files = format!("/opt/kubernetes/{to}");
    let shell = async |server: &Server, script: String| server.run(&["bash", "-c", &script]).await.map(drop);

    // A kubelet of another version on the master, no room and then no image on the worker.
    shell(master, format!("mv {files}/kubelet {files}/kept; printf '#!/bin/sh\\necho Kubernetes v1.30.0\\n' >{files}/kubelet; chmod 755 {files}/kubelet; mv /usr/bin/kubelet /usr/bin/kept")).await?;
    shell(worker, SMALL.to_owned()).await?;
    let proxy = format!("kube-proxy:{to}");
    let find = format!("ctr --namespace k8s.io images list --quiet | grep '/{proxy}$' | head -n 1");
    let image = worker.run(&["bash", "-c", &find]).await?.trim().to_owned();
    ensure!(!image.is_empty(), "the worker has no {proxy}");
    let others = master.node_processes().await?;
    begin(&tenant).await?;
    let told = format!(
        "the upgrade to {to} has not begun, and no host was changed: host 1 ({}): kubelet {to} is neither in {files} nor installed: put it into \
         {files}; host 2 ({}): only ",
        master.name(),
        worker.name()
    );
    let halted = tenant.until("request", State::Failed, &told, CLUSTER).await?;
    ensure!(
        halted
            .status
            .context("no status")?
            .provisioning_status
            .provisioning_message
            .contains("MiB are free in /etc/kubernetes")
    );
    let nodes = versions(&tenant).await?;
    ensure!(nodes.values().all(|version| version == from), "something was changed: {nodes:?}");
    ensure!(others == master.node_processes().await?, "something was restarted on the master");
    shell(master, format!("mv {files}/kept {files}/kubelet; mv /usr/bin/kept /usr/bin/kubelet")).await?;
    shell(worker, ROOMY.to_owned()).await?;
    shell(
        worker,
        format!(
            "ctr --namespace k8s.io images tag {image} localhost/kept && ctr --namespace k8s.io images remove {image}"
        ),
    )
    .await?;
    retry(&tenant, &told).await?;
    let told = format!(
        "host 2 ({}): these images are neither in containerd nor in {files}/images, and cannot be pulled: ",
        worker.name()
    );
    tenant.until("request", State::Failed, &told, 2 * CLUSTER).await?;
    shell(worker, format!("ctr --namespace k8s.io images tag localhost/kept {image}")).await?;

    // An etcd that ends at once: kubeadm puts the old one back.
    let find = format!("{files}/kubeadm config images list --kubernetes-version {to} 2>/dev/null | grep /etcd:");
    let etcd = master.run(&["bash", "-c", &find]).await?.trim().to_owned();
    shell(master, format!("ctr --namespace k8s.io images tag {etcd} localhost/kept-etcd && ctr --namespace k8s.io images tag --force {image} {etcd}")).await?;
    retry(&tenant, &told).await?;
    let told = format!("the upgrade to {to} has stopped at host 1 ({}): kubeadm upgrade apply: ", master.name());
    tenant.until("request", State::Failed, &told, 4 * CLUSTER).await?;
    let nodes = versions_later(&tenant).await?;
    ensure!(nodes.values().all(|version| version == from), "not put back: {nodes:?}");
    shell(master, format!("ctr --namespace k8s.io images tag --force localhost/kept-etcd {etcd}")).await?;
    retry(&tenant, &told).await?;
    end(stack, &tenant, &before).await
}

/// Kubernetes comes in packages. A version that the repository does not have is told before anything is changed, and a support bundle is made meanwhile. What a
/// host has fetched is enough for its upgrade, also after a power cut.
async fn packages(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "packed", 2).await?;
    let (master, worker) = (stack.server(&tenant.host(1))?, stack.server(&tenant.host(2))?);
    let (from, to) = (kubernetes_version_before()?, kubernetes_version());
    let pack = async |version: &str| {
        let script = INTO_PACKAGES.replace("VERSION", version.trim_start_matches('v'));
        for server in [master, worker] {
            server.run(&["bash", "-c", &script]).await?;
        }
        anyhow::Ok(())
    };
    let installer = json!({
        "source": "packages", "files": {"path": "/srv/nothing/VERSION"}, "packages": {"deb": "file:/srv/repository"},
    });
    tenant.template("packages", json!({"install": {"method": "installer", "installer": installer}})).await?;
    let at = async |version: &str| {
        let mut request = tenant.request_for("packages", "request", &[1], &[2]);
        request["spec"]["templateParameters"]["k8sVersion"] = json!(version);
        tenant.apply(&request).await.map(drop)
    };
    let shell = async |server: &Server, script: &str| server.run(&["bash", "-c", script]).await;
    for server in [master, worker] {
        shell(server, "rm /usr/bin/kube{let,adm}").await?;
    }
    pack(from).await?;
    at(from).await?;
    until_at(&tenant, from).await?;
    let before = identities(&tenant).await?;

    at(to).await?;
    let release = to.trim_start_matches('v');
    let told = format!(
        "the upgrade to {to} has not begun, and no host was changed: host 1 ({}): the packages of Kubernetes {to} cannot be fetched from \
         file:/srv/repository: E: Version '{release}-*' for 'kubelet' was not found",
        master.name()
    );
    tenant.until("request", State::Failed, &told, CLUSTER).await?;
    for server in [master, worker] {
        let runs = shell(server, "/usr/bin/kubelet --version").await?;
        ensure!(runs.trim() == format!("Kubernetes {from}"), "{} has {runs}", server.name());
    }
    support::are_made(&tenant, &[master, worker]).await?;
    tenant.until("request", State::Failed, &told, SOON).await?;
    pack(to).await?;
    retry(&tenant, &told).await?;
    until_moment(master, (STATUS, "3 of 5"), "").await?;
    for server in [master, worker] {
        shell(server, "rm -r /srv/repository").await?;
    }
    until_moment(master, (STATUS, "4 of 5"), "").await?;
    master.power_off().await?;
    master.power_on().await?;
    until_at(&tenant, to).await?;
    let state = "dpkg-query --show --showformat '${Version} ' kubelet kubeadm && apt-mark showhold | tr '\\n' ' '";
    for server in [master, worker] {
        let found = shell(server, state).await?;
        let wanted = format!("{release}-1.1 {release}-1.1 kubeadm kubelet");
        ensure!(found.trim() == wanted, "{} has {found}", server.name());
    }
    end(stack, &tenant, &before).await
}

/// A kubelet of the new version that ends at once leaves an only master whose control plane is new. Its owner brings it back to the snapshot, and upgrades it
/// later.
async fn brought_back(stack: &mut Stack) -> Outcome {
    let tenant = cluster_of_before(stack, "back").await?;
    let before = identities(&tenant).await?;
    let master = stack.server(&tenant.host(1))?;
    let (from, to) = (kubernetes_version_before()?, kubernetes_version());
    let files = format!("/opt/kubernetes/{to}");
    let shell = async |script: String| master.run(&["bash", "-c", &script]).await.map(drop);
    let kept =
        |name: &str| -> anyhow::Result<ConfigMap> { Ok(serde_json::from_value(json!({"metadata": {"name": name}}))?) };
    let maps: Api<ConfigMap> = Api::namespaced(tenant.workload("request").await?, "default");
    maps.create(&PostParams::default(), &kept("before")?).await?;
    shell(format!(
        "mv {files}/kubelet {files}/kept; printf '#!/bin/sh\\n[ \"$1\" = --version ] || exit 1\\necho Kubernetes {to}\\n' >{files}/kubelet; \
         chmod 755 {files}/kubelet"
    ))
    .await?;
    begin(&tenant).await?;
    let told = format!(
        "the upgrade to {to} has stopped at host 1 ({}): the node did not become Ready at {to} within 5 minutes",
        master.name()
    );
    let halted = tenant.until("request", State::Failed, &told, 4 * CLUSTER).await?;
    let message = halted.status.context("no status")?.provisioning_status.provisioning_message;
    let snapshot =
        message.split_once("/restore-snapshot=").and_then(|(_, rest)| rest.split(' ').next()).context("no way back")?;
    ensure!(file(master, API_SERVER).await?.contains(&format!(":{to}")), "the API server is not the new one");
    maps.create(&PostParams::default(), &kept("after")?).await?;

    let patch = json!({"metadata": {"annotations": {names::RESTORE_SNAPSHOT_ANNOTATION: snapshot}}});
    tenant.requests().patch("request", &PatchParams::default(), &Patch::Merge(patch)).await?;
    until_moment(master, (STATUS, "4 of 5"), "").await?;
    master.power_off().await?;
    master.power_on().await?;
    let told = format!(
        "host 1 ({}) was brought back to snapshot {snapshot}; set k8sVersion to {from}, or upgrade again: ",
        master.name()
    );
    tenant.until("request", State::Failed, &told, 2 * CLUSTER).await?;
    tenant.apply(&request(&tenant, from, &[1], &[2]).await?).await?;
    until_at(&tenant, from).await?;
    let maps = maps.list(&ListParams::default()).await?;
    let maps: Vec<_> = maps.iter().map(ResourceExt::name_any).filter(|name| name != "kube-root-ca.crt").collect();
    ensure!(maps == ["before"], "the ConfigMaps are {maps:?}");
    ensure!(before == identities(&tenant).await?, "something was replaced");

    shell(format!("mv {files}/kept {files}/kubelet")).await?;
    begin(&tenant).await?;
    end(stack, &tenant, &before).await
}
