//! Hosts that are held by a request that does not exist any more. The finalizer is there to prevent this, but somebody can
//! take it off by hand; and a DELETE that the API server began before it stored the finalizer removes the request all the
//! same (kube-apiserver looks for finalizers first and deletes unconditionally then).

use std::sync::Arc;

use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use o2ims_types::provisioning_request::ProvisioningRequestSpec;
use o2ims_types::{ProvisioningRequest, names};
use operator_kit::apply::limited;
use operator_kit::outcome::{Error, Outcome};

use super::observe::{is_of, observe};
use super::plan::Step;
use super::{Context, apply, reserve, teardown};
use crate::byoh::host::ByoHost;
use crate::capi::contract::CLUSTER_NAME_LABEL;
use crate::watches::Watches;

/// Lets go of a host whose holder is gone.
///
/// # Errors
/// What the API server refused or did not answer.
pub async fn reconcile(host: Arc<ByoHost>, context: Arc<Context>) -> Result<Outcome, Error> {
    let Some((holder, steps)) = plan(&host, &context.watches) else { return Ok(Outcome::Done) };
    if steps.is_empty() || exists(&context.client, &holder).await? {
        return Ok(Outcome::Done);
    }
    tracing::info!(
        host = host.name_any(),
        holder = host.holder_name(),
        steps = steps.len(),
        "the request that holds this host does not exist any more: cleaning up after it"
    );
    apply::apply(&context.client, &holder, &steps, &mut Vec::new()).await?;
    Ok(Outcome::Done)
}

/// What is due for a host whose holder is in no cache, and that holder. A Cluster that was never let go is removed; one that
/// runs is not ended because somebody forced its request away: the host stays with it, until it is deleted.
pub fn plan(host: &ByoHost, watches: &Watches) -> Option<(ProvisioningRequest, Vec<Step>)> {
    let holder = vanished_holder(host, watches)?;
    let observed = observe(watches, &holder);
    let steps = match &observed.cluster {
        None => teardown::objects(&observed).into_iter().chain(reserve::let_go(host, &observed)).collect(),
        Some(cluster) if observed.cluster_is_own && !observed.is_running() => {
            teardown::cluster(cluster).into_iter().collect()
        }
        Some(_) => Vec::new(),
    };
    Some((holder, steps))
}

/// The holder, as far as its marks tell, if the cache does not have it. Without the annotation it is not known whom to
/// look for, and the host is left alone.
fn vanished_holder(host: &ByoHost, watches: &Watches) -> Option<ProvisioningRequest> {
    let uid = host.holder()?;
    let (namespace, name) = host.annotations().get(names::REQUEST_ANNOTATION)?.split_once('/')?;
    let known = watches.requests.get(&ObjectRef::new(name).within(namespace));
    if known.is_some_and(|request| request.metadata.uid.as_deref() == Some(uid)) {
        return None;
    }
    let cluster = watches
        .byo_clusters
        .find(|object| is_of(object, uid))
        .map(|object| object.name_any())
        .or_else(|| watches.clusters.find(|object| is_of(object, uid)).map(|object| object.name_any()))
        .or_else(|| host.labels().get(CLUSTER_NAME_LABEL).cloned());
    let mut holder = ProvisioningRequest::new(name, ProvisioningRequestSpec::default());
    holder.metadata.namespace = host.namespace();
    holder.metadata.uid = Some(uid.to_owned());
    holder.spec.template_parameters.cluster_name = cluster;
    Some(holder)
}

/// Asks the API server, since a cache may lag, and does not have requests that cannot be decoded.
async fn exists(client: &Client, request: &ProvisioningRequest) -> Result<bool, Error> {
    let namespace = request.namespace().unwrap_or_default();
    let api = Api::<ProvisioningRequest>::namespaced(client.clone(), &namespace);
    let what = format!("look for ProvisioningRequest {namespace}/{}", request.name_any());
    let found = limited(&what, api.get_metadata_opt(&request.name_any())).await?;
    Ok(found.is_some_and(|found| found.metadata.uid == request.meta().uid))
}
