//! What a write ran into, as its user is told: with the object, and with what to do.

use cluster_api::Kind;
use cluster_api::byoh::HOST_WEBHOOK;
use operator_kit::controller::{Class, Error, LASTING_CONFLICT_ADVICE};

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

/// The API server would not create an object, which is known before a host is claimed for it.
pub fn not_taken(error: Error, kind: &str, namespace: &str, name: &str, source: Option<&str>) -> Error {
    let is_about_content = error.class() == Class::Terminal;
    let error = error.context(format!("no host is claimed, because {kind} {namespace}/{name} cannot be created"));
    match source.filter(|_| is_about_content) {
        Some(source) => error.advice(format!("correct {source}")),
        None => error,
    }
}

/// The name of a part of the cluster is taken by an object that does not belong to the request.
pub fn taken(kind: Kind, namespace: &str, name: &str) -> Error {
    Error::transient(format!(
        "{} {namespace}/{name} exists already and is not this request's; remove it, or use another clusterName",
        kind.name()
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
