//! Carries a plan out, one write after the other.

use std::error::Error as _;

use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::names::focom;
use operator_kit::apply::{self, Precondition};
use operator_kit::outcome::{Class, Error};

use super::observe::{Observed, Remote, is_of};
use super::plan::Step;
use crate::ocloud::connection::{Connection, Open, RemoteRequest};
use crate::ocloud::fault::Fault;
use crate::operator::Context;

/// What an O-Cloud did not take.
pub struct Failure {
    /// For the next try.
    pub error: Error,
    /// Whether it is that somebody else's object has the name.
    pub name_taken: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, name_taken: false }
    }
}

/// Carries out `steps` in order, up to the first that fails.
///
/// # Errors
/// The first failure.
pub async fn apply(
    context: &Context,
    request: &FocomProvisioningRequest,
    observed: &Observed,
    remote: Option<&Remote>,
    steps: &[Step],
) -> Result<(), Failure> {
    let (uid, expectations) = (&observed.uid, &context.expectations);
    let api = Api::<FocomProvisioningRequest>::namespaced(context.client.clone(), &observed.namespace);
    let site = remote.and_then(|remote| Site::of(request, remote));
    for step in steps {
        match (step, &site) {
            (Step::AddFinalizer, _) => {
                apply::add_finalizer(&api, request, focom::FINALIZER, focom::FIELD_MANAGER).await?;
            }
            (Step::RemoveFinalizer, site) => {
                if let Some(site) = site {
                    site.nothing_is_left(uid).await?;
                }
                apply::remove_finalizer(&api, request, focom::FINALIZER, focom::FIELD_MANAGER).await?;
                expectations.forget(uid);
            }
            (Step::Create(manifest), Some(site)) => {
                let written = match site.write(manifest, Precondition::MustNotExist).await {
                    Err(error) if error.class() == Class::Conflict => return Err(site.whose(uid, error).await),
                    result => result?,
                };
                expectations.wrote_remote(uid, &written);
            }
            (Step::Change(manifest, of), Some(site)) => {
                expectations.wrote_remote(uid, &site.write(manifest, Precondition::Uid(of)).await?);
            }
            (Step::Delete(of), Some(site)) => {
                site.delete(of).await?;
                expectations.deleted_remote(uid);
            }
            (Step::Create(_) | Step::Change(..) | Step::Delete(_), None) => {}
        }
    }
    Ok(())
}

/// Where the ProvisioningRequest is.
struct Site<'a> {
    connection: &'a Connection,
    open: &'a Open,
    api: Api<RemoteRequest>,
    name: String,
    place: String,
}

impl<'a> Site<'a> {
    fn of(request: &FocomProvisioningRequest, remote: &'a Remote) -> Option<Self> {
        let (connection, open) = (remote.found.connection.as_deref()?, remote.open()?);
        let name = focom::remote_request(&request.name_any());
        let client = connection.client().clone();
        let (api, place) = match open.namespace(&request.spec.o_cloud_namespace) {
            Some(namespace) => (Api::namespaced_with(client, namespace, &open.kind), format!("{namespace}/{name}")),
            None => (Api::all_with(client, &open.kind), name.clone()),
        };
        Some(Self { connection, open, api, name, place })
    }

    async fn write(
        &self,
        manifest: &serde_json::Value,
        precondition: Precondition<'_>,
    ) -> Result<RemoteRequest, Error> {
        let result = apply::apply(&self.api, manifest, focom::FIELD_MANAGER, precondition).await;
        result.map_err(|error| self.explain(error))
    }

    async fn delete(&self, uid: &str) -> Result<(), Error> {
        apply::delete(&self.api, &self.name, uid).await.map(drop).map_err(|error| self.explain(error))
    }

    /// What has the name is not in the cache: it is ours and new, or somebody else's, which does not change by waiting.
    async fn whose(&self, uid: &str, conflict: Error) -> Failure {
        let look = apply::limited("look at what exists", self.api.get_metadata_opt(&self.name)).await;
        match look.map_err(|error| self.explain(error)) {
            Ok(Some(found)) if found.labels().get(focom::SOURCE_UID_LABEL).is_none_or(|source| source != uid) => {
                Failure {
                    error: Error::terminal(format!(
                        "ProvisioningRequest {} exists on the O-Cloud and is not this request's: choose another metadata.name, or \
                     have that one removed",
                        self.place
                    )),
                    name_taken: true,
                }
            }
            Ok(_) => conflict.into(),
            Err(error) => error.into(),
        }
    }

    /// The request is the last thing that knows of its ProvisioningRequest, so the O-Cloud itself is asked once more; the
    /// cache may lag behind a write of a former leader.
    async fn nothing_is_left(&self, uid: &str) -> Result<(), Error> {
        let params = ListParams::default().labels(&format!("{}={uid}", focom::SOURCE_UID_LABEL)).limit(1);
        let everywhere = Api::<RemoteRequest>::all_with(self.connection.client().clone(), &self.open.kind);
        let left = apply::limited("look for leftovers", everywhere.list_metadata(&params)).await;
        match left.map_err(|error| self.explain(error))?.items.first() {
            None => Ok(()),
            Some(left) => {
                Err(Error::transient(format!("ProvisioningRequest {} is still on the O-Cloud", left.name_any())))
            }
        }
    }

    /// Puts an error into words that a requester may read, and lets the O-Cloud prove that it is there if it did not answer.
    fn explain(&self, error: Error) -> Error {
        let origin = error.source().and_then(|cause| cause.source()).and_then(|origin| origin.downcast_ref());
        match origin {
            Some(kube::Error::Api(status)) if status.code == 404 => Error::transient(format!(
                "ProvisioningRequest {}: the O-Cloud has no such namespace: make it there, or correct oCloudNamespace",
                self.place
            )),
            Some(kube::Error::Api(_)) => error.context(format!("ProvisioningRequest {}", self.place)),
            Some(other) => {
                self.connection.doubt();
                Error::transient(Fault::of(other).message)
            }
            None if error.class() == Class::Transient => {
                self.connection.doubt();
                Error::transient(Fault::silent().message)
            }
            None => error,
        }
    }
}

/// Whether the name belongs to another request of this SMO, which the cache tells.
pub fn is_taken(remote: Option<&Remote>, uid: &str) -> bool {
    remote.and_then(|remote| remote.request.as_deref()).is_some_and(|found| !is_of(found, uid))
}
