//! kubeadm on the command line of two servers.

use std::time::Instant;

use anyhow::Context as _;
use futures::future::try_join;
use sandbox::Stack;
use serde_json::Value;
use testenv::kubernetes_version;
use testenv::servers::Server;

use crate::times::Times;

const CONFIGURATION: &str = include_str!("../manifests/kubeadm.yaml");
/// The machine may have control groups of version 1, which kubeadm refuses from 1.35 on.
const IGNORED: &str = "--ignore-preflight-errors=SystemVerification";
const KUBECTL: &str = "kubectl --kubeconfig /etc/kubernetes/admin.conf";

/// Makes and resets a cluster of one master and one worker, on new servers.
pub async fn one_and_one(stack: &mut Stack, round: u8) -> anyhow::Result<Times> {
    let names = [1, 2].map(|number| format!("hand-{round}-{number}"));
    let master = stack.bare_server(&names[0], 120 + 2 * round)?;
    let worker = stack.bare_server(&names[1], 121 + 2 * round)?;
    try_join(master.power_on(), worker.power_on()).await?;
    let configuration =
        CONFIGURATION.replace("ADDRESS", &master.address().to_string()).replace("VERSION", kubernetes_version());
    let network: Value = serde_saphyr::from_multiple::<Value>(stack.hosts().cni())?.remove(0);
    let network = network["data"]["cni.yaml"].as_str().context("the CNI has no manifest")?;

    let begun = Instant::now();
    let file = "/root/kubeadm.yaml";
    shell(&master, &format!("cat >{file} <<'END'\n{configuration}\nEND\nkubeadm init --config {file} {IGNORED}"))
        .await?;
    shell(&master, &format!("{KUBECTL} apply -f - <<'END'\n{network}\nEND")).await?;
    let join = shell(&master, "kubeadm token create --print-join-command").await?;
    shell(&worker, &format!("{} {IGNORED}", join.trim())).await?;
    for condition in ["create", "condition=Ready"] {
        let nodes = names.each_ref().map(|name| format!("node/{name}")).join(" ");
        shell(&master, &format!("{KUBECTL} wait --for={condition} --timeout=120s {nodes}")).await?;
    }
    let up = begun.elapsed();

    let begun = Instant::now();
    try_join(shell(&worker, "kubeadm reset --force"), shell(&master, "kubeadm reset --force")).await?;
    let down = begun.elapsed();
    for name in &names {
        stack.remove_server(name).await?;
    }
    Ok(Times { up, down })
}

async fn shell(server: &Server, command: &str) -> anyhow::Result<String> {
    server.run(&["bash", "-c", command]).await
}
