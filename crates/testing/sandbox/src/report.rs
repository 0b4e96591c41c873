//! Tables of requests, clusters and hosts.

use cluster_api::Kind;
use cluster_api::byoh::{MACHINE_NAME_LABEL, UNREGISTERING_ANNOTATION};
use cluster_api::labels::{CLUSTER_NAME_LABEL, PAUSED_ANNOTATION};
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::api::ListParams;
use kube::core::DynamicObject;
use kube::{Api, Client, Config, ResourceExt as _};

use anyhow::{Context as _, bail};
use o2ims_types::o2ims::v1alpha1::provisioning_request::HostStatus;
use o2ims_types::{FocomProvisioningRequest, ProvisioningRequest, names};
use serde_json::Value;

use sandbox::{Stack, inventory};

use crate::output::say;

/// The Nodes of a cluster, read with the kubeconfig that users have: the one in Cluster API's Secret.
///
/// # Errors
/// When the Secret does not exist, or the cluster's API does not answer.
pub async fn nodes(client: Client, namespace: &str, cluster: &str) -> anyhow::Result<Vec<Node>> {
    let name = format!("{cluster}-kubeconfig");
    let secret = Api::<Secret>::namespaced(client, namespace).get(&name).await;
    let secret = secret.with_context(|| format!("reading Secret {namespace}/{name}"))?;
    let text = secret.data.and_then(|mut data| data.remove("value"));
    let text = text.with_context(|| format!("Secret {namespace}/{name} has no key `value`"))?;
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&String::from_utf8(text.0)?)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    let nodes = Api::<Node>::all(Client::try_from(config)?).list(&ListParams::default()).await;
    Ok(nodes.with_context(|| format!("asking the API of cluster {cluster}"))?.items)
}

/// Checks that the Nodes are exactly those of `wanted` (names, sorted), and that all are Ready.
///
/// # Errors
/// When they are not; the error names the difference.
pub fn check_nodes(nodes: &[Node], wanted: &[String]) -> anyhow::Result<()> {
    let mut found: Vec<_> = nodes.iter().map(Node::name_any).collect();
    found.sort();
    if found != wanted {
        bail!("the cluster has the nodes {found:?} and not {wanted:?}");
    }
    match nodes.iter().find(|node| !is_ready(node)) {
        Some(node) => bail!("node {} is not Ready", node.name_any()),
        None => Ok(()),
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Prints the requests, their clusters, and all hosts of the namespace with their Machines and Nodes.
///
/// # Errors
/// When the API server cannot be asked.
pub async fn print(
    stack: &Stack,
    by_smo: &FocomProvisioningRequest,
    requests: &[(ProvisioningRequest, Vec<Node>)],
) -> anyhow::Result<()> {
    let client = stack.management.admin();
    let namespace = by_smo.namespace().unwrap_or_default();
    let clusters = inventory::of_kind(client.clone(), &namespace, Kind::Cluster);
    let machines = inventory::of_kind(client.clone(), &namespace, Kind::Machine).list(&ListParams::default()).await?;
    let all_hosts = inventory::hosts(client.clone(), &namespace).list(&ListParams::default()).await?;

    let field = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let (mut rows, mut hosts, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
    for (request, its_nodes) in requests {
        let told = request.status.clone().unwrap_or_default();
        let cluster = request.spec.template_parameters.cluster_name.clone().unwrap_or_default();
        let object = clusters.get(&cluster).await?;
        rows.push(vec![
            request.name_any(),
            told.provisioning_status.provisioning_state.to_string(),
            field(&told.extensions.ready_nodes),
            cluster,
            text(&object.data["status"]["phase"]),
            field(&told.extensions.k8s_version),
            field(&told.extensions.control_plane_endpoint),
        ]);
        hosts.extend(told.extensions.hosts);
        nodes.extend(its_nodes.clone());
    }
    say("");
    let status = by_smo.status.clone().unwrap_or_default();
    table(
        &["FOCOM REQUEST", "O-CLOUD", "PHASE", "STATE", "BECAME"],
        &[vec![
            by_smo.name_any(),
            by_smo.spec.o_cloud_id.clone(),
            status.phase.clone(),
            by_smo.remote_state().unwrap_or("-").to_owned(),
            field(&status.remote_name),
        ]],
    );
    say("");
    table(&["REQUEST", "STATE", "NODES", "CLUSTER", "PHASE", "VERSION", "API"], &rows);
    say("");
    let rows: Vec<_> = all_hosts.iter().map(|host| row(host, &machines.items, &hosts, &nodes)).collect();
    let host = format!("HOST ({})", stack.hosts().name());
    table(&[&host, "ID", "ROLE", "STATE", "MACHINE", "NODE"], &rows);
    say("");
    Ok(())
}

/// The row of a host.
fn row(host: &DynamicObject, machines: &[DynamicObject], states: &[HostStatus], nodes: &[Node]) -> Vec<String> {
    let name = host.name_any();
    let label = |key: &str| host.labels().get(key).cloned().unwrap_or_else(|| "-".to_owned());
    let attached = &host.data["status"]["machineRef"]["name"];
    let machine = machines.iter().find(|machine| machine.data["spec"]["infrastructureRef"]["name"] == *attached);
    let state = states.iter().find(|host| host.host_name == name).map_or("Free", |host| &host.state);
    let node = nodes.iter().find(|node| node.name_any() == name).map(|node| {
        let version =
            node.status.as_ref().and_then(|status| status.node_info.as_ref()).map(|info| &info.kubelet_version);
        let ready = if is_ready(node) { "Ready" } else { "NotReady" };
        format!("{ready} {}", version.map(String::as_str).unwrap_or_default())
    });
    vec![
        name,
        label(names::HOST_ID_LABEL),
        label(names::ROLE_LABEL),
        state.to_owned(),
        machine.map_or_else(|| "-".to_owned(), DynamicObject::name_any),
        node.unwrap_or_else(|| "-".to_owned()),
    ]
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

/// Prints a table.
fn table(head: &[&str], rows: &[Vec<String>]) {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let width = |column: usize| {
        std::iter::once(&head).chain(rows).filter_map(|row| row.get(column)).map(String::len).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    for row in std::iter::once(&head).chain(rows) {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        say(cells.join("  ").trim_end());
    }
}

/// Why a host is not free; `None` if it is. Looks for every sign of use that BYOH and its agent leave, and not at the
/// operator's own result, because that is what is checked.
pub fn in_use(host: &DynamicObject) -> Option<String> {
    let labels = [CLUSTER_NAME_LABEL, MACHINE_NAME_LABEL];
    let annotations = [UNREGISTERING_ANNOTATION, PAUSED_ANNOTATION];
    let (spec, status) = (&host.data["spec"], &host.data["status"]);
    let marks = host.labels().keys().chain(host.annotations().keys());
    let claim = marks.into_iter().find(|key| key.contains(names::GROUP));
    let label = labels.into_iter().find(|key| host.labels().contains_key(*key)).map(ToOwned::to_owned);
    let annotation = annotations.into_iter().find(|key| host.annotations().contains_key(*key)).map(ToOwned::to_owned);
    let secret =
        ["bootstrapSecret", "installationSecret", "uninstallationSecret"].into_iter().find(|key| !spec[key].is_null());
    let machine = (!status["machineRef"].is_null()).then_some("status.machineRef");
    let runs = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "K8sNodeBootstrapSucceeded" && condition["status"] == "True");
    claim
        .cloned()
        .or(label)
        .or(annotation)
        .or_else(|| secret.map(|key| format!("spec.{key}")))
        .or_else(|| machine.map(ToOwned::to_owned))
        .or_else(|| runs.then(|| "K8sNodeBootstrapSucceeded=True".to_owned()))
        .or_else(|| host.metadata.deletion_timestamp.is_some().then(|| "deletionTimestamp".to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn host(part: Value) -> DynamicObject {
        let mut object =
            json!({"metadata": {"name": "target-1", "labels": {"host-id": "1"}}, "spec": {}, "status": {}});
        template_schema::overlay(&mut object, part);
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn every_sign_of_use_is_seen() {
        assert_eq!(in_use(&host(json!({}))), None);
        for sign in [
            json!({"metadata": {"labels": {"cluster.x-k8s.io/cluster-name": "core"}}}),
            json!({"metadata": {"labels": {"o2ims.provisioning.oran.org/request-uid": "u"}}}),
            json!({"metadata": {"labels": {"byoh.infrastructure.cluster.x-k8s.io/byomachine-name": "a.b"}}}),
            json!({"metadata": {"annotations": {"byoh.infrastructure.cluster.x-k8s.io/unregistering": ""}}}),
            json!({"metadata": {"annotations": {"cluster.x-k8s.io/paused": ""}}}),
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            json!({"spec": {"bootstrapSecret": {"name": "x"}}}),
            json!({"spec": {"installationSecret": {"name": "x"}}}),
            json!({"spec": {"uninstallationSecret": {"name": "x"}}}),
            json!({"status": {"machineRef": {"name": "x"}}}),
            json!({"status": {"conditions": [{"type": "K8sNodeBootstrapSucceeded", "status": "True"}]}}),
        ] {
            assert!(in_use(&host(sign.clone())).is_some(), "{sign}");
        }
    }
}
