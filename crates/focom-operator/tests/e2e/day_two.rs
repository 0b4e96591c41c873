//! What the owner of a running cluster does from the SMO: each word there is carried out on the O-Cloud, and what goes on there is told with commands
//! for the SMO.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use hostsim::Failure;
use k8s_openapi::jiff::{SignedDuration, Timestamp, ToSpan as _};
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt as _};
use o2ims_types::names::{self, focom};
use o2ims_types::o2ims::v1alpha1::provisioning_request::ProvisioningRequestStatus;
use o2ims_types::{ClusterTemplate, FocomProvisioningRequest, ProvisioningRequest, ProvisioningState};
use sandbox::installation::Hosts;
use sandbox::waiting::wait;
use serde_json::{Value, json};

use crate::coming_back::annotate;
use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Tenant, World, beside};

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        beside("a_failed_upgrade_goes_back_and_on_by_words_at_the_smo", failed_upgrade),
        beside("hosts_are_reset_in_their_window_from_the_smo", reset),
        beside("a_dead_host_is_given_up_from_the_smo", dead_host),
        beside("certificates_that_were_not_renewed_are_told_at_the_smo", certificates),
    ]
}

const FROM: &str = "v1.35.1";
const TO: &str = "v1.36.1";

/// Registers hosts that have Kubernetes installed, and a template with these settings beside.
async fn equip(tenant: &Tenant, hosts: u32, settings: Value) -> Outcome {
    let site = &tenant.parts.site_a;
    site.apply_cni(&tenant.namespace).await?;
    for number in 1..=hosts {
        let mut host = hostsim::HostSpec::new(format!("{}-{number}", tenant.namespace), number.to_string());
        host.namespace = Some(tenant.namespace.clone());
        host.skip_installation = false;
        site.site.register(host).await?;
    }
    let namespace = format!("namespace: {}", tenant.namespace);
    let template = Hosts::Simulated.template().replace("namespace: o2ims-system", &namespace);
    site.management.apply_yaml(&template.replace("method: none", "method: installer")).await?;
    set(tenant, settings).await
}

/// Changes settings of the template.
async fn set(tenant: &Tenant, settings: Value) -> Outcome {
    let templates = Api::<ClusterTemplate>::namespaced(tenant.parts.site_a.management.admin(), &tenant.namespace);
    let all = templates.list(&ListParams::default()).await?;
    let name = all.items.first().context("no template")?.name_any();
    templates.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"spec": settings}))).await?;
    Ok(())
}

async fn ask(tenant: &Tenant, version: &str, masters: &[u32], workers: &[u32], endpoint: Option<&str>) -> Outcome {
    let mut request = tenant.request("edge", "site-a", masters, workers);
    request["spec"]["templateParameters"]["k8sVersion"] = json!(version);
    if let Some(host) = endpoint {
        request["spec"]["templateParameters"]["controlPlaneEndpoint"] = json!({"host": host});
    }
    tenant.apply(&request).await?;
    Ok(())
}

async fn until_remote(tenant: &Tenant, what: &str, is_so: impl Fn(&ProvisioningRequestStatus) -> bool) -> Outcome {
    let remote = tenant.remote(&tenant.parts.site_a.management);
    let reached =
        |remote: Option<&ProvisioningRequest>| remote.and_then(|remote| remote.status.as_ref()).is_some_and(&is_so);
    wait(remote, "edge-o2ims", what, 2 * CLUSTER, reached).await?;
    Ok(())
}

/// Waits until the O-Cloud, and then the SMO, has the cluster at this version.
async fn until_at(tenant: &Tenant, version: &str) -> Outcome {
    until_remote(tenant, &format!("the cluster to be at {version}"), |status| {
        status.extensions.k8s_version.as_deref() == Some(version)
            && status.provisioning_status.provisioning_state == ProvisioningState::Fulfilled
    })
    .await?;
    tenant.until_state("edge", "fulfilled", SOON).await?;
    Ok(())
}

/// Carries out the command of a message that sets this annotation at the SMO.
async fn obey(tenant: &Tenant, told: &FocomProvisioningRequest, annotation: &str) -> Outcome {
    let message = told.status.as_ref().map(|status| status.message.clone()).unwrap_or_default();
    let annotation = focom::at_smo(annotation);
    let command = format!("at the SMO, kubectl annotate fpr edge -n {} {annotation}=", tenant.namespace);
    let (_, value) = message.split_once(&command).with_context(|| format!("no {command}: {message}"))?;
    let value = value.split(' ').next().unwrap_or_default();
    annotate(tenant, "edge", &annotation, Some(value)).await
}

fn byohosts(tenant: &Tenant) -> Api<ByoHost> {
    Api::namespaced(tenant.parts.site_a.management.admin(), &tenant.namespace)
}

/// UIDs and versions of the Machines on the O-Cloud, by node.
async fn machines(tenant: &Tenant) -> anyhow::Result<std::collections::BTreeMap<String, (String, String)>> {
    let management = &tenant.parts.site_a.management;
    let api: Api<DynamicObject> =
        Api::namespaced_with(management.admin(), &tenant.namespace, &Kind::Machine.api_resource());
    let all = api.list(&ListParams::default()).await?;
    let of = |machine: &DynamicObject| {
        let node = machine.data["status"]["nodeRef"]["name"].as_str()?;
        let version = machine.data["spec"]["version"].as_str()?;
        Some((node.to_owned(), (machine.uid()?, version.to_owned())))
    };
    Ok(all.iter().filter_map(of).collect())
}

/// The upgrade of the only master fails; it is brought back to its snapshot, and upgraded again; the worker waits for a word, and a pause holds even then.
/// Afterwards a snapshot and a support bundle are made.
async fn failed_upgrade(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "words").await?;
    equip(&tenant, 2, json!({"upgrade": {"pauseAfter": "ControlPlane"}})).await?;
    ask(&tenant, FROM, &[1], &[2], None).await?;
    until_at(&tenant, FROM).await?;
    let before = machines(&tenant).await?;

    let master = tenant.parts.site_a.site.host("words-1").context("no such host")?;
    ask(&tenant, TO, &[1], &[2], None).await?;
    let is_upgraded = |host: Option<&ByoHost>| {
        let job = host.and_then(|host| host.annotations().get(names::JOB_ANNOTATION));
        job.is_some_and(|job| job.starts_with("upgrade-"))
    };
    wait(byohosts(&tenant), "words-1", "the job of the upgrade", CLUSTER, is_upgraded).await?;
    master.fail(Failure::Job);
    let told = "the upgrade to v1.36.1 has stopped at host 1 (words-1): simulated failure";
    let failed = tenant.until("edge", "Failed", told, CLUSTER).await?;
    master.heal();
    obey(&tenant, &failed, names::RESTORE_SNAPSHOT_ANNOTATION).await?;
    let back = "host 1 (words-1) was brought back to snapshot simulated; set k8sVersion to v1.35.1, or upgrade again";
    let back = tenant.until("edge", "Failed", back, CLUSTER).await?;
    obey(&tenant, &back, names::RETRY_ANNOTATION).await?;
    let waits = "host 2 (words-2): waits: spec.upgrade.pauseAfter";
    let waits = tenant.until("edge", "Synced", waits, CLUSTER).await?;

    let pause = focom::at_smo(names::PAUSED_ANNOTATION);
    annotate(&tenant, "edge", &pause, Some("true")).await?;
    tenant.until("edge", "Synced", "paused", SOON).await?;
    obey(&tenant, &waits, names::CONTINUE_ANNOTATION).await?;
    until_remote(&tenant, "the pause", |status| {
        status.provisioning_status.provisioning_message.starts_with("paused")
            && status.extensions.hosts.iter().any(|host| host.k8s_version.as_deref() == Some(FROM))
    })
    .await?;
    annotate(&tenant, "edge", &pause, None).await?;
    until_at(&tenant, TO).await?;
    let after = machines(&tenant).await?;
    let is_same = |host: &str| before[host].0 == after[host].0 && after[host].1 == TO;
    ensure!(is_same("words-1") && is_same("words-2"), "before {before:?}, after {after:?}");

    annotate(&tenant, "edge", &focom::at_smo(names::SNAPSHOT_ANNOTATION), Some("today")).await?;
    annotate(&tenant, "edge", &focom::at_smo(names::SUPPORT_BUNDLE_ANNOTATION), Some("case-1")).await?;
    until_remote(&tenant, "a snapshot of the master, and support bundles of both hosts", |status| {
        let is_made = |file: &Option<o2ims_types::o2ims::v1alpha1::provisioning_request::HostFile>, name: &str| {
            file.as_ref().is_some_and(|file| file.name == name && file.state == "Done")
        };
        let hosts = &status.extensions.hosts;
        hosts.len() == 2
            && hosts.iter().all(|host| is_made(&host.support_bundle, "case-1"))
            && hosts.iter().any(|host| host.host_name == "words-1" && is_made(&host.snapshot, "today"))
    })
    .await?;
    tenant.delete("edge").await?;
    tenant.until_gone("edge", CLUSTER).await
}

/// A rolling upgrade waits for its window, is planned with its resets, and gives every host another Machine.
async fn reset(world: Arc<World>) -> Outcome {
    const ENDPOINT: &str = "127.88.0.9";
    let tenant = Tenant::new(&world, "anew").await?;
    let far = Timestamp::now() + SignedDuration::from_hours(72);
    let window = json!({"days": [far.strftime("%a").to_string()], "start": "12:30", "duration": "1m"});
    equip(&tenant, 4, json!({"upgrade": {"strategy": "Rolling", "windows": [window]}})).await?;
    ask(&tenant, FROM, &[1, 2, 3], &[4], Some(ENDPOINT)).await?;
    until_at(&tenant, FROM).await?;
    let before = machines(&tenant).await?;

    let plan = focom::at_smo(names::PLAN_ANNOTATION);
    annotate(&tenant, "edge", &plan, Some("true")).await?;
    ask(&tenant, TO, &[1, 2, 3], &[4], Some(ENDPOINT)).await?;
    until_remote(&tenant, "a plan that names every reset", |status| {
        let plan = &status.extensions.plan;
        plan.len() == 4 && plan.iter().all(|change| change.action == "Reinstall")
    })
    .await?;
    annotate(&tenant, "edge", &plan, None).await?;
    tenant.until("edge", "Synced", "waits for the maintenance window that begins at", SOON).await?;
    ensure!(machines(&tenant).await? == before, "a host was reset outside of its window");
    set(&tenant, json!({"upgrade": {"windows": null}})).await?;
    until_at(&tenant, TO).await?;
    let after = machines(&tenant).await?;
    ensure!(after.keys().eq(before.keys()), "the hosts are {after:?}");
    for (host, (uid, version)) in &after {
        ensure!(before[host].0 != *uid && version == TO, "{host} was not reset: {before:?}, {after:?}");
    }
    tenant.delete("edge").await?;
    tenant.until_gone("edge", CLUSTER).await
}

/// A dead worker is told at the SMO while the cluster stays `fulfilled`; an edit takes it out, and a word gives it up.
async fn dead_host(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "dark").await?;
    tenant.equip(2).await?;
    tenant.apply(&tenant.request("edge", "site-a", &[1], &[2])).await?;
    tenant.until_state("edge", "fulfilled", CLUSTER).await?;
    let host = tenant.parts.site_a.site.host("dark-2").context("no such host")?;
    host.fail(Failure::Off);
    tenant.until("edge", "Synced", "host 2 (dark-2): its node is not Ready", CLUSTER).await?;
    tenant.until_state("edge", "fulfilled", SOON).await?;

    tenant.apply(&tenant.request("edge", "site-a", &[1], &[])).await?;
    let command = format!("at the SMO, kubectl annotate fpr edge -n dark {}=dark-2", focom::LOST_HOSTS_ANNOTATION);
    until_remote(&tenant, "the command for the SMO", |status| {
        status.extensions.hosts.iter().any(|host| host.message.contains(&command))
    })
    .await?;
    annotate(&tenant, "edge", focom::LOST_HOSTS_ANNOTATION, Some("dark-2")).await?;
    let is_lost = |host: Option<&ByoHost>| host.is_some_and(|host| host.labels().contains_key(names::LOST_LABEL));
    wait(byohosts(&tenant), "dark-2", "the host to be given up", CLUSTER, is_lost).await?;
    let is_passed_on = |request: Option<&FocomProvisioningRequest>| {
        request.is_some_and(|request| !request.annotations().contains_key(focom::LOST_HOSTS_ANNOTATION))
    };
    wait(tenant.requests(), "edge", "the word to be taken away", SOON, is_passed_on).await?;
    tenant.until("edge", "Synced", "cluster is ready: 1 master, 0 workers", CLUSTER).await?;
    host.heal();
    let is_clean = |host: Option<&ByoHost>| host.is_some_and(|host| !host.labels().contains_key(names::LOST_LABEL));
    wait(byohosts(&tenant), "dark-2", "the host to be cleaned by its agent", CLUSTER, is_clean).await?;
    tenant.delete("edge").await?;
    tenant.until_gone("edge", CLUSTER).await
}

/// A renewal that fails is told at the SMO, and tried again by a word there.
async fn certificates(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "dated").await?;
    equip(&tenant, 2, json!({})).await?;
    ask(&tenant, FROM, &[1], &[2], None).await?;
    until_at(&tenant, FROM).await?;
    let site = &tenant.parts.site_a;
    let master = site.site.host("dated-1").context("no such host")?;
    master.fail(Failure::Job);
    // BYOH lets nobody but its agent change a host.
    let agent = site.management.client_as("byoh:host:dated-1", &["byoh:hosts"])?;
    let own: Api<ByoHost> = Api::namespaced(agent, &tenant.namespace);
    let end = Timestamp::now() + 24.hours();
    let dates = json!({"agent": Timestamp::now() + 2400.hours(), "controlPlane": end, "renew": "Soon"});
    let dates = json!({"metadata": {"annotations": {names::CERTIFICATES_ANNOTATION: dates.to_string()}}});
    own.patch("dated-1", &PatchParams::default(), &Patch::Merge(dates)).await?;
    let told = "the certificates of the control plane on host 1 (dated-1) were not renewed: simulated failure";
    let told = tenant.until("edge", "Synced", told, CLUSTER).await?;
    tenant.until_state("edge", "fulfilled", SOON).await?;
    master.heal();
    obey(&tenant, &told, names::RETRY_ANNOTATION).await?;
    tenant.until("edge", "Synced", "cluster is ready: 1 master, 1 worker", CLUSTER).await?;
    until_remote(&tenant, "no word of certificates", |status| {
        status.provisioning_status.provisioning_message == "cluster is ready: 1 master, 1 worker"
    })
    .await?;
    tenant.delete("edge").await?;
    tenant.until_gone("edge", CLUSTER).await
}
