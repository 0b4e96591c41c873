//! Finalizers, added and removed one at a time.
//!
//! `kube::runtime::finalizer` is not used: it combines the write with the control flow of a reconcile.

use std::fmt::Debug;

use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{
    controller::error::{Error, is_not_found},
    write::apply::{send_metadata, with_timeout},
};

/// Adds the finalizer. `Ok(false)` if the object has it already or does not exist; nothing is written then.
///
/// Errors: [`Error::Conflict`] if `object` is outdated, or is being deleted (the API server takes no new finalizer
/// then).
pub async fn add_finalizer<K>(api: &Api<K>, object: &K, finalizer: &str, manager: &str) -> Result<bool, Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    if object.finalizers().iter().any(|present| present == finalizer) {
        return Ok(false);
    }
    if object.meta().deletion_timestamp.is_some() {
        return Err(Error::conflict(format!("{} is being deleted and takes no new finalizer", object.name_any())));
    }
    let finalizers = object.finalizers().iter().map(String::as_str).chain([finalizer]).collect();
    write_finalizers(api, object, finalizers, manager).await
}

/// Removes the finalizer. `Ok(false)` if the object does not have it or does not exist.
///
/// Errors: [`Error::Conflict`] if `object` is outdated.
pub async fn remove_finalizer<K>(api: &Api<K>, object: &K, finalizer: &str, manager: &str) -> Result<bool, Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    if !object.finalizers().iter().any(|present| present == finalizer) {
        return Ok(false);
    }
    let finalizers = object.finalizers().iter().map(String::as_str).filter(|present| *present != finalizer).collect();
    write_finalizers(api, object, finalizers, manager).await
}

/// `Ok(false)` if the object does not exist.
async fn write_finalizers<K>(api: &Api<K>, object: &K, finalizers: Vec<&str>, manager: &str) -> Result<bool, Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    // The whole list is replaced, so the revision protects the entries of other clients.
    let metadata = json!({ "resourceVersion": object.resource_version(), "finalizers": finalizers });
    let name = object.name_any();
    let call = async {
        match send_metadata(api, &name, &metadata, manager).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if is_not_found(&status) => Ok(false),
            Err(error) => Err(error),
        }
    };
    with_timeout(&format!("changing finalizers of {name}"), call).await
}
