//! ProvisioningRequests, on servers that are used for each round.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Context as _;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::wait::await_condition;
use o2ims_types::{ProvisioningRequest, ProvisioningState};
use sandbox::Stack;
use serde_json::{Value, json};
use testenv::kubernetes_version;
use tokio::time::timeout;

use crate::times::{LIMIT, Times};

/// Namespace of the requests for clusters with one master, and prefix of their servers' names.
pub const NAMESPACE: &str = "request";
/// Namespace of the requests for clusters with three masters, and prefix of their servers' names.
pub const THREE: &str = "three";
/// The virtual address of the control plane.
const ADDRESS: &str = "10.77.0.250";

/// Makes and deletes a cluster of one master and one worker. The two servers swap roles each round.
pub async fn one_and_one(stack: &mut Stack, round: u8) -> anyhow::Result<Times> {
    let (master, worker) = if round.is_multiple_of(2) { (1, 2) } else { (2, 1) };
    let hosts = json!({"masters": [host(NAMESPACE, master)], "workers": [host(NAMESPACE, worker)]});
    let parameters = json!({"clusterName": format!("request-{round}"), "hosts": hosts});
    Ok(measure(stack, NAMESPACE, parameters, async |_| Ok(())).await?.0)
}

/// Makes and deletes a cluster of three masters and one worker. Also returns how much memory the servers and the
/// operator take, for people.
pub async fn three_and_one(stack: &mut Stack, round: u8) -> anyhow::Result<(Times, String)> {
    let masters = [1, 2, 3].map(|number| host(THREE, number));
    let hosts = json!({"masters": masters, "workers": [host(THREE, 4)]});
    let endpoint = json!({"host": ADDRESS});
    let parameters = json!({"clusterName": format!("three-{round}"), "hosts": hosts, "controlPlaneEndpoint": endpoint});
    measure(stack, THREE, parameters, memory).await
}

fn host(prefix: &str, number: u8) -> Value {
    json!({"hostId": number, "hostName": format!("{prefix}-{number}")})
}

/// Applies a request, waits until it is fulfilled, calls `look`, deletes the request, and waits until it is gone.
async fn measure<T>(
    stack: &Stack,
    namespace: &str,
    mut parameters: Value,
    look: impl AsyncFnOnce(&Stack) -> anyhow::Result<T>,
) -> anyhow::Result<(Times, T)> {
    const NAME: &str = "request";
    parameters["k8sVersion"] = json!(kubernetes_version());
    let request: ProvisioningRequest = serde_json::from_value(json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {
            "templateName": "byoh-workload-cluster", "templateVersion": "v1.0.0", "templateParameters": parameters,
        },
    }))?;
    let api: Api<ProvisioningRequest> = Api::namespaced(stack.management.admin(), namespace);
    let is_fulfilled = |request: Option<&ProvisioningRequest>| {
        let status = request.and_then(|request| request.status.as_ref());
        status.is_some_and(|status| status.provisioning_status.provisioning_state == ProvisioningState::Fulfilled)
    };
    let begun = Instant::now();
    api.create(&PostParams::default(), &request).await?;
    let fulfilled = await_condition(api.clone(), NAME, is_fulfilled);
    timeout(LIMIT, fulfilled).await.context("the request is not fulfilled")??;
    let up = begun.elapsed();
    let seen = look(stack).await?;

    let begun = Instant::now();
    api.delete(NAME, &DeleteParams::default()).await?;
    let gone = await_condition(api, NAME, |request: Option<&ProvisioningRequest>| request.is_none());
    timeout(LIMIT, gone).await.context("the request stays")??;
    Ok((Times { up, down: begun.elapsed() }, seen))
}

/// Memory of each server's processes and of the operator. Processes share pages, so it is measured as proportional set
/// size.
async fn memory(stack: &Stack) -> anyhow::Result<String> {
    const SUM: &str = "cat /proc/[0-9]*/smaps_rollup 2>/dev/null | awk '/^Pss:/ {sum += $2} END {print sum}'";
    let mut text = "\nMemory (MiB, proportional set size) with three masters and one worker\n\n".to_owned();
    for server in &stack.servers {
        let kibibytes: u64 = server.run(&["bash", "-c", SUM]).await?.trim().parse()?;
        let _ = writeln!(text, "* {}: {}", server.name(), kibibytes / 1024);
    }
    let id = stack.operator.as_ref().and_then(sandbox::Operator::id).context("the operator does not run")?;
    let rollup = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
    let own = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse::<u64>().ok());
    let _ = writeln!(text, "* operator (a debug build): {}", own.unwrap_or_default() / 1024);
    Ok(text)
}
