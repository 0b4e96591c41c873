//! Objects as Nephio publishes them, and an O-Cloud with Nephio's kind of ProvisioningRequests.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, ResourceExt as _};
use o2ims_types::names::focom as names;
use o2ims_types::{FocomProvisioningRequest, OCloud, TemplateInfo};
use sandbox::focom;
use sandbox::waiting::wait;
use serde_json::{Value, json};
use testenv::{ManagementCluster, Options};

use crate::harness::{Outcome, SOON, Scenario, Tenant, World, alone, beside};
use crate::o_clouds::{put_o_cloud, put_secret};

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        beside("every_field_of_nephios_objects_is_taken", every_field_is_taken),
        alone("cluster_scoped_provisioning_requests_are_driven_too", cluster_scoped_ones_are_driven),
    ]
}

async fn every_field_is_taken(world: Arc<World>) -> Outcome {
    let tenant = Tenant::bare(&world, "nephio-fields").await?;
    focom::allow_secrets(&tenant.parts.smo, &tenant.namespace).await?;
    let (strict, client) = (PatchParams::apply("user").validation_strict(), tenant.client());
    let o_cloud = json!({
        "apiVersion": "focom.nephio.org/v1alpha1", "kind": "OCloud", "metadata": {"name": "ocloud-1"},
        "spec": {"o2imsSecret": {"secretRef": {"name": "ocloud-1-o2ims-endpoint", "namespace": "nephio-fields"}}},
    });
    let template = json!({
        "apiVersion": "provisioning.oran.org/v1alpha1", "kind": "TemplateInfo",
        "metadata": {"name": "red-hat-cluster-template-1.0.0"},
        "spec": {
            "templateName": "red-hat-cluster-template", "templateVersion": "1.0.0",
            "templateParameterSchema": "{\"type\": \"object\", \"required\": [\"oCloudSiteId\"]}",
        },
    });
    let request = json!({
        "apiVersion": "focom.nephio.org/v1alpha1", "kind": "FocomProvisioningRequest", "metadata": {"name": "cluster1"},
        "spec": {
            "name": "my cluster 1 provisioning request", "description": "some longer description\nof two lines\n",
            "oCloudId": "ocloud-1", "oCloudNamespace": "nephio-fields",
            "templateName": "red-hat-cluster-template", "templateVersion": "1.0.0",
            "templateParameters": {
                "oCloudSiteId": "location1", "tags": ["vendor=a", "location=location1"],
                "inputData": {"hw": {"hwConfigParams": "some params"}}, "caas": {"siteConfigParams": "some params"},
                "number": 1.5, "flag": true, "nothing": null, "list": [{"a": []}],
            },
        },
    });
    let o_clouds = Api::<OCloud>::namespaced(client.clone(), "nephio-fields");
    o_clouds.patch("ocloud-1", &strict, &Patch::Apply(&o_cloud)).await?;
    let templates = Api::<TemplateInfo>::namespaced(client.clone(), "nephio-fields");
    templates.patch("red-hat-cluster-template-1.0.0", &strict, &Patch::Apply(&template)).await?;
    let requests = Api::<FocomProvisioningRequest>::namespaced(client, "nephio-fields");
    requests.patch("cluster1", &strict, &Patch::Apply(&request)).await?;
    let stored = serde_json::to_value(requests.get("cluster1").await?.spec)?;
    ensure!(stored == request["spec"], "stored as {stored}");
    // What Nephio's operator has written is read: an upgrade begins with it.
    let status = json!({"status": {"phase": "provisioning", "message": "m", "lastUpdated": "2026-01-01T00:00:00Z"}});
    requests.patch_status("cluster1", &PatchParams::default(), &Patch::Merge(&status)).await?;
    tenant.until("cluster1", "Pending", "put a kubeconfig of the O-Cloud there", SOON).await?;
    tenant.delete("cluster1").await?;
    tenant.until_gone("cluster1", SOON).await?;
    o_clouds.delete("ocloud-1", &DeleteParams::default()).await?;
    Ok(())
}

/// A CRD of the same name in Nephio's shape: cluster-scoped, no conditions, no state `pending`.
fn cluster_scoped_crd() -> Value {
    let text = || json!({"type": "string"});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "provisioningrequests.o2ims.provisioning.oran.org"},
        "spec": {
            "group": "o2ims.provisioning.oran.org", "scope": "Cluster",
            "names": {
                "kind": "ProvisioningRequest", "listKind": "ProvisioningRequestList",
                "plural": "provisioningrequests", "singular": "provisioningrequest",
            },
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {
                        "type": "object", "required": ["templateName", "templateVersion", "templateParameters"],
                        "properties": {
                            "name": text(), "description": text(), "templateName": text(), "templateVersion": text(),
                            "templateParameters": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                        },
                    },
                    "status": {"type": "object", "properties": {
                        "provisioningStatus": {"type": "object", "properties": {
                            "provisioningState": {"type": "string", "enum": ["progressing", "fulfilled", "failed", "deleting"]},
                            "provisioningMessage": text(),
                            "provisioningUpdateTime": {"type": "string", "format": "date-time"},
                        }},
                        "provisionedResourceSet": {"type": "object", "properties": {
                            "oCloudNodeClusterId": text(),
                            "oCloudInfrastructureResourceIds": {"type": "array", "items": text()},
                        }},
                    }},
                }}},
            }],
        },
    })
}

async fn cluster_scoped_ones_are_driven(world: Arc<World>) -> Outcome {
    let tenant = Tenant::bare(&world, "nephio").await?;
    let other = Tenant::bare(&world, "nephio-other").await?;
    let bare = Options { cluster_api: false, byoh: false, ..Options::default() };
    let o_cloud = ManagementCluster::start(bare, |line| eprintln!("nephio: {line}")).await?;
    let result = drive(&tenant, &other, &o_cloud).await;
    result.and(o_cloud.stop().await)
}

/// Here no operator answers on the O-Cloud: what one would write there is SIMULATED.
async fn drive(tenant: &Tenant, other: &Tenant, o_cloud: &ManagementCluster) -> Outcome {
    o_cloud.apply_yaml(sandbox::installation::RIGHTS[0]).await?;
    let kubeconfig = focom::kubeconfig_for(o_cloud).await?;
    for tenant in [tenant, other] {
        focom::allow_secrets(&tenant.parts.smo, &tenant.namespace).await?;
        put_secret(tenant, "nephio", "kubeconfig", &kubeconfig).await?;
        put_o_cloud(tenant, "nephio").await?;
    }
    tenant.apply(&tenant.request("early", "nephio", &[1], &[])).await?;
    tenant.until_o_cloud("nephio", "ApiMissing").await?;
    tenant.until("early", "Pending", "install the O2IMS operator there", SOON).await?;
    o_cloud.apply_yaml(&cluster_scoped_crd().to_string()).await?;
    tenant.until("early", "Synced", "has not reported a state yet", SOON).await?;
    let ready = tenant.until_o_cloud("nephio", "Ready").await?;
    ensure!(format!("{:?}", ready.status).contains("cluster-scoped"));

    let kind =
        ApiResource::from_gvk(&GroupVersionKind::gvk("o2ims.provisioning.oran.org", "v1alpha1", "ProvisioningRequest"));
    let remote = Api::<DynamicObject>::all_with(o_cloud.admin(), &kind);
    let sent = remote.get("early-o2ims").await?;
    ensure!(sent.metadata.namespace.is_none() && sent.data["spec"]["templateVersion"] == "v1.0.0");
    let say = async |name: &str, state: &str| -> Outcome {
        let said = json!({"status": {
            "provisioningStatus": {"provisioningState": state, "provisioningMessage": format!("it is {state}"), "provisioningUpdateTime": "2026-01-01T00:00:00Z"},
            "provisionedResourceSet": {"oCloudNodeClusterId": "id", "oCloudInfrastructureResourceIds": ["a", "b"]},
        }});
        remote.patch_status(name, &PatchParams::default(), &Patch::Merge(&said)).await?;
        Ok(())
    };
    for (state, phase) in [("progressing", "Synced"), ("failed", "Failed"), ("fulfilled", "Synced")] {
        say("early-o2ims", state).await?;
        tenant.until("early", phase, &format!("it is {state}"), SOON).await?;
    }
    let status = tenant.until_state("early", "fulfilled", SOON).await?.status.context("a status")?;
    ensure!(status.provisioned_resource_set.is_some_and(|set| set.o_cloud_infrastructure_resource_ids == ["a", "b"]));
    ensure!(status.conditions.iter().any(|found| found.type_ == "Ready" && found.status == "True"));

    // What Nephio's operator has sent has the request's own name, and no marks.
    let mut request = tenant.request("sent", "nephio", &[1], &[]);
    let object = json!({
        "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest", "metadata": {"name": "sent"},
        "spec": {
            "templateName": request["spec"]["templateName"], "templateVersion": request["spec"]["templateVersion"],
            "templateParameters": request["spec"]["templateParameters"],
        },
    });
    let uid = remote.patch("sent", &PatchParams::apply("nephio"), &Patch::Apply(&object)).await?.metadata.uid;
    request["metadata"]["annotations"] = json!({ names::ADOPT_ANNOTATION: uid });
    tenant.apply(&request).await?;
    tenant.until("sent", "Synced", "has not reported a state yet", SOON).await?;
    ensure!(remote.get("sent").await?.metadata.uid == uid, "it is another one");
    ensure!(remote.get_opt("sent-o2ims").await?.is_none(), "a second one was sent");
    tenant.delete("sent").await?;
    tenant.until_gone("sent", SOON).await?;

    // There is one name for all namespaces.
    other.apply(&other.request("early", "nephio", &[1], &[])).await?;
    other.until("early", "Failed", "choose another metadata.name", SOON).await?;
    other.delete("early").await?;
    other.until_gone("early", SOON).await?;
    tenant.until("early", "Synced", "it is fulfilled", SOON).await?;

    // An operator that takes its time to take it back.
    let finalizers = json!({"metadata": {"finalizers": ["example.org/slow"]}});
    remote.patch("early-o2ims", &PatchParams::default(), &Patch::Merge(&finalizers)).await?;
    tenant.delete("early").await?;
    let leaving =
        |found: Option<&DynamicObject>| found.is_some_and(|found| found.metadata.deletion_timestamp.is_some());
    wait(remote.clone(), "early-o2ims", "the deletion to arrive", SOON, leaving).await?;
    say("early-o2ims", "deleting").await?;
    tenant.until("early", "Deleting", "it is deleting", SOON).await?;
    remote
        .patch("early-o2ims", &PatchParams::default(), &Patch::Merge(&json!({"metadata": {"finalizers": null}})))
        .await?;
    tenant.until_gone("early", SOON).await?;
    // One that nothing keeps goes as it is deleted, before its operator can say a word.
    tenant.apply(&tenant.request("quick", "nephio", &[1], &[])).await?;
    tenant.until("quick", "Synced", "has not reported a state yet", SOON).await?;
    say("quick-o2ims", "fulfilled").await?;
    tenant.until_state("quick", "fulfilled", SOON).await?;
    tenant.delete("quick").await?;
    tenant.until_gone("quick", SOON).await?;
    ensure!(remote.list(&ListParams::default()).await?.items.is_empty());
    sends_too_much(tenant, &remote, sent.labels().get(names::SMO_LABEL).context("no label of the SMO")?).await?;
    tenant.o_clouds().delete("nephio", &DeleteParams::default()).await?;
    other.o_clouds().delete("nephio", &DeleteParams::default()).await?;
    Ok(())
}

/// What is small to the API server is large in memory: lists of numbers, which have two characters each.
async fn sends_too_much(tenant: &Tenant, remote: &Api<DynamicObject>, smo: &str) -> Outcome {
    for number in 0..12 {
        let object = json!({
            "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest",
            "metadata": {"name": format!("flood-{number}"), "labels": {names::SMO_LABEL: smo}},
            "spec": {"templateName": "none", "templateVersion": "v1.0.0", "templateParameters": {"numbers": vec![0; 60_000]}},
        });
        remote.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    }
    let told = format!("{:?}", tenant.until_o_cloud("nephio", "TooLarge").await?.status);
    ensure!(told.contains("32 MiB") && told.contains(&format!("{}={smo}", names::SMO_LABEL)), "{told}");
    tenant.apply(&tenant.request("waits", "nephio", &[1], &[])).await?;
    tenant.until("waits", "Pending", "waiting for O-Cloud nephio/nephio", SOON).await?;
    remote.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    tenant.until("waits", "Synced", "has not reported a state yet", SOON * 2).await?;
    tenant.delete("waits").await?;
    tenant.until_gone("waits", SOON).await
}
