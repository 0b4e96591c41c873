//! ProvisioningRequests, on servers that have been used before.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Context as _;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::wait::await_condition;
use o2ims_types::{ProvisioningRequest, ProvisioningState};
use sandbox::Stack;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{LIMIT, Times, VERSION};

pub const NAMESPACE: &str = "request";
/// Of clusters with three masters.
pub const THREE: &str = "three";
const ADDRESS: &str = "10.77.0.250";

/// Roles of the two servers change with the round.
pub async fn one_and_one(stack: &mut Stack, round: u8) -> anyhow::Result<Times> {
    let (master, worker) = if round.is_multiple_of(2) { (1, 2) } else { (2, 1) };
    let hosts = json!({"masters": [host(NAMESPACE, master)], "workers": [host(NAMESPACE, worker)]});
    let parameters = json!({"clusterName": format!("request-{round}"), "hosts": hosts});
    Ok(measure(stack, NAMESPACE, parameters, async |_| Ok(())).await?.0)
}

/// Also says how much memory the servers and the operator take.
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

async fn measure<T>(
    stack: &Stack,
    namespace: &str,
    mut parameters: Value,
    look: impl AsyncFnOnce(&Stack) -> anyhow::Result<T>,
) -> anyhow::Result<(Times, T)> {
    const NAME: &str = "request";
    parameters["k8sVersion"] = json!(VERSION);
    let request: ProvisioningRequest = serde_json::from_value(json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {"templateName": "byoh-workload-cluster", "templateVersion": "v1.0.0", "templateParameters": parameters},
    }))?;
    let api: Api<ProvisioningRequest> = Api::namespaced(stack.bed.admin(), namespace);
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

/// Proportional set sizes of all processes of each server, which share pages with each other, and the operator's own.
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
