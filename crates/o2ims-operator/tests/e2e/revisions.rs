//! The specs that a request was accepted with are kept, and its owner goes back to one of them with kubectl.

use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use o2ims_types::{ProvisioningRequest, ProvisioningState as State, Revisions, names};
use sandbox::Stack;
use serde_json::{Value, json};

use crate::admission::{done, kubectl, refused, write};
use crate::bad_requests::forbid;
use crate::harness::{CLUSTER, OPERATOR_USER, Outcome, SOON, Scenario, Shared, Tenant, shared, wait};

pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared("a_request_is_brought_back_to_an_earlier_revision", back),
        shared("a_request_whose_revision_is_refused_is_carried_out", refused_revision),
    ]
}

const NAMESPACE: &str = "revisions";
/// A quota keeps the operator from writing its revisions here.
pub const FORBIDDEN_NAMESPACE: &str = "no-revisions";

async fn back(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, NAMESPACE, 3).await?;
    let of_workers = |workers: &[u32]| tenant.request("request", "site", &[1], workers);
    applied(&stack, &of_workers(&[])).await?;
    let first = until_revision(&tenant, 1, Some(1)).await?.accepted.name;
    applied(&stack, &of_workers(&[2])).await?;
    let second = until_revision(&tenant, 2, Some(2)).await?.accepted.name;
    ensure!(first != second && first.starts_with("request-"), "{first}, {second}");

    // One that the API server refuses, and one that the operator does not carry out.
    let mut wrong = of_workers(&[2]);
    wrong["spec"]["templateParameters"]["podCidr"] = json!("10.1.0.0/16");
    let file = write(&stack, "revisions-wrong.json", &wrong)?;
    refused(&stack, &["apply", "-f", &file], &["podCidr"]).await?;
    applied(&stack, &of_workers(&[2, 9])).await?;
    let told = tenant.until("request", State::Progressing, "revisions-9", SOON).await?;
    let revisions = revisions_of(&told).context("no revisions")?;
    ensure!(revisions.accepted.name == second && revisions.fulfilled.is_some_and(|last| last.name == second));
    ensure!(numbers(&tenant).await? == [1, 2], "a refused spec is recorded: {:?}", numbers(&tenant).await?);

    // What is planned only is not carried out.
    let plan = ["annotate", "pr", "request", "-n", NAMESPACE];
    done(&stack, &[&plan[..], &[&format!("{}=true", names::PLAN_ANNOTATION)]].concat()).await?;
    applied(&stack, &of_workers(&[2, 3])).await?;
    let is_planned = |request: Option<&ProvisioningRequest>| {
        let status = request.and_then(|request| request.status.as_ref());
        status.is_some_and(|status| status.extensions.plan.iter().any(|change| change.host_name == tenant.host(3)))
    };
    wait(tenant.requests(), "request", "the plan to name host 3", SOON, is_planned).await?;
    ensure!(numbers(&tenant).await? == [1, 2], "a plan is recorded");
    done(&stack, &[&plan[..], &[&format!("{}-", names::PLAN_ANNOTATION)]].concat()).await?;
    until_revision(&tenant, 3, Some(3)).await?;

    // As the documents say.
    let selector = format!("{}=request", names::REVISION_OF_LABEL);
    let list = kubectl(&stack, &["get", "controllerrevisions", "-n", NAMESPACE, "-l", &selector]).await?.words;
    ensure!(list.contains("provisioningrequest.o2ims.provisioning.oran.org/request"), "{list}");
    go_back(&stack, &first).await?;
    let revisions = until_revision(&tenant, 4, Some(4)).await?;
    ensure!(revisions.accepted.name == first, "the same spec is another revision: {revisions:?}");
    let spec = tenant.requests().get("request").await?.spec;
    ensure!(spec.template_parameters.hosts.is_some_and(|hosts| hosts.workers.is_empty()), "the workers stay");
    ensure!(numbers(&tenant).await? == [2, 3, 4], "{:?}", numbers(&tenant).await?);

    // A field that another client has added stays with `kubectl apply`, and goes when the spec is replaced.
    let described = Patch::Merge(json!({"spec": {"description": "by another client"}}));
    tenant.requests().patch("request", &PatchParams::default(), &described).await?;
    until_revision(&tenant, 5, Some(5)).await?;
    go_back(&stack, &first).await?;
    let spec = data(&stack, &first, "{.data.spec}").await?;
    let patch = format!(r#"[{{"op": "replace", "path": "/spec", "value": {spec}}}]"#);
    done(&stack, &["patch", "pr", "request", "-n", NAMESPACE, "--type", "json", "-p", &patch]).await?;
    let revisions = until_revision(&tenant, 6, Some(6)).await?;
    ensure!(revisions.accepted.name == first, "{revisions:?}");

    // Those of others are not the operator's to write.
    let foreign = json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "foreign", "namespace": NAMESPACE}, "revision": 1, "data": {},
    });
    done(&stack, &["create", "-f", &write(&stack, "foreign.json", &foreign)?]).await?;
    let label = format!("{}=request", names::REVISION_OF_LABEL);
    for change in
        [&["label", "controllerrevision", "foreign", &label][..], &["delete", "controllerrevision", "foreign"]]
    {
        let as_operator = ["-n", NAMESPACE, "--as", OPERATOR_USER, "--as-group", "system:masters"];
        let words = ["may write ControllerRevisions with its label"];
        refused(&stack, &[change, &as_operator].concat(), &words).await?;
    }

    // Somebody deletes them: nothing is written for a spec that was recorded, and no number is given twice.
    done(&stack, &["delete", "controllerrevisions", "-n", NAMESPACE, "--all"]).await?;
    tenant.requests().patch("request", &PatchParams::default(), &described).await?;
    until_revision(&tenant, 7, Some(7)).await?;
    ensure!(numbers(&tenant).await? == [7], "{:?}", numbers(&tenant).await?);

    // Eleven are one too many.
    for number in 8..=17 {
        let patch = Patch::Merge(json!({"spec": {"description": format!("edit {number}")}}));
        tenant.requests().patch("request", &PatchParams::default(), &patch).await?;
        until_revision(&tenant, number, Some(number)).await?;
    }
    ensure!(numbers(&tenant).await? == (8..=17).collect::<Vec<_>>(), "{:?}", numbers(&tenant).await?);

    // What is left of a request that was deleted without its cluster is the history of the next one of its name.
    done(&stack, &["delete", "pr", "request", "-n", NAMESPACE, "--cascade=orphan"]).await?;
    tenant.until_gone("request", SOON).await?;
    applied(&stack, &of_workers(&[])).await?;
    until_revision(&tenant, 18, Some(18)).await?;
    ensure!(numbers(&tenant).await? == (9..=18).collect::<Vec<_>>(), "{:?}", numbers(&tenant).await?);

    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    until_none(&tenant).await?;
    tenant.assert_hosts_free().await
}

/// A quota forbids ControllerRevisions: the cluster is made all the same, and its owner is told once.
async fn refused_revision(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, FORBIDDEN_NAMESPACE, 1).await?;
    forbid(&stack, &tenant, "controllerrevisions.apps").await?;
    let mark = stack.management.audit_log().mark()?;
    tenant.apply(&tenant.request("request", "none", &[1], &[])).await?;
    let told = tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    ensure!(revisions_of(&told).is_none(), "{:?}", revisions_of(&told));
    tenant.until_event("request", "RevisionNotRecorded").await?;
    let entries = stack.management.audit_log().since(&mark)?;
    let tried: Vec<_> = entries
        .iter()
        .filter(|entry| entry.user == OPERATOR_USER && entry.namespace == FORBIDDEN_NAMESPACE)
        .filter(|entry| entry.resource == "controllerrevisions")
        .map(|entry| entry.verb.clone())
        .collect();
    ensure!(tried == ["list", "patch"], "tried again and again: {tried:?}");

    // The next spec is recorded when that is allowed.
    let quotas = Api::<ResourceQuota>::namespaced(stack.management.admin(), &tenant.namespace);
    quotas.delete("none", &DeleteParams::default()).await?;
    let patch = Patch::Merge(json!({"spec": {"description": "edited"}}));
    tenant.requests().patch("request", &PatchParams::default(), &patch).await?;
    until_revision(&tenant, 1, Some(1)).await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await
}

/// Applies a request as a user would.
async fn applied(stack: &Stack, request: &Value) -> Outcome {
    let file = write(stack, "revisions.json", request)?;
    done(stack, &["apply", "-f", &file]).await
}

/// What kubectl prints of a revision.
async fn data(stack: &Stack, name: &str, path: &str) -> anyhow::Result<String> {
    let output = format!("jsonpath={path}");
    let said = kubectl(stack, &["get", "controllerrevision", name, "-n", NAMESPACE, "-o", &output]).await?;
    ensure!(said.well, "{}", said.words);
    Ok(said.words)
}

/// `kubectl get controllerrevision NAME -o jsonpath='{.data}' | kubectl apply -f -`
async fn go_back(stack: &Stack, name: &str) -> Outcome {
    applied(stack, &serde_json::from_str(&data(stack, name, "{.data}").await?)?).await
}

fn revisions_of(request: &ProvisioningRequest) -> Option<Revisions> {
    request.status.as_ref()?.extensions.revisions.clone()
}

/// Waits until the status names these numbers.
async fn until_revision(tenant: &Tenant, accepted: i64, fulfilled: Option<i64>) -> anyhow::Result<Revisions> {
    let what = format!("revision {accepted} to be accepted, and {fulfilled:?} fulfilled");
    let is_noted = |request: Option<&ProvisioningRequest>| {
        let revisions = request.and_then(revisions_of);
        revisions.is_some_and(|revisions| {
            revisions.accepted.number == accepted && revisions.fulfilled.map(|last| last.number) == fulfilled
        })
    };
    let found = wait(tenant.requests(), "request", &what, CLUSTER, is_noted).await?;
    found.as_ref().and_then(revisions_of).context("no revisions")
}

/// The numbers of the revisions that are there, in their order.
async fn numbers(tenant: &Tenant) -> anyhow::Result<Vec<i64>> {
    let list = tenant.revisions().list(&ListParams::default()).await?;
    let mut numbers: Vec<_> = list.iter().map(|revision| revision.revision).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Waits until the garbage collector has deleted them.
async fn until_none(tenant: &Tenant) -> Outcome {
    for revision in tenant.revisions().list(&ListParams::default()).await? {
        let name = revision.name_any();
        let is_gone = |revision: Option<&ControllerRevision>| revision.is_none();
        wait(tenant.revisions(), &name, &format!("revision {name} to be gone"), CLUSTER, is_gone).await?;
    }
    Ok(())
}
