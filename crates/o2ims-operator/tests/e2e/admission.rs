//! What the API server refuses, so that no tool and no slip takes a running cluster down.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use cluster_api::Kind;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};
use o2ims_types::{ClusterTemplate, FocomProvisioningRequest, ProvisioningRequest, ProvisioningState as State, names};
use sandbox::{Stack, StackOptions, inventory};
use serde_json::{Value, json};
use testenv::tools::{Tool, tool};
use tokio::process::Command;

use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Shared, Tenant, alone_with, shared, wait};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared("a_forced_change_is_refused_and_the_cluster_lives", forced),
        shared("a_protected_request_keeps_its_cluster_also_in_a_namespace_that_is_deleted", protected),
        shared("a_helm_release_that_is_rolled_back_keeps_its_cluster", rolled_back),
        shared("what_stands_for_a_cluster_is_not_deleted_by_a_slip", guards),
        shared("the_number_of_machines_is_what_the_request_says", size),
        shared("a_kind_that_clusters_are_made_of_is_not_deleted_by_a_slip", kinds),
        alone_with("nothing_that_is_refused_keeps_an_object_from_being_deleted", bare, finalizers),
    ]
}

/// Without Cluster API and hosts.
fn bare(mut options: StackOptions) -> StackOptions {
    options.management.cluster_api = false;
    options.management.byoh = false;
    options
}

/// Whether kubectl did it, and what it said.
pub struct Said {
    pub well: bool,
    pub words: String,
}

pub async fn kubectl(stack: &Stack, arguments: &[&str]) -> anyhow::Result<Said> {
    let kubeconfig = stack.management.dir().join("user.kubeconfig");
    if !kubeconfig.exists() {
        stack.management.kubeconfig_as("jane", &["system:masters"], &kubeconfig)?;
    }
    let output = Command::new(stack.management.kubectl())
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(CLUSTER, output).await.with_context(|| format!("kubectl {arguments:?}"))??;
    let words = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(Said { well: output.status.success(), words })
}

/// A kubectl command that is refused with 403 and these words.
pub async fn refused(stack: &Stack, arguments: &[&str], words: &[&str]) -> Outcome {
    let said = kubectl(stack, arguments).await?;
    ensure!(!said.well, "not refused: kubectl {arguments:?}: {}", said.words);
    for words in ["orbidden"].iter().chain(words) {
        ensure!(said.words.contains(words), "kubectl {arguments:?} does not say {words:?}: {}", said.words);
    }
    Ok(())
}

pub async fn done(stack: &Stack, arguments: &[&str]) -> Outcome {
    let said = kubectl(stack, arguments).await?;
    ensure!(said.well, "kubectl {arguments:?}: {}", said.words);
    Ok(())
}

pub fn write(stack: &Stack, name: &str, object: &Value) -> anyhow::Result<String> {
    let path = stack.management.dir().join(name);
    std::fs::write(&path, serde_json::to_vec_pretty(object)?)?;
    text(&path)
}

fn text(path: &Path) -> anyhow::Result<String> {
    Ok(path.to_str().context("not UTF-8")?.to_owned())
}

/// Name and UID of every Machine, which are others when a node was made anew.
async fn machines(client: Client, namespace: &str) -> anyhow::Result<Vec<(String, Option<String>)>> {
    let machines = inventory::of_kind(client, namespace, Kind::Machine).list(&ListParams::default()).await?;
    ensure!(machines.iter().all(|machine| machine.metadata.deletion_timestamp.is_none()), "a Machine is being deleted");
    Ok(machines.iter().map(|machine| (machine.name_any(), machine.uid())).collect())
}

/// The files of a user whose tool has a `--force`.
async fn forced(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "forced", 2).await?;
    let good = tenant.request("request", "site", &[1], &[2]);
    let file = write(&stack, "forced.json", &good)?;
    done(&stack, &["apply", "-f", &file]).await?;
    let before = tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    let nodes = machines(stack.management.admin(), &tenant.namespace).await?;

    let mut other = good.clone();
    other["spec"]["templateParameters"]["k8sVersion"] = json!("v1.32.0");
    let file = write(&stack, "forced-other.json", &other)?;
    let words = ["spec.templateParameters.k8sVersion cannot change from none to \"v1.32.0\" (the cluster has "];
    refused(&stack, &["apply", "--force", "-f", &file], &words).await?;
    refused(&stack, &["apply", "--server-side", "--force-conflicts", "-f", &file], &words).await?;
    refused(&stack, &["replace", "-f", &file], &words).await?;

    // What deletes first is stopped by the protection alone.
    let key = names::DELETION_PROTECTION_ANNOTATION;
    let protect = ["annotate", "pr", "request", "-n", "forced"];
    // What somebody means by any other value than `false` is protection.
    for value in ["yes", "True", "", "true"] {
        done(&stack, &[&protect[..], &[&format!("{key}={value}"), "--overwrite"]].concat()).await?;
        let words = ["ProvisioningRequest forced/request is protected from deletion"];
        refused(&stack, &["delete", "pr", "request", "-n", "forced"], &words).await?;
    }
    let way_out = format!("kubectl annotate pr request -n forced {key}=false --overwrite");
    let words = ["ProvisioningRequest forced/request is protected from deletion", way_out.as_str()];
    refused(&stack, &["replace", "--force", "-f", &file], &words).await?;
    // A value that is wrong by itself is Invalid, which is leave to delete for kubectl.
    let mut wrong = good.clone();
    wrong["spec"]["templateParameters"]["k8sVersion"] = json!("1.32");
    let invalid = write(&stack, "forced-invalid.json", &wrong)?;
    refused(&stack, &["apply", "--force", "-f", &invalid], &words).await?;
    for arguments in [
        &["delete", "pr", "request", "-n", "forced"][..],
        &["delete", "pr", "--all", "-n", "forced"],
        &["delete", "pr", "request", "-n", "forced", "--cascade=orphan"],
        &["delete", "-f", &file, "--now"],
    ] {
        refused(&stack, arguments, &words).await?;
    }
    let now = tenant.until("request", State::Fulfilled, "", SOON).await?;
    ensure!(now.uid() == before.uid() && now.metadata.deletion_timestamp.is_none(), "another request");
    ensure!(machines(stack.management.admin(), &tenant.namespace).await? == nodes, "other Machines");

    // What the cluster has by default may be written out.
    let status = now.status.context("no status")?.extensions;
    let mut pinned = good.clone();
    let endpoint = status.control_plane_endpoint.context("no endpoint")?;
    let (host, _) = endpoint.split_once(':').context("no port")?;
    pinned["spec"]["templateParameters"]["k8sVersion"] = json!(status.k8s_version);
    pinned["spec"]["templateParameters"]["controlPlaneEndpoint"] = json!({"host": host});
    done(&stack, &["apply", "-f", &write(&stack, "forced-pinned.json", &pinned)?]).await?;
    let told = tenant.until("request", State::Fulfilled, "cluster is ready", SOON).await?;
    ensure!(machines(stack.management.admin(), &tenant.namespace).await? == nodes, "other Machines: {:?}", told.status);

    // By the words of the refusal; then it does what it says, which is why there is the protection.
    done(&stack, &way_out.split(' ').skip(1).collect::<Vec<_>>()).await?;
    done(&stack, &["replace", "--force", "-f", &write(&stack, "forced.json", &good)?]).await?;
    let after = tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    ensure!(after.uid() != before.uid(), "nothing was replaced");
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

async fn protected(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "protected", 2).await?;
    let mut request = tenant.request("request", "site", &[1], &[2]);
    request["metadata"]["annotations"] = json!({names::DELETION_PROTECTION_ANNOTATION: "true"});
    tenant.apply(&request).await?;
    let before = tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    let nodes = machines(stack.management.admin(), &tenant.namespace).await?;

    let namespaces: Api<Namespace> = Api::all(stack.management.admin());
    namespaces.delete("protected", &DeleteParams::default()).await?;
    // Every kind has been tried when the namespace says what is in the way.
    let says_so = |namespace: Option<&Namespace>| {
        let conditions = namespace.and_then(|namespace| namespace.status.as_ref()?.conditions.as_ref());
        conditions.into_iter().flatten().any(|condition| {
            let message = condition.message.as_deref().unwrap_or_default();
            condition.type_ == "NamespaceDeletionContentFailure"
                && ["is protected from deletion", "Cluster protected/site is a part of the cluster"]
                    .iter()
                    .all(|words| message.contains(words))
        })
    };
    wait(namespaces.clone(), "protected", "the namespace to say what is in the way", CLUSTER, says_so).await?;
    let now = tenant.requests().get("request").await?;
    ensure!(now.uid() == before.uid() && now.metadata.deletion_timestamp.is_none(), "the request is being deleted");
    ensure!(machines(stack.management.admin(), &tenant.namespace).await? == nodes, "other Machines");
    ensure!(tenant.ready_nodes("site").await? == [tenant.host(1), tenant.host(2)]);

    request["metadata"]["annotations"] = json!({names::DELETION_PROTECTION_ANNOTATION: "false"});
    tenant.apply(&request).await?;
    wait(namespaces, "protected", "the namespace to be gone", CLUSTER, |namespace: Option<&Namespace>| {
        namespace.is_none()
    })
    .await?;
    Ok(())
}

/// Objects of a kind in the namespace, with their names.
/// A chart with a request. Its second revision adds the request and something that is never ready, so that Helm takes it back.
async fn rolled_back(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "released", 2).await?;
    let helm = tool(Tool::Helm, |line| eprintln!("{line}")).await?;
    let chart = stack.management.dir().join("released-chart");
    std::fs::create_dir_all(chart.join("templates"))?;
    std::fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: released\nversion: 1.0.0\n")?;
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "released"}});
    std::fs::write(chart.join("templates/config.yaml"), config.to_string())?;
    let kubeconfig = stack.management.dir().join("helm.kubeconfig");
    stack.management.kubeconfig_as("jane", &["system:masters"], &kubeconfig)?;
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(&helm);
        command.arg("--kubeconfig").arg(&kubeconfig).args(["--namespace", "released"]).args(arguments);
        command.env("HOME", stack.management.dir()).stdin(Stdio::null()).kill_on_drop(true);
        let output =
            tokio::time::timeout(CLUSTER, command.output()).await.with_context(|| format!("helm {arguments:?}"))??;
        let words = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::Ok(Said { well: output.status.success(), words })
    };
    let chart_path = text(&chart)?;
    let installed = run(&["install", "site", &chart_path]).await?;
    ensure!(installed.well, "{}", installed.words);

    let mut request = tenant.request("request", "site", &[1], &[2]);
    request["metadata"]["annotations"] = json!({names::DELETION_PROTECTION_ANNOTATION: "true"});
    std::fs::write(chart.join("templates/request.yaml"), request.to_string())?;
    let labels = json!({"app": "never-ready"});
    let never_ready = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "never-ready"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "none", "image": "none"}]}},
        },
    });
    std::fs::write(chart.join("templates/never-ready.yaml"), never_ready.to_string())?;
    let upgraded = run(&["upgrade", "site", &chart_path, "--rollback-on-failure", "--timeout", "15s"]).await?;
    ensure!(!upgraded.well, "it was taken for ready: {}", upgraded.words);
    let there = tenant.until("request", State::Fulfilled, "cluster is ready", CLUSTER).await?;
    let uninstalled = run(&["uninstall", "site"]).await?;
    let words = "ProvisioningRequest released/request is protected from deletion";
    // Helm may have taken the request out of the release by then, and says nothing of it.
    ensure!(uninstalled.well || uninstalled.words.contains(words), "{}", uninstalled.words);
    let now = tenant.until("request", State::Fulfilled, "cluster is ready", SOON).await?;
    ensure!(now.uid() == there.uid() && now.metadata.deletion_timestamp.is_none(), "{}", upgraded.words);

    let unprotect =
        Patch::Merge(json!({"metadata": {"annotations": {names::DELETION_PROTECTION_ANNOTATION: "false"}}}));
    tenant.requests().patch("request", &PatchParams::default(), &unprotect).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

async fn of_kind(
    client: &Client,
    namespace: &str,
    group: &str,
    kind: &str,
) -> anyhow::Result<(Api<DynamicObject>, Vec<String>)> {
    let api = inventory::api(client.clone(), namespace, group, kind);
    let objects = api.list(&ListParams::default()).await.with_context(|| format!("listing {kind}"))?;
    let names: Vec<_> = objects.iter().map(kube::ResourceExt::name_any).collect();
    ensure!(!names.is_empty(), "no {kind}");
    Ok((api, names))
}

async fn guards(stack: Shared) -> Outcome {
    const CAPI: &str = "cluster.x-k8s.io";
    const BYOH: &str = "infrastructure.cluster.x-k8s.io";
    let tenant = Tenant::new(&stack, "guards", 2).await?;
    let namespace = tenant.namespace.as_str();
    tenant.apply(&tenant.request("request", "site", &[1], &[2])).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    let nodes = machines(stack.management.admin(), namespace).await?;
    let masters = "cluster.x-k8s.io/control-plane";
    let is_master = async |name: &str| {
        let machine = inventory::api(stack.management.admin(), namespace, CAPI, "Machine").get(name).await?;
        anyhow::Ok(machine.labels().contains_key(masters))
    };

    let user = stack.management.client_as("jane", &["system:masters"])?;
    let try_only = DeleteParams::default().dry_run();
    let all = "system:masters";
    let controllers = [
        ("system:serviceaccount:kube-system:generic-garbage-collector", "system:serviceaccounts:kube-system"),
        ("capi:core", "system:serviceaccounts:capi-system"),
        ("system:serviceaccount:elsewhere:capi-kubeadm-control-plane-manager", "system:serviceaccounts:elsewhere"),
        ("system:serviceaccount:byoh-system:byoh-controller-manager", "system:serviceaccounts:byoh-system"),
        ("system:serviceaccount:o2ims-system:o2ims-operator", "system:serviceaccounts:o2ims-system"),
    ];
    let controllers: Vec<_> = controllers
        .iter()
        .map(|(user, group)| stack.management.client_as(user, &[group, all]))
        .collect::<Result<_, _>>()?;
    let namespace_controller = stack.management.client_as(
        "system:serviceaccount:kube-system:namespace-controller",
        &["system:serviceaccounts:kube-system", all],
    )?;
    let mut kinds = 0;
    for (group, kind, words) in [
        (CAPI, "Cluster", "is a part of the cluster of ProvisioningRequest guards/request"),
        (
            "controlplane.cluster.x-k8s.io",
            "KubeadmControlPlane",
            "is a part of the cluster of ProvisioningRequest guards/request",
        ),
        // It takes annotations over from its MachineDeployment, which is tried after it.
        (CAPI, "MachineSet", "is a part of the cluster"),
        (CAPI, "MachineDeployment", "is a part of the cluster of ProvisioningRequest guards/request"),
        (CAPI, "Machine", "with its only master a cluster is lost"),
        (BYOH, "ByoCluster", "is a part of the cluster"),
        (BYOH, "ByoMachine", "is a part of the cluster"),
        (BYOH, "ByoHost", "is in use by ProvisioningRequest guards/request"),
    ] {
        let (api, found) = of_kind(&user, namespace, group, kind).await?;
        for name in &found {
            if kind == "Machine" && !is_master(name).await? {
                // To have a worker made anew is a repair.
                api.delete(name, &try_only).await.with_context(|| format!("the worker {name}"))?;
            } else {
                must_refuse(api.delete(name, &DeleteParams::default()).await.map(drop), kind, words)?;
                kinds += 1;
            }
            let there = inventory::api(namespace_controller.clone(), namespace, group, kind);
            must_refuse(there.delete(name, &try_only).await.map(drop), kind, "")?;
            for client in &controllers {
                let there = inventory::api(client.clone(), namespace, group, kind);
                match there.delete(name, &try_only).await {
                    // Of a host in use BYOH thinks the same.
                    Err(kube::Error::Api(status)) if kind == "ByoHost" && status.message.contains("MachineRef") => {}
                    answer => drop(answer.with_context(|| format!("{kind} {name} by a controller"))?),
                }
            }
            // The words that let it go: ours, and clusterctl's. Nobody but its agent may annotate a ByoHost.
            if kind == "ByoHost" {
                continue;
            }
            for key in [names::ALLOW_DELETION_ANNOTATION, "clusterctl.cluster.x-k8s.io/delete-for-move"] {
                let mark = |value: Value| Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
                api.patch(name, &PatchParams::default(), &mark(json!("true"))).await?;
                api.delete(name, &try_only).await.with_context(|| format!("{kind} {name} with {key}"))?;
                api.patch(name, &PatchParams::default(), &mark(Value::Null)).await?;
            }
        }
    }
    ensure!(kinds == 10, "{kinds} objects were tried");

    let secrets: Api<Secret> = Api::namespaced(user.clone(), namespace);
    for part in ["ca", "sa", "proxy", "kubeconfig"] {
        let name = format!("site-{part}");
        must_refuse(
            secrets.delete(&name, &DeleteParams::default()).await.map(drop),
            &name,
            "has keys of the control plane of cluster site",
        )?;
    }
    must_refuse(
        secrets.delete_collection(&DeleteParams::default(), &ListParams::default()).await.map(drop),
        "all Secrets",
        "has keys of",
    )?;
    let mark = Patch::Merge(json!({"metadata": {"annotations": {names::ALLOW_DELETION_ANNOTATION: "true"}}}));
    secrets.patch_metadata("site-ca", &PatchParams::default(), &mark).await?;
    secrets.delete("site-ca", &try_only).await?;

    // An object of somebody else is not our concern.
    let cluster = json!({
        "apiVersion": Kind::Cluster.api_version(), "kind": "Cluster", "metadata": {"name": "theirs"},
        "spec": {"paused": true, "infrastructureRef": Kind::ByoCluster.reference("theirs")},
    });
    let clusters = inventory::api(user, namespace, CAPI, "Cluster");
    clusters.create(&PostParams::default(), &serde_json::from_value(cluster)?).await?;
    clusters.delete("theirs", &DeleteParams::default()).await?;

    tenant.until("request", State::Fulfilled, "", SOON).await?;
    ensure!(machines(stack.management.admin(), namespace).await? == nodes, "other Machines");
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

/// By `kubectl scale` as by a change of the object, up and down.
async fn size(stack: Shared) -> Outcome {
    const CAPI: &str = "cluster.x-k8s.io";
    const PLANES: &str = "controlplane.cluster.x-k8s.io";
    // One list of controllers, as often as there are policies that ask for it.
    let policies: Vec<Value> = serde_saphyr::from_multiple(sandbox::installation::RIGHTS[4])?;
    let conditions = policies.iter().filter_map(|policy| policy["spec"]["matchConditions"].as_array()).flatten();
    let lists: std::collections::BTreeSet<_> = conditions
        .filter(|condition| condition["name"] == "not-by-a-controller")
        .map(|condition| condition["expression"].to_string())
        .collect();
    ensure!(lists.len() == 1, "the policies exempt different controllers: {lists:#?}");

    let tenant = Tenant::new(&stack, "size", 2).await?;
    let namespace = tenant.namespace.as_str();
    let request = tenant.request("request", "site", &[1], &[2]);
    tenant.apply(&request).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    // A request that wants the same cluster is not the owner.
    tenant.apply(&tenant.request("a-rival", "site", &[1], &[2])).await?;
    let nodes = machines(stack.management.admin(), namespace).await?;
    let user = stack.management.client_as("jane", &["system:masters"])?;
    let controllers = [
        ("capi:core", "system:serviceaccounts:capi-system"),
        ("system:serviceaccount:elsewhere:capi-manager", "system:serviceaccounts:elsewhere"),
        ("system:serviceaccount:o2ims-system:o2ims-operator", "system:serviceaccounts:o2ims-system"),
    ];
    let try_only = PatchParams { dry_run: true, ..PatchParams::default() };
    let replicas = |number: i32| Patch::Merge(json!({"spec": {"replicas": number}}));
    for (group, kind, numbers, advice) in [
        (CAPI, "MachineSet", &[0, 2][..], "Add hosts to hosts.workers of the request"),
        (CAPI, "MachineDeployment", &[0, 2], "Add hosts to hosts.workers of the request"),
        (PLANES, "KubeadmControlPlane", &[3, 0], "Add hosts to hosts.masters of the request"),
    ] {
        let (api, found) = of_kind(&user, namespace, group, kind).await?;
        let [name] = found.as_slice() else { anyhow::bail!("{kind}: {found:?}") };
        until_scale(&api, name, false).await?;

        let object = format!("{}.{group}/{name}", kind.to_lowercase());
        let policy = format!("o2ims-cluster-scale-{}s", kind.to_lowercase());
        for number in numbers {
            let effect = if *number == 0 {
                "with a machine that goes its server is reset"
            } else {
                "a new machine would find no host"
            };
            let words = [
                format!("{kind} size/{name} cannot go from 1 to {number} replicas"),
                format!(
                    "the number of machines is what the hosts in ProvisioningRequest size/request say, and {effect}. {advice}"
                ),
            ];
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let arguments = ["scale", &object, "-n", namespace, &format!("--replicas={number}")];
            refused(&stack, &arguments, &[&[policy.as_str()], &words[..]].concat()).await?;
            let patch = json!({"spec": {"replicas": number}}).to_string();
            let arguments = ["patch", &object, "-n", namespace, "--type=merge", "-p", &patch];
            refused(&stack, &arguments, &[&["o2ims-cluster-size"], &words[..]].concat()).await?;
        }
        // The number that is there is no change, nor is anything else.
        done(&stack, &["scale", &object, "-n", namespace, "--replicas=1"]).await?;
        done(&stack, &["label", &object, "-n", namespace, "example.org/a=b", "--dry-run=server"]).await?;
        let number = numbers[0];
        for (account, accounts) in &controllers {
            let client = stack.management.client_as(account, &[accounts, "system:masters"])?;
            let there = inventory::api(client, namespace, group, kind);
            there.patch(name, &try_only, &replicas(number)).await.with_context(|| format!("{kind} by {account}"))?;
            there
                .patch_scale(name, &try_only, &replicas(number))
                .await
                .with_context(|| format!("{kind} by {account}"))?;
        }
        let mark = |value: Value| {
            Patch::Merge(json!({"metadata": {"annotations": {names::ALLOW_DELETION_ANNOTATION: value}}}))
        };
        api.patch(name, &PatchParams::default(), &mark(json!("true"))).await?;
        api.patch(name, &try_only, &replicas(number)).await.with_context(|| format!("{kind} that may be deleted"))?;
        until_scale(&api, name, true).await?;
        let arguments = ["scale", &object, "-n", namespace, &format!("--replicas={number}"), "--dry-run=server"];
        done(&stack, &arguments).await?;
        api.patch(name, &PatchParams::default(), &mark(Value::Null)).await?;
        until_scale(&api, name, false).await?;
    }

    for (group, kind, field, change) in [
        (
            CAPI,
            "MachineDeployment",
            "spec.template.spec.version",
            json!({"spec": {"template": {"spec": {"version": "v1.32.0"}}}}),
        ),
        (PLANES, "KubeadmControlPlane", "spec.version", json!({"spec": {"version": "v1.33.12"}})),
    ] {
        let (api, found) = of_kind(&user, namespace, group, kind).await?;
        let [name] = found.as_slice() else { anyhow::bail!("{kind}: {found:?}") };
        let object = format!("{}.{group}/{name}", kind.to_lowercase());
        let patch = change.to_string();
        let words = format!("{kind} size/{name} cannot change {field}: Cluster API would replace its Machines");
        let advice = "The cluster is what ProvisioningRequest size/request says";
        let arguments = ["patch", &object, "-n", namespace, "--type=merge", "-p", &patch];
        refused(&stack, &arguments, &["o2ims-cluster-machines", &words, advice]).await?;
        for (account, accounts) in &controllers {
            let client = stack.management.client_as(account, &[accounts, "system:masters"])?;
            let there = inventory::api(client, namespace, group, kind);
            there
                .patch(name, &try_only, &Patch::Merge(&change))
                .await
                .with_context(|| format!("{kind} by {account}"))?;
        }
        let mark = |value: Value| {
            Patch::Merge(json!({"metadata": {"annotations": {names::ALLOW_DELETION_ANNOTATION: value}}}))
        };
        api.patch(name, &PatchParams::default(), &mark(json!("true"))).await?;
        api.patch(name, &try_only, &Patch::Merge(&change))
            .await
            .with_context(|| format!("{kind} that may be deleted"))?;
        api.patch(name, &PatchParams::default(), &mark(Value::Null)).await?;
    }

    let (_, found) = of_kind(&user, namespace, CAPI, "MachineDeployment").await?;
    let [worker] = found.as_slice() else { anyhow::bail!("MachineDeployments: {found:?}") };

    // A cluster of somebody else, in the same namespace. It is paused, so that nothing becomes of it.
    let (clusters, deployments) =
        (tenant.objects(Kind::Cluster), inventory::api(user.clone(), namespace, CAPI, "MachineDeployment"));
    let cluster = json!({
        "apiVersion": Kind::Cluster.api_version(), "kind": "Cluster", "metadata": {"name": "site2"},
        "spec": {"paused": true, "infrastructureRef": Kind::ByoCluster.reference("site2")},
    });
    clusters.create(&PostParams::default(), &serde_json::from_value(cluster)?).await?;
    let deployment = json!({
        "apiVersion": Kind::MachineDeployment.api_version(), "kind": "MachineDeployment", "metadata": {"name": "theirs"},
        "spec": {
            "clusterName": "site2", "replicas": 2, "selector": {},
            "template": {"spec": {
                "clusterName": "site2", "bootstrap": {"dataSecretName": "none"},
                "infrastructureRef": Kind::ByoMachineTemplate.reference("none"),
            }},
        },
    });
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment)?).await?;
    for number in ["0", "3"] {
        let arguments = ["scale", "machinedeployment", "theirs", "-n", namespace, &format!("--replicas={number}")];
        done(&stack, &arguments).await?;
    }
    deployments.patch("theirs", &PatchParams::default(), &replicas(1)).await?;
    deployments.delete("theirs", &DeleteParams::default()).await?;
    clusters.delete("site2", &DeleteParams::default()).await?;
    tenant.delete("a-rival").await?;
    tenant.until_gone("a-rival", SOON).await?;

    // Nor does it need the request, whose cluster runs on without it.
    tenant.until("request", State::Fulfilled, "", SOON).await?;
    done(&stack, &["delete", "pr", "request", "-n", namespace, "--cascade=orphan"]).await?;
    tenant.until_gone("request", SOON).await?;
    let words = format!(
        "MachineDeployment size/{worker} cannot go from 1 to 0 replicas: the number of machines is what the hosts in \
         ProvisioningRequest size/request say"
    );
    let arguments = ["scale", "machinedeployment", worker, "-n", namespace, "--replicas=0"];
    refused(&stack, &arguments, &["o2ims-cluster-scale-machinedeployments", &words]).await?;

    tenant.apply(&request).await?;
    tenant.until("request", State::Fulfilled, "1 master, 1 worker", SOON).await?;
    ensure!(machines(stack.management.admin(), namespace).await? == nodes, "other Machines");
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

/// Tries until the API server knows the object as it is now. Before it knows any it refuses every Scale.
async fn until_scale(api: &Api<DynamicObject>, name: &str, taken: bool) -> Outcome {
    let try_only = PatchParams { dry_run: true, ..PatchParams::default() };
    let deadline = tokio::time::Instant::now() + SOON;
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(100));
    loop {
        pace.tick().await;
        match api.patch_scale(name, &try_only, &Patch::Merge(json!({"spec": {"replicas": 7}}))).await {
            Ok(_) if taken => return Ok(()),
            Err(kube::Error::Api(status)) if !taken && status.message.contains("cannot go from 1 to 7 replicas") => {
                return Ok(());
            }
            answer => ensure!(
                tokio::time::Instant::now() < deadline,
                "the Scale of {name}, taken: {taken} is not so: {answer:?}"
            ),
        }
    }
}

/// In dry runs: everything on this management cluster is of these kinds.
async fn kinds(stack: Shared) -> Outcome {
    let delete = |name: &'static str| ["delete", "crd", name, "--dry-run=server"];
    // The management cluster may have had the policy for less time than the API server takes to know it.
    let deadline = tokio::time::Instant::now() + SOON;
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(500));
    while kubectl(&stack, &delete("clusters.cluster.x-k8s.io")).await?.well {
        ensure!(tokio::time::Instant::now() < deadline, "the kind Cluster may be deleted");
        pace.tick().await;
    }
    for name in [
        "provisioningrequests.o2ims.provisioning.oran.org",
        "clustertemplates.o2ims.provisioning.oran.org",
        "clusters.cluster.x-k8s.io",
        "machines.cluster.x-k8s.io",
        "kubeadmcontrolplanes.controlplane.cluster.x-k8s.io",
        "kubeadmconfigs.bootstrap.cluster.x-k8s.io",
        "byohosts.infrastructure.cluster.x-k8s.io",
    ] {
        let way_out = format!("kubectl annotate crd {name} {}=true", names::ALLOW_DELETION_ANNOTATION);
        let words = format!("all objects of CustomResourceDefinition {name} would go with it");
        refused(&stack, &delete(name), &["o2ims-crd-guard", &words, "and servers are reset. ", &way_out]).await?;
    }
    refused(&stack, &["delete", "crd", "--all", "--dry-run=server"], &["o2ims-crd-guard"]).await?;

    // By the words of the refusal.
    let name = "clustertemplates.o2ims.provisioning.oran.org";
    let key = names::ALLOW_DELETION_ANNOTATION;
    done(&stack, &["annotate", "crd", name, &format!("{key}=true")]).await?;
    done(&stack, &delete(name)).await?;
    done(&stack, &["annotate", "crd", name, &format!("{key}-")]).await?;
    refused(&stack, &delete(name), &["o2ims-crd-guard"]).await?;
    // A kind that no cluster of ours is made of.
    done(&stack, &delete("clusterresourcesets.addons.cluster.x-k8s.io")).await
}

fn must_refuse(answer: kube::Result<()>, what: &str, words: &str) -> Outcome {
    match answer {
        Err(kube::Error::Api(status)) => {
            let told =
                status.code == 403 && status.message.contains("o2ims-cluster-") && status.message.contains(words);
            ensure!(told, "{what}: {} {}", status.code, status.message);
            Ok(())
        }
        Err(error) => Err(error.into()),
        Ok(()) => anyhow::bail!("{what} could be deleted"),
    }
}

/// A request that an earlier release accepted.
fn with_old_values(name: &str) -> Value {
    let mut request = request(name);
    let parameters = &mut request["spec"]["templateParameters"];
    parameters["k8sVersion"] = json!("v1.33.1+build.7");
    parameters["podCidr"] = json!("10.0.0.0/8");
    parameters["serviceCidr"] = json!("192.168.0.0/30");
    parameters["controlPlaneEndpoint"] = json!({"host": "10.0.0.300"});
    request
}

/// Objects from before the rules, and the finalizer `orphan`. No operator runs: what it would do is done by hand.
async fn finalizers(stack: &mut Stack) -> Outcome {
    stack.operator.take().context("no operator")?.crash().await?;
    sandbox::focom::install(&stack.management).await?;
    let client = stack.management.admin();
    let fpr = |name: &str| {
        json!({
            "apiVersion": "focom.nephio.org/v1alpha1", "kind": "FocomProvisioningRequest", "metadata": {"name": name},
            "spec": {"oCloudId": "site", "oCloudNamespace": "default", "templateName": "a", "templateVersion": "v1", "templateParameters": {"any": 1}},
        })
    };
    let template = |name: &str| {
        json!({
            "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ClusterTemplate", "metadata": {"name": name},
            "spec": {"name": "a", "version": "v1"},
        })
    };
    let requests: Api<FocomProvisioningRequest> = Api::namespaced(client.clone(), "default");
    let templates: Api<ClusterTemplate> = Api::namespaced(client.clone(), "default");

    // What could not be made today is there, as from before: the policies are away for a moment.
    for name in ["focom-request-names", "o2ims-template-names", "o2ims-request-values"] {
        policies(&client).delete(name, &DeleteParams::default()).await?;
    }
    let long = "x".repeat(70);
    until_taken(&requests, &fpr(&long), true).await?;
    until_taken(&templates, &template("odd"), true).await?;
    requests.create(&PostParams::default(), &serde_json::from_value(fpr(&long))?).await?;
    templates.create(&PostParams::default(), &serde_json::from_value(template("odd"))?).await?;
    let all: Api<ProvisioningRequest> = Api::namespaced(client.clone(), "default");
    until_taken(&all, &with_old_values("old"), true).await?;
    all.create(&PostParams::default(), &serde_json::from_value(with_old_values("old"))?).await?;
    for rights in [sandbox::installation::RIGHTS[3], sandbox::focom::RIGHTS[2]] {
        stack.management.apply_yaml(rights).await?;
    }
    until_taken(&requests, &fpr(&"y".repeat(64)), false).await?;
    until_taken(&templates, &template("other"), false).await?;
    until_taken(&all, &with_old_values("new"), false).await?;
    // A copy from a backup has the finalizer, and perhaps a cluster that runs.
    let mut copy = with_old_values("copy");
    copy["metadata"]["finalizers"] = json!([names::FINALIZER]);
    until_taken(&all, &copy, true).await?;

    orphan::<ProvisioningRequest>(&client, names::FINALIZER, &request("let-go")).await?;
    orphan::<FocomProvisioningRequest>(&client, names::focom::FINALIZER, &fpr("let-go")).await?;

    // As many workers as there may be, with the longest names: no rule is too costly for a request to be made, or written later.
    let mut many = request("many");
    many["spec"]["templateParameters"]["hosts"]["workers"] = (0..400)
        .map(|number| json!({"host_id": format!("{number:0>63}"), "host_name": format!("{number:0>63}")}))
        .collect();
    all.create(&PostParams::default(), &serde_json::from_value(many)?).await?;
    // Of a request whose hosts are held, and whose values no new one may have, everything can be written that could be before.
    for name in ["many", "old"] {
        let change = async |fields: Value| all.patch(name, &PatchParams::default(), &Patch::Merge(fields)).await;
        change(json!({"metadata": {"labels": {"a": "b"}, "finalizers": [names::FINALIZER]}})).await?;
        let held = json!({"status": {"provisionedResourceSet": {"oCloudNodeClusterId": "uid"}}});
        all.patch_status(name, &PatchParams::default(), &Patch::Merge(held)).await?;
        let workers = json!([{"hostId": 7, "hostName": "another"}]);
        change(json!({"spec": {"templateParameters": {"hosts": {"workers": workers}}}})).await?;
        all.delete(name, &DeleteParams::default()).await?;
        change(json!({"metadata": {"finalizers": null}})).await?;
        wait(all.clone(), name, "the request to be gone", SOON, |request: Option<&ProvisioningRequest>| {
            request.is_none()
        })
        .await?;
    }

    let finalizers = |list: Value| Patch::Merge(json!({"metadata": {"finalizers": list, "labels": {"a": "b"}}}));
    let status = Patch::Merge(json!({"status": {"message": "written"}}));
    requests.patch(&long, &PatchParams::default(), &finalizers(json!([names::focom::FINALIZER]))).await?;
    requests.patch_status(&long, &PatchParams::default(), &status).await?;
    requests.delete(&long, &DeleteParams::default()).await?;
    requests.patch(&long, &PatchParams::default(), &finalizers(Value::Null)).await?;
    wait(requests, &long, "the request to be gone", SOON, |request: Option<&FocomProvisioningRequest>| {
        request.is_none()
    })
    .await?;
    templates.patch("odd", &PatchParams::default(), &finalizers(json!(["example.org/keep"]))).await?;
    templates.delete("odd", &DeleteParams::default()).await?;
    templates.patch("odd", &PatchParams::default(), &finalizers(Value::Null)).await?;
    wait(templates, "odd", "the template to be gone", SOON, |template: Option<&ClusterTemplate>| template.is_none())
        .await?;

    // As one removes everything: first the policies, then the kinds.
    let delete = ["delete", "crd", "clustertemplates.o2ims.provisioning.oran.org"];
    refused(stack, &delete, &["o2ims-crd-guard"]).await?;
    policies(&client).delete("o2ims-crd-guard", &DeleteParams::default()).await?;
    let deadline = tokio::time::Instant::now() + SOON;
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(500));
    loop {
        pace.tick().await;
        let said = kubectl(stack, &delete).await?;
        if said.well {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < deadline, "the policy has gone: {}", said.words);
    }
}

fn request(name: &str) -> Value {
    json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest", "metadata": {"name": name},
        "spec": {
            "templateName": "a", "templateVersion": "v1",
            "templateParameters": {"clusterName": name, "hosts": {"masters": [{"hostId": 1, "hostName": "nobody"}]}},
        },
    })
}

/// Tries until the API server knows that the policies have gone, or come.
pub async fn until_taken<K>(api: &Api<K>, object: &Value, taken: bool) -> Outcome
where
    K: serde::de::DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    let try_only = PostParams { dry_run: true, ..PostParams::default() };
    let deadline = tokio::time::Instant::now() + SOON;
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(100));
    loop {
        pace.tick().await;
        let answer = api.create(&try_only, &serde_json::from_value(object.clone())?).await;
        match answer {
            Ok(_) if taken => return Ok(()),
            Err(kube::Error::Api(status)) if !taken && status.message.contains(" must ") => return Ok(()),
            answer => ensure!(tokio::time::Instant::now() < deadline, "taken: {taken} is not so: {answer:?}"),
        }
    }
}

fn policies(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding");
    let kind = ApiResource::from_gvk_with_plural(&kind, "validatingadmissionpolicybindings");
    Api::all_with(client.clone(), &kind)
}

/// `kubectl delete --cascade=orphan`: the garbage collector cannot take `orphan` off before the operator has let go.
async fn orphan<K>(client: &Client, finalizer: &str, object: &Value) -> Outcome
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + serde::de::DeserializeOwned
        + serde::Serialize
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let api: Api<K> = Api::namespaced(client.clone(), "default");
    let mut object = object.clone();
    object["metadata"]["finalizers"] = json!([finalizer]);
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    api.delete("let-go", &params).await?;
    let user = Patch::Merge(json!({"metadata": {"finalizers": [finalizer]}}));
    let refusal =
        api.patch("let-go", &PatchParams::default(), &user).await.err().context("orphan could be taken off")?;
    ensure!(
        matches!(&refusal, kube::Error::Api(status) if status.code == 403 && status.message.contains("to leave the cluster as it is")),
        "{refusal}"
    );
    let found = api.get("let-go").await?;
    ensure!(found.finalizers().iter().any(|name| name == names::ORPHAN_FINALIZER), "orphan is gone: {found:?}");
    // As the operator does when it has let go. The garbage collector comes back by itself.
    let done = Patch::Merge(json!({"metadata": {"finalizers": [names::ORPHAN_FINALIZER]}}));
    api.patch("let-go", &PatchParams::default(), &done).await?;
    wait(api, "let-go", "the object to be gone", SOON, |object: Option<&K>| object.is_none()).await?;
    Ok(())
}
