//! Writes the ProvisioningRequest of one request on its O-Cloud.

use std::error::Error as _;

use kube::api::{ListParams, Preconditions};
use kube::{Api, ResourceExt as _};
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::names::{self, focom};
use operator_kit::controller::{Class, Error};
use operator_kit::write::apply::{self, MetadataPatch, Precondition};
use serde_json::Value;

use super::adopt::{self, SourceGeneration};
use super::manifest::{at_revision_of, manifest};
use super::observe::{Relation, RemoteState, relation};
use super::write_error::{WriteError, explain_status, marked_elsewhere, not_gone, unreadable};
use crate::caches::Requests;
use crate::o_cloud::connection::{Connection, ReadyOCloud};
use crate::o_cloud::error::ConnectionError;
use crate::o_cloud::remote_request::RemoteRequest;

/// The ProvisioningRequest of one request, to be written.
pub struct RemoteApi<'a> {
    request: &'a FocomProvisioningRequest,
    requests: &'a Requests,
    connection: &'a Connection,
    o_cloud: &'a ReadyOCloud,
    api: Api<RemoteRequest>,
    name: String,
    /// Empty where ProvisioningRequests have no namespaces.
    namespace: String,
    /// Name for messages, with the namespace if there is one.
    place: String,
}

impl<'a> RemoteApi<'a> {
    /// `None` if the O-Cloud cannot be used now. `requests` has all requests of the SMO.
    pub fn new(request: &'a FocomProvisioningRequest, remote: &'a RemoteState, requests: &'a Requests) -> Option<Self> {
        let (connection, o_cloud) = (remote.connection.connection.as_deref()?, remote.ready()?);
        let name = remote.name(request);
        let client = connection.client().clone();
        let (api, place) = match o_cloud.namespace(request.o_cloud().0) {
            Some(namespace) => (Api::namespaced_with(client, namespace, &o_cloud.kind), format!("{namespace}/{name}")),
            None => (Api::all_with(client, &o_cloud.kind), name.clone()),
        };
        let namespace = o_cloud.namespace(request.o_cloud().0).unwrap_or_default().to_owned();
        Some(Self { request, requests, connection, o_cloud, api, name, namespace, place })
    }

    /// Name of the ProvisioningRequest.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Applies a manifest. Returns the object as stored.
    ///
    /// # Errors
    /// What the O-Cloud refused or did not answer, or that the precondition does not hold.
    pub async fn write(&self, manifest: &Value, precondition: Precondition<'_>) -> Result<RemoteRequest, WriteError> {
        let result = apply::apply(&self.api, manifest, focom::FIELD_MANAGER, precondition).await;
        result.map_err(|error| self.explain(error))
    }

    /// Deletes the ProvisioningRequest, if it still has this UID.
    ///
    /// # Errors
    /// What the O-Cloud refused or did not answer, or that the name has another UID now.
    pub async fn delete(&self, uid: &str) -> Result<(), WriteError> {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        apply::delete(&self.api, &self.name, preconditions).await.map_err(|error| self.explain(error))
    }

    /// Removes the protection from deletion of the ProvisioningRequest of this UID and revision.
    ///
    /// # Errors
    /// What the O-Cloud refused or did not answer, or that there is a newer revision.
    pub async fn unprotect(&self, uid: &str, revision: &str) -> Result<(), WriteError> {
        tracing::info!(uid, "removing the protection from deletion of the ProvisioningRequest");
        self.annotate(revision, names::DELETION_PROTECTION_ANNOTATION, "false").await
    }

    /// Names hosts as lost in the ProvisioningRequest of this UID and revision.
    ///
    /// # Errors
    /// As [`RemoteApi::unprotect`].
    pub async fn give_up_hosts(&self, uid: &str, revision: &str, hosts: &str) -> Result<(), WriteError> {
        tracing::info!(uid, hosts, "naming hosts as lost in the ProvisioningRequest");
        self.annotate(revision, names::LOST_HOSTS_ANNOTATION, hosts).await
    }

    async fn annotate(&self, revision: &str, annotation: &str, value: &str) -> Result<(), WriteError> {
        let annotations = [(annotation.to_owned(), Some(value.to_owned()))].into();
        let patch = MetadataPatch { annotations, ..MetadataPatch::default() };
        // The revision guards the UID too: another object of this name has another revision.
        let result = apply::patch_metadata(&self.api, &self.name, revision, &patch, focom::FIELD_MANAGER).await;
        result.map(drop).map_err(|error| self.explain(error))
    }

    /// Updates or rejects a ProvisioningRequest that exists although the cache does not show it: it was created a
    /// moment ago, or lacks the label by which it is watched. `conflict` is the error of the attempt to create it.
    ///
    /// # Errors
    /// Why it cannot be used, or what the O-Cloud refused or did not answer.
    pub async fn update_or_reject(&self, manifest: &Value, conflict: Error) -> Result<RemoteRequest, WriteError> {
        let Some((found, relation)) = self.look(&self.name).await? else { return Err(conflict.into()) };
        match relation {
            Relation::Own => {
                self.ensure_not_newer(manifest, &found)?;
                self.write(manifest, Precondition::Uid(&found.uid().unwrap_or_default())).await
            }
            // The next reconcile finds it in the cache.
            Relation::Predecessor => Err(conflict.into()),
            other => match adopt::check_adoption(self.request, manifest, &found, &other) {
                Ok(()) => Err(conflict.into()),
                Err(rejection) => Err(rejection.into()),
            },
        }
    }

    /// Adopts the ProvisioningRequest of the request's names that the request may adopt. Returns it as stored; `None`
    /// if the request is being deleted and there is none.
    ///
    /// # Errors
    /// Why it cannot be adopted, or what the O-Cloud refused or did not answer.
    pub async fn find_and_adopt(&self) -> Result<Option<RemoteRequest>, WriteError> {
        let mut found = Vec::new();
        for name in focom::remote_requests(&self.request.name_any()) {
            found.extend(self.look(&name).await?);
        }
        let Some((remote, relation)) = adopt::choose(self.request, &found) else {
            let is_being_deleted = self.request.metadata.deletion_timestamp.is_some();
            return if is_being_deleted { Ok(None) } else { Err(adopt::nothing_to_adopt(self.request).into()) };
        };
        let wanted = manifest(self.request, self.o_cloud, &remote.name_any());
        adopt::check_adoption(self.request, &wanted, remote, relation)?;
        self.ensure_not_newer(&wanted, remote)?;
        let uid = remote.uid().unwrap_or_default();
        self.write(&at_revision_of(wanted, remote), Precondition::Uid(&uid)).await.map(Some)
    }

    /// Checks on the O-Cloud that no ProvisioningRequest of the request is left, and deletes one that has its name. Once
    /// the request is deleted, nothing would delete it, and the cache may lag behind a write of a former leader, or not
    /// show it for lack of a label.
    ///
    /// # Errors
    /// That something is left, or what the O-Cloud refused or did not answer.
    pub async fn ensure_absent(&self, uid: &str) -> Result<(), WriteError> {
        let params = ListParams::default().labels(&format!("{}={uid}", focom::SOURCE_UID_LABEL)).limit(1);
        let everywhere = Api::<RemoteRequest>::all_with(self.connection.client().clone(), &self.o_cloud.kind);
        let left = apply::with_timeout("look for leftovers", everywhere.list_metadata(&params)).await;
        let Some(left) = left.map_err(|error| self.explain(error))?.items.into_iter().next() else { return Ok(()) };
        let (name, namespace) = (left.name_any(), left.namespace().unwrap_or_default());
        let has_own_name = name == self.name && namespace == self.namespace;
        if has_own_name && left.metadata.deletion_timestamp.is_none() {
            self.delete(&left.uid().unwrap_or_default()).await?;
        }
        let left = if has_own_name { not_gone(&self.place) } else { marked_elsewhere(&name, &namespace) };
        Err(left.into())
    }

    async fn look(&self, name: &str) -> Result<Option<(RemoteRequest, Relation)>, WriteError> {
        let found = apply::with_timeout("look at what exists", self.api.get_opt(name)).await;
        let found = found.map_err(|error| self.explain(error))?;
        Ok(found.map(|found| {
            let relation = relation(&found, self.request, &self.o_cloud.smo, |uid| self.requests.exists(uid));
            (found, relation)
        }))
    }

    /// A ProvisioningRequest that was sent from a later generation of the request must not be changed, unless it has
    /// the same content.
    fn ensure_not_newer(&self, manifest: &Value, found: &RemoteRequest) -> Result<(), WriteError> {
        match adopt::source_generation(self.request, manifest, found) {
            SourceGeneration::NotNewer | SourceGeneration::NewerButEqual => Ok(()),
            SourceGeneration::NewerAndDifferent(rejection) => Err(rejection.into()),
        }
    }

    /// Turns an error into a message that a requester may read, and requests a probe of an O-Cloud that did not answer.
    /// Of an O-Cloud's answer only the refusal of the ProvisioningRequest is quoted.
    fn explain(&self, error: Error) -> WriteError {
        let what = format!("ProvisioningRequest {}", self.place);
        let unreachable = |error: ConnectionError| {
            self.connection.request_probe();
            WriteError::transient(error.reason, error.message)
        };
        let origin = error.source().and_then(|cause| cause.source()).and_then(|origin| origin.downcast_ref());
        match origin {
            Some(kube::Error::Api(_)) if error.class() == Class::Conflict => error.context(what).into(),
            Some(kube::Error::Api(status)) => {
                let quote = self.connection.quote(&status.message);
                explain_status(&what, status, &quote)
            }
            Some(kube::Error::SerdeError(_)) => unreadable(&what),
            Some(other) => unreachable(ConnectionError::from_kube(other)),
            None if error.class() == Class::Transient => unreachable(ConnectionError::timeout()),
            None => error.into(),
        }
    }
}
