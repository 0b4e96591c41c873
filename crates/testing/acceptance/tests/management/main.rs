//! `./mgmt.sh up` and the other commands of an administrator, on a cluster that the product has made of real servers:
//! an installation that is interrupted, the guide for servers word by word, and a removal. On simulated hosts: a new
//! pod network for existing clusters, and an upgrade of Cluster API under running ones. On a control plane without nodes:
//! what `up` finds out about a cluster.

mod pods;
mod upgrade;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use acceptance::{Block, Shell, ansible, blocks, top};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use libtest_mimic::{Arguments, Failed, Trial};
use o2ims_types::ProvisioningRequest;
use rustix::process::{Pid, Signal, kill_process_group};
use sandbox::waiting::wait;
use sandbox::{Stack, StackOptions, focom, installation, inventory};
use serde_json::{Value, json};
use testenv::{Authority, ManagementCluster, Options, WorkloadApi, kubernetes_version};

const GUIDE: &str = "docs/servers.md";
const UP: &str = "./mgmt.sh up --bundle bundle --import 'ssh root@{}'";
/// The line at which an installation is interrupted.
const CUTS: [&str; 5] = ["importing", "cert-manager", "cluster-api", "byoh", "focom-operator"];
/// How long a cluster, or an installation, may take.
const LIMIT: Duration = Duration::from_secs(400);

fn main() -> ExitCode {
    let mut trials = vec![
        Trial::test("the_product_is_installed_on_a_cluster_of_its_own_used_and_removed", || complete(management()))
            // Slow: needs release programs, and takes some ten minutes.
            .with_ignored_flag(true),
    ];
    let left_out = match testenv::servers::left_out() {
        Ok(Some(why)) => Some(why),
        Ok(None) => ansible::venv().err().map(|error| format!("{error:#}")),
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(why) = left_out {
        eprintln!("LEFT OUT: the installation on real servers ({why})");
        trials.clear();
    }
    trials
        .push(Trial::test("a_new_pod_network_is_for_new_clusters", || complete(pod_network())).with_ignored_flag(true));
    trials.push(
        Trial::test("clusters_live_through_an_upgrade_of_cluster_api", || complete(upgrade::upgrade()))
            .with_ignored_flag(true),
    );
    trials.push(Trial::test("up_says_what_it_finds_on_a_cluster", || complete(findings())).with_ignored_flag(true));
    // Each starts BYOH's manager, whose webhook has one fixed port.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn complete(test: impl Future<Output = Result<()>>) -> Result<(), Failed> {
    let result = tokio::runtime::Runtime::new().map_err(anyhow::Error::from);
    result.and_then(|runtime| runtime.block_on(test)).map_err(|error| Failed::from(format!("{error:#}")))
}

async fn management() -> Result<()> {
    let options = StackOptions::new(sandbox::program("o2ims-operator")?).with_servers();
    let mut stack = Stack::start(options, |line| eprintln!("{line}")).await?;
    let result = Box::pin(on(&mut stack)).await;
    result.and(stack.stop().await)
}

async fn on(stack: &mut Stack) -> Result<()> {
    let site = Site::new(stack)?;
    let guide = blocks(GUIDE)?;
    let (bundle, rest) = guide.split_first().context("the guide has no commands")?;
    site.run(bundle)?;
    // Test servers share a kernel, which kube-proxy must not configure.
    fs::write(site.folder.join("bundle/manifests/cluster-template.yaml"), stack.hosts().template())?;

    let client = management_cluster(stack, &site).await?;
    let before = inventory::objects(&client).await?;
    refusals(&site)?;
    let targets = [stack.debian_server("target-1", 13)?, stack.debian_server("target-2", 14)?];
    for target in &targets {
        target.power_on().await?;
    }
    site.write_input(stack)?;
    for block in rest {
        if block.commands.trim() == UP {
            for cut in CUTS {
                site.cut_off(cut)?;
            }
            without_pods(&site)?;
        }
        let text = site.run(block)?;
        ensure!(!text.contains("Warning"), "{GUIDE}:{}: the API server warns:\n{text}", block.line);
        if block.commands.trim() == UP {
            again_changes_nothing(&site)?;
            another_namespace(&site)?;
        }
        if block.commands.contains("apply -f") {
            let refused = site.refused("./mgmt.sh down --yes")?;
            for kept in ["ProvisioningRequest default/core-cluster-request", "ByoHost default/target-1"] {
                ensure!(refused.contains(kept), "down does not name {kept}:\n{refused}");
            }
        }
    }
    let after = inventory::objects(&client).await?;
    let difference: Vec<_> = before.symmetric_difference(&after).collect();
    ensure!(difference.is_empty(), "down has left, or taken too much: {difference:#?}");
    Ok(())
}

/// Makes a cluster on the first two servers, by a request; its kubeconfig is where the guide expects it.
async fn management_cluster(stack: &mut Stack, site: &Site) -> Result<Client> {
    stack.make_namespace("outer").await?;
    stack.apply_cni("outer").await?;
    for server in stack.rack_up("outer", "manager", 1..=2, false).await? {
        stack.authorize(&server)?;
        server.power_on().await?;
    }
    let request = json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest",
        "metadata": {"name": "management", "namespace": "outer"},
        "spec": {
            "templateName": "byoh-workload-cluster", "templateVersion": "v1.0.0",
            "templateParameters": {
                "clusterName": "management", "k8sVersion": kubernetes_version(),
                "hosts": {
                    "masters": [{"hostId": 1, "hostName": "manager-1"}], "workers": [{"hostId": 2, "hostName": "manager-2"}],
                },
            },
        },
    });
    stack.management.apply_yaml(&request.to_string()).await?;
    let requests: Api<ProvisioningRequest> = Api::namespaced(stack.management.admin(), "outer");
    wait(requests, "management", "the management cluster", LIMIT, fulfilled).await?;
    let secret: Secret = Api::namespaced(stack.management.admin(), "outer").get("management-kubeconfig").await?;
    let text = secret.data.and_then(|mut data| data.remove("value")).context("the kubeconfig has no value")?.0;
    fs::write(site.folder.join("management.kubeconfig"), &text)?;
    let kubeconfig = Kubeconfig::from_yaml(&String::from_utf8(text)?)?;
    let client = Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)?;
    // Cluster API removes its taint from a new node when it has set the node's labels.
    let is_open = |node: Option<&Node>| {
        node.and_then(|node| node.spec.as_ref()).is_some_and(|spec| spec.taints.iter().flatten().next().is_none())
    };
    wait(Api::all(client.clone()), "manager-2", "node manager-2 without a taint", LIMIT, is_open).await?;
    Ok(client)
}

/// Errors are reported before anything is written, with a remedy.
fn refusals(site: &Site) -> Result<()> {
    let cases = [
        ("./mgmt.sh up --kubeconfig management.kubeconfig", "up needs --bundle FOLDER"),
        ("./mgmt.sh up --kubeconfig nowhere --bundle bundle", "nowhere cannot be read"),
        ("./mgmt.sh up --kubeconfig management.kubeconfig --bundle examples", "is no bundle"),
        ("env -u KUBECONFIG ./mgmt.sh up --bundle bundle", "no management cluster is named"),
        (
            "./mgmt.sh up --kubeconfig management.kubeconfig --bundle bundle",
            "manager-2 (10.77.0.12) has none of the bundle's images",
        ),
        (
            "./mgmt.sh up --kubeconfig management.kubeconfig --bundle bundle --import ssh",
            "{} must stand for the node's address",
        ),
        (
            "./mgmt.sh up --kubeconfig management.kubeconfig --bundle bundle --import 'false {}'",
            "manager-2 (10.77.0.12): 'false 10.77.0.12 ctr' does not work",
        ),
        (
            "./mgmt.sh up --kubeconfig management.kubeconfig --bundle bundle --template examples/cni.yaml",
            "--template: examples/cni.yaml has no ClusterTemplate",
        ),
        (
            "./mgmt.sh up --kubeconfig management.kubeconfig --bundle bundle --cni management.kubeconfig",
            "--cni: management.kubeconfig has no Kubernetes objects",
        ),
        ("./mgmt.sh up --bundel bundle", "up takes no '--bundel'"),
        ("./mgmt.sh hosts --kubeconfig management.kubeconfig", "BYOH is not installed on this cluster"),
        (
            "sed 's/10.77.0.11/10.77.0.250/' management.kubeconfig >other.kubeconfig; ./mgmt.sh status --kubeconfig other.kubeconfig",
            "does not answer",
        ),
    ];
    for (commands, words) in cases {
        let text = site.refused(commands)?;
        ensure!(text.contains(words), "{commands} does not say {words:?}:\n{text}");
    }
    let text = site.shell.run("./mgmt.sh down --kubeconfig management.kubeconfig")?;
    ensure!(text.contains("nothing of what ./mgmt.sh up installs"), "down on an empty cluster says:\n{text}");
    Ok(())
}

/// Where a quota permits no pods, `up` says so; when the quota is gone, it goes on.
fn without_pods(site: &Site) -> Result<()> {
    site.shell.run(
        "kubectl create namespace focom-system || true
        kubectl -n focom-system create quota none --hard=pods=0
        kubectl -n focom-system delete deployments,replicasets,pods --all",
    )?;
    let refused = site.refused(&format!("{UP} --timeout 20"))?;
    for words in ["deployment focom-operator gets no more pods: pods ", "quota: none", "is not ready after 20 s"] {
        ensure!(refused.contains(words), "up does not say {words:?}:\n{refused}");
    }
    // A new ReplicaSet makes its pods at once; one that was refused waits longer each time.
    site.shell
        .run("kubectl -n focom-system delete quota none; kubectl -n focom-system delete replicasets --all")
        .map(drop)
}

/// A second installation changes no object and no pod.
fn again_changes_nothing(site: &Site) -> Result<()> {
    // The generation changes with the spec only, and not with the status.
    let state = r#"
        kinds=$(kubectl api-resources --verbs=list,delete --output=name | grep -vE '^(events|pods)(\.|$)' | paste -sd , -)
        kubectl get "$kinds" -A -l o2ims.provisioning.oran.org/component --ignore-not-found -o \
            'jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid} {.metadata.generation}{"\n"}{end}'
        kubectl get pods -A -o 'jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[*].restartCount}{"\n"}{end}'
    "#;
    let lines = |text: String| text.lines().map(ToOwned::to_owned).collect::<BTreeSet<_>>();
    let before = lines(site.shell.run(state)?);
    ensure!(before.len() > 100, "only {} objects are there", before.len());
    site.shell.run(UP)?;
    let after = lines(site.shell.run(state)?);
    let difference: Vec<_> = before.symmetric_difference(&after).collect();
    ensure!(difference.is_empty(), "a second up has changed: {difference:#?}");
    let foreseen = site.shell.run(&format!("{UP} --dry-run"))?;
    ensure!(!foreseen.contains("would"), "a dry run foresees changes after that:\n{foreseen}");
    Ok(())
}

/// A team's namespace gets a pod network; the rest of the installation does not change.
fn another_namespace(site: &Site) -> Result<()> {
    let up = format!("{UP} --namespace team-a");
    let refused = site.refused(&up)?;
    ensure!(refused.contains("there is no namespace team-a"), "{refused}");
    site.shell.run(&format!("kubectl create namespace team-a; {up}"))?;
    site.shell
        .run("kubectl -n team-a get clusterresourceset,configmap cni; kubectl -n default get clusterresourceset cni")?;
    site.shell.run("kubectl delete namespace team-a").map(drop)
}

/// `up --cni` beside a running cluster, on the installation of an earlier release, and again on that of this one.
async fn pod_network() -> Result<()> {
    let mut stack =
        Stack::start(StackOptions::new(sandbox::program("o2ims-operator")?), |line| eprintln!("{line}")).await?;
    let result = Box::pin(pod_network_on(&mut stack)).await;
    result.and(stack.stop().await)
}

#[allow(clippy::too_many_lines, reason = "one story")]
async fn pod_network_on(stack: &mut Stack) -> Result<()> {
    const TEAM: &str = "team-a";
    let shell = management_cluster_of_others(stack).await?;
    let up = format!(
        "'{}' up --bundle bundle --registry registry.example.org --namespace {TEAM}",
        top().join("mgmt.sh").display()
    );
    let sets = inventory::api(stack.management.admin(), TEAM, "addons.cluster.x-k8s.io", "ClusterResourceSet");
    let bindings =
        inventory::api(stack.management.admin(), TEAM, "addons.cluster.x-k8s.io", "ClusterResourceSetBinding");
    stack.make_namespace(TEAM).await?;
    let former = installation::CNI
        .replace(
            "namespace: default",
            &format!("namespace: {TEAM}\n  labels: {{o2ims.provisioning.oran.org/component: defaults}}"),
        )
        .replace("strategy: ApplyOnce", "strategy: Reconcile");
    stack.management.apply_yaml(&former).await?;
    stack.register(TEAM, "target", 1..=3).await?;
    let old = cluster(stack, TEAM, "old", 1).await?;
    ensure!(daemon_sets(&old).await? == ["simulated-cni simulated-cni"], "{:?}", daemon_sets(&old).await?);
    let before = (sets.get("cni").await?.uid(), bindings.get("old").await?.data);

    let foreseen = shell.run(&format!("{up} --cni blue.yaml --dry-run"))?;
    for words in [
        "note: the pod network in blue.yaml is for new clusters; running ones keep theirs: old",
        "would make ClusterResourceSet team-a/cni anew with the strategy ApplyOnce; running clusters keep their pod network: old",
        "defaults: would change v1.ConfigMap.team-a.cni",
    ] {
        ensure!(foreseen.contains(words), "the dry run does not say {words:?}:\n{foreseen}");
    }
    ensure!(sets.get("cni").await?.uid() == before.0, "a dry run has made the ClusterResourceSet anew");
    let said = shell.run(&format!("{up} --cni blue.yaml"))?;
    ensure!(said.contains("running ones keep theirs: old"), "{said}");
    let set = sets.get("cni").await?;
    ensure!(set.data["spec"]["strategy"] == "ApplyOnce", "{:#}", set.data);
    ensure!(set.annotations().is_empty(), "it is still paused: {:?}", set.annotations());

    // Cluster API reconciles all clusters of the set when it applies the network to the new one.
    let new = cluster(stack, TEAM, "new", 2).await?;
    ensure!(daemon_sets(&new).await? == ["blue blue", "simulated-cni blue"], "{:?}", daemon_sets(&new).await?);
    ensure!(daemon_sets(&old).await? == ["simulated-cni simulated-cni"], "{:?}", daemon_sets(&old).await?);

    // A template whose masters have no taint, for clusters of one node.
    let no_taints =
        json!({"spec": {"kubeadm": {"controlPlane": {"initConfiguration": {"nodeRegistration": {"taints": []}}}}}});
    shell.run(&format!(
        "kubectl -n o2ims-system patch clustertemplate byoh-workload-cluster-v1.0.0 --type merge --patch '{no_taints}'"
    ))?;
    let said = shell.run(&format!("{up} --cni green.yaml"))?;
    ensure!(said.contains("running ones keep theirs: new, old") && !said.contains("anew"), "{said}");
    ensure!(sets.get("cni").await?.uid() == set.uid(), "the ClusterResourceSet was made anew once more");
    let newest = cluster(stack, TEAM, "newest", 3).await?;
    ensure!(daemon_sets(&newest).await? == ["green green", "simulated-cni green"], "{:?}", daemon_sets(&newest).await?);
    ensure!(daemon_sets(&old).await? == ["simulated-cni simulated-cni"], "{:?}", daemon_sets(&old).await?);
    ensure!(daemon_sets(&new).await? == ["blue blue", "simulated-cni blue"], "{:?}", daemon_sets(&new).await?);
    ensure!(bindings.get("old").await?.data == before.1, "the old cluster was written to");
    ensure!(taints(&old).await? == ["node-role.kubernetes.io/control-plane"], "{:?}", taints(&old).await?);
    ensure!(taints(&newest).await?.is_empty(), "{:?}", taints(&newest).await?);
    let said = shell.run(&up)?;
    ensure!(said.contains("pod network and ClusterTemplate stay as they are"), "{said}");

    // An interrupted installation: the installed pod network stays, and so do the clusters.
    shell.run(&format!("kubectl -n {TEAM} delete clusterresourceset cni --cascade=orphan --wait=false; kubectl -n {TEAM} patch clusterresourceset cni --type merge -p '{{\"metadata\":{{\"finalizers\":null}}}}' || true; {up}"))?;
    let manifest = shell.run(&format!("kubectl -n {TEAM} get configmap cni -o yaml"))?;
    ensure!(manifest.contains("green"), "the pod network that was given is gone:\n{manifest}");

    // Another owner's pod network is not changed, and not applied to running clusters.
    shell.run(&format!("kubectl -n {TEAM} delete clusterresourceset cni"))?;
    stack
        .management
        .apply_yaml(&former.replace("o2ims.provisioning.oran.org/component: defaults", "of: others"))
        .await?;
    let (code, refused) = shell.attempt(&format!("{up} --cni blue.yaml"))?;
    ensure!(
        code != 0 && refused.contains("its strategy Reconcile would give blue.yaml to running clusters too"),
        "{refused}"
    );
    Ok(())
}

/// What `up` says about a cluster that differs from the guide's, and does about it.
async fn findings() -> Result<()> {
    let options = Options { cluster_api: false, byoh: false, ..Options::default() };
    let management = ManagementCluster::start(options, |line| eprintln!("{line}")).await?;
    let result = Box::pin(findings_on(&management)).await;
    result.and(management.stop().await)
}

async fn findings_on(management: &ManagementCluster) -> Result<()> {
    let shell = shell_with_bundle(management)?;
    fill_bundle(&shell)?;
    simulated_node(&shell)?;
    prepare(management, &shell).await?;
    of_others(&shell)?;
    their_own_containerd(&shell)?;
    no_way(&shell)?;
    too_far(management, &shell).await?;
    hardened(management, &shell).await
}

/// The port of the API server, a Cluster API that is not supported, and a Deployment whose pods are refused. Nothing is
/// left of what was tried, also by an `up` that was killed, and nobody sees the token.
fn of_others(shell: &Shell) -> Result<()> {
    shell.run(
        "kubectl wait --for=create --timeout=30s namespace/kube-system
        kubectl -n kube-system create secret generic left
        kubectl -n kube-system label secret left o2ims.provisioning.oran.org/component=trial",
    )?;
    kubectl_after(shell, "telling", r#"echo "$*" >>"$0.arguments""#)?;
    let (code, said) =
        shell.attempt(&format!("PATH=$PWD/telling:$PATH {} --registry registry.example.org --timeout 1", up()))?;
    for words in [
        "cluster-api v1.15.3 is not supported and was not tested: this release supports Cluster API from v1.12.0 and before",
        "the version of kubeadm-bootstrap cannot be told",
        "the API server listens on port 16443: the NetworkPolicy of o2ims-operator gets it",
        "deployment o2ims-operator gets no more pods: pods \"o2ims-operator-1\" is forbidden: unable to validate",
        "o2ims-operator in namespace o2ims-system is not ready after 1 s; the reasons are above",
    ] {
        ensure!(said.contains(words), "up does not say {words:?}:\n{said}");
    }
    ensure!(code != 0 && !said.contains("bootstrap tokens") && !said.contains("nobody signs"), "{said}");
    let ports =
        "kubectl -n o2ims-system get networkpolicy o2ims-operator -o 'jsonpath={.spec.egress[*].ports[*].port}'";
    let ports = shell.run(ports)?;
    ensure!(ports.split_whitespace().eq(["53", "53", "5353", "5353", "443", "6443", "16443"]), "{ports}");
    let arguments = shell.run("cat telling/kubectl.arguments")?;
    let is_hex = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut words = arguments.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.');
    let told = words.find(|word| word.split_once('.').is_some_and(|(id, rest)| is_hex(id, 6) && is_hex(rest, 16)));
    ensure!(told.is_none() && arguments.contains("auth whoami"), "{told:?} in\n{arguments}");
    nothing_is_left(shell)
}

/// Makes a kubectl in a new folder that runs this line of bash, without single quotes, before the real one.
fn kubectl_after(shell: &Shell, folder: &str, line: &str) -> Result<()> {
    let commands = format!(
        r#"mkdir {folder}
        printf '%s\n' '#!/bin/bash' '{line}' "exec '$(type -P kubectl)' \"\$@\"" >{folder}/kubectl
        chmod +x {folder}/kubectl"#
    );
    shell.run(&commands).map(drop)
}

/// Tokens and certificate requests that `up` has tried are removed.
fn nothing_is_left(shell: &Shell) -> Result<()> {
    let left = shell.run("kubectl get certificatesigningrequests,secrets -A --ignore-not-found -o name")?;
    ensure!(left.trim().is_empty(), "up has left {left}");
    Ok(())
}

/// Makes the objects by which [`of_others`] tells.
async fn prepare(management: &ManagementCluster, shell: &Shell) -> Result<()> {
    for definition in [
        definition("cert-manager.io", "Certificate", &["v1"]),
        definition("cluster.x-k8s.io", "Cluster", &["v1beta1", "v1beta2"]),
        definition("bootstrap.cluster.x-k8s.io", "KubeadmConfig", &["v1beta1", "v1beta2"]),
        definition("controlplane.cluster.x-k8s.io", "KubeadmControlPlane", &["v1beta1", "v1beta2"]),
        definition("infrastructure.cluster.x-k8s.io", "ByoHost", &["v1beta1"]),
    ] {
        management.apply_yaml(&definition.to_string()).await?;
    }
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}],
        "ports": [{"name": "https", "port": 16443, "protocol": "TCP"}],
    });
    for object in [slice, manager("cluster-api", "v1.15.3")] {
        management.apply_yaml(&object.to_string()).await?;
    }
    for file in ["namespace", "deployment"] {
        let text = fs::read_to_string(top().join(format!("deploy/o2ims-operator/{file}.yaml")))?;
        management.apply_yaml(&text).await?;
    }
    let refused = json!({
        "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
        "message": "pods \"o2ims-operator-1\" is forbidden: unable to validate against any security context constraint",
    });
    patch_status(shell, "deployment", "o2ims-system", "o2ims-operator", &json!({"conditions": [refused]}))
}

/// A node whose kubelet has a containerd of its own, as with k3s: it is the one that images are imported into. Where its
/// kubelet does not know them nevertheless, `up` says so.
fn their_own_containerd(shell: &Shell) -> Result<()> {
    const K3S: &str = "./on-node - env CONTAINERD_ADDRESS=/run/k3s/containerd/containerd.sock PATH=";
    shell.run("printf '#!/bin/bash\\necho \"./on-node $*\" >>calls\\n' >on-node; chmod +x on-node")?;
    runtime(shell, "containerd://2.0.4-k3s2")?;
    let ready = json!({
        "observedGeneration": 1000, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
        "conditions": [],
    });
    patch_status(shell, "deployment", "o2ims-system", "o2ims-operator", &ready)?;
    shell.run("kubectl create namespace focom-system; kubectl -n focom-system wait --for=create --timeout=30s serviceaccount/default")?;
    shell.run("kubectl -n focom-system run focom-operator-1 --image=localhost/o2ims/focom-operator:0.1.0")?;
    let waiting = json!({"containerStatuses": [{
        "name": "focom-operator-1", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ErrImagePull", "message": "localhost: connection refused"}},
    }]});
    patch_status(shell, "pod", "focom-system", "focom-operator-1", &waiting)?;

    let (code, said) = shell.attempt(&format!("{} --import './on-node {{}}' --timeout 1", up()))?;
    for words in [
        "importing localhost/o2ims/focom-operator",
        "pod focom-operator-1: ErrImagePull: localhost: connection refused",
        &format!(
            "node simulated names none of the imported images: does its kubelet use another containerd than '{K3S}"
        ),
    ] {
        ensure!(said.contains(words), "up does not say {words:?}:\n{said}");
    }
    let calls = shell.run("cat calls")?;
    ensure!(
        code != 0 && calls.lines().count() > 4 && calls.lines().all(|call| call.starts_with(K3S)),
        "{said}\n{calls}"
    );
    ensure!(calls.contains("rke2/bin ctr --namespace k8s.io images import -"), "{calls}");

    // An API server that does not answer for a moment is no end of the wait.
    kubectl_after(shell, "failing", r#"case " $* " in *" get node simulated "*) exit 1 ;; esac"#)?;
    let again = format!("PATH=$PWD/failing:$PATH {} --import './on-node {{}}' --timeout 1", up());
    let (code, said) = shell.attempt(&again)?;
    ensure!(code != 0 && said.contains("ErrImagePull") && said.contains("is not ready after 1 s"), "{said}");
    Ok(())
}

/// What cannot work is refused before anything is written.
fn no_way(shell: &Shell) -> Result<()> {
    runtime(shell, "cri-o://1.33.1")?;
    let not_served = json!([{"op": "replace", "path": "/spec/versions/0/served", "value": false}]);
    shell.run(&format!("kubectl patch crd clusters.cluster.x-k8s.io --type json --patch '{not_served}'"))?;
    let (code, said) = shell.attempt(&format!("{} --import './on-node {{}}'", up()))?;
    for words in [
        "node simulated (-) runs cri-o://1.33.1: --import knows containerd only",
        "serves clusters.cluster.x-k8s.io as v1beta2: the operators need v1beta2, and BYOH v1beta1. This release supports Cluster API from",
    ] {
        ensure!(code != 0 && said.contains(words), "up does not say {words:?}:\n{said}");
    }
    Ok(())
}

/// A step between versions of Cluster API that it does not support is refused, for each provider by itself.
async fn too_far(management: &ManagementCluster, shell: &Shell) -> Result<()> {
    for (provider, definition, file, version) in [
        ("cluster-api", "clusters.cluster.x-k8s.io", "20-cluster-api", "v1.10.10"),
        ("bootstrap-kubeadm", "kubeadmconfigs.bootstrap.cluster.x-k8s.io", "30-kubeadm-bootstrap", "v1.15.0"),
        (
            "control-plane-kubeadm",
            "kubeadmcontrolplanes.controlplane.cluster.x-k8s.io",
            "40-kubeadm-control-plane",
            "v1.11.9",
        ),
    ] {
        management.apply_yaml(&manager(provider, version).to_string()).await?;
        shell.run(&format!(
            "kubectl label crd {definition} o2ims.provisioning.oran.org/component={provider}
            echo '# image: localhost/o2ims/{provider}:v1.14.0-0123456789ab' >bundle/manifests/{file}.yaml"
        ))?;
    }
    let up = format!("{} --registry registry.example.org --dry-run", up());
    let (code, said) = shell.attempt(&up)?;
    for words in [
        "cluster-api v1.10.10 is installed, and the bundle has v1.14.0: Cluster API supports upgrades over 3 minor versions at most. Run up with a bundle of 1.13 before, which O2IMS_CLUSTER_API=1.13 ./mgmt.sh bundle FOLDER makes",
        "kubeadm-bootstrap v1.15.0 is installed, and the bundle has v1.14.0: Cluster API cannot go back to an older version. Take a bundle that has v1.15.0 or a newer one",
    ] {
        ensure!(said.contains(words), "up does not say {words:?}:\n{said}");
    }
    ensure!(code != 0 && !said.contains("kubeadm-control-plane v1.11.9"), "{said}");
    Ok(())
}

/// An API server that accepts no bootstrap tokens, and beside which nobody signs certificates.
async fn hardened(management: &ManagementCluster, shell: &Shell) -> Result<()> {
    let authority = Authority::generate("hardened")?;
    let api = WorkloadApi {
        name: "hardened".to_owned(),
        address: Ipv4Addr::new(127, 0, 1, 1).into(),
        port: 6443,
        ca_cert_pem: authority.pair().certificate.clone(),
        ca_key_pem: authority.pair().key.clone(),
        sa_key_pem: None,
        service_cidr: None,
    };
    let server = management.start_workload_api_server(api).await?;
    let kubeconfig = management.dir().join("site/hardened.kubeconfig");
    server.access().kubeconfig_as("administrator", &["system:masters"], &kubeconfig)?;
    shell.run(&format!("export KUBECONFIG='{}'", kubeconfig.display()))?;
    shell.run("kubectl wait --for=create --timeout=30s namespace/kube-system")?;
    simulated_node(shell)?;
    let (_, said) = shell.attempt(&format!("{} --registry registry.example.org --timeout 1", up()))?;
    for words in [
        "does not accept bootstrap tokens, with which servers register: start it with --enable-bootstrap-token-auth",
        "nobody signs certificate requests for kubernetes.io/kube-apiserver-client, with which servers register",
        "cert-manager was refused",
    ] {
        ensure!(said.contains(words), "up does not say {words:?}:\n{said}");
    }
    nothing_is_left(shell)?;
    server.stop().await
}

/// The installation of the bundle in the shell's folder.
fn up() -> String {
    format!("'{}' up --bundle bundle", top().join("mgmt.sh").display())
}

/// A CRD of others, with these versions, of which the first is stored.
fn definition(group: &str, kind: &str, versions: &[&str]) -> Value {
    let plural = format!("{}s", kind.to_lowercase());
    let versions: Vec<_> = versions
        .iter()
        .enumerate()
        .map(|(number, name)| {
            json!({
                "name": name, "served": true, "storage": number == 0, "schema": {"openAPIV3Schema": {"type": "object"}},
            })
        })
        .collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural}, "versions": versions,
        },
    })
}

/// The Deployment of a provider's manager, beside which another program has a version of its own.
fn manager(provider: &str, version: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": provider, "namespace": "default", "labels": {"cluster.x-k8s.io/provider": provider},
        },
        "spec": {
            "selector": {"matchLabels": {"app": provider}},
            "template": {
                "metadata": {"labels": {"app": provider}},
                "spec": {"containers": [
                    {"name": "proxy", "image": "registry.example.org/kube-rbac-proxy:v0.13.1"},
                    {"name": "manager", "image": format!("registry.example.org/{provider}:{version}")},
                ]},
            },
        },
    })
}

fn patch_status(shell: &Shell, kind: &str, namespace: &str, name: &str, status: &Value) -> Result<()> {
    let patch = json!({"status": status});
    let command =
        format!("kubectl -n {namespace} patch {kind} {name} --subresource status --type merge --patch '{patch}'");
    shell.run(&command).map(drop)
}

/// Has the simulated node say that this runs its containers.
fn runtime(shell: &Shell, version: &str) -> Result<()> {
    let status = json!({"nodeInfo": {"containerRuntimeVersion": version}});
    patch_status(shell, "node", "default", "simulated", &status)
}

/// The processor architecture in Kubernetes' words.
fn architecture() -> &'static str {
    if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" }
}

/// A node that takes pods; SIMULATED: there is only the object.
fn simulated_node(shell: &Shell) -> Result<()> {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "simulated"}});
    shell.run(&format!("kubectl create --filename - <<<'{node}'"))?;
    let status = json!({
        "nodeInfo": {"architecture": architecture()}, "conditions": [{"type": "Ready", "status": "True"}],
    });
    patch_status(shell, "node", "default", "simulated", &status)?;
    shell.run(r#"kubectl patch node simulated --type merge --patch '{"spec": {"taints": null}}'"#).map(drop)
}

/// Puts the operators' manifests into a bundle, and something in the place of their images. cert-manager's manifest
/// cannot be applied.
fn fill_bundle(shell: &Shell) -> Result<()> {
    let overlays = top().join("deploy/overlays");
    let lost = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "lost", "namespace": "nowhere"}});
    shell
        .run(&format!(
            "kubectl kustomize '{0}/o-cloud' >bundle/manifests/60-o2ims-operator.yaml
            kubectl kustomize '{0}/smo' >bundle/manifests/70-focom-operator.yaml
            echo '{lost}' >bundle/manifests/10-cert-manager.yaml
            mkdir bundle/images
            touch bundle/images/o2ims-operator.tar bundle/images/focom-operator.tar",
            overlays.display()
        ))
        .map(drop)
}

/// A shell with a bundle, on a management cluster with everything but the pod network.
async fn management_cluster_of_others(stack: &Stack) -> Result<Shell> {
    let shell = shell_with_bundle(&stack.management)?;
    let certificates = definition("cert-manager.io", "Certificate", &["v1"]);
    stack.management.apply_yaml(&certificates.to_string()).await?;
    simulated_node(&shell)?;
    focom::install(&stack.management).await?;
    Ok(shell)
}

/// A shell of an administrator, in a folder with a bundle that has a pod network and a template only.
fn shell_with_bundle(management: &ManagementCluster) -> Result<Shell> {
    let folder = management.dir().join("site");
    fs::create_dir_all(folder.join("bundle/manifests"))?;
    let architecture = architecture();
    fs::write(folder.join("bundle/bundle.json"), format!("{{\n  \"architecture\": \"{architecture}\"\n}}"))?;
    for file in [
        "10-cert-manager",
        "20-cluster-api",
        "21-clusterctl-inventory",
        "30-kubeadm-bootstrap",
        "40-kubeadm-control-plane",
        "50-byoh",
        "60-o2ims-operator",
        "70-focom-operator",
    ] {
        fs::write(folder.join(format!("bundle/manifests/{file}.yaml")), "")?;
    }
    fs::write(folder.join("bundle/manifests/cni.yaml"), installation::CNI)?;
    fs::write(folder.join("bundle/manifests/cluster-template.yaml"), installation::TEMPLATE)?;
    // Nodes of simulated hosts are Ready when the DaemonSet simulated-cni is there.
    let daemon_set = |name: &str, image: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name, "namespace": "kube-system"},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "cni", "image": image}]}},
            },
        })
    };
    for network in ["blue", "green"] {
        let manifest = format!("{}\n---\n{}\n", daemon_set(network, network), daemon_set("simulated-cni", network));
        fs::write(folder.join(format!("{network}.yaml")), manifest)?;
    }
    shell_of(management, &folder)
}

/// A shell of an administrator, in this folder.
fn shell_of(management: &ManagementCluster, folder: &Path) -> Result<Shell> {
    management.kubeconfig_as("administrator", &["system:masters"], &folder.join("management.kubeconfig"))?;
    let kubectl = management.kubectl().parent().context("kubectl is in a folder")?.to_path_buf();
    let mut shell = Shell::new(folder.to_path_buf(), folder.join("environment"));
    let path = std::env::var("PATH").unwrap_or_default();
    shell.set("PATH", format!("{}:{path}", kubectl.display()));
    shell.set("KUBECONFIG", folder.join("management.kubeconfig").display().to_string());
    Ok(shell)
}

/// Makes a cluster of one simulated host, and returns a client of its API server.
async fn cluster(stack: &Stack, namespace: &str, name: &str, number: u32) -> Result<Client> {
    let request = json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "templateName": "byoh-workload-cluster", "templateVersion": "v1.0.0",
            "templateParameters": {
                "clusterName": name, "k8sVersion": kubernetes_version(),
                "hosts": {"masters": [{"hostId": number, "hostName": format!("target-{number}")}]},
            },
        },
    });
    stack.management.apply_yaml(&request.to_string()).await?;
    let requests: Api<ProvisioningRequest> = Api::namespaced(stack.management.admin(), namespace);
    wait(requests, name, "the cluster", LIMIT, fulfilled).await?;
    stack.site.workload_client(name).await.context("the cluster has no API server")
}

fn fulfilled(request: Option<&ProvisioningRequest>) -> bool {
    request
        .and_then(|request| serde_json::to_value(request).ok())
        .is_some_and(|request| request["status"]["provisioningStatus"]["provisioningState"] == "fulfilled")
}

/// Name and image of a cluster's DaemonSets, which are its pod network.
async fn daemon_sets(client: &Client) -> Result<Vec<String>> {
    let all: Api<DaemonSet> = Api::namespaced(client.clone(), "kube-system");
    let image = |set: &DaemonSet| set.spec.as_ref()?.template.spec.as_ref()?.containers.first()?.image.clone();
    let all = all.list(&ListParams::default()).await?.items;
    Ok(all.iter().map(|set| format!("{} {}", set.name_any(), image(set).unwrap_or_default())).collect())
}

/// Keys of the taints of a cluster's nodes.
async fn taints(client: &Client) -> Result<Vec<String>> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?.items;
    let taints = nodes.into_iter().filter_map(|node| node.spec?.taints).flatten();
    Ok(taints.map(|taint| taint.key).collect())
}

/// A folder as a reader of the guide has it.
struct Site {
    folder: PathBuf,
    shell: Shell,
}

impl Site {
    fn new(stack: &Stack) -> Result<Self> {
        let folder = stack.management.dir().join("site");
        fs::create_dir_all(folder.join("bin"))?;
        for part in ["ansible", "ansible.cfg", "crds", "deploy", "docs", "examples"] {
            symlink(top().join(part), folder.join(part))?;
        }
        let login = stack.login()?;
        let program = |name: &str, command: String| -> Result<()> {
            let path = folder.join(name);
            fs::write(&path, format!("#!/bin/bash\nexec {command} \"$@\"\n"))?;
            Ok(fs::set_permissions(path, Permissions::from_mode(0o755))?)
        };
        program("mgmt.sh", format!("'{}'", top().join("mgmt.sh").display()))?;
        // A reader has these settings in the configuration of ssh.
        let ssh = format!("-i '{}' -o UserKnownHostsFile='{}'", login.key.display(), login.known_hosts.display());
        program("bin/ssh", format!("/usr/bin/ssh {ssh} -o BatchMode=yes"))?;
        fs::write(folder.join("management.json"), ansible::SHARED_KERNEL_VARIABLES)?;
        let venv = ansible::venv()?;
        program(
            "bin/ansible-playbook",
            format!("'{}' -e @management.json", venv.join("bin/ansible-playbook").display()),
        )?;
        symlink(stack.management.kubectl(), folder.join("bin/kubectl"))?;
        let mut shell = Shell::new(folder.clone(), folder.join("environment"));
        let path = std::env::var("PATH").unwrap_or_default();
        shell.set("PATH", format!("{}:{path}", folder.join("bin").display()));
        shell.set("ANSIBLE_HOME", folder.join("ansible-home").display().to_string());
        // Servers of another test have the same addresses.
        shell.set("ANSIBLE_SSH_CONTROL_PATH_DIR", folder.join("ssh").display().to_string());
        shell.set("PYTHONDONTWRITEBYTECODE", "1");
        shell.set("LC_ALL", "C.UTF-8");
        Ok(Self { folder, shell })
    }

    fn run(&self, block: &Block) -> Result<String> {
        let begun = Instant::now();
        let text = self.shell.run_block(GUIDE, block)?;
        eprintln!("  {:.1} s", begun.elapsed().as_secs_f32());
        Ok(text)
    }

    /// Runs commands that must fail, and returns their output.
    fn refused(&self, commands: &str) -> Result<String> {
        let (code, text) = self.shell.attempt(commands)?;
        ensure!(code != 0, "this succeeded: {commands}\n{text}");
        Ok(text)
    }

    /// Starts an installation, and kills all of its processes when it prints this line.
    fn cut_off(&self, at: &str) -> Result<()> {
        let mut command = self.shell.command(&format!("export KUBECONFIG=$PWD/management.kubeconfig; {UP}"));
        let mut child = command.stdout(Stdio::piped()).process_group(0).spawn()?;
        let output = child.stdout.take().context("no output")?;
        let mut seen = Vec::new();
        for line in BufReader::new(output).lines() {
            seen.push(line?);
            if seen.last().is_some_and(|line| line.starts_with(at)) {
                break;
            }
        }
        let group = Pid::from_child(&child);
        // An error means that it has ended by itself, which is checked below.
        let _ = kill_process_group(group, Signal::KILL);
        child.wait()?;
        ensure!(seen.last().is_some_and(|line| line.starts_with(at)), "{at:?} was never printed:\n{}", seen.join("\n"));
        eprintln!("cut off at {:?}", seen.last());
        Ok(())
    }

    /// The input file of the guide, with the addresses of these servers.
    fn write_input(&self, stack: &Stack) -> Result<()> {
        let login = stack.login()?;
        let host = |number: u8| {
            json!({
                "name": format!("target-{number}"), "address": format!("10.77.0.{}", 12 + number), "user": "root",
                "hostId": number, "keyFile": login.key,
            })
        };
        let input = json!({
            "kubeconfig": "management.kubeconfig", "namespace": "default", "k8sVersion": kubernetes_version(),
            "sources": {"containerd": "files", "kubernetes": "files", "files": "bundle/hosts"},
            "hosts": [host(1), host(2)],
        });
        Ok(fs::write(self.folder.join("input.json"), serde_json::to_string_pretty(&input)?)?)
    }
}
