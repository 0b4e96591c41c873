//! Machines, by the request that they were made for and by their server.

use std::sync::Arc;

use cluster_api::machine::Machine;
use operator_kit::cache::{CachedObjects, Index};

use super::marked::{MarkedObjects, namespace};

/// Machines of clusters that the operator made, by the request that they were made for and by their server.
#[derive(Clone)]
pub struct Machines {
    objects: MarkedObjects<Machine>,
    by_server: Index<(String, String), Machine>,
}

impl Machines {
    /// Adds the indexes.
    pub fn new(objects: &mut CachedObjects<Machine>) -> Self {
        Self {
            objects: MarkedObjects::new(objects),
            by_server: objects.index(|machine: &Machine| {
                machine.server().map(|name| (namespace(machine), name.to_owned())).into_iter().collect()
            }),
        }
    }

    /// The Machines with the mark of the request with this UID.
    pub fn marked(&self, namespace: &str, uid: &str) -> Vec<Arc<Machine>> {
        self.objects.marked(namespace, uid)
    }

    /// The Machines that are a node on the server of this name.
    pub fn on_server(&self, namespace: &str, name: &str) -> Vec<Arc<Machine>> {
        self.by_server.get(&(namespace.to_owned(), name.to_owned()))
    }
}
