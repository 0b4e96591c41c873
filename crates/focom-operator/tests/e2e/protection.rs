//! What is protected from deletion stays, what policies refuse is told as they say it, and what may not change is held.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt as _};
use o2ims_types::names::{DELETION_PROTECTION_ANNOTATION, LOST_HOSTS_ANNOTATION, focom as names};
use o2ims_types::{FocomProvisioningRequest, ProvisioningRequest};
use sandbox::waiting::wait;
use serde_json::{Value, json};
use testenv::ManagementCluster;

use crate::coming_back::annotate;
use crate::harness::{Outcome, SOON, Scenario, Tenant, World, alone, beside};

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        beside("protection_from_deletion_is_passed_on_and_kept", protection),
        beside("lost_hosts_are_passed_on_once", lost_hosts),
        beside("what_a_policy_refuses_is_told_in_its_words", a_policy_refuses),
        beside("the_kind_of_requests_is_not_deleted_by_a_slip", kinds),
        alone("what_may_not_change_is_held_without_a_policy", transitions),
    ]
}

/// Installs a policy for one namespace: what does not satisfy `rule` is refused as Forbidden. Returns when it works.
pub async fn refuse(
    management: &ManagementCluster,
    namespace: &str,
    (group, resource): (&str, &str),
    operation: &str,
    rule: &str,
    message: &str,
) -> Outcome {
    let name = format!("{namespace}-{}", operation.to_lowercase());
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "resourceRules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": [operation], "resources": [resource]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            },
            "validations": [{"expression": rule, "message": message, "reason": "Forbidden"}],
        },
    }))?;
    Api::<ValidatingAdmissionPolicy>::all(management.admin()).create(&PostParams::default(), &policy).await?;
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
    }))?;
    Api::<ValidatingAdmissionPolicyBinding>::all(management.admin()).create(&PostParams::default(), &binding).await?;
    // The policy works when its own kin does: one that refuses every ConfigMap of a name that nobody has.
    let probe = format!("{name}-probe");
    let every: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": {"name": probe},
        "spec": {
            "matchConstraints": {
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["configmaps"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            },
            "validations": [{"expression": format!("object.metadata.name != '{probe}'"), "reason": "Forbidden"}],
        },
    }))?;
    Api::<ValidatingAdmissionPolicy>::all(management.admin()).create(&PostParams::default(), &every).await?;
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
        "metadata": {"name": probe}, "spec": {"policyName": probe, "validationActions": ["Deny"]},
    }))?;
    Api::<ValidatingAdmissionPolicyBinding>::all(management.admin()).create(&PostParams::default(), &binding).await?;
    let maps = Api::<k8s_openapi::api::core::v1::ConfigMap>::namespaced(management.admin(), namespace);
    let object = serde_json::from_value(json!({"metadata": {"name": probe}}))?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let works = async {
        while maps.create(&dry_run, &object).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, works).await.context("the policy does not work")
}

const REQUESTS: (&str, &str) = ("o2ims.provisioning.oran.org", "provisioningrequests");

/// Waits until the ProvisioningRequest's protection says this.
async fn until_protected(tenant: &Tenant, name: &str, value: Option<&str>) -> Outcome {
    let says = |found: Option<&ProvisioningRequest>| {
        found.is_some_and(|found| found.annotations().get(DELETION_PROTECTION_ANNOTATION).map(String::as_str) == value)
    };
    let what = format!("the protection of {name} to be {value:?}");
    wait(tenant.remote(&tenant.parts.site_b.management), name, &what, SOON, says).await?;
    Ok(())
}

async fn protection(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "protected").await?;
    let (site_b, remote) = (&tenant.parts.site_b.management, tenant.remote(&tenant.parts.site_b.management));
    let rule = "!has(oldObject.metadata.annotations) || \
                !('o2ims.provisioning.oran.org/deletion-protection' in oldObject.metadata.annotations) || \
                oldObject.metadata.annotations['o2ims.provisioning.oran.org/deletion-protection'] != 'true'";
    refuse(site_b, "protected", REQUESTS, "DELETE", rule, "it is protected").await?;
    tenant.apply(&tenant.request("edge", "site-b", &[1], &[])).await?;
    tenant.until_state("edge", "pending", SOON).await?;
    until_protected(&tenant, "edge-o2ims", None).await?;
    for value in [Some("true"), Some("false"), None, Some("true")] {
        annotate(&tenant, "edge", names::DELETION_PROTECTION_ANNOTATION, value).await?;
        until_protected(&tenant, "edge-o2ims", value).await?;
    }
    annotate(&tenant, "edge", names::DELETION_PROTECTION_ANNOTATION, Some("yes")).await?;
    let words =
        "metadata.annotations[focom.nephio.org/deletion-protection] is \"yes\": it must be \"true\" or \"false\"";
    tenant.until("edge", "Failed", words, SOON).await?;
    until_protected(&tenant, "edge-o2ims", Some("true")).await?;
    annotate(&tenant, "edge", names::DELETION_PROTECTION_ANNOTATION, None).await?;
    until_protected(&tenant, "edge-o2ims", None).await?;

    // Protected by somebody on the O-Cloud, such as its template; the request does not say anything.
    let protect = json!({"metadata": {"annotations": {DELETION_PROTECTION_ANNOTATION: "true"}}});
    remote.patch("edge-o2ims", &PatchParams::default(), &Patch::Merge(&protect)).await?;
    tenant.until("edge", "Synced", "", SOON).await?;
    tenant.delete("edge").await?;
    let words = "ProvisioningRequest edge-o2ims on O-Cloud protected/site-b is protected from deletion by its annotation \
                 o2ims.provisioning.oran.org/deletion-protection=true: annotate this request with \
                 focom.nephio.org/deletion-protection=false to have it deleted";
    tenant.until("edge", "Deleting", words, SOON).await?;
    until_protected(&tenant, "edge-o2ims", Some("true")).await?;
    ensure!(remote.get("edge-o2ims").await?.metadata.deletion_timestamp.is_none(), "deleted though it is protected");
    annotate(&tenant, "edge", names::DELETION_PROTECTION_ANNOTATION, Some("false")).await?;
    tenant.until_gone("edge", SOON).await?;
    ensure!(tenant.remote_names(site_b).await?.is_empty(), "left on the O-Cloud");

    // Given up, it stays there, and nobody is asked.
    let mut request = tenant.request("kept", "site-b", &[1], &[]);
    request["metadata"]["annotations"] = json!({names::DELETION_PROTECTION_ANNOTATION: "true"});
    tenant.apply(&request).await?;
    until_protected(&tenant, "kept-o2ims", Some("true")).await?;
    tenant.until("kept", "Synced", "", SOON).await?;
    // Where the SMO has a policy too, the request says that it may go, and its ProvisioningRequest is protected by somebody there.
    annotate(&tenant, "kept", names::DELETION_PROTECTION_ANNOTATION, None).await?;
    until_protected(&tenant, "kept-o2ims", None).await?;
    remote.patch("kept-o2ims", &PatchParams::default(), &Patch::Merge(&protect)).await?;
    tenant.delete("kept").await?;
    tenant.until("kept", "Deleting", "is protected from deletion", SOON).await?;
    tenant.abandon("kept", "true").await?;
    tenant.until_gone("kept", SOON).await?;
    ensure!(remote.get("kept-o2ims").await?.metadata.deletion_timestamp.is_none(), "deleted though it is protected");
    Ok(())
}

async fn lost_hosts(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "lost").await?;
    let remote = tenant.remote(&tenant.parts.site_b.management);
    tenant.apply(&tenant.request("edge", "site-b", &[1], &[])).await?;
    tenant.until_state("edge", "pending", SOON).await?;
    for hosts in ["lost-2", "lost-2,lost-3"] {
        annotate(&tenant, "edge", names::LOST_HOSTS_ANNOTATION, Some(hosts)).await?;
        let says = |found: Option<&ProvisioningRequest>| {
            found.is_some_and(|found| found.annotations().get(LOST_HOSTS_ANNOTATION).is_some_and(|said| said == hosts))
        };
        wait(remote.clone(), "edge-o2ims", "the lost hosts to be passed on", SOON, says).await?;
        let used_up = |found: Option<&FocomProvisioningRequest>| {
            found.is_some_and(|found| !found.annotations().contains_key(names::LOST_HOSTS_ANNOTATION))
        };
        wait(tenant.requests(), "edge", "the annotation to be removed", SOON, used_up).await?;
    }
    tenant.delete("edge").await?;
    tenant.until_gone("edge", SOON).await
}

async fn a_policy_refuses(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "policy").await?;
    let site_b = &tenant.parts.site_b.management;
    let rule = "!has(object.spec.description) || object.spec.description != 'wrong'";
    refuse(site_b, "policy", REQUESTS, "UPDATE", rule, "spec.description must not be wrong").await?;
    refuse(site_b, "policy", REQUESTS, "DELETE", "oldObject.spec.name == 'deletable'", "only what is deletable")
        .await?;
    let mut request = tenant.request("edge", "site-b", &[1], &[]);
    request["spec"]["name"] = json!("kept");
    tenant.apply(&request).await?;
    tenant.until_state("edge", "pending", SOON).await?;
    request["spec"]["description"] = json!("wrong");
    tenant.apply(&request).await?;
    let told = tenant.until("edge", "Failed", "denied request: spec.description must not be wrong", SOON).await?;
    let told = told.status.context("a status")?;
    ensure!(told.message.contains("the O-Cloud refuses it") && !told.message.contains("rights"), "{}", told.message);
    request["spec"]["description"] = json!("right");
    tenant.apply(&request).await?;
    tenant.until("edge", "Synced", "", SOON).await?;
    tenant.delete("edge").await?;
    tenant.until("edge", "Deleting", "denied request: only what is deletable", SOON).await?;
    let change = json!({"spec": {"name": "deletable"}});
    tenant.remote(site_b).patch("edge-o2ims", &PatchParams::default(), &Patch::Merge(&change)).await?;
    tenant.until_gone("edge", SOON).await
}

/// The CustomResourceDefinitions of the SMO.
fn crds(smo: &ManagementCluster) -> Api<DynamicObject> {
    let kind = kube::core::GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    Api::all_with(smo.admin(), &kube::core::ApiResource::from_gvk(&kind))
}

/// In dry runs: every request on this management cluster is of them.
async fn kinds(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "kinds").await?;
    let try_only = DeleteParams { dry_run: true, ..DeleteParams::default() };
    for name in ["focomprovisioningrequests.focom.nephio.org", "oclouds.focom.nephio.org"] {
        match crds(&tenant.parts.smo).delete(name, &try_only).await {
            Err(kube::Error::Api(status)) if status.code == 403 => {
                let way_out = format!("kubectl annotate crd {name} o2ims.provisioning.oran.org/allow-deletion=true");
                ensure!(status.message.ends_with(&way_out), "{}", status.message);
            }
            answer => anyhow::bail!("{name}: {answer:?}"),
        }
    }
    Ok(())
}

/// The rules that stand in the way of a change are taken away for a while: those in the CustomResourceDefinition, and policies.
async fn transitions(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "transitions").await?;
    let smo = &tenant.parts.smo;
    let crds = crds(smo);
    let name = "focomprovisioningrequests.focom.nephio.org";
    let before = crds.get(name).await?.data["spec"]["versions"].clone();
    let mut without = before.clone();
    if let Some(spec) = without.pointer_mut("/0/schema/openAPIV3Schema/properties/spec").and_then(Value::as_object_mut)
    {
        spec.remove("x-kubernetes-validations");
    }
    let set = async |versions: &Value| -> Outcome {
        let change = json!({"spec": {"versions": versions}});
        crds.patch(name, &PatchParams::default(), &Patch::Merge(&change)).await?;
        Ok(())
    };
    set(&without).await?;
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(smo.admin());
    let of_ours = bindings.list(&kube::api::ListParams::default()).await?;
    for binding in &of_ours {
        bindings.delete(&binding.name_any(), &DeleteParams::default()).await?;
    }
    let result = held(&tenant).await;
    for mut binding in of_ours {
        binding.metadata.resource_version = None;
        bindings.create(&PostParams::default(), &binding).await?;
    }
    set(&before).await?;
    result
}

async fn held(tenant: &Tenant) -> Outcome {
    let remote = tenant.remote(&tenant.parts.site_b.management);
    tenant.apply(&tenant.request("edge", "site-b", &[1], &[])).await?;
    tenant.until_state("edge", "pending", SOON).await?;
    let before = remote.get("edge-o2ims").await?;
    let change = async |field: &str, value: &str| -> Outcome {
        let change = json!({"spec": {field: value}});
        let works = async {
            // Until the API server has taken note that there is no rule any more.
            while tenant.requests().patch("edge", &PatchParams::default(), &Patch::Merge(&change)).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, works).await.with_context(|| format!("{field} cannot be changed"))
    };
    for (field, from, to) in [
        ("oCloudId", "site-b", "site-a"),
        ("oCloudId", "site-b", "unknown"),
        ("oCloudNamespace", "transitions", "default"),
        ("templateName", "byoh-workload-cluster", "another"),
        ("templateVersion", "v1.0.0", "v2"),
    ] {
        change(field, to).await?;
        let words = format!("spec.{field} cannot change from {from} to {to}");
        let told = tenant.until("edge", "Failed", &words, SOON).await?.status.context("a status")?;
        ensure!(told.provisioning_status.is_some_and(|said| said.provisioning_state == "pending"), "{field}");
        change(field, from).await?;
        tenant.until("edge", "Synced", "", SOON).await?;
    }
    let now = remote.get("edge-o2ims").await?;
    ensure!(now.metadata.uid == before.metadata.uid && now.metadata.generation == before.metadata.generation);
    ensure!(tenant.remote_names(&tenant.parts.site_a.management).await?.is_empty(), "sent a second time");
    // Deleted, it is deleted where it was sent.
    change("oCloudId", "site-a").await?;
    tenant.until("edge", "Failed", "spec.oCloudId cannot change", SOON).await?;
    tenant.delete("edge").await?;
    tenant.until_gone("edge", SOON).await?;
    ensure!(tenant.remote_names(&tenant.parts.site_b.management).await?.is_empty(), "left on the O-Cloud");
    Ok(())
}
