//! Connects to the O-Cloud of one OCloud, and reports in the OCloud's status whether that worked.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource as _, ResourceExt as _};
use o2ims_types::conditions::{self, focom::reason};
use o2ims_types::names::focom;
use o2ims_types::{OCloud, OCloudStatus};
use operator_kit::cache::SyncState;
use operator_kit::controller::{Error, Outcome};
use operator_kit::write::status::{self, ConditionStatus, ConditionUpdate, patch_status_if_changed};

use super::connection::ConnectionState;
use super::credentials::SecretState;
use super::error::ConnectionError;
use super::kubeconfig::{self, KubeconfigError};
use super::orphans;
use super::registry::{ConnectionSnapshot, NamespacedName, id};
use crate::authorization;
use crate::context::Context;

/// Makes the connection to one O-Cloud what its OCloud specifies: grant, Secret, kubeconfig, connection, status.
///
/// # Errors
/// What the SMO's API server refused or did not answer. An O-Cloud that cannot be used is a condition, not an error.
pub async fn reconcile(o_cloud: Arc<OCloud>, context: Arc<Context>) -> Result<Outcome, Error> {
    let id = id(&o_cloud);
    let connections = &context.connections;
    if context.caches.is_terminating(&id.0) && connections.is_connected(&id) {
        // A namespace loses its Secrets, roles and OClouds in any order. The connection is kept for the requests in it,
        // which have to be deleted on the O-Cloud.
        return Ok(Outcome::Done);
    }
    connect(&o_cloud, &id, &context).await;
    if context.caches.o_clouds.get(&id.0, &id.1).is_none() {
        // It was deleted during this reconcile: the hook for deleted OClouds ran before the entry was created.
        connections.forget(&id);
        return Ok(Outcome::Done);
    }
    let connection = connections.get(&id);
    if matches!(connection.state, ConnectionState::Connecting) {
        return Ok(Outcome::progressing());
    }
    write_status(&o_cloud, &context, &connection).await?;
    Ok(match connection.state {
        ConnectionState::Failed(error) => Outcome::blocked(error.message),
        _ => Outcome::Done,
    })
}

async fn connect(o_cloud: &OCloud, id: &NamespacedName, context: &Context) {
    let connections = &context.connections;
    let secret = o_cloud.secret();
    let owner = context.caches.namespaces.get(&ObjectRef::new(&secret.0));
    if !authorization::can_read_secrets(&secret.0, owner.as_deref(), &id.0) {
        return connections.deny(id, not_granted(o_cloud));
    }
    match connections.credentials(id, &secret) {
        SecretState::NotYet => {}
        SecretState::Kubeconfig(file) => match kubeconfig::read(&file) {
            Ok(credentials) => connections.connect(id, credentials).await,
            Err(error) => connections.close(id, rejected(o_cloud, &error)),
        },
        SecretState::Missing => connections.close(id, missing(o_cloud)),
        SecretState::Empty => connections.close(id, empty(o_cloud)),
        SecretState::Forbidden => connections.close(id, forbidden(o_cloud)),
    }
}

fn secret_name(o_cloud: &OCloud) -> String {
    let (namespace, name) = o_cloud.secret();
    format!("Secret {namespace}/{name}")
}

/// The Secret of an OCloud does not exist.
pub fn missing(o_cloud: &OCloud) -> ConnectionError {
    ConnectionError::new(
        reason::SECRET_MISSING,
        format!("{} does not exist: put a kubeconfig of the O-Cloud there", secret_name(o_cloud)),
    )
}

/// The Secret of an OCloud has no kubeconfig.
pub fn empty(o_cloud: &OCloud) -> ConnectionError {
    let message = format!(
        "{} has neither the key kubeconfig nor the key value: put a kubeconfig of the O-Cloud there",
        secret_name(o_cloud)
    );
    ConnectionError::new(reason::SECRET_MISSING, message)
}

/// The kubeconfig of an OCloud is not used.
pub fn rejected(o_cloud: &OCloud, error: &KubeconfigError) -> ConnectionError {
    ConnectionError::new(
        reason::KUBECONFIG_REFUSED,
        format!("{}: the kubeconfig is not used: {error}", secret_name(o_cloud)),
    )
}

/// The operator may not read the Secret of an OCloud.
pub fn forbidden(o_cloud: &OCloud) -> ConnectionError {
    let (namespace, _) = o_cloud.secret();
    ConnectionError::new(
        reason::SECRET_NOT_ALLOWED,
        format!(
            "the operator may not read {}: kubectl create rolebinding focom-operator-secrets --namespace {namespace} \
             --clusterrole focom-operator-secrets --serviceaccount {}:focom-operator",
            secret_name(o_cloud),
            focom::OPERATOR_NAMESPACE
        ),
    )
}

/// The OCloud may not use the Secret. The message is the same whether or not the Secret and its Namespace exist.
pub fn not_granted(o_cloud: &OCloud) -> ConnectionError {
    let ((owner, _), asker) = (o_cloud.secret(), o_cloud.namespace().unwrap_or_default());
    ConnectionError::new(
        reason::SECRET_NOT_ALLOWED,
        format!(
            "Secrets of namespace {owner} are not for OClouds of namespace {asker}: move the Secret, or annotate Namespace \
             {owner} with {}={asker}",
            focom::SECRETS_FOR_ANNOTATION
        ),
    )
}

async fn write_status(o_cloud: &OCloud, context: &Context, connection: &ConnectionSnapshot) -> Result<(), Error> {
    let state = &connection.state;
    let mut new = assess(o_cloud, state, Timestamp::now());
    let are_requests_known = *context.requests_state.borrow() == SyncState::Synced;
    if let (ConnectionState::Ready(ready), true) = (state, are_requests_known) {
        new.orphaned_requests = orphans::find(o_cloud, &ready.requests, &context.caches.requests);
    }
    let api = Api::<OCloud>::namespaced(context.client.clone(), &o_cloud.namespace().unwrap_or_default());
    let old = o_cloud.status.as_ref();
    patch_status_if_changed(&api, o_cloud, old, &new, focom::FIELD_MANAGER).await?;
    let reason_of =
        |status: &OCloudStatus| status::find(&status.conditions, conditions::READY).map(|ready| ready.reason.clone());
    let (was, is) = (old.and_then(reason_of), reason_of(&new));
    if was != is {
        let regarding = o_cloud.object_ref(&());
        match state {
            ConnectionState::Failed(error) => {
                context.events.warning(&regarding, error.reason, "Connect", &error.message).await;
            }
            _ => context.events.normal(&regarding, reason::READY, "Connect", "the O-Cloud answers").await,
        }
    }
    Ok(())
}

/// Derives the status. Of the old status the version of the O-Cloud is kept, and the time of the last transition.
pub fn assess(o_cloud: &OCloud, state: &ConnectionState, now: Timestamp) -> OCloudStatus {
    let mut new = o_cloud.status.clone().unwrap_or_default();
    let (status, reason, message) = match state {
        ConnectionState::Ready(ready) => {
            new.server_version = Some(ready.server_version.clone());
            let scope = if ready.namespaced { "namespaced" } else { "cluster-scoped" };
            (ConditionStatus::True, reason::READY, format!("the O-Cloud answers; its ProvisioningRequests are {scope}"))
        }
        ConnectionState::Failed(error) if error.message.contains(&secret_name(o_cloud)) => {
            (ConditionStatus::False, error.reason, error.message.clone())
        }
        ConnectionState::Failed(error) => {
            let message = format!("{} (the kubeconfig is in {})", error.message, secret_name(o_cloud));
            (ConditionStatus::False, error.reason, message)
        }
        ConnectionState::Connecting => {
            (ConditionStatus::Unknown, reason::CONNECTING, "the O-Cloud has not answered yet".to_owned())
        }
    };
    let observed_generation = o_cloud.metadata.generation;
    let ready = ConditionUpdate { type_: conditions::READY, status, reason, message, observed_generation };
    status::set(&mut new.conditions, ready, now);
    new.observed_generation = observed_generation;
    new
}
