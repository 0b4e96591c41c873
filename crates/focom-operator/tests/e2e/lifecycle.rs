//! The path of a request: there, changed, and back.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::ResourceExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use o2ims_types::ProvisioningState;
use o2ims_types::names::{PLAN_ANNOTATION, focom as names};
use sandbox::installation::Hosts;
use sandbox::waiting::wait;
use serde_json::json;

use crate::coming_back::annotate;
use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Tenant, World, beside};

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        beside("a_cluster_on_an_o_cloud_and_back", a_cluster_on_an_o_cloud_and_back),
        beside("a_cluster_is_upgraded_from_the_smo", a_cluster_is_upgraded_from_the_smo),
        beside("masters_are_changed_from_the_smo", masters_are_changed_from_the_smo),
        beside("the_very_cluster_needs_no_o_cloud", the_very_cluster_needs_no_o_cloud),
    ]
}

/// The phases that a request goes through, each once, in the order in which a watch shows them.
struct Phases {
    seen: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Phases {
    fn follow(tenant: &Tenant, name: &str) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (list, api, name) = (Arc::clone(&seen), tenant.requests(), name.to_owned());
        let task = tokio::spawn(async move {
            let mut events = watcher::watch_object(api, &name).default_backoff().boxed();
            while let Ok(Some(object)) = events.try_next().await {
                if let Some(status) = object.filter(|object| !object.is_new()).and_then(|object| object.status) {
                    let mut list = list.lock().expect("not poisoned");
                    if list.last() != Some(&status.phase) {
                        list.push(status.phase);
                    }
                }
            }
        });
        Self { seen, task }
    }

    fn seen(self) -> Vec<String> {
        self.task.abort();
        self.seen.lock().expect("not poisoned").clone()
    }
}

async fn a_cluster_on_an_o_cloud_and_back(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "whole-path").await?;
    tenant.equip(2).await?;
    let o_cloud = tenant.until_o_cloud("site-a", "Ready").await?;
    let version = o_cloud.status.and_then(|status| status.server_version);
    ensure!(version.as_deref() == Some(testenv::kubernetes_version()), "server version: {version:?}");

    let phases = Phases::follow(&tenant, "edge");
    tenant.apply(&tenant.request("edge", "site-a", &[1], &[2])).await?;
    let request = tenant.until_state("edge", "fulfilled", CLUSTER).await?;
    let status = request.status.clone().context("a status")?;
    ensure!(status.remote_name.as_deref() == Some("edge-o2ims"), "remote name: {:?}", status.remote_name);
    let condition =
        |type_: &str| status.conditions.iter().find(|found| found.type_ == type_).map(|found| found.status.as_str());
    for (type_, expected) in [
        ("Ready", "True"),
        ("Reconciling", "False"),
        ("Stalled", "False"),
        ("Validated", "True"),
        ("OCloudAvailable", "True"),
        ("Synced", "True"),
    ] {
        ensure!(condition(type_) == Some(expected), "{type_}: {:?}", condition(type_));
    }

    let api = tenant.remote(&tenant.parts.site_a.management);
    let remote = api.get("edge-o2ims").await?;
    let said = remote.status.clone().context("a status on the O-Cloud")?;
    ensure!(status.provisioned_resource_set == said.provisioned_resource_set, "the resource set is not the O-Cloud's");
    ensure!(status.observed_generation == request.metadata.generation);
    let label = |key: &str| remote.labels().get(key).cloned();
    ensure!(label(names::SOURCE_LABEL).as_deref() == Some("edge"));
    ensure!(label(names::SOURCE_NAMESPACE_LABEL).as_deref() == Some("whole-path"));
    ensure!(label(names::SOURCE_UID_LABEL) == request.metadata.uid);

    tenant.delete("edge").await?;
    tenant.until("edge", "Deleting", "deleting Cluster edge", SOON).await?;
    tenant.until_gone("edge", CLUSTER).await?;
    ensure!(
        tenant.remote_names(&tenant.parts.site_a.management).await?.is_empty(),
        "the FPR went before its ProvisioningRequest"
    );
    ensure!(phases.seen() == ["Pending", "Creating", "Synced", "Deleting"]);
    let events = tenant.events("edge").await?;
    ensure!(events == ["Sent"], "events of an ordinary life: {events:?}");
    Ok(())
}

/// An edit at the SMO upgrades the cluster on its O-Cloud, and what the O-Cloud refuses is told at the SMO.
async fn a_cluster_is_upgraded_from_the_smo(world: Arc<World>) -> Outcome {
    let (from, to) = ("v1.35.1", "v1.36.1");
    let tenant = Tenant::new(&world, "rise").await?;
    let site = &tenant.parts.site_a;
    site.apply_cni(&tenant.namespace).await?;
    for number in 1..=2 {
        let mut host = hostsim::HostSpec::new(format!("rise-{number}"), number.to_string());
        host.namespace = Some(tenant.namespace.clone());
        host.skip_installation = false;
        site.site.register(host).await?;
    }
    let template = Hosts::Simulated.template().replace("namespace: o2ims-system", "namespace: rise");
    site.management.apply_yaml(&template.replace("method: none", "method: installer")).await?;
    let at = async |version: &str| {
        let mut request = tenant.request("edge", "site-a", &[1], &[2]);
        request["spec"]["templateParameters"]["k8sVersion"] = json!(version);
        tenant.apply(&request).await.map(drop)
    };
    at(from).await?;
    tenant.until_state("edge", "fulfilled", CLUSTER).await?;

    at("v1.34.1").await?;
    tenant.until("edge", "Failed", "Kubernetes has no way back to an older minor version", SOON).await?;
    // What the edit would do is told at the SMO, and done when its owner takes the annotation away there.
    let plan = names::at_smo(PLAN_ANNOTATION);
    annotate(&tenant, "edge", &plan, Some("true")).await?;
    at(to).await?;
    let remote = tenant.remote(&site.management);
    let is_planned = |remote: Option<&o2ims_types::ProvisioningRequest>| {
        remote.and_then(|remote| remote.status.as_ref()).is_some_and(|status| {
            let message = &status.provisioning_status.provisioning_message;
            let command = format!("to carry it out: at the SMO, kubectl annotate fpr edge -n rise {plan}-");
            status.extensions.plan.len() == 2 && message.contains(&command)
        })
    };
    wait(remote, "edge-o2ims", "the plan of the upgrade", SOON, is_planned).await?;
    annotate(&tenant, "edge", &plan, None).await?;
    let is_upgraded = |remote: Option<&o2ims_types::ProvisioningRequest>| {
        remote.and_then(|remote| remote.status.as_ref()).is_some_and(|status| {
            let state = status.provisioning_status.provisioning_state;
            status.extensions.k8s_version.as_deref() == Some(to) && state == ProvisioningState::Fulfilled
        })
    };
    let remote = tenant.remote(&site.management);
    wait(remote, "edge-o2ims", "the cluster to be upgraded", CLUSTER, is_upgraded).await?;
    tenant.until_state("edge", "fulfilled", SOON).await?;
    tenant.delete("edge").await?;
    tenant.until_gone("edge", CLUSTER).await
}

/// An edit at the SMO adds masters on the O-Cloud and replaces one of them, and what the O-Cloud refuses is told at the SMO.
async fn masters_are_changed_from_the_smo(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "planes").await?;
    tenant.equip(5).await?;
    let request = |masters: &[u32]| {
        let mut request = tenant.request("edge", "site-a", masters, &[5]);
        request["spec"]["templateParameters"]["controlPlaneEndpoint"] = json!({"host": "127.88.0.8"});
        request
    };
    tenant.apply(&request(&[1])).await?;
    tenant.until_state("edge", "fulfilled", CLUSTER).await?;
    for masters in [[1, 2, 3], [4, 2, 3]] {
        tenant.apply(&request(&masters)).await?;
        let wanted = masters.map(|number| format!("planes-{number}"));
        let has_them = |remote: Option<&o2ims_types::ProvisioningRequest>| {
            remote.and_then(|remote| remote.status.as_ref()).is_some_and(|status| {
                let ready = |host: &&String| {
                    let mut hosts = status.extensions.hosts.iter();
                    hosts.any(|told| told.host_name == **host && told.role == "control-plane" && told.state == "Ready")
                };
                status.provisioning_status.provisioning_state == ProvisioningState::Fulfilled
                    && wanted.iter().filter(ready).count() == wanted.len()
            })
        };
        wait(tenant.remote(&tenant.parts.site_a.management), "edge-o2ims", "the masters", 2 * CLUSTER, has_them)
            .await?;
        tenant.until_state("edge", "fulfilled", SOON).await?;
    }
    // Without its endpoint the request does not show that the masters can change.
    tenant.apply(&tenant.request("edge", "site-a", &[4], &[5])).await?;
    let told =
        "hosts.masters cannot change from host 4 (planes-4), host 2 (planes-2), host 3 (planes-3) to host 4 (planes-4)";
    tenant.until("edge", "Failed", told, SOON).await?;
    tenant.delete("edge").await?;
    tenant.until_gone("edge", CLUSTER).await
}

async fn the_very_cluster_needs_no_o_cloud(world: Arc<World>) -> Outcome {
    let tenant = Tenant::bare(&world, "local").await?;
    let mut request = tenant.request("here", "management-cluster", &[1], &[]);
    // As in the integration guide.
    request["spec"].as_object_mut().context("a spec")?.remove("templateVersion");
    tenant.apply(&request).await?;
    tenant.until("here", "Synced", "has not reported a state yet", SOON).await?;
    let api = tenant.remote(&tenant.parts.smo);
    let remote = api.get("here-o2ims").await?;
    ensure!(remote.spec.template_version == "v1.0.0", "the default version is not filled in");

    // A change goes through, and what somebody else changes goes back.
    request["spec"]["description"] = json!("changed");
    tenant.apply(&request).await?;
    let changed = |remote: Option<&o2ims_types::ProvisioningRequest>| {
        remote.is_some_and(|remote| remote.spec.description.as_deref() == Some("changed"))
    };
    wait(api.clone(), "here-o2ims", "the change to arrive", SOON, changed).await?;
    let meddle = json!({"spec": {"description": "meddled with"}});
    let params = kube::api::PatchParams::default();
    api.patch("here-o2ims", &params, &kube::api::Patch::Merge(&meddle)).await?;
    wait(api.clone(), "here-o2ims", "the change to be taken back", SOON, changed).await?;

    tenant.delete("here").await?;
    tenant.until_gone("here", SOON).await?;
    ensure!(tenant.remote_names(&tenant.parts.smo).await?.is_empty());
    Ok(())
}
