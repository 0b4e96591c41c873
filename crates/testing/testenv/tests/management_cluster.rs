//! The management cluster: everything works, and nothing is left after its end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test they are the message")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::ApiResource;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Config};
use serde_json::json;
use testenv::tools::{Tool, tool};
use testenv::{Authority, ByohDialect, ManagementCluster, Options, WorkloadApi, versions};
use tokio::sync::Mutex;

/// One test at a time, because BYOH's manager listens on a fixed port of this network namespace.
static TURN: Mutex<()> = Mutex::const_new(());
const DEADLINE: Duration = Duration::from_secs(60);
const OPERATOR: &str = "system:serviceaccount:o2ims-system:o2ims-operator";

/// Polls until the condition has a value.
async fn within<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(started.elapsed() < DEADLINE, "not within {} s: {what}", DEADLINE.as_secs());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

#[tokio::test]
async fn a_management_cluster_is_complete_and_leaves_nothing() {
    let _turn = TURN.lock().await;
    // In a task of its own, because a management cluster must be usable from any thread.
    let start = tokio::spawn(ManagementCluster::start(Options::default(), |line| eprintln!("{line}")));
    let management = start.await.unwrap().expect("the management cluster starts");

    every_webhook_is_installed(&management.admin()).await;
    controllers_of_kubernetes_work(&management.admin()).await;
    crds_are_served_when_applied(&management).await;
    hosts_are_guarded(&management).await;
    a_workload_api_server_opens(&management).await;
    a_paused_api_server_does_not_answer(&management).await;
    clusterctl_knows_the_providers(&management).await;

    assert_eq!(management.failed(), None);
    let processes = management.process_ids();
    assert_eq!(processes.len(), 7);
    let folder = management.dir().to_path_buf();
    management.stop().await.expect("the management cluster stops");
    for id in processes {
        assert!(!Path::new(&format!("/proc/{id}")).exists(), "process {id} is left");
    }
    assert!(!folder.exists(), "{} is left", folder.display());
}

async fn every_webhook_is_installed(admin: &Client) {
    let all = ListParams::default();
    let mutating = Api::<MutatingWebhookConfiguration>::all(admin.clone()).list(&all).await.unwrap().items;
    let validating = Api::<ValidatingWebhookConfiguration>::all(admin.clone()).list(&all).await.unwrap().items;
    let count = mutating.iter().map(|one| one.webhooks.iter().flatten().count()).sum::<usize>()
        + validating.iter().map(|one| one.webhooks.iter().flatten().count()).sum::<usize>();
    assert_eq!(count, 30);
    let names: Vec<_> = validating.iter().filter_map(|one| one.metadata.name.as_deref()).collect();
    assert_eq!(
        names,
        [
            "byoh-validating-webhook-configuration",
            "capi-kubeadm-bootstrap-validating-webhook-configuration",
            "capi-kubeadm-control-plane-validating-webhook-configuration",
            "capi-validating-webhook-configuration",
        ]
    );
}

/// `clusterctl upgrade plan` names each provider with its version. Releases are in a folder, because there is no
/// network.
async fn clusterctl_knows_the_providers(management: &ManagementCluster) {
    let folder = management.dir().join("clusterctl");
    let providers = [
        ("cluster-api", "CoreProvider", "cluster-api", versions::CLUSTER_API),
        ("kubeadm", "BootstrapProvider", "bootstrap-kubeadm", versions::CLUSTER_API),
        ("kubeadm", "ControlPlaneProvider", "control-plane-kubeadm", versions::CLUSTER_API),
        ("byoh", "InfrastructureProvider", "infrastructure-byoh", versions::BYOH),
    ];
    let mut configuration = "providers:\n".to_owned();
    for (name, kind, label, version) in providers {
        let series = versions::minor(version);
        let (major, minor) = series.split_once('.').unwrap();
        let contract = if name == "byoh" { "v1beta1" } else { "v1beta2" };
        let release = folder.join(label).join(format!("v{series}.99"));
        std::fs::create_dir_all(&release).unwrap();
        let metadata = format!(
            "apiVersion: clusterctl.cluster.x-k8s.io/v1alpha3\nkind: Metadata\nreleaseSeries:\n\
             - {{major: {major}, minor: {minor}, contract: {contract}}}\n"
        );
        std::fs::write(release.join("metadata.yaml"), metadata).unwrap();
        std::fs::write(release.join("components.yaml"), "").unwrap();
        let url = release.join("components.yaml");
        configuration.extend(["- {name: ", name, ", type: ", kind, ", url: ", url.to_str().unwrap(), "}\n"]);
    }
    std::fs::write(folder.join("clusterctl.yaml"), configuration).unwrap();
    let kubeconfig = folder.join("kubeconfig");
    management.kubeconfig_as("admin", &["system:masters"], &kubeconfig).unwrap();
    let output = Command::new(tool(Tool::Clusterctl, |line| eprintln!("{line}")).await.unwrap())
        .args(["upgrade", "plan", "--config"])
        .arg(folder.join("clusterctl.yaml"))
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .env("HOME", &folder)
        .env("XDG_CONFIG_HOME", &folder)
        .env("CLUSTERCTL_DISABLE_VERSIONCHECK", "true")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for (_, kind, label, version) in providers {
        let line = said.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("no {label}: {said}"));
        let next = format!("v{}.99", versions::minor(version));
        assert!(line.contains(kind) && line.contains(&next), "{line}");
    }
}

/// A namespace gets its default ServiceAccount, and is removed when it is deleted.
async fn controllers_of_kubernetes_work(admin: &Client) {
    let namespaces = Api::<Namespace>::all(admin.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "short-lived"}})).unwrap();
    let created = namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let accounts = Api::<ServiceAccount>::namespaced(admin.clone(), "short-lived");
    let account = await_condition(accounts, "default", |account: Option<&ServiceAccount>| account.is_some());
    tokio::time::timeout(DEADLINE, account).await.expect("a default account").unwrap();
    namespaces.delete("short-lived", &DeleteParams::default()).await.unwrap();
    let uid = created.metadata.uid.unwrap();
    let gone = await_condition(namespaces, "short-lived", conditions::is_deleted(&uid));
    tokio::time::timeout(DEADLINE, gone).await.expect("deletion").unwrap();
}

/// Objects may follow their CRD in the same text.
async fn crds_are_served_when_applied(management: &ManagementCluster) {
    management
        .apply_yaml(
            "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: lamps.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {kind: Lamp, plural: lamps}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: example.org/v1
kind: Lamp
metadata: {name: first}
",
        )
        .await
        .unwrap();
    let definitions = Api::<CustomResourceDefinition>::all(management.admin());
    definitions.delete("lamps.example.org", &DeleteParams::default()).await.unwrap();
}

/// Only agents may change hosts; the operator may if it is exempted, or if the variant of BYOH allows it.
async fn hosts_are_guarded(management: &ManagementCluster) {
    management
        .apply_yaml(
            "
{apiVersion: v1, kind: Namespace, metadata: {name: o2ims-system}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: o2ims-operator, namespace: o2ims-system}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: operator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: o2ims-operator, namespace: o2ims-system}]
",
        )
        .await
        .unwrap();
    let kind = GroupVersionKind::gvk("infrastructure.cluster.x-k8s.io", "v1beta1", "ByoHost");
    let resource = ApiResource::from_gvk_with_plural(&kind, "byohosts");
    let hosts = |client: Client| Api::<DynamicObject>::namespaced_with(client, "default", &resource);
    let mut host = DynamicObject::new("host-1", &resource);
    host.data = json!({"spec": {}});
    let agent = management.client_as("byoh:host:host-1", &["byoh:hosts"]).unwrap();
    hosts(agent).create(&PostParams::default(), &host).await.expect("an agent registers its host");

    let path = management.dir().join("operator.kubeconfig");
    management.service_account_kubeconfig("o2ims-system", "o2ims-operator", &path).await.unwrap();
    let kubeconfig = Kubeconfig::read_from(&path).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let operator = hosts(Client::try_from(config).unwrap());
    let mark = management.audit_log().mark().unwrap();
    let label = Patch::Merge(json!({"metadata": {"labels": {"host-id": "1"}}}));
    let set_label = async || operator.patch("host-1", &PatchParams::default(), &label).await;
    match (management.byoh_dialect().unwrap(), set_label().await) {
        (ByohDialect::Platform9, Ok(_)) => {}
        (ByohDialect::Upstream, Err(kube::Error::Api(status))) if status.code == 403 => {}
        (dialect, result) => panic!("{dialect:?}: {result:?}"),
    }

    let exemption = Patch::Strategic(json!({"webhooks": [{"name": "vbyohost.kb.io", "matchConditions": [
        {"name": "not-operator", "expression": format!("request.userInfo.username != '{OPERATOR}'")},
    ]}]}));
    let configurations = Api::<ValidatingWebhookConfiguration>::all(management.admin());
    let name = "byoh-validating-webhook-configuration";
    configurations.patch(name, &PatchParams::default(), &exemption).await.unwrap();
    within("the exempted operator labels a host", async || set_label().await.ok()).await;

    let by_operator = || {
        let entries = management.audit_log().since(&mark).unwrap();
        entries.into_iter().filter(|entry| entry.user == OPERATOR).collect::<Vec<_>>()
    };
    let last = within("the operator's success is in the audit log", async || {
        by_operator().pop().filter(|entry| entry.code == 200)
    })
    .await;
    assert!(by_operator().iter().all(|entry| entry.is_write() && entry.verb == "patch"), "{:?}", by_operator());
    assert_eq!((last.resource.as_str(), last.name.as_str()), ("byohosts", "host-1"));
    assert_eq!((last.namespace.as_str(), last.subresource.as_str()), ("default", ""));
}

async fn a_workload_api_server_opens(management: &ManagementCluster) {
    let authority = Authority::generate("kubernetes").unwrap();
    let api = WorkloadApi {
        name: "c1".into(),
        address: IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1)),
        port: 6443,
        ca_cert_pem: authority.pair().certificate.clone(),
        ca_key_pem: authority.pair().key.clone(),
        sa_key_pem: None,
        service_cidr: None,
    };
    let started = Instant::now();
    let server = management.start_workload_api_server(api.clone()).await.expect("a workload API server starts");
    eprintln!("a workload API server started in {:?}", started.elapsed());
    assert!(management.start_workload_api_server(api.clone()).await.is_err(), "two servers of one name");
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
    Api::all(server.client()).create(&PostParams::default(), &node).await.unwrap();

    // A restarted server has its data; a removed one does not.
    server.stop().await.unwrap();
    let server = management.start_workload_api_server(api.clone()).await.unwrap();
    assert!(Api::<Node>::all(server.client()).get_opt("n1").await.unwrap().is_some());
    server.remove().await.unwrap();
    let server = management.start_workload_api_server(api).await.unwrap();
    assert!(Api::<Node>::all(server.client()).get_opt("n1").await.unwrap().is_none());
    let id = server.process_id();
    drop(server);
    within("a dropped server ends", async || (!alive(id)).then_some(())).await;
}

async fn a_paused_api_server_does_not_answer(management: &ManagementCluster) {
    let admin = management.admin();
    management.pause_api_server().unwrap();
    let version = tokio::time::timeout(Duration::from_millis(300), admin.apiserver_version()).await;
    management.resume_api_server().unwrap();
    assert!(version.is_err(), "a paused API server answered");
    assert_eq!(admin.apiserver_version().await.unwrap().git_version, testenv::kubernetes_version());
}

/// Two management clusters at the same time, each in namespaces of its own. One is killed: all of its processes end,
/// and the other one is unharmed. The other one is then stopped in order.
#[tokio::test]
async fn management_clusters_live_side_by_side_and_do_not_outlive_their_starter() {
    let _turn = TURN.lock().await;
    if !namespaces_are_permitted() {
        eprintln!("skipped: this machine does not permit namespaces");
        return;
    }
    let (mut first, mut second) = (Starter::new(), Starter::new());
    first.wait_until_up();
    second.wait_until_up();
    let of_first = descendants(first.child.id());
    let of_second = descendants(second.child.id());
    // unshare, the shell that is process 1 inside, the starter and seven servers; and outside, the sweeper.
    assert_eq!((of_first.len(), of_second.len()), (11, 11), "{of_first:?} {of_second:?}");

    first.child.kill().unwrap();
    within("a killed starter's processes end", async || of_first.iter().all(|id| !alive(*id)).then_some(())).await;
    assert!(of_second.iter().all(|id| alive(*id)), "the other one was harmed");

    assert!(Command::new("kill").arg(second.child.id().to_string()).status().unwrap().success());
    let status: ExitStatus = within("a starter stops when asked to", async || second.child.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");
    within("nothing of it is left", async || of_second.iter().all(|id| !alive(*id)).then_some(())).await;
}

/// The command-line program in new namespaces, within those of the test.
struct Starter {
    child: Child,
}

impl Starter {
    fn new() -> Self {
        let child = in_own_namespace(env!("CARGO_BIN_EXE_testenv")).arg("up").stdout(Stdio::piped()).spawn().unwrap();
        Self { child }
    }

    fn wait_until_up(&mut self) {
        let mut output = BufReader::new(self.child.stdout.as_mut().unwrap());
        let mut line = String::new();
        while !line.starts_with("Ctrl-C") {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the starter ended");
        }
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        // Also after a failed assertion nothing may be left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn in_own_namespace(program: &str) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../scripts/in-own-namespace"));
    command.arg(program).env_remove("O2IMS_OWN_NAMESPACE");
    command
}

fn namespaces_are_permitted() -> bool {
    let output = in_own_namespace("sh").args(["-c", "echo $O2IMS_OWN_NAMESPACE"]).output().unwrap();
    output.stdout.starts_with(b"1")
}

/// State and parent of a process, from `/proc/ID/stat`: `ID (NAME) STATE PARENT ...`.
fn state(id: i32) -> Option<(char, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

/// Whether a process runs. A zombie does not: it waits for its parent.
fn alive(id: i32) -> bool {
    state(id).is_some_and(|(state, _)| state != 'Z')
}

fn descendants(ancestor: u32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(id) = entry.file_name().to_string_lossy().parse()
            && let Some((_, parent)) = state(id)
        {
            children.entry(parent).or_default().push(id);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![i32::try_from(ancestor).unwrap()];
    while let Some(id) = open.pop() {
        let below = children.remove(&id).unwrap_or_default();
        found.extend(&below);
        open.extend(below);
    }
    found
}
