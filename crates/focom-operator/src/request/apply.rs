//! Carries a plan out, one write after the other.

use std::error::Error as _;

use kube::api::{ListParams, Preconditions};
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt as _};
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::conditions::focom::reason;
use o2ims_types::names::{self, focom};
use operator_kit::controller::{Class, Error};
use operator_kit::write::apply::{self, MetadataPatch, Precondition};
use operator_kit::write::finalizer;
use serde_json::Value;

use super::adopt;
use super::observe::{Observed, Relation, Remote, exists, relation};
use super::plan::{Step, as_seen, is_abandoned, is_orphaned, manifest};
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

/// Carries out `steps` in order, up to the first that fails, or that has taken a ProvisioningRequest: what that says, the next
/// reconcile sees. Returns the name of what was taken.
///
/// # Errors
/// The first failure.
pub async fn apply(
    context: &Context,
    request: &FocomProvisioningRequest,
    observed: &Observed,
    remote: Option<&Remote>,
    steps: &[Step],
) -> Result<Option<String>, Failure> {
    let (uid, expectations) = (&observed.uid, &context.expectations);
    let api = Api::<FocomProvisioningRequest>::namespaced(context.client.clone(), &observed.namespace);
    let site = remote.and_then(|remote| Site::of(request, remote));
    for step in steps {
        match (step, &site) {
            (Step::AddFinalizer, _) => {
                finalizer::add_finalizer(&api, request, focom::FINALIZER, focom::FIELD_MANAGER).await?;
            }
            (Step::RemoveFinalizer, site) => {
                if let (Some(site), false) = (site, is_abandoned(request) || is_orphaned(request)) {
                    if expectations.may_come_late(uid) {
                        let message = "a write that the O-Cloud has not answered may be carried out late: the request stays for a minute after it";
                        return Err(Error::transient(message).into());
                    }
                    site.nothing_is_left(uid).await?;
                }
                finalizer::remove_finalizer(&api, request, focom::FINALIZER, focom::FIELD_MANAGER).await?;
            }
            (Step::RemoveSendAgain, _) => {
                let annotations = [(focom::SEND_AGAIN_ANNOTATION.to_owned(), None)].into();
                let patch = MetadataPatch { annotations, ..MetadataPatch::default() };
                // The revision is that of the one with this UID.
                let revision = request.resource_version().unwrap_or_default();
                apply::patch_metadata(&api, &request.name_any(), &revision, &patch, focom::FIELD_MANAGER).await?;
            }
            (Step::Create(manifest), Some(site)) => {
                let written = match site.write(manifest, Precondition::MustNotExist).await {
                    Err(Failure { error, .. }) if error.class() == Class::Conflict => {
                        site.look_whose(request, manifest, &context.watches.requests, error).await
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
            (Step::Take(manifest, of), Some(site)) => {
                expectations.wrote_remote(uid, &site.write(manifest, Precondition::Uid(of)).await?);
                return Ok(Some(site.name.clone()));
            }
            (Step::Adopt, Some(site)) => match site.adopt(request, observed, &context.watches.requests).await {
                Err(failure) if !is_abandoned(request) => return Err(failure),
                Ok(Some(taken)) => {
                    expectations.wrote_remote(uid, &taken);
                    return Ok(Some(taken.name_any()));
                }
                _ => {}
            },
            (Step::Unprotect(of, revision), Some(site)) => match site.unprotect(of, revision).await {
                Err(failure) if !is_abandoned(request) => return Err(failure),
                _ => {}
            },
            (Step::Delete(of), Some(site)) => match site.delete(of).await {
                Err(failure) if !is_abandoned(request) => return Err(failure),
                _ => expectations.deleted_remote(uid),
            },
            (
                Step::Create(_)
                | Step::Change(..)
                | Step::Take(..)
                | Step::Adopt
                | Step::Unprotect(..)
                | Step::Delete(_),
                None,
            ) => {}
        }
    }
    Ok(None)
}

/// Where the ProvisioningRequest is.
struct Site<'a> {
    connection: &'a Connection,
    open: &'a Open,
    api: Api<RemoteRequest>,
    name: String,
    /// Empty where ProvisioningRequests have no namespaces.
    namespace: String,
    place: String,
}

/// What was sent from a newer state of the request is not overwritten by an older one that lost sight of it.
fn not_outdated(request: &FocomProvisioningRequest, wanted: &Value, found: &RemoteRequest) -> Result<(), Failure> {
    let judged = adopt::outdated(request, wanted, found).unwrap_or(Ok(()));
    judged.map_err(|refusal| Failure::lasting(refusal.reason, refusal.message))
}

impl<'a> Site<'a> {
    fn of(request: &FocomProvisioningRequest, remote: &'a Remote) -> Option<Self> {
        let (connection, open) = (remote.found.connection.as_deref()?, remote.open()?);
        let name = remote.name(request);
        let client = connection.client().clone();
        let (api, place) = match open.namespace(request.o_cloud().0) {
            Some(namespace) => (Api::namespaced_with(client, namespace, &open.kind), format!("{namespace}/{name}")),
            None => (Api::all_with(client, &open.kind), name.clone()),
        };
        let namespace = open.namespace(request.o_cloud().0).unwrap_or_default().to_owned();
        Some(Self { connection, open, api, name, namespace, place })
    }

    async fn write(&self, manifest: &Value, precondition: Precondition<'_>) -> Result<RemoteRequest, Failure> {
        let result = apply::apply(&self.api, manifest, focom::FIELD_MANAGER, precondition).await;
        result.map_err(|error| self.explain(error))
    }

    async fn delete(&self, uid: &str) -> Result<(), Failure> {
        let same = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        apply::delete(&self.api, &self.name, same).await.map_err(|error| self.explain(error))
    }

    /// What has the name is not in the cache. It is ours, new or without the mark by which the cache knows it: then it is what
    /// was to be made. Or it is somebody else's, which does not change by waiting.
    async fn look_whose(
        &self,
        request: &FocomProvisioningRequest,
        manifest: &Value,
        requests: &Store<FocomProvisioningRequest>,
        conflict: Error,
    ) -> Result<RemoteRequest, Failure> {
        let look = apply::with_timeout("look at what exists", self.api.get_opt(&self.name)).await;
        let Some(found) = look.map_err(|error| self.explain(error))? else { return Err(conflict.into()) };
        match relation(&found, request, &self.open.smo, |uid| exists(requests, uid)) {
            Relation::Own => {
                not_outdated(request, manifest, &found)?;
                self.write(manifest, Precondition::Uid(&found.uid().unwrap_or_default())).await
            }
            // The cache is about to have it.
            Relation::Left => Err(conflict.into()),
            other => match adopt::judge(request, manifest, &found, &other) {
                Ok(()) => Err(conflict.into()),
                Err(refusal) => Err(Failure::lasting(refusal.reason, refusal.message)),
            },
        }
    }

    /// Looks for what the annotation names, and takes it. `None` if the request is being deleted and there is no such thing.
    async fn adopt(
        &self,
        request: &FocomProvisioningRequest,
        observed: &Observed,
        requests: &Store<FocomProvisioningRequest>,
    ) -> Result<Option<RemoteRequest>, Failure> {
        let mut found = Vec::new();
        for name in focom::remote_requests(&request.name_any()) {
            let look = apply::with_timeout("look at what exists", self.api.get_opt(&name)).await;
            if let Some(remote) = look.map_err(|error| self.explain(error))? {
                let relation = relation(&remote, request, &self.open.smo, |uid| exists(requests, uid));
                found.push((remote, relation));
            }
        }
        let deleting = request.metadata.deletion_timestamp.is_some();
        let word = adopt::word(request).filter(|word| *word != focom::ADOPT_DRY_RUN);
        // Its own may have lost the mark by which the cache knows it.
        let named = found.iter().find(|(remote, _)| word.is_some() && remote.metadata.uid.as_deref() == word);
        let meant = named.or_else(|| found.iter().find(|(_, relation)| *relation == Relation::Own));
        let chosen = meant.or_else(|| {
            // What is deleted has no use for another one than it names, or than another operator has sent for it.
            let is_sent = word.is_none() && adopt::sent_by_another(request).is_some();
            let any = (!deleting || is_sent).then_some(&found)?;
            any.iter().find(|(_, relation)| *relation != Relation::Other).or(any.first())
        });
        let Some((remote, relation)) = chosen else {
            let refusal = adopt::nothing_to_adopt(request);
            return if deleting { Ok(None) } else { Err(Failure::lasting(refusal.reason, refusal.message)) };
        };
        let wanted = manifest(request, observed, self.open, &remote.name_any());
        adopt::judge(request, &wanted, remote, relation)
            .map_err(|refusal| Failure::lasting(refusal.reason, refusal.message))?;
        not_outdated(request, &wanted, remote)?;
        let uid = remote.uid().unwrap_or_default();
        self.write(&as_seen(wanted, remote), Precondition::Uid(&uid)).await.map(Some)
    }

    async fn unprotect(&self, uid: &str, revision: &str) -> Result<(), Failure> {
        let annotations = [(names::DELETION_PROTECTION_ANNOTATION.to_owned(), Some("false".to_owned()))].into();
        let patch = MetadataPatch { annotations, ..MetadataPatch::default() };
        // The revision is that of the one with this UID.
        tracing::info!(uid, "the protection from deletion is taken off, as the request says");
        let result = apply::patch_metadata(&self.api, &self.name, revision, &patch, focom::FIELD_MANAGER).await;
        result.map(drop).map_err(|error| self.explain(error))
    }

    /// The request is the last thing that knows of its ProvisioningRequest, so the O-Cloud itself is asked once more: the cache may
    /// lag behind a write of a former leader, or not know it for lack of a label.
    async fn nothing_is_left(&self, uid: &str) -> Result<(), Failure> {
        let params = ListParams::default().labels(&format!("{}={uid}", focom::SOURCE_UID_LABEL)).limit(1);
        let everywhere = Api::<RemoteRequest>::all_with(self.connection.client().clone(), &self.open.kind);
        let left = apply::with_timeout("look for leftovers", everywhere.list_metadata(&params)).await;
        let Some(left) = left.map_err(|error| self.explain(error))?.items.into_iter().next() else { return Ok(()) };
        if left.name_any() == self.name
            && left.namespace().unwrap_or_default() == self.namespace
            && left.metadata.deletion_timestamp.is_none()
        {
            self.delete(&left.uid().unwrap_or_default()).await?;
        }
        let (name, namespace) = (left.name_any(), left.namespace().unwrap_or_default());
        let message = if name == self.name && namespace == self.namespace {
            format!("ProvisioningRequest {} is still on the O-Cloud", self.place)
        } else {
            format!(
                "ProvisioningRequest {name} of namespace {namespace:?} on the O-Cloud has the label {} of this request, which stays as long \
                 as that does: take the label off there, or delete that ProvisioningRequest",
                focom::SOURCE_UID_LABEL
            )
        };
        Err(Error::transient(message).into())
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
                    403 if is_policy(&status.message) => Failure::lasting(reason::REFUSED, verdict()),
                    403 if status.message.contains(TERMINATING) => transient(
                        reason::IN_PROGRESS,
                        format!(
                            "{what}: its namespace is being deleted on the O-Cloud, and takes nothing new until it is made anew"
                        ),
                    ),
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

/// How an API server says that a namespace takes nothing new.
const TERMINATING: &str = "because it is being terminated";

/// Whether a policy of the O-Cloud refuses the write, and not the lack of a right.
fn is_policy(message: &str) -> bool {
    message.contains("ValidatingAdmissionPolicy") && message.contains("denied request")
}
