//! Orphans: what is left of a request that does not exist any more. The finalizer prevents this, but it can be removed by hand; and a DELETE
//! that the API server began before it stored the finalizer removes the request all the same (kube-apiserver looks for finalizers first and
//! deletes unconditionally then).
//!
//! A Cluster whose creation has not ended is deleted. A running Cluster is not deleted because its request is gone: it keeps its hosts until
//! the Cluster is deleted and they are not in use, or until the request is applied again, which manages the cluster again.

use std::sync::Arc;
use std::time::Duration;

use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use cluster_api::cluster::Cluster;
use cluster_api::labels::CLUSTER_NAME_LABEL;
use kube::{Api, Resource, ResourceExt as _};
use o2ims_types::o2ims::v1alpha1::provisioning_request::ProvisioningRequestSpec;
use o2ims_types::{ProvisioningRequest, names};
use operator_kit::controller::{Error, Outcome};
use operator_kit::write::apply::{dynamic_api, with_timeout};

use super::identity::owner_exists;
use super::marks::{MarkedCluster as _, MarkedHost as _};
use super::observe::observe;
use super::{claim, teardown};
use crate::apply;
use crate::caches::Caches;
use crate::context::Context;
use crate::provisioner::step::Step;
use crate::request::key;

/// The deletion of a request that cannot be decoded produces no event, since it is in no cache; nor does the deletion of every object that
/// was created. What they left is checked again after this time.
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Releases a host whose holder is gone, and takes one back that was given up and that its agent has cleaned.
///
/// # Errors
/// What the API server refused or did not answer.
pub async fn reconcile_host(host: Arc<ByoHost>, context: Arc<Context>) -> Result<Outcome, Error> {
    if let Some(step) = claim::take_back(&host) {
        let mut former = ProvisioningRequest::new("", ProvisioningRequestSpec::default());
        former.metadata.namespace = host.namespace();
        apply::apply(&context.client, &former, "", &[step], &mut Vec::new()).await?;
        return Ok(Outcome::Done);
    }
    let Some((holder, steps)) = plan_host(&host, &context.caches) else { return Ok(Outcome::Done) };
    apply_plan(&holder, &steps, &context).await
}

/// Deletes a Cluster whose creation has not ended and whose request is gone.
///
/// # Errors
/// What the API server refused or did not answer.
pub async fn reconcile_cluster(cluster: Arc<Cluster>, context: Arc<Context>) -> Result<Outcome, Error> {
    let Some((holder, steps)) = plan_cluster(&cluster, &context.caches) else { return Ok(Outcome::Done) };
    apply_plan(&holder, &steps, &context).await?;
    Ok(Outcome::Progressing { recheck: Some(RECHECK_INTERVAL) })
}

/// What is due for a host whose holder is in no cache, and what is known of that holder.
pub fn plan_host(host: &ByoHost, caches: &Caches) -> Option<(ProvisioningRequest, Vec<Step>)> {
    // Without Cluster API's kinds it is not known whether there is a Cluster.
    if !caches.missing_providers().is_empty() {
        return None;
    }
    let mut holder = missing_owner(host, caches)?;
    let (namespace, uid) = (host.namespace()?, host.holder()?);
    let byo_clusters = caches.byo_clusters.marked(&namespace, uid);
    let clusters = caches.clusters.marked(&namespace, uid);
    holder.spec.template_parameters.cluster_name = byo_clusters
        .first()
        .map(|object| object.name_any())
        .or_else(|| clusters.first().map(|object| object.name_any()))
        .or_else(|| host.labels().get(CLUSTER_NAME_LABEL).cloned());
    let observed = observe(caches, &holder);
    let steps = if observed.cluster.is_some() || observed.runs_nodes() {
        Vec::new()
    } else if observed.owned.is_empty() {
        claim::release(&holder, host, &observed).into_iter().collect()
    } else {
        teardown::delete_leftovers(&holder, &observed)
    };
    Some((holder, steps))
}

/// What is due for a Cluster whose request is in no cache, and what is known of that request.
pub fn plan_cluster(cluster: &Cluster, caches: &Caches) -> Option<(ProvisioningRequest, Vec<Step>)> {
    let owner = missing_owner(cluster, caches).filter(|_| cluster.is_creating())?;
    let mut of_cluster = owner.clone();
    of_cluster.spec.template_parameters.cluster_name = Some(cluster.name_any());
    let observed = observe(caches, &of_cluster);
    let steps = if observed.runs_nodes() { Vec::new() } else { teardown::cluster(cluster, &observed) };
    Some((owner, steps))
}

/// The request whose mark is on the object, as far as the mark tells, if no cache has it. Without the annotation its name is not known, and
/// the object is not changed.
fn missing_owner<K: Resource>(object: &K, caches: &Caches) -> Option<ProvisioningRequest> {
    let uid = object.labels().get(names::REQUEST_UID_LABEL)?;
    let name = object.annotations().get(names::REQUEST_ANNOTATION)?.rsplit('/').next()?;
    let namespace = object.namespace()?;
    if owner_exists(caches, object) {
        return None;
    }
    let mut request = ProvisioningRequest::new(name, ProvisioningRequestSpec::default());
    request.metadata.namespace = Some(namespace);
    request.metadata.uid = Some(uid.clone());
    Some(request)
}

async fn apply_plan(holder: &ProvisioningRequest, steps: &[Step], context: &Context) -> Result<Outcome, Error> {
    let uid = holder.uid().unwrap_or_default();
    context.forget(&uid);
    if steps.is_empty() {
        return Ok(Outcome::Done);
    }
    if exists(context, holder).await? {
        return Ok(Outcome::Progressing { recheck: Some(RECHECK_INTERVAL) });
    }
    tracing::info!(request = key(holder), uid, "cleaning up after a request that does not exist any more");
    apply::apply(&context.client, holder, &uid, steps, &mut Vec::new()).await?;
    let only_releases = steps.iter().all(|step| matches!(step, Step::PatchHost(_)));
    Ok(if only_releases { Outcome::Done } else { Outcome::Progressing { recheck: Some(RECHECK_INTERVAL) } })
}

/// Asks the API server for the request, since a cache may lag, and for a Cluster that the plan did not see. A kind that is not served is an
/// error here, and nothing is changed.
async fn exists(context: &Context, holder: &ProvisioningRequest) -> Result<bool, Error> {
    let client = &context.client;
    let namespace = holder.namespace().unwrap_or_default();
    let name = holder.name_any();
    let api = Api::<ProvisioningRequest>::namespaced(client.clone(), &namespace);
    let found =
        with_timeout(&format!("look for ProvisioningRequest {namespace}/{name}"), api.get_metadata_opt(&name)).await?;
    // A request of that name that the cache does not show yet may have been restored; what this would delete belongs to it then.
    if found.and_then(|found| found.metadata.uid).is_some_and(|uid| !context.caches.requests.exists(&uid)) {
        return Ok(true);
    }
    let Some(cluster) = &holder.spec.template_parameters.cluster_name else { return Ok(false) };
    let api = dynamic_api(client, &Kind::Cluster.api_resource(), Some(&namespace));
    let found = with_timeout(&format!("look for Cluster {namespace}/{cluster}"), api.get_metadata_opt(cluster)).await?;
    Ok(found.is_some())
}
