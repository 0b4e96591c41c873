//! `docs/backup.md`, on servers with three running clusters: the management cluster is restored from a snapshot, and
//! from a copy of its objects. The running clusters are not affected.
#![allow(clippy::too_many_lines, reason = "a scenario is one story, a table one list")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use acceptance::{Block, Shell, blocks};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt as _};
use libtest_mimic::{Arguments, Failed, Trial};
use o2ims_types::{ProvisioningRequest, ProvisioningState};
use sandbox::waiting::wait;
use sandbox::{Stack, StackOptions, installation, inventory};
use serde_json::json;
use testenv::servers::Server;
use testenv::tools::{Tool, tool};

const PAGE: &str = "docs/backup.md";
const NAMESPACE: &str = "site-a";
/// How long a cluster, or a wait for one that is there, may take.
const LIMIT: Duration = Duration::from_secs(400);

fn main() -> ExitCode {
    let backup = || {
        let result = tokio::runtime::Runtime::new().map_err(anyhow::Error::from);
        result.and_then(|runtime| runtime.block_on(backup())).map_err(|error| Failed::from(format!("{error:#}")))
    };
    let mut trials = vec![
        Trial::test("a_management_cluster_is_restored_and_no_cluster_notices", backup)
            // Slow: three clusters on servers take some minutes.
            .with_ignored_flag(true),
    ];
    match testenv::servers::left_out() {
        Ok(None) => {}
        Ok(Some(why)) => {
            eprintln!("LEFT OUT: backup and restore, which need clusters that live by themselves ({why})");
            trials.clear();
        }
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

async fn backup() -> Result<()> {
    let options = StackOptions::new(sandbox::program("o2ims-operator")?).with_servers();
    let mut stack = Stack::start(options, |line| eprintln!("{line}")).await?;
    let result = Box::pin(on(&mut stack)).await;
    result.and(stack.stop().await)
}

async fn on(stack: &mut Stack) -> Result<()> {
    let page = blocks(PAGE)?;
    let page: Vec<_> = page.iter().filter(|block| block.not_run.is_none()).collect();
    let [snapshot, restore_snapshot, copy, restore_copy] = page[..] else {
        anyhow::bail!("{PAGE} has {} blocks that are run, and not the four that this test knows", page.len());
    };
    stack.make_namespace(NAMESPACE).await?;
    stack.apply_cni(NAMESPACE).await?;
    let template = stack.hosts().template().replace("namespace: default", &format!("namespace: {NAMESPACE}"));
    stack.management.apply_yaml(&template).await?;
    stack.power_on(NAMESPACE, "target", 1..=3, false).await?;
    for number in 1..=3 {
        stack.management.apply_yaml(&request(number).to_string()).await?;
    }
    for number in 1..=3 {
        fulfilled(stack, number).await?;
    }
    let before = Running::look(stack).await?;
    let shell = shell(stack).await?;
    let run = |block: &Block| shell.run_block(PAGE, block);

    run(snapshot)?;
    // A cluster that is made after the snapshot is not in it.
    stack.make_namespace("after-the-snapshot").await?;
    stack.operator.take().context("no operator")?.stop().await?;
    stack.management.shut_down().await?;
    run(restore_snapshot)?;
    stack.management.start_again().await?;
    stack.start_operator().await?;
    for number in 1..=3 {
        fulfilled(stack, number).await?;
    }
    before.assert_same(stack, "the snapshot was restored").await?;
    let namespaces: Api<Namespace> = Api::all(stack.management.admin());
    let after = namespaces.get_opt("after-the-snapshot").await?;
    ensure!(after.is_none(), "the management cluster is not that of the snapshot");

    run(copy)?;
    for number in 1..=3 {
        fulfilled(stack, number).await?;
    }
    stack.operator.take().context("no operator")?.stop().await?;
    stack.management.shut_down().await?;
    stack.management.start_empty().await?;
    installation::install_product(&stack.management, stack.hosts()).await?;
    installation::install_provider_parts(&stack.management, stack.hosts()).await?;
    stack.start_operator().await?;
    ensure!(
        requests(stack).list(&ListParams::default()).await?.items.is_empty(),
        "the management cluster is not empty"
    );
    forgotten(stack).await?;
    run(restore_copy)?;
    for number in 1..=3 {
        fulfilled(stack, number).await?;
    }
    before.assert_same(stack, "the copy was restored").await?;

    for number in 1..=3 {
        requests(stack).delete(&format!("request-{number}"), &DeleteParams::default()).await?;
    }
    for number in 1..=3 {
        let gone = |request: Option<&ProvisioningRequest>| request.is_none();
        wait(requests(stack), &format!("request-{number}"), "the request to be gone", LIMIT, gone).await?;
    }
    for server in &stack.servers {
        let left = server.node_processes().await?;
        ensure!(left.is_empty(), "on {} runs still: {left:?}", server.name());
    }
    Ok(())
}

/// A restored management cluster does not have the newest cluster. It gives that cluster's host to another request,
/// because the restarted agent has registered the host as free. The host itself refuses.
async fn forgotten(stack: &Stack) -> Result<()> {
    stack.make_namespace(NAMESPACE).await?;
    stack.apply_cni(NAMESPACE).await?;
    let server = stack.server("target-3")?;
    let before = server.node_processes().await?;
    server.run(&["systemctl", "restart", "byoh-hostagent"]).await?;
    let hosts = inventory::hosts(stack.management.admin(), NAMESPACE);
    let is_there = |host: Option<&DynamicObject>| host.is_some_and(|host| host.data["status"]["hostinfo"].is_object());
    wait(hosts.clone(), "target-3", "the agent to register its host", LIMIT, is_there).await?;
    let mut other = request(3);
    other["metadata"]["name"] = json!("other");
    other["spec"]["templateParameters"]["clusterName"] = json!("other");
    stack.management.apply_yaml(&other.to_string()).await?;
    let refuses = |request: Option<&ProvisioningRequest>| {
        let status = request.and_then(|request| request.status.as_ref());
        status.is_some_and(|status| {
            let told = &status.provisioning_status.provisioning_message;
            told.contains("the host is the node of ByoMachine") && told.contains("nothing was done to it")
        })
    };
    wait(requests(stack), "other", "the host to refuse", LIMIT, refuses).await?;
    requests(stack).delete("other", &DeleteParams::default()).await?;
    let gone = |request: Option<&ProvisioningRequest>| request.is_none();
    wait(requests(stack), "other", "the request to be gone", LIMIT, gone).await?;
    hosts.delete("target-3", &DeleteParams::default()).await?;
    ensure!(
        before.is_subset(&server.node_processes().await?),
        "something was started anew on a host that was forgotten"
    );
    Ok(())
}

/// Makes a cluster of one server.
fn request(number: u32) -> serde_json::Value {
    json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest",
        "metadata": {"name": format!("request-{number}"), "namespace": NAMESPACE},
        "spec": {
            "templateName": "byoh-workload-cluster", "templateVersion": "v1.0.0",
            "templateParameters": {
                "clusterName": format!("cluster-{number}"),
                "hosts": {"masters": [{"hostId": number, "hostName": format!("target-{number}")}]},
            },
        },
    })
}

fn requests(stack: &Stack) -> Api<ProvisioningRequest> {
    Api::namespaced(stack.management.admin(), NAMESPACE)
}

/// Waits until the request reports that its cluster is ready, and nothing else.
async fn fulfilled(stack: &Stack, number: u32) -> Result<()> {
    let is_fulfilled = |request: Option<&ProvisioningRequest>| {
        let status = request.and_then(|request| request.status.as_ref());
        status.map(|status| &status.provisioning_status).is_some_and(|status| {
            status.provisioning_state == ProvisioningState::Fulfilled
                && status.provisioning_message == "cluster is ready: 1 master, 0 workers"
        })
    };
    wait(requests(stack), &format!("request-{number}"), "the cluster to be ready", LIMIT, is_fulfilled).await?;
    Ok(())
}

/// An administrator's shell, with the programs that the page uses.
async fn shell(stack: &Stack) -> Result<Shell> {
    let folder = stack.management.dir().join("administrator");
    std::fs::create_dir_all(&folder)?;
    let mut path = vec![stack.management.kubectl().to_path_buf()];
    for program in [Tool::Clusterctl, Tool::Etcdctl, Tool::Etcdutl] {
        path.push(tool(program, |line| eprintln!("{line}")).await?);
    }
    let folders: Vec<_> = path.iter().filter_map(|program| program.parent()).map(Path::display).collect();
    let folders: Vec<_> = folders.iter().map(ToString::to_string).collect();
    let kubeconfig = folder.join("kubeconfig");
    stack.management.kubeconfig_as("admin", &["system:masters"], &kubeconfig)?;
    let mut shell = Shell::new(folder.clone(), folder.join("environment"));
    shell.set("PATH", format!("{}:{}", folders.join(":"), std::env::var("PATH")?));
    shell.set("HOME", folder.display().to_string());
    shell.set("KUBECONFIG", kubeconfig.display().to_string());
    shell.set("CLUSTERCTL_DISABLE_VERSIONCHECK", "true");
    shell.set("ETCDCTL_ENDPOINTS", stack.management.etcd_address());
    shell.set("ETCD_DATA", stack.management.etcd_data().display().to_string());
    shell.set("NAMESPACE", NAMESPACE);
    Ok(shell)
}

/// Everything that runs: the Machines by name, and the processes of each server.
#[derive(Debug)]
struct Running {
    machines: BTreeSet<String>,
    processes: BTreeSet<(String, String)>,
}

impl Running {
    async fn look(stack: &Stack) -> Result<Self> {
        let machines = inventory::api(stack.management.admin(), NAMESPACE, "cluster.x-k8s.io", "Machine");
        let machines = machines.list(&ListParams::default()).await?;
        let mut processes = BTreeSet::new();
        for server in &stack.servers {
            let server: &Arc<Server> = server;
            let of_server = server.node_processes().await?;
            ensure!(of_server.iter().any(|process| process.ends_with(" etcd")), "etcd is not seen: {of_server:?}");
            processes.extend(of_server.into_iter().map(|process| (server.name().to_owned(), process)));
        }
        Ok(Self { machines: machines.iter().map(kube::ResourceExt::name_any).collect(), processes })
    }

    /// Checks that no Machine was replaced, that no process was restarted, and that no agent is to clean its server.
    async fn assert_same(&self, stack: &Stack, when: &str) -> Result<()> {
        let now = Self::look(stack).await?;
        let same = self.machines == now.machines && self.processes.is_subset(&now.processes);
        ensure!(same, "{when}: what ran was {self:#?}, and is {now:#?}");
        for host in inventory::hosts(stack.management.admin(), NAMESPACE).list(&ListParams::default()).await? {
            let asked = host.annotations().keys().find(|key| key.ends_with("/unregistering"));
            ensure!(asked.is_none(), "{when}: {} is asked to be cleaned", host.name_any());
        }
        Ok(())
    }
}
