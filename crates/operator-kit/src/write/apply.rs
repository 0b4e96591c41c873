//! Writes of objects: server-side apply, deletes and metadata patches, each with a precondition and a time limit.
//!
//! Objects are applied and not created, because an apply whose answer was lost can be repeated. Messages of errors do
//! not name the object: the caller adds it.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write as _},
    future::Future,
    time::Duration,
};

use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::{ApiResource, DynamicObject, PartialObjectMeta},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::controller::error::{Error, is_not_found};

/// Limit of one call, above the client's own limit for one request.
const CALL_LIMIT: Duration = Duration::from_secs(20);

/// No stored object has this revision (the first write to etcd is revision 2): an update with it conflicts with every
/// object that exists, while a create ignores it. `"0"` means "any revision" for built-in kinds that allow
/// unconditional updates.
const NONEXISTENT_REVISION: &str = "1";

/// What must hold on the server; otherwise an apply ends in [`Error::Conflict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition<'a> {
    /// Create or update.
    None,
    /// Create only: an object of this name is not changed.
    MustNotExist,
    /// Update only, and only the object with this UID.
    Uid(&'a str),
}

/// An API of a kind that is known at run time only; `namespace` is `None` for cluster-scoped kinds and for all
/// namespaces.
pub fn dynamic_api(client: &Client, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

/// Sixteen hexadecimal digits that are the same for the same content: `serde_json` sorts the fields of an object.
pub fn content_hash(content: &Value) -> String {
    hexadecimal(&Sha256::digest(content.to_string())[..8])
}

/// The SHA-256 of a text, as `sha256sum` prints it.
pub fn sha256(text: &str) -> String {
    hexadecimal(&Sha256::digest(text))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// Runs a call with a time limit of 20 s and classifies its error; `what` says in the message what was attempted.
pub async fn with_timeout<T>(what: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Ok(result) => result.map_err(|error| Error::from(error).context(what)),
        Err(_) => Err(Error::transient(format!("{what}: no answer within {} s", CALL_LIMIT.as_secs()))),
    }
}

/// Applies `object`, which must carry `apiVersion`, `kind`, `metadata.name` and only the fields that `manager` owns.
/// Ownership of these is forced; fields that `manager` owned before and no longer sends are removed.
///
/// Returns the object as stored. Errors: [`Error::Conflict`] if the precondition does not hold, [`Error::Terminal`]
/// if the object is invalid, [`Error::Transient`] if the kind is missing or the server is unavailable.
pub async fn apply<K>(api: &Api<K>, object: &Value, manager: &str, precondition: Precondition<'_>) -> Result<K, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    send_apply(api, object, PatchParams::apply(manager).force(), precondition).await
}

/// Has the API server check whether it would take what [`apply`] sends, and stores nothing. Admission takes place as it would: policies,
/// quotas and webhooks. A webhook with side effects cannot be called in a dry run, and the API server refuses the dry run, not the object
/// (`apiserver/pkg/admission/plugin/webhook/errors`, `NewDryRunUnsupportedErr`): that is no error, but nothing more is known then.
///
/// Errors: those of [`apply`].
pub async fn dry_run<K>(
    api: &Api<K>,
    object: &Value,
    manager: &str,
    precondition: Precondition<'_>,
) -> Result<(), Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let params = PatchParams { dry_run: true, ..PatchParams::apply(manager).force() };
    match send_apply(api, object, params, precondition).await {
        Err(error) if cannot_be_tried(&error) => Ok(()),
        result => result.map(drop),
    }
}

/// Whether a webhook cannot be called in a dry run.
fn cannot_be_tried(error: &Error) -> bool {
    error.message().contains("answered 400: admission webhook \"")
        && error.message().contains("does not support dry run")
}

async fn send_apply<K>(
    api: &Api<K>,
    object: &Value,
    params: PatchParams,
    precondition: Precondition<'_>,
) -> Result<K, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let kind = object["kind"].as_str().unwrap_or("object");
    let Some(name) = object["metadata"]["name"].as_str() else {
        return Err(Error::terminal(format!("cannot apply a {kind} without metadata.name")));
    };
    let guarded = match precondition {
        Precondition::None => None,
        Precondition::MustNotExist => Some(("resourceVersion", NONEXISTENT_REVISION)),
        Precondition::Uid(uid) => Some(("uid", uid)),
    };
    match guarded {
        None => with_timeout("apply", api.patch(name, &params, &Patch::Apply(object))).await,
        Some((field, value)) => {
            let mut object = object.clone();
            object["metadata"][field] = Value::from(value);
            with_timeout("apply", api.patch(name, &params, &Patch::Apply(&object))).await
        }
    }
}

/// Deletes the object of this name if `preconditions` hold; dependants are deleted in the background. Finalizers may
/// keep the object for a while. An object that does not exist is a success.
///
/// Errors: [`Error::Conflict`] if the object has changed, or the name belongs to another one now.
pub async fn delete<K>(api: &Api<K>, name: &str, preconditions: Preconditions) -> Result<(), Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let params = DeleteParams::background().preconditions(preconditions);
    let call = async {
        match api.delete(name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if is_not_found(&status) => Ok(()),
            Err(error) => Err(error),
        }
    };
    with_timeout("delete", call).await
}

/// Labels and annotations to set (`Some`) or to remove (`None`); others stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataPatch {
    /// Labels by key.
    pub labels: BTreeMap<String, Option<String>>,
    /// Annotations by key.
    pub annotations: BTreeMap<String, Option<String>>,
}

/// Changes labels and annotations of an object that another party owns, if it still has `resource_version`.
///
/// Errors: [`Error::Conflict`] if the object has changed.
pub async fn patch_metadata<K>(
    api: &Api<K>,
    name: &str,
    resource_version: &str,
    patch: &MetadataPatch,
    manager: &str,
) -> Result<PartialObjectMeta<K>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut metadata = json!({ "resourceVersion": resource_version });
    if !patch.labels.is_empty() {
        metadata["labels"] = serde_json::to_value(&patch.labels)?;
    }
    if !patch.annotations.is_empty() {
        metadata["annotations"] = serde_json::to_value(&patch.annotations)?;
    }
    merge_metadata(api, name, &metadata, manager).await
}

/// Merges into the metadata of an object; `metadata` has the precondition, a UID or a resource version.
///
/// Errors: [`Error::Conflict`] if the object has changed.
pub(crate) async fn merge_metadata<K>(
    api: &Api<K>,
    name: &str,
    metadata: &Value,
    manager: &str,
) -> Result<PartialObjectMeta<K>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    with_timeout("change metadata", send_metadata(api, name, metadata, manager)).await
}

pub(crate) async fn send_metadata<K>(
    api: &Api<K>,
    name: &str,
    metadata: &Value,
    manager: &str,
) -> kube::Result<PartialObjectMeta<K>>
where
    K: Clone + DeserializeOwned + Debug,
{
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    api.patch_metadata(name, &params, &Patch::Merge(json!({ "metadata": metadata }))).await
}
