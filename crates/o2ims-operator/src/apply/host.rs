//! Writes to ByoHosts and to the Secrets with their install scripts.

use cluster_api::Kind;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch};
use kube::core::DynamicObject;
use o2ims_types::names;
use operator_kit::controller::Error;
use operator_kit::write::apply::{self, MetadataPatch, Precondition, dynamic_api};
use serde_json::json;

use super::error::of_host;
use super::object::{patch_params, secret_resource};
use super::target::Target;
use crate::caches::version_of;
use crate::expectations::Write;
use crate::provisioner::step::{HostPatch, InstallScripts, InstallSecret, JobOrder, Reattachment};

fn hosts(target: &Target<'_>) -> Api<DynamicObject> {
    dynamic_api(target.client, &Kind::ByoHost.api_resource(), Some(target.namespace))
}

/// Sets and removes labels and annotations, if the host is still as it was observed.
pub async fn patch(target: &Target<'_>, patch: &HostPatch) -> Result<Write, Error> {
    match &patch.install_secret {
        Some(InstallSecret::Delete(name)) => delete_install_secret(target, &patch.host, name).await?,
        Some(InstallSecret::Keep(name)) => keep_install_secret(target, &patch.host, name).await?,
        None => {}
    }
    let fields = MetadataPatch { labels: patch.labels.clone(), annotations: patch.annotations.clone() };
    let host =
        apply::patch_metadata(&hosts(target), &patch.host, &patch.resource_version, &fields, names::FIELD_MANAGER)
            .await
            .map_err(|error| of_host(error, target.namespace, &patch.host))?;
    Ok(Write::Host { name: patch.host.clone(), version: version_of(&host) })
}

/// Writes the install scripts into a Secret and its name onto the host. The Secret exists before the host's spec names it, so that the
/// agent finds it.
pub async fn give_install_scripts(target: &Target<'_>, scripts: &InstallScripts) -> Result<Write, Error> {
    let Target { client, namespace, .. } = target;
    let (name, host) = (&scripts.name, &scripts.host);
    if let Some(former) = &scripts.replaces {
        delete_install_secret(target, host, former).await?;
    }
    // The annotation is written before the Secret exists, so that no Secret is forgotten.
    let hosts = hosts(target);
    let patch = MetadataPatch {
        annotations: [(names::INSTALL_SECRET_ANNOTATION.to_owned(), Some(name.clone()))].into(),
        ..MetadataPatch::default()
    };
    let marked = apply::patch_metadata(&hosts, host, &scripts.resource_version, &patch, names::FIELD_MANAGER)
        .await
        .map_err(|error| of_host(error, namespace, host))?;
    let secrets = dynamic_api(client, &secret_resource(), Some(namespace));
    apply::apply(&secrets, &scripts.secret, names::FIELD_MANAGER, Precondition::None)
        .await
        .map_err(|error| error.context(format!("Secret {namespace}/{name}")))?;
    let fields = scripts.references(marked.metadata.resource_version.as_deref().unwrap_or_default());
    let (fields, params) = (Patch::Merge(fields), patch_params());
    let found = apply::with_timeout("name the install scripts", hosts.patch(host, &params, &fields))
        .await
        .map_err(|error| of_host(error, namespace, host))?;
    Ok(Write::Host { name: host.clone(), version: version_of(&found) })
}

/// Writes a job into a Secret and its id onto the host. The Secret comes first, so that the host finds it.
pub async fn give_job(target: &Target<'_>, order: &JobOrder) -> Result<Write, Error> {
    let Target { client, namespace, .. } = target;
    let secrets = dynamic_api(client, &secret_resource(), Some(namespace));
    apply::apply(&secrets, &order.secret, names::FIELD_MANAGER, Precondition::None)
        .await
        .map_err(|error| error.context(format!("Secret {namespace}/{}", names::job_secret(&order.host))))?;
    let fields = MetadataPatch {
        annotations: [(names::JOB_ANNOTATION.to_owned(), Some(order.job.clone()))].into(),
        ..MetadataPatch::default()
    };
    let host =
        apply::patch_metadata(&hosts(target), &order.host, &order.resource_version, &fields, names::FIELD_MANAGER)
            .await
            .map_err(|error| of_host(error, namespace, &order.host))?;
    Ok(Write::Host { name: order.host.clone(), version: version_of(&host) })
}

/// Attaches a host to its Machine. The status comes first: an agent that saw a machine without it would bootstrap.
pub async fn reattach(target: &Target<'_>, reattachment: &Reattachment) -> Result<Write, Error> {
    let (name, namespace) = (&reattachment.host, target.namespace);
    let (api, params) = (hosts(target), patch_params());
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = Patch::Merge(reattachment.status(&now));
    let known = apply::with_timeout("name the host's machine", api.patch_status(name, &params, &status))
        .await
        .map_err(|error| of_host(error, namespace, name))?;
    let fields = Patch::Merge(reattachment.fields(known.metadata.resource_version.as_deref().unwrap_or_default()));
    let host = apply::with_timeout("attach the host to its machine", api.patch(name, &params, &fields))
        .await
        .map_err(|error| of_host(error, namespace, name))?;
    Ok(Write::Host { name: name.clone(), version: version_of(&host) })
}

/// Removes the mark of the request from an install Secret; its owner is the ByoHost.
async fn keep_install_secret(target: &Target<'_>, host: &str, name: &str) -> Result<(), Error> {
    let Target { client, namespace, .. } = target;
    if !names::is_install_secret_of(name, host) {
        return Ok(());
    }
    let secrets = dynamic_api(client, &secret_resource(), Some(namespace));
    let (params, fields) = (patch_params(), json!({"metadata": {"labels": {names::REQUEST_UID_LABEL: null}}}));
    let patched = async { Ok(secrets.patch(name, &params, &Patch::Merge(fields)).await) };
    match apply::with_timeout("keep the install scripts", patched).await? {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::from(error).context(format!("Secret {namespace}/{name}"))),
    }
}

/// Deletes an install Secret by its name alone: the operator reads no Secrets, so it knows no UID, and no other client uses such names. An
/// agent may write the annotation with the name, and not only on its own host: a name that is not one of this host's is ignored.
async fn delete_install_secret(target: &Target<'_>, host: &str, name: &str) -> Result<(), Error> {
    let Target { client, namespace, .. } = target;
    if !names::is_install_secret_of(name, host) {
        return Ok(());
    }
    let secrets = dynamic_api(client, &secret_resource(), Some(namespace));
    match apply::with_timeout("delete", async { Ok(secrets.delete(name, &DeleteParams::default()).await) }).await? {
        Ok(_) => Ok(()),
        // platform9's BYOH deletes it by itself.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::from(error).context(format!("Secret {namespace}/{name}"))),
    }
}
