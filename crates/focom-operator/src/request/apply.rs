//! Carries a plan out, one write after the other.

use std::error::Error as _;

use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::conditions::focom::reason;
use o2ims_types::names::focom;
use operator_kit::apply::{self, Precondition};
use operator_kit::outcome::{Class, Error};
use serde_json::Value;

use super::observe::{Observed, Remote, is_of};
use super::plan::{Step, is_abandoned};
use crate::ocloud::connection::{Connection, Open, RemoteRequest};
use crate::ocloud::fault::Fault;
use crate::operator::Context;

/// What was not done, and what it means for the request.
pub struct Failure {
    /// For the next try.
    pub error: Error,
    /// Reason of the condition.
    pub reason: &'static str,
    /// Whether somebody has to act.
    pub lasting: bool,
}

impl Failure {
    fn lasting(reason: &'static str, message: String) -> Self {
        Self { error: Error::terminal(message), reason, lasting: true }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, reason: reason::IN_PROGRESS, lasting: false }
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
                if let (Some(site), false) = (site, is_abandoned(request)) {
                    if let Some(late) = expectations.may_come_late(uid) {
                        let message =
                            format!("a write that was not answered may be carried out for {} s yet", late.as_secs());
                        return Err(Error::transient(message).into());
                    }
                    site.nothing_is_left(uid).await?;
                }
                apply::remove_finalizer(&api, request, focom::FINALIZER, focom::FIELD_MANAGER).await?;
            }
            (Step::Create(manifest), Some(site)) => {
                let written = match site.write(manifest, Precondition::MustNotExist).await {
                    Err(Failure { error, .. }) if error.class() == Class::Conflict => {
                        site.take(manifest, uid, error).await
                    }
                    result => result,
                };
                if written.as_ref().is_err_and(|failure| failure.reason == reason::UNREACHABLE) {
                    expectations.unanswered(uid);
                }
                expectations.wrote_remote(uid, &written?);
            }
            (Step::Change(manifest, of), Some(site)) => {
                expectations.wrote_remote(uid, &site.write(manifest, Precondition::Uid(of)).await?);
            }
            (Step::Delete(of), Some(site)) => match site.delete(of).await {
                Err(failure) if !is_abandoned(request) => return Err(failure),
                _ => expectations.deleted_remote(uid),
            },
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

    async fn write(&self, manifest: &Value, precondition: Precondition<'_>) -> Result<RemoteRequest, Failure> {
        let result = apply::apply(&self.api, manifest, focom::FIELD_MANAGER, precondition).await;
        result.map_err(|error| self.explain(error))
    }

    async fn delete(&self, uid: &str) -> Result<(), Failure> {
        apply::delete(&self.api, &self.name, uid).await.map(drop).map_err(|error| self.explain(error))
    }

    /// What has the name is not in the cache. It is ours, new or without the mark by which the cache knows it: then it is what
    /// was to be made. Or it is somebody else's, which does not change by waiting.
    async fn take(&self, manifest: &Value, uid: &str, conflict: Error) -> Result<RemoteRequest, Failure> {
        let look = apply::limited("look at what exists", self.api.get_metadata_opt(&self.name)).await;
        match look.map_err(|error| self.explain(error))? {
            Some(found) if found.labels().get(focom::SOURCE_UID_LABEL).is_some_and(|source| source == uid) => {
                self.write(manifest, Precondition::Uid(&found.uid().unwrap_or_default())).await
            }
            Some(_) => Err(Failure::lasting(
                reason::NAME_TAKEN,
                format!(
                    "ProvisioningRequest {} exists on the O-Cloud and is not this request's: choose another metadata.name, or \
                     have that one deleted there",
                    self.place
                ),
            )),
            None => Err(conflict.into()),
        }
    }

    /// The request is the last thing that knows of its ProvisioningRequest, so the O-Cloud itself is asked once more: the cache may
    /// lag behind a write of a former leader, or not know it for lack of a label.
    async fn nothing_is_left(&self, uid: &str) -> Result<(), Failure> {
        let params = ListParams::default().labels(&format!("{}={uid}", focom::SOURCE_UID_LABEL)).limit(1);
        let everywhere = Api::<RemoteRequest>::all_with(self.connection.client().clone(), &self.open.kind);
        let left = apply::limited("look for leftovers", everywhere.list_metadata(&params)).await;
        let Some(left) = left.map_err(|error| self.explain(error))?.items.into_iter().next() else { return Ok(()) };
        if left.name_any() == self.name && left.metadata.deletion_timestamp.is_none() {
            self.delete(&left.uid().unwrap_or_default()).await?;
        }
        Err(Error::transient(format!("ProvisioningRequest {} is still on the O-Cloud", left.name_any())).into())
    }

    /// Puts an error into words that a requester may read, and lets the O-Cloud prove that it is there if it did not answer. Of what
    /// the O-Cloud says only its verdict on the ProvisioningRequest is repeated.
    fn explain(&self, error: Error) -> Failure {
        let what = format!("ProvisioningRequest {}", self.place);
        let transient = |reason, message: String| Failure { error: Error::transient(message), reason, lasting: false };
        let origin = error.source().and_then(|cause| cause.source()).and_then(|origin| origin.downcast_ref());
        let silent = |fault: Fault| {
            self.connection.doubt();
            transient(fault.reason, fault.message)
        };
        match origin {
            Some(kube::Error::Api(_)) if error.class() == Class::Conflict => error.context(what).into(),
            Some(kube::Error::Api(status)) => {
                let verdict = || format!("{what}: the O-Cloud refuses it: {}", self.connection.quote(&status.message));
                match status.code {
                    _ if error.is_refused_by_webhook() => Failure::lasting(reason::REFUSED, verdict()),
                    // What is no verdict of an API server is no verdict.
                    400 | 422 if status.reason != NO_STATUS => Failure::lasting(reason::REFUSED, verdict()),
                    403 => Failure {
                        lasting: true,
                        ..transient(
                            reason::FORBIDDEN,
                            format!(
                                "{what}: the O-Cloud does not let the SMO's account write it: give the account its rights there"
                            ),
                        )
                    },
                    404 => transient(
                        reason::IN_PROGRESS,
                        format!(
                            "{what}: the O-Cloud has no such namespace: make it there, or make the request anew with another oCloudNamespace"
                        ),
                    ),
                    code => {
                        transient(reason::IN_PROGRESS, format!("{what}: the O-Cloud answers with an error ({code})"))
                    }
                }
            }
            Some(kube::Error::SerdeError(_)) => {
                transient(reason::IN_PROGRESS, format!("{what}: the O-Cloud's answer cannot be read"))
            }
            Some(other) => silent(Fault::of(other)),
            None if error.class() == Class::Transient => silent(Fault::silent()),
            None => error.into(),
        }
    }
}

/// What kube calls an answer that is not a `Status`, such as a proxy's.
const NO_STATUS: &str = "Failed to parse error data";

/// Whether the name belongs to another request of this SMO, which the cache tells.
pub fn is_taken(remote: Option<&Remote>, uid: &str) -> bool {
    remote.and_then(|remote| remote.request.as_deref()).is_some_and(|found| !is_of(found, uid))
}
