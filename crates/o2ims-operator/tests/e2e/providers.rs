//! The operator on a management cluster that has no providers yet.

use anyhow::{Context as _, ensure};
use cluster_api::Kind;
use cluster_api::byoh::crd_resource;
use kube::Api;
use kube::api::DeleteParams;
use kube::core::DynamicObject;
use o2ims_types::{ProvisioningState as State, conditions, names};
use sandbox::{Stack, StackOptions, installation};
use serde_json::json;
use testenv::{ByohDialect, Options};

use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Tenant, alone_with, patient, wait};

pub fn scenarios() -> Vec<Scenario> {
    vec![alone_with("providers_that_are_installed_later_are_noticed", bare, later)]
}

fn bare(options: StackOptions) -> StackOptions {
    let options = patient(options);
    StackOptions { management: Options { cluster_api: false, byoh: false, ..options.management }, ..options }
}

/// A Cluster API that does not serve v1beta2 yet, and goes again.
async fn other_version(stack: &Stack, tenant: &Tenant) -> Outcome {
    let name = format!("{}.{}", Kind::Cluster.plural(), Kind::Cluster.group());
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": name, "annotations": {(names::ALLOW_DELETION_ANNOTATION): "true"}},
        "spec": {
            "group": Kind::Cluster.group(), "scope": "Namespaced",
            "names": {
                "kind": Kind::Cluster.name(), "listKind": "ClusterList", "plural": Kind::Cluster.plural(), "singular": "cluster",
            },
            "versions": [
                {"name": "v1beta1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}},
            ],
        },
    });
    stack.management.apply_yaml(&crd.to_string()).await?;
    let told = "the management cluster serves clusters.cluster.x-k8s.io in v1beta1, and this operator needs v1beta2";
    tenant.until("request", State::Pending, told, SOON).await?;
    let crds = Api::<DynamicObject>::all_with(stack.management.admin(), &crd_resource());
    crds.delete(&name, &DeleteParams::default()).await?;
    wait(crds, &name, "to be gone", SOON, |crd: Option<&DynamicObject>| crd.is_none()).await?;
    tenant.until("request", State::Pending, "BYOH) and Cluster API and", SOON).await?;
    Ok(())
}

async fn later(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::new(stack, "later", 0).await?;
    tenant.apply(&tenant.request("request", "later", &[1], &[2])).await?;
    let request = tenant.until("request", State::Pending, "BYOH) and Cluster API", SOON).await?;
    let conditions = request.status.context("no status")?.conditions;
    let told = conditions
        .iter()
        .find(|condition| condition.type_ == conditions::PROVIDERS_AVAILABLE)
        .context("no condition")?;
    ensure!(told.status == "False" && told.reason == conditions::reason::PROVIDER_NOT_INSTALLED, "{told:?}");

    let bundle = json!({"method": "bundle", "bundle": {"repo": "registry.invalid/byoh"}});
    tenant.template("bundle", json!({"install": bundle})).await?;
    tenant.until_template("bundle", true, "").await?;

    other_version(stack, &tenant).await?;
    stack.management.install_cluster_api().await?;
    tenant.until("request", State::Pending, "Bring-Your-Own-Host provider (BYOH) is not installed", SOON).await?;
    stack.management.install_byoh().await?;
    let works = stack.management.byoh_dialect() == Some(ByohDialect::Platform9);
    tenant.until_template("bundle", works, if works { "" } else { "does not work with upstream BYOH" }).await?;
    installation::install_provider_parts(&stack.management, stack.hosts()).await?;
    tenant.equip(stack, 2).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    let ended = stack.operator.as_mut().context("no operator")?.ended()?;
    ensure!(ended.is_none(), "the operator was restarted: {ended:?}");
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}
