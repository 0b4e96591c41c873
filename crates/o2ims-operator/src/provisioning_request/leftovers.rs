//! What is left of a request that does not exist any more. The finalizer is there to prevent this, but somebody can take it
//! off by hand; and a DELETE that the API server began before it stored the finalizer removes the request all the same
//! (kube-apiserver looks for finalizers first and deletes unconditionally then).
//!
//! A Cluster that was never let go is removed. One that runs is not ended because its request vanished: it keeps its hosts, until
//! they are free because somebody has deleted the Cluster, or until the request is applied again, which takes it back.

use std::sync::Arc;
use std::time::Duration;

use kube::{Api, Resource, ResourceExt as _};
use o2ims_types::provisioning_request::ProvisioningRequestSpec;
use o2ims_types::{ProvisioningRequest, names};
use operator_kit::controller::{Error, Outcome};
use operator_kit::write::apply::{dynamic_api, with_timeout};

use super::observe::{is_of, maker_exists, observe, request_exists};
use super::plan::Step;
use super::{Context, apply, reserve, teardown};
use crate::byoh::host::ByoHost;
use crate::capi::contract::{CLUSTER_NAME_LABEL, Kind};
use crate::capi::read::Cluster;
use crate::watches::Watches;

/// A request that cannot be decoded is in no cache and its end is not noticed, nor is the end of every object that was
/// made: these are looked at again after this time.
const UNWATCHED: Duration = Duration::from_secs(5);

/// Lets go of a host whose holder is gone.
///
/// # Errors
/// What the API server refused or did not answer.
pub async fn reconcile_host(host: Arc<ByoHost>, context: Arc<Context>) -> Result<Outcome, Error> {
    let Some((holder, steps)) = plan_host(&host, &context.watches) else { return Ok(Outcome::Done) };
    carry_out(&holder, &steps, &context).await
}

/// Removes a Cluster that was never let go and whose request is gone.
///
/// # Errors
/// What the API server refused or did not answer.
pub async fn reconcile_cluster(cluster: Arc<Cluster>, context: Arc<Context>) -> Result<Outcome, Error> {
    let Some((holder, steps)) = plan_cluster(&cluster, &context.watches) else { return Ok(Outcome::Done) };
    carry_out(&holder, &steps, &context).await?;
    Ok(Outcome::Progressing { recheck: Some(UNWATCHED) })
}

/// What is due for a host whose holder is in no cache, and what is known of that holder.
pub fn plan_host(host: &ByoHost, watches: &Watches) -> Option<(ProvisioningRequest, Vec<Step>)> {
    // Without Cluster API's kinds it is not known whether there is a Cluster.
    if !watches.missing_providers().is_empty() {
        return None;
    }
    let mut holder = vanished(host, watches)?;
    let uid = host.holder()?;
    holder.spec.template_parameters.cluster_name = watches
        .byo_clusters
        .find(|object| is_of(object, uid))
        .map(|object| object.name_any())
        .or_else(|| watches.clusters.find(|object| is_of(object, uid)).map(|object| object.name_any()))
        .or_else(|| host.labels().get(CLUSTER_NAME_LABEL).cloned());
    let observed = observe(watches, &holder);
    let steps = if observed.cluster.is_some() || observed.runs_nodes() {
        Vec::new()
    } else if observed.made.is_empty() {
        reserve::release(host, &observed).into_iter().collect()
    } else {
        teardown::without_cluster(&observed)
    };
    Some((holder, steps))
}

/// What is due for a Cluster whose request is in no cache, and what is known of that request.
pub fn plan_cluster(cluster: &Cluster, watches: &Watches) -> Option<(ProvisioningRequest, Vec<Step>)> {
    let maker = vanished(cluster, watches).filter(|_| cluster.is_being_made())?;
    let mut of_cluster = maker.clone();
    of_cluster.spec.template_parameters.cluster_name = Some(cluster.name_any());
    let observed = observe(watches, &of_cluster);
    let steps = if observed.runs_nodes() { Vec::new() } else { teardown::cluster(cluster, &observed) };
    Some((maker, steps))
}

/// The request whose marks are on the object, as far as they tell, if no cache has it. Without the annotation it is not
/// known whom to look for, and the object is left alone.
fn vanished<K: Resource>(object: &K, watches: &Watches) -> Option<ProvisioningRequest> {
    let uid = object.labels().get(names::REQUEST_UID_LABEL)?;
    let name = object.annotations().get(names::REQUEST_ANNOTATION)?.rsplit('/').next()?;
    let namespace = object.namespace()?;
    if maker_exists(watches, object) {
        return None;
    }
    let mut request = ProvisioningRequest::new(name, ProvisioningRequestSpec::default());
    request.metadata.namespace = Some(namespace);
    request.metadata.uid = Some(uid.clone());
    Some(request)
}

async fn carry_out(holder: &ProvisioningRequest, steps: &[Step], context: &Context) -> Result<Outcome, Error> {
    let uid = holder.uid().unwrap_or_default();
    context.forget(&uid);
    if steps.is_empty() {
        return Ok(Outcome::Done);
    }
    if exists(context, holder).await? {
        return Ok(Outcome::Progressing { recheck: Some(UNWATCHED) });
    }
    tracing::info!(request = super::plan::key(holder), uid, "cleaning up after a request that does not exist any more");
    apply::apply(&context.client, holder, &uid, steps, &mut Vec::new()).await?;
    let lets_go = steps.iter().all(|step| matches!(step, Step::MarkHost(_)));
    Ok(if lets_go { Outcome::Done } else { Outcome::Progressing { recheck: Some(UNWATCHED) } })
}

/// Asks the API server for the request, since a cache may lag, and for a Cluster that the plan did not see. A kind that is
/// not served is an error here, and nothing is touched.
async fn exists(context: &Context, holder: &ProvisioningRequest) -> Result<bool, Error> {
    let client = &context.client;
    let namespace = holder.namespace().unwrap_or_default();
    let name = holder.name_any();
    let api = Api::<ProvisioningRequest>::namespaced(client.clone(), &namespace);
    let what = format!("look for ProvisioningRequest {namespace}/{name}");
    let found = with_timeout(&what, api.get_metadata_opt(&name)).await?;
    // One of that name that the cache does not show yet may have been restored, and take back what this would clean up.
    if found.and_then(|found| found.metadata.uid).is_some_and(|uid| !request_exists(&context.watches.requests, &uid)) {
        return Ok(true);
    }
    let Some(cluster) = &holder.spec.template_parameters.cluster_name else { return Ok(false) };
    let api = dynamic_api(client, &Kind::Cluster.api_resource(), Some(&namespace));
    let what = format!("look for Cluster {namespace}/{cluster}");
    Ok(with_timeout(&what, api.get_metadata_opt(cluster)).await?.is_some())
}
