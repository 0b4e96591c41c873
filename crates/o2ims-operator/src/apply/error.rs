//! What a write ran into, as its user is told: with the object, and with what to do.

use cluster_api::Kind;
use cluster_api::byoh::HOST_WEBHOOK;
use operator_kit::controller::{Error, LASTING_CONFLICT_ADVICE};

use crate::provisioner::step::DryRun;

/// The error, with the object that it is about.
pub fn naming(error: Error, kind: Kind, namespace: &str, name: &str) -> Error {
    error.context(format!("{} {namespace}/{name}", kind.name()))
}

/// The error of a write to a ByoHost.
pub fn of_host(error: Error, namespace: &str, name: &str) -> Error {
    let error = naming(error, Kind::ByoHost, namespace, name);
    if error.is_refused_by_webhook(HOST_WEBHOOK) {
        error.advice("apply deploy/byoh/webhook-exemption.yaml")
    } else {
        error
    }
}

/// The API server would not create an object, as a dry run has shown before hosts are claimed for it.
pub fn would_be_refused(error: Error, namespace: &str, dry_run: &DryRun) -> Error {
    let (kind, name) = (&dry_run.resource.kind, dry_run.object["metadata"]["name"].as_str().unwrap_or_default());
    // What else is refused, such as by a policy of the site, is not the setting's fault.
    let wrong = dry_run.settings.iter().find(|setting| error.message().contains(setting.path));
    let error = error.context(format!(
        "{}: not claimed, because {kind} {namespace}/{name} would be refused (dry run)",
        dry_run.hosts
    ));
    match wrong {
        Some(setting) => error.advice(format!("correct {}", setting.source)),
        None => error,
    }
}

/// The name of a part of the cluster is taken by an object that does not belong to the request.
pub fn taken(kind: &str, namespace: &str, name: &str) -> Error {
    Error::transient(format!(
        "{kind} {namespace}/{name} exists already and is not this request's; remove it, or use another clusterName"
    ))
}

/// A part for which a Cluster was to be created again does not exist any more.
pub fn gone(kind: Kind, namespace: &str, name: &str) -> Error {
    Error::conflict(format!("{} {namespace}/{name} is gone, so no Cluster is created for it", kind.name()))
}

/// Something of a request that was to be gone is left.
pub fn left(kind: Kind, namespace: &str, name: &str) -> Error {
    Error::transient(format!("{} {namespace}/{name} still exists, so this request stays until it is gone", kind.name()))
}

/// A conflict that happens at every try.
pub fn lasting(conflict: Error) -> Error {
    conflict.advice(LASTING_CONFLICT_ADVICE)
}
