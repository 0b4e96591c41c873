//! The same on a virtual machine: a kernel of its own, control groups of version 2, and a disk that survives a power cut.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use k8s_openapi::jiff::{Timestamp, ToSpan as _};
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ObjectMeta;
use kube::{Api, Client, Config, ResourceExt as _};
use o2ims_types::{ProvisioningRequest, ProvisioningState, conditions, names};
use operator_kit::write::status::find;
use sandbox::installation::as_built;
use sandbox::waiting::wait;
use sandbox::{Stack, StackOptions, inventory};
use serde_json::{Value, json};
use testenv::kubernetes_version;
use testenv::servers::{VirtualMachine, no_hardware};

use super::{Control, Outcome, ssh_options, state};

const NAME: &str = "target-1";
const REQUEST: &str = "on-a-virtual-machine";
const KUBECONFIG: &str = "core-kubeconfig";
/// By software emulation everything takes ten to twenty times as long.
const LIMIT: Duration = Duration::from_secs(3600);
/// How often an API server that starts is tried.
const POLL: Duration = Duration::from_secs(1);
/// The template of the examples, with more time.
const TEMPLATE: &str = include_str!("../../../../../examples/cluster-template.yaml");
const MORE_TIME: &str = "
  timeouts: {controlPlane: 60m, workers: 60m, deletion: 60m}
  kubeadm:
    controlPlane:
      initConfiguration:
        timeouts: {controlPlaneComponentHealthCheckSeconds: 1800, kubeletHealthCheckSeconds: 1800}
      # Cluster API wants the same value in both.
      joinConfiguration:
        timeouts: {controlPlaneComponentHealthCheckSeconds: 1800}
";
/// Fails where the kubelet takes, or would take, control groups of version 1.
const CONTROL_GROUPS: &str = "set -ex
test \"$(stat -fc %T /sys/fs/cgroup)\" = cgroup2fs
if grep -i failCgroupV1 /var/lib/kubelet/config.yaml; then exit 1; fi
if tr '\\0' '\\n' </proc/$(pidof kubelet)/cmdline | grep -i fail-cgroupv1; then exit 1; fi
grep -x 'cgroupDriver: systemd' /var/lib/kubelet/config.yaml
test -d /sys/fs/cgroup/kubepods.slice";
/// Prints what is left of a host.
const LEFT: &str = "ls -d /usr/local/bin/byoh-hostagent /usr/local/bin/kubelet /opt/kubernetes /usr/bin/containerd \
    /etc/containerd /etc/systemd/system/kubelet.service /etc/systemd/system/swap.d /etc/byoh /etc/sysctl.d/*o2ims* \
    /etc/modules-load.d/*o2ims* /etc/systemd/system/*.d/*o2ims* /etc/default/kubelet /etc/kubernetes/manifests/* \
    /var/lib/etcd/* /var/lib/kubelet/* /sys/fs/cgroup/kubepods.slice 2>/dev/null
    grep -e kubelet -e containerd /proc/mounts
    ps -eo comm= | grep -E '^(etcd|kube.*|coredns|containerd.*|byoh.*)$'
    true";

/// The playbook makes the machine a host; a cluster on it comes back after a reboot and after a power cut, and is well a year later; it is deleted,
/// and a reset leaves nothing.
pub fn host_and_cluster(venv: &Path) -> Outcome {
    tokio::runtime::Runtime::new()?.block_on(async {
        let line = |line: &str| eprintln!("{line}");
        match no_hardware() {
            Some(why) => eprintln!("the virtual machine runs by SOFTWARE EMULATION: {why}"),
            None => eprintln!("the virtual machine runs on the processor (KVM)"),
        }
        let mut stack =
            Stack::start(StackOptions::new(sandbox::program("o2ims-operator")?).with_servers(), line).await?;
        let result = story(&mut stack, venv).await;
        result.and(stack.stop().await)
    })
}

async fn story(stack: &mut Stack, venv: &Path) -> Outcome {
    let times = Times { begun: Instant::now() };
    let machine = stack.virtual_machine(NAME, 11).await?;
    times.say("its disk is made");
    machine.power_on().await?;
    times.say("sshd answers");
    let own = machine.run(&["uname", "-r"]).await?;
    let shared = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    ensure!(own != shared, "the machine has the kernel of this one: {own}");

    let control = control(stack, venv, &machine).await?;
    let first = control.run("site.yaml", &[]).await?.succeeded()?;
    first.says(&format!("{NAME} (10.77.0.11, hostId 1) is registered"))?;
    let second = control.run("site.yaml", &[]).await?.succeeded()?;
    ensure!(second.count(NAME, "changed")? == 0, "a second run has changed the machine:\n{}", second.text);
    times.say("it is a host");

    stack.management.apply_yaml(&template()).await?;
    stack.management.apply_yaml(&request()).await?;
    let requests: Api<ProvisioningRequest> = Api::namespaced(stack.management.admin(), "default");
    let is_fulfilled = |request: Option<&ProvisioningRequest>| request.and_then(state).as_deref() == Some("fulfilled");
    wait(requests.clone(), REQUEST, "the cluster", LIMIT, is_fulfilled).await?;
    times.say("its cluster is fulfilled");
    machine.run(&["bash", "-c", CONTROL_GROUPS]).await?;

    let cluster = client(stack).await?;
    machine.reboot().await?;
    times.say("it has started again");
    is_back(&cluster, &machine).await?;
    wait(requests.clone(), REQUEST, "the cluster after a reboot", LIMIT, is_fulfilled).await?;
    times.say("the cluster is back after a reboot");

    // What the API server has answered is on the disk, whatever happens then.
    let written: Api<ConfigMap> = Api::namespaced(cluster.clone(), "default");
    let metadata = ObjectMeta { name: Some("written".to_owned()), ..ObjectMeta::default() };
    written.create(&PostParams::default(), &ConfigMap { metadata, ..ConfigMap::default() }).await?;
    machine.power_cycle().await?;
    times.say("it has started after a power cut");
    is_back(&cluster, &machine).await?;
    written.get("written").await.context("a write was lost by the power cut")?;
    wait(requests.clone(), REQUEST, "the cluster after a power cut", LIMIT, is_fulfilled).await?;
    times.say("the cluster is back after a power cut");

    a_year(stack, &machine, &requests, &times).await?;

    requests.delete(REQUEST, &DeleteParams::default()).await?;
    wait(requests, REQUEST, "the end of the cluster", LIMIT, |request| request.is_none()).await?;
    times.say("the cluster is deleted");
    let hosts = inventory::hosts(stack.management.admin(), "default");
    let host = hosts.get(NAME).await?;
    let is_attached = |label: &String| label.contains("byomachine") || label.contains("request-uid");
    let labels = host.metadata.labels.unwrap_or_default();
    ensure!(!labels.keys().any(is_attached), "the host is not free: {labels:?}");

    control.run("reset.yaml", &["-e", &format!("hosts={NAME}"), "-e", "purge=true"]).await?.succeeded()?;
    ensure!(hosts.list(&ListParams::default()).await?.items.is_empty(), "the host is still registered");
    let left = machine.run(&["bash", "-c", LEFT]).await?;
    ensure!(left.trim().is_empty(), "left on a machine that was reset:\n{left}");
    times.say("nothing is left on it");
    Ok(())
}

/// Sets the clock of the machine, and starts what would have looked at it in the meantime.
const SET_CLOCK: &str = r#"set -ex
date --set="$1"
systemctl restart kubelet o2ims-host"#;
/// Until when the certificate of the API server is valid, such as `Nov 30 12:00:00 2027 GMT`.
const END: &str = "openssl x509 -noout -enddate -in /etc/kubernetes/pki/apiserver.crt | cut -d = -f 2";

/// Nobody touches the cluster for a year: its certificates are renewed in time, and it is fulfilled after the day on which the first ones ended. The clock
/// of the management cluster stays, so the kubeconfig that Cluster API uses, which it renews itself by that clock, is made anew here.
async fn a_year(
    stack: &Stack,
    machine: &VirtualMachine,
    requests: &Api<ProvisioningRequest>,
    times: &Times,
) -> Outcome {
    let hosts = inventory::hosts(stack.management.admin(), "default");
    let dates = |host: Option<&DynamicObject>| -> Option<(Timestamp, Timestamp)> {
        let told: Value = serde_json::from_str(host?.annotations().get(names::CERTIFICATES_ANNOTATION)?).ok()?;
        Some((told["agent"].as_str()?.parse().ok()?, told["controlPlane"].as_str()?.parse().ok()?))
    };
    let (agent, control_plane) = dates(Some(&hosts.get(NAME).await?)).context("the host reports no dates")?;
    let end = machine.run(&["bash", "-c", END]).await?.trim().to_owned();

    machine.run(&["bash", "-c", SET_CLOCK, "set", "+310 days"]).await?;
    let is_renewed = |host: Option<&DynamicObject>| {
        let has_job = host.is_some_and(|host| host.annotations().contains_key(names::JOB_ANNOTATION));
        !has_job && dates(host).is_some_and(|now| now.0 > agent && now.1 > control_plane + 7200.hours())
    };
    wait(hosts, NAME, "the renewal of the certificates", LIMIT, is_renewed).await?;
    times.say("310 days later its certificates are renewed");

    let secrets: Api<Secret> = Api::namespaced(stack.management.admin(), "default");
    let old = secrets.get(KUBECONFIG).await?.uid();
    secrets.delete(KUBECONFIG, &DeleteParams::default()).await?;
    let is_new = |secret: Option<&Secret>| secret.is_some_and(|secret| secret.uid() != old);
    wait(secrets, KUBECONFIG, "another kubeconfig", LIMIT, is_new).await?;
    machine.run(&["bash", "-c", SET_CLOCK, "set", &format!("{end} + 60 seconds")]).await?;
    let ended = control_plane;
    let beats = |node: &Node| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
        ready.any(|ready| ready.last_heartbeat_time.as_ref().is_some_and(|time| time.0 > ended))
    };
    let cluster = client(stack).await?;
    let nodes: Api<Node> = Api::all(cluster);
    let beats = |node: Option<&Node>| node.is_some_and(beats);
    wait(nodes, NAME, "the node to be Ready a year later", LIMIT, beats).await?;
    // Cluster API has to find out that its old kubeconfig has ended.
    let is_well = |request: Option<&ProvisioningRequest>| {
        let Some(status) = request.and_then(|request| request.status.as_ref()) else { return false };
        let is_true = |type_: &str| find(&status.conditions, type_).is_some_and(|told| told.status == "True");
        status.provisioning_status.provisioning_state == ProvisioningState::Fulfilled
            && is_true(conditions::CERTIFICATES_VALID)
            && find(&status.conditions, conditions::DEGRADED).is_none_or(|told| told.status != "True")
    };
    wait(requests.clone(), REQUEST, "the cluster a year later", LIMIT, is_well).await?;
    let shown = inventory::api(stack.management.admin(), "default", "cluster.x-k8s.io", "Cluster").get("core").await?;
    let connected = shown.data["status"]["conditions"].as_array().into_iter().flatten();
    let probe = connected.filter(|told| told["type"] == "RemoteConnectionProbe").all(|told| told["status"] == "True");
    ensure!(probe, "Cluster API is not connected: {}", shown.data["status"]["conditions"]);
    times.say("a year later, after the end of its first certificates, it is fulfilled");
    Ok(())
}

/// Says when each part of the story is through.
struct Times {
    begun: Instant,
}

impl Times {
    fn say(&self, what: &str) {
        eprintln!("{:6.1} s: {what}", self.begun.elapsed().as_secs_f32());
    }
}

/// A folder with the input for the machine, and ansible.
async fn control(stack: &Stack, venv: &Path, machine: &VirtualMachine) -> anyhow::Result<Control> {
    let files = testenv::servers::host_files(|line| eprintln!("{line}")).await?;
    let folder = stack.management.dir().join("control");
    std::fs::create_dir(&folder)?;
    stack.management.kubeconfig_as("platform-operator", &["system:masters"], &folder.join("management.kubeconfig"))?;
    let login = stack.login()?;
    let input = json!({
        "kubeconfig": "management.kubeconfig", "k8sVersion": kubernetes_version(),
        "sources": {"containerd": "files", "kubernetes": "files", "files": files},
        "hosts": [{"name": NAME, "address": machine.address(), "user": "root", "hostId": 1, "keyFile": login.key}],
    });
    std::fs::write(folder.join("input.json"), input.to_string())?;
    let kubectl = stack.management.kubectl().parent().context("kubectl is in a folder")?.to_path_buf();
    let ssh = format!("{} -o ConnectTimeout=60", ssh_options(&login));
    // Nothing is shared, so nothing is set but what saves time.
    let variables = json!({"agent_registration_seconds": 1200, "ansible_pipelining": true}).to_string();
    Ok(Control { folder, venv: venv.to_path_buf(), kubectl, ssh, variables })
}

fn template() -> String {
    as_built(&TEMPLATE.replace("v1.0.0", "v2.0.0")) + MORE_TIME
}

fn request() -> String {
    json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest",
        "metadata": {"name": REQUEST, "namespace": "default"},
        "spec": {
            "templateName": "byoh-workload-cluster", "templateVersion": "v2.0.0",
            "templateParameters": {
                "clusterName": "core", "k8sVersion": kubernetes_version(),
                "hosts": {"masters": [{"hostId": 1, "hostName": NAME}]},
            },
        },
    })
    .to_string()
}

/// A client from the Secret with the cluster's kubeconfig, as a user would use it.
async fn client(stack: &Stack) -> anyhow::Result<Client> {
    let secret: Secret = Api::namespaced(stack.management.admin(), "default").get(KUBECONFIG).await?;
    let text = secret.data.and_then(|mut data| data.remove("value")).context("the kubeconfig has no value")?.0;
    let kubeconfig = Kubeconfig::from_yaml(&String::from_utf8(text)?)?;
    Ok(Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)?)
}

/// Waits until the node says that it is Ready since the machine's last start.
async fn is_back(cluster: &Client, machine: &VirtualMachine) -> Outcome {
    let started = machine.run(&["cat", "/proc/sys/kernel/random/boot_id"]).await?;
    let is_back = |node: Option<&Node>| {
        let Some(status) = node.and_then(|node| node.status.as_ref()) else { return false };
        let is_ready = |condition: &k8s_openapi::api::core::v1::NodeCondition| {
            condition.type_ == "Ready" && condition.status == "True"
        };
        status.node_info.as_ref().is_some_and(|info| info.boot_id == started.trim())
            && status.conditions.iter().flatten().any(is_ready)
    };
    let begun = Instant::now();
    loop {
        let left = LIMIT.saturating_sub(begun.elapsed());
        match wait(Api::all(cluster.clone()), NAME, "the node after a start", left, is_back).await {
            // The API server starts after sshd, and a watch ends with it.
            Err(_) if begun.elapsed() < LIMIT => tokio::time::sleep(POLL).await,
            ended => return ended.map(drop),
        }
    }
}
