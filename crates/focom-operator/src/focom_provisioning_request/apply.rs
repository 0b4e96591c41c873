//! Carries a plan out, one write after the other.

use kube::{Api, ResourceExt as _};
use o2ims_types::FocomProvisioningRequest;
use o2ims_types::conditions::focom::reason;
use o2ims_types::names::focom;
use operator_kit::controller::Class;
use operator_kit::write::apply::{self, MetadataPatch, Precondition};
use operator_kit::write::finalizer;
use serde_json::Value;

use super::annotations::{orphans_remote, skips_remote_deletion};
use super::observe::Observed;
use super::plan::Step;
use super::remote_api::RemoteApi;
use super::write_error::{WriteError, may_come_late, request_gone};
use crate::context::Context;

/// Carries out `steps` in order, up to the first that fails or has adopted a ProvisioningRequest: the next reconcile
/// continues with it. Returns the name of the ProvisioningRequest that was adopted.
///
/// # Errors
/// Why a write failed.
pub async fn apply(
    context: &Context,
    request: &FocomProvisioningRequest,
    observed: &Observed,
    steps: &[Step],
) -> Result<Option<String>, WriteError> {
    let api = Api::namespaced(context.client.clone(), &observed.namespace);
    let remote = observed.remote.as_ref();
    let remote = remote.and_then(|remote| RemoteApi::new(request, remote, &context.caches.requests));
    let writer = Writer { context, request, uid: &observed.uid, api, remote };
    for step in steps {
        let adopted = writer.write(step).await?;
        if adopted.is_some() {
            return Ok(adopted);
        }
    }
    Ok(None)
}

/// Writes the steps of one request.
struct Writer<'a> {
    context: &'a Context,
    request: &'a FocomProvisioningRequest,
    uid: &'a str,
    api: Api<FocomProvisioningRequest>,
    /// `None` if the O-Cloud cannot be used. A plan has no writes to it then.
    remote: Option<RemoteApi<'a>>,
}

impl Writer<'_> {
    /// Carries out one step. Returns the name of a ProvisioningRequest that was adopted.
    async fn write(&self, step: &Step) -> Result<Option<String>, WriteError> {
        match step {
            Step::AddFinalizer => return self.add_finalizer().await.map(|()| None),
            Step::RemoveFinalizer => return self.remove_finalizer().await.map(|()| None),
            Step::RemoveSendAgain => return self.remove_annotation(focom::SEND_AGAIN_ANNOTATION).await.map(|()| None),
            Step::RemoveLostHosts => return self.remove_annotation(focom::LOST_HOSTS_ANNOTATION).await.map(|()| None),
            _ => {}
        }
        let Some(remote) = &self.remote else { return Ok(None) };
        let expectations = &self.context.expectations;
        match step {
            Step::Create(manifest) => self.create(remote, manifest).await?,
            Step::Update(manifest, uid) => {
                expectations.wrote_remote(self.uid, &remote.write(manifest, Precondition::Uid(uid)).await?);
            }
            Step::Adopt(manifest, uid) => {
                let adopted = self.first(remote.write(manifest, Precondition::Uid(uid))).await?;
                expectations.wrote_remote(self.uid, &adopted);
                return Ok(Some(remote.name().to_owned()));
            }
            Step::FindAndAdopt => {
                expectations.sending(self.uid);
                let adopted = self.unless_skipped(remote.find_and_adopt().await)?.flatten();
                return Ok(adopted.map(|adopted| {
                    expectations.wrote_remote(self.uid, &adopted);
                    adopted.name_any()
                }));
            }
            Step::Unprotect(uid, revision) => {
                self.unless_skipped(remote.unprotect(uid, revision).await)?;
            }
            Step::Delete(uid) => {
                self.unless_skipped(remote.delete(uid).await)?;
                expectations.deleted_remote(self.uid);
            }
            Step::PassOnLostHosts(uid, revision, hosts) => remote.give_up_hosts(uid, revision, hosts).await?,
            Step::AddFinalizer | Step::RemoveFinalizer | Step::RemoveSendAgain | Step::RemoveLostHosts => {}
        }
        Ok(None)
    }

    async fn add_finalizer(&self) -> Result<(), WriteError> {
        if finalizer::add_finalizer(&self.api, self.request, focom::FINALIZER, focom::FIELD_MANAGER).await? {
            return Ok(());
        }
        // Without the finalizer no ProvisioningRequest may be sent: it would not be deleted with the request.
        Err(request_gone(&self.request.name_any()).into())
    }

    /// Carries out a write that makes a ProvisioningRequest that of the request, and remembers whether it was refused: then the O-Cloud has
    /// none of it.
    async fn first<T>(&self, write: impl Future<Output = Result<T, WriteError>>) -> Result<T, WriteError> {
        let expectations = &self.context.expectations;
        expectations.sending(self.uid);
        let result = write.await;
        if result.as_ref().is_err_and(|failed| failed.nothing_written && failed.error.class() != Class::Conflict) {
            expectations.refused(self.uid);
        }
        result
    }

    async fn create(&self, remote: &RemoteApi<'_>, manifest: &Value) -> Result<(), WriteError> {
        let written = match self.first(remote.write(manifest, Precondition::MustNotExist)).await {
            Err(WriteError { error, .. }) if error.class() == Class::Conflict => {
                remote.update_or_reject(manifest, error).await
            }
            result => result,
        };
        let expectations = &self.context.expectations;
        if written.as_ref().is_err_and(|error| error.reason == reason::UNREACHABLE) {
            expectations.unanswered(self.uid);
        }
        expectations.wrote_remote(self.uid, &written?);
        Ok(())
    }

    async fn remove_finalizer(&self) -> Result<(), WriteError> {
        let waits = !skips_remote_deletion(self.request) && !orphans_remote(self.request);
        if let Some(remote) = self.remote.as_ref().filter(|_| waits) {
            if self.context.expectations.may_come_late(self.uid) {
                return Err(may_come_late().into());
            }
            remote.ensure_absent(self.uid).await?;
        }
        finalizer::remove_finalizer(&self.api, self.request, focom::FINALIZER, focom::FIELD_MANAGER).await?;
        Ok(())
    }

    async fn remove_annotation(&self, annotation: &str) -> Result<(), WriteError> {
        let annotations = [(annotation.to_owned(), None)].into();
        let patch = MetadataPatch { annotations, ..MetadataPatch::default() };
        // The revision guards the UID too: another object of this name has another revision.
        let revision = self.request.resource_version().unwrap_or_default();
        apply::patch_metadata(&self.api, &self.request.name_any(), &revision, &patch, focom::FIELD_MANAGER).await?;
        Ok(())
    }

    /// `None` in place of an error, if the request is deleted without waiting for the O-Cloud.
    fn unless_skipped<T>(&self, result: Result<T, WriteError>) -> Result<Option<T>, WriteError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(_) if skips_remote_deletion(self.request) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
