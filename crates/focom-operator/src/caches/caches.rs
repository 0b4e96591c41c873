//! The caches of every kind that concerns a request. Reconciles read from here and nowhere else.

use kube::runtime::reflector::{ObjectRef, Store};

use super::o_clouds::OClouds;
use super::requests::Requests;
use super::templates::Templates;
use crate::authorization::Namespace;

/// The caches, each of all namespaces.
#[derive(Clone)]
pub struct Caches {
    /// Requests.
    pub requests: Requests,
    /// OClouds.
    pub o_clouds: OClouds,
    /// TemplateInfos.
    pub templates: Templates,
    /// Namespaces, for their grants and their deletion.
    pub namespaces: Store<Namespace>,
}

impl Caches {
    /// Whether the namespace is being deleted.
    pub fn is_terminating(&self, namespace: &str) -> bool {
        let namespace = self.namespaces.get(&ObjectRef::new(namespace));
        namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
    }
}
